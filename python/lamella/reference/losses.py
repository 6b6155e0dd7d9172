"""The losses of logits, in forms where nothing overflows, and their gradients.

Features x samples: Z (n[L], m) are logits, Y (n[L], m) targets, one-hot for classes (for quantiles
(targets, m)). Each function returns the sum over outputs of every sample's loss, in pieces whose
sum over axis 0 it is, and the gradient by Z (n[L], m). `lamella.losses` says what is what.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import matrices
from ..checks import Array
from ..losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    Hinge,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    Quantile,
    SquaredHinge,
)
from .activations import sigmoid, softmax


def losses(Z: Array, Y: Array, output: str) -> Array:
    """Return the elementary losses of logits Z (n[L], m), in a form where nothing overflows."""
    result: Array
    if output == "sigmoid":
        result = np.maximum(Z, 0) - Y * Z + np.log1p(np.exp(-np.abs(Z)))
    elif output == "softmax":
        top = np.max(Z, axis=0)
        result = np.log(np.sum(np.exp(Z - top), axis=0)) + (top - np.sum(Y * Z, axis=0))
    else:
        result = (Z - Y) ** 2 / 2
    return result


def softplus(Z: Array) -> Array:
    """Return log(1 + exp(Z)), which is -log(1 - sigmoid(Z))."""
    result: Array = np.maximum(Z, 0) + np.log1p(np.exp(-np.abs(Z)))
    return result


def log_softmax(Z: Array) -> Array:
    """Return the logarithm of `softmax`."""
    shifted = Z - np.max(Z, axis=0)
    result: Array = shifted - np.log(np.sum(np.exp(shifted), axis=0))
    return result


def loss_and_gradient(loss: Loss, Z: Array, Y: Array, output: str) -> tuple[Array, Array]:
    """Return the elementary losses, whose sum over axis 0 is the sample's, and the gradient.

    As in the core, squared errors are halved and nothing is divided by the number of outputs.
    """
    if isinstance(loss, BinaryCrossEntropy):
        return _binary_cross_entropy(loss, Z, Y)
    if isinstance(loss, CrossEntropy):
        targets = Y * (1 - loss.label_smoothing) + loss.label_smoothing / len(Z)
        return -targets * log_softmax(Z), softmax(Z) - targets
    if isinstance(loss, Focal):
        return _focal(loss, Z, Y) if output == "softmax" else _binary_focal(loss, Z, Y)
    if isinstance(loss, Hinge):
        classes = loss.task(output, len(Z)).targets == "classes"
        return (_multi_margin if classes else _hinge)(isinstance(loss, SquaredHinge), Z, Y)
    if isinstance(loss, MeanSquaredError):
        return (Z - Y) ** 2 / 2, Z - Y
    if isinstance(loss, MeanAbsoluteError):
        return np.abs(Z - Y), np.sign(Z - Y)
    if isinstance(loss, Huber):
        d, delta = Z - Y, loss.delta
        far = delta * (np.abs(d) - delta / 2)
        return np.where(np.abs(d) <= delta, d**2 / 2, far), np.clip(d, -delta, delta)
    if isinstance(loss, Poisson):
        return np.exp(Z) - Y * Z, np.exp(Z) - Y
    if isinstance(loss, Quantile):
        return _quantile(loss, Z, Y)
    raise TypeError(f"loss: expected a loss of lamella.losses, got {loss!r}")


def _binary_cross_entropy(loss: BinaryCrossEntropy, Z: Array, Y: Array) -> tuple[Array, Array]:
    """Return `p t (-log s(z)) + (1 - t) (-log(1 - s(z)))`."""
    weight = 1.0 if loss.positive_weight is None else loss.positive_weight
    positive = np.broadcast_to(np.reshape(weight, (-1, 1)), (len(Z), 1))
    targets = Y * (1 - loss.label_smoothing) + loss.label_smoothing / 2
    yes, no = positive * targets, 1 - targets
    return yes * softplus(-Z) + no * softplus(Z), no * sigmoid(Z) - yes * sigmoid(-Z)


def _binary_focal(loss: Focal, Z: Array, Y: Array) -> tuple[Array, Array]:
    """Return `-a (1 - p)^gamma log p`, p the probability of what is so."""
    sign = 2 * Y - 1
    p, rest, surprise = sigmoid(sign * Z), sigmoid(-sign * Z), softplus(-sign * Z)
    a = 1.0 if loss.alpha is None else np.where(Y == 1, loss.alpha, 1 - loss.alpha)  # type: ignore[operator]
    focus = a * rest**loss.gamma
    return focus * surprise, -sign * focus * (loss.gamma * p * surprise + rest)


def _focal(loss: Focal, Z: Array, Y: Array) -> tuple[Array, Array]:
    """Return the same of a softmax, where p is the class's probability."""
    P = softmax(Z)
    p, rest = np.sum(Y * P, axis=0), np.sum((1 - Y) * P, axis=0)
    surprise = -np.sum(Y * log_softmax(Z), axis=0)
    alpha = np.reshape(1.0 if loss.alpha is None else loss.alpha, (-1, 1))
    a = np.sum(Y * np.broadcast_to(alpha, (len(Z), 1)), axis=0)
    slope = a * (loss.gamma * p * rest ** (loss.gamma - 1) * surprise + rest**loss.gamma)
    return (a * rest**loss.gamma * surprise)[None], slope * (P - Y)


def _hinge(squared: bool, Z: Array, Y: Array) -> tuple[Array, Array]:
    """Return `max(0, 1 - (2 y - 1) z)`, or its square."""
    sign = 2 * Y - 1
    missing = np.maximum(0, 1 - sign * Z)
    if squared:
        return missing**2, -2 * sign * missing
    return missing, -sign * (missing > 0)


def _multi_margin(squared: bool, Z: Array, Y: Array) -> tuple[Array, Array]:
    """Return `max(0, 1 - z[class] + z[j])` of the other classes j, or the square."""
    missing = np.maximum(0, 1 - np.sum(Y * Z, axis=0) + Z) * (1 - Y)
    push = 2 * missing if squared else (missing > 0).astype(Z.dtype)
    return missing**2 if squared else missing, push - Y * np.sum(push, axis=0)


def _quantile(loss: Quantile, Z: Array, Y: Array) -> tuple[Array, Array]:
    """Return `max(q d, (q - 1) d)`, `d = y - z`; a target's quantiles lie side by side."""
    q = np.reshape(loss.quantiles, (-1, 1))
    d = np.repeat(Y, len(q), axis=0) - Z
    q = np.tile(q, (len(Y), 1)).astype(Z.dtype)
    return np.maximum(q * d, (q - 1) * d), np.where(d > 0, -q, np.where(d < 0, 1 - q, 0))


def targets(
    loss: Loss, Y: ArrayLike, output: str, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Array:
    """Return checked targets as Y (n, m), one-hot for classes, for logits of this shape."""
    task = loss.task(output, shape[0])
    return matrices.target_matrix(Y, (task.columns, shape[1]), task.like, dtype)
