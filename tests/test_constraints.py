"""Clipping by norm, max-norm constraints and averages: reference, PyTorch, bits, faults."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import Array, agree, difference, start

import lamella
from lamella import _core, reference

HAS_BF16 = "avx512bf16" in _core.info()["features"] and _core.info()["isa"] in ("amx", "avx512")
NAMES = [f"{kind}{layer}" for layer in range(1, 4) for kind in "Wb"]


def flat(parameters: dict[str, Array]) -> Array:
    """Return all parameters in one vector."""
    return np.concatenate([array.ravel() for array in parameters.values()])


def columns(parameters: dict[str, Array]) -> dict[str, Array]:
    """Return the parameters with biases as columns, as the reference has them."""
    return {k: v.reshape(-1, 1) if k[0] == "b" else v for k, v in parameters.items()}


def follow(dims: list[int], m: int, batch: int | None, options: dict[str, Any]) -> None:
    """Assert that core and reference train alike."""
    rng = np.random.default_rng(len(dims) + m)
    options.setdefault("optimizer", "adam")
    X, y = rng.standard_normal((m, dims[0])), rng.integers(0, dims[-1], m)
    model = {key: options.pop(key) for key in ("max_norm", "l1", "l2") if key in options}
    per_layer = isinstance(model.get("max_norm"), list)
    limits = model["max_norm"] if per_layer else [None] * (len(dims) - 1)
    layers: list[Any] = [
        lamella.Dense(n, max_norm=c) for n, c in zip(dims[1:], limits, strict=True)
    ]
    given = {k: v for k, v in model.items() if not (per_layer and k == "max_norm")}
    net = lamella.Network(
        [dims[0], *layers], hidden="tanh", output="softmax", dtype="float64", seed=3, **given
    )
    parameters = start(dims, 4)
    net.parameters = parameters
    history = net.fit(X, y, epochs=4, batch_size=batch, **options)
    means: dict[str, Array] = {}
    theirs, losses = reference.fit(
        parameters,
        X.T,
        y,
        epochs=4,
        batch_size=batch,
        hidden="tanh",
        output="softmax",
        seed=3,
        averages=means,
        **options,
        **model,
    )
    assert difference(history.loss, losses) <= 1e-10
    agree(columns(net.parameters), theirs, 1e-10)
    if "average" in options:
        agree(columns(net.average_parameters), means, 1e-10)


CASES: list[dict[str, Any]] = [
    {"clip_norm": 0.05},
    {"clip_norm": 0.2, "l1": 0.003, "l2": 0.01, "optimizer": "adamw"},
    {"max_norm": 0.7, "optimizer": "adam"},
    {"max_norm": [0.5, None, 0.9], "optimizer": "momentum", "clip_norm": 0.1},
    {"average": 0.9, "optimizer": "adam"},
    {"average": 0.5, "clip_norm": 0.1},
    {"average": 0.8, "max_norm": 0.6, "l2": 0.02, "clip_value": 0.05},
]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize(
    ("dims", "m", "batch"),
    [
        ([6, 19, 33, 4], 70, 32),
        # A narrow first layer and a narrow last one.
        ([300, 20, 7, 2], 50, None),
        # Several groups, with a short last one.
        ([5, 40, 9, 3], 4500, None),
    ],
)
def test_training_equals_the_reference(
    dims: list[int], m: int, batch: int | None, options: dict[str, Any]
) -> None:
    follow(dims, m, batch, dict(options))


def test_clipping_by_norm_follows_pytorch(torch: dict[str, Array]) -> None:
    net = lamella.Network([5, 7, 6, 3], hidden="tanh", output="softmax", dtype="float64")
    net.parameters = {name: torch[f"net/{name}"] for name in NAMES}
    done = 0
    for row, steps in zip(torch["optim/sgd_lr.5_clip_norm.1"], (1, 2, 10, 100, 1000), strict=True):
        net.fit(
            torch["net/X"],
            torch["net/y"],
            epochs=steps - done,
            batch_size=None,
            optimizer=lamella.SGD(0.5),
            clip_norm=0.1,
        )
        done = steps
        np.testing.assert_allclose(flat(net.parameters), row, rtol=1e-9)


def test_the_average_follows_pytorch(torch: dict[str, Array]) -> None:
    net = lamella.Network([5, 7, 6, 3], hidden="tanh", output="softmax", dtype="float64")
    net.parameters = {name: torch[f"net/{name}"] for name in NAMES}
    done = 0
    for row, steps in zip(
        torch["optim/ema.99_of_adam_lr.01_after_1_10_100"], (1, 10, 100), strict=True
    ):
        net.fit(
            torch["net/X"],
            torch["net/y"],
            epochs=steps - done,
            batch_size=None,
            optimizer=lamella.Adam(0.01),
            average=0.99,
        )
        done = steps
        np.testing.assert_allclose(flat(net.average_parameters), row, rtol=1e-9)


@pytest.mark.parametrize("rows", [40, 3000])
def test_the_history_has_the_norms_before_clipping(rows: int) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((rows, 6)), rng.standard_normal((rows, 2))
    net = lamella.Network([6, 19, 2], dtype="float64", l2=0.1)
    _, gradients = net.loss_and_gradients(X, y)
    history = net.fit(X, y, epochs=3, batch_size=None, clip_norm=1e-3)
    norms = history.metrics["gradient_norm"]
    assert norms.shape == (3,)
    assert norms[0] == pytest.approx(np.linalg.norm(flat(gradients)), rel=1e-12)
    assert "gradient_norm" not in net.fit(X, y).metrics


@pytest.mark.parametrize("optimizer", ["adamw", lamella.Muon(0.02)])
# A bias before batch normalisation has no gradient but rounding errors, which Adam makes steps of.
@pytest.mark.parametrize(("norm", "bias"), [("batch", False), ("layer", True), ("layer", False)])
def test_normalised_layers_equal_the_reference(optimizer: Any, norm: str, bias: bool) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((70, 6)), rng.integers(0, 3, 70)
    layers: list[Any] = [6, lamella.Dense(19, max_norm=0.6), 19, lamella.Dense(3)]
    net = lamella.Network(
        layers, hidden="tanh", output="softmax", dtype="float64", seed=3, norm=norm, bias=bias,
        residual=True, dropout=0.2, max_norm=0.9,
    )  # fmt: skip
    begin, statistics = net.parameters, net.statistics
    clips: dict[str, Any] = {"clip_norm": 0.1, "average": 0.8}
    history = net.fit(X, y, epochs=3, batch_size=32, optimizer=optimizer, **clips)
    means: dict[str, Array] = {}
    theirs, losses = reference.fit(
        begin, X.T, y, epochs=3, batch_size=32, optimizer=optimizer, seed=3, layers=net.layers,
        statistics=statistics, averages=means, **clips,
    )  # fmt: skip
    assert difference(history.loss, losses) <= 1e-10
    agree(net.parameters, theirs, 1e-10)
    agree(net.average_parameters, means, 1e-10)


def test_norms_and_averages_go_through_a_fit_in_stretches() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    plain, watched = (lamella.Network([6, 20, 3], output="softmax") for _ in range(2))
    options: dict[str, Any] = {"epochs": 4, "batch_size": 16, "clip_norm": 0.1, "average": 0.9}
    wanted = plain.fit(X, y, **options).metrics["gradient_norm"]
    history = watched.fit(X, y, callbacks=[lambda *_: None], metrics=["accuracy"], **options)
    assert (history.metrics["gradient_norm"] == wanted).all()
    assert (flat(plain.average_parameters) == flat(watched.average_parameters)).all()


def test_many_networks_clip_and_average_as_one() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    settings: dict[str, Any] = {"epochs": 3, "clip_norm": 0.1, "average": 0.9, "optimizer": "muon"}
    alone = lamella.Network([6, 20, 3], output="softmax", max_norm=0.8)
    alone.fit(X, y, **settings)
    config = {"layers": [6, 20, 3], "output": "softmax", "max_norm": 0.8, **settings}
    (fitted,) = lamella.fit_many([config], X, y)
    assert fitted.network is not None
    assert (flat(fitted.network.parameters) == flat(alone.parameters)).all()
    assert (flat(fitted.network.average_parameters) == flat(alone.average_parameters)).all()


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_a_loose_limit_changes_no_bit(l2: float) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((90, 30)), rng.integers(0, 3, 90)
    plain = lamella.Network([30, 20, 3], output="softmax", l2=l2)
    loose = lamella.Network([30, 20, 3], output="softmax", l2=l2, max_norm=1e6)
    plain.fit(X, y, epochs=5)
    loose.fit(X, y, epochs=5, clip_norm=1e6, average=0.9)
    assert (flat(plain.parameters) == flat(loose.parameters)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_stay_short(dtype: str) -> None:
    if dtype == "bfloat16" and not HAS_BF16:
        pytest.skip("AVX-512 BF16: not on this CPU")
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((90, 30)).astype("f"), rng.integers(0, 3, 90)
    layers: list[Any] = [30, 40, lamella.Dense(33, max_norm=0.3), 3]
    net = lamella.Network(layers, output="softmax", max_norm=0.8, dtype=dtype)
    net.fit(X, y, epochs=20, learning_rate=0.01, average=0.5, clip_norm=1.0)
    for name, limit in (("W1", 0.8), ("W2", 0.3), ("W3", 0.8)):
        lengths = np.linalg.norm(net.parameters[name], axis=1)
        assert lengths.max() <= limit * (1 + 1e-6)
        assert lengths.max() > limit * 0.99
    # What the next step reads of the weights, in every form, is what they are.
    again = lamella.Network(layers, output="softmax", max_norm=0.8, dtype=dtype)
    again.parameters = net.parameters
    (loss, ours), (same, theirs) = (n.loss_and_gradients(X, y) for n in (net, again))
    assert loss == same
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_two_fits_are_one() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    options: dict[str, Any] = {"batch_size": 16, "clip_norm": 0.1, "average": 0.9}
    once, twice = (lamella.Network([6, 20, 3], output="softmax", max_norm=1.0) for _ in range(2))
    once.fit(X, y, epochs=10, **options)
    for _ in range(2):
        twice.fit(X, y, epochs=5, **options)
    assert (flat(once.parameters) == flat(twice.parameters)).all()
    assert (flat(once.average_parameters) == flat(twice.average_parameters)).all()


def test_a_step_of_ones_own_loop_is_a_step_of_fit() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    options: list[dict[str, Any]] = [{"clip_norm": 0.1, "average": 0.9}, {"clip_value": 0.01}]
    for each in options:
        fitted, stepped = (lamella.Network([6, 20, 3], output="softmax") for _ in range(2))
        fitted.fit(X, y, epochs=3, batch_size=None, **each)
        for _ in range(3):
            stepped.partial_fit(X, y, **each)
        assert (flat(fitted.parameters) == flat(stepped.parameters)).all()
        if "average" in each:
            ours, theirs = fitted.average_parameters, stepped.average_parameters
            assert (flat(ours) == flat(theirs)).all()


def test_a_network_answers_by_its_average_inside_a_block() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    net = lamella.Network([6, 20, 3], output="softmax")
    with pytest.raises(RuntimeError, match="average_parameters"):
        _ = net.average_parameters
    net.fit(X, y, epochs=3, average=0.9)
    trained, means = net.parameters, net.average_parameters
    other = lamella.Network([6, 20, 3], output="softmax")
    other.parameters = means
    with net.averaged() as inside:
        assert inside is net
        assert (net.predict_proba(X) == other.predict_proba(X)).all()
    assert (flat(net.parameters) == flat(trained)).all()
    net.fit(X, y, epochs=1)
    assert (flat(net.average_parameters) == flat(means)).all()
    net.reset()
    with pytest.raises(RuntimeError, match="average_parameters"):
        _ = net.average_parameters


def test_a_gradient_that_is_not_finite_is_divergence_and_leaves_the_model() -> None:
    net = lamella.Network([2, 3, 1], hidden="identity", dtype="float32")
    scales = {"W1": 5e11, "b1": 0.0, "W2": 3e-3, "b2": 0.0}
    net.parameters = {k: np.full_like(v, scales[k]) for k, v in net.parameters.items()}
    before = net.parameters
    # The loss is about 1e20 and the gradient 1e22, whose square is beyond float32.
    X, y = np.ones((4, 2)), np.zeros(4)
    assert np.isfinite(net.evaluate(X, y)["loss"])
    with pytest.raises(lamella.DivergenceError, match="step 1"):
        net.fit(X, y, optimizer="sgd", clip_norm=1.0)
    assert net.steps == 0
    assert (flat(net.parameters) == flat(before)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": np.nan}, "clip_norm"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, "clip_norm: expected None beside clip_value"),
        ({"average": 1.0}, "average"),
        ({"average": -0.1}, "average"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lamella.Network([2, 1]).fit(np.ones((3, 2)), np.ones(3), **options)


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_norm"):
        lamella.Network([2, 1], max_norm=0.0)
    with pytest.raises(ValueError, match=r"layers\[1\].max_norm"):
        lamella.Network([2, lamella.Dense(1, max_norm=-1.0)])


SCRIPT = """
import hashlib, sys
import numpy as np
import lamella
muon = lamella.Muon(0.02, others="adam")
shapes = [([7, 33, 18, 3], 37, 11), ([300, 20, 3], 60, 60), ([8, 37, 17, 2], 5000, 5000)]
for dims, m, batch in shapes:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((m, dims[0])).astype("f"), rng.integers(0, dims[-1], m)
    for optimizer in ("adamw", muon):
        net = lamella.Network(dims, hidden="tanh", output="softmax", l2=0.01, max_norm=0.9)
        net.fit(X, y, epochs=40 // -(-m // batch), batch_size=batch, threads=int(sys.argv[1]),
                optimizer=optimizer, clip_norm=0.1, average=0.9)
        for values in (net.parameters, net.average_parameters):
            print(hashlib.sha256(b"".join(v.tobytes() for v in values.values())).hexdigest())
"""


def hashes(isa: str, threads: int) -> str:
    """Train in a process of its own; return the weights' hashes."""
    command = [sys.executable, "-c", SCRIPT, str(threads)]
    done = subprocess.run(
        command, env=os.environ | {"LAMELLA_ISA": isa}, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def scalar() -> str:
    """Return the oracle's hashes."""
    return hashes("scalar", 1)


@pytest.mark.parametrize(
    ("isa", "threads"),
    [("avx512", 1), ("avx512", 2), ("avx512", 5), ("avx2", 1), ("avx2", 3), ("portable", 2)],
)
def test_bits_depend_on_neither_threads_nor_instructions(
    isa: str, threads: int, scalar: str
) -> None:
    if isa not in _core.info()["available"]:
        pytest.skip(f"this CPU has no {isa}")
    assert hashes(isa, threads) == scalar
