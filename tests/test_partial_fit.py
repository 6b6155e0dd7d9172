"""`Network.partial_fit` is one step of `fit`: the same bits, the same checks, the same state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella

X = np.random.default_rng(0).standard_normal((40, 5))
CLASSES = np.arange(40) % 3
BITS = X[:, :1] > 0


def pair(output: str, n: int, dtype: str = "float32") -> list[lamella.Network]:
    """Return two equal networks."""
    return [lamella.Network([5, 20, n], output=output, dtype=dtype, l2=1e-3) for _ in range(2)]


def same(a: lamella.Network, b: lamella.Network) -> None:
    """Assert that two networks have the same parameters, bit by bit."""
    for name, value in a.parameters.items():
        assert (value == b.parameters[name]).all(), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["adam", "momentum", "sgd", lamella.SGD(0.1, 0.5, True)])
def test_steps_are_those_of_fit(dtype: str, optimizer: Any) -> None:
    one, other = pair("softmax", 3, dtype)
    history = one.fit(X, CLASSES, epochs=4, batch_size=None, optimizer=optimizer)
    losses = [other.partial_fit(X, CLASSES, optimizer=optimizer) for _ in range(4)]
    assert losses == history.loss.tolist()
    assert (other.steps, other.epochs) == (4, 0)
    same(one, other)


def test_batches_of_changing_sizes_and_fits_between_share_the_state() -> None:
    one, other = pair("sigmoid", 1)
    for rows in (7, 40, 1, 32):
        one.fit(X[:rows], BITS[:rows], batch_size=None)
        other.partial_fit(X[:rows], BITS[:rows], threads=2)
        one.partial_fit(X[:rows], BITS[:rows])
        other.fit(X[:rows], BITS[:rows], batch_size=None)
    same(one, other)
    assert (one.steps, one.epochs) == (8, 4)


@pytest.mark.parametrize(
    ("output", "n", "y"),
    [
        ("softmax", 3, CLASSES),
        ("sigmoid", 1, BITS),
        ("identity", 1, X[:, :1]),
        ("identity", 2, X[:, :2]),
    ],
)
def test_labels_and_rows_of_every_form_mean_the_same(output: str, n: int, y: Any) -> None:
    one, _ = pair(output, n)
    expected = one.partial_fit(X.astype("f"), y)
    forms = [y, y.tolist(), np.asfortranarray(y), y.astype("f8"), y.astype(">f8")]
    forms += [y[:, 0]] if y.shape[1:] == (1,) else []
    forms += [np.eye(3)[y], y.astype("i4"), y.astype("u1")] if output == "softmax" else []
    for form in forms:
        for rows in (X.astype("f"), X.astype("f").astype(">f4"), np.asfortranarray(X.astype("f"))):
            fresh, _ = pair(output, n)
            assert fresh.partial_fit(rows, form) == expected
            same(fresh, one)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (X[:, :3], CLASSES, {}, "^X: "),
        (X[:0], CLASSES[:0], {}, "^X: "),
        (X, CLASSES[:5], {}, "^y: "),
        (X, CLASSES + 1, {}, "^y: "),
        (X, CLASSES - 1, {}, "^y: "),
        (X, CLASSES + 0.5, {}, "^y: "),
        (np.where(X[3, 1] == X, np.nan, X), CLASSES, {}, "row 3, column 1"),
        (np.where(X[3, 1] == X, -np.inf, X).astype("f"), CLASSES, {}, "row 3, column 1"),
        (np.where(X[3, 1] == X, 1e39, X), CLASSES, {}, "within float32.*row 3, column 1"),
        (np.ma.masked_array(X), CLASSES, {}, "^X: .*mask"),
        (X.astype(str), CLASSES, {}, "^X: "),
        (X, CLASSES, {"learning_rate": -1.0}, "learning_rate"),
        (X, CLASSES, {"learning_rate": True}, "learning_rate"),
        (X, CLASSES, {"learning_rate": np.nan}, "learning_rate"),
        (X, CLASSES, {"learning_rate": []}, "learning_rate"),
        (X, CLASSES, {"optimizer": "magic"}, "optimizer"),
        (X, CLASSES, {"optimizer": []}, "optimizer"),
        (X, CLASSES, {"threads": 0}, "threads"),
    ],
)
def test_bad_arguments_are_refused_and_change_nothing(
    x: Any, y: Any, options: dict[str, Any], message: str
) -> None:
    net, untouched = pair("softmax", 3)
    net.partial_fit(X, CLASSES, learning_rate=1.0)
    untouched.partial_fit(X, CLASSES, learning_rate=1.0)
    with pytest.raises((ValueError, TypeError), match=message):
        net.partial_fit(x, y, **options)
    assert net.steps == 1
    same(net, untouched)


@pytest.mark.parametrize(
    ("output", "n", "bad"), [("sigmoid", 1, 0.5), ("sigmoid", 1, np.nan), ("identity", 2, np.inf)]
)
def test_bad_targets_are_named(output: str, n: int, bad: float) -> None:
    net, _ = pair(output, n)
    y = np.zeros((40, n), "f")
    y[4, n - 1] = bad
    with pytest.raises(ValueError, match=f"^y: .*row 4, column {n - 1}"):
        net.partial_fit(X, y)


def test_divergence_is_told() -> None:
    net, _ = pair("identity", 1)
    with pytest.raises(lamella.DivergenceError, match=r"step 1.*layer \d"):
        net.partial_fit(1e30 * X, X[:, 0])


@pytest.mark.parametrize(("output", "n"), [("softmax", 3), ("sigmoid", 1), ("sigmoid", 3)])
def test_predict_is_what_its_outputs_say(output: str, n: int) -> None:
    net, _ = pair(output, n)
    for rows in (40, 1, 17):
        probabilities = net.predict_proba(X[:rows])
        labels = net.predict(X[:rows])
        assert labels.dtype == np.int64
        if output == "softmax":
            assert (labels == probabilities.argmax(axis=1)).all()
        else:
            expected = (probabilities > 0.5).astype(int)
            assert (labels == (expected[:, 0] if n == 1 else expected)).all()
            assert labels.shape == ((rows,) if n == 1 else (rows, n))
