"""Metrics: how good answers are, as one number, in NumPy.

Owns the names that `fit(metrics=...)` knows and the check of what else it is given. Promises
plain definitions, those of scikit-learn's functions of the same names. Leaves to the model what
its answers are.

Alphabet: m samples, n outputs. Targets y and predictions have the shapes of `Network.predict`'s
answers: `(m,)`, or `(m, n)` for several sigmoid or identity outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks
from .checks import Array

__all__ = ["Metric"]


@dataclass(frozen=True)
class Metric:
    """A number that tells how good answers are.

    Parameters
    ----------
    function : callable
        Of the targets and the predictions: labels for softmax and sigmoid, values for identity.
    name : str, optional
        Its name in the history; None is the function's.
    probabilities : bool, default False
        Whether the function gets probabilities `(m, n_outputs)` (values, for identity) instead.
    greater_is_better : bool, optional
        What `mode="auto"` of early stopping and of a plateau takes; None is not known.
    """

    function: Callable[[Array, Array], Any]
    name: str | None = None
    probabilities: bool = False
    greater_is_better: bool | None = None

    def __post_init__(self) -> None:
        """Check the settings; take the function's name."""
        if not callable(self.function):
            raise TypeError(f"metrics: expected a function, got {type(self.function).__name__}")
        name = self.name
        if name is None:
            name = getattr(self.function, "__name__", type(self.function).__name__)
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {type(name).__name__}")
        object.__setattr__(self, "name", name)
        checks.flag("probabilities", self.probabilities)
        if self.greater_is_better is not None:
            checks.flag("greater_is_better", self.greater_is_better)

    def __call__(self, y: Array, prediction: Array, probabilities: Array) -> float:
        """Return the number; a `TypeError` where the function returns none."""
        value = self.function(y, probabilities if self.probabilities else prediction)
        try:
            return float(value)
        except (TypeError, ValueError):
            kind = type(value).__name__
            raise TypeError(f"metrics: expected a number from {self.name}, got {kind}") from None


def accuracy(y: Array, prediction: Array) -> float:
    """Return the share of right labels, over samples and outputs."""
    return float(np.mean(y == prediction))


def balanced_accuracy(y: Array, prediction: Array) -> float:
    """Return the mean over the classes that occur of the share of each that was found."""
    if y.ndim == 2:
        return float(
            np.mean([balanced_accuracy(*pair) for pair in zip(y.T, prediction.T, strict=True)])
        )
    classes, index = np.unique(y, return_inverse=True)
    found = np.bincount(index, weights=y == prediction, minlength=len(classes))
    return float(np.mean(found / np.bincount(index)))


def log_loss(y: Array, probabilities: Array) -> float:
    """Return the mean of `-log p` of the true class, p held off 0 by its dtype's epsilon.

    Of several sigmoid outputs, each is a question of its own: the mean over samples and outputs.
    """
    p = probabilities
    if y.ndim == 1 and p.shape[1] > 1:
        p = p[np.arange(len(y)), y]
    else:
        p = np.where(y.reshape(p.shape) > 0.5, p, 1 - p)
    return float(np.mean(-np.log(np.maximum(p, np.finfo(p.dtype).eps), dtype=np.float64)))


def r2(y: Array, prediction: Array, w: Array | None = None) -> float:
    """Return the coefficient of determination, its mean over outputs.

    An output whose target is constant counts 1 if met exactly, else 0; samples count w (m,).
    """
    y, prediction = (a.reshape(len(a), -1).astype(np.float64) for a in (y, prediction))
    each = np.ones((1, 1)) if w is None else w[:, None]
    residual = np.sum(each * (y - prediction) ** 2, axis=0)
    total = np.sum(each * (y - np.average(y, axis=0, weights=w)) ** 2, axis=0)
    varies = total > 0
    score = np.where(varies, 1 - residual / np.where(varies, total, 1), residual == 0)
    return float(np.mean(score))


def mean_absolute_error(y: Array, prediction: Array) -> float:
    """Return the mean of `|y - prediction|`, over samples and outputs."""
    return float(np.mean(np.abs(np.subtract(y, prediction, dtype=np.float64))))


def mean_squared_error(y: Array, prediction: Array) -> float:
    """Return the mean of `(y - prediction)**2`, over samples and outputs."""
    return float(np.mean(np.subtract(y, prediction, dtype=np.float64) ** 2))


LABELS, PROBABILITIES, VALUES = ("labels", "probabilities"), ("probabilities",), ("values",)
"""The kinds of answers that a metric is for."""

DEFAULT = {"probabilities": ["accuracy"], "labels": ["accuracy"], "values": ["r2"], "quantiles": []}
"""The names that validation has, by kind of answers."""

BY_NAME: dict[str, tuple[Metric, tuple[str, ...]]] = {
    "accuracy": (Metric(accuracy, greater_is_better=True), LABELS),
    "balanced_accuracy": (Metric(balanced_accuracy, greater_is_better=True), LABELS),
    "log_loss": (Metric(log_loss, probabilities=True, greater_is_better=False), PROBABILITIES),
    "r2": (Metric(r2, greater_is_better=True), VALUES),
    "mean_absolute_error": (Metric(mean_absolute_error, greater_is_better=False), VALUES),
    "mean_squared_error": (Metric(mean_squared_error, greater_is_better=False), VALUES),
}
"""Each name's metric, and the kinds of answers that it is for."""

SHORT = {"mae": "mean_absolute_error", "mse": "mean_squared_error"}
"""Other names; the history has the one that was asked for."""


def checked(metrics: Sequence[str | Metric | Callable[..., Any]], kind: str) -> list[Metric]:
    """Return the metrics of these names and functions, which fit the answers and differ by name."""
    if isinstance(metrics, str | bytes) or not isinstance(metrics, Sequence):
        raise TypeError(f"metrics: expected a list, got {type(metrics).__name__}")
    found = [_checked(metric, kind) for metric in metrics]
    names = [metric.name for metric in found]
    for name in names:
        if names.count(name) > 1 or name in ("loss", "learning_rate"):
            raise checks.wrong("metrics", "a name of its own for each", name)
    return found


def _checked(metric: object, kind: str) -> Metric:
    """Return one metric."""
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        return Metric(metric)  # type: ignore[arg-type]
    allowed = [name for name, (_, kinds) in BY_NAME.items() if kind in kinds]
    allowed += [short for short, name in SHORT.items() if name in allowed]
    if metric not in allowed:
        names = f"for {kind} some of {', '.join(allowed)}, or" if allowed else f"for {kind}"
        raise checks.wrong("metrics", f"{names} functions and lamella.Metric objects", repr(metric))
    known = BY_NAME[SHORT.get(metric, metric)][0]
    return Metric(known.function, metric, known.probabilities, known.greater_is_better)
