"""How answers change with inputs: the reference, differences, every setting of a network."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import BatchNorm, Dense, LayerNorm, _core, reference

Array = np.ndarray[Any, np.dtype[Any]]

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"layers": [7, 20, 5, 3], "hidden": "tanh"},
    "softmax": {"layers": [7, 20, 3], "hidden": "silu", "output": "softmax"},
    "sigmoid": {"layers": [4, 9, 1], "hidden": "gelu", "output": "sigmoid"},
    "counts": {"layers": [4, 9, 2], "hidden": "softplus", "output": "exponential"},
    "linear": {"layers": [70, 3]},
    "one": {"layers": [1, 1]},
    "narrow": {"layers": [500, 3, 2], "hidden": "mish"},
    "wide": {"layers": [65, 130, 67, 37], "hidden": "elu"},
    # Sums of two segments, also in the first layer's product.
    "long": {"layers": [20, 4200, 3], "hidden": "tanh"},
    "far": {"layers": [4500, 40, 3], "hidden": "tanh"},
    "dropped": {"layers": [7, 20, 9, 3], "hidden": "tanh", "dropout": 0.5},
    "batch": {"layers": [7, 33, 20, 3], "hidden": "tanh", "norm": "batch"},
    "layer": {"layers": [7, 33, 20, 3], "hidden": "silu", "norm": "layer"},
    "residual": {"layers": [9, 9, 9, 9, 2], "hidden": "tanh", "residual": True},
    "all": {
        "layers": [
            20,
            Dense(20, "gelu", norm=BatchNorm(), residual=True, dropout=0.2),
            Dense(20, "silu", norm=LayerNorm(), residual=True),
            Dense(31, "tanh", bias=False),
            Dense(4, "softmax"),
        ]
    },
}


@cache
def made(name: str, dtype: str = "float64", rows: int = 60) -> tuple[lamella.Network, Array]:
    """Return a network that was trained a little, so that nothing is as it was drawn, and rows."""
    net = lamella.Network(**NETWORKS[name], dtype=dtype, seed=3)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, net.n_features)).astype(dtype)
    if net.output == "softmax":
        y = rng.integers(0, net.n_outputs, rows)
    else:
        y = rng.integers(0, 2, (rows, net.n_outputs))
    net.fit(X, y, epochs=3, batch_size=16)
    return net, X


def difference(ours: Array, theirs: Array) -> float:
    """Return the greatest difference over the greatest number."""
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


@pytest.mark.parametrize("rows", [1, 60, 700])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_the_references(name: str, logits: bool, rows: int) -> None:
    net, X = made(name, rows=rows)
    v = np.random.default_rng(1).standard_normal((rows, net.n_outputs))
    theirs = reference.input_gradients(
        net.parameters, X.T, v.T, net.layers, net.statistics, logits=logits
    )
    assert difference(net.input_gradients(X, v, logits=logits), theirs.T) < 1e-12


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("long", "far")])
def test_jacobians_are_differences(name: str, logits: bool) -> None:
    net, X = made(name)
    X = X[:5]
    smooth = net.output == "identity" or logits
    answers = net.decision_function if smooth else net.predict_proba
    if net.output == "exponential" and not logits:
        answers = net.predict
    J, h = net.jacobian(X, logits=logits), 1e-6
    assert J.shape == (5, net.n_outputs, net.n_features)
    for i in range(net.n_features):
        step = h * np.eye(net.n_features)[i]
        expected = (answers(X + step) - answers(X - step)).reshape(5, -1) / (2 * h)
        np.testing.assert_allclose(J[:, :, i], expected, rtol=1e-6, atol=1e-8)


def test_float32_is_close_to_float64() -> None:
    for name in NETWORKS:
        net, X = made(name, "float32")
        double = lamella.gradients.in_float64(net)
        v = np.ones(net.n_outputs)
        ours = net.input_gradients(X, v, logits=True)
        assert ours.dtype == np.float32
        assert difference(ours, double.input_gradients(X, v, logits=True)) < 2e-5


def test_a_descent_of_a_loss_takes_its_gradient_by_the_outputs() -> None:
    net, X = made("softmax")
    y = np.arange(len(X)) % 3

    def loss(X: Array) -> float:
        return float(-np.log(net.predict_proba(X)[np.arange(len(X)), y]).sum())

    by_logits = net.predict_proba(X) - np.eye(3)[y]
    gradient = net.input_gradients(X, by_logits, logits=True)
    assert loss(X - 1e-3 * gradient) < loss(X)
    along = 1e-6 * gradient
    expected = (loss(X + along) - loss(X - along)) / 2e-6
    assert np.sum(gradient**2) == pytest.approx(expected, rel=1e-6)


def test_directions_may_be_one_for_all_rows_or_left_out_for_one_output() -> None:
    net, X = made("plain")
    v = np.array([1.0, -2.0, 0.5])
    assert (net.input_gradients(X, v) == net.input_gradients(X, np.tile(v, (60, 1)))).all()
    one, X = made("sigmoid")
    ours = one.input_gradients(X)
    for ones in (np.ones((60, 1)), np.ones(60), [1]):
        assert (one.input_gradients(X, ones) == ours).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("z", [0.5, 5.0, 15.0, 30.0, -30.0])
def test_saturated_probabilities_keep_their_digits(z: float, dtype: str) -> None:
    # Two classes whose logits are z and -z: the first's probability is sigmoid(2 z).
    two = lamella.Network([1, 2], output="softmax", dtype=dtype)
    two.parameters = {"W1": [[1.0], [-1.0]], "b1": [0.0, 0.0]}
    one = lamella.Network([1, 1], output="sigmoid", dtype=dtype)
    one.parameters = {"W1": [[2.0]], "b1": [0.0]}
    expected = 2 * np.exp(-2 * abs(z)) / (1 + np.exp(-2 * abs(z))) ** 2
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    first, second = two.jacobian([[z]])[0, :, 0].tolist()
    assert first == pytest.approx(expected, rel=tolerance)
    assert second == pytest.approx(-expected, rel=tolerance)
    assert one.input_gradients([[z]]).item() == pytest.approx(expected, rel=tolerance)
    for net, v in ((two, [[1.0], [0.0]]), (one, [[1.0]])):
        theirs = reference.input_gradients(
            net.parameters, np.array([[z]], dtype), np.array(v, dtype), net.layers
        )
        assert theirs.item() == pytest.approx(expected, rel=tolerance)


def test_one_output_that_overflows_leaves_the_others() -> None:
    net = lamella.Network([1, 2], output="exponential")
    net.parameters = {"W1": [[100.0], [1.0]], "b1": [0.0, 0.0]}
    with np.errstate(all="raise"):
        infinite, finite = net.jacobian([[5.0]])[0, :, 0]
    assert np.isinf(infinite)
    assert finite == pytest.approx(np.exp(5), rel=1e-6)


def test_a_normalised_unit_that_overflows_is_flat() -> None:
    net = lamella.Network([2, 4, 1], hidden="tanh", norm="batch")
    net.statistics = {name: np.zeros_like(value) for name, value in net.statistics.items()}
    X = np.full((1, 2), 1e37, "f")
    assert np.isfinite(net.predict(X)).all()
    assert (net.input_gradients(X) == 0).all()


def test_many_outputs_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    net, X = made("wide")
    expected = net.jacobian(X)
    monkeypatch.setattr("lamella.sensitivity.MOST_DELTAS", 37 * 60 * 5 + 1)
    assert net.jacobian(X).tobytes() == expected.tobytes()
    for k in (0, 36):
        assert (net.input_gradients(X, np.eye(37)[k]) == expected[:, k]).all()


def test_a_jacobian_larger_than_the_memory_is_refused() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    net = lamella.Network([100_000, 2, 1000])
    with pytest.raises(MemoryError, match="result: 40040000000000 bytes"):
        net.jacobian(sparse.csr_array((100_000, 100_000), dtype="f4"))


def test_every_input_that_predict_takes() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    net, _ = made("far")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4500)) * (rng.random((300, 4500)) < 0.02)
    v = np.ones(3)
    expected = net.input_gradients(X, v)
    for same in (sparse.csr_array(X), np.asfortranarray(X), X[:, ::-1][:, ::-1]):
        assert net.input_gradients(same, v).tobytes() == expected.tobytes()
    assert net.jacobian(sparse.csr_array(X[:3])).shape == (3, 3, 4500)


@pytest.mark.parametrize("name", ["plain", "all", "far", "wide"])
def test_neither_threads_nor_company_change_a_bit(name: str) -> None:
    net, X = made(name, "float32", rows=700)
    v = np.random.default_rng(1).standard_normal((700, net.n_outputs))
    expected = net.input_gradients(X, v, threads=1)
    for threads in (2, 3, 7, None):
        assert net.input_gradients(X, v, threads=threads).tobytes() == expected.tobytes()
    for rows in (slice(0, 1), slice(3, 40), slice(500, 700)):
        assert (net.input_gradients(X[rows], v[rows]) == expected[rows]).all()


BITS = """
import hashlib
import sys
import numpy as np
import test_sensitivity as tests
from lamella import _core
assert _core.info()["isa"] == sys.argv[1]
for name in tests.NETWORKS:
    net, X = tests.made(name, "float32", rows=19)
    v = np.random.default_rng(1).standard_normal((19, net.n_outputs))
    print(hashlib.sha256(net.input_gradients(X, v).tobytes()).hexdigest())
"""


def hashes(isa: str) -> str:
    """Train and differentiate in a process of its own; return the gradients' hashes."""
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = {**os.environ, "LAMELLA_ISA": isa, "PYTHONPATH": paths}
    command = [sys.executable, "-c", BITS, isa]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scalar() -> str:
    """Return the oracle's hashes."""
    return hashes("scalar")


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
def test_no_instruction_set_changes_a_bit(isa: str, scalar: str) -> None:
    if isa not in _core.info()["available"]:
        pytest.skip(f"this CPU has no {isa}")
    assert hashes(isa) == scalar


def test_calls_leave_training_and_predictions_alone() -> None:
    net, X = made("all")
    net, twin = copy.deepcopy(net), copy.deepcopy(net)
    for _ in range(3):
        answers = net.predict_proba(X[:9])
        net.jacobian(X[:30])
        assert (net.predict_proba(X[:9]) == answers).all()
        for model in (net, twin):
            model.fit(X, np.arange(60) % 4, epochs=1)
        net.input_gradients(X, np.ones(4))
    for name, value in net.parameters.items():
        assert (value == twin.parameters[name]).all()
    assert net.statistics["mean1"].tobytes() == twin.statistics["mean1"].tobytes()


@pytest.mark.skipif(
    "avx512bf16" not in _core.info()["features"] or _core.info()["isa"] not in ("amx", "avx512"),
    reason="this CPU has no AVX-512 BF16",
)
def test_mixed_precision_answers_by_its_weights_in_float32() -> None:
    net, X = made("plain", "float32")
    mixed = lamella.Network(**NETWORKS["plain"], dtype="bfloat16")
    mixed.parameters = net.parameters
    assert (mixed.jacobian(X) == net.jacobian(X)).all()


def test_a_network_in_mixed_precision_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    # What CPUs without the instructions can show: the copy has weights and statistics.
    for name in ("plain", "batch"):
        net, X = made(name, "float32")
        expected = net.jacobian(X)
        monkeypatch.setitem(vars(net), "precision", "bfloat16")
        assert net.jacobian(X).tobytes() == expected.tobytes()
        monkeypatch.undo()


def test_the_references_mistakes_are_named() -> None:
    net, X = made("batch")
    v = np.ones((3, len(X)))
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"X": X}, r"X: expected shape \(7, m\)"),
        ({"directions": v.T}, r"directions: expected shape \(3, 60\)"),
        ({"statistics": None}, "statistics: expected those of batch normalisation, got None"),
    ]
    for changed, message in mistakes:
        right: dict[str, Any] = {"X": X.T, "directions": v, "statistics": net.statistics}
        with pytest.raises(ValueError, match=message):
            reference.input_gradients(net.parameters, layers=net.layers, **right | changed)


def test_mistakes_are_named() -> None:
    net, X = made("plain")
    for v, message in [
        (None, r"directions: expected shape \(3,\) or \(60, 3\) for 3 outputs, got None"),
        (np.ones(60), r"directions: expected shape \(3,\) or \(60, 3\), got \(60,\)"),
        (np.ones((3, 60)), r"directions: expected shape"),
        ([1, 2, np.nan], r"directions: expected finite numbers, got nan at row 0, column 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            net.input_gradients(X, v)
    with pytest.raises(TypeError, match="directions: expected an array of real numbers"):
        net.input_gradients(X, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"X: expected shape \(m, 7\)"):
        net.jacobian(X[:, 1:])
    with pytest.raises(ValueError, match=r"X: expected .*finite.* row 1, column 2"):
        net.jacobian(np.where(np.arange(420).reshape(60, 7) == 9, np.inf, X))
    with pytest.raises(TypeError, match="logits"):
        net.input_gradients(X, [1, 1, 1], logits="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads"):
        net.input_gradients(X, [1, 1, 1], threads=0)
