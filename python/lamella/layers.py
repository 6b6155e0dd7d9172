"""The layers that a user names: their settings, checked and filled in.

Owns `Dense`, the normalisations and the rules for what a network's `layers` may be. Promises that
all of them are immutable and compare by value. Leaves the numbers to the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import checks, initializers, matrices
from .checks import Array
from .initializers import Init

__all__ = ["BatchNorm", "Defaults", "Dense", "LayerNorm", "core_layer", "layers_of"]


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation: `gamma * (Z - mean) / sqrt(variance + epsilon) + beta`.

    Mean and variance of a unit are the batch's in training, and running ones in predictions:
    `running = (1 - momentum) * running + momentum * batch`, with the unbiased variance, as in
    PyTorch. It needs the whole batch at once: at most 65,536 rows. In a batch of one row every
    unit is its own mean, and the layer gives beta.

    Parameters
    ----------
    momentum : float, default 0.1
        In [0, 1].
    epsilon : float, default 1e-5
        Above 0.

    References
    ----------
    Ioffe, Szegedy (2015), "Batch normalization: accelerating deep network training by reducing
    internal covariate shift".
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Check the settings and store them as plain floats."""
        momentum = checks.number("momentum", self.momentum)
        if momentum > 1:
            raise checks.wrong("momentum", "a number in [0, 1]", self.momentum)
        object.__setattr__(self, "momentum", momentum)
        epsilon = checks.number("epsilon", self.epsilon, positive=True)
        object.__setattr__(self, "epsilon", epsilon)


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalisation: `gamma * (Z - mean) / sqrt(variance + epsilon) + beta`.

    Mean and variance are those of a sample over the layer's units.

    Parameters
    ----------
    epsilon : float, default 1e-5
        Above 0.

    References
    ----------
    Ba, Kiros, Hinton (2016), "Layer normalization".
    """

    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Check epsilon and store it as a plain float."""
        epsilon = checks.number("epsilon", self.epsilon, positive=True)
        object.__setattr__(self, "epsilon", epsilon)


Norm = BatchNorm | LayerNorm
NORMS: dict[str, Norm] = {"batch": BatchNorm(), "layer": LayerNorm()}

OUTPUTS = (*checks.LOSSES, "exponential")
"""The activations that a last layer may have."""


@dataclass(frozen=True)
class Dense:
    """A fully connected layer: `A = dropout(activation(norm(W A_prev + b))) + A_prev`.

    Only the product and the activation are there by default. What is None is the network's own
    setting; the last layer never takes normalisation, dropout or a residual from there.

    Parameters
    ----------
    units : int
    activation : str, optional
        Hidden layers: "relu", "leaky_relu" (slope 0.01), "elu" (alpha 1), "selu", "gelu",
        "gelu_tanh", "silu", "mish", "softplus", "softsign", "hard_tanh", "hard_sigmoid",
        "hard_swish", "relu6", "tanh", "sigmoid", "identity"; by default the network's `hidden`.
        Last layer: "sigmoid", "softmax", "identity", "exponential"; by default the network's
        `output`.
    init : str, float or array_like (units, inputs), optional
        See `lamella.initializers`; by default the network's. An array is the weights themselves.
    bias : bool, optional
        Whether there is a b.
    norm : {"batch", "layer"}, BatchNorm, LayerNorm or False, optional
        What is done before the activation; False for nothing.
    dropout : float, optional
        The share of units that training drops, in [0, 1); what is kept is divided by the rest
        (Srivastava et al., 2014). Predictions drop nothing.
    residual : bool, optional
        Whether the layer's input is added to its result: needs as many units as inputs (He et
        al., 2016).
    max_norm : float, optional
        The greatest length of a unit's incoming weights; by default the network's.
    """

    units: int
    activation: str | None = None
    init: Init | Array | None = None
    bias: bool | None = None
    norm: str | Norm | Literal[False] | None = None
    dropout: float | None = None
    residual: bool | None = None
    max_norm: float | None = None


@dataclass(frozen=True)
class Defaults:
    """What a network's layers take where they say nothing, checked."""

    hidden: str
    output: str
    init: Init
    bias: bool = True
    norm: Norm | Literal[False] = False
    dropout: float = 0.0
    residual: bool = False
    max_norm: float | None = None

    @classmethod
    def checked(
        cls,
        hidden: str,
        output: str,
        init: Init,
        bias: bool,
        norm: str | Norm | Literal[False] | None,
        dropout: float,
        residual: bool,
        max_norm: float | None,
    ) -> Defaults:
        """Check a network's settings for its layers."""
        return cls(
            checks.choice("hidden", hidden, checks.HIDDEN),
            checks.choice("output", output, OUTPUTS),
            initializers.checked(init),
            checks.flag("bias", bias),
            _norm("norm", norm),
            checks.number("dropout", dropout, below=1.0),
            checks.flag("residual", residual),
            max_norm,
        )


def layers_of(
    value: Sequence[int | Dense], defaults: Defaults
) -> tuple[int, tuple[Dense, ...], list[Init | Array]]:
    """Return the number of features, the layers with everything filled in, and their starts.

    A layer whose weights were given as an array has the init "given".
    """
    given = checks.sequence("layers", value)
    sizes = [d.units if isinstance(d, Dense) and n else d for n, d in enumerate(given)]
    dims = checks.layer_dims("layers", sizes)
    layers: list[Dense] = []
    starts: list[Init | Array] = []
    for n, (units, layer) in enumerate(zip(dims[1:], given[1:], strict=True), start=1):
        asked = layer if isinstance(layer, Dense) else Dense(units)
        start = _start(asked.init, defaults.init, f"layers[{n}].init", (units, dims[n - 1]))
        init: Init = "given" if isinstance(start, np.ndarray) else start
        last = n == len(dims) - 1
        filled = _filled(asked, defaults, n, last=last, inputs=dims[n - 1])
        layers.append(Dense(units, filled.pop("activation"), init, **filled))
        starts.append(start)
    if layers[-1].activation == "softmax":
        checks.output("softmax", dims[-1])
    return dims[0], tuple(layers), starts


def _filled(asked: Dense, defaults: Defaults, n: int, *, last: bool, inputs: int) -> dict[str, Any]:
    """Return a layer's checked settings besides its units and init."""
    name = f"layers[{n}]"
    activation = asked.activation
    if activation is None:
        activation = defaults.output if last else defaults.hidden
    choices = OUTPUTS if last else checks.HIDDEN
    bias = defaults.bias if asked.bias is None else asked.bias
    dropout = asked.dropout if asked.dropout is not None else 0.0 if last else defaults.dropout
    norm = asked.norm if asked.norm is not None else False if last else defaults.norm
    residual = asked.residual
    if residual is None:
        residual = defaults.residual and not last and asked.units == inputs
    settings = {
        "activation": checks.choice(f"{name}.activation", activation, choices),
        "bias": checks.flag(f"{name}.bias", bias),
        "norm": _norm(f"{name}.norm", norm),
        "dropout": checks.number(f"{name}.dropout", dropout, below=1.0),
        "residual": checks.flag(f"{name}.residual", residual),
        "max_norm": checks.clip(f"{name}.max_norm", asked.max_norm) or defaults.max_norm,
    }
    if last and (settings["norm"] or settings["dropout"] or settings["residual"]):
        raise checks.wrong(
            name,
            "no norm, dropout or residual in the last layer",
            asked,
        )
    if settings["residual"] and asked.units != inputs:
        raise checks.wrong(f"{name}.units", f"{inputs}, as many as its inputs, for a residual",
                           asked.units)  # fmt: skip
    return settings


def _start(init: object, default: Init, name: str, shape: tuple[int, int]) -> Init | Array:
    """Return a layer's checked init: a name, a scale, or the weights."""
    if init is None:
        return default
    if isinstance(init, str) or np.ndim(init) == 0:  # type: ignore[arg-type]
        return initializers.checked(init, name)  # type: ignore[arg-type]
    weights = matrices.real(name, init)  # type: ignore[arg-type]
    matrices.shaped(name, weights, shape)
    matrices.finite(name, weights)
    return weights


def _norm(name: str, value: object) -> Norm | Literal[False]:
    """Return a normalisation, or False for none."""
    if value is None or value is False:
        return False
    if isinstance(value, Norm):
        return value
    if not isinstance(value, str):
        raise TypeError(f'{name}: expected "batch", "layer", a BatchNorm, a LayerNorm or False,'
                        f" got {value!r}")  # fmt: skip
    return NORMS[checks.choice(name, value, tuple(NORMS))]


def core_layer(layer: Dense) -> tuple[Any, ...]:
    """Return a filled-in layer as the core takes it."""
    norm: tuple[str, float, float] | None = None
    if isinstance(layer.norm, BatchNorm):
        norm = ("batch", layer.norm.epsilon, layer.norm.momentum)
    elif isinstance(layer.norm, LayerNorm):
        norm = ("layer", layer.norm.epsilon, 0.0)
    activation = str(layer.activation)
    parameter = checks.ACTIVATION_PARAMETER.get(activation, 0.0)
    bias = layer.bias is not False
    return (layer.units, activation, parameter, bias, norm, layer.dropout or 0.0,
            bool(layer.residual))  # fmt: skip


def parameter_shapes(features: int, layers: Sequence[Dense]) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every parameter: `W1`, and where they are `b1, gamma1, beta1`."""
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = features
    for n, layer in enumerate(layers, start=1):
        shapes[f"W{n}"] = (layer.units, inputs)
        if layer.bias is not False:
            shapes[f"b{n}"] = (layer.units,)
        if layer.norm:
            shapes |= {f"gamma{n}": (layer.units,), f"beta{n}": (layer.units,)}
        inputs = layer.units
    return shapes


def statistic_names(layers: Sequence[Dense]) -> list[str]:
    """Return the names of the running statistics: `mean2, variance2, ...`."""
    normed = [n for n, layer in enumerate(layers, start=1) if isinstance(layer.norm, BatchNorm)]
    return [f"{kind}{n}" for n in normed for kind in ("mean", "variance")]
