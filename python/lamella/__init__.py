"""Lamella: dense neural networks trained on CPUs by fused Rust kernels, the same bits every time.

`lamella.functional` has the L-layer functions (features x samples, re-exported here),
`lamella.Network` the model (samples x features), `lamella.reference` the same in pure NumPy.
"""

import sys as _sys

from . import functional as functional
from . import reference as reference
from . import schedules as schedules
from . import threadpool as threadpool
from ._core import DivergenceError
from ._core import __version__ as __version__
from .callbacks import Callback, StopTraining
from .functional import (
    L_layer_model,
    L_model_backward,
    L_model_forward,
    compute_cost,
    gradient_check,
    initialize_parameters_deep,
    predict,
    relu,
    sigmoid,
    softmax,
    tanh,
    update_parameters_deep,
)
from .layers import BatchNorm, Dense, LayerNorm
from .lbfgs import LBFGS
from .losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    Hinge,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    Quantile,
    SquaredHinge,
)
from .many import Fitted, fit_many, folds, grid, sample
from .metrics import Metric
from .network import History, Network
from .optimizers import SGD, Adagrad, Adam, AdamW, Lion, NAdam, RMSprop
from .stopping import EarlyStopping

load = Network.load

if "threadpoolctl" in _sys.modules:
    threadpool.register()

__all__ = [
    "LBFGS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Callback",
    "CrossEntropy",
    "Dense",
    "DivergenceError",
    "EarlyStopping",
    "Fitted",
    "Focal",
    "Hinge",
    "History",
    "Huber",
    "L_layer_model",
    "L_model_backward",
    "L_model_forward",
    "LayerNorm",
    "Lion",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "NAdam",
    "Network",
    "Poisson",
    "Quantile",
    "RMSprop",
    "SquaredHinge",
    "StopTraining",
    "compute_cost",
    "fit_many",
    "folds",
    "gradient_check",
    "grid",
    "initialize_parameters_deep",
    "load",
    "predict",
    "relu",
    "sample",
    "sigmoid",
    "softmax",
    "tanh",
    "update_parameters_deep",
]
