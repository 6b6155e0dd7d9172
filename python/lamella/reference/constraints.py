"""Clipping by norm, max-norm constraints, and averages of parameters."""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..course import Parameters


def clip_by_norm(grads: Parameters, limit: float) -> None:
    """Scale all gradients, in place, to a norm of at most `limit`: PyTorch's `clip_grad_norm_`."""
    norm = np.sqrt(sum(float(np.sum(g**2, dtype=np.float64)) for g in grads.values()))
    for g in grads.values():
        g *= min(1.0, limit / (norm + 1e-6))


def constrain(W: Array, limit: float) -> None:
    """Shorten the rows of W (n[l], n[l-1]), in place, to `limit`: PyTorch's `renorm`."""
    lengths = np.linalg.norm(W, axis=1, keepdims=True)
    W *= np.where(lengths > limit, limit / (lengths + 1e-7), 1)


def approach(averages: Parameters, parameters: Parameters, decay: float) -> None:
    """Take a step of the moving averages, in place."""
    for name, mean in averages.items():
        mean[...] = decay * mean + (1 - decay) * parameters[name]
