"""The losses of logits, in forms where nothing overflows."""

from __future__ import annotations

import numpy as np

from ..checks import Array


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
