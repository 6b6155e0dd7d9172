"""Validation: rows that a fit does not train on, and the numbers they give.

Owns which rows those are. Promises that they depend on the labels, the fraction and the seed
alone, and that each class has its share, to one row.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, wrong


def split(labels: Array, fraction: float, seed: int, *, by_class: bool) -> tuple[Array, Array]:
    """Return the indices of the rows to train on and to validate on, each in ascending order.

    Parameters
    ----------
    labels : ndarray (m,) or (m, n)
    fraction : float
        Of the rows to validate on, rounded to whole rows, at least one.
    seed : int
    by_class : bool
        Whether labels are classes. Rows are shuffled, sorted by class where that is so, and then
        taken at equal distances: a class of c rows gives `c * fraction` of them, rounded up or
        down.
    """
    m = len(labels)
    held = max(round(fraction * m), 1)
    if held >= m:
        raise wrong("validation_fraction", "rows left to train on", f"{held} of {m} for validation")
    order = np.random.RandomState(seed).permutation(m)
    if by_class:
        order = order[np.argsort(labels.reshape(m)[order], kind="stable")]
    places = (2 * np.arange(held) + 1) * m // (2 * held)
    chosen = np.zeros(m, bool)
    chosen[order[places]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
