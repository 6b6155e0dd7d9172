"""The optimizers a user names: their settings, checked, and nothing else.

Owns defaults and validation. Promises that an optimizer is immutable, compares by value, and
can be pickled. Leaves the update rules to the core (`rust/kernels/update.rs`) and, in NumPy, to
`reference/`; both follow PyTorch's classes of the same names, and optax's Lion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np

from . import checks, timing
from .exact import Floats
from .timing import Clock, Schedule, Timed

Spec = tuple[str, dict[str, float]]
"""What the core takes: a rule's name and its settings."""


Rate = float | Schedule | Callable[[int], float]
"""A learning rate: a number, a schedule (`schedules.py`), or a function of the steps before."""


def _store(optimizer: Optimizer, **checked: float | bool | Schedule) -> None:
    """Store checked settings in a frozen object."""
    for name, value in checked.items():
        object.__setattr__(optimizer, name, value)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with momentum if asked for.

    `v = momentum * v + dW`, then `W -= learning_rate * v`; with `nesterov`,
    `W -= learning_rate * (dW + momentum * v)`. v starts at zero. Without momentum this is
    gradient descent.

    Parameters
    ----------
    learning_rate : float or Schedule, default 1e-2
        At least 0.
    momentum : float, default 0
        In [0, 1).
    nesterov : bool, default False
        Needs a momentum above 0.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton (2013), "On the importance of initialization and momentum
    in deep learning", in PyTorch's form: the rate multiplies the velocity as it is used.
    """

    learning_rate: Rate = 1e-2
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        _store(
            self,
            learning_rate=timing.checked(self.learning_rate),
            momentum=checks.number("momentum", self.momentum, below=1.0),
            nesterov=checks.flag("nesterov", self.nesterov),
        )
        if self.nesterov and self.momentum == 0:
            raise checks.wrong("momentum", "a positive number for nesterov", self.momentum)

    def spec(self) -> Spec:
        """Return the rule's name and settings, as the core takes them."""
        return "sgd", _settings(self)


@dataclass(frozen=True)
class Adam:
    """Adam: steps scaled by running means of the gradient and of its square.

    `m = beta1 * m + (1 - beta1) * dW`, `v = beta2 * v + (1 - beta2) * dW**2`, and at step t
    `W -= learning_rate / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + epsilon)`.

    Parameters
    ----------
    learning_rate : float or Schedule, default 1e-3
        At least 0.
    beta1, beta2 : float, default 0.9 and 0.999
        In [0, 1).
    epsilon : float, default 1e-8
        Above 0.
    amsgrad : bool, default False
        Whether the greatest v so far is divided by.

    References
    ----------
    Kingma, Ba (2015), "Adam: a method for stochastic optimization", algorithm 1; Reddi, Kale,
    Kumar (2018), "On the convergence of Adam and beyond".
    """

    learning_rate: Rate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    amsgrad: bool = False

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        _store(
            self,
            learning_rate=timing.checked(self.learning_rate),
            beta1=checks.number("beta1", self.beta1, below=1.0),
            beta2=checks.number("beta2", self.beta2, below=1.0),
            epsilon=checks.number("epsilon", self.epsilon, positive=True),
            amsgrad=checks.flag("amsgrad", self.amsgrad),
        )

    def spec(self) -> Spec:
        """Return the rule's name and settings, as the core takes them."""
        return "adam", _settings(self)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: first `W -= learning_rate * weight_decay * W`.

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon, amsgrad
        As for `Adam`.
    weight_decay : float, default 1e-2
        At least 0. Of weights; of biases too in a network with `decay_biases`.

    References
    ----------
    Loshchilov, Hutter (2019), "Decoupled weight decay regularization".
    """

    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        super().__post_init__()
        _store(self, weight_decay=checks.number("weight_decay", self.weight_decay))


@dataclass(frozen=True)
class NAdam:
    """Adam with Nesterov's look-ahead and a momentum that grows to beta1.

    With `mu_t = beta1 * (1 - 0.96**(t * momentum_decay) / 2)`, M their product up to t, and m
    and v as in `Adam`: `W -= learning_rate * d / (sqrt(v / (1 - beta2**t)) + epsilon)`, where
    `d = (1 - mu_t) / (1 - M) * dW + mu_{t+1} / (1 - M mu_{t+1}) * m`.

    Parameters
    ----------
    learning_rate : float or Schedule, default 2e-3
        At least 0.
    beta1, beta2 : float, default 0.9 and 0.999
        In [0, 1).
    epsilon : float, default 1e-8
        Above 0.
    momentum_decay : float, default 4e-3
        At least 0.

    References
    ----------
    Dozat (2016), "Incorporating Nesterov momentum into Adam".
    """

    learning_rate: Rate = 2e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    momentum_decay: float = 4e-3

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        _store(
            self,
            learning_rate=timing.checked(self.learning_rate),
            beta1=checks.number("beta1", self.beta1, below=1.0),
            beta2=checks.number("beta2", self.beta2, below=1.0),
            epsilon=checks.number("epsilon", self.epsilon, positive=True),
            momentum_decay=checks.number("momentum_decay", self.momentum_decay),
        )

    def spec(self) -> Spec:
        """Return the rule's name and settings, as the core takes them."""
        return "nadam", _settings(self)


@dataclass(frozen=True)
class RMSprop:
    """RMSprop: steps scaled by a running mean of the gradient's square.

    `v = alpha * v + (1 - alpha) * dW**2`, `u = momentum * u + dW / (sqrt(v) + epsilon)`,
    `W -= learning_rate * u`; with `centered`, v less the square of the running mean of dW.

    Parameters
    ----------
    learning_rate : float or Schedule, default 1e-2
        At least 0.
    alpha : float, default 0.99
        In [0, 1).
    epsilon : float, default 1e-8
        Above 0.
    momentum : float, default 0
        In [0, 1).
    centered : bool, default False

    References
    ----------
    Tieleman, Hinton (2012), lecture 6.5 of "Neural networks for machine learning"; centred: Graves
    (2013), "Generating sequences with recurrent neural networks".
    """

    learning_rate: Rate = 1e-2
    alpha: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        _store(
            self,
            learning_rate=timing.checked(self.learning_rate),
            alpha=checks.number("alpha", self.alpha, below=1.0),
            epsilon=checks.number("epsilon", self.epsilon, positive=True),
            momentum=checks.number("momentum", self.momentum, below=1.0),
            centered=checks.flag("centered", self.centered),
        )

    def spec(self) -> Spec:
        """Return the rule's name and settings, as the core takes them."""
        return "rmsprop", _settings(self)


@dataclass(frozen=True)
class Adagrad:
    """Adagrad: steps scaled by the sum of the gradient's squares.

    `v += dW**2`, and at step t
    `W -= learning_rate / (1 + (t - 1) * learning_rate_decay) * dW / (sqrt(v) + epsilon)`.

    Parameters
    ----------
    learning_rate : float or Schedule, default 1e-2
        At least 0.
    epsilon : float, default 1e-10
        Above 0.
    learning_rate_decay : float, default 0
        At least 0.

    References
    ----------
    Duchi, Hazan, Singer (2011), "Adaptive subgradient methods for online learning and stochastic
    optimization".
    """

    learning_rate: Rate = 1e-2
    epsilon: float = 1e-10
    learning_rate_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        decay = checks.number("learning_rate_decay", self.learning_rate_decay)
        _store(
            self,
            learning_rate=timing.checked(self.learning_rate),
            epsilon=checks.number("epsilon", self.epsilon, positive=True),
            learning_rate_decay=decay,
        )

    def spec(self) -> Spec:
        """Return the rule's name and settings, as the core takes them."""
        return "adagrad", _settings(self)


@dataclass(frozen=True)
class Lion:
    """Lion: steps of one size, in the direction of the sign of a moment.

    `W -= learning_rate * (sign(beta1 * m + (1 - beta1) * dW) + weight_decay * W)`, then
    `m = beta2 * m + (1 - beta2) * dW`.

    Parameters
    ----------
    learning_rate : float or Schedule, default 1e-4
        At least 0.
    beta1, beta2 : float, default 0.9 and 0.99
        In [0, 1).
    weight_decay : float, default 0
        At least 0. Of weights; of biases too in a network with `decay_biases`.

    References
    ----------
    Chen et al. (2023), "Symbolic discovery of optimization algorithms".
    """

    learning_rate: Rate = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        _store(
            self,
            learning_rate=timing.checked(self.learning_rate),
            beta1=checks.number("beta1", self.beta1, below=1.0),
            beta2=checks.number("beta2", self.beta2, below=1.0),
            weight_decay=checks.number("weight_decay", self.weight_decay),
        )

    def spec(self) -> Spec:
        """Return the rule's name and settings, as the core takes them."""
        return "lion", _settings(self)


Elementwise = SGD | Adam | AdamW | NAdam | RMSprop | Adagrad | Lion
"""The optimizers that treat each parameter alone."""

ADJUSTMENTS = ("original", "match_rms_adamw", "spectral_unclamped")
"""What a matrix' shape may do to Muon's learning rate."""


@dataclass(frozen=True)
class Muon:
    """Muon: weight matrices follow their momentum, made nearly orthogonal.

    With `M = momentum * M + (1 - momentum) * dW` and, for `nesterov`,
    `U = (1 - momentum) * dW + momentum * M`: `X = U / |U|`, `ns_steps` times
    `A = X X^T, X = a X + (b A + c A^2) X`, then
    `W -= learning_rate * (adjustment * X + weight_decay * W)`. Biases follow `others`.

    PyTorch iterates in bfloat16, which moves the directions by some thousandths; here the
    iteration has the network's own precision unless `bfloat16` asks for PyTorch's rounding.

    Parameters
    ----------
    learning_rate : float or Schedule, default 1e-3
        At least 0. Of the matrices; `others` has its own, a number.
    weight_decay : float, default 0.1
        At least 0.
    momentum : float, default 0.95
        In [0, 1).
    nesterov : bool, default True
    ns_coefficients : tuple of float, default (3.4445, -4.775, 2.0315)
        a, b and c of Newton and Schulz's iteration.
    epsilon : float, default 1e-7
        The least norm that U is divided by; above 0.
    ns_steps : int, default 5
        Rounds of the iteration, below 100.
    adjust_lr_fn : {"original", "match_rms_adamw", "spectral_unclamped"}
        The adjustment: `sqrt(max(1, n_out / n_in))`, `0.2 sqrt(max(n_out, n_in))` (steps as large
        as AdamW's), or `sqrt(n_out / n_in)`.
    others : str or optimizer, default AdamW()
        What biases follow, with its own learning rate.
    hidden_only : bool, default False
        Whether the first and the last layer follow `others` too.
    bfloat16 : bool, default False
        Whether the iteration's matrices are rounded to bfloat16.

    References
    ----------
    Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks"; Liu et al.
    (2025), "Muon is scalable for LLM training"; in the form of PyTorch's class.
    """

    learning_rate: Rate = 1e-3
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315)
    epsilon: float = 1e-7
    ns_steps: int = 5
    adjust_lr_fn: str = "original"
    others: str | Elementwise = AdamW()
    hidden_only: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        """Check the settings and store them as plain numbers."""
        _store(
            self,
            learning_rate=timing.checked(self.learning_rate),
            weight_decay=checks.number("weight_decay", self.weight_decay),
            momentum=checks.number("momentum", self.momentum, below=1.0),
            nesterov=checks.flag("nesterov", self.nesterov),
            epsilon=checks.number("epsilon", self.epsilon, positive=True),
            ns_steps=checks.integer("ns_steps", self.ns_steps, high=99),
            hidden_only=checks.flag("hidden_only", self.hidden_only),
            bfloat16=checks.flag("bfloat16", self.bfloat16),
        )
        checks.choice("adjust_lr_fn", self.adjust_lr_fn, ADJUSTMENTS)
        coefficients = checks.sequence("ns_coefficients", self.ns_coefficients)
        finite = all(isinstance(x, int | float) and np.isfinite(x) for x in coefficients)
        if len(coefficients) != 3 or not finite:
            raise checks.wrong("ns_coefficients", "three numbers", self.ns_coefficients)
        object.__setattr__(self, "ns_coefficients", tuple(float(x) for x in coefficients))
        others = named("others", self.others) if isinstance(self.others, str) else self.others
        if not isinstance(others, Elementwise):
            name = type(others).__name__
            raise TypeError(f"others: expected an optimizer of single numbers, got {name}")
        object.__setattr__(self, "others", others)

    def spec(self) -> Spec:
        """Return the rule of `others`, with Muon's settings beside it, as the core takes them."""
        name, settings = resolve(self.others).spec()
        a, b, c = self.ns_coefficients
        own = {
            "learning_rate": plain_rate(self.learning_rate),
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "nesterov": float(self.nesterov),
            "a": a,
            "b": b,
            "c": c,
            "epsilon": self.epsilon,
            "ns_steps": float(self.ns_steps),
            "adjust": float(ADJUSTMENTS.index(self.adjust_lr_fn)),
            "hidden_only": float(self.hidden_only),
            "bfloat16": float(self.bfloat16),
        }
        return name, settings | {f"muon_{key}": value for key, value in own.items()}


Optimizer = Elementwise | Muon

BY_NAME: dict[str, Optimizer] = {
    "sgd": SGD(),
    "momentum": SGD(momentum=0.9),
    "nesterov": SGD(momentum=0.9, nesterov=True),
    "adam": Adam(),
    "amsgrad": Adam(amsgrad=True),
    "adamw": AdamW(),
    "nadam": NAdam(),
    "rmsprop": RMSprop(),
    "adagrad": Adagrad(),
    "lion": Lion(),
    "muon": Muon(),
}


def named(argument: str, name: str) -> Optimizer:
    """Return the optimizer that an argument names."""
    return BY_NAME[checks.choice(argument, name, tuple(BY_NAME))]


def resolve(optimizer: str | Optimizer, learning_rate: Rate | None = None) -> Optimizer:
    """Return the optimizer of this name, or `optimizer` itself, with this rate if one is given."""
    if not isinstance(optimizer, Optimizer):
        if not isinstance(optimizer, str):
            raise TypeError(
                f"optimizer: expected a name or an optimizer, got {type(optimizer).__name__}"
            )
        optimizer = named("optimizer", optimizer)
    return optimizer if learning_rate is None else replace(optimizer, learning_rate=learning_rate)


def split(
    optimizer: str | Optimizer, learning_rate: Rate | None = None
) -> tuple[Optimizer, Schedule | None]:
    """Return `resolve` with a plain number as its rate, and the schedule that scales it, if any.

    A schedule without a rate of its own takes that of `optimizer`, or the default where it
    stands in the optimizer itself.
    """
    own, rule = resolve(optimizer), resolve(optimizer, learning_rate)
    if not isinstance(rule.learning_rate, Schedule):
        return rule, None
    given = own.learning_rate
    default = type(own)().learning_rate if isinstance(given, Schedule) else given
    rate = rule.learning_rate.base(plain_rate(default))
    return replace(rule, learning_rate=rate), rule.learning_rate


def plain_rate(rate: Rate) -> float:
    """Return a rate that is a number."""
    if not isinstance(rate, float):
        raise checks.wrong("learning_rate", "a number", rate)
    return rate


def spec(optimizer: str | Optimizer, learning_rate: Rate | None = None) -> Spec | None:
    """Return what the core takes of `resolve`, remembered between calls; None for a schedule."""
    plain = learning_rate is None or type(learning_rate) is float
    if plain and type(optimizer) in (str, SGD, Adam):
        return _remembered(optimizer, cast("float | None", learning_rate))
    return _plain_spec(optimizer, learning_rate)


@lru_cache(maxsize=64)
def _remembered(optimizer: str | Optimizer, learning_rate: float | None) -> Spec | None:
    """Resolve names, frozen optimizers and plain floats, which compare by value."""
    return _plain_spec(optimizer, learning_rate)


def _plain_spec(optimizer: str | Optimizer, learning_rate: Rate | None) -> Spec | None:
    """Return what the core takes, or None for a schedule."""
    rule = resolve(optimizer, learning_rate)
    return None if isinstance(rule.learning_rate, Schedule) else rule.spec()


def rates(rule: Optimizer, schedule: Schedule | None, clock: Clock, epochs: int) -> Floats | None:
    """Return the rate of each step of a fit that is one call, or None without a schedule."""
    if schedule is None:
        return None
    if schedule.plateau is not None:
        raise checks.wrong("learning_rate", "a schedule of steps or epochs", "ReduceOnPlateau")
    timed = Timed.of(schedule, plain_rate(rule.learning_rate), clock, epochs)
    return timed.rates(clock, epochs * clock.batches)


def amendments(
    clip_value: float | None, clip_norm: float | None, average: float | None
) -> dict[str, Any]:
    """Check what an update does beside the optimizer's rule."""
    if clip_value is not None and clip_norm is not None:
        raise checks.wrong("clip_norm", "None beside clip_value", clip_norm)
    return {
        "clip_value": checks.clip("clip_value", clip_value),
        "clip_norm": checks.clip("clip_norm", clip_norm),
        "average": checks.decay("average", average),
    }


def for_course(optimizer: str | Optimizer, learning_rate: Rate, default: float) -> Optimizer:
    """Return the optimizer of `L_layer_model`, whose rate is an argument with a default.

    A name takes `learning_rate`. An object has a rate of its own, and a different
    `learning_rate` that is not the default contradicts it.
    """
    if isinstance(optimizer, str):
        rule, schedule = split(resolve(optimizer, default), learning_rate)
    else:
        rule, schedule = split(optimizer)
        own, rate = resolve(optimizer).learning_rate, timing.checked(learning_rate)
        if rate not in (default, own):
            raise checks.wrong("learning_rate", f"the optimizer's own {own}", rate)
    if schedule is None:
        return rule
    if schedule.plateau is not None:
        raise checks.wrong("learning_rate", "a schedule of the iterations", "ReduceOnPlateau")
    return replace(
        rule, learning_rate=replace(schedule, learning_rate=plain_rate(rule.learning_rate))
    )


def _settings(optimizer: Elementwise) -> dict[str, float]:
    """Return the fields as floats, True as 1."""
    settings = {f.name: getattr(optimizer, f.name) for f in fields(optimizer)}
    plain_rate(settings["learning_rate"])
    return {name: float(value) for name, value in settings.items()}
