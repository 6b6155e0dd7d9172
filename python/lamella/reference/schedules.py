"""Learning-rate schedules: the formulas of `lamella.schedules`, one time after the other."""

from __future__ import annotations

from math import cos, inf, pi

from .. import schedules
from ..schedules import Schedule


def rate_at(schedule: Schedule, base: float, t: int) -> float:
    """Return the rate at time t of a schedule that scales `base`; its total must be given."""
    if isinstance(schedule, schedules.Step):
        if schedule.every is not None:
            return base * schedule.factor ** (t // schedule.every)
        return base * schedule.factor ** sum(time <= t for time in schedule.at_times or ())
    if isinstance(schedule, schedules.Exponential):
        return base * schedule.factor**t
    if isinstance(schedule, schedules.InverseTime):
        return float(base / (1 + schedule.decay * t) ** schedule.power)
    if isinstance(schedule, schedules.Polynomial):
        assert schedule.total is not None
        left = 1 - min(t, schedule.total) / schedule.total
        return float(schedule.minimum + (base - schedule.minimum) * left**schedule.power)
    if isinstance(schedule, schedules.Cosine):
        length = schedule.total
        assert length is not None
        while schedule.restarts is not None and t >= length:
            t, length = t - length, length * schedule.restarts
        return between(base, schedule.minimum, t / length)
    if isinstance(schedule, schedules.OneCycle):
        return _one_cycle(schedule, base, t)
    if isinstance(schedule, schedules.Warmup):
        if t >= schedule.steps:
            return rate_at(schedule.then, base, t - schedule.steps)
        share = schedule.start + (1 - schedule.start) * t / schedule.steps
        return share * rate_at(schedule.then, base, 0)
    if isinstance(schedule, schedules.Function):
        return float(schedule.function(t))
    return base  # Constant, and ReduceOnPlateau, whose rate is what it scales


def _one_cycle(schedule: schedules.OneCycle, base: float, t: int) -> float:
    """Return the rate of the first phase or of the second one."""
    assert schedule.total is not None
    start, last = base / schedule.start_divisor, max(schedule.total - 1, 1)
    top, t = schedule.warmup * schedule.total - 1, min(t, last)
    a, b, share = start, base, t / top if top > 0 else 1.0
    if t > top:
        a, b, share = base, start / schedule.end_divisor, (t - top) / (last - top)
    return a + (b - a) * share if schedule.shape == "linear" else between(a, b, share)


def between(a: float, b: float, share: float) -> float:
    """Return the way from a to b along half a cosine."""
    return b + (a - b) * (1 + cos(pi * share)) / 2


class Plateau:
    """PyTorch's ReduceLROnPlateau: the rate after the numbers that it heard; less is better."""

    def __init__(self, schedule: schedules.ReduceOnPlateau, rate: float) -> None:
        self.schedule, self.rate = schedule, rate
        self.best, self.bad, self.cooling = inf, 0, 0

    def observe(self, value: float) -> None:
        """Hear an epoch's number."""
        s = self.schedule
        bound = self.best * (1 - s.threshold) if s.relative else self.best - s.threshold
        self.best, self.bad = (value, 0) if value < bound else (self.best, self.bad + 1)
        if self.cooling > 0:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad > s.patience:
            reduced = max(self.rate * s.factor, s.minimum)
            self.rate = reduced if self.rate - reduced > 1e-8 else self.rate
            self.cooling, self.bad = s.cooldown, 0
