"""The gradient of a network's answers with respect to its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import checks, matrices
from ..checks import Array
from ..course import Parameters
from ..layers import BatchNorm, Dense
from .activations import ACTIVATIONS, DERIVATIVES
from .layers import Passed, denormalize, forward


def input_gradients(
    parameters: Mapping[str, Array],
    X: Array,
    directions: Array,
    layers: Sequence[Dense],
    statistics: Parameters | None = None,
    *,
    logits: bool = False,
) -> Array:
    """Return, for each sample, the gradient of `directions . A[L]` by its features.

    The chain rule, as in a backward pass, with the statistics of batch normalisation constant and
    nothing dropped: a prediction's.

    Parameters
    ----------
    parameters : mapping of ndarray
        As `Network.parameters`.
    X : ndarray (n[0], m)
    directions : ndarray (n[L], m)
    layers : sequence of Dense
        As `Network.layers`.
    statistics : dict of ndarray, optional
        As `Network.statistics`; needed where a layer has batch normalisation.
    logits : bool
        Of Z[L] in place of A[L].

    Returns
    -------
    ndarray (n[0], m)

    Raises
    ------
    ValueError
        If X, directions or statistics do not fit the layers.
    """
    W = parameters["W1"]
    X = matrices.samples("X", X, W.shape[1], W.dtype)
    dA = matrices.shaped("directions", directions, (layers[-1].units, X.shape[1]))
    if statistics is None and any(isinstance(layer.norm, BatchNorm) for layer in layers):
        raise checks.wrong("statistics", "those of batch normalisation", None)
    _, passed = forward(X, parameters, layers, statistics=statistics)
    for n in range(len(layers), 0, -1):
        layer, here = layers[n - 1], passed[n - 1]
        if n < len(layers):
            dY = dA * DERIVATIVES[str(layer.activation)](here.Y)
            dZ = _through_norm(dY, n, layer, parameters, here)
        else:
            dZ = dA if logits else _through_output(str(layer.activation), here.Z, dA)
        passes = dA if layer.residual else 0
        dA = parameters[f"W{n}"].T @ dZ + passes
    return dA


def _through_norm(
    dY: Array, n: int, layer: Dense, parameters: Mapping[str, Array], here: Passed
) -> Array:
    if isinstance(layer.norm, BatchNorm):  # an affine function of Z
        scaled: Array = parameters[f"gamma{n}"].reshape(-1, 1) / here.deviation * dY
        return scaled
    return denormalize(dY, n, layer, parameters, here, {})


def _through_output(output: str, Z: Array, v: Array) -> Array:
    """Return `v^T dA/dZ` of each sample."""
    A = ACTIVATIONS[output](Z)
    if output == "softmax":  # A (v - A . v), by differences, of which none cancels
        v = sum(A[j] * (v - v[j]) for j in range(len(A)))
    slopes = {
        "sigmoid": A * ACTIVATIONS["sigmoid"](-Z),  # 1 - A
        "identity": np.ones_like(A),
    }
    result: Array = v * slopes.get(output, A)
    return result
