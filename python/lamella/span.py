"""Gradient descent with fewer numbers, where samples have more features than there are samples.

A first layer's gradient is `dW = dZ X^T`: gradient descent moves W only within the space that the
samples span. With `X = Q L^T`, Q (n, m) orthonormal, a network on the rows of L (m, m) that starts
at `V = W Q` has the same Z, and `dV = dZ L = dW Q`: its descent is that of W, in m numbers a unit
rather than n. What W has beside the span stays. (The representer theorem: Schölkopf, Herbrich,
Smola, "A generalized representer theorem", 2001.)

That holds for rules that are linear in the gradient and ask nothing of single weights: SGD,
momentum, Nesterov, clipping by norm, moving averages; any batches, losses and layers behind. For
penalties of squares and bounds of lengths, V has one number more a unit, with the length of what
its w has beside the span, of a feature that all samples have 0 of: it shrinks as that does. All of
it holds in exact arithmetic; here it is float64, whose rounding has cost up to a digit more than it
does in plain descent (measured).

Q is never made. L is the Cholesky factor of `X^T X`, whose rounding is all that Z sees of it.
`V L^T = Z` gives V, and `A L = V - V0` what each sample has added: `W = W0 + A X^T`. Large products
are the core's and the rest is element by element: the same bits on every machine, for every number
of threads.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _core
from .checks import Array
from .course import CourseTask
from .layers import Dense, core_layer
from .optimizers import SGD, Optimizer

Floats = NDArray[np.float64]

MOST_SAMPLES = 2048
"""Beyond, the matrices of samples x samples would be tens of megabytes each."""

LEAST_SAVED = 1e8
"""Multiplications and additions that must be saved: a few times what the fixed costs are worth."""

BLOCK = 64
"""Columns that are eliminated before a product brings the others up to date."""

NUMBERS_AT_ONCE = 1 << 22
"""Of X, in float64, while products of samples are made: 32 MiB."""

SMALLEST, LARGEST = 1e-250, 1e250
"""Squares of lengths that leave room for products and quotients."""

LEAST_OF_ITS_OWN, LEAST_WITH_LENGTHS = 1e-8, 1e-5
"""What a sample's square has outside of the span of those before it, as a share: rounding is
divided by its root in W, and by itself in lengths of W, where penalties or bounds ask for these."""

MARGIN = 8
"""How many times the operations before and after must go into those of plain descent: they are
slower, the products' for many features most of all."""


def keeps(rule: Optimizer, l1: float, clip_value: object) -> bool:
    """Tell whether updates do not depend on the coordinates that the first layer is held in."""
    return isinstance(rule, SGD) and not l1 and clip_value is None


def pays(dims: tuple[int, ...], m: int, epochs: int, dtype: np.dtype[np.floating]) -> bool:
    """Tell, by counting multiplications, whether `epochs` on m samples end sooner in their span."""
    n, h = dims[:2]
    behind = 3.0 * sum(a * b for a, b in pairwise(dims[1:]))
    plain = epochs * m * (2.0 * n * h + behind) * (0.5 if dtype == np.float32 else 1.0)
    there_and_back = m * m * (0.5 * n + m / 3 + 2.0 * h) + 2.0 * m * n * h
    saved = plain - MARGIN * there_and_back - epochs * m * (2.0 * m * h + behind)
    return m <= MOST_SAMPLES and saved > max(plain / 3, LEAST_SAVED)


class Span(NamedTuple):
    """A course task, and the same in coordinates of its samples' span.

    Attributes
    ----------
    whole : CourseTask
    inside : CourseTask
        In float64, m + 1 features a sample: its X is the transpose of L and a row of zeros.
    threads : int or None
        As for `lamella.L_layer_model`.
    """

    whole: CourseTask
    inside: CourseTask
    threads: int | None

    def restored(self, arrays: list[Array]) -> list[Array] | None:
        """Return the parameters that were trained inside in the whole task's coordinates.

        None where these leave the range of float64.
        """
        W, L = self.whole.start["W1"], self.inside.X[:-1].T
        (V0, beside0), (V, beside) = map(_parted, (self.inside.start["W1"], arrays[0]))
        with np.errstate(all="ignore"):  # the caller learns of it, or has infinity
            left = np.divide(beside, beside0, out=np.ones_like(beside), where=beside0 > 0)
            moved = (V - left * V0).T
            # L^T A^T = moved, from its last row on, is a system with zeros where L has them.
            added = _solved(L[::-1, ::-1].T, moved[::-1], self.threads)
            if added is None:
                return None
            first = left * W + _product(self.whole.X, added[::-1].T, self.threads).T
            return [array.astype(W.dtype, copy=False) for array in (first, *arrays[1:])]


def _parted(W: Array) -> tuple[Array, Array]:
    """Return what weights have inside the span, and the lengths beside it as a column."""
    return W[:, :-1], W[:, -1:]


def reduced(task: CourseTask, threads: int | None, *, lengths: bool) -> Span | None:
    """Return a task with its samples' span; None where float64 does not hold that as well as W.

    That is where squares leave its range, or samples are nearly combinations of others. With
    `lengths`, those of W's rows matter.
    """
    products = _products_of_samples(task.X, threads)
    squares = products.diagonal()
    if not np.all(squares < LARGEST) or np.any(task.X[:, squares < SMALLEST]):
        return None
    L = _factor(products, task.X, LEAST_WITH_LENGTHS if lengths else LEAST_OF_ITS_OWN, threads)
    if L is None:
        return None
    start = {name: array.astype(np.float64) for name, array in task.start.items()}
    first = _first_weights(task.X, start["W1"], L, threads)
    if first is None:
        return None
    start["W1"] = first
    X = np.concatenate([L.T, np.zeros((1, len(L)))])
    inside = task._replace(X=X, start=start, dims=(len(X), *task.dims[1:]))
    return Span(task, inside, threads)


def _first_weights(X: Array, W: Floats, L: Floats, threads: int | None) -> Floats | None:
    """Return W in the coordinates of the span, and the lengths beside it as a last column.

    These lengths are differences of squares. They are kept above rounding, so that what is beside
    the span can shrink; that lengthens no row by more than its own rounding.
    """
    with np.errstate(over="ignore"):
        own = _squares(W)
    if not np.all(own < LARGEST) or np.any(W[own[:, 0] < SMALLEST]):
        return None
    V = _solved(L, _product(X.T, W, threads), threads)
    if V is None:
        return None
    beside = np.sqrt(np.maximum(own - _squares(V.T), np.finfo(np.float64).eps * own))
    return np.concatenate([V.T, beside], axis=1)


def _squares(W: Array) -> Array:
    """Return each row's sum of squares as a column, added up one after the other."""
    return np.array([[np.cumsum(w * w)[-1]] for w in W])


def _product(rows: Array, weights: Array, threads: int | None) -> Floats:
    """Return `rows @ weights.T`, in float64, by the core."""
    units, inputs = weights.shape
    layer = core_layer(Dense(units, "identity", bias=False))
    net = _core.Network(inputs, [layer], ("squared_error", []), "float64")
    net.set_parameters([weights])
    return net.outputs(rows, logits=True, threads=threads)


def _products_of_samples(X: Array, threads: int | None) -> Floats:
    """Return `X^T X` (m, m), block by block; what is above its diagonal is not to be read."""
    n, m = X.shape
    products = np.zeros((m, m))
    size = max(1, min(m, NUMBERS_AT_ONCE // n))
    for first in range(0, m, size):
        block = slice(first, first + size)
        weights = X[:, block].T.astype(np.float64)
        products[first:, block] = _product(X[:, first:].T, weights, threads)
    return products


def _factor(K: Floats, X: Array, least: float, threads: int | None) -> Floats | None:
    """Return L, lower triangular, with `L L^T = K`, of K's lower triangle, which is overwritten.

    A sample of zeros, or equal to one before it, adds nothing to the span: L has a column of
    zeros there. None where another's square has less than a share of `least` of its own.
    """
    squares = K.diagonal().copy()
    L = np.zeros_like(K)
    for first in range(0, len(K), BLOCK):
        last = min(first + BLOCK, len(K))
        for k in range(first, last):
            if K[k, k] > least * squares[k]:
                L[k:, k] = K[k:, k] / np.sqrt(K[k, k])
                K[k + 1 :, k + 1 : last] -= L[k + 1 :, k, None] * L[k + 1 : last, k]
            elif not _repeats(X, squares, L, k):
                return None
        below = L[last:, first:last]
        if below.size:
            K[last:, last:] -= _product(below, below, threads)
    return L


def _repeats(X: Array, squares: Floats, L: Floats, k: int) -> bool:
    """Tell whether sample k is zeros, or equal to one before it."""
    # Rows of L of equal samples are equal, up to the first's own diagonal.
    alike = (squares[:k] == squares[k]) & (L[k, :k] == L.diagonal()[:k]) & (L[k, :k] > 0)
    same = (np.array_equal(X[:, j], X[:, k]) for j in np.flatnonzero(alike))
    return squares[k] == 0 or any(same)


def _solved(L: Floats, B: Floats, threads: int | None) -> Floats | None:
    """Return Y of `L Y = B`, a row of it 0 where L's diagonal is; None if it is not finite."""
    Y = np.array(B)
    diagonal = L.diagonal()
    for first in range(0, len(L), BLOCK):
        last = min(first + BLOCK, len(L))
        for k in range(first, last):
            Y[k] = Y[k] / diagonal[k] if diagonal[k] else 0.0
            Y[k + 1 : last] -= L[k + 1 : last, k, None] * Y[k]
        if not np.all(np.isfinite(Y[first:last])):
            return None
        if last < len(L):
            Y[last:] -= _product(L[last:, first:last], Y[first:last].T, threads)
    return Y
