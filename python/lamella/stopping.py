"""Early stopping: when a number that is watched has not got better for too long.

Owns the criterion and its settings. Leaves to `loop.py` whose numbers those are and what is kept
of the best epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import checks

__all__ = ["EarlyStopping"]


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` epochs in a row without a better number.

    An epoch is better if its number beats the best one so far by more than `min_delta`. Each fit
    counts anew. NaN is never better.

    Parameters
    ----------
    monitor : str, default "val_loss"
        A name of the fit's numbers: "loss", "val_loss", "val_accuracy", ...
    patience : int, default 10
        At least 1.
    min_delta : float, default 0
        At least 0.
    restore_best : bool, default True
        Whether the fit ends, however it ends but by an error, with the parameters of the best
        epoch. The optimizer's state and the counters stay where they are.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" knows the losses and the package's metrics.

    References
    ----------
    Prechelt (1998), "Early stopping - but when?"; the criterion is Keras'.
    """

    monitor: str = "val_loss"
    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True
    mode: str = "auto"

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        if not isinstance(self.monitor, str):
            raise TypeError(f"monitor: expected a name, got {type(self.monitor).__name__}")
        checked = {
            "patience": checks.integer("patience", self.patience, low=1),
            "min_delta": checks.number("min_delta", self.min_delta),
            "restore_best": checks.flag("restore_best", self.restore_best),
            "mode": checks.choice("mode", self.mode, ("auto", "min", "max")),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@dataclass
class Watch:
    """What `EarlyStopping` has seen of a fit."""

    settings: EarlyStopping
    greater_is_better: bool
    best: float = field(init=False)
    best_epoch: int | None = None
    waited: int = 0

    def __post_init__(self) -> None:
        """Start from the worst number."""
        self.best = -np.inf if self.greater_is_better else np.inf

    def observe(self, epoch: int, value: float) -> bool:
        """Hear an epoch's number; return whether it is the best so far."""
        delta = self.settings.min_delta
        better = value > self.best + delta if self.greater_is_better else value < self.best - delta
        if better:
            self.best, self.best_epoch, self.waited = value, epoch, 0
        else:
            self.waited += 1
        return better

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.settings.patience


def checked(value: EarlyStopping | bool) -> EarlyStopping | None:
    """Return settings, True's being the defaults."""
    if isinstance(value, EarlyStopping):
        return value
    if not isinstance(value, bool):
        kind = type(value).__name__
        raise TypeError(f"early_stopping: expected EarlyStopping, True or False, got {kind}")
    return EarlyStopping() if value else None
