"""The core's networks behind an estimator: made of its fitted attributes, kept while they fit.

Owns the way between `coefs_`, `intercepts_` and `_optimizer` and the core. Promises that a user who
writes into the fitted attributes is answered from what was written, and that an optimizer's state
outlives copies and pickles. Leaves the decisions of training to `perceptron.py`.

Shapes: the core's `W[l] (n[l], n[l-1])` is the transpose of `coefs_[l - 1] (n[l-1], n[l])`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core

Array = NDArray[Any]
Layer = tuple[int, str, float, bool, tuple[str, float, float] | None, float, bool]
"""Units, activation and its parameter, biases, normalisation, dropout, residual."""
Key = tuple[int, tuple[Layer, ...], str, str]
"""What a network is made of: features, layers, loss, precision."""
Spec = tuple[str, dict[str, float]]
"""An optimizer, as the core takes it."""

ACTIVATIONS = {"logistic": "sigmoid", "exp": "exponential"}
"""scikit-learn's names that the core spells otherwise."""

LOSSES = {
    "softmax": "bounded_cross_entropy",
    "logistic": "bounded_binary_cross_entropy",
    "identity": "squared_error",
    "exp": "poisson_deviance",
}
"""The core's loss for each `out_activation_`, as scikit-learn reports it."""


class Engine:
    """The networks of one estimator: one that trains, and one for answers that it cannot give."""

    def __init__(self) -> None:
        self._trainer: _Held | None = None
        self._answerer: _Held | None = None
        self._owner: Any = None
        self.is_training = False
        """Whether the trainer's parameters are ahead of the estimator's."""

    # --- training ---

    def trainer(self, estimator: Any) -> _core.Network:
        """Return the network that trains, with the estimator's parameters."""
        key = key_of(estimator, _dtype(estimator.coefs_))
        if self._trainer is None or self._trainer.key != key:
            if self._owner is not None:
                vars(self._owner).update(vars(self.exported(self._owner)))
                self._owner = None
            self._trainer = _Held(key)
        if not self._trainer.holds(estimator):
            self._trainer.load(estimator)
        return self._trainer.network

    def own(self, optimizer: Any) -> None:
        """Go on with the state of scikit-learn's `optimizer`, which the core may have already."""
        if self._owner is optimizer or self._trainer is None:
            return
        state = vars(optimizer).pop("_state", None)
        if state is None:
            self._trainer.network.reset()
        else:
            self._trainer.network.set_state(*state)
        self._owner = optimizer

    def exported(self, optimizer: Any) -> Any:
        """Return a copy of `optimizer` with its state, or itself, if the core has none of it."""
        if optimizer is not self._owner or self._trainer is None:
            return optimizer
        optimizer = copy(optimizer)
        optimizer._state = self._trainer.network.get_state()
        return optimizer

    def write_out(self, estimator: Any) -> None:
        """Write the trainer's parameters into the estimator's arrays."""
        assert self._trainer is not None
        arrays = self._trainer.network.get_parameters()
        assign(estimator.coefs_, [weights.T for weights in arrays[0::2]])
        assign(estimator.intercepts_, arrays[1::2])
        self._trainer.remember(estimator)

    # --- answers ---

    def outputs(self, estimator: Any, X: Any) -> Array:
        """Return what the output layer returns for X (m, n_features), `(m, n_outputs)`."""
        dtype = _dtype(estimator.coefs_)
        if precision(estimator.dtype) is None:
            dtype = "float32" if np.result_type(X.dtype, dtype).itemsize <= 4 else "float64"
        held = self._answers(key_of(estimator, dtype), estimator)
        return held.network.outputs(readable(X), logits=False, threads=estimator.threads)

    def _answers(self, key: Key, estimator: Any) -> _Held:
        """Return a network with the estimator's parameters; other calls may be using old ones."""
        trainer, answerer = self._trainer, self._answerer
        fits = trainer is not None and trainer.key == key
        if trainer is not None and fits and (self.is_training or trainer.holds(estimator)):
            return trainer
        if answerer is None or answerer.key != key or not answerer.holds(estimator):
            answerer = _Held(key)
            answerer.load(estimator)
            self._answerer = answerer
        return answerer


class _Held:
    """A network, what it is made of, and copies of the parameters that it was given."""

    def __init__(self, key: Key) -> None:
        features, layers, loss, precision = key
        self.key = key
        self.network = _core.Network(features, layers, (loss, []), precision)
        self._copies: list[Array] = []

    def holds(self, estimator: Any) -> bool:
        """Whether it has the estimator's parameters."""
        arrays = [*estimator.coefs_, *estimator.intercepts_]
        pairs = zip(arrays, self._copies, strict=False)
        return len(arrays) == len(self._copies) and all(np.array_equal(a, b) for a, b in pairs)

    def load(self, estimator: Any) -> None:
        """Take the estimator's parameters over."""
        pairs = zip(estimator.coefs_, estimator.intercepts_, strict=True)
        arrays = [array for weights, biases in pairs for array in (np.asarray(weights).T, biases)]
        self.network.set_parameters([np.asarray(array) for array in arrays])
        self.remember(estimator)

    def remember(self, estimator: Any) -> None:
        """Copy what the estimator's arrays, and the network, hold now."""
        arrays = [*estimator.coefs_, *estimator.intercepts_]
        if len(self._copies) != len(arrays):
            self._copies = [np.array(array) for array in arrays]
            return
        for held, array in zip(self._copies, arrays, strict=True):
            np.copyto(held, array)


def key_of(estimator: Any, dtype: str) -> Key:
    """Return what a network for the estimator's parameters is made of."""
    mixed = precision(estimator.dtype) == "bfloat16" and dtype == "float32"
    names = [estimator.activation] * (len(estimator.coefs_) - 1) + [estimator.out_activation_]
    sizes = [int(weights.shape[1]) for weights in estimator.coefs_]
    layers = [_plain_layer(n, name) for n, name in zip(sizes, names, strict=True)]
    loss = LOSSES[estimator.out_activation_]
    return int(estimator.coefs_[0].shape[0]), tuple(layers), loss, "bfloat16" if mixed else dtype


def _plain_layer(units: int, name: str) -> Layer:
    """Return a layer as scikit-learn has them: biases, and nothing more."""
    return units, ACTIVATIONS.get(name, name), 0.0, True, None, 0.0, False


PRECISIONS = ("float32", "float64", "bfloat16")
"""What an estimator's `dtype` may be, by name."""


def precision(dtype: Any) -> str | None:
    """Return the name of an estimator's `dtype`, which may be one of NumPy's types or dtypes."""
    return dtype if dtype is None or isinstance(dtype, str) else np.dtype(dtype).name


def spec(optimizer: Any) -> Spec:
    """Return scikit-learn's optimizer as the core takes it."""
    if hasattr(optimizer, "beta_1"):
        return "adam_hat", {
            "learning_rate": float(optimizer.learning_rate_init),
            "beta1": float(optimizer.beta_1),
            "beta2": float(optimizer.beta_2),
            "epsilon": float(optimizer.epsilon),
        }
    return "velocity", {
        "learning_rate": float(optimizer.learning_rate),
        "momentum": float(optimizer.momentum),
        "nesterov": float(optimizer.nesterov),
    }


def readable(X: Any) -> Any:
    """Return X as the core reads it: an array of plain numbers, or sparse rows."""
    if hasattr(X, "tocsr"):
        X = X.tocsr()
    if X.dtype.kind not in "fiub" or X.dtype.itemsize > 8 or not X.dtype.isnative:
        X = X.astype(np.float64)
    return X


def _dtype(coefs: Sequence[Array]) -> str:
    """Return the core's dtype for parameters."""
    return "float32" if all(weights.dtype == np.float32 for weights in coefs) else "float64"


def assign(into: list[Array], arrays: Sequence[Array]) -> None:
    """Write arrays in place, where they can be written to, as scikit-learn's updates do."""
    for i, array in enumerate(arrays):
        if into[i].flags.writeable and into[i].dtype == array.dtype:
            into[i][...] = array
        else:
            into[i] = np.array(array, order="C")
