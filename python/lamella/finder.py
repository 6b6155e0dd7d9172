"""The learning-rate finder: a short training at rising rates, on a copy of the network.

Owns which rates are tried, how their losses are smoothed and read. Promises that the network
stays as it is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks, exact
from ._core import DivergenceError
from .callbacks import Callback
from .checks import Array
from .schedules import Function

if TYPE_CHECKING:
    from .network import Network

__all__ = ["RateSearch", "search"]

TOO_HIGH = 4.0
"""The search ends where the smoothed loss exceeds its least so often."""


@dataclass(frozen=True)
class RateSearch:
    """What rates did to the loss.

    Attributes
    ----------
    rates : ndarray (n,)
        Each step's rate, rising by one factor.
    losses : ndarray (n,)
        Each step's loss, before its update.
    smoothed : ndarray (n,)
        Their exponentially weighted mean.
    suggestion : float or None
        The middle of the eighth of the rates, on the scale of their logarithms, over which the
        smoothed loss falls most; None where it falls over none.
    """

    rates: Array
    losses: Array
    smoothed: Array
    suggestion: float | None


class Recorder(Callback):
    """Keeps each step's loss, and ends the search when it has seen enough."""

    every = 1

    def __init__(self, steps: int, smoothing: float) -> None:
        self.steps, self.smoothing = steps, smoothing
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.mean, self.weight = 0.0, 0.0

    def on_step(self, step: int, loss: float, network: Network) -> bool:
        """Record a loss; True where the rates are used up or too high."""
        self.mean = self.smoothing * self.mean + (1 - self.smoothing) * loss
        self.weight = self.smoothing * self.weight + (1 - self.smoothing)
        self.losses.append(loss)
        self.smoothed.append(self.mean / self.weight)
        return self._is_too_high() or len(self.losses) == self.steps

    def _is_too_high(self) -> bool:
        """Whether the smoothed loss lies far above its least, which may be below zero."""
        least = min(self.smoothed)
        size = least if least > 0 else max(-least, self.smoothed[0] - least)
        return self.smoothed[-1] - least > (TOO_HIGH - 1) * size


def search(
    network: Network,
    X: Any,
    y: Any,
    *,
    low: float,
    high: float,
    steps: int,
    smoothing: float,
    **settings: Any,
) -> RateSearch:
    """Train a copy of the network with rates from low to high; see `Network.find_learning_rate`."""
    low, high = checks.number("low", low, positive=True), checks.number("high", high, positive=True)
    if low >= high:
        raise checks.wrong("low", f"a rate below high, {high:g}", low)
    steps = checks.integer("steps", steps, low=2)
    recorder = Recorder(steps, checks.number("smoothing", smoothing, below=1.0))
    ends = exact.log(np.array([low, high]))
    rates = exact.exp(ends[0] + np.arange(steps) / (steps - 1) * (ends[1] - ends[0]))
    trial = copy.deepcopy(network)
    settings |= {"learning_rate": Function(function=lambda t: float(rates[t]))}
    try:
        trial.fit(X, y, epochs=steps, callbacks=[recorder], progress=False, **settings)
    except DivergenceError:
        if not recorder.losses:
            raise
    smoothed = np.array(recorder.smoothed)
    n = len(smoothed)
    return RateSearch(
        rates[:n], np.array(recorder.losses), smoothed, _steepest(rates[:n], smoothed, steps)
    )


def _steepest(rates: Array, smoothed: Array, steps: int) -> float | None:
    """Return the middle of the window in which the loss falls most.

    The first tenth of the steps, where the smoothed loss is a mean of few, does not count.
    """
    window, first = max(steps // 8, 1), steps // 10
    falls = smoothed[first:-window] - smoothed[first + window :]
    if len(falls) == 0 or falls.max() <= 0:
        return None
    return float(rates[first + int(np.argmax(falls)) + window // 2])
