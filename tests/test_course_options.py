"""What `L_layer_model` takes from the model: the numbers of the reference and of `Network`."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import Array, agree, difference, start

import lamella
from lamella import functional, reference, schedules

RNG = np.random.default_rng(4)
DIMS, M = [6, 9, 5, 3], 70
X = RNG.standard_normal((6, M))
BITS, CLASSES = RNG.integers(0, 2, (3, M)), RNG.integers(0, 3, M)
VALUES = RNG.standard_normal((3, M))
COUNT = RNG.random(M)
BOTH = pytest.mark.parametrize("module", [functional, reference])


def squares(Z: Array, Y: Array) -> tuple[Array, Array]:
    """Return each sample's squared error and its gradient, features x samples."""
    assert Z.shape == Y.shape
    assert len(Z) == 3
    return np.sum((Z - Y) ** 2, axis=0) / 2, Z - Y


def mean_squares(Z: Array, Y: Array) -> tuple[float, Array]:
    """Return a batch's mean squared error and its gradient."""
    values, gradient = squares(Z, Y)
    return float(np.mean(values)), gradient / Z.shape[1]


def both(Y: Array, **options: Any) -> tuple[dict[str, Array], list[float]]:
    """Train by the core and by the reference, which agree; return the core's."""
    settings: dict[str, Any] = {
        "learning_rate": 0.05, "num_iterations": 101, "batch_size": 32, "hidden": "tanh",
        "parameters": start(DIMS, seed=3), **options,
    }  # fmt: skip
    ours, costs = functional.L_layer_model(X, Y, DIMS, **settings)
    theirs, expected = reference.L_layer_model(X, Y, DIMS, **settings)
    assert len(costs) == 2
    assert difference(np.array(costs), np.array(expected)) <= 1e-10
    agree(ours, theirs, 1e-10)
    assert [ours[f"b{n}"].shape for n in (1, 2, 3)] == [(9, 1), (5, 1), (3, 1)]
    return ours, costs


@pytest.mark.parametrize(
    "options",
    [
        {"l1": 1e-3},
        {"l1": 1e-3, "l2": 0.01, "decay_biases": True},
        {"decay_biases": True, "optimizer": lamella.AdamW(0.05, weight_decay=0.1)},
        {"max_norm": 0.7},
        {"clip_value": 0.01},
        {"clip_norm": 0.05, "optimizer": "momentum"},
        {"average": 0.9},
        {"average": 0.95, "clip_norm": 0.1, "max_norm": 0.9, "l1": 1e-3, "dropout": 0.2},
        {"sample_weight": COUNT},
        {"sample_weight": COUNT, "batch_size": None},
        {"class_weight": "balanced"},
        {"class_weight": {0: 0.3, 2: 2}, "sample_weight": RNG.integers(0, 2, M)},
        {"loss": lamella.CrossEntropy(label_smoothing=0.1)},
        {"loss": "focal", "class_weight": "balanced", "average": 0.5},
        {"clip_norm": 0.05, "learning_rate": schedules.Warmup(0.05, steps=40), "batch_size": None},
    ],
    ids=str,
)
def test_options_are_the_references(options: dict[str, Any]) -> None:
    trained, _ = both(CLASSES, output="softmax", **options)
    plain, _ = functional.L_layer_model(
        X, CLASSES, DIMS, 0.05, 101, batch_size=32, hidden="tanh", output="softmax",
        parameters=start(DIMS, seed=3),
    )  # fmt: skip
    assert difference(trained["W1"], plain["W1"]) > 1e-3


@pytest.mark.parametrize(
    ("output", "loss", "Y"),
    [
        ("sigmoid", "focal", BITS),
        ("sigmoid", lamella.BinaryCrossEntropy(positive_weight=(1, 2, 3)), BITS.astype(bool)),
        ("softmax", "focal", np.eye(3)[CLASSES].T),
        ("identity", "mean_absolute_error", VALUES),
        ("identity", lamella.Huber(delta=0.3), VALUES),
        ("identity", "hinge", CLASSES),
        ("identity", lamella.SquaredHinge(multilabel=True), BITS),
        ("identity", lamella.Quantile((0.1, 0.5, 0.9)), VALUES[0]),
        ("identity", squares, VALUES),
        ("identity", mean_squares, VALUES),
        ("sigmoid", squares, VALUES),
    ],
)
def test_losses_are_the_references(output: str, loss: Any, Y: Array) -> None:
    counts = None if loss is mean_squares else COUNT
    both(Y, output=output, loss=loss, l1=1e-4, sample_weight=counts)


def test_losses_are_summed_over_outputs() -> None:
    start_ = start(DIMS, seed=3)
    net = lamella.Network(DIMS, dtype="float64", loss="mean_absolute_error")
    net.parameters = start_
    _, costs = functional.L_layer_model(
        X, VALUES, DIMS, num_iterations=1, output="identity", loss="mean_absolute_error",
        parameters=start_,
    )  # fmt: skip
    assert costs[0] == pytest.approx(3 * net.evaluate(X.T, VALUES.T)["loss"], rel=1e-12)
    matching: dict[str, Any] = {"output": "identity", "num_iterations": 101, "parameters": start_}
    plain, costs = functional.L_layer_model(X, VALUES, DIMS, 0.05, **matching)
    AL, _ = functional.L_model_forward(X, start_, output="identity")
    assert costs[0] == pytest.approx(functional.compute_cost(AL, VALUES, output="identity"))
    for loss in ("mean_squared_error", squares, mean_squares):
        same, _ = functional.L_layer_model(X, VALUES, DIMS, 0.05, loss=loss, **matching)
        agree(same, plain, 1e-12)


def test_it_trains_as_the_network_does() -> None:
    """With one output, sums over outputs are means over them."""
    options: dict[str, Any] = {
        "optimizer": "adam", "learning_rate": 0.01, "batch_size": 16, "clip_norm": 0.1,
        "average": 0.9, "class_weight": "balanced", "sample_weight": COUNT,
    }  # fmt: skip
    settings: dict[str, Any] = {"seed": 5, "l1": 1e-4, "l2": 1e-3, "max_norm": 1.5}
    net = lamella.Network([6, 9, 1], output="sigmoid", dtype="float64", **settings)
    initial = functional.initialize_parameters_deep([6, 9, 1], init="he", seed=5)
    assert (net.parameters["W1"] == initial["W1"]).all()
    history = net.fit(X.T, BITS[0], epochs=20, **options)
    trained, costs = functional.L_layer_model(
        X, BITS[0], [6, 9, 1], num_iterations=20, init="he", output="sigmoid",
        **options, **settings,
    )  # fmt: skip
    assert costs == [history.loss[0]]
    for name, array in net.average_parameters.items():
        assert (array == trained[name].reshape(array.shape)).all(), name


@BOTH
def test_without_iterations_the_average_is_the_start(module: ModuleType) -> None:
    given = start(DIMS, seed=3)
    end, costs = module.L_layer_model(
        X, BITS, DIMS, num_iterations=0, average=0.9, parameters=given
    )
    agree(end, given, 0)
    assert costs == []


@BOTH
def test_a_loss_in_python_may_take_any_targets(module: ModuleType) -> None:
    """Y is whatever the function reads, its last axis the samples."""
    targets = RNG.standard_normal((2, 4, M))
    seen = []

    def first(Z: Array, Y: Array) -> tuple[Array, Array]:
        seen.append((Z.shape, Y.shape))
        d = Z - Y[0, :3]
        return np.sum(d**2, axis=0) / 2, d

    module.L_layer_model(X, targets, DIMS, num_iterations=1, batch_size=50, loss=first)
    assert seen == [((3, 50), (2, 4, 50)), ((3, 20), (2, 4, 20))]


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, "^norm: expected None, .*lamella.Network"),
        ({"residual": True}, "^residual: expected False, .*lamella.Network"),
        ({"l1": -1.0}, "^l1: "),
        ({"decay_biases": 1}, "^decay_biases: "),
        ({"max_norm": 0.0}, "^max_norm: "),
        ({"clip_value": 0.0}, "^clip_value: "),
        ({"clip_norm": -1.0}, "^clip_norm: "),
        ({"clip_norm": 1.0, "clip_value": 1.0}, "^clip_norm: expected None beside clip_value"),
        ({"average": 1.0}, "^average: "),
        ({"sample_weight": np.ones(M - 1)}, r"^sample_weight: expected shape \(70,\)"),
        ({"sample_weight": -np.ones(M)}, "^sample_weight: "),
        ({"class_weight": {0: 1.0}}, "^class_weight: .*3 dicts"),
        ({"loss": "hinge"}, "^loss: expected one of binary_cross_entropy, focal"),
        ({"loss": "poisson"}, "^loss: "),
        ({"loss": 3}, "^loss: "),
        ({"output": "exponential"}, "^output: "),
        ({"loss": lambda Z, Y: 0.0}, "^loss: expected a function that returns"),
        ({"loss": lambda Z, Y: (0.0, Z.T)}, r"^loss gradient: .*\(3, 70\), got \(70, 3\)"),
        ({"loss": mean_squares, "sample_weight": COUNT}, "^loss value: "),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(
    module: ModuleType, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        module.L_layer_model(X, BITS, DIMS, num_iterations=1, **options)


@BOTH
def test_targets_are_checked_features_first(module: ModuleType) -> None:
    quantiles = lamella.Quantile((0.1, 0.5, 0.9))
    with pytest.raises(ValueError, match=r"^Y: expected shape \(1, 70\) or \(70,\)"):
        module.L_layer_model(X, VALUES, DIMS, output="identity", loss=quantiles)
    with pytest.raises(ValueError, match=r"^Y: expected targets of 70 samples"):
        module.L_layer_model(X, VALUES.T, DIMS, loss=squares)


def test_the_signatures_are_the_same() -> None:
    ours, theirs = (inspect.signature(module.L_layer_model) for module in (functional, reference))
    assert ours == theirs
