"""Muon: reference, PyTorch's trajectory, singular values, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Array, agree, difference, start

import lamella
from lamella import _core, reference
from lamella.reference.muon import orthogonalized

HAS_BF16 = "avx512bf16" in _core.info()["features"] and _core.info()["isa"] in ("amx", "avx512")
NAMES = [f"{kind}{layer}" for layer in range(1, 4) for kind in "Wb"]
PYTORCH = lamella.Muon(0.02, weight_decay=0.0, others=lamella.SGD(0.02), bfloat16=True)


def flat(parameters: dict[str, Array]) -> Array:
    """Return all parameters in one vector."""
    return np.concatenate([array.ravel() for array in parameters.values()])


def columns(parameters: dict[str, Array]) -> dict[str, Array]:
    """Return the parameters with biases as columns, as the reference has them."""
    return {k: v.reshape(-1, 1) if k[0] == "b" else v for k, v in parameters.items()}


@pytest.mark.parametrize(
    "optimizer",
    [
        lamella.Muon(0.02),
        lamella.Muon(0.02, nesterov=False, others="momentum", adjust_lr_fn="match_rms_adamw"),
        lamella.Muon(
            0.01, ns_steps=3, hidden_only=True, others="rmsprop", adjust_lr_fn="spectral_unclamped"
        ),
    ],
)
@pytest.mark.parametrize(
    ("dims", "m", "batch"),
    [
        ([6, 19, 33, 4], 70, 32),
        # A narrow first layer, turned, and a narrow last one.
        ([300, 20, 7, 2], 50, None),
        # A narrow layer with more outputs than inputs, and one of a single number.
        ([1, 2, 1, 3], 20, 7),
        ([5, 40, 9, 3], 4500, None),
    ],
)
def test_training_equals_the_reference(
    dims: list[int], m: int, batch: int | None, optimizer: lamella.Muon
) -> None:
    rng = np.random.default_rng(m)
    X, y = rng.standard_normal((m, dims[0])), rng.integers(0, dims[-1], m)
    options: dict[str, Any] = {"hidden": "tanh", "output": "softmax", "seed": 3, "l2": 0.01}
    net = lamella.Network(dims, dtype="float64", **options)
    parameters = start(dims, 4)
    net.parameters = parameters
    fit: dict[str, Any] = {"epochs": 4, "batch_size": batch, "optimizer": optimizer}
    history = net.fit(X, y, clip_norm=0.5, **fit)
    theirs, losses = reference.fit(parameters, X.T, y, clip_norm=0.5, **fit, **options)
    assert difference(history.loss, losses) <= 1e-10
    agree(columns(net.parameters), theirs, 1e-10)


def test_it_follows_pytorch(torch: dict[str, Array]) -> None:
    net = lamella.Network([5, 7, 6, 3], hidden="tanh", output="softmax", dtype="float64")
    begin = {name: torch[f"net/{name}"] for name in NAMES}
    net.parameters = begin
    X, y, done = torch["net/X"], torch["net/y"], 0
    rows = torch["optim/muon_bf16_iterations_lr.02_biases_sgd.02"]
    for row, steps in zip(rows, (1, 2, 10, 100), strict=True):
        net.fit(X, y, epochs=steps - done, batch_size=None, optimizer=PYTORCH)
        done = steps
        theirs, _ = reference.fit(
            columns(begin), X.T, y, epochs=steps, optimizer=PYTORCH, hidden="tanh", output="softmax"
        )
        for ours in (flat(net.parameters), flat(theirs)):
            # Once a sum is rounded to the other bfloat16 neighbour, paths part by thousandths.
            np.testing.assert_allclose(ours, row, rtol=1e-3, atol=1e-4)


def test_a_schedule_is_of_the_matrices_rate() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 6)), rng.integers(0, 3, 60)
    rate = lamella.schedules.Cosine(0.05, total=9)
    net = lamella.Network([6, 20, 3], hidden="tanh", output="softmax", dtype="float64", seed=1)
    begin = net.parameters
    for _ in range(3):
        net.fit(X, y, batch_size=20, optimizer=lamella.Muon(rate, others="sgd"))
    options: dict[str, Any] = {"epochs": 3, "batch_size": 20, "seed": 1, "hidden": "tanh"}
    theirs, _ = reference.fit(
        columns(begin), X.T, y, optimizer=lamella.Muon(rate, others="sgd"), output="softmax",
        **options,
    )  # fmt: skip
    agree(columns(net.parameters), theirs, 1e-10)


def test_a_training_goes_on_from_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 6)), rng.integers(0, 3, 60)
    net = lamella.Network([6, 20, 3], output="softmax", max_norm=0.8)
    net.fit(X, y, optimizer="muon")
    net.save(tmp_path / "net.safetensors", state=True)
    again = lamella.load(tmp_path / "net.safetensors")
    for each in (net, again):
        each.fit(X, y, optimizer="muon")
    assert again.max_norm == 0.8
    assert (flat(net.parameters) == flat(again.parameters)).all()


def test_directions_are_nearly_orthogonal() -> None:
    rng = np.random.default_rng(0)
    for shape in ((40, 90), (90, 40), (30, 30)):
        values = np.linalg.svd(
            orthogonalized(lamella.Muon(), rng.standard_normal(shape)), compute_uv=False
        )
        assert values.min() > 0.3
        assert values.max() < 1.3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_learns_in_every_precision(dtype: str) -> None:
    if dtype == "bfloat16" and not HAS_BF16:
        pytest.skip("AVX-512 BF16: not on this CPU")
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 12)).astype("f"), rng.integers(0, 4, 300)
    trained = []
    for threads in (1, 3):
        net = lamella.Network([12, 40, 40, 4], output="softmax", dtype=dtype)
        history = net.fit(X, y, epochs=30, optimizer="muon", learning_rate=0.02, threads=threads)
        assert history.loss[-1] < 0.7 * history.loss[0]
        trained.append(flat(net.parameters))
    assert (trained[0] == trained[1]).all()


def test_two_fits_are_one_and_partial_fit_goes_on() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    once, twice = (lamella.Network([6, 20, 3], output="softmax") for _ in range(2))
    once.fit(X, y, epochs=4, batch_size=None, optimizer="muon")
    twice.fit(X, y, epochs=2, batch_size=None, optimizer="muon")
    for _ in range(2):
        twice.partial_fit(X, y, optimizer="muon")
    assert (flat(once.parameters) == flat(twice.parameters)).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"momentum": 1.0}, ValueError, "momentum"),
        ({"ns_steps": 100}, ValueError, "ns_steps"),
        ({"ns_coefficients": (1.0, 2.0)}, ValueError, "ns_coefficients"),
        ({"ns_coefficients": (1.0, np.nan, 2.0)}, ValueError, "ns_coefficients"),
        ({"adjust_lr_fn": "none"}, ValueError, "adjust_lr_fn"),
        ({"epsilon": 0.0}, ValueError, "epsilon"),
        ({"others": "muon"}, TypeError, "others"),
        ({"others": "none"}, ValueError, "others"),
    ],
)
def test_settings_out_of_range_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lamella.Muon(**options)


def test_a_gradient_of_zeros_moves_no_matrix() -> None:
    net = lamella.Network([3, 4, 2], dtype="float64")
    net.parameters = {k: np.zeros_like(v) for k, v in net.parameters.items()}
    net.fit(np.ones((5, 3)), np.zeros((5, 2)), optimizer="muon", epochs=3)
    assert (flat(net.parameters) == 0).all()


@pytest.mark.parametrize("dims", [[5, 8, 8, 8, 2], [5, 3, 3, 2], [5, 2, 3, 3]])
def test_square_layers_have_the_same_bits_everywhere(
    dims: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((64, 5)), rng.standard_normal((64, dims[-1]))
    trained = []
    for isa in lamella._core.info()["available"]:
        monkeypatch.setenv("LAMELLA_ISA", isa)
        net = lamella.Network(dims)
        net.fit(X, y, epochs=3, optimizer=lamella.Muon())
        trained.append(b"".join(array.tobytes() for array in net.parameters.values()))
    assert len(trained) > 1
    assert len(set(trained)) == 1
