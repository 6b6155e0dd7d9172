"""Epochs whose orders Python draws while the core trains: `_core.Network.drawn_epochs`.

The estimators' fits are made of them. Promises the bits of one call an epoch, on any number of
threads, and that whatever a draw does wrong is an exception that leaves the network usable.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from lamella import _core

ROWS, FEATURES, UNITS, CLASSES = 230, 9, 20, 3
rng = np.random.default_rng(0)
X = rng.standard_normal((ROWS, FEATURES))
Y = rng.integers(0, CLASSES, ROWS).astype(np.int64)
ORDERS = [rng.permutation(ROWS) for _ in range(6)]
SETTINGS: dict[str, Any] = {
    "batch_size": 64,
    "alpha": 1e-3,
    "loss_scale": 1.0,
    "gradient_scale": 1.0,
    "weights": None,
}


def network() -> Any:
    layers = [
        (UNITS, "relu", 0.0, True, None, 0.0, False),
        (CLASSES, "softmax", 0.0, True, None, 0.0, False),
    ]
    net = _core.Network(FEATURES, layers, ("bounded_cross_entropy", []), "float64")
    draws = np.random.default_rng(1)
    net.set_parameters([draws.standard_normal(np.shape(a)) / 3 for a in net.get_parameters()])
    return net


def velocity(rate: float) -> tuple[str, dict[str, float]]:
    return "velocity", {"learning_rate": rate, "momentum": 0.9, "nesterov": 1.0}


def drawn(net: Any, turn: Any, threads: int | None = 1, order: Any = None, **settings: Any) -> None:
    order = ORDERS[0] if order is None else order
    settings = {**SETTINGS, "optimizer": velocity(0.1), **settings}
    net.drawn_epochs(X, Y, order, turn, epochs=6, threads=threads, **settings)


@pytest.mark.parametrize("batch_size", [64, ROWS])
@pytest.mark.parametrize("weights", [None, rng.uniform(0, 3, ROWS)], ids=["plain", "weighted"])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_one_call_has_the_bits_of_a_call_an_epoch(
    threads: int, weights: Any, batch_size: int
) -> None:
    settings = {**SETTINGS, "weights": weights, "batch_size": batch_size}
    rates = [0.1, 0.1, 0.05, 0.02, 0.02, 0.01]
    apart, wanted = network(), []
    for order, rate in zip(ORDERS, rates, strict=True):
        wanted.append(
            apart.drawn_epochs(X, Y, order, optimizer=velocity(rate), threads=threads, **settings)
        )
    at_once, losses = network(), []

    def turn(loss: float) -> Any:
        losses.append(loss)
        i = len(losses)
        return None if i == len(ORDERS) else (ORDERS[i], rates[i])

    drawn(at_once, turn, threads, weights=weights, batch_size=batch_size)
    assert losses == wanted
    assert at_once.epochs == apart.epochs == len(ORDERS)
    assert at_once.steps == apart.steps
    for a, b in zip(at_once.get_parameters(), apart.get_parameters(), strict=True):
        np.testing.assert_array_equal(a, b)


class OwnError(Exception):
    """What a draw raises."""


def fails(_: float) -> Any:
    raise OwnError("the draw")


@pytest.mark.parametrize(
    ("turn", "error", "message"),
    [
        (fails, OwnError, "the draw"),
        (lambda _: 3, TypeError, "int"),
        (lambda _: (ORDERS[1][:-1], 0.1), ValueError, f"order: expected {ROWS} rows"),
        (lambda _: (ORDERS[1] + 1, 0.1), ValueError, f"order: expected rows below {ROWS}"),
        (lambda _: (-ORDERS[1] - 1, 0.1), ValueError, "order: expected rows in"),
        (lambda _: (ORDERS[1].astype(float), 0.1), ValueError, "order: expected a vector"),
        (lambda _: (ORDERS[1], np.nan), ValueError, "learning_rate: expected"),
        (lambda _: (ORDERS[1], -1.0), ValueError, "learning_rate: expected"),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_wrong_draw_is_an_error_after_which_training_goes_on(
    turn: Any, error: type[Exception], message: str, threads: int
) -> None:
    net, alone = network(), network()
    with pytest.raises(error, match=message):
        drawn(net, turn, threads)
    alone.drawn_epochs(X, Y, ORDERS[0], optimizer=velocity(0.1), threads=1, **SETTINGS)
    assert net.epochs == 1
    drawn(net, lambda _: None, threads, ORDERS[1])
    alone.drawn_epochs(X, Y, ORDERS[1], optimizer=velocity(0.1), threads=1, **SETTINGS)
    for a, b in zip(net.get_parameters(), alone.get_parameters(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_network_is_busy_while_it_draws() -> None:
    net = network()
    with pytest.raises(RuntimeError):
        drawn(net, lambda _: net.get_parameters())


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_warning_names_the_line_that_called_fit(early_stopping: bool) -> None:
    pytest.importorskip("sklearn")
    from lamella.sklearn import MLPClassifier

    model = MLPClassifier(max_iter=2, early_stopping=early_stopping, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y)
    assert [warning.filename for warning in caught] == [__file__]
    assert "Maximum iterations (2)" in str(caught[0].message)
