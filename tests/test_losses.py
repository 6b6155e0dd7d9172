"""Losses and weights: the core equals the reference, PyTorch's numbers and central differences."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import Array, agree, difference, start

import lamella
from lamella import _core, losses, reference
from lamella.weights import weights

CASES: list[tuple[Any, str, int]] = [
    (lamella.BinaryCrossEntropy(), "sigmoid", 1),
    (lamella.BinaryCrossEntropy(label_smoothing=0.1), "sigmoid", 1),
    (lamella.BinaryCrossEntropy(0.2, positive_weight=[0.5, 2.0, 1.5]), "sigmoid", 3),
    (lamella.CrossEntropy(label_smoothing=0.1), "softmax", 4),
    (lamella.Focal(), "sigmoid", 1),
    (lamella.Focal(gamma=0.5, alpha=0.25), "sigmoid", 3),
    (lamella.Focal(gamma=1.5), "softmax", 4),
    (lamella.Focal(gamma=2.0, alpha=[0.5, 1.0, 2.0]), "softmax", 3),
    (lamella.Hinge(), "identity", 1),
    (lamella.Hinge(multilabel=True), "identity", 3),
    (lamella.Hinge(), "identity", 4),
    (lamella.SquaredHinge(), "identity", 1),
    (lamella.SquaredHinge(multilabel=True), "identity", 35),
    (lamella.SquaredHinge(), "identity", 4),
    (lamella.MeanSquaredError(), "identity", 2),
    (lamella.MeanAbsoluteError(), "identity", 2),
    (lamella.Huber(), "identity", 1),
    (lamella.Huber(delta=0.3), "identity", 2),
    (lamella.Poisson(), "exponential", 1),
    (lamella.Poisson(), "exponential", 2),
    (lamella.Quantile(), "identity", 1),
    (lamella.Quantile(quantiles=[0.1, 0.5, 0.9]), "identity", 3),
    (lamella.Quantile(quantiles=(0.25, 0.75)), "identity", 4),
]
EACH = pytest.mark.parametrize(("loss", "output", "n"), CASES, ids=repr)


def targets(loss: Any, output: str, n: int, m: int) -> Array:
    """Return targets (m, columns) or (m,) that fit."""
    rng = np.random.default_rng(3)
    task = loss.task(output, n)
    if task.targets == "classes":
        return rng.integers(0, n, m)
    if task.targets == "bits":
        return rng.integers(0, 2, (m, n))
    if task.targets == "counts":
        return rng.poisson(2.0, (m, n))
    return rng.standard_normal((m, task.columns))


def network(loss: Any, output: str, n: int, **options: Any) -> lamella.Network:
    """Return a float64 network with biases that are not zero."""
    settings = {"hidden": "tanh", "dtype": "float64", "seed": 3, **options}
    net = lamella.Network([6, 19, n], output=output, loss=loss, **settings)
    net.parameters = start([6, 19, n], 4)
    return net


def columns(net: lamella.Network) -> dict[str, Array]:
    """Return the parameters as the reference has them."""
    return {k: v[:, None] if k[0] == "b" else v for k, v in net.parameters.items()}


@EACH
@pytest.mark.parametrize("weighted", [False, True])
def test_training_equals_the_reference(loss: Any, output: str, n: int, weighted: bool) -> None:
    m = 70
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((m, 6)), targets(loss, output, n, m)
    w = rng.random(m) * (rng.random(m) > 0.3) if weighted else None
    net = network(loss, output, n, l2=0.01)
    history = net.fit(X, y, epochs=4, batch_size=32, learning_rate=0.003, sample_weight=w)
    theirs, expected = reference.fit(
        start([6, 19, n], 4),
        X.T,
        y.T,
        epochs=4,
        batch_size=32,
        optimizer="adam",
        learning_rate=0.003,
        hidden="tanh",
        output=output,
        loss=loss,
        loss_scale=loss.task(output, n).scale,
        sample_weight=w,
        seed=3,
        l2=0.01,
    )
    assert difference(history.loss, expected) <= 1e-10
    agree(columns(net), theirs, 1e-10)


@EACH
def test_gradients_equal_central_differences(loss: Any, output: str, n: int) -> None:
    rng = np.random.default_rng(6)
    X, y, w = rng.standard_normal((9, 6)), targets(loss, output, n, 9), rng.random(9)
    net = network(loss, output, n)
    _, gradients = net.loss_and_gradients(X, y, sample_weight=w)
    begin = net.parameters
    for name in ("W1", "b2"):
        flat, gradient = begin[name].ravel(), gradients[f"d{name}"].ravel()
        for i in range(0, len(flat), 7):
            cost = []
            for step in (1e-6, -1e-6):
                changed = {k: v.copy() for k, v in begin.items()}
                changed[name].ravel()[i] += step
                net.parameters = changed
                cost.append(net.evaluate(X, y, sample_weight=w)["loss"])
            assert gradient[i] == pytest.approx((cost[0] - cost[1]) / 2e-6, rel=1e-6, abs=1e-8)


TORCH: list[tuple[str, Any, str, str, str | None]] = [
    ("cross_entropy", "cross_entropy", "softmax", "classes", None),
    ("cross_entropy_smoothing.1", lamella.CrossEntropy(0.1), "softmax", "classes", None),
    (
        "cross_entropy_sample_weight_over_sum_of_weights",
        None,
        "softmax",
        "classes",
        "sample_weight",
    ),
    ("cross_entropy_class_weight_normalised", None, "softmax", "classes", "class_weight"),
    ("bce_mean_over_samples_and_labels", None, "sigmoid", "multilabel", None),
    ("bce_pos_weight_is_class_weight", "positive", "sigmoid", "multilabel", None),
    ("mse", "mean_squared_error", "identity", "targets", None),
    ("mae", "mean_absolute_error", "identity", "targets", None),
    ("huber_delta1", "huber", "identity", "targets", None),
    ("huber_delta2.5", lamella.Huber(2.5), "identity", "targets", None),
    ("poisson_log_input", "poisson", "exponential", "counts", None),
    ("multi_margin", "hinge", "identity", "classes", None),
    ("quantile.9", lamella.Quantile(0.9), "identity", "targets", None),
    ("focal_gamma2_alpha.25", lamella.Focal(2.0, 0.25), "sigmoid", "multilabel", None),
]


@pytest.mark.parametrize(("key", "loss", "output", "y", "weight"), TORCH)
def test_losses_and_gradients_equal_pytorch(
    key: str, loss: Any, output: str, y: str, weight: str | None, torch: dict[str, Array]
) -> None:
    Z, n = torch["loss/logits"], 5
    if loss == "positive":
        loss = lamella.BinaryCrossEntropy(positive_weight=torch["loss/class_weight"])
    # With the identity as the one layer's weights, its input is its logits; and with the
    # samples as inputs, every sample's gradient stands in a column of dW.
    options: dict[str, Any] = {}
    if weight == "class_weight":
        options[weight] = dict(enumerate(torch["loss/class_weight"]))
    elif weight:
        options[weight] = torch[f"loss/{weight}"]
    m = len(Z)
    net = lamella.Network([m, n], output=output, loss=loss, dtype="float64")
    net.parameters = {"W1": Z.T.copy(), "b1": np.zeros(n)}
    value, gradients = net.loss_and_gradients(np.eye(m), torch[f"loss/{y}"], **options)
    assert value == pytest.approx(float(torch[f"loss/{key}"]), rel=1e-12)
    assert difference(gradients["dW1"].T, torch[f"loss/d{key}"]) <= 1e-12
    assert net.evaluate(np.eye(m), torch[f"loss/{y}"], **options)["loss"] == pytest.approx(value)
    if key == "quantile.9":
        # One target of two quantiles is the mean of two losses of one quantile.
        ours = lamella.Network([m, 10], loss=lamella.Quantile([0.9, 0.1]), dtype="float64")
        ours.parameters = {"W1": np.repeat(Z.T, 2, axis=0), "b1": np.zeros(10)}
        low = lamella.Network([m, n], loss=lamella.Quantile(0.1), dtype="float64")
        low.parameters = net.parameters
        other = low.loss_and_gradients(np.eye(m), torch[f"loss/{y}"])[0]
        both = ours.loss_and_gradients(np.eye(m), torch[f"loss/{y}"])[0]
        assert both == pytest.approx((value + other) / 2, rel=1e-14)
        assert ours.predict(np.eye(m)).shape == (m, 5, 2)


# --- weights ---------------------------------------------------------------------------------


@EACH
def test_whole_weights_are_repeated_rows(loss: Any, output: str, n: int) -> None:
    rng = np.random.default_rng(7)
    X, y, w = rng.standard_normal((40, 6)), targets(loss, output, n, 40), rng.integers(0, 4, 40)
    weighted, repeated = network(loss, output, n), network(loss, output, n)
    one, gradients = weighted.loss_and_gradients(X, y, sample_weight=w)
    rows = np.repeat(np.arange(40), w)
    two, expected = repeated.loss_and_gradients(X[rows], y[rows])
    assert one == pytest.approx(two, rel=1e-12)
    agree(gradients, expected, 1e-12)
    ours, theirs = weighted.evaluate(X, y, sample_weight=w), repeated.evaluate(X[rows], y[rows])
    assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("rows", [50, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_one_change_no_bit(rows: int, dtype: str) -> None:
    rng = np.random.default_rng(8)
    X, y = rng.standard_normal((rows, 6)), rng.integers(0, 3, rows)
    options: dict[str, Any] = {"output": "softmax", "dtype": dtype, "l2": 1e-3}
    for size, epochs in ((7, 2), (None, 3)):
        plain, weighted = (lamella.Network([6, 19, 3], **options) for _ in range(2))
        fit: dict[str, Any] = {"epochs": epochs, "batch_size": size}
        one = plain.fit(X, y, **fit)
        two = weighted.fit(X, y, **fit, sample_weight=np.ones(rows, int), class_weight={1: 1})
        assert one.loss.tolist() == two.loss.tolist()
        for name, value in plain.parameters.items():
            assert (value == weighted.parameters[name]).all(), name


def test_class_weights_are_sample_weights() -> None:
    rng = np.random.default_rng(9)
    X, y = rng.standard_normal((30, 6)), np.minimum(rng.integers(0, 5, 30), 2)
    net = network(None, "softmax", 4)
    w = rng.random(30)
    counts = np.bincount(y)
    balanced = (30 / (3 * counts))[y]
    for class_weight, each in (
        ({0: 2.0, 2: 0.5}, np.array([2.0, 1, 0.5])[y]),
        ("balanced", balanced),
    ):
        expected = net.loss_and_gradients(X, y, sample_weight=w * each)
        value, gradients = net.loss_and_gradients(
            X, np.eye(4)[y], sample_weight=w, class_weight=class_weight
        )
        assert value == expected[0]
        agree(gradients, expected[1], 0.0)
        evaluated = net.evaluate(X, y, class_weight=class_weight)
        assert evaluated == net.evaluate(X, y, sample_weight=each)
    binary = network(lamella.Hinge(), "identity", 1)
    bits = y > 0
    loss = binary.partial_fit(X, bits, sample_weight=np.where(bits, 3.0, 1.0))
    again = network(lamella.Hinge(), "identity", 1)
    assert again.partial_fit(X, bits, class_weight={True: 3.0}) == loss


def test_a_batch_that_counts_nothing_has_no_gradient() -> None:
    rng = np.random.default_rng(10)
    X, y = rng.standard_normal((20, 6)), rng.integers(0, 3, 20)
    net = network(None, "softmax", 3, l2=0.5)
    before = net.parameters
    penalty = 0.25 * sum((v**2).sum() for k, v in before.items() if k[0] == "W")
    assert net.partial_fit(X, y, optimizer=lamella.SGD(0.0), sample_weight=np.zeros(20)) == (
        pytest.approx(penalty, rel=1e-12)
    )
    plain = network(None, "softmax", 3)
    history = plain.fit(X, y, optimizer="sgd", batch_size=8, sample_weight=np.zeros(20), epochs=2)
    assert history.loss.tolist() == [0, 0]
    for name, value in before.items():
        assert (plain.parameters[name] == value).all()
    # The epoch's loss is that of the rows that count: here of the second batch alone.
    w = np.r_[np.zeros(10), np.ones(10)]
    expected = plain.evaluate(X[10:], y[10:])["loss"]
    options: dict[str, Any] = {"optimizer": lamella.SGD(0.0), "shuffle": False, "batch_size": 10}
    assert plain.fit(X, y, sample_weight=w, **options).loss[0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e250])
def test_what_all_weights_are_multiplied_by_does_not_matter(scale: float) -> None:
    rng = np.random.default_rng(11)
    X, y, w = rng.standard_normal((30, 6)), rng.integers(0, 3, 30), rng.random(30) + 0.1
    for dtype, bound in (("float32", 1e-6), ("float64", 1e-13)):
        net = network(None, "softmax", 3, dtype=dtype)
        value, gradients = net.loss_and_gradients(X, y, sample_weight=w)
        other, others = net.loss_and_gradients(X, y, sample_weight=w * scale)
        assert other == pytest.approx(value, rel=1e-13)
        agree(others, gradients, bound)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(9)}, r"^sample_weight: expected shape \(10,\), got \(9,\)"),
        ({"sample_weight": np.ones((10, 1))}, "^sample_weight: expected shape"),
        ({"sample_weight": -np.ones(10)}, "^sample_weight: expected numbers of at least 0"),
        ({"sample_weight": [np.nan] * 10}, "^sample_weight: expected finite"),
        ({"sample_weight": [1e300] * 10}, "^sample_weight: expected a sum"),
        ({"sample_weight": ["a"] * 10}, "^sample_weight: "),
        ({"class_weight": "even"}, "^class_weight: "),
        ({"class_weight": {3: 1.0}}, "^class_weight: expected classes from 0 to 2, got 3"),
        ({"class_weight": {0: -1.0}}, r"^class_weight\[0\]: "),
        ({"class_weight": [1, 2, 3]}, "^class_weight: "),
    ],
)
def test_wrong_weights_are_refused(options: dict[str, Any], message: str) -> None:
    X, y = np.zeros((10, 6)), np.arange(10) % 3
    net = network(None, "softmax", 3)
    for call in (net.fit, net.partial_fit, net.evaluate, net.loss_and_gradients):
        with pytest.raises((TypeError, ValueError), match=message):
            call(X, y, **options)
    assert net.steps == 0


@pytest.mark.parametrize(
    "class_weight",
    [
        "balanced",
        [{0: 1.0, 1: 3.0}, {1: 0.25}, {}],
        [{0: 2.0}, "balanced", {True: 0.0}],
        ({1: 5.0}, None, None),
    ],
    ids=str,
)
def test_class_weights_of_several_labels_are_scikit_learns(class_weight: Any) -> None:
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_sample_weight
    rng = np.random.default_rng(12)
    X, y = rng.standard_normal((60, 6)), rng.integers(0, 2, (60, 3))
    y[:, 2] = rng.random(60) < 0.2
    w, task = rng.random(60), network(None, "sigmoid", 3)._task
    given = class_weight
    if not isinstance(class_weight, str):  # scikit-learn wants all classes named here
        given = [one if isinstance(one, str) else {0: 1.0, 1: 1.0} | (one or {}) for one in given]
    expected = compute(given, y)
    assert (weights(None, class_weight, y, task) == expected).all()
    # And in training, where they are multiplied with those of the samples.
    one, two = network(None, "sigmoid", 3), network(None, "sigmoid", 3)
    losses = one.fit(X, y, epochs=3, sample_weight=w, class_weight=class_weight).loss
    assert (losses == two.fit(X, y, epochs=3, sample_weight=w * expected).loss).all()
    assert one.evaluate(X, y, class_weight=class_weight) == two.evaluate(
        X, y, sample_weight=expected
    )


def test_class_weights_need_classes() -> None:
    X = np.zeros((10, 6))
    with pytest.raises(ValueError, match=r"^class_weight: "):
        network(None, "identity", 1).fit(X, np.zeros(10), class_weight="balanced")
    with pytest.raises(ValueError, match=r"^class_weight: .*positive_weight"):
        network(None, "sigmoid", 2).fit(X, np.zeros((10, 2)), class_weight={0: 1.0})
    several = network(None, "sigmoid", 2)
    bits = np.zeros((10, 2), int)
    for given, message in (
        ([{}], "^class_weight: expected 2 dicts, one a label, got 1"),
        ([{}, {2: 1.0}], r"^class_weight\[1\]: expected classes from 0 to 1, got 2"),
        ([{}, {1: -1.0}], r"^class_weight\[1\]\[1\]: expected a number of at least 0"),
        ([3, {}], r"^class_weight\[0\]: expected a dict"),
        (3, "^class_weight: expected a list of dicts, got 3"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            several.fit(X, bits, class_weight=given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^class_weight\[1\]: .*one batch"):
        several.partial_fit(X, bits, class_weight=[{}, "balanced"])
    with pytest.raises(ValueError, match=r"^class_weight: .*one batch"):
        network(None, "softmax", 3).partial_fit(X, np.arange(10) % 3, class_weight="balanced")
    with pytest.raises(ValueError, match=r"^sample_weight: expected a weight above 0"):
        network(None, "softmax", 3).evaluate(X, np.arange(10) % 3, sample_weight=np.zeros(10))


# --- answers and arguments -------------------------------------------------------------------


def test_hinges_answer_with_classes() -> None:
    rng = np.random.default_rng(12)
    X = rng.standard_normal((200, 6))
    for loss in ("hinge", "squared_hinge"):
        net = network(loss, "identity", 3)
        y = np.argmax(X[:, :3], axis=1)
        net.fit(X, y, epochs=30, learning_rate=0.01)
        logits = net.decision_function(X)
        assert (net.predict(X) == np.argmax(logits, axis=1)).all()
        assert net.evaluate(X, y)["accuracy"] == np.mean(net.predict(X) == y) > 0.9
        binary = network(loss, "identity", 1)
        bits = X[:, 0] > 0
        binary.fit(X, bits, epochs=30, learning_rate=0.01)
        assert (binary.predict(X) == (binary.decision_function(X)[:, 0] > 0)).all()
        assert binary.evaluate(X, bits)["accuracy"] == np.mean(binary.predict(X) == bits) > 0.9
        with pytest.raises(ValueError, match=r"^output: "):
            binary.predict_proba(X)


def test_quantiles_enclose_what_they_say() -> None:
    rng = np.random.default_rng(13)
    X = rng.random((2000, 1))
    y = X[:, 0] + (0.1 + X[:, 0]) * rng.standard_normal(2000)
    net = lamella.Network([1, 32, 3], loss=lamella.Quantile([0.1, 0.5, 0.9]))
    net.fit(X, y, epochs=30, learning_rate=0.01)
    answers = net.predict(X)
    assert answers.shape == (2000, 3)
    below = np.mean(y[:, None] < answers, axis=0)
    assert np.abs(below - [0.1, 0.5, 0.9]).max() < 0.04
    assert list(net.evaluate(X, y)) == ["loss"]


def test_poisson_predicts_means() -> None:
    rng = np.random.default_rng(14)
    X = rng.random((2000, 2))
    y = rng.poisson(np.exp(1 + X[:, 0]))
    net = lamella.Network([2, 16, 1], output="exponential")
    assert net.loss == "poisson"
    net.fit(X, y, epochs=40, learning_rate=0.01)
    mean = net.predict(X)
    assert (mean > 0).all()
    assert np.abs(np.log(mean) - 1 - X[:, 0]).mean() < 0.1
    np.testing.assert_allclose(np.log(mean), net.decision_function(X)[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"^y: expected numbers of at least 0, got -1"):
        net.fit(X, -np.ones(2000))
    with pytest.raises(ValueError, match=r"^output: "):
        net.predict_proba(X)


@pytest.mark.parametrize(
    ("loss", "output", "n", "message"),
    [
        ("huber", "softmax", 3, "^loss: expected one of cross_entropy, focal for output softmax"),
        ("poisson", "identity", 1, "^loss: "),
        ("cross_entropy", "sigmoid", 1, "^loss: "),
        ("log_cosh", "identity", 1, "^loss: expected one of binary_cross_entropy"),
        (lamella.Focal(alpha=[0.5, 0.5]), "sigmoid", 2, "^loss.alpha: "),
        (lamella.Focal(alpha=2.0), "sigmoid", 1, "^loss.alpha: "),
        (lamella.Focal(alpha=[0.5, 0.5]), "softmax", 3, "^loss.alpha: expected 3 numbers"),
        (lamella.BinaryCrossEntropy(positive_weight=[1.0]), "sigmoid", 2, "^loss.positive_weight"),
        (lamella.Quantile([0.1, 0.9]), "identity", 3, "^loss: expected a multiple of 2"),
        (3, "identity", 1, "^loss: "),
    ],
)
def test_losses_that_do_not_fit_are_refused(loss: Any, output: str, n: int, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        lamella.Network([4, n], output=output, loss=loss)


def test_wrong_settings_are_refused() -> None:
    for make in (
        lambda: lamella.CrossEntropy(1.0),
        lambda: lamella.BinaryCrossEntropy(-0.1),
        lambda: lamella.BinaryCrossEntropy(positive_weight=-1.0),
        lambda: lamella.Focal(gamma=-1.0),
        lambda: lamella.Focal(gamma="2"),  # type: ignore[arg-type]
        lambda: lamella.Huber(0.0),
        lambda: lamella.Quantile([0.0]),
        lambda: lamella.Quantile(1.0),
        lambda: lamella.Quantile([]),
        lambda: lamella.Hinge(1),  # type: ignore[arg-type]
    ):
        with pytest.raises((TypeError, ValueError)):
            make()


def test_losses_are_values() -> None:
    for loss in losses.BY_NAME.values():
        assert pickle.loads(pickle.dumps(loss)) == loss == replace(loss)
        assert hash(loss) == hash(replace(loss))
    assert lamella.Quantile([0.1, 0.9]) == lamella.Quantile(np.array([0.1, 0.9]))
    net = network(lamella.Huber(0.5), "identity", 2)
    copy = pickle.loads(pickle.dumps(net))
    assert copy.criterion == lamella.Huber(0.5)
    assert copy.loss == "huber"
    X, y = np.ones((4, 6)), np.ones((4, 2))
    assert copy.evaluate(X, y) == net.evaluate(X, y)


# --- the same bits ---------------------------------------------------------------------------

SCRIPT = """
import hashlib, sys
import numpy as np
import lamella
from test_losses import CASES, targets
digest = hashlib.sha256()
for loss, output, n in CASES:
    for m, size in ((37, 11), (2500, None)):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((m, 7)).astype("f"), targets(loss, output, n, m)
        options = {"batch_size": size, "threads": int(sys.argv[1]), "sample_weight": rng.random(m)}
        net = lamella.Network([7, 33, n], hidden="tanh", output=output, loss=loss)
        history = net.fit(X, y, epochs=2, **options)
        digest.update(history.loss.tobytes())
        for value in net.parameters.values():
            digest.update(value.tobytes())
        digest.update(np.ascontiguousarray(net.predict(X)).tobytes())
print(digest.hexdigest())
"""


def digest(isa: str, threads: int) -> str:
    """Train with every loss in a process of its own; return a hash of all results."""
    environment = {**os.environ, "LAMELLA_ISA": isa, "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", SCRIPT, str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_bits_depend_on_neither_threads_nor_instructions() -> None:
    expected = digest("scalar", 1)
    for isa, threads in (("avx512", 1), ("avx512", 3), ("avx2", 2), ("portable", 2)):
        if isa in _core.info()["available"]:
            assert digest(isa, threads) == expected, (isa, threads)


# --- losses in Python ------------------------------------------------------------------------


def mean_squares(logits: Array, y: Array) -> tuple[float, Array]:
    """Return the batch's mean squared error and its gradient."""
    d = logits - y
    return float(np.mean(d**2)), 2 * d / d.size


def each_square(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return the rows' mean squared errors and the gradient of each."""
    d = logits - y
    return np.mean(d**2, axis=1), 2 * d / d.shape[1]


@pytest.mark.parametrize("function", [mean_squares, each_square])
@pytest.mark.parametrize(("rows", "size"), [(70, 32), (70, None), (3000, None), (9001, None)])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_function_trains_as_the_core_does(
    function: Any, rows: int, size: int | None, threads: int
) -> None:
    rng = np.random.default_rng(15)
    X, y = rng.standard_normal((rows, 6)), rng.standard_normal((rows, 3))
    ours, core = network(function, "identity", 3, l2=0.1), network(None, "identity", 3, l2=0.1)
    assert ours.loss == function.__name__
    options: dict[str, Any] = {"epochs": 3, "batch_size": size}
    one = ours.fit(X, y, threads=threads, **options)
    two = core.fit(X, y, **options)
    assert difference(one.loss, two.loss) <= 1e-12
    agree(ours.parameters, core.parameters, 1e-10)
    assert (ours.steps, ours.epochs) == (core.steps, core.epochs)
    value, gradients = ours.loss_and_gradients(X, y, threads=threads)
    expected, theirs = core.loss_and_gradients(X, y)
    assert value == pytest.approx(expected, rel=1e-9)
    agree(gradients, theirs, 1e-9)
    assert ours.evaluate(X, y)["loss"] == pytest.approx(core.evaluate(X, y)["loss"], rel=1e-9)
    assert ours.partial_fit(X, y) == pytest.approx(core.partial_fit(X, y), rel=1e-9)
    assert (ours.predict(X) == ours.decision_function(X)).all()


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (70, {"norm": "batch", "bias": False, "dropout": 0.2, "residual": True}),
        (3000, {"norm": "batch", "bias": False}),
        (9001, {"norm": "layer", "dropout": 0.2}),
    ],
)
def test_a_function_couples_batches_that_are_coupled_already(
    rows: int, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(20)
    X, y = rng.standard_normal((rows, 6)), rng.standard_normal((rows, 3))
    settings: dict[str, Any] = {"hidden": "tanh", "dtype": "float64", "seed": 3, **options}
    ours = lamella.Network([6, 19, 19, 19, 3], loss=mean_squares, **settings)
    core = lamella.Network([6, 19, 19, 19, 3], **settings)
    for size, threads in ((None, 1), (32 if rows < 100 else 1000, 3)):
        one = ours.fit(X, y, epochs=2, batch_size=size, threads=threads)
        two = core.fit(X, y, epochs=2, batch_size=size)
        assert difference(one.loss, two.loss) <= 1e-11
        agree(ours.parameters, core.parameters, 1e-8)
        agree(ours.statistics, core.statistics, 1e-9)


@pytest.mark.parametrize("function", [mean_squares, each_square])
def test_a_function_trains_as_in_the_reference(function: Any) -> None:
    rng = np.random.default_rng(16)
    X, y, w = rng.standard_normal((70, 6)), rng.standard_normal((70, 3)), rng.random(70)
    weight = w if function is each_square else None
    net = network(function, "identity", 3)
    history = net.fit(X, y, epochs=4, batch_size=32, optimizer="sgd", sample_weight=weight)
    theirs, expected = reference.fit(
        start([6, 19, 3], 4), X.T, y, epochs=4, batch_size=32, optimizer="sgd", hidden="tanh",
        output="identity", loss=function, sample_weight=weight, seed=3,
    )  # fmt: skip
    assert difference(history.loss, expected) <= 1e-10
    agree(columns(net), theirs, 1e-10)


def test_a_function_has_the_same_bits_on_all_threads() -> None:
    rng = np.random.default_rng(17)
    X, y, w = rng.standard_normal((500, 6)), rng.standard_normal((500, 3)), rng.random(500)
    for dtype in ("float32", "float64"):
        nets = [network(each_square, "identity", 3, dtype=dtype) for _ in range(3)]
        for net, threads in zip(nets, (1, 2, 5), strict=True):
            net.fit(X, y, epochs=2, batch_size=200, sample_weight=w, threads=threads)
            for name, value in nets[0].parameters.items():
                assert (value == net.parameters[name]).all()


def test_a_function_sees_logits_and_any_targets() -> None:
    rng = np.random.default_rng(18)
    X = rng.standard_normal((20, 6)).astype("f")
    y = np.array([f"row {i}" for i in range(20)])
    seen: list[str] = []

    def loss(logits: Array, targets: Array) -> tuple[float, Array]:
        seen.extend(targets)
        assert logits.dtype == np.float32
        assert logits.shape == (len(targets), 3)
        wanted = other.decision_function(X[[int(t[4:]) for t in targets]])
        assert (logits == wanted).all()
        logits[:] = 7.0  # it is the function's own
        return 0.0, np.zeros((len(targets), 3))

    net = lamella.Network([6, 9, 3], output="softmax", loss=loss)
    other = lamella.Network([6, 9, 3], output="softmax")
    other.parameters = net.parameters

    net.loss_and_gradients(X, y)
    assert seen == y.tolist()
    assert net.predict(X).shape == (20,)
    np.testing.assert_array_equal(net.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda z: 1.0, TypeError, "^loss: expected a function that returns"),
        (lambda z: (1.0, z[:1]), ValueError, "^loss gradient: expected shape"),
        (lambda z: (1.0, z * np.nan), ValueError, "^loss gradient: expected finite numbers"),
        (lambda z: (1.0, z.astype(str)), TypeError, "^loss gradient: "),
        (lambda z: (np.nan, z), ValueError, "^loss value: expected finite numbers"),
        (lambda z: (z, z), ValueError, "^loss value: expected a number or shape"),
        (lambda z: ("1", z), TypeError, "^loss value: "),
        (lambda z: 1 / 0, ZeroDivisionError, "division"),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_what_a_function_does_wrong_reaches_the_caller(
    answer: Any, error: type[Exception], message: str, threads: int
) -> None:
    rng = np.random.default_rng(19)
    X, y = rng.standard_normal((90, 6)), rng.standard_normal((90, 3))
    calls = [0]

    def loss(logits: Array, targets: Array) -> Any:
        calls[0] += 1
        return mean_squares(logits, targets) if calls[0] % 5 else answer(logits)

    net, whole = network(loss, "identity", 3), network(mean_squares, "identity", 3)
    with pytest.raises(error, match=message):
        net.fit(X, y, epochs=9, batch_size=30, shuffle=False, threads=threads)
    # The model stays as the four whole steps left it, and goes on from there.
    assert net.steps == 4
    for first in (0, 30, 60, 0):
        whole.partial_fit(X[first : first + 30], y[first : first + 30])
    agree(net.parameters, whole.parameters, 0.0)
    net.fit(X, y, batch_size=30, threads=threads)
    assert net.steps == 7


def test_what_a_function_cannot_do_is_said() -> None:
    X, y = np.ones((8, 6)), np.ones((8, 3))
    net = network(mean_squares, "identity", 3)
    with pytest.raises(ValueError, match=r"^loss value: expected shape \(8,\), to weigh samples"):
        net.fit(X, y, sample_weight=np.ones(8))
    with pytest.raises(ValueError, match=r"^class_weight: "):
        net.fit(X, y, class_weight="balanced")
    with pytest.raises(ValueError, match=r"^y: expected targets of 8 samples"):
        net.fit(X, y[:7])
    far = network(mean_squares, "identity", 3, hidden="relu")
    far.parameters = {k: v * 1e200 for k, v in far.parameters.items()}
    with pytest.raises(lamella.DivergenceError, match="step 1: layer 1"):
        far.fit(X * 1e200, y, optimizer="sgd")
    again = pickle.loads(pickle.dumps(net))
    assert again.criterion is mean_squares
