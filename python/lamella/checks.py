"""Checks of arguments, shared by the L-layer functions, their reference and the model.

Owns every message about a wrong argument: `name: expected ..., got ...`. Promises that a
checked value is plain (a native real NumPy array, an int, a float, a str), that no array was
changed, and that a large array was copied only where its dtype had to change. Computes
nothing; leaves what only the core can see (threads, memory, divergence) to the core.

Raises `TypeError` for what is not a number at all (strings, objects, complex numbers, a bool
where a count belongs) and `ValueError` for numbers and shapes that do not fit.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import frames

Array = NDArray[Any]

HIDDEN = (
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "softplus",
    "softsign",
    "hard_tanh",
    "hard_sigmoid",
    "hard_swish",
    "relu6",
    "tanh",
    "sigmoid",
    "identity",
)
"""The activations of hidden layers."""

LEAKY_SLOPE = 0.01
"""What leaky relu multiplies negative numbers by."""

ACTIVATION_PARAMETER = {"leaky_relu": LEAKY_SLOPE, "elu": 1.0}
"""The parameter of the activations that have one: a slope, alpha."""

LOSSES = {
    "sigmoid": "binary_cross_entropy",
    "softmax": "cross_entropy",
    "identity": "mean_squared_error",
}
"""The output activations, each with the loss that belongs to it."""

CORE_LOSSES = LOSSES | {"identity": "squared_error"}
"""The core's names; its squared error is half the square."""

LARGEST_INTEGER = 2**63 - 1
LARGEST_FLOAT = float(np.finfo(np.float64).max)
LARGEST_SEED = 2**32 - 1
"""The largest seed of `numpy.random.RandomState`."""

SCANNED_AT_ONCE = 1 << 16
"""Entries looked at together when the first wrong one of a large array is searched."""


# --- numbers ---------------------------------------------------------------------------------


def wrong(name: str, expected: str, received: object) -> ValueError:
    """Build the error of an argument that has the right type and the wrong value."""
    return ValueError(f"{name}: expected {expected}, got {received}")


def integer(name: str, value: object, low: int = 0, high: int = LARGEST_INTEGER) -> int:
    """Return `value` as an int in [low, high]; a bool or a float is a `TypeError`."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {reprlib.repr(value)}") from None
    if not low <= number <= high:
        bounds = f"at least {low}" if high == LARGEST_INTEGER else f"from {low} to {high}"
        raise wrong(name, f"an integer {bounds}", number)
    return number


def number(name: str, value: object, *, positive: bool = False, below: float = np.inf) -> float:
    """Return `value` as a finite float in [0, below), or in (0, below) if `positive`."""
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise TypeError(f"{name}: expected a number, got {reprlib.repr(value)}")
    if not 0 <= value < min(below, LARGEST_FLOAT) or (positive and value == 0):
        expected = "a positive number" if positive else "a number of at least 0"
        bound = "" if below == np.inf else f" and below {below:g}"
        raise wrong(name, expected + bound, reprlib.repr(value))
    return float(value)


def flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {reprlib.repr(value)}")
    return bool(value)


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of the names `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise wrong(name, f"one of {', '.join(allowed)}", reprlib.repr(value))
    return value


def seed(value: object) -> int:
    """Return a seed that every generator of the package takes."""
    return integer("seed", value, high=LARGEST_SEED)


def threads(value: object) -> int | None:
    """Return a count of threads, or None for as many as help."""
    return None if value is None else integer("threads", value, low=1)


def batch_size(value: object, m: int) -> int | None:
    """Return how many of m samples a batch holds, or None if it holds all of them."""
    if value is None:
        return None
    size = integer("batch_size", value, low=1)
    return size if size < m else None


def floating(value: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = np.dtype(object)
    if value is None or dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise wrong("dtype", "float32 or float64", reprlib.repr(value))
    return dtype


def clip(name: str, value: float | None) -> float | None:
    """Return a limit above 0, or None for none."""
    return None if value is None else number(name, value, positive=True)


def decay(name: str, value: float | None) -> float | None:
    """Return what is kept in each step, in [0, 1), or None for no average."""
    return None if value is None else number(name, value, below=1.0)


def path(value: object) -> str:
    """Return a file's path as a str."""
    spelt = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(spelt, str):
        raise TypeError(f"path: expected a file's path, got {reprlib.repr(value)}")
    if not spelt:
        raise wrong("path", "a file's path", repr(spelt))
    return spelt


def listed(name: str, value: object, of: str) -> list[Any]:
    """Return the entries of a list, a tuple or an array; a str or bytes is none."""
    plain = value.tolist() if hasattr(value, "tolist") else value  # an array, a series, an index
    if isinstance(plain, str | bytes) or not isinstance(plain, Sequence):
        raise TypeError(f"{name}: expected a list of {of}, got {reprlib.repr(value)}")
    return list(plain)


def precision(value: DTypeLike) -> tuple[np.dtype[Any], str]:
    """Return the dtype of the parameters, and the name of what products compute in."""
    if isinstance(value, str) and value == "bfloat16":
        return np.dtype(np.float32), "bfloat16"
    try:
        dtype = floating(value)
    except ValueError:
        raise wrong("dtype", "float32, float64 or bfloat16", reprlib.repr(value)) from None
    return dtype, dtype.name


# --- arrays ----------------------------------------------------------------------------------


def real(name: str, value: ArrayLike, *, half: bool = False) -> Array:
    """Return `value` as an array of bool, int or float, at most 64 bits wide, native order.

    A large array is copied only where this changes its dtype; float16 becomes float32 unless
    `half`.

    Raises
    ------
    TypeError
        For strings, objects, complex numbers, dates, masked and sparse arrays.
    ValueError
        For nested sequences that are not rectangular.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got a masked array")
    if isinstance(value, np.ndarray):
        array: Array = np.asarray(value)
    elif frames.is_frame(value):
        array = frames.to_array(name, value)
    elif frames.is_dlpack(value):
        array = frames.from_dlpack(name, value)
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            raise wrong(name, "a rectangular array", "rows of different lengths") from None
    if array.dtype.kind not in "biuf":
        received = f"dtype {array.dtype}" if array.ndim else type(value).__name__
        raise TypeError(f"{name}: expected an array of real numbers, got {received}")
    wanted = _plain(array.dtype, half)
    return array if array.dtype == wanted else array.astype(wanted)


def _plain(dtype: np.dtype[Any], half: bool) -> np.dtype[Any]:
    """Return the dtype, in native order and at most 64 bits wide, that numbers of `dtype` get."""
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        narrow = np.float16 if half else np.float32
        return np.dtype(narrow if dtype.itemsize == 2 else np.float64)
    return dtype.newbyteorder("=")


def float_array(name: str, value: ArrayLike) -> Array:
    """Return `value` as an array of float32 or, whatever else it was, of float64."""
    array = real(name, value)
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)


def columns(name: str, value: ArrayLike) -> Array:
    """Return floats (n, m) or (n,), of which each column is one sample's."""
    array = float_array(name, value)
    if array.ndim not in (1, 2) or array.size == 0:
        raise wrong(name, "a matrix (n, m) or a vector (n,), not empty", f"shape {array.shape}")
    return array


def finite(name: str, array: Array, dtype: np.dtype[Any] | None = None) -> None:
    """Refuse NaN, infinity, and numbers too large for `dtype`, naming the first one's place."""
    if array.dtype.kind != "f":
        return
    narrowed = dtype is not None and dtype.itemsize < array.dtype.itemsize
    with np.errstate(all="ignore"):
        if not narrowed and np.isfinite(np.sum(array)):  # one pass, no copy
            return
        limit = float(np.finfo(dtype if narrowed and dtype else array.dtype).max)
        if -limit <= np.min(array) and np.max(array) <= limit:
            return
        kind = f"finite numbers within {dtype}" if narrowed else "finite numbers"
        refuse(name, kind, array, lambda block: ~(np.abs(block) <= limit))


def refuse(name: str, expected: str, array: Array, bad: Callable[[Array], Array]) -> None:
    """Raise `ValueError` for the first entry, in row order, that `bad` marks, if there is one."""
    rows = max(1, SCANNED_AT_ONCE // max(1, array[:1].size))
    for start in range(0, len(array), rows):
        block = array[start : start + rows]
        marked = bad(block)
        if marked.any():
            place = np.argwhere(marked)[0]
            value = block[tuple(place)]
            place[0] += start
            raise wrong(name, expected, f"{value} at {_place(place.tolist())}")


def _place(index: list[int]) -> str:
    """Spell the place of an entry: by row and column in a matrix, by sample in a vector."""
    return f"row {index[0]}, column {index[1]}" if len(index) == 2 else f"sample {index[0]}"


def shaped(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return `value` as a real array of exactly this shape."""
    array = real(name, value)
    if array.shape != shape:
        raise wrong(name, f"shape {shape}", array.shape)
    return array


# --- sparse matrices -------------------------------------------------------------------------


class CSR(Protocol):
    """Compressed sparse rows, as SciPy has them: `csr_array` or `csr_matrix`."""

    shape: tuple[int, int]
    data: Array
    indices: Array
    indptr: Array


def sparse(name: str, value: object) -> Any:
    """Return SciPy's sparse `value` by rows, or None for anything else.

    SciPy is not imported: whoever has a sparse matrix did that. Copied where the format or the
    dtype has to change.
    """
    scipy = sys.modules.get("scipy.sparse")
    if scipy is None or not scipy.issparse(value):
        return None
    matrix: Any = value
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected a matrix of real numbers, got dtype {matrix.dtype}")
    if matrix.ndim == 2 and matrix.format != "csr":
        if hasattr(matrix, "check_format"):  # conversions trust the indices
            matrix.check_format(full_check=True)
        matrix = matrix.tocsr()
    wanted = _plain(matrix.dtype, half=True)
    return matrix if matrix.dtype == wanted else matrix.astype(wanted)


# --- layers and parameters, features x samples -----------------------------------------------


def sequence(name: str, value: object) -> list[Any]:
    """Return the layers of a sequence or a vector."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected a list of layer sizes, got {reprlib.repr(value)}")
    return list(value)


def layer_dims(name: str, value: object) -> tuple[int, ...]:
    """Return `(n[0], ..., n[L])`, all at least 1, with at least one layer after the input."""
    sizes = sequence(name, value)
    if len(sizes) < 2:
        raise wrong(name, "the number of features and at least one layer", sizes)
    return tuple(integer(f"{name}[{i}]", n, low=1) for i, n in enumerate(sizes))


def memory(name: str, size: int) -> None:
    """Refuse, before anything is allocated, what exceeds the available memory (size in bytes)."""
    available = available_memory()
    if size > available:
        raise MemoryError(
            f"{name}: the parameters need {size / 1e9:.1f} GB,"
            f" {available / 1e9:.1f} GB are available"
        )


def available_memory() -> float:
    """Return the bytes this process may still use, as far as the system tells; else infinity."""
    limits = [math.inf]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(path).strip()
        limits += [int(text)] if text.isdigit() else []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(1024 * int(line.split()[1]))
    return min(limits)


def _read(path: str) -> str:
    """Return a system file's text, or nothing where there is no such file."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def output(value: object, units: int) -> str:
    """Return the output activation of a last layer of `units` units."""
    name = choice("output", value, tuple(LOSSES))
    if name == "softmax" and units < 2:
        raise wrong("output", "at least 2 units for softmax", units)
    return name


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
            arrays[name] = real(name, parameters[name])
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
            shaped(f"{kind}{layer}", arrays[f"{kind}{layer}"], shape)
    for name, array in arrays.items():
        finite(name, array)
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


def samples(name: str, value: ArrayLike, features: int, dtype: np.dtype[Any]) -> Array:
    """Return finite `X (features, m)`, m >= 1, in `dtype`."""
    return samples_as_they_are(name, value, features, dtype).astype(dtype, copy=False)


def samples_as_they_are(name: str, value: ArrayLike, features: int, dtype: np.dtype[Any]) -> Array:
    """Return finite `X (features, m)`, m >= 1, in a dtype of its own that fits `dtype`."""
    X: Array = _inputs(name, value, features, features_first=True)
    finite(name, X, dtype)
    return X


def rows(name: str, value: ArrayLike | CSR, features: int) -> Array | CSR:
    """Return `X (m, features)`, m >= 1, in a dtype of its own: an array, or sparse rows.

    Leaves it to the core to refuse NaN and infinity, in one pass, and wrong sparse indices.
    """
    X: Array | CSR = _inputs(name, value, features, features_first=False)
    return X


def _inputs(name: str, value: ArrayLike | CSR, features: int, *, features_first: bool) -> Any:
    """Check the shape of samples in either orientation; sparse ones are by rows."""
    X = None if features_first else sparse(name, value)
    if X is None:
        X = real(name, value, half=True)  # type: ignore[arg-type]
    if X.ndim != 2 or X.shape[0 if features_first else 1] != features:
        raise wrong(name, f"shape ({features}, m)" if features_first else f"shape (m, {features})",
                    X.shape)  # fmt: skip
    if 0 in X.shape:
        raise wrong(name, "at least one sample", f"shape {X.shape}")
    return X


def gradients(grads: Mapping[str, ArrayLike], net: Layers) -> list[tuple[Array, Array]]:
    """Return `(dW[l], db[l])` of each layer, shaped like the parameters; other keys are ignored."""
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads: expected a dict of arrays, got {reprlib.repr(grads)}")
    pairs = []
    for layer, (W, b) in enumerate(zip(net.weights, net.biases, strict=True), start=1):
        for name, array in ((f"dW{layer}", W), (f"db{layer}", b)):
            if name not in grads:
                raise wrong("grads", f"the key {name}", reprlib.repr(list(grads)))
            finite(name, shaped(name, grads[name], array.shape))
        pairs.append((real("dW", grads[f"dW{layer}"]), real("db", grads[f"db{layer}"])))
    return pairs


def writable(parameters: Mapping[str, object]) -> None:
    """Refuse parameters that cannot be updated in place."""
    for name, array in parameters.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            received = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{name}: expected an array of floats to update, got {received}")
        if not array.flags.writeable:
            raise wrong(name, "an array that may be written to", "a read-only one")


# --- outputs and labels ----------------------------------------------------------------------


def activations(AL: ArrayLike, output_name: object) -> tuple[Array, str]:
    """Return outputs `AL (n[L], m)` and the name of their activation."""
    A = real("AL", AL)
    if A.ndim != 2 or A.size == 0:
        raise wrong("AL", "a matrix (n[L], m) that is not empty", f"shape {A.shape}")
    name = output(output_name, len(A))
    finite("AL", A)
    if name != "identity":
        refuse("AL", "numbers from 0 to 1", A, lambda block: (block < 0) | (block > 1))
    return A if A.dtype.kind == "f" else A.astype(np.float64), name


def labels(
    name: str, value: ArrayLike, units: int, m: int, output_name: str, *, features_first: bool
) -> Array:
    """Check the labels of m samples and give them one shape.

    Parameters
    ----------
    name, value
        The argument. sigmoid: 0 and 1; softmax: class indices, one a sample, or one-hot;
        identity: real numbers.
    units, m : int
        Outputs of the network, samples.
    output_name : {"sigmoid", "softmax", "identity"}
    features_first : bool
        Whether a matrix of labels is `(units, m)` or `(m, units)`. A vector `(m,)` is taken
        for one unit and for class indices.

    Returns
    -------
    ndarray
        softmax: int64 class indices `(m,)`; else the matrix, in a dtype of its own.
    """
    Y = real(name, value)
    matrix, column = ((units, m), (1, m)) if features_first else ((m, units), (m, 1))
    vector = Y.shape in ((m,), column) and (units == 1 or output_name == "softmax")
    if not vector and Y.shape != matrix:
        allowed = [matrix] if output_name != "softmax" and units > 1 else [matrix, (m,)]
        raise wrong(name, f"shape {' or '.join(map(str, allowed))}", Y.shape)
    finite(name, Y)
    if output_name == "softmax":
        return _classes(name, Y, units) if vector else _one_hot_classes(name, Y, features_first)
    if output_name == "sigmoid" and Y.dtype.kind != "b":
        refuse(name, "labels 0 or 1", Y, lambda block: (block != 0) & (block != 1))
    return Y.reshape(matrix)


def _classes(name: str, Y: Array, units: int) -> Array:
    """Return class indices `(m,)` as int64; floats with integral values are fine."""
    Y = Y.reshape(-1)
    expected = f"class indices from 0 to {units - 1}"
    refuse(name, expected, Y, lambda block: (block < 0) | (block >= units) | (block % 1 != 0)
           if block.dtype.kind != "b" else np.zeros(block.shape, bool))  # fmt: skip
    return Y.astype(np.int64)


def _one_hot_classes(name: str, Y: Array, features_first: bool) -> Array:
    """Return the class index of each one-hot sample as int64 `(m,)`."""
    one = (Y if Y.dtype.kind == "b" else Y == 1).T if features_first else Y == 1
    zeros_and_ones = np.count_nonzero(Y) == np.count_nonzero(one)
    counts = np.count_nonzero(one, axis=1)
    if not zeros_and_ones:
        refuse(name, "one-hot labels of 0 and 1", Y, lambda block: (block != 0) & (block != 1))
    for sample in np.flatnonzero(counts != 1)[:1]:
        raise wrong(name, "one-hot labels, one 1 a sample", f"{counts[sample]} at sample {sample}")
    classes: Array = np.argmax(one, axis=1).astype(np.int64, copy=False)
    return classes


def target_matrix(
    Y: ArrayLike, shape: tuple[int, ...], output_name: str, dtype: np.dtype[Any]
) -> Array:
    """Return checked labels as `Y (units, m)`, one-hot for softmax, in `dtype`."""
    checked = labels("Y", Y, shape[0], shape[1], output_name, features_first=True)
    if output_name == "softmax":
        checked = np.arange(shape[0])[:, None] == checked
    finite("Y", checked, dtype)
    return checked.astype(dtype, copy=False)


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
    array = shaped(name, value, (units, m))
    finite(name, array, dtype)
    return array.astype(dtype, copy=False)


def keys(name: str, value: object, expected: Sequence[str]) -> None:
    """Check that a mapping has just these keys."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a dict, got {type(value).__name__}")
    missing = [key for key in expected if key not in value]
    unknown = [str(key) for key in value if key not in expected]
    if missing or unknown:
        wanted = ", ".join(expected) or "nothing"
        got = f"no {missing[0]}" if missing else f"also {unknown[0]}"
        raise wrong(name, wanted, got)
