"""The activations and their derivatives, Z any shape (softmax: units x samples)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .. import matrices
from ..checks import LEAKY_SLOPE, Array


def relu(Z: ArrayLike) -> Array:
    """Return max(Z, 0); NaN stays NaN."""
    return np.maximum(matrices.float_array("Z", Z), 0)


def leaky_relu(Z: ArrayLike) -> Array:
    """Return Z where it is positive, else 0.01 Z."""
    Z = matrices.float_array("Z", Z)
    return np.where(Z > 0, Z, LEAKY_SLOPE * Z)


def sigmoid(Z: ArrayLike) -> Array:
    """Return 1 / (1 + exp(-Z)), from exp(-|Z|), which cannot overflow."""
    Z = matrices.float_array("Z", Z)
    E = np.exp(-np.abs(Z))
    A: Array = np.where(Z >= 0, 1, E) / (1 + E)
    return A


def tanh(Z: ArrayLike) -> Array:
    """Return the hyperbolic tangent of Z."""
    return np.tanh(matrices.float_array("Z", Z))


def softmax(Z: ArrayLike) -> Array:
    """Return exp(Z) over its sum, by the largest Z down: over the units, axis 0 of Z (n, m)."""
    Z = matrices.columns("Z", Z)
    E = np.exp(Z - np.max(Z, axis=0, keepdims=True))
    A: Array = E / np.sum(E, axis=0, keepdims=True)
    return A


def identity(Z: ArrayLike) -> Array:
    """Return a copy of Z."""
    return matrices.float_array("Z", Z).copy()


def normal_cdf(Z: Array) -> Array:
    """Return the normal distribution's probability up to Z."""
    flat = [0.5 * math.erfc(-z / math.sqrt(2)) for z in Z.astype(np.float64).ravel().tolist()]
    return np.array(flat).reshape(Z.shape).astype(Z.dtype)


def normal_density(Z: Array) -> Array:
    """Return the normal distribution's density at Z."""
    density: Array = np.exp(-(Z**2) / 2) / np.sqrt(2 * np.pi)
    return density.astype(Z.dtype)


def softplus(Z: Array) -> Array:
    """Return log(1 + exp(Z)), from exp(-|Z|), which cannot overflow."""
    A: Array = np.maximum(Z, 0) + np.log1p(np.exp(-np.abs(Z)))
    return A


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Klambauer, Unterthiner, Mayr, Hochreiter (2017), "Self-normalizing neural networks"."""

GELU_ROOT = float(np.sqrt(2 / np.pi))


def _elu(Z: Array, alpha: float = 1.0) -> Array:
    """Return Z where it is positive, else alpha (exp(Z) - 1)."""
    A: Array = np.where(Z > 0, Z, alpha * np.expm1(np.minimum(Z, 0)))
    return A


def _elu_slope(Z: Array, alpha: float = 1.0) -> Array:
    """Return elu'(Z)."""
    slope: Array = np.where(Z > 0, 1, alpha * np.exp(np.minimum(Z, 0)))
    return slope.astype(Z.dtype)


def _gelu_tanh(Z: Array) -> Array:
    """Return the tanh inside of gelu's approximation."""
    near = np.clip(Z, -20, 20)  # tanh is -1 or 1 beyond
    t: Array = np.tanh(GELU_ROOT * (near + 0.044715 * near**3))
    return t


def _gelu_tanh_slope(Z: Array) -> Array:
    """Return the derivative of gelu's approximation."""
    t, near = _gelu_tanh(Z), np.clip(Z, -20, 20)
    inner = GELU_ROOT * (1 + 3 * 0.044715 * near**2)
    slope: Array = (1 + t) / 2 + near * (1 - t**2) * inner / 2
    return slope


def _mish_slope(Z: Array) -> Array:
    """Return mish'(Z)."""
    t = np.tanh(softplus(Z))
    slope: Array = t + Z * sigmoid(Z) * (1 - t**2)
    return slope


def _hard_swish_slope(Z: Array) -> Array:
    """Return the derivative of hard swish, 0 at -3 and 1 at 3."""
    slope: Array = np.where(Z <= -3, 0, np.where(Z < 3, Z / 3 + 0.5, 1))
    return slope.astype(Z.dtype)


def _within(Z: Array, least: float, most: float) -> Array:
    """Return 1 where Z is strictly between two bounds, else 0."""
    return ((least < Z) & (most > Z)).astype(Z.dtype)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": _elu,
    "selu": lambda Z: SELU_SCALE * _elu(Z, SELU_ALPHA),
    "gelu": lambda Z: Z * normal_cdf(Z),
    "gelu_tanh": lambda Z: Z * (1 + _gelu_tanh(Z)) / 2,
    "silu": lambda Z: Z * sigmoid(Z),
    "mish": lambda Z: Z * np.tanh(softplus(Z)),
    "softplus": softplus,
    "softsign": lambda Z: Z / (1 + np.abs(Z)),
    "hard_tanh": lambda Z: np.clip(Z, -1, 1),
    "hard_sigmoid": lambda Z: np.clip(Z / 6 + 0.5, 0, 1),
    "hard_swish": lambda Z: Z * np.clip(Z / 6 + 0.5, 0, 1),
    "relu6": lambda Z: np.clip(Z, 0, 6),
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "identity": identity,
    "exponential": np.exp,
}

DERIVATIVES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda Z: (Z > 0).astype(Z.dtype),
    "leaky_relu": lambda Z: np.where(Z > 0, 1, LEAKY_SLOPE).astype(Z.dtype),
    "elu": _elu_slope,
    "selu": lambda Z: SELU_SCALE * _elu_slope(Z, SELU_ALPHA),
    "gelu": lambda Z: normal_cdf(Z) + Z * normal_density(Z),
    "gelu_tanh": _gelu_tanh_slope,
    "silu": lambda Z: sigmoid(Z) * (1 + Z * sigmoid(-Z)),
    "mish": _mish_slope,
    "softplus": sigmoid,
    "softsign": lambda Z: 1 / (1 + np.abs(Z)) ** 2,
    "hard_tanh": lambda Z: _within(Z, -1, 1),
    "hard_sigmoid": lambda Z: _within(Z, -3, 3) / 6,
    "hard_swish": _hard_swish_slope,
    "relu6": lambda Z: _within(Z, 0, 6),
    "tanh": lambda Z: 1 - np.tanh(Z) ** 2,
    "sigmoid": lambda Z: sigmoid(Z) * sigmoid(-Z),
    "identity": np.ones_like,
}
"""g'(Z) of the hidden activations."""
