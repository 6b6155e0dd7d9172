"""What samples count: sample weights and class weights, checked and multiplied.

A batch's loss is `sum(w l) / sum(w)` over its rows, as with PyTorch's class weights and in
scikit-learn; weights all one change no bit. A batch whose weights are all 0 has the loss 0, and
its update has no gradient.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, matrices
from .checks import Array
from .losses import Task

Weights = Mapping[int, float] | str | None
ClassWeight = Weights | Sequence[Weights]
"""A weight of each class, 1 for those not named, or "balanced"; of several labels, one for each."""

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
    class_weight : dict, "balanced" or list of them, optional
        A factor of each class, 1 for those not named; "balanced" is `m / (classes * count)`,
        as scikit-learn's, over the classes that y has. Of several labels a sample has the product
        of their factors, as in scikit-learn's `compute_sample_weight`.
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
        result = result * _of_classes(class_weight, y, task, balance)
    if not np.sum(result) < LARGEST_SUM:
        raise checks.wrong("sample_weight", f"a sum below {LARGEST_SUM:g}", np.sum(result))
    return np.ascontiguousarray(result)


def _of_samples(value: ArrayLike, m: int) -> NDArray[np.float64]:
    """Check sample weights."""
    given = matrices.real("sample_weight", value)
    if given.shape != (m,):
        raise checks.wrong("sample_weight", f"shape ({m},)", given.shape)
    matrices.finite("sample_weight", given)
    if given.dtype.kind != "b":
        matrices.refuse("sample_weight", "numbers of at least 0", given, lambda block: block < 0)
    return given.astype(np.float64)


def _of_classes(given: object, y: Array, task: Task, balance: bool) -> NDArray[np.float64]:
    """Return each sample's class weight: of several labels, the product of theirs."""
    if task.targets not in ("bits", "classes"):
        raise checks.wrong("class_weight", "None for targets that are no classes", "weights")
    labels = y.astype(np.int64)
    if task.targets == "classes" or task.columns == 1:
        n = 2 if task.targets == "bits" else task.columns
        return _of_output("class_weight", given, labels.reshape(-1), n, balance)
    if not isinstance(given, str):
        if isinstance(given, Mapping):
            expected = (
                f'"balanced" or {task.columns} dicts, one for each of several labels'
                " (a loss's positive_weight weighs each)"
            )
            raise checks.wrong("class_weight", expected, reprlib.repr(given))
        given = checks.listed("class_weight", given, "dicts")
        if len(given) != task.columns:
            raise checks.wrong("class_weight", f"{task.columns} dicts, one a label", len(given))
    result = np.ones(len(y))
    for k, column in enumerate(labels.T):
        one, name = (given, "class_weight") if isinstance(given, str) else (
            given[k], f"class_weight[{k}]")  # fmt: skip
        if one is not None:
            result *= _of_output(name, one, column, 2, balance)
    return result


def _of_output(
    name: str, given: object, classes: NDArray[np.int64], n: int, balance: bool
) -> NDArray[np.float64]:
    """Return each sample's class weight by one output, whose classes are below n."""
    if isinstance(given, str):
        if given != "balanced":
            raise checks.wrong(name, 'a dict or "balanced"', repr(given))
        if not balance:
            raise checks.wrong(name, "a dict: one batch does not know the data", given)
        counts = np.bincount(classes, minlength=n)
        present = np.count_nonzero(counts)
        return (len(classes) / (present * np.maximum(counts, 1)))[classes]
    if not isinstance(given, Mapping):
        raise TypeError(f'{name}: expected a dict or "balanced", got {reprlib.repr(given)}')
    factors = np.ones(n)
    for key, value in given.items():
        if not isinstance(key, int | np.integer | np.bool_) or not 0 <= int(key) < n:
            raise checks.wrong(name, f"classes from 0 to {n - 1}", reprlib.repr(key))
        factors[int(key)] = checks.number(f"{name}[{int(key)}]", value)
    return factors[classes]
