"""L-BFGS: the core's loss and gradient of one vector are the reference's; SciPy minimises them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from conftest import Array, agree, difference, start

import lamella
from lamella import lbfgs, reference

pytest.importorskip("scipy")

RNG = np.random.default_rng(5)
X = RNG.standard_normal((80, 6))
TARGETS = {
    "softmax": RNG.integers(0, 3, 80),
    "sigmoid": RNG.integers(0, 2, (80, 3)),
    "identity": RNG.standard_normal((80, 3)),
}
SCALES = {"softmax": 1.0, "sigmoid": 1 / 3, "identity": 2 / 3}


def network(output: str, **options: Any) -> lamella.Network:
    """Return a small float64 network with biases that are not zero."""
    net = lamella.Network([6, 7, 5, 3], hidden="tanh", output=output, dtype="float64", **options)
    net.parameters = start([6, 7, 5, 3], seed=8)
    return net


def loss(net: lamella.Network, output: str) -> float:
    return net.evaluate(X, TARGETS[output])["loss"]


@pytest.mark.parametrize("output", TARGETS)
@pytest.mark.parametrize("penalty", [{}, {"l2": 0.01}, {"l2": 0.01, "decay_biases": True}])
def test_losses_and_parameters_follow_the_reference(output: str, penalty: dict[str, Any]) -> None:
    net, rule = network(output, **penalty), lamella.LBFGS(max_iter=12)
    Y = TARGETS[output].T
    ours = net.loss_and_gradients(X, TARGETS[output])
    parameters, losses = reference.fit_lbfgs(
        start([6, 7, 5, 3], seed=8), X.T, Y, rule,
        loss_scale=SCALES[output], hidden="tanh", output=output, **penalty,
    )  # fmt: skip
    history = net.fit(X, TARGETS[output], optimizer=rule)
    assert len(history) == 12
    assert abs(history.loss[0] - ours[0]) <= 1e-12
    assert difference(history.loss, losses) <= 1e-10
    trained = net.parameters
    agree({k: v.reshape(parameters[k].shape) for k, v in trained.items()}, parameters, 1e-8)


@pytest.mark.parametrize("output", TARGETS)
def test_the_flat_loss_and_gradient_are_the_references(output: str) -> None:
    net, rule = network(output, l2=0.02), lamella.LBFGS(max_iter=1, max_fun=1)
    seen: list[tuple[float, Array]] = []

    def noting(function: lbfgs.Function, *others: Any) -> Any:
        seen.append(function(lbfgs.flat(start([6, 7, 5, 3], seed=8).values())))
        return original(function, *others)

    original = lbfgs.minimise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbfgs, "minimise", noting)
        patch.setattr("lamella.reference.lbfgs.minimise", noting)
        net.fit(X, TARGETS[output], optimizer=rule)
        reference.fit_lbfgs(
            start([6, 7, 5, 3], seed=8), X.T, TARGETS[output].T, rule,
            l2=0.02, loss_scale=SCALES[output], hidden="tanh", output=output,
        )  # fmt: skip
    (ours, our_gradient), (theirs, their_gradient) = seen
    assert abs(ours - theirs) <= 1e-12
    assert difference(our_gradient, their_gradient) <= 1e-12


def test_it_ends_in_a_minimum() -> None:
    net = network("softmax", l2=0.05)
    rule = lamella.LBFGS(tolerance=1e-7, history=20)
    history = net.fit(X, TARGETS["softmax"], epochs=500, optimizer=rule)
    assert 10 < len(history) < 500
    assert (np.diff(history.loss) <= 0).all()
    _, gradients = net.loss_and_gradients(X, TARGETS["softmax"])
    assert max(np.abs(g).max() for g in gradients.values()) < 1e-4
    assert loss(net, "softmax") <= history.loss[-1]


def test_epochs_are_iterations_and_a_loss_is_the_one_before() -> None:
    net = network("identity")
    before = loss(net, "identity")
    heard: list[tuple[int, float]] = []
    history = net.fit(
        X, TARGETS["identity"], epochs=4, optimizer="lbfgs",
        progress=lambda epoch, loss: heard.append((epoch, loss)),
    )  # fmt: skip
    assert len(history) == 4
    assert history.loss[0] == pytest.approx(before, abs=1e-15)
    assert heard == list(enumerate(history.loss))
    assert len(net.fit(X, TARGETS["identity"], epochs=0, optimizer="lbfgs")) == 0
    bounded = network("identity").fit(X, TARGETS["identity"], optimizer=lamella.LBFGS(3, max_fun=2))
    assert len(bounded) < 3


def test_the_bits_do_not_depend_on_threads_and_a_float32_network_learns() -> None:
    nets = [lamella.Network([6, 40, 3], output="softmax", dtype="float32") for _ in range(2)]
    for net, threads in zip(nets, (1, 3), strict=True):
        net.fit(X, TARGETS["softmax"], epochs=30, optimizer="lbfgs", threads=threads)
    for name, value in nets[0].parameters.items():
        assert (value == nets[1].parameters[name]).all()
    assert nets[0].evaluate(X, TARGETS["softmax"])["accuracy"] > 0.9


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_a_callback_raises_leaves_the_last_iterate(error: type[BaseException]) -> None:
    whole = network("softmax")
    whole.fit(X, TARGETS["softmax"], epochs=3, optimizer="lbfgs")

    def stop(epoch: int, loss: float) -> None:
        if epoch == 2:
            raise error

    net = network("softmax")
    with pytest.raises(error):
        net.fit(X, TARGETS["softmax"], epochs=50, optimizer="lbfgs", progress=stop)
    agree(net.parameters, whole.parameters, 0)
    net.fit(X, TARGETS["softmax"], epochs=2)


@pytest.mark.parametrize(
    ("options", "network_options", "message"),
    [
        ({"learning_rate": 0.1}, {}, "^learning_rate: "),
        ({"clip_value": 0.1}, {}, "^clip_value: "),
        ({"epochs": -1}, {}, "^epochs: "),
        ({"threads": 0}, {}, "^threads: "),
        ({}, {"l1": 0.1}, "^l1: "),
    ],
)
def test_what_it_cannot_do_is_refused(
    options: dict[str, Any], network_options: dict[str, Any], message: str
) -> None:
    net = network("softmax", **network_options)
    before = net.parameters
    with pytest.raises(ValueError, match=message):
        net.fit(X, TARGETS["softmax"], optimizer="lbfgs", **options)
    agree(net.parameters, before, 0)


@pytest.mark.parametrize(
    "options",
    [{"max_iter": -1}, {"max_fun": 0}, {"tolerance": -1.0}, {"tolerance": "a"}, {"history": 0}],
)
def test_settings_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{next(iter(options))}: "):
        lamella.LBFGS(**options)


def test_without_scipy_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ModuleNotFoundError, match="needs SciPy"):
        network("softmax").fit(X, TARGETS["softmax"], optimizer="lbfgs")
