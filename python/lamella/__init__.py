"""Lamella: dense neural networks trained on CPUs by fused Rust kernels, the same bits every time.

`lamella.functional` has the L-layer functions (features x samples, re-exported here),
`lamella.Network` the model (samples x features), `lamella.reference` the same in pure NumPy.
"""

import sys as _sys
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import functional as functional
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
from .metrics import Metric
from .network import History, Network
from .optimizers import SGD, Adagrad, Adam, AdamW, Lion, Muon, NAdam, RMSprop
from .stopping import EarlyStopping

if _TYPE_CHECKING:
    from . import reference as reference
    from . import schedules as schedules
    from .comparison import Comparison, TorchSide, compare
    from .diagnosis import Diagnosis
    from .many import Fitted, fit_many, folds, grid, sample

load = Network.load

_LATER = {
    "Comparison": "comparison",
    "Diagnosis": "diagnosis",
    "Fitted": "many",
    "TorchSide": "comparison",
    "compare": "comparison",
    "fit_many": "many",
    "folds": "many",
    "grid": "many",
    "reference": "reference",
    "sample": "many",
    "schedules": "schedules",
}
"""What is imported when it is first used, so that the package's import stays light."""


def __getattr__(name: str) -> _Any:
    """Import what belongs to the package but is not always used."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _import_module(f"{__name__}.{_LATER[name]}")
    value = module if name in ("reference", "schedules") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return all names, also those that are imported later."""
    return sorted({*globals(), *_LATER})


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
    "Comparison",
    "CrossEntropy",
    "Dense",
    "Diagnosis",
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
    "Muon",
    "NAdam",
    "Network",
    "Poisson",
    "Quantile",
    "RMSprop",
    "SquaredHinge",
    "StopTraining",
    "TorchSide",
    "compare",
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
