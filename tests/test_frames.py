"""Frames, series, tables, arrays of other libraries: the bits of the array, or a column's name."""

from __future__ import annotations

import array
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import Array

import lamella
from lamella import Network, frames

nw = pytest.importorskip("narwhals")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

DTYPES = ["f4", "f8", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "?"]


def numbers(dtype: str = "f8", m: int = 40, n: int = 3) -> Array:
    rng = np.random.default_rng(0)
    return (rng.integers(0, 100, (m, n)) if dtype != "?" else rng.random((m, n)) < 0.5).astype(
        dtype
    )


def columns(X: Array) -> dict[str, Array]:
    return {f"x{n}": np.ascontiguousarray(column) for n, column in enumerate(X.T)}


FRAMES: dict[str, Any] = {
    "pandas": lambda X: pd.DataFrame(columns(X)),
    "pandas of a matrix": lambda X: pd.DataFrame(X),
    "pandas in Fortran order": lambda X: pd.DataFrame(np.asfortranarray(X), copy=False),
    "pandas, nullable": lambda X: pd.DataFrame(columns(X)).convert_dtypes(),
    "pandas of arrow": lambda X: pd.DataFrame(columns(X)).convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda X: pl.DataFrame(columns(X)),
    "polars of a matrix": lambda X: pl.from_numpy(np.asfortranarray(X)),
    "pyarrow": lambda X: pa.table(columns(X)),
    "pyarrow in chunks": lambda X: pa.concat_tables(
        [pa.table(columns(X[:7])), pa.table(columns(X[7:]))]
    ),
    "record batch": lambda X: pa.RecordBatch.from_pydict(columns(X)),
    "narwhals": lambda X: nw.from_native(pl.DataFrame(columns(X))),
}

VECTORS: dict[str, Any] = {
    "pandas": pd.Series,
    "pandas, nullable": lambda y: pd.Series(y).convert_dtypes(),
    "polars": pl.Series,
    "pyarrow array": pa.array,
    "pyarrow chunks": lambda y: pa.chunked_array([y[:7], y[7:]]),
    "narwhals": lambda y: nw.from_native(pl.Series(y), series_only=True),
    "frame": lambda y: pl.DataFrame({"y": y}),
    "array": lambda y: array.array("q", y.tolist()),
    "memoryview": lambda y: memoryview(y),
}


def everything(X: Any, y: Any) -> list[bytes]:
    """Return the bytes of all that a network makes of X and y."""
    net = Network([3, 8, 3], output="softmax", dtype="float64")
    losses = net.fit(X, y, epochs=2, batch_size=16).loss
    loss = net.partial_fit(X, y)
    loss_too, gradients = net.loss_and_gradients(X, y)
    measures = np.array([loss, loss_too, *net.evaluate(X, y).values()])
    answers = [net.predict(X), net.predict_proba(X), net.decision_function(X)]
    return [a.tobytes() for a in (losses, measures, *gradients.values(), *answers)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_has_the_bits_of_its_array(kind: str, dtype: str) -> None:
    X, y = numbers(dtype), np.arange(40) % 3
    assert everything(FRAMES[kind](X), y) == everything(X, y)


@pytest.mark.parametrize("kind", VECTORS)
def test_labels_may_be_a_series(kind: str) -> None:
    X, y = numbers(), np.arange(40) % 3
    assert everything(X, VECTORS[kind](y)) == everything(X, y)


@pytest.mark.parametrize("kind", FRAMES)
def test_targets_may_be_a_frame(kind: str) -> None:
    X, Y = numbers(), numbers("f4", n=2)
    losses = []
    for targets in (Y, FRAMES[kind](Y)):
        losses.append(Network([3, 2]).fit(X, targets, epochs=2).loss.tobytes())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_columns_of_several_dtypes_get_their_common_one(library: Any) -> None:
    frame = library({"a": np.arange(4, dtype="i4"), "b": np.ones(4, "f4"), "c": np.arange(4) > 1})
    matrix = frames.to_array("X", frame)
    assert matrix.dtype == np.result_type("i4", "f4")
    assert (matrix == np.column_stack([np.arange(4), np.ones(4), np.arange(4) > 1])).all()


def test_columns_that_lie_side_by_side_are_not_copied() -> None:
    X = np.asfortranarray(numbers())
    assert np.shares_memory(frames.to_array("X", pd.DataFrame(X, copy=False)), X)
    frame = pl.from_numpy(X)
    one, two = frames.to_array("X", frame), frames.to_array("X", frame)
    assert np.shares_memory(one, two)


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (["a", "b", "c"], TypeError, r"^X: column 'bad': expected real numbers, got .*String"),
        ([1.0, np.nan, 2.0], ValueError, r"^X: column 'bad': expected finite .* at row 1$"),
        ([1.0, 2.0, np.inf], ValueError, r"^X: column 'bad': expected finite .*inf at row 2$"),
        ([None, 1, 2], ValueError, r"^X: column 'bad': expected finite .* at row 0$"),
        (np.array(["2020-01-01"] * 3, "M8[ns]"), TypeError, r"^X: column 'bad': .*Datetime"),
    ],
)
def test_a_wrong_column_is_named(library: Any, column: Any, error: type, message: str) -> None:
    net = Network([2, 1])
    for fine in ([1.0, 2.0, 3.0], [1, 2, 3]):
        frame = library({"fine": fine, "bad": column})
        with pytest.raises(error, match=message):
            net.predict(frame)
        with pytest.raises(error, match=message.replace("X", "y")):
            net.fit(np.ones((3, 2)), frame)


def test_categories_are_refused_by_name() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "town": pd.Categorical(["Bern", "Genf"])})
    with pytest.raises(TypeError, match=r"^X: column 'town': expected real numbers, got Categor"):
        Network([2, 1]).predict(frame)
    with pytest.raises(TypeError, match=r"^y: column 'town': expected real numbers, got Categor"):
        Network([1, 2], output="softmax").fit(np.ones((2, 1)), frame["town"])


def test_a_lazy_frame_wants_to_be_collected() -> None:
    with pytest.raises(TypeError, match=r"^X: expected a frame with its data.*collect"):
        Network([1, 1]).predict(pl.LazyFrame({"a": [1.0]}))


def test_a_wrong_number_of_columns_is_told() -> None:
    with pytest.raises(ValueError, match=r"^X: expected shape \(m, 2\), got \(40, 3\)$"):
        Network([2, 1]).predict(pl.DataFrame(columns(numbers())))


def test_two_columns_of_one_name_are_numbers_or_an_error() -> None:
    X = numbers(n=2)
    net = Network([2, 1])
    assert (net.predict(pd.DataFrame(X, columns=["a", "a"])) == net.predict(X)).all()
    frame = pd.concat([pd.DataFrame({"a": [1.0]}), pd.DataFrame({"a": ["x"]})], axis=1)
    with pytest.raises(TypeError, match=r"^X: expected a frame of real numbers, got dtype object"):
        net.predict(frame)


class Foreign:
    """An array of another library, which has DLPack and nothing else."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Interface:
    """An array by NumPy's array interface."""

    def __init__(self, array: Array) -> None:
        self.__array_interface__ = array.__array_interface__
        self.array = array


@pytest.mark.parametrize("kind", [Foreign, Interface])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_other_libraries_are_read_in_place(kind: Any, dtype: str) -> None:
    X, y = numbers(dtype), np.arange(40) % 3
    assert everything(kind(X), kind(y)) == everything(X, y)
    assert np.shares_memory(lamella.matrices.real("X", kind(X)), X)


def test_an_array_on_another_device_is_refused() -> None:
    class Far(Foreign):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("the data are on a GPU")

    far: Any = Far(numbers())
    with pytest.raises(TypeError, match=r"^X: expected an array that NumPy can read, got "):
        Network([3, 1]).predict(far)


@pytest.mark.parametrize("kind", [sp.csr_array, sp.csc_array, sp.csc_matrix])
def test_sparse_samples_and_a_series_of_labels(kind: Any) -> None:
    X, y = numbers(), np.arange(40) % 3
    assert everything(kind(X), pl.Series(y)) == everything(X, y)


def test_a_memory_map_of_labels_and_samples(tmp_path: Path) -> None:
    X, y = numbers(">f4"), np.arange(40) % 3
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    maps = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "Xy"]
    assert everything(*maps) == everything(X, y)


WITHOUT = """
import sys
sys.modules["narwhals"] = None
import numpy as np, pandas as pd, polars as pl, pyarrow as pa, lamella
X = np.arange(12.0).reshape(4, 3)
net = lamella.Network([3, 1])
for library in (pd.DataFrame, pl.DataFrame, pa.table):
    frame = library({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]})
    assert (net.predict(frame) == net.predict(X)).all()
    frame = library({"a": X[:, 0], "b": ["x"] * 4, "c": X[:, 2]})
    try:
        net.predict(frame)
    except TypeError as error:
        print(error)
"""


def test_without_narwhals_numbers_are_read_and_others_refused() -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("X: expected a frame of real numbers, got dtype") for line in lines)
    assert all("lamella[frames]" in line for line in lines)
