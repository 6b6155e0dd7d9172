"""L-BFGS: the core's loss and gradient of one vector are the reference's; SciPy minimises them."""

from __future__ import annotations

import sys
import time
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
@pytest.mark.parametrize("w", [None, RNG.random(80)], ids=["plain", "weighed"])
def test_the_flat_loss_and_gradient_are_the_references(output: str, w: Array | None) -> None:
    net, rule = network(output, l2=0.02), lamella.LBFGS(max_iter=1, max_fun=1)
    seen: list[tuple[float, Array]] = []

    def noting(function: lbfgs.Function, *others: Any) -> Any:
        seen.append(function(lbfgs.flat(start([6, 7, 5, 3], seed=8).values())))
        return original(function, *others)

    original = lbfgs.minimise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbfgs, "minimise", noting)
        patch.setattr("lamella.reference.lbfgs.minimise", noting)
        net.fit(X, TARGETS[output], optimizer=rule, sample_weight=w)
        reference.fit_lbfgs(
            start([6, 7, 5, 3], seed=8), X.T, TARGETS[output].T, rule,
            l2=0.02, sample_weight=w, loss_scale=SCALES[output], hidden="tanh", output=output,
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


@pytest.mark.parametrize("output", TARGETS)
def test_weights_and_early_stopping_follow_the_reference(output: str) -> None:
    """The iterate that is kept is the best one, not the last."""
    Y, w = TARGETS[output], RNG.random(80)
    train, held = slice(0, 50), slice(50, 80)
    net, rule = network(output, l2=1e-4), lamella.LBFGS(max_iter=60)
    stopping = lamella.EarlyStopping(patience=4)
    history = net.fit(
        X[train], Y[train], optimizer=rule, sample_weight=w[train],
        validation_data=(X[held], Y[held]), early_stopping=stopping,
    )  # fmt: skip
    parameters, losses = reference.fit_lbfgs(
        start([6, 7, 5, 3], seed=8), X[train].T, Y[train].T, rule,
        l2=1e-4, sample_weight=w[train], loss_scale=SCALES[output], hidden="tanh", output=output,
        validation=(X[held].T, Y[held].T), early_stopping=stopping,
    )  # fmt: skip
    assert history.stopped == "early_stopping"
    assert history.best_epoch == len(history) - 5
    assert difference(history.loss, losses) <= 1e-9
    agree({k: v.reshape(parameters[k].shape) for k, v in net.parameters.items()}, parameters, 1e-7)
    scores = history.metrics["val_loss"]
    assert net.evaluate(X[held], Y[held])["loss"] == scores[history.best_epoch] == scores.min()
    name = "val_r2" if output == "identity" else "val_accuracy"
    assert len(history.metrics[name]) == len(history)


def test_class_weights_are_sample_weights() -> None:
    balanced, weighed, plain = (network("softmax") for _ in range(3))
    y = TARGETS["softmax"]
    own = 80 / (3 * np.bincount(y))[y]
    balanced.fit(X, y, epochs=5, optimizer="lbfgs", class_weight="balanced")
    weighed.fit(X, y, epochs=5, optimizer="lbfgs", sample_weight=own)
    plain.fit(X, y, epochs=5, optimizer="lbfgs", sample_weight=np.ones(80))
    agree(balanced.parameters, weighed.parameters, 0)
    assert difference(balanced.parameters["W1"], plain.parameters["W1"]) > 1e-3
    unweighed = network("softmax")
    unweighed.fit(X, y, epochs=5, optimizer="lbfgs")
    agree(plain.parameters, unweighed.parameters, 0)


class Listener(lamella.Callback):
    """Notes what it hears and what the network says then; may end the fit."""

    def __init__(self, end: int, by: str) -> None:
        self.end, self.by = end, by
        self.heard: list[Any] = []

    def on_fit_begin(self, net: lamella.Network) -> None:
        self.heard.append("begin")

    def on_epoch_end(self, epoch: int, logs: Any, net: lamella.Network) -> bool:
        self.heard.append((epoch, dict(logs), loss(net, "softmax")))
        if epoch == self.end and self.by == "exception":
            raise lamella.StopTraining
        return epoch == self.end

    def on_fit_end(self, history: lamella.History, net: lamella.Network) -> None:
        self.heard.append(history)


@pytest.mark.parametrize("by", ["answer", "exception"])
def test_callbacks_hear_of_iterations_and_may_end_them(by: str) -> None:
    listener, net, whole = Listener(3, by), network("softmax"), network("softmax")
    history = net.fit(
        X, TARGETS["softmax"], epochs=50, optimizer="lbfgs", callbacks=[listener],
        validation_data=(X, TARGETS["softmax"]),
    )  # fmt: skip
    assert history.stopped == "callback"
    assert listener.heard[0] == "begin"
    assert listener.heard[-1] is history
    for n, (epoch, logs, now) in enumerate(listener.heard[1:-1]):
        assert epoch == n
        assert logs["loss"] == history.loss[n]
        assert logs["val_loss"] == now  # the iterate that the iteration led to
    assert len(history) == len(listener.heard) - 2 == 4
    whole.fit(X, TARGETS["softmax"], epochs=4, optimizer="lbfgs")
    agree(net.parameters, whole.parameters, 0)


def test_a_time_limit_ends_it_with_a_whole_iteration() -> None:
    net, whole = network("identity"), network("identity")
    history = net.fit(
        X, TARGETS["identity"], epochs=10**6, optimizer=lamella.LBFGS(tolerance=0, max_fun=10**6),
        time_limit=0.1, callbacks=[lambda *_: time.sleep(0.03)],
    )  # fmt: skip
    assert history.stopped == "time_limit"
    assert 1 <= len(history) < 10
    whole.fit(X, TARGETS["identity"], epochs=len(history), optimizer=lamella.LBFGS(tolerance=0))
    agree(net.parameters, whole.parameters, 0)


def test_it_is_diagnosed_before_and_after() -> None:
    net = network("softmax")
    diagnosis = net.fit(X, TARGETS["softmax"], epochs=9, optimizer="lbfgs", diagnose=True).diagnosis
    assert diagnosis is not None
    assert [record.loss for record in diagnosis.records][1] == pytest.approx(loss(net, "softmax"))
    assert len(diagnosis.records) == 2
    assert not diagnosis.findings()
    faded = lamella.Network([6, *[20] * 12, 3], output="softmax", init=0.01)
    diagnosis = faded.fit(
        X, TARGETS["softmax"], epochs=2, optimizer="lbfgs", diagnose=True
    ).diagnosis
    assert diagnosis is not None
    assert diagnosis.findings()[0].kind == "vanishing"


@pytest.mark.parametrize(
    ("options", "network_options", "message"),
    [
        ({"learning_rate": 0.1}, {}, "^learning_rate: "),
        ({"clip_value": 0.1}, {}, "^clip_value: "),
        ({"clip_norm": 0.1}, {}, "^clip_norm: expected None with lbfgs"),
        ({"average": 0.1}, {}, "^average: expected None with lbfgs"),
        ({"epochs": -1}, {}, "^epochs: "),
        ({"threads": 0}, {}, "^threads: "),
        ({"time_limit": 0.0}, {}, "^time_limit: "),
        ({"sample_weight": np.ones(79)}, {}, "^sample_weight: "),
        ({"class_weight": {3: 1.0}}, {}, "^class_weight: "),
        ({"early_stopping": True}, {}, "^monitor: .*needs validation_data"),
        ({"callbacks": [lamella.Diagnosis(X, TARGETS["softmax"])]}, {}, r"^callbacks\[0\].every: "),
        ({}, {"l1": 0.1}, "^l1: "),
        ({}, {"max_norm": 1.0}, "^max_norm: "),
        ({}, {"dropout": 0.1}, r"^layers\[1\]: "),
        ({}, {"norm": "batch"}, r"^layers\[1\]: "),
    ],
)
def test_what_it_cannot_do_is_refused(
    options: dict[str, Any], network_options: dict[str, Any], message: str
) -> None:
    net = lamella.Network([6, 7, 5, 3], output="softmax", **network_options)
    before = net.parameters
    with pytest.raises(ValueError, match=message):
        net.fit(X, TARGETS["softmax"], optimizer="lbfgs", **options)
    assert all((array == before[name]).all() for name, array in net.parameters.items())


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
