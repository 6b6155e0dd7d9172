"""Gradient descent in the span of the samples: the numbers of the reference, with fewer of them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import Array, agree, difference

import lamella
from lamella import _core, functional, reference, schedules, span
from lamella.course import CourseTask

RNG = np.random.default_rng(11)
N, M = 150, 70
X = RNG.standard_normal((N, M))
BITS, CLASSES = RNG.integers(0, 2, (1, M)), RNG.integers(0, 3, M)
VALUES = RNG.standard_normal((2, M))
REPEATED = X[:, RNG.integers(0, 20, M)]


def squares(Z: Array, Y: Array) -> tuple[Array, Array]:
    """Return each sample's squared error and its gradient, features x samples."""
    return np.sum((Z - Y) ** 2, axis=0) / 2, Z - Y


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Use the span wherever the rule allows it, and note whether it was one."""
    found: list[bool] = []
    reduced = span.reduced

    def noted(task: CourseTask, threads: int | None, *, lengths: bool) -> span.Span | None:
        result = reduced(task, threads, lengths=lengths)
        found.append(result is not None)
        return result

    monkeypatch.setattr(span, "pays", lambda *_: True)
    monkeypatch.setattr(span, "reduced", noted)
    return found


def compare(X: Array, Y: Array, dims: list[int], **options: Any) -> None:
    """Hold a training to the reference's."""
    settings: dict[str, Any] = {
        "learning_rate": 0.02, "num_iterations": 101, "init": "lecun", "hidden": "tanh", **options,
    }  # fmt: skip
    ours, costs = functional.L_layer_model(X, Y, dims, **settings)
    theirs, expected = reference.L_layer_model(X, Y, dims, **settings)
    assert difference(np.array(costs), np.array(expected)) <= 1e-10
    agree(ours, theirs, 1e-10)
    first, _ = reference.L_layer_model(X, Y, dims, **{**settings, "num_iterations": 0})
    assert difference(ours["W1"], first["W1"]) > 1e-3, "it has moved"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "momentum"},
        {"optimizer": "nesterov", "batch_size": 16},
        {"batch_size": 33, "shuffle": False},
        {"clip_norm": 0.05},
        {"l2": 0.1},
        {"l2": 0.3, "decay_biases": True, "optimizer": "momentum", "batch_size": 30},
        {"max_norm": 0.9},
        {"max_norm": 0.8, "l2": 0.05, "average": 0.95},
        {"average": 0.9, "batch_size": 20},
        {"dropout": 0.3, "batch_size": 50},
        {"sample_weight": RNG.random(M), "class_weight": "balanced"},
        {"learning_rate": schedules.Warmup(0.02, steps=40)},
        {"loss": lamella.CrossEntropy(label_smoothing=0.1)},
        {"hidden": "relu", "seed": 5},
    ],
    ids=str,
)
def test_it_is_the_references_training(options: dict[str, Any], taken: list[bool]) -> None:
    compare(X, CLASSES, [N, 9, 5, 3], output="softmax", **options)
    assert taken == [True]


@pytest.mark.parametrize(
    ("Y", "dims", "options"),
    [
        (BITS, [N, 1], {}),
        (VALUES, [N, 2], {"output": "identity"}),
        (VALUES, [N, 17, 2], {"output": "identity", "loss": squares}),
        (BITS, [N, 130, 1], {}),
    ],
    ids=["one unit", "one layer", "a loss in Python", "more units than a panel has"],
)
def test_shapes(Y: Array, dims: list[int], options: dict[str, Any], taken: list[bool]) -> None:
    compare(X, Y, dims, **options)
    assert taken == [True]


@pytest.mark.parametrize(
    "samples",
    [
        np.asfortranarray(X),
        X[:, ::-1],
        np.round(X * 9).astype(np.int16),
        np.float16(X),
        REPEATED,
        np.where(np.arange(M) % 3 == 0, 0.0, X),
        X * 10.0 ** RNG.integers(-5, 2, M),
        X[:M],
        RNG.random((N, M)),
    ],
    ids=[
        "Fortran", "reversed", "int16", "float16", "repeated", "zeros", "lengths", "square",
        "positive",
    ],
)  # fmt: skip
def test_samples(samples: Array, taken: list[bool]) -> None:
    compare(samples, BITS, [len(samples), 12, 1], learning_rate=0.01)
    assert taken == [True]


@pytest.mark.parametrize(
    "samples",
    [
        np.outer(X[:, 0], RNG.standard_normal(M)),
        np.concatenate([X[:, :-1], X[:, :1] + 1e-6 * X[:, 1:2]], axis=1),
        X[: M - 1],
        X * 1e-160,
        X[:, :3] * 1e-140,
    ],
    ids=["one direction", "nearly repeated", "too few features", "squares vanish", "small squares"],
)
def test_what_rounding_would_spoil_is_trained_plainly(samples: Array, taken: list[bool]) -> None:
    options: dict[str, Any] = {"num_iterations": 20, "init": "lecun"}
    Y, dims = BITS[:, : samples.shape[1]], [len(samples), 5, 1]
    ours, costs = functional.L_layer_model(samples, Y, dims, **options)
    theirs, expected = reference.L_layer_model(samples, Y, dims, **options)
    assert taken == [False]
    assert costs == pytest.approx(expected, rel=1e-12)
    agree(ours, theirs, 1e-12)


VALUE = {"output": "identity", "num_iterations": 50}
HUGE = {"W1": np.full((1, N), 1e200), "b1": np.zeros((1, 1))}


@pytest.mark.parametrize(
    ("samples", "targets", "options", "begun"),
    [
        (X * 1e155, VALUES, VALUE, [False]),
        (X * 1e120, VALUES[:1], {**VALUE, "parameters": HUGE}, [False]),
        (X, VALUES * 1e39, {**VALUE, "dtype": "float32"}, []),
        (np.where(np.eye(N, M) > 0, np.nan, X), VALUES, VALUE, []),
        (X, VALUES, {**VALUE, "learning_rate": 1e6}, [True]),
    ],
    ids=["squares", "products", "targets of float32", "NaN", "rate"],
)
def test_errors_are_those_of_plain_descent(
    samples: Array,
    targets: Array,
    options: dict[str, Any],
    begun: list[bool],
    taken: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def message() -> str:
        with pytest.raises((lamella.DivergenceError, ValueError)) as raised:
            functional.L_layer_model(samples, targets, [N, len(targets)], **options)
        return str(raised.value).replace("e+", "e")  # two ways to write a number

    inside = message()
    assert taken == begun
    monkeypatch.setattr(span, "pays", lambda *_: False)
    assert inside == message()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_last_step_out_of_range_is_no_error(
    dtype: str, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 1e306 if dtype == "float64" else 1e37

    def train() -> dict[str, Array]:
        return functional.L_layer_model(
            X * 100, VALUES * 100, [N, 2], rate, 1, init="lecun", output="identity", dtype=dtype
        )[0]

    inside = train()
    assert taken == [True]
    monkeypatch.setattr(span, "pays", lambda *_: False)
    for name, plain in train().items():
        np.testing.assert_allclose(inside[name], plain, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"l1": 1e-3},
        {"clip_value": 0.1},
        {"optimizer": lamella.Muon(0.01)},
    ],
    ids=str,
)
def test_rules_that_look_at_single_weights_are_plain(
    options: dict[str, Any], taken: list[bool]
) -> None:
    functional.L_layer_model(X, BITS, [N, 5, 1], num_iterations=3, **options)
    assert not taken


def test_float32_ends_nearer_than_float32_does(
    taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = functional.initialize_parameters_deep([N, 9, 1], init="lecun", dtype="float32")
    options: dict[str, Any] = {"num_iterations": 300, "hidden": "tanh", "parameters": start}
    same = {name: array.astype(np.float64) for name, array in start.items()}
    exact, _ = reference.L_layer_model(X, BITS, [N, 9, 1], **{**options, "parameters": same})
    inside, _ = functional.L_layer_model(X, BITS, [N, 9, 1], **options)
    monkeypatch.setattr(span, "pays", lambda *_: False)
    plain, _ = functional.L_layer_model(X, BITS, [N, 9, 1], **options)
    assert taken == [True]
    for name, array in inside.items():
        assert array.dtype == np.float32
        assert difference(array, exact[name]) <= max(1e-7, difference(plain[name], exact[name]))


def test_a_loss_in_python_sees_the_dtype_that_was_asked_for(taken: list[bool]) -> None:
    seen = set()

    def loss(Z: Array, Y: Array) -> tuple[Array, Array]:
        seen.add(Z.dtype.name)
        return squares(Z, Y)

    for dtype in ("float32", "float64"):
        functional.L_layer_model(
            X, VALUES, [N, 2], num_iterations=2, output="identity", loss=loss, dtype=dtype
        )
    assert seen == {"float32", "float64"}
    assert taken == [True], "in float64"


ONE_HOT = np.tile(np.eye(50)[RNG.integers(0, 50, (M, 3))].reshape(M, N).T[:, : M // 2], 2)


@pytest.mark.parametrize(
    "options", [{"l2": 0.5}, {"max_norm": 0.05}, {"l2": 0.5, "optimizer": "momentum"}], ids=str
)
@pytest.mark.parametrize("beside", [0.0, 1e-9, 1e-3])
def test_weights_that_lie_in_the_span(
    options: dict[str, Any], beside: float, taken: list[bool]
) -> None:
    weights = RNG.standard_normal((4, M)) @ X.T / M + beside * RNG.standard_normal((4, N))
    start = functional.initialize_parameters_deep([N, 4, 1], init="lecun") | {"W1": weights}
    compare(X, BITS, [N, 4, 1], num_iterations=301, parameters=start, **options)
    assert taken == [True]


def test_equal_samples_are_found_among_many_of_the_same_length(
    monkeypatch: pytest.MonkeyPatch, taken: list[bool]
) -> None:
    compared, equal = [], np.array_equal

    def noted(a: Array, b: Array) -> bool:
        compared.append((a, b))
        return equal(a, b)

    monkeypatch.setattr(np, "array_equal", noted)
    functional.L_layer_model(ONE_HOT, BITS, [N, 4, 1], num_iterations=2, init="lecun")
    assert taken == [True]
    assert len(compared) == M // 2, "each with its own alone"


def test_nothing_given_is_changed(taken: list[bool]) -> None:
    samples, start = X.copy(), functional.initialize_parameters_deep([N, 4, 1], init="lecun")
    kept = {name: array.copy() for name, array in start.items()}
    functional.L_layer_model(samples, BITS, [N, 4, 1], num_iterations=9, parameters=start)
    assert taken == [True]
    assert np.array_equal(samples, X)
    assert all(np.array_equal(start[name], kept[name]) for name in kept)


def test_it_is_used_where_it_saves_operations() -> None:
    double, single = np.dtype("float64"), np.dtype("float32")
    course = (12288, 20, 7, 5, 1)
    assert span.pays(course, 209, 2500, double)
    assert span.pays(course, 209, 2500, single)
    assert not span.pays(course, 209, 3, double), "less than making the products of samples"
    assert not span.pays((64, 20, 1), 209, 2500, double), "more samples than features"
    assert not span.pays((300, 20, 1), 209, 2500, single), "float32 takes half the time"
    assert not span.pays((12288, 20, 4000, 4000, 1), 209, 2500, single), "other layers are most"
    assert not span.pays((100, 20, 1), 20, 50, double), "too small to matter"
    assert not span.pays((1_000_000, 5, 1), 60, 7, double), "products of so many features take long"
    assert not span.pays((100_000, 20, 1), 3000, 2500, double), "too many products of samples"


PROGRAM = """
import hashlib, sys
import numpy as np
from lamella import functional, span
span.pays = lambda *_: True
rng = np.random.default_rng(3)
X, Y = rng.random((1000, 150)), rng.integers(0, 2, (1, 150))
hashes = set()
for threads in (1, 2, 3, 7):
    trained, _ = functional.L_layer_model(
        X, Y, [1000, 20, 7, 1], num_iterations=50, init="he", threads=threads, optimizer="momentum"
    )
    hashes.add(hashlib.sha256(b"".join(map(bytes, trained.values()))).hexdigest())
print(*hashes)
"""


def test_the_bits_are_those_of_every_machine() -> None:
    hashes = set()
    for isa in _core.info()["available"]:
        environment = {**os.environ, "LAMELLA_ISA": isa}
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True,
                              env=environment, check=True)  # fmt: skip
        hashes |= set(done.stdout.split())
    assert len(hashes) == 1
