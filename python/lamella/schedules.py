"""Learning-rate schedules: the rate as a function of the steps, or the epochs, that a network made.

Owns the schedules' settings, checked, and their formulas, which are PyTorch's. Promises that a
schedule is immutable, compares by value, and gives the same bits on every machine (`exact.py`).
Leaves to `loop.py` when rates are asked for and what a plateau hears, to the core their use in a
step.

Alphabet: t is the time, from 0: the updates that the network made before, or its finished epochs
with `per="epoch"`. A network's time goes on from fit to fit, so that `fit(5)` then `fit(5)` gives
the bits of `fit(10)`. Only where a `total` is left out, which then is the length of the fit, does
t count from the fit's start.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from . import checks, exact
from .exact import Floats
from .timing import Schedule

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Function",
    "InverseTime",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "Warmup",
]


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate always."""

    def at(self, t: Floats, base: float) -> Floats:
        """Return `base`."""
        return np.full(t.shape, base)


@dataclass(frozen=True)
class Step(Schedule):
    """A factor at every so many steps, or at given ones: `rate * factor**k` after the k-th.

    PyTorch's StepLR and MultiStepLR.

    Parameters
    ----------
    learning_rate, per
        As for `Schedule`.
    every : int, optional
        Steps between two.
    at_times : sequence of int, optional
        Times, instead of `every`.
    factor : float, default 0.1
        Above 0.
    """

    every: int | None = field(default=None, kw_only=True)
    at_times: tuple[int, ...] | None = field(default=None, kw_only=True)
    factor: float = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        if (self.every is None) == (self.at_times is None):
            got = "neither" if self.every is None else "both"
            raise checks.wrong("every", "either it or at_times", got)
        self._store(factor=checks.number("factor", self.factor, positive=True))
        if self.every is not None:
            self._store(every=checks.integer("every", self.every, low=1))
        else:
            times = checks.listed("at_times", self.at_times, "times")
            times = sorted(checks.integer("at_times", time) for time in times)
            self._store(at_times=tuple(times))

    def at(self, t: Floats, base: float) -> Floats:
        """Return `base * factor**k`."""
        if self.every is not None:
            k = (t // self.every).astype(np.int64)
        else:
            k = np.searchsorted(np.array(self.at_times or (), np.float64), t, side="right")
        return base * exact.whole_power(self.factor, k)


@dataclass(frozen=True)
class Exponential(Schedule):
    """`rate * factor**t`: PyTorch's ExponentialLR.

    Parameters
    ----------
    learning_rate, per
        As for `Schedule`.
    factor : float
        Above 0.
    """

    factor: float = field(kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        self._store(factor=checks.number("factor", self.factor, positive=True))

    def at(self, t: Floats, base: float) -> Floats:
        """Return `base * factor**t`."""
        return base * exact.whole_power(self.factor, t.astype(np.int64))


@dataclass(frozen=True)
class InverseTime(Schedule):
    """`rate / (1 + decay * t)**power`.

    Keras' InverseTimeDecay; with `decay=1, power=0.5`, scikit-learn's "invscaling".

    Parameters
    ----------
    learning_rate, per
        As for `Schedule`.
    decay : float
        At least 0.
    power : float, default 1
        At least 0.
    """

    decay: float = field(kw_only=True)
    power: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        self._store(
            decay=checks.number("decay", self.decay), power=checks.number("power", self.power)
        )

    def at(self, t: Floats, base: float) -> Floats:
        """Return the formula's rates."""
        return base / exact.power(1 + self.decay * t, self.power)


def _total(total: object) -> int | None:
    """Return a checked total, or None for the fit's length."""
    return None if total is None else checks.integer("total", total, low=1)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From the rate to `minimum` in `total`: `minimum + (rate - minimum) * (1 - t/total)**power`.

    PyTorch's PolynomialLR, whose minimum is 0. Afterwards the rate is the minimum.

    Parameters
    ----------
    learning_rate, per
        As for `Schedule`.
    total : int, optional
        Steps or epochs; None is the fit's, counted from its start.
    power : float, default 1
        At least 0.
    minimum : float, default 0
        At least 0.
    """

    total: int | None = field(default=None, kw_only=True)
    power: float = field(default=1.0, kw_only=True)
    minimum: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        self._store(
            total=_total(self.total),
            power=checks.number("power", self.power),
            minimum=checks.number("minimum", self.minimum),
        )

    def at(self, t: Floats, base: float) -> Floats:
        """Return the formula's rates."""
        assert self.total is not None
        left = np.maximum(self.total - t, 0) / self.total
        return self.minimum + (base - self.minimum) * exact.power(left, self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine: `minimum + (rate - minimum) * (1 + cos(pi t/total)) / 2`.

    Without `restarts`, PyTorch's CosineAnnealingLR: after `total` the rate rises again, with
    period `2 total`. With `restarts=k`, its CosineAnnealingWarmRestarts: after `total` the rate
    jumps back to its start, and each period is k times as long as the one before.

    Parameters
    ----------
    learning_rate, per
        As for `Schedule`.
    total : int, optional
        Steps or epochs of the (first) descent; None is the fit's, counted from its start.
    minimum : float, default 0
        At least 0.
    restarts : int, optional
        At least 1.

    References
    ----------
    Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts".
    """

    total: int | None = field(default=None, kw_only=True)
    minimum: float = field(default=0.0, kw_only=True)
    restarts: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        self._store(total=_total(self.total), minimum=checks.number("minimum", self.minimum))
        if self.restarts is not None:
            self._store(restarts=checks.integer("restarts", self.restarts, low=1))

    def at(self, t: Floats, base: float) -> Floats:
        """Return the formula's rates."""
        assert self.total is not None
        begin, length = self._periods(t, self.total)
        share = (t - begin) / length
        return self.minimum + (base - self.minimum) * (1 + exact.cos_pi(share)) / 2

    def _periods(self, t: Floats, total: int) -> tuple[Floats, Floats]:
        """Return where the period of each t began, and how long it is."""
        if self.restarts is None:
            return np.zeros_like(t), np.full(t.shape, float(total))
        if self.restarts == 1:
            return t - t % total, np.full(t.shape, float(total))
        begins = [0.0]
        while begins[-1] <= t.max(initial=0.0):
            begins.append(begins[-1] + total * float(self.restarts) ** (len(begins) - 1))
        edges = np.array(begins)
        at = np.searchsorted(edges, t, side="right") - 1
        return edges[at], np.diff(edges)[at]


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from `rate/start_divisor` to the rate, then down to `rate/start_divisor/end_divisor`.

    PyTorch's OneCycleLR with two phases, the rate alone: momentum stays as it is. Afterwards the
    rate is the last one.

    Parameters
    ----------
    learning_rate, per
        As for `Schedule`. It is the greatest rate.
    total : int, optional
        Steps or epochs, at least 2; None is the fit's, counted from its start.
    warmup : float, default 0.3
        The share of `total` in which the rate rises, in (0, 1).
    start_divisor, end_divisor : float, default 25 and 1e4
        Above 0.
    shape : {"cosine", "linear"}
        Of both phases.

    References
    ----------
    Smith, Topin (2018), "Super-convergence: very fast training of neural networks using large
    learning rates".
    """

    total: int | None = field(default=None, kw_only=True)
    warmup: float = field(default=0.3, kw_only=True)
    start_divisor: float = field(default=25.0, kw_only=True)
    end_divisor: float = field(default=1e4, kw_only=True)
    shape: str = field(default="cosine", kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        self._store(
            total=_total(self.total),
            warmup=checks.number("warmup", self.warmup, positive=True, below=1.0),
            start_divisor=checks.number("start_divisor", self.start_divisor, positive=True),
            end_divisor=checks.number("end_divisor", self.end_divisor, positive=True),
            shape=checks.choice("shape", self.shape, ("cosine", "linear")),
        )

    def at(self, t: Floats, base: float) -> Floats:
        """Return the formula's rates."""
        assert self.total is not None
        start = base / self.start_divisor
        end = start / self.end_divisor
        last = max(self.total - 1.0, 1.0)
        t = np.minimum(t, last)
        top = self.warmup * self.total - 1.0
        # A warm-up of under a step has no rising part.
        up = t / top if top > 0 else np.ones_like(t)
        down = (t - top) / (last - top) if last > top else np.ones_like(t)
        rising = self._between(start, base, np.minimum(up, 1.0))
        falling = self._between(base, end, np.clip(down, 0.0, 1.0))
        return np.where(t <= top, rising, falling)

    def _between(self, a: float, b: float, share: Floats) -> Floats:
        """Return the way from a to b."""
        if self.shape == "linear":
            return a + (b - a) * share
        return b + (a - b) / 2 * (1 + exact.cos_pi(share))


@dataclass(frozen=True)
class Warmup(Schedule):
    """A straight rise before another schedule: `rate * (start + (1 - start) * t/steps)`.

    The rate is the other schedule's first one, and at `t = steps` that schedule begins, at its
    own t = 0: PyTorch's LinearLR, then the other, in a SequentialLR.

    Parameters
    ----------
    learning_rate, per
        As for `Schedule`; the rate is the other schedule's where that has one.
    steps : int
        Steps, or epochs with `per="epoch"`, at least 1.
    start : float, default 0
        The first rate's share, in [0, 1).
    then : Schedule, optional
        None is a constant rate.
    """

    steps: int = field(kw_only=True)
    start: float = field(default=0.0, kw_only=True)
    then: Schedule = field(default_factory=Constant, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        self._store(
            steps=checks.integer("steps", self.steps, low=1),
            start=checks.number("start", self.start, below=1.0),
        )
        if self.then is None:
            self._store(then=Constant())
        if not isinstance(self.then, Schedule):
            raise TypeError(f"then: expected a schedule, got {type(self.then).__name__}")
        if isinstance(self.then, Constant):
            self._store(then=replace(self.then, per=self.per))
        if self.then.per != self.per and self.then.plateau is None:
            raise checks.wrong(
                "then", f"a schedule per {self.per}, as the warm-up", f"per {self.then.per}"
            )

    @property
    def total_missing(self) -> bool:
        """Whether the other schedule's total was left out."""
        return self.then.total_missing

    def with_total(self, total: int) -> Schedule:
        """Return the schedule with the rest of the total for the other one."""
        return replace(self, then=self.then.with_total(max(total - self.steps, 1)))

    @property
    def plateau(self) -> ReduceOnPlateau | None:
        """The other schedule's."""
        return self.then.plateau

    def base(self, default: float) -> float:
        """Return the other schedule's rate, or this one's."""
        return self.then.base(super().base(default))

    def at(self, t: Floats, base: float) -> Floats:
        """Return the formula's rates."""
        first = self.then.at(np.zeros(1), base)[0]
        rising = first * (self.start + (1 - self.start) * np.minimum(t, self.steps) / self.steps)
        return np.where(t < self.steps, rising, self.then.at(np.maximum(t - self.steps, 0), base))


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """A factor whenever a number has not got better for more than `patience` epochs.

    PyTorch's ReduceLROnPlateau. What it has seen belongs to the network and goes on from fit to
    fit, as long as the schedule is an equal one.

    Parameters
    ----------
    learning_rate
        As for `Schedule`.
    monitor : str, optional
        A name of the fit's numbers, such as "val_accuracy"; None is "val_loss", or "loss" without
        validation.
    factor : float, default 0.1
        In (0, 1).
    patience : int, default 10
    threshold : float, default 1e-4
        How much better counts.
    relative : bool, default True
        Whether the threshold is a share of the best number.
    cooldown : int, default 0
        Epochs after a reduction that do not count.
    minimum : float, default 0
        Of the rate.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" knows the losses and the package's metrics.
    """

    monitor: str | None = field(default=None, kw_only=True)
    factor: float = field(default=0.1, kw_only=True)
    patience: int = field(default=10, kw_only=True)
    threshold: float = field(default=1e-4, kw_only=True)
    relative: bool = field(default=True, kw_only=True)
    cooldown: int = field(default=0, kw_only=True)
    minimum: float = field(default=0.0, kw_only=True)
    mode: str = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise TypeError(f"monitor: expected a name, got {type(self.monitor).__name__}")
        self._store(
            factor=checks.number("factor", self.factor, positive=True, below=1.0),
            patience=checks.integer("patience", self.patience),
            threshold=checks.number("threshold", self.threshold),
            relative=checks.flag("relative", self.relative),
            cooldown=checks.integer("cooldown", self.cooldown),
            minimum=checks.number("minimum", self.minimum),
            mode=checks.choice("mode", self.mode, ("auto", "min", "max")),
        )

    @property
    def plateau(self) -> ReduceOnPlateau | None:
        """Return this schedule."""
        return self

    def at(self, t: Floats, base: float) -> Floats:
        """Return `base`, which the plateaus seen so far have reduced."""
        return np.full(t.shape, base)


@dataclass(frozen=True)
class Function(Schedule):
    """A Python function of t that returns the rate: what a callable given as a rate becomes.

    Parameters
    ----------
    learning_rate, per
        As for `Schedule`; the rate is not used.
    function : callable
        Called with an int, once for each step, before the steps are made.
    """

    function: Callable[[int], float] = field(kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        super().__post_init__()
        if not callable(self.function):
            got = reprlib.repr(self.function)
            raise TypeError(f"function: expected a function of the time, got {got}")

    def at(self, t: Floats, base: float) -> Floats:
        """Return what the function says."""
        times, index = np.unique(t, return_inverse=True)
        rates = [checks.number("learning_rate", self.function(int(time))) for time in times]
        return np.array(rates, np.float64)[index]
