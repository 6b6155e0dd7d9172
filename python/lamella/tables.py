"""Tables for the command line: files to columns, and columns to the numbers of a network.

Owns reading (CSV and Parquet by polars or pandas, npz by NumPy without pickles) and the
preprocessing that a model file keeps: numbers are standardised, texts are one-hot. Promises
that an `Encoder` which was learnt on some rows turns any other rows into the same columns, whatever
else is in their file, and that one which comes out of a file is checked before it is used.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import checks
from .checks import Array

__all__ = ["Encoder", "NumberColumn", "Target", "TextColumn", "read"]

Table = dict[str, Array]
"""Columns by name: float64, NaN where missing, or objects that are str, None where missing."""

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
SEPARATORS = ",;\t|"
MOST_CATEGORIES = 64
"""Texts of a column that get a column of zeros and ones; rarer ones have zeros in all."""
MOST_CLASSES = 20
"""Different whole numbers up to which a target is taken for classes."""


# --- files -----------------------------------------------------------------------------------


def read(path: Path) -> Table:
    """Read a table from a CSV, Parquet or npz file.

    The columns of a CSV file are texts: which are numbers is for `numbers_or_texts` to find out
    where a model is made, and known where there is one. Of an npz file, vectors are columns, and
    the columns of a matrix `X` are `X0, X1, ...`.

    Raises
    ------
    ValueError
        If the file is no such table.
    ModuleNotFoundError
        If neither polars nor pandas is installed, or narwhals is not.
    OSError
        If it cannot be read.
    """
    with open(path, "rb"):  # says what is wrong with the path better than the libraries
        pass
    suffix = path.suffix.lower()
    if suffix == ".npz":
        table = _npz(path)
    elif suffix in (".parquet", ".pq"):
        table = _frame(path, "parquet")
    else:
        table = _frame(path, "csv")
    if not table:
        raise ValueError(f"{path}: expected a table with columns, got none")
    return table


def _npz(path: Path) -> Table:
    """Return the columns of an npz file."""
    table: Table = {}
    for name, array in _arrays(path).items():
        if array.ndim not in (1, 2):
            raise ValueError(f"{path}: {name}: expected columns, got shape {array.shape}")
        columns = [array] if array.ndim == 1 else list(array.T)
        names = [name] if array.ndim == 1 else [f"{name}{n}" for n in range(len(columns))]
        table.update((n, _plain(c)) for n, c in zip(names, columns, strict=True))
    lengths = {len(column) for column in table.values()}
    if len(lengths) > 1:
        raise ValueError(f"{path}: expected columns of one length, got {sorted(lengths)}")
    return table


def _arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an npz file."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (AttributeError, EOFError, LookupError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected the arrays of an npz file: {error}") from error


def _frame(path: Path, kind: str) -> Table:
    """Return the columns of a file that a data frame library reads."""
    library = _library(path)
    import narwhals

    options: dict[str, Any] = {}
    if kind == "csv":
        options["separator"] = _separator(path)
        if library == "polars":
            options |= {"infer_schema_length": 0, "null_values": list(MISSING)}
        else:
            options |= {"dtype": str, "na_values": list(MISSING), "keep_default_na": False}
    try:
        read_file = narwhals.read_csv if kind == "csv" else narwhals.read_parquet
        frame = read_file(str(path), backend=library, **options)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each library has its own
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
    table: Table = {}
    for name in frame.columns:
        try:
            table[name.strip() if kind == "csv" else name] = _column(frame.get_column(name))
        except Exception as error:
            raise ValueError(f"{path}: column {name!r}: {str(error).splitlines()[0]}") from error
    return table


def _library(path: Path) -> str:
    """Return the library that reads files."""
    for library in ("polars", "pandas"):
        try:
            __import__("narwhals")
            __import__(library)
        except ModuleNotFoundError:
            continue
        return library
    raise ModuleNotFoundError(
        f"{path}: reading it needs narwhals and polars or pandas: pip install lamella[cli]"
    )


def _separator(path: Path) -> str:
    """Return what separates the columns' names in the first line, which differ."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            line = file.readline(1 << 20)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected text in UTF-8: {error}") from error
    separator = max(SEPARATORS, key=line.count)
    names = [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
    for name in names:
        if names.count(name) > 1:
            got = f"{name!r} {names.count(name)} times"
            raise ValueError(f"{path}: expected a name of its own for each column, got {got}")
    return separator


def _column(series: Any) -> Array:
    """Return a series as numbers or texts."""
    if series.dtype.is_numeric():
        missing = series.is_null().to_numpy()
        if not missing.any():
            return np.asarray(series.to_numpy(), np.float64)
        numbers = [math.nan if value is None else float(value) for value in series.to_list()]
        return np.array(numbers, np.float64)
    return _texts(series.to_list())


def _plain(array: Array) -> Array:
    """Return a vector of any dtype as numbers or texts."""
    return array.astype(np.float64) if array.dtype.kind in "iuf" else _texts(array.tolist())


def _texts(values: Sequence[object]) -> Array:
    """Return texts, None where they are missing."""
    texts = np.empty(len(values), object)
    for n, value in enumerate(values):
        text = "" if value is None or value != value else str(value).strip()
        texts[n] = None if text in MISSING else text
    return texts


def numbers_or_texts(column: Array) -> Array:
    """Return a column of texts as numbers, NaN where missing, if it has some and all are."""
    if not is_text(column) or not any(text is not None for text in column):
        return column
    numbers = _numbers(column)
    return column if numbers is None else numbers


def _numbers(column: Array) -> Array | None:
    """Return texts as numbers, NaN where missing; None where one is no number."""
    known = np.array([text is not None for text in column], bool)
    texts = column[known].tolist()
    if any("_" in text for text in texts):  # as Python writes them, and tables do not
        return None
    numbers = np.full(len(column), np.nan)
    try:
        numbers[known] = np.array(texts, str).astype(np.float64)
    except ValueError:
        return None
    return numbers


def is_text(column: Array) -> bool:
    """Return whether a column holds texts."""
    return column.dtype == object


# --- preprocessing ---------------------------------------------------------------------------


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: `(x - mean) / scale`, and 0, the mean, where one is missing."""

    name: str
    mean: float
    scale: float

    width = 1

    @classmethod
    def learn(cls, name: str, column: Array) -> NumberColumn:
        """Take mean and standard deviation of a column."""
        known = column[np.isfinite(column)]
        mean = float(np.mean(known)) if known.size else 0.0
        scale = float(np.std(known)) if known.size else 0.0
        fits = math.isfinite(mean) and math.isfinite(scale)
        if not fits:
            raise ValueError(f"column {name!r}: expected numbers that can be standardised")
        return cls(name, mean, scale if scale > 0 else 1.0)

    def encode(self, column: Array, out: Array) -> int:
        """Fill `out (m, 1)`; return how many numbers were missing."""
        if is_text(column):
            numbers = _numbers(column)
            if numbers is None:
                bad = (n for n in range(len(column)) if _numbers(column[n : n + 1]) is None)
                row = next(bad)
                got = f"{column[row]!r} in row {row + 1}"
                raise ValueError(f"column {self.name!r}: expected numbers, got {got}")
            column = numbers
        missing = ~np.isfinite(column)
        out[:, 0] = np.where(missing, 0.0, (column - self.mean) / self.scale)
        return int(missing.sum())


@dataclass(frozen=True)
class TextColumn:
    """A column of texts: zeros, and a one at its category, if it has one."""

    name: str
    categories: tuple[str, ...]

    @property
    def width(self) -> int:
        """Columns that it becomes."""
        return len(self.categories)

    @classmethod
    def learn(cls, name: str, column: Array) -> TextColumn:
        """Take the most frequent texts of a column, in their own order."""
        known = [text for text in column if text is not None]
        texts, counts = np.unique(np.array(known, object).astype(str), return_counts=True)
        most = np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]
        return cls(name, tuple(sorted(texts[most].tolist())))

    def encode(self, column: Array, out: Array) -> int:
        """Fill `out (m, width)`; return how many texts are no category."""
        texts = column if is_text(column) else _texts([_number_text(x) for x in column])
        places = {text: n for n, text in enumerate(self.categories)}
        out[:] = 0
        unknown = 0
        for row, text in enumerate(texts):
            place = places.get(text)
            if place is None:
                unknown += 1
            else:
                out[row, place] = 1
        return unknown


@dataclass(frozen=True)
class Target:
    """What is predicted: classes by name, or a number, standardised."""

    name: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def task(self) -> str:
        """Either "classification" or "regression"."""
        return "classification" if self.classes else "regression"

    @classmethod
    def learn(cls, name: str, column: Array, task: str) -> Target:
        """Find out classes, or mean and scale, of a target without missing entries."""
        if task == "auto":
            whole = is_text(column) or bool((column % 1 == 0).all())
            few = is_text(column) or len(np.unique(column)) <= min(MOST_CLASSES, len(column) / 2)
            task = "classification" if whole and few else "regression"
        if task == "regression":
            if is_text(column):
                raise ValueError(f"target {name!r}: expected numbers for a regression, got texts")
            own = NumberColumn.learn(name, column)
            if np.ptp(column) == 0:
                got = f"{column[0]:g} in every row"
                raise ValueError(f"target {name!r}: expected numbers that differ, got {got}")
            return cls(name, (), own.mean, own.scale)
        classes = sorted({_class_text(value) for value in column}, key=_by_number)
        if len(classes) < 2:
            raise ValueError(f"target {name!r}: expected at least 2 classes, got {classes}")
        return cls(name, tuple(classes))

    def encode(self, column: Array) -> Array:
        """Return class indices (m,), or standardised numbers (m,)."""
        if not self.classes:
            return (column - self.mean) / self.scale
        places = {name: n for n, name in enumerate(self.classes)}
        return np.array([places[_class_text(value)] for value in column], np.int64)


@dataclass(frozen=True)
class Encoder:
    """The preprocessing of a model: its columns in their order, and its target."""

    columns: tuple[NumberColumn | TextColumn, ...]
    target: Target

    @property
    def width(self) -> int:
        """The network's features."""
        return sum(column.width for column in self.columns)

    def encode(self, table: Table) -> tuple[Array, dict[str, int]]:
        """Return features `(m, width)` in float32, and how many entries were missing, by column.

        Raises
        ------
        ValueError
            If a column is absent, or holds texts where numbers are needed.
        """
        for column in self.columns:
            if column.name not in table:
                got = ", ".join(table)
                raise ValueError(f"data: expected a column {column.name!r}, got {got}")
        rows = len(next(iter(table.values())))
        X = np.empty((rows, self.width), np.float32)
        missing, start = {}, 0
        for column in self.columns:
            part = X[:, start : start + column.width]
            missing[column.name] = column.encode(table[column.name], part)
            start += column.width
        np.nan_to_num(X, copy=False)  # numbers beyond float32
        return X, {name: count for name, count in missing.items() if count}

    def to_json(self) -> dict[str, Any]:
        """Return what a model file keeps."""
        columns = [
            {"name": c.name, "categories": list(c.categories)}
            if isinstance(c, TextColumn)
            else {"name": c.name, "mean": c.mean, "scale": c.scale}
            for c in self.columns
        ]
        t = self.target
        target = {"name": t.name, "classes": list(t.classes), "mean": t.mean, "scale": t.scale}
        return {"columns": columns, "target": target}

    @classmethod
    def from_json(cls, value: object) -> Encoder:
        """Return the preprocessing that a file holds, which may come from anybody.

        Raises
        ------
        ValueError
            If it is none.
        """
        kept = _mapping("preprocessing", value)
        columns: list[NumberColumn | TextColumn] = []
        listed = kept.get("columns")
        if not isinstance(listed, list) or not listed:
            raise checks.wrong("columns", "a list of them", repr(listed))
        for part in listed:
            one = _mapping("column", part)
            if "categories" in one:
                columns.append(TextColumn(_name(one), _names(one["categories"])))
            else:
                columns.append(NumberColumn(_name(one), _finite(one, "mean"), _scale(one)))
        own = _mapping("target", kept.get("target"))
        classes = _names(own.get("classes"))
        target = Target(_name(own), classes, _finite(own, "mean"), _scale(own))
        return cls(tuple(columns), target)


def _class_text(value: object) -> str:
    """Spell a class: a text, or a whole number without its point."""
    return value if isinstance(value, str) else _number_text(float(value))  # type: ignore[arg-type]


def _number_text(x: float) -> str:
    """Spell a number as a table would."""
    return str(int(x)) if math.isfinite(x) and x == int(x) else repr(float(x))


def _by_number(text: str) -> tuple[float, str]:
    """Sort numbers by size, and texts after them."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise checks.wrong(name, "an object", repr(value))
    return value


def _name(part: Mapping[str, Any]) -> str:
    """Return a column's name."""
    if not isinstance(part.get("name"), str):
        raise checks.wrong("name", "a text", repr(part.get("name")))
    return str(part["name"])


def _names(value: object) -> tuple[str, ...]:
    """Return a list of texts."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise checks.wrong("categories", "a list of texts", repr(value)[:80])
    return tuple(value)


def _finite(part: Mapping[str, Any], key: str) -> float:
    """Return a finite number."""
    value = part.get(key)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not math.isfinite(value):  # type: ignore[arg-type]
        raise checks.wrong(key, "a finite number", repr(value))
    return float(value)  # type: ignore[arg-type]


def _scale(part: Mapping[str, Any]) -> float:
    """Return a scale above 0."""
    scale = _finite(part, "scale")
    if scale <= 0:
        raise checks.wrong("scale", "a number above 0", scale)
    return scale
