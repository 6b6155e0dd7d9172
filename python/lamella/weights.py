"""What samples count: sample weights and class weights, checked and multiplied.

A batch's loss is `sum(w l) / sum(w)` over its rows, as with PyTorch's class weights and in
scikit-learn; weights all one change no bit. A batch whose weights are all 0 has the loss 0, and
its update has no gradient.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .checks import Array
from .losses import Task

ClassWeight = Mapping[int, float] | str | None
"""A weight of each class, 1 for those not named, or "balanced"."""

LARGEST_SUM = 1e300
"""Sums of weights stay finite below this, also times what a loss is scaled by."""


def weights(
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight,
    y: Array,
    task: Task,
    *,
    balance: bool = True,
) -> NDArray[np.float64] | None:
    """Return the weight of each sample `(m,)`, or None where all count the same.

    Parameters
    ----------
    sample_weight : array_like (m,), optional
        Any real dtype, finite, at least 0.
    class_weight : dict or "balanced", optional
        A factor of each class, 1 for those not named; "balanced" is `m / (classes * count)`,
        as scikit-learn's, over the classes that y has.
    y : ndarray
        Checked labels of m samples.
    task : Task
        What y holds.
    balance : bool
        Whether y is the whole data, so that classes can be counted.
    """
    if sample_weight is None and class_weight is None:
        return None
    result = np.ones(len(y))
    if sample_weight is not None:
        result = _of_samples(sample_weight, len(y))
    if class_weight is not None:
        result = result * _of_classes(class_weight, _classes(y, task), task, balance)
    if not np.sum(result) < LARGEST_SUM:
        raise checks.wrong("sample_weight", f"a sum below {LARGEST_SUM:g}", np.sum(result))
    return np.ascontiguousarray(result)


def _of_samples(value: ArrayLike, m: int) -> NDArray[np.float64]:
    """Check sample weights."""
    given = checks.real("sample_weight", value)
    if given.shape != (m,):
        raise checks.wrong("sample_weight", f"shape ({m},)", given.shape)
    checks.finite("sample_weight", given)
    if given.dtype.kind != "b":
        checks.refuse("sample_weight", "numbers of at least 0", given, lambda block: block < 0)
    return given.astype(np.float64)


def _classes(y: Array, task: Task) -> NDArray[np.int64]:
    """Return the class of each sample."""
    if task.targets == "bits" and task.columns > 1:
        expected = "None for several labels a sample (a loss's positive_weight weighs each)"
        raise checks.wrong("class_weight", expected, f"{task.columns} outputs")
    if task.targets not in ("bits", "classes"):
        raise checks.wrong("class_weight", "None for targets that are no classes", "weights")
    return y.reshape(-1).astype(np.int64)


def _of_classes(
    given: object, classes: NDArray[np.int64], task: Task, balance: bool
) -> NDArray[np.float64]:
    """Return each sample's class weight."""
    n = 2 if task.targets == "bits" else task.columns
    if isinstance(given, str):
        if given != "balanced":
            raise checks.wrong("class_weight", 'a dict or "balanced"', repr(given))
        if not balance:
            raise checks.wrong("class_weight", "a dict: one batch does not know the data", given)
        counts = np.bincount(classes, minlength=n)
        present = np.count_nonzero(counts)
        return (len(classes) / (present * np.maximum(counts, 1)))[classes]
    if not isinstance(given, Mapping):
        raise TypeError(f'class_weight: expected a dict or "balanced", got {reprlib.repr(given)}')
    factors = np.ones(n)
    for key, value in given.items():
        if not isinstance(key, int | np.integer | np.bool_) or not 0 <= int(key) < n:
            raise checks.wrong("class_weight", f"classes from 0 to {n - 1}", reprlib.repr(key))
        factors[int(key)] = checks.number(f"class_weight[{int(key)}]", value)
    return factors[classes]
