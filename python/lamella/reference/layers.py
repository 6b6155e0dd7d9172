"""Forward and backward through the layers; features x samples.

`A[l] = dropout(g(norm(W[l] A[l-1] + b[l]))) + A[l-1]`, each part optional.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .. import checks
from ..checks import Array
from ..course import Parameters
from ..layers import BatchNorm, Dense, LayerNorm
from .activations import ACTIVATIONS, DERIVATIVES
from .dropout import mask

Rounding = Callable[[Array], Array]
"""What products do to their operands first."""


def as_it_is(A: Array) -> Array:
    """Return A."""
    return A


class Training(NamedTuple):
    """What a pass in training draws its masks from; a prediction has none."""

    seed: int
    step: int


class Passed(NamedTuple):
    """What backward reads of a layer."""

    A_prev: Array
    Z: Array
    Y: Array
    normed: Array
    deviation: Array
    kept: Array | float


def forward(
    X: Array,
    parameters: Mapping[str, Array],
    layers: Sequence[Dense],
    rounded: Rounding = as_it_is,
    training: Training | None = None,
    statistics: Parameters | None = None,
) -> tuple[Array, list[Passed]]:
    """Walk up the layers. In training `statistics`, the running ones, are brought up to date."""
    A, passed = X, []
    for n, layer in enumerate(layers, start=1):
        A_prev = A
        b = np.reshape(parameters.get(f"b{n}", 0), (-1, 1)).astype(A.dtype)
        Z = rounded(parameters[f"W{n}"]) @ rounded(A_prev) + b
        Y, normed, deviation = _normalize(Z, n, layer, parameters, training, statistics)
        A = ACTIVATIONS[str(layer.activation)](Y)
        kept: Array | float = 1.0
        if training and layer.dropout:
            kept = mask(layer.dropout, *training, n - 1, *A.shape).astype(A.dtype)
            A = A * kept
        if layer.residual:
            A = A + A_prev
        passed.append(Passed(A_prev, Z, Y, normed, deviation, kept))
    return A, passed


def _normalize(
    Z: Array,
    n: int,
    layer: Dense,
    parameters: Mapping[str, Array],
    training: Training | None,
    statistics: Parameters | None,
) -> tuple[Array, Array, Array]:
    """Return Y, (Z - mean) / deviation, and the deviation."""
    if not isinstance(layer.norm, BatchNorm | LayerNorm):
        return Z, Z, np.ones((1, 1), Z.dtype)
    over = 1 if isinstance(layer.norm, BatchNorm) else 0
    mean, variance = np.mean(Z, axis=over, keepdims=True), np.var(Z, axis=over, keepdims=True)
    if isinstance(layer.norm, BatchNorm) and statistics is not None:
        running = statistics[f"mean{n}"], statistics[f"variance{n}"]
        if training is None:
            mean, variance = (array[:, None] for array in running)
        else:
            m = Z.shape[1]
            momentum = layer.norm.momentum
            for array, new in zip(running, (mean, variance * m / max(m - 1, 1)), strict=True):
                array[...] = (1 - momentum) * array + momentum * new[:, 0]
    deviation = np.sqrt(variance + layer.norm.epsilon)
    normed = (Z - mean) / deviation
    gamma, beta = (parameters[f"{name}{n}"].reshape(-1, 1) for name in ("gamma", "beta"))
    return gamma * normed + beta, normed, deviation


def backward(
    dZ: Array,
    parameters: Mapping[str, Array],
    layers: Sequence[Dense],
    passed: Sequence[Passed],
    rounded: Rounding = as_it_is,
) -> Parameters:
    """Walk down the layers, from dZ (n[L], m); gradients are shaped as their parameters."""
    grads: Parameters = {}
    dA = dZ
    for n in range(len(layers), 0, -1):
        layer, here = layers[n - 1], passed[n - 1]
        if n < len(layers):
            dY = dA * here.kept * DERIVATIVES[str(layer.activation)](here.Y)
            dZ = denormalize(dY, n, layer, parameters, here, grads)
        dZ = rounded(dZ)
        grads[f"dW{n}"] = dZ @ rounded(here.A_prev).T
        grads[f"db{n}"] = np.sum(dZ, axis=1, keepdims=True)
        if n > 1:
            passes = dA if layer.residual else 0
            dA = rounded(parameters[f"W{n}"]).T @ dZ + passes
    return {
        f"d{name}": grads[f"d{name}"].reshape(array.shape) for name, array in parameters.items()
    }


def denormalize(
    dY: Array,
    n: int,
    layer: Dense,
    parameters: Mapping[str, Array],
    here: Passed,
    grads: Parameters,
) -> Array:
    """Return dZ, and leave the gradients of gamma and beta in `grads`.

    Ioffe, Szegedy (2015), section 3, brought together: with `g = gamma dY` and means over what mean
    and variance were taken over, `dZ = (g - mean(g) - normed mean(g normed)) / deviation`.
    """
    if not layer.norm:
        return dY
    grads[f"dgamma{n}"] = np.sum(dY * here.normed, axis=1)
    grads[f"dbeta{n}"] = np.sum(dY, axis=1)
    over = 1 if isinstance(layer.norm, BatchNorm) else 0
    g = parameters[f"gamma{n}"].reshape(-1, 1) * dY
    means = [np.mean(x, axis=over, keepdims=True) for x in (g, g * here.normed)]
    dZ: Array = (g - means[0] - here.normed * means[1]) / here.deviation
    return dZ


def layers_like(hidden: str | Sequence[str], output: str, dims: Sequence[int]) -> list[Dense]:
    """Return plain layers with checked activations."""
    count = len(dims) - 2
    several = isinstance(hidden, Sequence | np.ndarray) and not isinstance(hidden, str)
    each = list(hidden) if several else [hidden] * max(1, count)
    names = [checks.choice("hidden", name, checks.HIDDEN) for name in each]
    if several and len(each) != count:
        raise checks.wrong("hidden", f"{count} activations", len(each))
    names = [*names[:count], checks.output(output, dims[-1])]
    return [Dense(units, name) for units, name in zip(dims[1:], names, strict=True)]


def bfloat16(A: Array) -> Array:
    """Round to the nearest bfloat16 numbers, in A's dtype; subnormal ones become 0."""
    bits = np.where(np.abs(A) < np.finfo(np.float32).tiny, 0, A).astype(np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    rounded: Array = (nearest & np.uint32(0xFFFF0000)).view(np.float32).astype(A.dtype)
    return rounded
