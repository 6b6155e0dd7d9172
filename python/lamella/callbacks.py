"""Callbacks: Python code that runs between the steps of a fit.

Owns the methods that a callback has. Promises that between two of them the core works alone,
without the interpreter's lock, and that inside them the network can be used: `predict`,
`evaluate`, `parameters`. Leaves to `loop.py` when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from . import checks

if TYPE_CHECKING:
    from .network import History, Network

__all__ = ["Callback", "StopTraining"]


class StopTraining(Exception):
    """Raised in a callback, it ends the fit, whose history is returned as usual."""


class Callback:
    """What a fit calls; a subclass overrides what it needs.

    Attributes
    ----------
    every : int or None
        Steps between calls of `on_step`, which comes where the network's count of steps is a
        multiple; None for no such calls. Each ends one call into the core and begins another,
        which costs some microseconds, and on several threads their start.
    """

    every: int | None = None

    def on_fit_begin(self, network: Network) -> None:
        """Hear that the first step comes next."""

    def on_step(self, step: int, loss: float, network: Network) -> bool | None:
        """Hear of a step.

        Parameters
        ----------
        step : int
            `network.steps`: the updates made so far.
        loss : float
            Of the last step's batch, before its update.
        network : Network

        Returns
        -------
        bool, optional
            True ends the fit, here and now.
        """

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], network: Network) -> bool | None:
        """Hear of an epoch.

        Parameters
        ----------
        epoch : int
            From 0, in this fit.
        logs : mapping of float
            The epoch's numbers: "loss", and what the history's metrics have.
        network : Network

        Returns
        -------
        bool, optional
            True ends the fit.
        """

    def on_fit_end(self, history: History, network: Network) -> None:
        """Hear that all is done, the best parameters restored; not called after an error."""


class EpochFunction(Callback):
    """A plain function as a callback: called as `on_epoch_end`."""

    def __init__(self, function: Callable[[int, Mapping[str, float], Network], object]) -> None:
        self.function = function

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], network: Network) -> bool | None:
        """Call the function; True ends the fit."""
        answer = self.function(epoch, logs, network)
        return isinstance(answer, bool | np.bool_) and bool(answer)


def checked(callbacks: object) -> list[Callback]:
    """Return callbacks as objects; functions hear of epochs."""
    if callbacks is None:
        return []
    if isinstance(callbacks, Callback) or not isinstance(callbacks, list | tuple):
        raise TypeError(f"callbacks: expected a list, got {type(callbacks).__name__}")
    found: list[Callback] = []
    for callback in callbacks:
        if isinstance(callback, Callback):
            if callback.every is not None:
                checks.integer("every", callback.every, low=1)
            found.append(callback)
        elif callable(callback) and not isinstance(callback, type):
            found.append(EpochFunction(callback))
        else:
            raise TypeError(f"callbacks: expected Callback objects or functions, got {callback!r}")
    return found
