"""What every learning-rate schedule has, and its place in a training: times, plateaus, rates.

Owns the base class of `schedules.py`, where the formulas stand. Promises to import quickly, as all
trainings pass here and few have a schedule.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import checks
from .exact import Floats

if TYPE_CHECKING:
    from .schedules import ReduceOnPlateau


class Clock(NamedTuple):
    """When a stretch of steps begins: the updates and epochs made, and the place in the epoch."""

    steps: int
    epochs: int
    batch: int
    batches: int
    """Of an epoch."""

    def times(self, per: str, count: int) -> Floats:
        """Return t of the next `count` steps, float64 `(count,)`."""
        ahead = np.arange(count)
        times = (
            self.steps + ahead
            if per == "step"
            else self.epochs + (self.batch + ahead) // self.batches
        )
        return times.astype(np.float64)


@dataclass(frozen=True)
class Schedule:
    """What all schedules have.

    Parameters
    ----------
    learning_rate : float, optional
        The rate that the schedule scales; None is the optimizer's own, or its default where the
        schedule stands in the optimizer.
    per : {"step", "epoch"}
        What t counts.
    """

    learning_rate: float | None = None
    per: str = field(default="step", kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        rate = self.learning_rate
        self._store(
            learning_rate=None if rate is None else checks.number("learning_rate", rate),
            per=checks.choice("per", self.per, ("step", "epoch")),
        )

    def _store(self, **checked: object) -> None:
        """Store checked settings in a frozen object."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def total_missing(self) -> bool:
        """Whether a total was left out, so that it is the fit's length."""
        return "total" in vars(self) and vars(self)["total"] is None

    def with_total(self, total: int) -> Schedule:
        """Return the schedule with a total where it was left out."""
        return replace(self, total=total) if self.total_missing else self  # type: ignore[call-arg]

    @property
    def plateau(self) -> ReduceOnPlateau | None:
        """The part that needs to hear how training goes."""
        return None

    def base(self, default: float) -> float:
        """Return the rate that is scaled, given the optimizer's."""
        return default if self.learning_rate is None else self.learning_rate

    def at(self, t: Floats, base: float) -> Floats:
        """Return the rates at the times t `(n,)`, float64 `(n,)`."""
        raise NotImplementedError


SMALLEST_REDUCTION = 1e-8
"""A plateau leaves the rate as it is where it would lose less, as PyTorch's `eps`."""


@dataclass
class Plateau:
    """What `ReduceOnPlateau` has seen: the rate it has come to, the best number, two counts."""

    schedule: ReduceOnPlateau
    rate: float
    greater_is_better: bool
    best: float = field(init=False)
    bad: int = 0
    cooling: int = 0

    def __post_init__(self) -> None:
        """Start from the worst number."""
        self.best = -np.inf if self.greater_is_better else np.inf

    def observe(self, value: float) -> None:
        """Hear an epoch's number."""
        if self._is_better(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.bad = 0
        if self.bad > self.schedule.patience:
            reduced = max(self.rate * self.schedule.factor, self.schedule.minimum)
            if self.rate - reduced > SMALLEST_REDUCTION:
                self.rate = reduced
            self.cooling, self.bad = self.schedule.cooldown, 0

    def _is_better(self, value: float) -> bool:
        """Return whether a number beats the best one by the threshold."""
        sign = 1 if self.greater_is_better else -1
        margin = self.schedule.threshold
        if self.schedule.relative:
            bound = self.best * (1 + sign * margin)
        else:
            bound = self.best + sign * margin
        return value > bound if self.greater_is_better else value < bound


BLOCK = 1 << 12
"""Rates computed together: their intermediate numbers stay in the first caches."""


@dataclass(frozen=True)
class Timed:
    """A schedule at its place in a fit: with its total, and with the time of its start."""

    schedule: Schedule
    base: float
    origin: int = 0

    @classmethod
    def of(cls, schedule: Schedule, base: float, clock: Clock, epochs: int) -> Timed:
        """Place a schedule in a fit of so many epochs that begins at `clock`."""
        if not schedule.total_missing:
            return cls(schedule, base)
        steps = schedule.per == "step"
        total = max(epochs * clock.batches if steps else epochs, 1)
        return cls(schedule.with_total(total), base, clock.steps if steps else clock.epochs)

    def rates(self, clock: Clock, count: int) -> Floats:
        """Return the rates of the next `count` steps, float64 `(count,)`."""
        times = clock.times(self.schedule.per, count) - self.origin
        blocks = [times[i : i + BLOCK] for i in range(0, max(count, 1), BLOCK)]
        return np.concatenate([self.schedule.at(block, self.base) for block in blocks])


def checked(value: object) -> float | Schedule:
    """Return a rate: a number of at least 0, a schedule, or a function of t as one."""
    if isinstance(value, Schedule):
        return value
    if callable(value):
        from .schedules import Function

        return Function(function=value)
    return checks.number("learning_rate", value)
