"""The losses a user names: their settings, checked, and what outputs and targets they go with.

Owns defaults and validation. Promises that a loss is immutable, compares by value, and can be
pickled. Leaves values and gradients to the core (`rust/kernels/losses.rs`) and, in NumPy, to
`reference/losses.py`. All are computed from logits z, the last layer before its activation.

A batch's loss is the mean over its samples, weighted where samples have weights, of what is
defined here for one sample with n outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from . import checks, matrices
from .checks import Array

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Focal",
    "Hinge",
    "Huber",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Poisson",
    "Quantile",
    "SquaredHinge",
]

Custom: TypeAlias = Callable[[Array, Any], tuple[Any, Any]]
"""A loss in Python: of a batch's logits (rows, n_outputs) and targets, value and gradient."""


class Task(NamedTuple):
    """A loss on the outputs of one network, as the core takes it."""

    core: tuple[str, list[float]]
    """Name and parameters."""
    scale: float
    """What the core's sum over outputs is multiplied by."""
    targets: str
    """What y holds: "bits", "classes", "real", "counts" or "anything"."""
    columns: int
    """Numbers of y a sample."""

    @property
    def like(self) -> str:
        """The output whose labels look the same."""
        return {"bits": "sigmoid", "classes": "softmax"}.get(self.targets, "identity")


@dataclass(frozen=True)
class Loss:
    """What all losses have in common."""

    name: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]
    """The output activations that it goes with."""

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes, for n outputs of an activation that it goes with."""
        raise NotImplementedError


def _store(loss: Loss, **checked: object) -> None:
    """Store checked settings in a frozen object."""
    for name, value in checked.items():
        object.__setattr__(loss, name, value)


Factors: TypeAlias = float | tuple[float, ...] | None


def _factors(name: str, value: float | Sequence[float] | Array | None) -> Factors:
    """Check one factor for all outputs, one for each, or none."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if not value:
            raise checks.wrong(name, "a number, or one for each output", "none")
        return tuple(checks.number(f"{name}[{i}]", x) for i, x in enumerate(value))
    return None if value is None else checks.number(name, value)


def _each(name: str, factors: Factors, n: int) -> list[float]:
    """Return a factor for each of n outputs."""
    if isinstance(factors, tuple):
        if len(factors) != n:
            raise checks.wrong(f"loss.{name}", f"{n} numbers, one an output", len(factors))
        return list(factors)
    return [1.0 if factors is None else factors] * n


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """`mean over outputs of -(p t log s(z) + (1 - t) log(1 - s(z)))`, s the sigmoid.

    For sigmoid outputs, one or several (each a yes or no of its own: multi-label). The targets
    are `t = y (1 - label_smoothing) + label_smoothing / 2`, y 0 or 1.

    Parameters
    ----------
    label_smoothing : float, default 0
        In [0, 1).
    positive_weight : float or sequence of float, optional
        p, at least 0: one for all outputs or one for each, as `pos_weight` of PyTorch's
        BCEWithLogitsLoss; 1 by default.
    """

    name: ClassVar[str] = "binary_cross_entropy"
    outputs: ClassVar[tuple[str, ...]] = ("sigmoid",)
    label_smoothing: float = 0.0
    positive_weight: float | Sequence[float] | Array | None = None

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        _store(
            self,
            label_smoothing=checks.number("label_smoothing", self.label_smoothing, below=1.0),
            positive_weight=_factors("positive_weight", self.positive_weight),
        )

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        core: tuple[str, list[float]] = (self.name, [])
        if self.label_smoothing or self.positive_weight is not None:
            positive = _each("positive_weight", self.positive_weight, n)  # type: ignore[arg-type]
            core = f"weighed_{self.name}", [self.label_smoothing, *positive]
        return Task(core, 1 / n, "bits", n)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """`-sum over classes of t log softmax(z)`.

    For softmax outputs. `t = y (1 - label_smoothing) + label_smoothing / n`, y one-hot, as
    `label_smoothing` of PyTorch's CrossEntropyLoss.

    Parameters
    ----------
    label_smoothing : float, default 0
        In [0, 1).

    References
    ----------
    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2016), "Rethinking the Inception architecture for
    computer vision", section 7.
    """

    name: ClassVar[str] = "cross_entropy"
    outputs: ClassVar[tuple[str, ...]] = ("softmax",)
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        smoothing = checks.number("label_smoothing", self.label_smoothing, below=1.0)
        _store(self, label_smoothing=smoothing)

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        smoothed = (f"smoothed_{self.name}", [self.label_smoothing])
        return Task(smoothed if self.label_smoothing else (self.name, []), 1.0, "classes", n)


@dataclass(frozen=True)
class Focal(Loss):
    """`-a (1 - p)^gamma log p`, p the probability of what is so: easy samples count less.

    For sigmoid outputs (the mean over them) and softmax outputs (p that of the class).

    Parameters
    ----------
    gamma : float, default 2
        At least 0; 0 is the cross-entropy times a.
    alpha : float or sequence of float, optional
        sigmoid: a number in [0, 1], a is alpha where y is 1 and 1 - alpha where it is 0; softmax: a
        itself, one number for all classes or one for each. a is 1 by default.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollar (2017), "Focal loss for dense object detection".
    """

    name: ClassVar[str] = "focal"
    outputs: ClassVar[tuple[str, ...]] = ("sigmoid", "softmax")
    gamma: float = 2.0
    alpha: float | Sequence[float] | Array | None = None

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        alpha = _factors("alpha", self.alpha)
        _store(self, gamma=checks.number("gamma", self.gamma), alpha=alpha)

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        if output == "softmax":
            alpha = _each("alpha", self.alpha, n)  # type: ignore[arg-type]
            return Task(("focal", [self.gamma, *alpha]), 1.0, "classes", n)
        if isinstance(self.alpha, tuple) or not 0 <= (self.alpha or 0.0) <= 1:  # type: ignore[operator]
            raise checks.wrong("loss.alpha", "a number from 0 to 1 for sigmoid", self.alpha)
        positive, negative = 1.0, 1.0
        if isinstance(self.alpha, float):
            positive, negative = self.alpha, 1 - self.alpha
        return Task(("binary_focal", [self.gamma, positive, negative]), 1 / n, "bits", n)


@dataclass(frozen=True)
class Hinge(Loss):
    """The margin that is missing to 1, on identity outputs.

    One output, or several with `multilabel`: `mean over outputs of max(0, 1 - (2 y - 1) z)`, y 0
    or 1. Several outputs: `1/n sum over the other classes j of max(0, 1 - z[y] + z[j])`, y a
    class, as PyTorch's MultiMarginLoss. `predict` gives 1 where z is above 0, or the class
    of the greatest z.

    Parameters
    ----------
    multilabel : bool, default False
        Whether several outputs are a yes or no each, and not classes.

    References
    ----------
    Cortes, Vapnik (1995), "Support-vector networks"; Weston, Watkins (1999), "Support vector
    machines for multi-class pattern recognition".
    """

    name: ClassVar[str] = "hinge"
    outputs: ClassVar[tuple[str, ...]] = ("identity",)
    multilabel: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        _store(self, multilabel=checks.flag("multilabel", self.multilabel))

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        squared = float(isinstance(self, SquaredHinge))
        if n == 1 or self.multilabel:
            return Task(("hinge", [squared]), 1 / n, "bits", n)
        return Task(("multi_margin", [squared]), 1 / n, "classes", n)


@dataclass(frozen=True)
class SquaredHinge(Hinge):
    """As `Hinge`, with the squares of the missing margins."""

    name: ClassVar[str] = "squared_hinge"


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """`mean over outputs of (z - y)^2`, on identity outputs."""

    name: ClassVar[str] = "mean_squared_error"
    outputs: ClassVar[tuple[str, ...]] = ("identity",)

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes: its squared error is half the square."""
        return Task(("squared_error", []), 2 / n, "real", n)


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """`mean over outputs of |z - y|`, on identity outputs; its gradient is 0 at 0."""

    name: ClassVar[str] = "mean_absolute_error"
    outputs: ClassVar[tuple[str, ...]] = ("identity",)

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        return Task(("absolute_error", []), 1 / n, "real", n)


@dataclass(frozen=True)
class Huber(Loss):
    """`mean over outputs of d^2 / 2` where `d = |z - y| <= delta`, of `delta (d - delta/2)` beyond.

    On identity outputs, as PyTorch's HuberLoss.

    Parameters
    ----------
    delta : float, default 1
        Above 0.

    References
    ----------
    Huber (1964), "Robust estimation of a location parameter".
    """

    name: ClassVar[str] = "huber"
    outputs: ClassVar[tuple[str, ...]] = ("identity",)
    delta: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        _store(self, delta=checks.number("delta", self.delta, positive=True))

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        return Task(("huber", [self.delta]), 1 / n, "real", n)


@dataclass(frozen=True)
class Poisson(Loss):
    """`mean over outputs of exp(z) - y z`: counts or rates y >= 0 whose mean is `exp(z)`.

    For exponential outputs, so that `predict` gives means. The negative log-likelihood but for
    what y alone decides; PyTorch's PoissonNLLLoss.
    """

    name: ClassVar[str] = "poisson"
    outputs: ClassVar[tuple[str, ...]] = ("exponential",)

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        return Task(("poisson", []), 1 / n, "counts", n)


@dataclass(frozen=True)
class Quantile(Loss):
    """`mean over outputs of max(q d, (q - 1) d)`, `d = y - z`: z becomes the quantile q of y.

    On identity outputs, the quantiles of a target side by side: a network has as many outputs
    as there are targets times quantiles, and `predict` gives `(m, quantiles)`, or `(m, targets,
    quantiles)` for several targets. Nothing keeps the quantiles of a sample in order. The
    gradient is 0 at d = 0.

    Parameters
    ----------
    quantiles : float or sequence of float, default (0.5,)
        Each in (0, 1).

    References
    ----------
    Koenker, Bassett (1978), "Regression quantiles".
    """

    name: ClassVar[str] = "quantile"
    outputs: ClassVar[tuple[str, ...]] = ("identity",)
    quantiles: float | Sequence[float] | Array = (0.5,)

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        given: Any = self.quantiles
        many = np.ndim(given) > 0 if isinstance(given, np.ndarray) else isinstance(given, Sequence)
        each = list(given) if many and not isinstance(given, str) else [given]
        if not each:
            raise checks.wrong("quantiles", "at least one", "none")
        named = [(f"quantiles[{i}]", q) for i, q in enumerate(each)]
        checked = (checks.number(name, q, positive=True, below=1.0) for name, q in named)
        _store(self, quantiles=tuple(checked))

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        quantiles = list(self.quantiles)  # type: ignore[arg-type]
        if n % len(quantiles):
            expected = f"a multiple of {len(quantiles)} outputs, one a quantile of each target"
            raise checks.wrong("loss", expected, f"{n} outputs")
        return Task(("quantile", quantiles), 1 / n, "real", n // len(quantiles))


BY_NAME: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        BinaryCrossEntropy(),
        CrossEntropy(),
        Focal(),
        Hinge(),
        SquaredHinge(),
        MeanSquaredError(),
        MeanAbsoluteError(),
        Huber(),
        Poisson(),
        Quantile(),
    )
}

MATCHING = checks.LOSSES | {"exponential": "poisson"}
"""The output activations, each with the loss that it has by default."""


def resolve(loss: object, output: str) -> Loss | Custom:
    """Return the loss of this name, or `loss` itself, or for None the one that matches."""
    if callable(loss) and not isinstance(loss, type):
        return loss
    if loss is None:
        return BY_NAME[MATCHING[output]]
    if isinstance(loss, str):
        loss = BY_NAME[checks.choice("loss", loss, tuple(BY_NAME))]
    if not isinstance(loss, Loss):
        raise TypeError(f"loss: expected a name, a loss or a function, got {loss!r}")
    if output not in loss.outputs:
        fitting = [name for name, other in BY_NAME.items() if output in other.outputs]
        raise checks.wrong("loss", f"one of {', '.join(fitting)} for output {output}", loss.name)
    return loss


# --- losses in Python ------------------------------------------------------------------------

CUSTOM = Task(("custom", []), 1.0, "anything", 0)
"""What the core takes of a function: it asks for every batch's loss."""


def name_of(loss: Loss | Custom) -> str:
    """Return a loss's name, or a function's."""
    if isinstance(loss, Loss):
        return loss.name
    return str(getattr(loss, "__name__", type(loss).__name__))


def custom_targets(y: Any, m: int, name: str = "y", axis: int = 0) -> Array:
    """Return the targets of m samples, along an axis, as an array of whatever its elements are."""
    try:
        targets = np.asarray(y)
    except ValueError:
        raise checks.wrong(name, "a rectangular array", "rows of different lengths") from None
    if targets.ndim == 0 or targets.shape[axis] != m:
        got = "None" if y is None else f"shape {targets.shape}"
        raise checks.wrong(name, f"targets of {m} samples", got)
    return targets


class Batches:
    """A loss in Python on batches of the data, its answers checked.

    Parameters
    ----------
    function : callable
        Of a batch's logits (rows, n_outputs), an array of its own, and its targets `y[rows]`. It
        returns value and gradient: either a number, the batch's loss, and its gradient (rows,
        n_outputs) by the logits; or the rows' losses `(rows,)` and the gradient of each.
    y : ndarray
        Targets of all samples.
    weighted : bool
        Whether samples have weights, which need the rows' losses.
    """

    def __init__(self, function: Custom, y: Array, *, weighted: bool) -> None:
        self.function, self.y, self.weighted = function, y, weighted

    def __call__(
        self, logits: Array, rows: slice | Array
    ) -> tuple[float | None, Array | None, Array]:
        """Return the batch's value, or its rows' values, and the gradient."""
        if not np.isfinite(logits).all():  # training diverged before the loss
            return float("nan"), None, np.zeros_like(logits)
        shape, dtype = logits.shape, logits.dtype
        answer = self.function(logits, self.y[rows])
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            received = type(answer).__name__
            expected = "a function that returns (value, gradient)"
            raise TypeError(f"loss: expected {expected}, got {received}")
        gradient = matrices.shaped("loss gradient", answer[1], shape)
        matrices.finite("loss gradient", gradient, dtype)
        value = matrices.real("loss value", answer[0])
        if value.shape not in ((), shape[:1]):
            raise checks.wrong("loss value", f"a number or shape ({shape[0]},)", value.shape)
        matrices.finite("loss value", np.atleast_1d(value))
        if value.ndim:
            return None, value.astype(np.float64), gradient
        if self.weighted:
            raise checks.wrong("loss value", f"shape ({shape[0]},), to weigh samples", "a number")
        return float(value), None, gradient
