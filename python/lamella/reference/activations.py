"""The activations and their derivatives, Z any shape (softmax: units x samples)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from ..checks import LEAKY_SLOPE, Array


def relu(Z: ArrayLike) -> Array:
    """Return max(Z, 0); NaN stays NaN."""
    return np.maximum(checks.float_array("Z", Z), 0)


def leaky_relu(Z: ArrayLike) -> Array:
    """Return Z where it is positive, else 0.01 Z."""
    Z = checks.float_array("Z", Z)
    return np.where(Z > 0, Z, LEAKY_SLOPE * Z)


def sigmoid(Z: ArrayLike) -> Array:
    """Return 1 / (1 + exp(-Z)), from exp(-|Z|), which cannot overflow."""
    Z = checks.float_array("Z", Z)
    E = np.exp(-np.abs(Z))
    A: Array = np.where(Z >= 0, 1, E) / (1 + E)
    return A


def tanh(Z: ArrayLike) -> Array:
    """Return the hyperbolic tangent of Z."""
    return np.tanh(checks.float_array("Z", Z))


def softmax(Z: ArrayLike) -> Array:
    """Return exp(Z) over its sum, by the largest Z down: over the units, axis 0 of Z (n, m)."""
    Z = checks.columns("Z", Z)
    E = np.exp(Z - np.max(Z, axis=0, keepdims=True))
    A: Array = E / np.sum(E, axis=0, keepdims=True)
    return A


def identity(Z: ArrayLike) -> Array:
    """Return a copy of Z."""
    return checks.float_array("Z", Z).copy()


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "identity": identity,
}

DERIVATIVES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda Z: (Z > 0).astype(Z.dtype),
    "leaky_relu": lambda Z: np.where(Z > 0, 1, LEAKY_SLOPE).astype(Z.dtype),
    "tanh": lambda Z: 1 - np.tanh(Z) ** 2,
    "sigmoid": lambda Z: sigmoid(Z) * sigmoid(-Z),
    "identity": np.ones_like,
}
"""g'(Z) of the hidden activations."""
