"""Checks of what the L-layer functions hand on: parameters, gradients and caches.

Owns the dicts `W1, b1, ..., WL, bL` and the tuples `(A_prev, W, b, Z)`, features x samples.
Errors are as in `checks.py`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import matrices
from .checks import Array, wrong


@dataclass(frozen=True)
class Layers:
    """The checked parameters of an L-layer network, in the computation's dtype.

    Attributes
    ----------
    dims : tuple of int
        `(n[0], ..., n[L])`.
    weights, biases : list of ndarray
        `W[l] (n[l], n[l-1])` and `b[l] (n[l], 1)`; the caller's own arrays where they had
        the dtype already.
    dtype : dtype
        float32 if every array is float32, else float64.
    """

    dims: tuple[int, ...]
    weights: list[Array]
    biases: list[Array]
    dtype: np.dtype[Any]


def depth(name: str, arrays: object) -> int:
    """Return L of a dict whose keys are `W1, b1, ..., WL, bL`, in any order."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{name}: expected a dict of arrays, got {reprlib.repr(arrays)}")
    L = len(arrays) // 2
    keys = {f"{kind}{layer}" for layer in range(1, L + 1) for kind in "Wb"}
    if L == 0 or set(arrays) != keys:
        raise wrong(name, "keys W1, b1, W2, b2, ...", reprlib.repr(list(arrays)))
    return L


def layers(parameters: Mapping[str, ArrayLike], dims: Sequence[int] | None = None) -> Layers:
    """Check the parameters of an L-layer network: keys, shapes, dtypes, finite numbers.

    Parameters
    ----------
    parameters : dict
        `W1, b1, ..., WL, bL`: `W[l] (n[l], n[l-1])`, `b[l] (n[l], 1)`.
    dims : sequence of int, optional
        `n[0], ..., n[L]`; by default the weights' own.
    """
    arrays = {}
    for layer in range(1, depth("parameters", parameters) + 1):
        for name in (f"W{layer}", f"b{layer}"):
            arrays[name] = matrices.real(name, parameters[name])
    return _chain(arrays, dims)


def _chain(arrays: dict[str, Array], dims: Sequence[int] | None) -> Layers:
    """Check that each layer takes what the one before it gives."""
    L = len(arrays) // 2
    if dims is not None and len(dims) != L + 1:
        raise wrong("parameters", f"{len(dims) - 1} layers", L)
    sizes = list(dims) if dims is not None else _sizes(arrays, L)
    for layer in range(1, L + 1):
        expected = {"W": (sizes[layer], sizes[layer - 1]), "b": (sizes[layer], 1)}
        for kind, shape in expected.items():
            matrices.shaped(f"{kind}{layer}", arrays[f"{kind}{layer}"], shape)
    for name, array in arrays.items():
        matrices.finite(name, array)
    single = all(array.dtype == np.float32 for array in arrays.values())
    dtype = np.dtype(np.float32 if single else np.float64)
    W, b = ([arrays[f"{kind}{n}"].astype(dtype, copy=False) for n in range(1, L + 1)]
            for kind in "Wb")  # fmt: skip
    return Layers(tuple(sizes), W, b, dtype)


def _sizes(arrays: dict[str, Array], L: int) -> list[int]:
    """Read `n[0], ..., n[L]` off the weights."""
    for layer in range(1, L + 1):
        W = arrays[f"W{layer}"]
        if W.ndim != 2 or W.size == 0:
            raise wrong(f"W{layer}", "a matrix that is not empty", f"shape {W.shape}")
    return [arrays["W1"].shape[1], *(arrays[f"W{n}"].shape[0] for n in range(1, L + 1))]


def gradients(grads: Mapping[str, ArrayLike], net: Layers) -> list[tuple[Array, Array]]:
    """Return `(dW[l], db[l])` of each layer, shaped like the parameters; other keys are ignored."""
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads: expected a dict of arrays, got {reprlib.repr(grads)}")
    pairs = []
    for layer, (W, b) in enumerate(zip(net.weights, net.biases, strict=True), start=1):
        for name, array in ((f"dW{layer}", W), (f"db{layer}", b)):
            if name not in grads:
                raise wrong("grads", f"the key {name}", reprlib.repr(list(grads)))
            matrices.finite(name, matrices.shaped(name, grads[name], array.shape))
        pairs.append(
            (matrices.real("dW", grads[f"dW{layer}"]), matrices.real("db", grads[f"db{layer}"]))
        )
    return pairs


def writable(parameters: Mapping[str, object]) -> None:
    """Refuse parameters that cannot be updated in place."""
    for name, array in parameters.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            received = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{name}: expected an array of floats to update, got {received}")
        if not array.flags.writeable:
            raise wrong(name, "an array that may be written to", "a read-only one")


@dataclass(frozen=True)
class Cached:
    """What a backward pass reads, checked: `A[l-1]`, `Z[l]` and the layers, in one dtype."""

    inputs: list[Array]
    pre_activations: list[Array]
    net: Layers


def caches(value: object, outputs_shape: tuple[int, ...]) -> Cached:
    """Check the caches of a forward pass against each other and against the shape of AL.

    Parameters
    ----------
    value : list of tuple
        `(A_prev, W, b, Z)` per layer, as `L_model_forward` returns them.
    outputs_shape : tuple of int
        `(n[L], m)`.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise TypeError(f"caches: expected a list of tuples, got {reprlib.repr(value)}")
    for i, cache in enumerate(value):
        if not isinstance(cache, tuple | list) or len(cache) != 4:
            raise TypeError(f"caches[{i}]: expected (A_prev, W, b, Z), got {reprlib.repr(cache)}")
    names = [(f"W{i}", f"b{i}") for i in range(1, len(value) + 1)]
    net = layers({n: array for pair, c in zip(names, value, strict=True)
                  for n, array in zip(pair, c[1:3], strict=True)})  # fmt: skip
    if net.dims[-1] != outputs_shape[0]:
        raise wrong("AL", f"shape ({net.dims[-1]}, m)", outputs_shape)
    inputs, Zs = [], []
    for i, (A, _, _, Z) in enumerate(value):
        inputs.append(_cached(f"caches[{i}][0]", A, net.dims[i], outputs_shape[1], net.dtype))
        Zs.append(_cached(f"caches[{i}][3]", Z, net.dims[i + 1], outputs_shape[1], net.dtype))
    return Cached(inputs, Zs, net)


def _cached(name: str, value: Any, units: int, m: int, dtype: np.dtype[Any]) -> Array:
    """Return one array of a cache, `(units, m)`, finite, in `dtype`."""
    array = matrices.shaped(name, value, (units, m))
    matrices.finite(name, array, dtype)
    return array.astype(dtype, copy=False)
