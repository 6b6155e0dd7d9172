"""Two networks in lockstep: they agree, or the first step, layer and tensor is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lamella import Dense, Network, TorchSide, compare
from lamella.comparison import _Core

X = np.random.RandomState(0).randn(100, 6)
Y = np.random.RandomState(1).randint(0, 3, 100)


def network(**settings: Any) -> Network:
    layers: list[int | Dense] = [6, 20, 7, 3]
    return Network(layers, **{"output": "softmax", "dtype": "float64"} | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden": "gelu", "l2": 0.1},
        {"dropout": 0.3},
        {"norm": "layer", "bias": False},
        {"norm": "batch", "max_norm": 0.5},
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_core_and_reference_agree(settings: dict[str, Any], optimizer: str) -> None:
    net = network(**settings)
    found = compare(net, "reference", X, Y, optimizer=optimizer, tolerance=1e-9)
    assert found, str(found)
    assert found.steps == 10
    assert "no difference in 10 steps" in str(found)
    assert net.steps == 0  # a copy trained


def test_running_statistics_and_batch_norm_agree() -> None:
    found = compare(network(norm="batch", bias=False), "reference", X, Y, tolerance=1e-9)
    assert found, str(found)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "lion"])
def test_a_bias_without_effect_may_go_anywhere(optimizer: str) -> None:
    """Before batch normalisation; rules that divide by the gradient's size step by its rounding."""
    found = compare(network(norm="batch"), "reference", X, Y, optimizer=optimizer, tolerance=1e-7)
    assert found, str(found)


@pytest.mark.parametrize(("tensor", "layer"), [("W2", 2), ("b3", 3)])
def test_a_different_start_is_found_where_it_shows(tensor: str, layer: int) -> None:
    a, b = network(), network()
    changed = b.parameters
    changed[tensor].flat[0] += 0.5
    b.parameters = changed
    found = compare(a, b, X, Y)
    assert not found
    assert (found.step, found.layer, found.tensor) == (1, layer, f"A{layer}")
    assert f"they part in step 1: layer {layer}, A{layer}" in str(found)


class Wrong(_Core):
    """A network with a mistake in its backward pass from the third step on."""

    made = 0

    def loss_and_gradients(self, X: Any, y: Any) -> Any:
        loss, grads = super().loss_and_gradients(X, y)
        self.made += 1
        if self.made == 3:
            grads["dW2"] = grads["dW2"] * 1.01
        return loss, grads


def test_a_wrong_gradient_is_found() -> None:
    found = compare(network(), Wrong(network(), "sgd"), X, Y)
    assert (found.step, found.layer, found.tensor) == (3, 2, "dW2")
    assert 0.009 < found.difference < 0.011


def test_a_layer_is_named_under_normalisation_too() -> None:
    a, b = network(norm="batch"), network(norm="batch")
    changed = b.parameters
    changed["W2"][0, 0] += 0.1
    b.parameters = changed
    assert compare(a, b, X, Y).tensor == "A2"


def test_float32_agrees_with_its_reference_within_its_own_tolerance() -> None:
    found = compare(network(dtype="float32"), "reference", X, Y, optimizer="adam")
    assert found.tolerance == 1e-3
    assert found, str(found)


def test_a_wrong_rate_shows_after_the_update() -> None:
    found = compare(network(), _Core(network(), "momentum"), X, Y, tolerance=1e-12)
    assert found.tensor is not None
    assert found.step in (1, 2)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(TypeError, match=r"b: expected a Network, .reference. or a Side"):
        compare(network(), 3, X, Y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"b: expected one of reference"):
        compare(network(), "numpy", X, Y)
    with pytest.raises(ValueError, match="optimizer: expected"):
        compare(network(), "reference", X, Y, optimizer="muon")


def test_a_pytorch_module_agrees() -> None:
    torch = pytest.importorskip("torch")
    net = network()
    linear = [torch.nn.Linear(a, b, dtype=torch.float64) for a, b in ((6, 20), (20, 7), (7, 3))]
    with torch.no_grad():
        for n, layer in enumerate(linear, start=1):
            layer.weight.copy_(torch.from_numpy(net.parameters[f"W{n}"]))
            layer.bias.copy_(torch.from_numpy(net.parameters[f"b{n}"]))
    relu = torch.nn.ReLU()
    module = torch.nn.Sequential(linear[0], relu, linear[1], relu, linear[2])
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    side = TorchSide(module, optimizer, torch.nn.functional.cross_entropy)
    found = compare(net, side, X, Y, optimizer="adam", tolerance=1e-9)
    assert found, str(found)
