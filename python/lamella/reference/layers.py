"""Forward and backward through the layers; features x samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .. import checks
from ..checks import Array
from ..course import Cache, Parameters, dictionary
from .activations import ACTIVATIONS, DERIVATIVES

Rounding = Callable[[Array], Array]
"""What products do to their operands first."""


def as_it_is(A: Array) -> Array:
    """Return A."""
    return A


def forward(
    X: Array,
    weights: Sequence[Array],
    biases: Sequence[Array],
    activations: Sequence[str],
    rounded: Rounding = as_it_is,
) -> tuple[Array, list[Cache]]:
    """Walk up the layers."""
    A, caches = X, []
    for W, b, activation in zip(weights, biases, activations, strict=True):
        Z = rounded(W) @ rounded(A) + b
        caches.append((A, W, b, Z))
        A = ACTIVATIONS[activation](Z)
    return A, caches


def backward(
    dZ: Array,
    inputs: Sequence[Array],
    weights: Sequence[Array],
    Zs: Sequence[Array],
    activations: Sequence[str],
    rounded: Rounding = as_it_is,
) -> Parameters:
    """Walk down the layers, from dZ (n[L], m)."""
    pairs = []
    for layer in reversed(range(len(weights))):
        dZ = rounded(dZ)
        pairs.append((dZ @ rounded(inputs[layer]).T, np.sum(dZ, axis=1, keepdims=True)))
        if layer > 0:
            dZ = (rounded(weights[layer]).T @ dZ) * DERIVATIVES[activations[layer - 1]](
                Zs[layer - 1]
            )
    dW, db = zip(*reversed(pairs), strict=True)
    return {f"d{name}": array for name, array in dictionary(dW, db).items()}


def activations_of(hidden: str | Sequence[str], output: str, dims: Sequence[int]) -> list[str]:
    """Return the checked activation of every layer."""
    layers = len(dims) - 2
    each = [hidden] * max(1, layers) if isinstance(hidden, str) else list(hidden)
    names = [checks.choice("hidden", name, checks.HIDDEN) for name in each]
    if not isinstance(hidden, str) and len(each) != layers:
        raise checks.wrong("hidden", f"{layers} activations", len(each))
    return [*names[:layers], checks.output(output, dims[-1])]


def bfloat16(A: Array) -> Array:
    """Round to the nearest bfloat16 numbers, in A's dtype; subnormal ones become 0."""
    bits = np.where(np.abs(A) < np.finfo(np.float32).tiny, 0, A).astype(np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    rounded: Array = (nearest & np.uint32(0xFFFF0000)).view(np.float32).astype(A.dtype)
    return rounded
