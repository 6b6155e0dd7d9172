"""Checks of arrays: samples, labels and outputs, dense or by sparse rows.

Promises that a checked dense value is a native real NumPy array and a sparse one SciPy's CSR,
that nothing of the caller's was changed, and that a large one was copied only where its dtype,
or a sparse one's format, had to change. Errors are as in `checks.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from . import checks, frames
from .checks import Array, wrong

SCANNED_AT_ONCE = 1 << 16
"""Entries looked at together when the first wrong one of a large array is searched."""


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


def activations(AL: ArrayLike, output_name: object) -> tuple[Array, str]:
    """Return outputs `AL (n[L], m)` and the name of their activation."""
    A = real("AL", AL)
    if A.ndim != 2 or A.size == 0:
        raise wrong("AL", "a matrix (n[L], m) that is not empty", f"shape {A.shape}")
    name = checks.output(output_name, len(A))
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
