"""Data frames, series and tables to arrays, and arrays of other libraries through DLPack.

Owns what pandas, polars, pyarrow and every other library that narwhals knows have their numbers
in. Promises that nothing is copied where the columns lie side by side as one matrix, that
otherwise there is one copy, in the columns' common dtype, that what is no number is refused by
its column's name, and that no library is imported but narwhals, when a frame comes. Without
narwhals a frame is what NumPy makes of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

__all__ = ["from_dlpack", "is_dlpack", "is_frame", "to_array", "to_table"]

FRAME_MARKS = ("__arrow_c_stream__", "__dataframe__", "__narwhals_dataframe__", "collect_schema")
"""What types of frames and series have, and arrays have not."""

ARRAY_MARKS = ("__array__", "__array_interface__", "__array_struct__")
"""What NumPy understands by itself."""


def is_frame(value: object) -> bool:
    """Return whether `value` is a data frame, a series or a table."""
    return any(hasattr(type(value), mark) for mark in FRAME_MARKS)


def is_dlpack(value: object) -> bool:
    """Return whether `value` shows its numbers through DLPack only."""
    return hasattr(value, "__dlpack__") and not any(hasattr(value, mark) for mark in ARRAY_MARKS)


def from_dlpack(name: str, value: Any) -> Array:
    """Return a view of an array of another library.

    Raises
    ------
    TypeError
        If it is on another device than the CPU, or has a dtype that NumPy lacks.
    """
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array that NumPy can read, got {error}") from error


def to_table(name: str, value: Any) -> Any:
    """Return a frame as narwhals' DataFrame or Series, or None without narwhals or for a stranger.

    Raises
    ------
    TypeError
        For a lazy frame.
    """
    if hasattr(value, "collect_schema") and hasattr(value, "collect"):
        raise TypeError(f"{name}: expected a frame with its data, got a lazy one: collect() it")
    try:
        import narwhals
    except ModuleNotFoundError:
        return None
    try:
        table = narwhals.from_native(value, eager_only=True, allow_series=True, pass_through=True)
    except narwhals.exceptions.DuplicateError:  # names that name nothing
        return None
    return table if isinstance(table, narwhals.DataFrame | narwhals.Series) else None


def to_array(name: str, value: Any) -> Array:
    """Return a frame's or a series' numbers: `(rows, columns)` or `(rows,)`.

    Raises
    ------
    TypeError
        For a column that holds no real numbers, naming it, and for a lazy frame.
    ValueError
        For missing, infinite or NaN entries, naming column and row.
    """
    table = to_table(name, value)
    if table is None:
        return _by_numpy(name, value)
    if not hasattr(table, "columns"):
        return _column(_named(name, table.name), table)
    columns = list(table.iter_columns())
    for column in columns:
        _check(_named(name, column.name), column)
    array = _whole(table)
    if array is None:
        array = _gathered(name, columns, len(table))
    if array.dtype.kind == "f":
        _finite(name, array, table.columns)
    return array


def _by_numpy(name: str, value: Any) -> Array:
    """Return what NumPy makes of a frame, if those are numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: expected a frame of real numbers, got dtype {array.dtype}: a column of"
            " another kind, or missing numbers (with narwhals, lamella[frames], it is named)"
        )
    return array


def _whole(table: Any) -> Array | None:
    """Return a frame whose columns lie as one matrix as that matrix, or None."""
    if len({str(dtype) for dtype in table.schema.values()}) != 1:
        return None
    native = table.to_native()
    try:
        if table.implementation.is_polars():
            array = native.to_numpy(allow_copy=False)
        elif table.implementation.is_pandas():
            array = native.to_numpy()  # of several blocks: the one copy
        else:
            return None
    except (RuntimeError, TypeError, ValueError):
        return None
    plain: Array = array
    return plain if plain.dtype.kind in "biuf" and plain.ndim == 2 else None


def _gathered(name: str, columns: list[Any], rows: int) -> Array:
    """Return the columns side by side, row after row, in their common dtype."""
    arrays = [_column(_named(name, column.name), column) for column in columns]
    dtype = np.result_type(*(array.dtype for array in arrays)) if arrays else np.dtype(float)
    matrix = np.empty((rows, len(arrays)), dtype)
    for n, array in enumerate(arrays):
        matrix[:, n] = array
    return matrix


def _column(name: str, column: Any) -> Array:
    """Return the numbers of one column."""
    _check(name, column)
    array: Array = column.to_numpy()
    return array.astype(np.float64) if array.dtype.kind == "O" else array


def _check(name: str, column: Any) -> None:
    """Refuse a column without numbers, and missing ones."""
    dtype = column.dtype
    if not (dtype.is_integer() or dtype.is_float() or dtype == _boolean()):
        raise TypeError(f"{name}: expected real numbers, got {dtype}")
    if column.null_count():
        row = int(np.argmax(column.is_null().to_numpy()))
        raise ValueError(f"{name}: expected finite numbers, got a missing one at row {row}")


def _boolean() -> Any:
    """Return narwhals' dtype of truth values."""
    import narwhals

    return narwhals.Boolean


def _finite(name: str, array: Array, columns: list[str]) -> None:
    """Refuse NaN and infinity, naming the first one's column."""
    with np.errstate(all="ignore"):
        if np.isfinite(np.sum(array)):  # one pass, no copy
            return
    for n, column in enumerate(columns):
        bad = ~np.isfinite(array[:, n])
        if bad.any():
            row = int(np.argmax(bad))
            got = f"{array[row, n]} at row {row}"
            raise ValueError(f"{_named(name, column)}: expected finite numbers, got {got}")


def _named(name: str, column: object) -> str:
    """Name an argument's column, if the column has a name."""
    return name if column in (None, "") else f"{name}: column {column!r}"
