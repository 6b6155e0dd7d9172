"""Options together: any network, trained in any way, equals the reference; bits stay as they are.

The other files take one option at a time, with the cases that matter to it; here hypothesis draws
networks and fits with many at once. Examples are the same in every run: over many steps some
amplify the last bits as chaos does, and a test that fails one time in a thousand says nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from conftest import Array, Arrays, difference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lamella
from lamella import BatchNorm, Dense, LayerNorm, Network, checks, losses, reference, schedules
from lamella.losses import Loss

MOST_STEPS = 12

# Not Lion, whose steps are signs of what may be rounding.
OPTIMIZERS = [
    lamella.SGD(),
    lamella.SGD(momentum=0.9),
    lamella.SGD(momentum=0.8, nesterov=True),
    # Where gradients are rounding, what divides by their size needs an epsilon above it.
    lamella.Adam(epsilon=1e-5),
    lamella.Adam(epsilon=1e-5, amsgrad=True),
    lamella.AdamW(epsilon=1e-5, weight_decay=0.1),
    lamella.NAdam(epsilon=1e-5),
    lamella.RMSprop(epsilon=1e-4),
    lamella.RMSprop(epsilon=1e-2, momentum=0.9, centered=True),
    lamella.Adagrad(epsilon=1e-4, learning_rate_decay=0.1),
    lamella.Muon(others=lamella.SGD(momentum=0.5), hidden_only=True),
]
RATES = [
    None,
    1e-3,
    schedules.Cosine(1e-2, total=9),
    schedules.Warmup(1e-2, steps=5),
    schedules.Step(1e-2, every=3),
    schedules.InverseTime(1e-2, decay=0.1),
]
LOSSES: dict[str, list[Loss | None]] = {
    "sigmoid": [
        None,
        losses.BinaryCrossEntropy(label_smoothing=0.1),
        losses.BinaryCrossEntropy(positive_weight=2.5),
        losses.Focal(gamma=1.5, alpha=0.3),
    ],
    "softmax": [None, losses.CrossEntropy(label_smoothing=0.2), losses.Focal()],
    "exponential": [None],
    "identity": [
        None,
        losses.MeanAbsoluteError(),
        losses.Huber(delta=0.7),
        losses.Hinge(multilabel=True),
        losses.SquaredHinge(multilabel=True),
        losses.Quantile((0.3,)),
    ],
}
RUNS = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass
class Case:
    """A network that is not trained yet, its data and the arguments of `fit`."""

    network: Network
    X: Array
    y: Array
    fit: dict[str, Any]


@st.composite
def layers(draw: Any, output: str) -> list[int | Dense]:
    """Return the layers of a network, each with options of its own."""
    sizes = draw(st.lists(st.one_of(st.integers(1, 40), st.just(17)), min_size=2, max_size=5))
    made: list[int | Dense] = [sizes[0]]
    for inputs, units in pairwise(sizes[:-1]):
        norm = draw(st.sampled_from([None, None, BatchNorm(momentum=0.3), LayerNorm()]))
        made.append(
            Dense(
                units,
                activation=draw(st.sampled_from([None, *checks.HIDDEN])),
                # Before batch normalisation a bias has no effect: its gradient is rounding.
                bias=not isinstance(norm, BatchNorm) and draw(st.booleans()),
                norm=norm,
                dropout=draw(st.sampled_from([None, None, 0.4])),
                residual=inputs == units and draw(st.booleans()),
                max_norm=draw(st.sampled_from([None, None, 0.7])),
            )
        )
    return [*made, max(2, sizes[-1]) if output == "softmax" else sizes[-1]]


def targets(rng: np.random.Generator, output: str, loss: Loss | None, m: int, n: int) -> Array:
    """Return what goes with an output and a loss."""
    if output == "softmax":
        return rng.integers(0, n, m)
    if output == "sigmoid" or isinstance(loss, losses.Hinge):
        return rng.integers(0, 2, m if n == 1 else (m, n))
    return rng.poisson(2, (m, n)) + 0.0 if output == "exponential" else rng.standard_normal((m, n))


@st.composite
def cases(draw: Any, dtype: str) -> Case:
    """Return a network and a fit of few steps with any options together."""
    output = draw(st.sampled_from(list(LOSSES)))
    loss = draw(st.sampled_from(LOSSES[output]))
    network = Network(
        draw(layers(output)),
        hidden=draw(st.sampled_from(checks.HIDDEN)),
        output=output,
        loss=loss,
        init="xavier",
        dtype=dtype,
        seed=draw(st.integers(0, 999)),
        l1=draw(st.sampled_from([0.0, 0.01])),
        l2=draw(st.sampled_from([0.0, 0.05])),
        decay_biases=draw(st.booleans()),
    )
    m = draw(st.one_of(st.integers(1, 70), st.integers(200, 600)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    X = rng.standard_normal((m, network.n_features))
    X *= rng.random(X.shape) < draw(st.sampled_from([1.0, 0.3]))  # few enough to be skipped
    epochs = draw(st.integers(1, 3))
    least = -(-m * epochs // MOST_STEPS)
    bounds = st.sampled_from([{}, {}, {"clip_value": 0.05}, {"clip_norm": 0.3}])
    options = {
        "epochs": epochs,
        "batch_size": draw(st.one_of(st.none(), st.integers(least, m + 2))),
        "optimizer": draw(st.sampled_from(OPTIMIZERS)),
        "learning_rate": draw(st.sampled_from(RATES)),
        "average": draw(st.sampled_from([None, 0.9])),
        "shuffle": draw(st.booleans()),
        "sample_weight": rng.random(m) + 0.1 if draw(st.booleans()) else None,
    }
    y = targets(rng, output, loss, m, network.n_outputs)
    return Case(network, X, y, options | draw(bounds))


@RUNS
@given(case=cases("float64"), threads=st.integers(1, 3))
def test_any_training_equals_the_reference(case: Case, threads: int) -> None:
    net = case.network
    statistics, averages = net.statistics, dict[str, Array]()
    expected, curve = reference.fit(
        net.parameters, case.X.T, case.y.T, layers=net.layers, statistics=statistics,
        averages=averages if case.fit["average"] else None, seed=net.seed, l1=net.l1, l2=net.l2,
        decay_biases=net.decay_biases, loss=net.criterion, loss_scale=net._task.scale, **case.fit,
    )  # fmt: skip
    history = net.fit(case.X, case.y, threads=threads, **case.fit)
    assert difference(history.loss, curve) <= 1e-8
    close(net.parameters, expected)
    close(net.statistics, statistics)
    if case.fit["average"]:
        close(net.average_parameters, averages)


def close(ours: Arrays, theirs: Arrays) -> None:
    """Assert that arrays agree, those next to 0 by what is next to 0 beside 1."""
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        bound = 1e-8 * max(np.abs(array).max(), 1e-3)
        assert np.abs(ours[name] - array).max() <= bound, name


def bits(net: Network, case: Case) -> list[bytes]:
    """Return all that a fit changes."""
    arrays = [*net.parameters.values(), *net.statistics.values(), np.array([net.steps, net.epochs])]
    arrays += net.average_parameters.values() if case.fit["average"] else []
    return [array.tobytes() for array in arrays]


class Watch(lamella.Callback):
    """Looks at the network after every step."""

    every = 1

    def on_step(self, step: int, loss: float, network: Network) -> None:
        assert np.isfinite(loss)
        assert network.steps == step


@RUNS
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]))
def test_any_training_has_the_same_bits_however_it_is_run(data: Any, dtype: str) -> None:
    case = data.draw(cases(dtype))
    start, X, y = case.network, case.X, case.y
    alone, other, watched, stepped = (copy.deepcopy(start) for _ in range(4))
    history = alone.fit(X, y, threads=1, **case.fit)
    wanted = bits(alone, case)

    sparse = pytest.importorskip("scipy.sparse")
    form = data.draw(st.sampled_from([np.asfortranarray, sparse.csr_array]))
    assert (other.fit(form(X), y, threads=3, **case.fit).loss == history.loss).all()
    assert bits(other, case) == wanted

    watched.fit(X, y, threads=2, callbacks=[Watch()], diagnose=True, **case.fit)
    assert bits(watched, case) == wanted

    for _ in range(case.fit["epochs"]):
        stepped.fit(X, y, **case.fit | {"epochs": 1})
        with TemporaryDirectory() as folder:
            stepped.save(Path(folder) / "net", state=True)
            stepped = Network.load(Path(folder) / "net")
    assert bits(stepped, case) == wanted
    answers = stepped.decision_function(form(X), threads=2)
    assert answers.tobytes() == alone.decision_function(X, threads=1).tobytes()
