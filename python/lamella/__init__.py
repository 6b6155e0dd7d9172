"""Lamella: dense neural networks trained on CPUs by fused Rust kernels, the same bits every time.

`lamella.functional` has the L-layer functions (features x samples, re-exported here),
`lamella.Network` the model (samples x features), `lamella.reference` the same in pure NumPy.

Everything is imported when it is first used, so that the import stays light.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import threadpool as threadpool
from ._core import DivergenceError
from ._core import __version__ as __version__

if _TYPE_CHECKING:
    from . import callbacks as callbacks
    from . import functional as functional
    from . import layers as layers
    from . import losses as losses
    from . import many as many
    from . import metrics as metrics
    from . import network as network
    from . import optimizers as optimizers
    from . import plots as plots
    from . import reference as reference
    from . import schedules as schedules
    from .callbacks import Callback, StopTraining
    from .comparison import Comparison, TorchSide, compare
    from .diagnosis import Diagnosis
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
    from .network import History, Network, load
    from .optimizers import SGD, Adagrad, Adam, AdamW, Lion, Muon, NAdam, RMSprop
    from .stopping import EarlyStopping

_MODULES = (
    "callbacks",
    "datasets",
    "functional",
    "layers",
    "losses",
    "many",
    "metrics",
    "network",
    "optimizers",
    "plots",
    "reference",
    "schedules",
)

_HOMES = {
    "callbacks": "Callback StopTraining",
    "comparison": "Comparison TorchSide compare",
    "diagnosis": "Diagnosis",
    "functional": """
        L_layer_model L_model_backward L_model_forward compute_cost gradient_check
        initialize_parameters_deep predict relu sigmoid softmax tanh update_parameters_deep
    """,
    "layers": "BatchNorm Dense LayerNorm",
    "lbfgs": "LBFGS",
    "losses": """
        BinaryCrossEntropy CrossEntropy Focal Hinge Huber MeanAbsoluteError MeanSquaredError
        Poisson Quantile SquaredHinge
    """,
    "many": "Fitted fit_many folds grid sample",
    "metrics": "Metric",
    "network": "History Network load",
    "optimizers": "Adagrad Adam AdamW Lion Muon NAdam RMSprop SGD",
    "stopping": "EarlyStopping",
}
"""The modules and the names that they give the package."""

_LATER = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> _Any:
    """Import a name when it is first used."""
    if name in _MODULES:
        return _import_module(f"{__name__}.{name}")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return all names, also those that are imported later."""
    return sorted({*globals(), *_LATER, *_MODULES})


threadpool.register_when_imported()

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
