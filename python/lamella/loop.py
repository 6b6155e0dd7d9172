"""The loop around the core's steps: schedules, validation, stopping, callbacks, progress.

Owns in which stretches a fit calls the core, and what happens between them. Promises that cutting
a fit into stretches changes no bit of it, and that nothing of Python runs within one. A fit that
asks for nothing of this does not come here: it is one call.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import bars, checks
from .bars import Bar
from .callbacks import Callback, StopTraining
from .checks import Array
from .matrices import CSR
from .metrics import Metric
from .stopping import EarlyStopping, Watch
from .timing import Clock, Plateau, Schedule, Timed

if TYPE_CHECKING:
    from .diagnosis import Diagnosis
    from .network import Network

MOST_RATES = 1 << 18
"""Steps of a stretch whose rates are computed ahead: 2 MB of them."""


@dataclass(frozen=True)
class History:
    """What one `fit` saw.

    Attributes
    ----------
    loss : ndarray (epochs,)
        The mean over each epoch's rows of their batch's loss before its update, in float64,
        weighted where rows have weights. An
        epoch that was cut short has no entry, here and in `metrics`.
    metrics : dict of ndarray (epochs,)
        Further numbers of each epoch, by name: "val_loss" and "val_accuracy" (or "val_r2", or
        what `metrics` asked for) after it, "learning_rate" of its last step where a schedule was
        used.
    stopped : str
        What ended the fit: "epochs", "early_stopping", "callback" or "time_limit".
    best_epoch : int, optional
        The epoch, from 0, that early stopping found best.
    diagnosis : Diagnosis, optional
        With `diagnose=True`: prints what is wrong, or that nothing is.
    """

    loss: Array
    metrics: dict[str, Array] = field(default_factory=dict)
    stopped: str = "epochs"
    best_epoch: int | None = None
    diagnosis: Diagnosis | None = None

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.loss)


class Data(NamedTuple):
    """Checked samples `(m, n[0])` and their labels."""

    rows: Array | CSR
    labels: Array


@dataclass(frozen=True)
class Asked:
    """What a fit asks for beside its steps, checked."""

    epochs: int
    batches: int
    """Of an epoch."""
    batch_rows: int
    schedule: Schedule | None
    rate: float
    """What the schedule scales."""
    progress: float | Callable[[int, float], object] | None
    """The seconds before a bar appears, or what hears of each epoch."""
    scored: Data
    """The rows that metrics are computed on."""
    validates: bool
    """Whether those are not the training's, so that names begin with val_."""
    metrics: list[Metric]
    early_stopping: EarlyStopping | None
    callbacks: list[Callback]
    time_limit: float | None

    @property
    def prefix(self) -> str:
        """What the metrics' names begin with."""
        return "val_" if self.validates else ""

    @property
    def epochs_at_once(self) -> int:
        """The epochs of one stretch."""
        plateau = None if self.schedule is None else self.schedule.plateau
        each = (
            self.validates
            or self.metrics
            or self.early_stopping
            or self.callbacks
            or callable(self.progress)
            or plateau
        )
        return 1 if each else self.epochs

    def greater_is_better(self, monitor: str, mode: str) -> bool:
        """Return whether more of a monitored number is better; refuse names that no epoch has."""
        directions: dict[str, bool | None] = {"loss": False}
        if self.validates:
            directions["val_loss"] = False
        directions |= {
            f"{self.prefix}{metric.name}": metric.greater_is_better for metric in self.metrics
        }
        if monitor not in directions:
            got = repr(monitor)
            if monitor.startswith("val_") and not self.validates:
                got += ", which needs validation_data or validation_fraction"
            raise checks.wrong("monitor", f"one of {', '.join(directions)}", got)
        if mode != "auto":
            return mode == "max"
        known = directions[monitor]
        if known is None:
            raise checks.wrong("mode", f"min or max for {monitor}", "auto")
        return known


class Loop:
    """One fit, stretch by stretch.

    Parameters
    ----------
    network : Network
    asked : Asked
    fit : callable
        The core's fit, which lacks the epochs and the stretch alone and returns losses.
    score : callable
        Of samples, labels and metrics: the loss and the metrics' numbers.
    """

    unit = "steps"
    """What its bar counts."""

    def __init__(
        self,
        network: Network,
        asked: Asked,
        fit: Callable[..., Any],
        score: Callable[[Data, Sequence[Metric]], tuple[float, list[float]]],
    ) -> None:
        self.began = time.monotonic()
        self.network, self.asked, self.fit, self.score = network, asked, fit, score
        self.begin = (0, 0.0, 0.0)
        self.started = False
        self.losses: list[float] = []
        self.numbers: dict[str, list[float]] = defaultdict(list)
        self.best: tuple[list[Array], list[Array]] | None = None
        self.watch = self.timed = self.plateau = None
        if stopping := asked.early_stopping:
            self.watch = Watch(stopping, asked.greater_is_better(stopping.monitor, stopping.mode))
        if asked.schedule is not None:
            self.timed = Timed.of(asked.schedule, asked.rate, self._clock(), asked.epochs)
            self.plateau = self._plateau(asked.schedule)

    def run(self) -> History:
        """Train until something ends it."""
        asked, network = self.asked, self.network
        with self._shown() as self.bar:
            stopped = self._guarded(self._begin)
            while stopped is None and len(self.losses) < asked.epochs:
                stopped = (
                    "time_limit" if self._seconds_left() <= 0 else self._guarded(self._stretch)
                )
        if self.best is not None:
            network._restore(self.best)
        history = History(
            np.array(self.losses, np.float64),
            {name: np.array(numbers, np.float64) for name, numbers in self.numbers.items()},
            stopped or "epochs",
            None if self.watch is None else self.watch.best_epoch,
        )
        for callback in asked.callbacks:
            callback.on_fit_end(history, network)
        return history

    def _begin(self) -> None:
        """Tell the callbacks."""
        for callback in self.asked.callbacks:
            callback.on_fit_begin(self.network)

    def _guarded(self, work: Callable[[], object]) -> str | None:
        """Do some work, which may say what ends the fit, or raise `StopTraining`."""
        try:
            ended = work()
        except StopTraining:
            return "callback"
        return ended if isinstance(ended, str) else None

    def _stretch(self) -> str | None:
        """Call the core once; then whatever is due. Return what ends the fit, if anything does."""
        clock = self._clock()
        epochs = min(self.asked.epochs - len(self.losses), self.asked.epochs_at_once)
        steps = self._steps(epochs * clock.batches - clock.batch)
        rates = self._rates(clock, steps)
        losses = self.fit(
            epochs=epochs,
            begin=self.begin,
            checked=self.started,
            steps=steps,
            seconds=self._seconds(),
            rates=rates,
        )
        self.started = True
        row, losses_so_far, weight, last = self.network._net.position
        self.begin = (row, losses_so_far, weight)
        made = self.network.steps - clock.steps
        ended = self._after_step(last)
        for k, loss in enumerate(losses.tolist()):
            rate = None if rates is None else rates[(k + 1) * clock.batches - clock.batch - 1]
            ended = self._after_epoch(loss, rate) or ended
        if self.bar is not None:
            so_far = {"loss": losses_so_far / weight if weight else last}
            self.bar.tell(made, self._logs() or so_far)
        return ended

    def _shown(self) -> AbstractContextManager[Bar | None]:
        """Return the bar, if there may be one."""
        delay = self.asked.progress
        if not isinstance(delay, float):
            return nullcontext()
        return bars.shown(delay, self.asked.epochs * self.asked.batches, self.unit)

    def _clock(self) -> Clock:
        """Return where the fit stands."""
        place = self.begin[0] // self.asked.batch_rows
        return Clock(self.network.steps, self.network.epochs, place, self.asked.batches)

    def _steps(self, left: int) -> int | None:
        """Return the most steps of the next stretch: to the next callback, or those with rates."""
        limits = [c.every - self.network.steps % c.every for c in self.asked.callbacks if c.every]
        if self.timed is not None:
            limits += [MOST_RATES, left]
        return min(limits, default=None)

    def _rates(self, clock: Clock, steps: int | None) -> Array | None:
        """Return the rates of the next steps."""
        if self.timed is None or steps is None:
            return None
        timed = self.timed
        if self.plateau is not None:
            timed = replace(timed, base=self.plateau.rate)
        return timed.rates(clock, steps)

    def _seconds_left(self) -> float:
        """Return the time that is left."""
        limit = self.asked.time_limit
        return np.inf if limit is None else self.began + limit - time.monotonic()

    def _seconds(self) -> float | None:
        """Return the seconds of the next stretch at most."""
        seconds = min(self._seconds_left(), np.inf if self.bar is None else self.bar.patience)
        return None if seconds == np.inf else max(seconds, 0.0)

    def _after_step(self, loss: float) -> str | None:
        """Call the callbacks that are due at this step."""
        step = self.network.steps
        due = [c for c in self.asked.callbacks if c.every and step % c.every == 0]
        ended = [callback.on_step(step, loss, self.network) for callback in due]
        return "callback" if any(ended) else None

    def _after_epoch(self, loss: float, rate: float | None) -> str | None:
        """Record an epoch, and ask everyone whether to go on."""
        epoch = len(self.losses)
        self.losses.append(loss)
        for name, number in self._scores().items():
            self.numbers[name].append(number)
        if rate is not None:
            self.numbers["learning_rate"].append(float(rate))
        logs = self._logs()
        if self.plateau is not None:
            self.plateau.observe(logs[self._monitored(self.plateau)])
        if self.watch is not None:
            better = self.watch.observe(epoch, logs[self.watch.settings.monitor])
            if better and self.watch.settings.restore_best:
                self.best = self.network._snapshot()
        ended = [c.on_epoch_end(epoch, logs, self.network) for c in self.asked.callbacks]
        if callable(self.asked.progress):
            self.asked.progress(epoch, loss)
        if self.watch is not None and self.watch.is_over:
            return "early_stopping"
        return "callback" if any(ended) else None

    def _scores(self) -> dict[str, float]:
        """Return the numbers of the rows that are scored after each epoch."""
        asked = self.asked
        if not asked.validates and not asked.metrics:
            return {}
        loss, values = self.score(asked.scored, asked.metrics)
        scores = {"val_loss": loss} if asked.validates else {}
        names = [f"{asked.prefix}{metric.name}" for metric in asked.metrics]
        return scores | dict(zip(names, values, strict=True))

    def _logs(self) -> dict[str, float]:
        """Return the last epoch's numbers by name; none before the first."""
        if not self.losses:
            return {}
        return {"loss": self.losses[-1]} | {name: n[-1] for name, n in self.numbers.items()}

    def _plateau(self, schedule: Schedule) -> Plateau | None:
        """Return what a plateau has seen in this network's fits, or a new one."""
        settings = schedule.plateau
        if settings is None:
            return None
        seen = self.network._plateau
        monitor = settings.monitor or ("val_loss" if self.asked.validates else "loss")
        greater = self.asked.greater_is_better(monitor, settings.mode)
        if seen is None or seen.schedule != settings:
            self.network._plateau = seen = Plateau(settings, self.asked.rate, greater)
        return seen

    def _monitored(self, plateau: Plateau) -> str:
        """Return the name of the number that a plateau hears."""
        return plateau.schedule.monitor or ("val_loss" if self.asked.validates else "loss")


class Minimisation(Loop):
    """A fit that is one minimisation, whose iterations are its epochs.

    Its `fit` takes a function of an iteration, from 0, and the loss before it, which it calls with
    the network as the iteration left it; it ends where that returns True.
    """

    unit = "iterations"

    def _stretch(self) -> str:
        """Minimise; after each iteration whatever is due. Return what ended it."""
        ended: str | None = None

        def heard(iteration: int, loss: float) -> bool:
            nonlocal ended
            ended = self._after_epoch(loss, None)
            if self.bar is not None:
                self.bar.tell(1, self._logs())
            if ended is None and self._seconds_left() <= 0:
                ended = "time_limit"
            return ended is not None

        self.fit(heard)
        return ended or "epochs"
