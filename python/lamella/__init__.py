"""Lamella: dense neural networks trained on CPUs by fused Rust kernels, the same bits every time.

`lamella.functional` has the L-layer functions (features x samples, re-exported here),
`lamella.Network` the model (samples x features), `lamella.reference` the same in pure NumPy.
"""

import sys as _sys

from . import functional as functional
from . import reference as reference
from . import threadpool as threadpool
from ._core import DivergenceError
from ._core import __version__ as __version__
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
from .layers import Dense
from .network import History, Network
from .optimizers import SGD, Adagrad, Adam, AdamW, Lion, Muon, NAdam, RMSprop

if "threadpoolctl" in _sys.modules:
    threadpool.register()

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Dense",
    "DivergenceError",
    "History",
    "L_layer_model",
    "L_model_backward",
    "L_model_forward",
    "Lion",
    "Muon",
    "NAdam",
    "Network",
    "RMSprop",
    "compute_cost",
    "gradient_check",
    "initialize_parameters_deep",
    "predict",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
    "update_parameters_deep",
]
