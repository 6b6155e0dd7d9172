"""L-BFGS: the loss of all rows, minimised by SciPy on one vector of all parameters.

Owns the optimizer's settings, the flat view and the call of `scipy.optimize.minimize`, which the
reference shares. Promises that the parameters are in the end, whatever ended it, those of the last
iterate. Leaves loss and gradient to the caller: in the model they are the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import checks
from .checks import Array

__all__ = ["LBFGS"]

Function = Callable[[Array], tuple[float, Array]]
"""The loss at all parameters (n,), and its gradient (n,)."""


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS: steps along a direction that the last gradients suggest, with a line search.

    A batch method: every evaluation is of all rows, so `batch_size` and `shuffle` of `fit` have no
    meaning for it, and are not looked at. What has no place in it is refused: `learning_rate`,
    `clip_value`, `clip_norm`, `average`, callbacks of steps, and of a network `l1`, which has no
    gradient at zero, `max_norm`, dropout and batch normalisation. An iteration counts as an epoch
    of `fit`, for its history, whose `loss` is the one before it, as everywhere, for validation,
    early stopping and callbacks, and for a time limit, which ends a fit with a whole
    iteration; the network's own counters of steps and epochs stay, and so does the state
    of another optimizer. `diagnose=True` measures before and after. Each call starts with an empty
    memory. In float32 the line search ends early, where the loss's last bits decide; float64 goes
    further.

    Parameters
    ----------
    max_iter : int, optional
        Iterations at most; by default `fit`'s `epochs`.
    max_fun : int, default 15000
        Evaluations at most.
    tolerance : float, default 1e-5
        It ends where no entry of the gradient is larger than this (or the loss improves by less
        than 2e-9 of itself).
    history : int, default 10
        Steps that it remembers.

    References
    ----------
    Liu, Nocedal (1989), "On the limited memory BFGS method for large scale optimization"; Byrd, Lu,
    Nocedal, Zhu (1995), "A limited memory algorithm for bound constrained optimization".
    """

    max_iter: int | None = None
    max_fun: int = 15000
    tolerance: float = 1e-5
    history: int = 10

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.max_iter is not None:
            checks.integer("max_iter", self.max_iter)
        checks.integer("max_fun", self.max_fun, low=1)
        checks.number("tolerance", self.tolerance)
        checks.integer("history", self.history, low=1)


def is_meant(optimizer: object) -> bool:
    """Whether a user asks for L-BFGS."""
    return isinstance(optimizer, LBFGS) or (isinstance(optimizer, str) and optimizer == "lbfgs")


def checked(optimizer: object, epochs: int, l1: float, **refused: object) -> LBFGS:
    """Return the settings with `max_iter` filled in; other arguments have to be None."""
    rule = optimizer if isinstance(optimizer, LBFGS) else LBFGS()
    epochs = checks.integer("epochs", epochs)
    for name, value in refused.items():
        if value is not None:
            raise checks.wrong(name, "None with lbfgs, which has no use for it", value)
    if l1 != 0:
        raise checks.wrong("l1", "0 with lbfgs, which needs a gradient everywhere", l1)
    return rule if rule.max_iter is not None else replace(rule, max_iter=epochs)


def minimise(
    function: Function,
    start: Array,
    rule: LBFGS,
    heard: Callable[[int, float], bool] | None,
    keep: Callable[[Array], object],
) -> Array:
    """Minimise a function; return its value before each iteration, `(iterations,)`.

    Parameters
    ----------
    function : callable
    start : ndarray (n,)
        float64.
    rule : LBFGS
        With its `max_iter`.
    heard : callable, optional
        Called after every iteration, with its number from 0 and the loss before it; True ends the
        minimisation.
    keep : callable
        Called with the last iterate (n,): before `heard`, and in the end, whatever ended it.

    Raises
    ------
    ModuleNotFoundError
        If SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'optimizer: "lbfgs" needs SciPy, which is not installed; the others do not'
        ) from error
    iterate, losses = start, list[float]()

    def noted(parameters: Array) -> tuple[float, Array]:
        loss, gradient = function(parameters)
        if not losses:
            losses.append(loss)
        return loss, gradient

    def iterated(intermediate_result: Any) -> None:
        nonlocal iterate
        iterate = intermediate_result.x.copy()
        losses.append(float(intermediate_result.fun))
        if heard is not None:
            keep(iterate)
            if heard(len(losses) - 2, losses[-2]):
                raise StopIteration

    options = {
        "maxiter": rule.max_iter,
        "maxfun": rule.max_fun,
        "gtol": rule.tolerance,
        "maxcor": rule.history,
    }
    try:
        if rule.max_iter:
            minimize(noted, start, jac=True, method="L-BFGS-B", callback=iterated, options=options)
    finally:
        keep(iterate)
    return np.array(losses[:-1])


def flat(arrays: Iterable[Array]) -> Array:
    """Return all numbers of the arrays, one after the other, in float64."""
    return np.concatenate([array.ravel() for array in arrays], dtype=np.float64)


def views(numbers: Array, shapes: Iterable[tuple[int, ...]]) -> list[Array]:
    """Return views of a vector in these shapes, one after the other."""
    arrays, begin = [], 0
    for shape in shapes:
        end = begin + int(np.prod(shape))
        arrays.append(numbers[begin:end].reshape(shape))
        begin = end
    return arrays
