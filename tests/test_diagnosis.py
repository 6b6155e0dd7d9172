"""Diagnosis says in words what is wrong, and changes no bit of the training."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import Dense, Diagnosis, Network
from lamella.datasets import load_digits

_PIXELS, Y = load_digits()
X = _PIXELS / 16


def kinds(net: Network, **options: Any) -> list[str]:
    """Return the kinds of findings of a fit."""
    history = net.fit(X, Y, diagnose=True, **{"epochs": 3} | options)
    assert history.diagnosis is not None
    return [finding.kind for finding in history.diagnosis.findings()]


@pytest.mark.parametrize("hidden", ["relu", "tanh", "gelu", "sigmoid"])
def test_a_healthy_run_yields_no_diagnosis(hidden: str) -> None:
    init = "he" if hidden in ("relu", "gelu") else "lecun"
    net = Network([64, 64, 32, 10], output="softmax", hidden=hidden, init=init)
    history = net.fit(X, Y, epochs=5, diagnose=True)
    assert history.diagnosis is not None
    assert str(history.diagnosis).startswith("healthy")


def test_small_weights_vanish() -> None:
    net = Network([64, *[32] * 20, 10], output="softmax", init=0.01)
    history = net.fit(X, Y, epochs=2, diagnose=True)
    assert history.diagnosis is not None
    finding = history.diagnosis.findings()[0]
    assert finding.kind == "vanishing"
    assert "layers pass on less than a ten-thousandth" in str(finding)
    assert 'init="he"' in str(finding)


def test_large_weights_explode() -> None:
    net = Network([64, *[64] * 20, 10], output="softmax", init=1.0)
    assert "exploding" in kinds(net, learning_rate=1e-6)


def test_dead_units_and_the_layer_are_named() -> None:
    net = Network([64, 32, 16, 10], output="softmax")
    values = net.parameters
    values["b2"] = np.full(16, -1e3)
    values["b2"][0] = 1.0
    net.parameters = values
    finding = {f.kind: f for f in _findings(net)}["dead units"]
    assert finding.layer == 2
    assert "94% of the units of layer 2" in finding.text


def _findings(net: Network) -> list[lamella.diagnosis.Finding]:
    history = net.fit(X, Y, epochs=1, learning_rate=1e-5, diagnose=True)
    assert history.diagnosis is not None
    return history.diagnosis.findings()


def test_saturation_is_named() -> None:
    net = Network([64, Dense(32, "tanh", init=50.0), 10], output="softmax")
    found = {f.kind: f for f in _findings(net)}
    assert found["saturation"].layer == 1


def test_rates_that_are_too_high_or_too_low_are_named() -> None:
    layers = [64, 32, 10]
    assert "rate too high" in kinds(Network(layers, output="softmax"), learning_rate=1.0)
    assert "rate too low" in kinds(Network(layers, output="softmax"), learning_rate=1e-9)


@pytest.mark.parametrize("epochs", [1, 15])
def test_a_large_first_step_alone_is_no_rate_that_is_too_high(epochs: int) -> None:
    """RMSprop's first steps are ten times its rate, and its later ones are not."""
    net = Network([64, 128, 64, 10], output="softmax")
    options: dict[str, Any] = {"epochs": epochs, "optimizer": "rmsprop", "learning_rate": 0.003}
    history = net.fit(X, Y, diagnose=True, **options)
    assert history.diagnosis is not None
    assert history.diagnosis.records[0].update_ratios.max() > 0.1
    assert not history.diagnosis.findings()


@pytest.mark.parametrize("offset", [0.0, -10.0, 10.0])
def test_a_falling_loss_may_lie_below_zero(offset: float) -> None:
    """As a likelihood's may: what it began with has no sign that matters."""

    def likelihood(z: Any, y: Any) -> tuple[float, Any]:
        error = z[:, 0] - y
        return float(np.mean(error**2)) / 2 + offset, error[:, None] / len(y)

    net = Network([64, 32, 1], loss=likelihood)
    history = net.fit(X, Y / 10, epochs=3, diagnose=True)
    assert history.loss[-1] < history.loss[0]
    assert not history.diagnosis.findings()  # type: ignore[union-attr]
    worse = Network([64, 32, 1], loss=lambda z, y: (likelihood(z, y)[0], -likelihood(z, y)[1]))
    found = worse.fit(X, Y / 10, epochs=3, learning_rate=0.02, diagnose=True).diagnosis
    assert "the loss rose" in str(found)


def test_divergence_brings_its_diagnosis() -> None:
    net = Network([64, 32, 10], hidden="identity")
    with pytest.raises(lamella.DivergenceError, match="step") as raised:
        net.fit(X, np.eye(10)[Y], epochs=5, optimizer="sgd", learning_rate=50.0, diagnose=True)
    assert any("diagnosis" in note for note in raised.value.__notes__)


def test_divergence_that_nothing_announced_brings_none() -> None:
    net = Network([64, 32, 10], hidden="identity")
    with pytest.raises(lamella.DivergenceError) as raised:
        net.fit(X * 1e30, np.eye(10)[Y], optimizer="sgd", diagnose=True)
    assert not any("healthy" in note for note in getattr(raised.value, "__notes__", []))


@pytest.mark.parametrize("settings", [{}, {"norm": "batch", "dropout": 0.3}])
def test_no_bit_depends_on_it(settings: dict[str, Any]) -> None:
    nets = [Network([64, 20, 10], output="softmax", **settings) for _ in range(2)]
    losses = [
        net.fit(X, Y, epochs=3, diagnose=diagnose, threads=1).loss
        for net, diagnose in zip(nets, (False, True), strict=True)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    for name, array in nets[0].parameters.items():
        np.testing.assert_array_equal(array, nets[1].parameters[name])


def test_updates_are_those_of_one_step() -> None:
    net = Network([64, 20, 10], output="softmax", dtype="float64")
    other = Network([64, 20, 10], output="softmax", dtype="float64")
    diagnosis = Diagnosis(X, Y)
    net.fit(X, Y, epochs=1, batch_size=None, optimizer="sgd", callbacks=[diagnosis])
    before = other.parameters["W1"]
    gradient = other.loss_and_gradients(X, Y)[1]["dW1"]
    wanted = 0.01 * np.linalg.norm(gradient) / np.linalg.norm(before)
    np.testing.assert_allclose(diagnosis.records[0].update_ratios[0], wanted, rtol=1e-9)


def test_it_costs_little() -> None:
    def seconds(diagnose: bool) -> float:  # of this thread: what else runs does not count
        net = Network([64, 128, 64, 10], output="softmax")
        began = time.thread_time()
        net.fit(X, Y, epochs=40, diagnose=diagnose, threads=1)
        return time.thread_time() - began

    seconds(True)
    plain = diagnosed = np.inf
    for turn in range(30):  # a processor that another one's work slows down may need many
        plain, diagnosed = min(plain, seconds(False)), min(diagnosed, seconds(True))
        # The first and the last measurement are made however short a fit is.
        if turn >= 4 and diagnosed < 1.15 * plain + 0.02:
            return
    pytest.fail(f"{diagnosed:.3f} s instead of {plain:.3f} s")


def test_a_measurement_copies_the_parameters_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = 0
    plain: Any = Network.parameters

    def counted(net: Network) -> Any:
        nonlocal copied
        copied += 1
        return plain.fget(net)

    net = Network([64, *[16] * 20, 10], output="softmax")
    monkeypatch.setattr(Network, "parameters", property(counted, plain.fset))
    history = net.fit(X, Y, epochs=1, diagnose=True)
    assert history.diagnosis is not None
    # And once more for what the step changed.
    assert copied <= 2 * len(history.diagnosis.records)


def test_activations_are_every_layers() -> None:
    net = Network([64, 20, 7, 10], output="softmax", dtype="float64")
    A1, A2, A3 = net.activations(X)
    p = net.parameters
    np.testing.assert_allclose(A1, np.maximum(X @ p["W1"].T, 0), atol=1e-13)
    np.testing.assert_allclose(A2, np.maximum(A1 @ p["W2"].T, 0), atol=1e-13)
    np.testing.assert_array_equal(A3, net.predict_proba(X))
