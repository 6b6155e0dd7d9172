"""Mixed precision: close to float32, the same bits for any threads, refused in words elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import Array, difference

import lamella
from lamella import _core, reference
from lamella.datasets import load_digits

HAS_BF16 = "avx512bf16" in _core.info()["features"] and _core.info()["isa"] in ("amx", "avx512")
NEEDS_BF16 = pytest.mark.skipif(not HAS_BF16, reason="AVX-512 BF16: not on this CPU")


def digits() -> tuple[Array, Array, Array, Array]:
    """Return training and test data: the fixed fifth that the demo holds out."""
    X, y = load_digits()
    order = np.random.default_rng(0).permutation(len(X))
    pictures, y = X[order] / np.float32(16), y[order]
    return pictures[360:], y[360:], pictures[:360], y[:360]


@NEEDS_BF16
@pytest.mark.parametrize("dims", [[6, 19, 4], [33, 65, 17, 3], [5, 40, 2], [131, 5, 201, 3]])
@pytest.mark.parametrize("hidden", ["relu", "tanh"])
def test_training_follows_the_reference(dims: list[int], hidden: str) -> None:
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((70, dims[0])).astype("f"), rng.integers(0, dims[-1], 70)
    net = lamella.Network(dims, hidden=hidden, output="softmax", dtype="bfloat16", seed=3)
    names = net.parameters
    columns = {k: v.reshape(-1, 1) if k[0] == "b" else v for k, v in names.items()}
    history = net.fit(X, y, epochs=3, batch_size=31, optimizer="momentum")
    theirs, losses = reference.fit(
        columns,
        X.T,
        y,
        epochs=3,
        batch_size=31,
        optimizer="momentum",
        hidden=hidden,
        output="softmax",
        seed=3,
        operands="bfloat16",
    )
    # Sums a float32 rounding apart may round to neighbouring bfloat16 numbers, 2^-8 apart.
    assert difference(history.loss, losses) <= 1e-3
    for name, value in net.parameters.items():
        assert difference(value.reshape(theirs[name].shape), theirs[name]) <= 4e-3, name


@NEEDS_BF16
def test_one_gradient_equals_the_reference() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((37, 21)).astype("f"), rng.integers(0, 5, 37)
    net = lamella.Network([21, 5], output="softmax", dtype="bfloat16")
    start = net.parameters
    loss, gradients = net.loss_and_gradients(X, y)
    columns = {k: v.reshape(-1, 1) if k[0] == "b" else v for k, v in start.items()}
    after, losses = reference.fit(
        columns,
        X.T,
        y,
        epochs=1,
        optimizer="sgd",
        learning_rate=1.0,
        output="softmax",
        operands="bfloat16",
    )
    assert loss == pytest.approx(losses[0], rel=1e-6)
    # One layer: dZ is rounded once, and nothing else comes after it.
    for name in start:
        step = columns[name] - after[name]
        assert difference(gradients[f"d{name}"].reshape(step.shape), step) <= 1e-3, name


@NEEDS_BF16
def test_digits_are_learnt_as_well_as_in_float32() -> None:
    X, y, X_test, y_test = digits()
    scores = {}
    for dtype in ("float32", "bfloat16"):
        accuracies = []
        for seed in range(3):
            net = lamella.Network([64, 128, 64, 10], output="softmax", dtype=dtype, seed=seed)
            net.fit(X, y, epochs=60)
            accuracies.append(net.evaluate(X_test, y_test)["accuracy"])
        scores[dtype] = np.mean(accuracies)
    assert scores["bfloat16"] >= scores["float32"] - 0.003
    assert scores["bfloat16"] >= 0.97


@NEEDS_BF16
@pytest.mark.parametrize(
    ("dims", "batch"),
    [([54, 128, 64, 7], 200), ([3, 1], 1), ([100, 33, 5], 77), ([4097, 20, 7, 5, 1], 209)],
)
def test_the_bits_do_not_depend_on_the_threads(dims: list[int], batch: int) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((3 * batch + 5, dims[0])), rng.integers(0, 2, 3 * batch + 5)
    output = "softmax" if dims[-1] > 1 else "sigmoid"
    trained = []
    for threads in (1, 2, 3):
        net = lamella.Network(dims, output=output, dtype="bfloat16")
        net.fit(X, y, epochs=4, batch_size=batch, threads=threads)
        trained.append(net.parameters)
    for name in trained[0]:
        assert (trained[0][name] == trained[1][name]).all()
        assert (trained[0][name] == trained[2][name]).all()


@NEEDS_BF16
def test_parameters_are_float32_and_exact() -> None:
    net = lamella.Network([7, 5, 3], dtype="bfloat16")
    assert net.dtype == np.float32
    assert net.precision == "bfloat16"
    assert "bfloat16" in repr(net)
    given = {k: np.full_like(v, 1 / 3) for k, v in net.parameters.items()}
    net.parameters = given
    for name, value in net.parameters.items():
        assert (value == given[name]).all()


def test_other_kernels_refuse_it_in_words() -> None:
    script = "import lamella; lamella.Network([3, 2], dtype='bfloat16')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LAMELLA_ISA": "portable"},
    )
    assert (
        "ValueError: dtype bfloat16: expected the instructions of AVX-512 with BF16" in done.stderr
    )


@NEEDS_BF16
def test_padding_stays_out_of_the_sums() -> None:
    # An infinite activation makes 0 * inf in padding lanes, beside the last of the odd units.
    net = lamella.Network(
        [1, lamella.Dense(4, "relu"), lamella.Dense(3, "tanh"), 4, 1], dtype="bfloat16"
    )
    huge = {k: np.full_like(v, 3e38 if k == "W1" else 1.0) for k, v in net.parameters.items()}
    net.parameters = huge
    assert np.isfinite(net.predict([[3.0]])).all()


@NEEDS_BF16
@pytest.mark.parametrize("options", [{}, {"optimizer": "muon"}, {"clip_norm": 0.5, "average": 0.9}])
def test_layers_of_few_units_may_have_everything(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    X = rng.standard_normal((300, 151)).astype("f")
    y = X[:, :3].sum(axis=1) > 0
    layers: list[Any] = [
        151,
        lamella.Dense(5, "tanh", norm="layer"),
        lamella.Dense(401, "relu", dropout=0.1),
        lamella.Dense(7, bias=False, norm="batch", dropout=0.1, max_norm=2.0),
        lamella.Dense(7, residual=True),
        1,
    ]
    losses, bits = {}, set()
    for dtype, threads in (("float32", 1), ("bfloat16", 1), ("bfloat16", 3)):
        net = lamella.Network(layers, output="sigmoid", dtype=dtype, seed=2)
        losses[dtype] = net.fit(X, y, epochs=6, batch_size=150, threads=threads, **options).loss
        if dtype == "bfloat16":
            bits.add(b"".join(value.tobytes() for value in net.parameters.values()))
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)
    assert not np.array_equal(losses["bfloat16"], losses["float32"])
    assert len(bits) == 1


TRAINING = """
import sys, numpy as np, lamella
rng = np.random.default_rng(5)
X, y = rng.standard_normal((400, 37)).astype("f"), rng.integers(0, 5, 400)
net = lamella.Network([37, 70, 33, 5], output="softmax", dtype="bfloat16", seed=1)
net.fit(X, y, epochs=3, batch_size=150, threads=int(sys.argv[1]))
sys.stdout.buffer.write(b"".join(value.tobytes() for value in net.parameters.values()))
"""


def trained_on(isa: str, threads: int) -> Array:
    """Return all parameters of a training on other kernels."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(threads)],
        capture_output=True,
        check=True,
        env=os.environ | {"LAMELLA_ISA": isa},
    )
    return np.frombuffer(done.stdout, np.float32)


@pytest.mark.skipif("amx" not in _core.info()["features"], reason="AMX: not on this machine")
def test_tiles_and_vectors_agree_to_rounding_and_each_with_itself() -> None:
    tiles, vectors = trained_on("amx", 1), trained_on("avx512", 1)
    assert 0 < difference(tiles, vectors) <= 4e-3
    assert np.array_equal(tiles, trained_on("amx", 3))
    assert np.array_equal(vectors, trained_on("avx512", 2))


@NEEDS_BF16
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_large_batches_have_the_bits_of_any_threads(norm: str | None) -> None:
    rng = np.random.default_rng(6)
    X, y = rng.standard_normal((5003, 30)), rng.integers(0, 4, 5003)
    trained = []
    for threads in (1, 2, 5):
        layers: list[Any] = [30, lamella.Dense(40, "relu", norm=norm), 20, 4]
        net = lamella.Network(layers, output="softmax", dtype="bfloat16", seed=1)
        net.fit(X, y, epochs=2, batch_size=2600, threads=threads)
        trained.append(net.parameters)
    for other in trained[1:]:
        assert all(np.array_equal(other[name], value) for name, value in trained[0].items())
