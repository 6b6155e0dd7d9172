"""Validation, metrics, early stopping, callbacks, time limits: what happens between the steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from conftest import Array, agree, difference, start

import lamella
from lamella import Callback, EarlyStopping, Metric, StopTraining, metrics, reference, validation
from lamella.schedules import Cosine, ReduceOnPlateau

RNG = np.random.default_rng(0)
X = RNG.standard_normal((150, 6))
Y = (np.abs(X[:, 0]) + X[:, 1] > 1).astype(int) + (X[:, 2] > 1)
X_VAL = RNG.standard_normal((60, 6))
Y_VAL = (np.abs(X_VAL[:, 0]) + X_VAL[:, 1] > 1).astype(int) + (X_VAL[:, 2] > 1)
HELD: dict[str, Any] = {"validation_data": (X_VAL, Y_VAL)}


def network(output: str = "softmax", n: int = 3, **options: Any) -> lamella.Network:
    """Return a small network."""
    return lamella.Network([6, 20, n], output=output, **options)


def same(a: lamella.Network, b: lamella.Network) -> None:
    """Assert that two networks have the same parameters, bit by bit."""
    for name, value in a.parameters.items():
        assert (value == b.parameters[name]).all(), name


class Every(Callback):
    """Records the steps it is called at."""

    def __init__(self, every: int, last: int | None = None) -> None:
        self.every, self.last = every, last
        self.seen: list[tuple[int, float]] = []

    def on_step(self, step: int, loss: float, network: lamella.Network) -> bool:
        """Record, use the network, and stop at the last step."""
        assert network.steps == step
        network.evaluate(X_VAL, Y_VAL)
        network.predict(X_VAL[:1])
        self.seen.append((step, loss))
        return step == self.last


# --- the same bits ---


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {"callbacks": [Every(1)]},
        {"callbacks": [Every(3), Every(7)]},
        {"time_limit": 1e6},
        {"callbacks": [lambda epoch, logs, net: None]},
        {"progress": True},
        {"metrics": ["accuracy"]},
        HELD,
    ],
    ids=["every step", "steps", "limit", "epochs", "bar", "metrics", "validation"],
)
def test_what_is_asked_beside_the_steps_changes_no_bit(
    options: dict[str, Any], dtype: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tqdm") if "progress" in options else None
    monkeypatch.setattr("lamella.bars.TICK", 1e-4)  # a bar that looks often
    for batch in (16, None):
        plain, asked = network(dtype=dtype), network(dtype=dtype)
        wanted = plain.fit(X, Y, epochs=6, batch_size=batch)
        history = asked.fit(X, Y, epochs=6, batch_size=batch, threads=threads, **options)
        same(plain, asked)
        assert (history.loss == wanted.loss).all()
        assert (asked.steps, asked.epochs) == (plain.steps, plain.epochs)
        # And the optimizer's state.
        plain.fit(X, Y)
        asked.fit(X, Y)
        same(plain, asked)


def test_steps_of_a_batch_in_several_groups_are_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((9000, 6))
    y = np.arange(9000) % 3
    plain, asked = network(), network()
    wanted = plain.fit(x, y, epochs=2, batch_size=4500)
    history = asked.fit(x, y, epochs=2, batch_size=4500, callbacks=[Every(1)], threads=2)
    same(plain, asked)
    assert (history.loss == wanted.loss).all()


def test_other_labels_and_sparse_rows_are_cut_alike() -> None:
    x = np.where(np.abs(X) > 1, X, 0)
    bits = np.stack([Y > 0, Y > 1], axis=1)
    for output, n, y in (
        ("sigmoid", 2, bits),
        ("sigmoid", 1, bits[:, 0]),
        ("identity", 2, X[:, :2]),
    ):
        plain, asked, by_rows = (network(output, n) for _ in range(3))
        held: dict[str, Any] = {"validation_data": (x[:20], y[:20]), "learning_rate": 0.01}
        plain.fit(x, y, epochs=3, learning_rate=0.01)
        dense = asked.fit(x, y, epochs=3, **held)
        sparse = by_rows.fit(scipy.sparse.csr_array(x), y, epochs=3, **held)
        same(plain, asked)
        same(plain, by_rows)
        assert sparse.metrics.keys() == dense.metrics.keys()
        for name, numbers in dense.metrics.items():
            assert (sparse.metrics[name] == numbers).all()
        scores = asked.evaluate(x[:20], y[:20])
        assert [dense.metrics[f"val_{name}"][-1] for name in scores] == list(scores.values())
    fraction = network().fit(scipy.sparse.csr_array(x), Y, validation_fraction=0.2, epochs=2)
    wanted = network().fit(x, Y, validation_fraction=0.2, epochs=2)
    assert (fraction.metrics["val_loss"] == wanted.metrics["val_loss"]).all()


def test_weights_dropout_and_running_statistics_are_cut_alike() -> None:
    w = RNG.integers(0, 3, 150)
    hidden = lamella.Dense(20, "relu", dropout=0.2, norm="batch")
    plain, asked = (lamella.Network([6, hidden, 3], output="softmax") for _ in range(2))
    wanted = plain.fit(X, Y, epochs=4, sample_weight=w)
    history = asked.fit(X, Y, epochs=4, sample_weight=w, callbacks=[Every(1)], **HELD)
    same(plain, asked)
    assert (history.loss == wanted.loss).all()
    for name, value in plain.statistics.items():
        assert (value == asked.statistics[name]).all()
    # The best epoch is restored with its running statistics.
    stopped = lamella.Network([6, hidden, 3], output="softmax")
    history = stopped.fit(
        X,
        RNG.integers(0, 3, 150),
        epochs=30,
        learning_rate=0.03,
        early_stopping=EarlyStopping(patience=9),
        **HELD,
    )
    assert stopped.evaluate(X_VAL, Y_VAL)["loss"] == history.metrics["val_loss"].min()
    # Rows held back take their weights along.
    one, other = network(seed=5), network(seed=5)
    one.fit(X, Y, epochs=3, validation_fraction=0.2, sample_weight=w)
    train, _ = validation.split(Y, 0.2, 5, by_class=True)
    other.fit(X[train], Y[train], epochs=3, sample_weight=w[train])
    same(one, other)


# --- validation ---


def test_validation_is_what_evaluate_says() -> None:
    net = network()
    seen: list[dict[str, float]] = []
    history = net.fit(
        X, Y, epochs=4, callbacks=[lambda e, logs, n: seen.append(n.evaluate(X_VAL, Y_VAL))], **HELD
    )
    assert history.metrics["val_loss"].tolist() == [scores["loss"] for scores in seen]
    assert history.metrics["val_accuracy"].tolist() == [scores["accuracy"] for scores in seen]
    assert len(set(history.metrics["val_loss"].tolist())) == 4
    assert history.stopped == "epochs"
    assert history.best_epoch is None


@pytest.mark.parametrize("m", [30, 33, 500])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_a_fraction_is_stratified(m: int, fraction: float) -> None:
    rng = np.random.default_rng(m)
    y = rng.choice(4, m, p=[0.6, 0.2, 0.15, 0.05])
    train, held = validation.split(y, fraction, 1, by_class=True)
    assert len(held) == round(fraction * m)
    assert np.sort(np.concatenate([train, held])).tolist() == list(range(m))
    for c in range(4):
        assert abs(np.sum(y[held] == c) - fraction * np.sum(y == c)) < 1.0
    again = validation.split(y, fraction, 1, by_class=True)[1]
    other = validation.split(y, fraction, 2, by_class=True)[1]
    assert held.tolist() == again.tolist()
    assert held.tolist() != other.tolist()
    plain = validation.split(rng.standard_normal((m, 2)), fraction, 1, by_class=False)[1]
    assert len(plain) == len(held)


def test_a_fraction_is_a_split_by_hand() -> None:
    one, other = network(seed=5), network(seed=5)
    history = one.fit(X, Y, epochs=3, validation_fraction=0.2)
    train, held = validation.split(Y, 0.2, 5, by_class=True)
    assert len(held) == 30
    wanted = other.fit(X[train], Y[train], epochs=3, validation_data=(X[held], Y[held]))
    same(one, other)
    assert (history.metrics["val_loss"] == wanted.metrics["val_loss"]).all()


# --- metrics ---


def test_metrics_are_computed_on_the_validations_rows_or_on_the_trainings() -> None:
    def errors(y: Array, prediction: Array) -> float:
        return float(np.sum(y != prediction))

    def shape(y: Array, p: Array) -> int:
        return int(p.shape[1])

    asked: list[Any] = ["accuracy", errors, Metric(shape, "classes", probabilities=True)]
    net = network()
    history = net.fit(X, Y, epochs=3, metrics=asked, **HELD)
    assert list(history.metrics) == ["val_loss", "val_accuracy", "val_errors", "val_classes"]
    wrong = np.sum(net.predict(X_VAL) != Y_VAL)
    assert history.metrics["val_errors"][-1] == wrong
    assert history.metrics["val_accuracy"][-1] == pytest.approx(1 - wrong / 60)
    assert history.metrics["val_classes"].tolist() == [3, 3, 3]
    net = network()
    history = net.fit(X, Y, epochs=3, metrics=asked)
    assert list(history.metrics) == ["accuracy", "errors", "classes"]
    assert history.metrics["errors"][-1] == np.sum(net.predict(X) != Y)


def test_metrics_are_their_definitions() -> None:
    y, p = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 0])
    assert metrics.accuracy(y, p) == pytest.approx(4 / 6)
    assert metrics.balanced_accuracy(y, p) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert metrics.balanced_accuracy(np.array([0, 0, 2]), np.array([0, 1, 2])) == pytest.approx(
        0.75
    )
    pairs = np.stack([y > 0, y > 1], axis=1), np.stack([p > 0, p > 1], axis=1)
    expected = [
        metrics.balanced_accuracy(*pair) for pair in zip(pairs[0].T, pairs[1].T, strict=True)
    ]
    assert metrics.balanced_accuracy(*pairs) == pytest.approx(np.mean(expected))
    three = np.array([[0.7, 0.2, 0.1], [0.1, 0.9, 0.0], [0.2, 0.8, 0.0]])
    eps = np.finfo(np.float64).eps
    wanted = -np.mean(np.log([0.7, 0.9, eps]))
    assert metrics.log_loss(np.array([0, 1, 2]), three) == pytest.approx(wanted)
    one = np.array([[0.7], [0.1]])
    assert metrics.log_loss(np.array([1, 0]), one) == pytest.approx(-np.mean(np.log([0.7, 0.9])))
    both = np.array([[0.7, 0.4], [0.1, 0.2]])
    several = metrics.log_loss(np.array([[1, 0], [0, 1]]), both)
    assert several == pytest.approx(-np.mean(np.log([0.7, 0.6, 0.9, 0.2])))
    values, targets = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    assert metrics.mean_absolute_error(targets, values) == pytest.approx(1.0)
    assert metrics.mean_squared_error(targets, values) == pytest.approx(5 / 3)
    assert metrics.r2(targets, values) == pytest.approx(1 - 5 / 2)
    assert metrics.r2(np.ones(3), np.ones(3)) == 1
    # The validation's loss without penalties is the metric of the same name.
    history = network(dtype="float64").fit(X, Y, epochs=2, metrics=["log_loss"], **HELD)
    assert difference(history.metrics["val_log_loss"], history.metrics["val_loss"]) < 1e-12
    history = network("identity", 1, dtype="float64").fit(
        X, X[:, 0], epochs=2, metrics=["mse", "mae"], validation_data=(X_VAL, X_VAL[:, :1])
    )
    assert difference(history.metrics["val_mse"], history.metrics["val_loss"]) < 1e-12


# --- early stopping ---


def test_early_stopping_waits_and_restores() -> None:
    losses = [5.0, 4.0, 4.5, 4.2, 3.9, 3.95, 4.0, 3.85, 9.0, 9.0, 9.0, 9.0]
    told: list[dict[str, Array]] = []

    def told_loss(y: Array, prediction: Array) -> float:
        return losses[len(told)]

    def keep(epoch: int, logs: Mapping[str, float], net: lamella.Network) -> None:
        told.append(net.parameters)

    for delta, best, length in ((0.0, 7, 11), (0.1, 1, 5)):
        told.clear()
        net = network()
        stopping = EarlyStopping("told_loss", patience=3, min_delta=delta, mode="min")
        if delta:
            stopping = EarlyStopping("told_loss", patience=3, min_delta=0.2, mode="min")
        history = net.fit(
            X, Y, epochs=50, metrics=[told_loss], callbacks=[keep], early_stopping=stopping
        )
        assert (history.stopped, history.best_epoch, len(history)) == (
            "early_stopping",
            best,
            length,
        )
        for name, value in net.parameters.items():
            assert (value == told[best][name]).all()
        assert net.epochs == length
        # It goes on from there.
        net.fit(X, Y)
        assert net.epochs == length + 1


def test_the_last_parameters_stay_if_asked() -> None:
    net, plain = network(), network()
    stopping = EarlyStopping("accuracy", patience=1, restore_best=False, min_delta=2.0)
    history = net.fit(X, Y, epochs=50, metrics=["accuracy"], early_stopping=stopping)
    # The first epoch beats nothing by less than everything.
    assert (len(history), history.best_epoch, history.stopped) == (2, 0, "early_stopping")
    plain.fit(X, Y, epochs=2)
    same(net, plain)


@pytest.mark.parametrize("delta", [0.0, 0.02])
@pytest.mark.parametrize("schedule", [None, ReduceOnPlateau(patience=0, threshold=0.05)])
def test_early_stopping_equals_the_reference(delta: float, schedule: Any) -> None:
    net = network(dtype="float64", seed=2)
    noise = RNG.integers(0, 3, 150)
    parameters = start([6, 20, 3], 7)
    net.parameters = parameters
    options: dict[str, Any] = {
        "epochs": 60,
        "batch_size": 16,
        "optimizer": lamella.Adam(0.02),
        "early_stopping": EarlyStopping(patience=4, min_delta=delta),
        "learning_rate": schedule,
    }
    history = net.fit(X, noise, validation_data=(X_VAL, Y_VAL), **options)
    theirs, losses = reference.fit(
        parameters, X.T, noise, validation=(X_VAL.T, Y_VAL), output="softmax", seed=2, **options
    )
    assert history.stopped == "early_stopping"
    assert difference(history.loss, losses) <= 1e-10
    agree({k: v.reshape(theirs[k].shape) for k, v in net.parameters.items()}, theirs, 1e-10)
    assert net.evaluate(X_VAL, Y_VAL)["loss"] == history.metrics["val_loss"].min() or delta > 0


def test_the_best_is_restored_after_all_epochs_too() -> None:
    net = network()
    history = net.fit(X, RNG.integers(0, 3, 150), epochs=30, learning_rate=0.02,
                      early_stopping=EarlyStopping(patience=100), **HELD)  # fmt: skip
    assert history.stopped == "epochs"
    assert history.best_epoch == np.argmin(history.metrics["val_loss"])
    assert history.best_epoch is not None
    assert history.best_epoch < 29
    assert net.evaluate(X_VAL, Y_VAL)["loss"] == history.metrics["val_loss"].min()


# --- callbacks ---


class Order(Callback):
    """Records every call."""

    every = 5

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_fit_begin(self, network: lamella.Network) -> None:
        """Record."""
        self.calls.append("begin")

    def on_step(self, step: int, loss: float, network: lamella.Network) -> None:
        """Record."""
        self.calls.append(f"step {step}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], network: lamella.Network) -> None:
        """Record."""
        self.calls.append(f"epoch {epoch} {', '.join(logs)}")

    def on_fit_end(self, history: lamella.History, network: lamella.Network) -> None:
        """Record."""
        self.calls.append(f"end {history.stopped} {len(history)}")


def test_callbacks_are_called_in_order() -> None:
    order, net = Order(), network()
    net.fit(X, Y, epochs=2, callbacks=[order], **HELD)  # 5 steps an epoch
    names = "loss, val_loss, val_accuracy"
    assert order.calls == [
        "begin", "step 5", f"epoch 0 {names}", "step 10", f"epoch 1 {names}", "end epochs 2",
    ]  # fmt: skip
    order.every = 4
    order.calls.clear()
    net.fit(X, Y, callbacks=[order])  # the network's steps are counted, not the fit's
    assert order.calls == ["begin", "step 12", "epoch 0 loss", "end epochs 1"]


def test_step_callbacks_hear_each_steps_loss() -> None:
    net, by_hand = network(), network()
    each = Every(1)
    net.fit(X, Y, epochs=4, batch_size=None, callbacks=[each])
    assert each.seen == [(n + 1, by_hand.partial_fit(X, Y)) for n in range(4)]


def test_callbacks_stop_a_fit_and_it_goes_on() -> None:
    net = network()
    history = net.fit(X, Y, epochs=9, callbacks=[Every(1, last=13)])
    assert (history.stopped, net.steps, net.epochs, len(history)) == ("callback", 13, 2, 2)
    history = net.fit(X, Y, epochs=9, callbacks=[lambda epoch, logs, n: epoch == 1])
    assert (history.stopped, net.steps, net.epochs, len(history)) == ("callback", 23, 4, 2)

    def stop(epoch: int, logs: Mapping[str, float], n: lamella.Network) -> None:
        raise StopTraining

    history = net.fit(X, Y, epochs=9, callbacks=[stop])
    assert (history.stopped, len(history)) == ("callback", 1)

    def fail(epoch: int, logs: Mapping[str, float], n: lamella.Network) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        net.fit(X, Y, epochs=9, callbacks=[fail])
    assert net.epochs == 6
    assert np.isfinite(net.fit(X, Y).loss).all()


def test_callbacks_may_change_the_parameters() -> None:
    net = network()

    def zero(epoch: int, logs: Mapping[str, float], n: lamella.Network) -> None:
        n.parameters = {name: 0 * value for name, value in n.parameters.items()}

    history = net.fit(X, Y, epochs=3, batch_size=None, callbacks=[zero])
    assert history.loss[1] == pytest.approx(np.log(3))


# --- time, progress, interrupts ---


def test_a_time_limit_ends_a_fit_in_time() -> None:
    net = network()
    began = time.perf_counter()
    history = net.fit(X, Y, epochs=10**12, time_limit=0.2)
    assert 0.2 <= time.perf_counter() - began < 2  # on a busy machine
    assert history.stopped == "time_limit"
    assert len(history) == net.epochs > 0
    steps = net.steps
    assert net.fit(X, Y, epochs=1).stopped == "epochs"
    assert net.steps == steps + 5
    # Within an epoch, and with a schedule, whose rates are not all made ahead.
    rows = np.tile(X, (4000, 1)).astype("f")
    history = net.fit(rows, np.tile(Y, 4000), epochs=10**12, time_limit=0.2, batch_size=8,
                      learning_rate=lambda t: 1e-3)  # fmt: skip
    assert history.stopped == "time_limit"
    assert len(history) == 0
    assert net.steps > steps + 5


def test_a_bar_shows_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    network().fit(X, Y, epochs=3, progress=True, **HELD)
    text = capsys.readouterr().err
    assert "15/15" in text
    for part in ("loss=", "val_accuracy=", "steps/s"):
        assert part in text
    heard: list[int] = []
    network().fit(X, Y, epochs=3, progress=lambda epoch, loss: heard.append(epoch), **HELD)
    assert heard == [0, 1, 2]
    network().fit(X, Y, epochs=3, **HELD)
    network().fit(X, Y, epochs=3, progress=False)
    assert capsys.readouterr().err == ""


def test_a_bar_without_tqdm_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ModuleNotFoundError, match=r"^progress: .*tqdm"):
        network().fit(X, Y, progress=True)


def test_an_interrupt_between_steps_leaves_a_usable_network() -> None:
    net = network()

    def interrupt(epoch: int, logs: Mapping[str, float], n: lamella.Network) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=3, callbacks=[interrupt])
    plain = network()
    plain.fit(X, Y, epochs=3)
    net.fit(X, Y, epochs=2)
    same(net, plain)


# --- the finder ---


def test_the_finder_leaves_the_network_as_it_is() -> None:
    net, untouched = network(), network()
    net.fit(X, Y, epochs=2)
    untouched.fit(X, Y, epochs=2)
    search = net.find_learning_rate(X, Y)
    assert (net.steps, net.epochs) == (10, 2)
    same(net, untouched)
    net.fit(X, Y)
    untouched.fit(X, Y)
    same(net, untouched)
    assert search.rates.shape == search.losses.shape == search.smoothed.shape
    assert search.rates[0] == pytest.approx(1e-7)
    np.testing.assert_allclose(search.rates[1:] / search.rates[:-1], 1e8 ** (1 / 99), rtol=1e-12)
    again = net.find_learning_rate(X, Y, threads=2)
    assert again.suggestion is not None


def test_the_finders_suggestion_trains() -> None:
    net = network()
    search = net.find_learning_rate(X, Y, steps=60)
    assert search.suggestion is not None
    assert 1e-4 < search.suggestion < 1
    before = net.evaluate(X, Y)["loss"]
    net.fit(X, Y, epochs=10, learning_rate=search.suggestion)
    assert net.evaluate(X, Y)["loss"] < 0.5 * before
    # A loss that leaves the numbers ends the search.
    steep = network("identity", 1).find_learning_rate(
        1e4 * X, X[:, 0], optimizer="sgd", high=1e6, steps=200
    )
    assert len(steep.rates) < 200


@pytest.mark.parametrize("offset", [0.0, -1.0, -10.0])
def test_the_finder_takes_losses_below_zero(offset: float) -> None:
    """An offset changes no gradient, so it should not end the search."""

    def shifted(z: Array, y: Array) -> tuple[float, Array]:
        error = z[:, 0] - y
        return float(np.mean(error**2)) / 2 + offset, error[:, None] / len(y)

    net = lamella.Network([X.shape[1], 16, 1], loss=shifted)
    net.fit(X, X[:, 0], epochs=20)
    search = net.find_learning_rate(X, X[:, 0], steps=60)
    assert len(search.rates) > 30
    assert search.suggestion is not None


# --- losses in Python ---


def likelihood(z: Array, y: Array) -> tuple[float, Array]:
    """Return a Gaussian's, of mean and logarithm of the variance: two outputs for one target."""
    precise, error = np.exp(-z[:, 1]), z[:, 0] - y
    gradient = np.stack([precise * error, 0.5 - 0.5 * precise * error**2], axis=1)
    return float(np.mean(0.5 * (precise * error**2 + z[:, 1]))), gradient / len(y)


def test_targets_of_a_loss_in_python_need_not_be_answers() -> None:
    net = lamella.Network([X.shape[1], 8, 2], loss=likelihood)
    options: dict[str, Any] = {"epochs": 2, "validation_fraction": 0.2}
    assert set(net.fit(X, X[:, 0], **options).metrics) == {"val_loss"}
    with pytest.raises(ValueError, match=r"^metrics: expected functions, or targets of numbers"):
        net.fit(X, X[:, 0], metrics=["r2"], **options)
    assert net.epochs == 2  # before any work

    def error(y: Array, answers: Array) -> float:
        return float(np.mean((y - answers[:, 0]) ** 2))

    assert "val_error" in net.fit(X, X[:, 0], metrics=[error], **options).metrics


# --- errors ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_data": (X, Y), "validation_fraction": 0.1}, "validation_fraction"),
        ({"validation_data": X}, "validation_data"),
        ({"validation_data": (X[:, :3], Y)}, "validation_data: X"),
        ({"validation_data": (X, Y[:9])}, "validation_data: y"),
        ({"validation_data": (X * np.nan, Y)}, "validation_data: X"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"validation_fraction": 0.999}, "validation_fraction"),
        ({"metrics": "accuracy"}, "metrics"),
        ({"metrics": ["r2"]}, "metrics"),
        ({"metrics": ["accuracy", "accuracy"]}, "metrics"),
        ({"metrics": [3]}, "metrics"),
        ({"early_stopping": True}, "monitor"),
        ({"early_stopping": 3}, "early_stopping"),
        ({"early_stopping": EarlyStopping("val_accuracy")}, "monitor"),
        ({"early_stopping": EarlyStopping("f"), "metrics": [Metric(max, "f")]}, "mode"),
        ({"callbacks": Every(1)}, "callbacks"),
        ({"callbacks": [3]}, "callbacks"),
        ({"callbacks": [Every]}, "callbacks"),
        ({"callbacks": [Every(0)]}, "every"),
        ({"time_limit": 0}, "time_limit"),
        ({"time_limit": "1 h"}, "time_limit"),
        ({"progress": 3}, "progress"),
        ({"learning_rate": ReduceOnPlateau(monitor="val_loss")}, "monitor"),
    ],
)
def test_bad_arguments_are_refused_before_work_starts(
    options: dict[str, Any], message: str
) -> None:
    net, untouched = network(), network()
    with pytest.raises((ValueError, TypeError), match=rf"^{message}: "):
        net.fit(X, Y, **options)
    assert net.steps == 0
    same(net, untouched)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience"),
        ({"min_delta": -1.0}, "min_delta"),
        ({"mode": "least"}, "mode"),
        ({"monitor": 3}, "monitor"),
        ({"restore_best": 1}, "restore_best"),
    ],
)
def test_bad_stopping_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{message}: "):
        EarlyStopping(**arguments)


def test_a_metric_that_is_no_number_is_named() -> None:
    with pytest.raises(TypeError, match=r"^metrics: .*nothing"):
        network().fit(X, Y, metrics=[Metric(lambda y, p: None, "nothing")])


def test_bad_stretches_are_refused_by_the_core() -> None:
    net = network()
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": ("sgd", {"learning_rate": 0.1, "momentum": 0.0, "nesterov": 0.0}),
        "penalty": (0.0, 0.0, False),
        "clip_value": None,
        "loss_scale": 1.0,
        "loss": None,
        "weights": None,
        "shuffle": True,
        "seed": 0,
        "threads": None,
        "report": None,
        "report_every": 0,
    }
    for bad, message in (
        ({"begin": (3, 0.0, 0.0)}, "begin"),
        ({"begin": (160, 0.0, 0.0)}, "begin"),
        ({"steps": 0}, "steps"),
        ({"seconds": -1.0}, "seconds"),
        ({"seconds": np.nan}, "seconds"),
        ({"rates": np.ones(19)}, "rates"),
        ({"rates": np.ones(5), "steps": 6}, "rates"),
        ({"rates": np.full(20, np.nan)}, "learning_rate"),
    ):
        with pytest.raises(ValueError, match=rf"^{message}: "):
            net._net.fit(X, Y, **(settings | bad))
        assert net.steps == 0
    bad_rows = np.where(X[3, 1] == X, np.nan, X)
    with pytest.raises(lamella.DivergenceError):
        net._net.fit(bad_rows, Y, checked=True, **settings)
    net._net.fit(X, Y, rates=np.full(20, 0.1), seconds=1e300, **settings)
    assert net.steps >= 20


def test_scikit_learns_functions_are_metrics() -> None:
    sklearn: ModuleType = pytest.importorskip("sklearn.metrics")
    history = network().fit(X, Y, epochs=2, metrics=["accuracy", sklearn.matthews_corrcoef], **HELD)
    assert np.abs(history.metrics["val_matthews_corrcoef"]).max() <= 1


def test_a_schedule_and_everything_else_work_together() -> None:
    whole, cut = network(), network()
    whole.fit(X, Y, epochs=8, learning_rate=Cosine(0.02, total=40))
    history = cut.fit(
        X,
        Y,
        epochs=8,
        learning_rate=Cosine(0.02, total=40),
        time_limit=1e6,
        threads=2,
        callbacks=[Every(3)],
        metrics=["accuracy"],
        **HELD,
    )
    same(whole, cut)
    assert list(history.metrics) == ["val_loss", "val_accuracy", "learning_rate"]
