"""What users have their data in: any layout, dtype and sparse format, the same bits, no copy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import Array
from hypothesis import given, settings
from hypothesis import strategies as st

import lamella
from lamella import _core

DTYPES = ["f4", "f8", "f2", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "?"]
SPARSE_DTYPES = [dtype for dtype in DTYPES if dtype != "f2"]


def numbers(dtype: str, m: int = 90, n: int = 37, zeros: float = 0.8) -> Array:
    """Return (m, n) of a dtype, mostly zeros."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((m, n)) if dtype[0] == "f" else rng.integers(0, 100, (m, n))
    return np.where(rng.random((m, n)) < zeros, 0, X).astype(dtype)


def bits(X: Any, dtype: str = "float32", **options: Any) -> list[bytes]:
    """Return the bytes of everything that a network makes of X (m, n)."""
    m, n = X.shape
    y = np.arange(m) % 3
    net = lamella.Network([n, 20, 3], hidden="tanh", output="softmax", dtype=dtype)
    losses = net.fit(X, y, epochs=3, batch_size=32, **options).loss
    full = net.fit(X, y, epochs=2, batch_size=None, **options).loss
    loss, gradients = net.loss_and_gradients(X, y)
    measures = net.evaluate(X, y)
    answers = [net.predict(X), net.predict_proba(X), net.decision_function(X)]
    arrays = [losses, full, *gradients.values(), *net.parameters.values(), *answers]
    return [np.array([loss, *measures.values()]).tobytes(), *(a.tobytes() for a in arrays)]


# --- dense -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4", ">i2", "g"])
@pytest.mark.parametrize("computed", ["float32", "float64"])
def test_any_dtype_is_read_as_its_conversion(dtype: str, computed: str) -> None:
    X = numbers(dtype, zeros=0.1)
    assert bits(X, computed) == bits(X.astype(computed), computed)


def test_integers_are_rounded_once() -> None:
    X = np.full((40, 5), (1 << 60) + (1 << 36) + 1, "i8")  # f64 takes it for a tie
    net = lamella.Network([5, 1], hidden="identity", init=1.0)
    assert (net.predict(X) == net.predict(X.astype("f4"))).all()


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "u1"])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 37, 300])
def test_any_layout_gives_the_same_bits(dtype: str, n: int, tmp_path: Path) -> None:
    X = numbers(dtype, n=n, zeros=0.1)
    wanted = bits(X)
    wide = np.zeros((2 * X.shape[0], 3 * n), dtype)
    wide[::2, ::3] = X
    rows = np.zeros((2 * X.shape[0], n + 7), dtype)
    rows[::-2, 3 : 3 + n] = X
    mapped = np.memmap(tmp_path / "x", dtype, "w+", shape=X.shape)
    mapped[:] = X
    mapped.flush()
    record = np.zeros(X.shape, [("pad", "u1"), ("x", dtype)])
    record["x"] = X
    read_only = np.memmap(tmp_path / "x", dtype, "r", shape=X.shape)
    layouts = [np.asfortranarray(X), wide[::2, ::3], rows[::-2, 3 : 3 + n], mapped, read_only,
               X[:, ::-1].copy()[:, ::-1], record["x"], X.tolist()]  # fmt: skip
    for layout in layouts[:-1]:
        assert bits(layout) == wanted
    assert bits(np.array(layouts[-1])) == wanted


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("kind", [np.ascontiguousarray, np.asfortranarray, sp.csr_array])
def test_numbers_that_are_not_finite_are_named(bad: float, dtype: str, kind: Any) -> None:
    X = numbers("f4").astype("f4" if kind is sp.csr_array and dtype == "f2" else dtype)
    X[70, 11] = X[80, 2] = bad
    net = lamella.Network([37, 3], output="softmax")
    message = f"^X: expected finite numbers.*, got {bad} at row 70, column 11$"
    with pytest.raises(ValueError, match=message):
        net.fit(kind(X), np.arange(90) % 3)
    for call in (net.predict, net.predict_proba, net.decision_function):
        with pytest.raises(ValueError, match=message):
            call(kind(X))


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array])
def test_numbers_beyond_float32_are_named(kind: Any) -> None:
    X = numbers("f8")
    X[5, 6] = -1e300
    message = "^X: expected finite numbers within float32, got -1e.?300 at row 5, column 6$"
    with pytest.raises(ValueError, match=message):
        lamella.Network([37, 1]).predict(kind(X))
    assert np.isfinite(lamella.Network([37, 1], dtype="float64").predict(kind(X))).all()
    X[5, 6] = float(np.finfo("f4").max)
    lamella.Network([37, 1]).predict(kind(X))


# --- sparse ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SPARSE_DTYPES)
@pytest.mark.parametrize("computed", ["float32", "float64"])
@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array])
def test_sparse_rows_have_the_bits_of_the_array(dtype: str, computed: str, kind: Any) -> None:
    X = numbers(dtype)
    assert bits(kind(X), computed) == bits(X, computed)


@pytest.mark.parametrize("kind", ["csc", "coo", "bsr", "lil", "dok", "dia"])
@pytest.mark.parametrize("family", ["array", "matrix"])
def test_other_sparse_formats_have_the_bits_of_the_array(kind: str, family: str) -> None:
    X = numbers("f4")
    if kind == "dia":  # which is for few diagonals
        X = np.triu(np.tril(X, 5), -5)
    assert bits(getattr(sp, f"{kind}_{family}")(X)) == bits(X)


@pytest.mark.parametrize(
    ("hidden", "share"),
    [("relu", 0.0), ("tanh", 0.05), ("relu", 0.2), (lamella.Dense(50, "gelu", norm="layer"), 0.2)],
)
def test_products_that_skip_zeros_equal_those_that_do_not(hidden: Any, share: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((240, 130)) * (rng.random((240, 130)) < share)
    X[:, 7] = 0
    y = np.arange(240) % 3
    layers = [130, 50 if isinstance(hidden, str) else hidden, 3]
    options: dict[str, Any] = {"hidden": hidden} if isinstance(hidden, str) else {}
    nets = [lamella.Network(layers, output="softmax", dtype="float64", **options) for _ in range(3)]
    # Skipped or not is decided from the first rows of a slice, here the whole batch: these are
    # dense and weigh nothing.
    filled = np.concatenate([np.ones((8, 130)), X])
    weights, targets = np.r_[np.zeros(8), np.ones(240)], np.r_[np.zeros(8, int), y]
    losses = []
    for net, inputs in zip(nets, [X, sp.csr_array(X), filled], strict=True):
        given: dict[str, Any] = {"epochs": 5, "batch_size": None, "threads": 1}
        if inputs is filled:
            history = net.fit(filled, targets, sample_weight=weights, **given)
        else:
            history = net.fit(inputs, y, sample_weight=np.ones(240), **given)
        losses.append(history.loss)
    skipping, of_csr, whole = ([*net.parameters.values()] for net in nets)
    for a, b, c in zip(skipping, of_csr, whole, strict=True):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, c, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-12)
    np.testing.assert_allclose(
        nets[0].predict_proba(sp.csr_array(X)), nets[2].predict_proba(filled)[8:], rtol=1e-9
    )


def with_indices(X: Any, starts: str, indices: str) -> Any:
    """Return X with index arrays of these dtypes."""
    X.indptr, X.indices = X.indptr.astype(starts), X.indices.astype(indices)
    return X


@pytest.mark.parametrize("starts", ["i4", "i8"])
@pytest.mark.parametrize("indices", ["i4", "i8"])
def test_indices_have_32_or_64_bits(starts: str, indices: str) -> None:
    X = numbers("f4")
    assert bits(with_indices(sp.csr_array(X), starts, indices)) == bits(X)


def test_sparse_arrays_may_be_read_only_and_stay_as_they_are() -> None:
    X = sp.random_array((60, 20), density=0.3, rng=0, format="csr", dtype="f8")
    X.data[4] = -0.0
    parts = [X.data, X.indices, X.indptr]
    before = [part.copy() for part in parts]
    for part in parts:
        part.flags.writeable = False
    assert bits(X) == bits(X.toarray())
    assert all((part == kept).all() for part, kept in zip(parts, before, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 70),
    entries=st.integers(0, 400),
    dtype=st.sampled_from(SPARSE_DTYPES),
    seed=st.integers(0, 1000),
)
def test_unsorted_and_repeated_entries_are_summed_as_scipy_does(
    m: int, n: int, entries: int, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    starts = np.sort(np.append(rng.integers(0, entries + 1, m - 1), [0, entries]))
    columns = rng.integers(0, n, entries)
    values = (100 * rng.random(entries)).astype(dtype)
    X = sp.csr_matrix((values, columns, starts), shape=(m, n))
    before = X.data.copy(), X.indices.copy()
    summed = X.copy()
    summed.sum_duplicates()
    assert bits(X) == bits(summed.toarray())
    assert (X.data == before[0]).all()
    assert (X.indices == before[1]).all()


def broken(**parts: Any) -> Any:
    """Return a sparse matrix (4, 3) with other arrays than its own."""
    X = sp.csr_matrix(np.arange(12.0).reshape(4, 3))
    for name, part in parts.items():
        setattr(X, name, np.asarray(part))
    return X


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (broken(indices=[1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 3]), r"^X.indices: .*0..3, got 3 in row 3"),
        (broken(indices=[1, 2, 0, -1, 2, 0, 1, 2, 0, 1, 2]), r"^X.indices: .*got -1 in row 1"),
        (broken(indices=[1, 2, 0]), "^X.indptr: "),
        (broken(data=[1.0, 2.0]), "^X.indptr: "),
        (broken(indptr=[0, 2, 5, 8]), "^X.indptr: "),
        (broken(indptr=[0, 2, 5, 8, 2**62]), "^X.indptr: "),
        (broken(indptr=[1, 2, 5, 8, 11]), "^X.indptr: "),
        (broken(indptr=[0, 5, 2, 8, 11]), "^X.indptr: "),
        (broken(indptr=[]), "^X.indptr: "),
        (broken(indices=[0.5] * 11), "^X.indices: "),
        (sp.csr_array((0, 3)), "^X: "),
        (sp.csr_array((4, 5)), "^X: "),
        (sp.coo_array(np.ones(3)), "^X: "),
        (sp.csr_array(np.ones((4, 3), complex)), "^X: "),
    ],
)
def test_wrong_sparse_matrices_are_refused(x: Any, message: str) -> None:
    net = lamella.Network([3, 2], output="softmax")
    for call in (lambda: net.fit(x, [0, 1, 0, 1]), lambda: net.predict(x)):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


def test_a_sparse_matrix_without_entries_is_zeros() -> None:
    X = sp.csr_array((10, 3))
    assert bits(X) == bits(np.zeros((10, 3)))


def test_sparse_labels_are_refused() -> None:
    y = sp.csr_array(np.eye(3)[np.arange(90) % 3])
    with pytest.raises(TypeError, match=r"^y: "):
        lamella.Network([37, 3]).fit(numbers("f4"), y)


def run(script: str, *arguments: object, **environment: str) -> str:
    """Run a script in a process of its own; return what it prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


BITS = """
import hashlib, sys, numpy as np, scipy.sparse as sp, lamella
rng = np.random.default_rng(0)
for n in (5, 70, 5000):
    S = sp.random_array((1500, n), density=0.05, rng=rng, format="csr", dtype="f4")
    X = {"csr": S, "dense": S.toarray(), "columns": np.asfortranarray(S.toarray())}[sys.argv[1]]
    y = np.arange(1500) % 3
    net = lamella.Network([n, 20, 3], output="softmax")
    net.fit(X, y, epochs=2, batch_size=100, threads=int(sys.argv[2]))
    net.fit(X, y, epochs=2, batch_size=None, threads=int(sys.argv[2]))
    parts = [*net.parameters.values(), net.decision_function(X, threads=int(sys.argv[2]))]
    print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


@pytest.fixture(scope="module")
def dense_bits() -> str:
    """Return the hashes of the dense matrix on one thread."""
    return run(BITS, "dense", 1)


# The two that are slow train once from each format.
RUNS = [(isa, *of) for isa in ("avx512", "avx2") for of in (("csr", 1), ("csr", 3), ("columns", 2))]
RUNS += [(isa, *of) for isa in ("portable", "scalar") for of in (("csr", 3), ("columns", 2))]


@pytest.mark.parametrize(("isa", "kind", "threads"), RUNS)
def test_bits_depend_on_neither_format_nor_threads_nor_instructions(
    isa: str, kind: str, threads: int, dense_bits: str
) -> None:
    if isa not in _core.info()["available"]:
        pytest.skip(f"this CPU has no {isa}")
    assert run(BITS, kind, threads, LAMELLA_ISA=isa) == dense_bits


def test_scipy_is_not_imported() -> None:
    script = "import sys, numpy as np, lamella; lamella.Network([2, 1]).fit(np.eye(2), [0, 1])\n"
    assert run(script + "print('scipy' in sys.modules)") == "False\n"


# --- memory ----------------------------------------------------------------------------------

MEMORY = """
import resource, sys, numpy as np, lamella
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def anonymous():
    # Pages of a mapped file are the system's, not a copy: what this process itself holds counts.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
"""

MAPPED = (
    MEMORY
    + """
import threading
dtype, order, path = sys.argv[1:]
n = 500
m = 400_000_000 // n // np.dtype(dtype).itemsize
X = np.memmap(path, dtype, "w+", shape=(m, n), order=order)
X[:, 0] = np.arange(m) % 2
X.flush()
X = np.memmap(path, dtype, "r", shape=(m, n), order=order)
y = (np.arange(m) % 2).astype("u1")
net = lamella.Network([n, 2, 1], output="sigmoid")
net.fit(X[:512], y[:512], batch_size=256)
net.predict(X[:512])
before, most, done = anonymous(), [0.0], threading.Event()
def watch():
    while not done.wait(0.002):
        most[0] = max(most[0], anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
net.fit(X, y, epochs=1, batch_size=256, shuffle=order == "C")  # shuffled columns are slow
net.evaluate(X, y)
net.predict(X)
done.set()
watcher.join()
print(max(most[0], anonymous()) - before)
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_mapped_data_is_not_copied(dtype: str, order: str, tmp_path: Path) -> None:
    if order == "F" and dtype == "f4":
        pytest.skip("two dtypes suffice here")
    assert float(run(MAPPED, dtype, order, tmp_path / "x")) < 100


HELD = (
    MEMORY
    + """
dtype = sys.argv[1]
X = np.ones((400_000_000 // 500 // np.dtype(dtype).itemsize, 500), dtype)
y = np.zeros(len(X), "u1"); y[::2] = 1
net = lamella.Network([500, 2, 1], output="sigmoid")
net.fit(X[:512], y[:512], batch_size=256)
before = peak()
net.fit(X, y, epochs=1, batch_size=256)
print(peak() - before)
"""
)


@pytest.mark.parametrize("dtype", ["u1", "f2", "f8"])
def test_data_is_not_copied(dtype: str) -> None:
    assert float(run(HELD, dtype)) < 100


COURSE = (
    MEMORY
    + """
from lamella import L_layer_model
X = np.ones((64, 1_000_000), sys.argv[1]); X[:, ::2] = 0
y = np.zeros((1, 1_000_000), "u1"); y[:, 1::2] = 1
L_layer_model(X[:, :5000], y[:, :5000], [64, 32, 1], num_iterations=1)
before = peak()
L_layer_model(X, y, [64, 32, 1], num_iterations=2)
print(peak() - before)
"""
)


@pytest.mark.parametrize("dtype", ["f8", "u1"])
def test_a_full_batch_of_the_course_needs_little_memory(dtype: str) -> None:
    assert float(run(COURSE, dtype)) < 100


SPARSE = (
    MEMORY
    + """
import scipy.sparse as sp
m, n, k = 1_000_000, 1_000, 5
columns = (np.arange(m)[:, None] * 7 + np.arange(k) * 199) % n
columns.sort(axis=1)
X = sp.csr_array((np.ones(m * k, "f"), columns.ravel(), np.arange(m + 1) * k), shape=(m, n))
y = np.zeros(m, "u1"); y[::2] = 1
del columns
net = lamella.Network([n, 8, 1], output="sigmoid")
net.fit(X[:5000], y[:5000], epochs=1, batch_size=None)
before = peak()
net.fit(X, y, epochs=1, batch_size=None)
net.predict(X[:100])
print(peak() - before)
"""
)


def test_a_full_batch_of_a_million_sparse_rows_needs_little_memory() -> None:
    assert float(run(SPARSE)) < 100
