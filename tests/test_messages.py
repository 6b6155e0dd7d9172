"""What a wrong argument is answered with: its name, what was expected, what came; before work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import functional, reference, schedules, summary

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 4))
Y = np.arange(12) % 2
LABELS = RNG.integers(0, 2, (12, 3))


def network(**settings: Any) -> lamella.Network:
    return lamella.Network([4, 3, 2], **{"output": "softmax", **settings})


def custom(z: Any, t: Any) -> Any:
    return 0.0, np.zeros_like(z)


def fit(**arguments: Any) -> Any:
    return network().fit(**{"X": X, "y": Y, **arguments})


def minimise(**arguments: Any) -> Any:
    return fit(optimizer="lbfgs", **arguments)


CALLS: list[tuple[str, Callable[[], object]]] = [
    ("X", lambda: lamella.Diagnosis(3, Y)),
    ("X", lambda: lamella.Diagnosis([], [])),
    ("X", lambda: lamella.Diagnosis([["a"]], [1])),
    ("y", lambda: lamella.Diagnosis(X, Y[:3])),
    ("y", lambda: lamella.Diagnosis(X, 3)),
    ("y", lambda: lamella.Network([4, 2], loss=custom).fit(X, None)),  # type: ignore[arg-type]
    ("y", lambda: lamella.Network([4, 2], loss=custom).fit(X, Y[:3])),
    ("y", lambda: fit(y=None)),
    ("y", lambda: network().partial_fit(X, None)),  # type: ignore[arg-type]
    ("y", lambda: network().evaluate(X, None)),  # type: ignore[arg-type]
    ("X", lambda: lamella.compare(network(), network(), 3, Y)),
    ("y", lambda: lamella.compare(network(), network(), X, Y[:3], batch_size=2)),
    ("others", lambda: lamella.Muon(others="x")),
    ("hidden", lambda: functional.L_layer_model(X.T, Y, [4, 3, 1], hidden=0)),  # type: ignore[arg-type]
    ("hidden", lambda: reference.L_layer_model(X.T, Y, [4, 3, 1], hidden=0)),  # type: ignore[arg-type]
    ("at_times", lambda: schedules.Step(at_times=3)),  # type: ignore[arg-type]
    ("at_times", lambda: schedules.Step(at_times="")),  # type: ignore[arg-type]
    ("at_times", lambda: schedules.Step(at_times=(1.5,))),  # type: ignore[arg-type]
    ("function", lambda: schedules.Function(function=3)),  # type: ignore[arg-type]
    (r"layers\[1\].activation", lambda: lamella.Network([4, lamella.Dense(8, ""), 2])),
    (r"layers\[2\].activation", lambda: lamella.Network([4, 8, lamella.Dense(2, "")])),
    ("path", lambda: network().save(3)),  # type: ignore[arg-type]
    ("path", lambda: network().save("")),
    ("path", lambda: network().save(b"model")),  # type: ignore[arg-type]
    ("path", lambda: lamella.load(3)),  # type: ignore[arg-type]
    ("path", lambda: lamella.load("")),
    ("probabilities", lambda: lamella.Metric(max, probabilities=3)),  # type: ignore[arg-type]
    ("greater_is_better", lambda: lamella.Metric(max, greater_is_better=3)),  # type: ignore[arg-type]
    ("metrics", lambda: fit(metrics=b"")),
    ("clip_value", lambda: fit(clip_value=np.zeros(0))),
    ("progress", lambda: fit(progress=3)),
    ("positive_weight", lambda: lamella.BinaryCrossEntropy(positive_weight=[])),
    ("alpha", lambda: lamella.Focal(alpha=b"")),
    ("configs", lambda: lamella.fit_many(3, X, Y)),  # type: ignore[arg-type]
    ("configs", lambda: lamella.fit_many({"layers": [4, 2]}, X, Y)),  # type: ignore[dict-item]
    ("cv", lambda: lamella.fit_many([{"layers": [4, 2]}], X, Y, cv=b"")),
    ("network", lambda: summary.text(3)),  # type: ignore[arg-type]
    ("class_weight", lambda: fit(class_weight=3)),
    ("class_weight", lambda: fit(class_weight={0: -1})),
    ("class_weight", lambda: fit(class_weight=[{0: 1}, {0: 1}])),
    ("learning_rate", lambda: minimise(learning_rate=0.1)),
    ("clip_value", lambda: minimise(clip_value=0.1)),
    ("clip_norm", lambda: minimise(clip_norm=1.0)),
    ("average", lambda: minimise(average=0.9)),
]


@pytest.mark.parametrize(
    ("name", "call"), CALLS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CALLS)]
)
def test_the_argument_is_named(name: str, call: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{name}(\[.*\])?: expected .*, got "):
        call()


SHAPES = [np.array(3.0), np.ones(4), np.ones((1, 1, 4)), np.ones((12, 3)), np.ones((12, 4, 1))]


@pytest.mark.parametrize("rows", SHAPES, ids=lambda rows: str(rows.shape))
@pytest.mark.parametrize("name", ["fit", "partial_fit", "evaluate", "loss_and_gradients"])
def test_shapes_that_are_none_of_the_datas_are_named(name: str, rows: Any) -> None:
    call = getattr(network(), name)
    with pytest.raises(ValueError, match=r"^X: expected shape \(m, 4\), got "):
        call(rows, Y)
    with pytest.raises(ValueError, match=r"^y: expected shape "):
        call(X, rows)


@pytest.mark.parametrize("rows", SHAPES, ids=lambda rows: str(rows.shape))
@pytest.mark.parametrize("name", ["predict", "predict_proba", "decision_function", "activations"])
def test_shapes_that_are_not_samples_are_named(name: str, rows: Any) -> None:
    with pytest.raises(ValueError, match=r"^X: expected shape \(m, 4\), got "):
        getattr(network(), name)(rows)


def test_a_diagnosis_takes_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    given, plain = (lamella.Diagnosis(rows, Y) for rows in (frame, X))
    for diagnosis in (given, plain):
        network(dtype="float64").fit(X, Y, callbacks=[diagnosis])
    assert [record.loss for record in given.records] == [record.loss for record in plain.records]


def test_plots_name_their_arguments() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    from lamella import plots

    curve, plane, images = plots.LearningCurveDisplay, plots.DecisionBoundary, plots.WeightImages
    two = lamella.Network([2, 2], output="softmax")
    grid = np.zeros((2, 2))
    calls: list[tuple[str, Callable[[], object]]] = [
        ("curves", lambda: curve(3)),  # type: ignore[arg-type]
        ("loss", lambda: curve({"loss": "a"})),
        ("history", lambda: curve.from_history(3)),  # type: ignore[arg-type]
        ("estimator", lambda: curve.from_estimator(3)),
        ("ax", lambda: curve({"loss": [1.0]}).plot(3)),
        ("ax", lambda: images(X, shape=(2, 2)).plot(ax="axes")),
        ("estimator", lambda: plane.from_estimator(3, X[:, :2])),
        ("estimator", lambda: plane.from_estimator(lamella.Network, X[:, :2])),
        ("class_names", lambda: plane.from_estimator(two, X[:, :2], class_names=3)),  # type: ignore[arg-type]
        ("xx0", lambda: plane(xx0=3, xx1=grid, response=grid)),  # type: ignore[arg-type]
        ("xx1", lambda: plane(xx0=grid, xx1=grid[0], response=grid)),
        ("response", lambda: plane(xx0=grid, xx1=grid, response=grid, classes=[0, 1])),
        ("X", lambda: plane(xx0=grid, xx1=grid, response=grid, X=grid[0])),
        ("y", lambda: plane(xx0=grid, xx1=grid, response=grid, y=grid)),
        ("shape", lambda: images(X, shape=3)),  # type: ignore[arg-type]
        ("shape", lambda: images(X, shape=(2, 2, 1))),  # type: ignore[arg-type]
        ("estimator", lambda: images.from_estimator(3)),
    ]
    for name, call in calls:
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected .*, got "):
            call()


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_estimators_name_their_arguments() -> None:
    pytest.importorskip("sklearn")
    from lamella.sklearn import MLPClassifier

    def train(y: Any = Y, **settings: Any) -> Any:
        return MLPClassifier(**{"max_iter": 2, **settings}).fit(X, y)

    calls: list[tuple[str, Callable[[], object]]] = [
        ("callbacks", lambda: train(callbacks=[3])),
        ("threads", lambda: train(threads=10**30)),
        (r"class_weight\[0\]", lambda: train(class_weight={0: -1.0})),
        (r"class_weight\['a'\]", lambda: train(np.array(["a", "b"])[Y], class_weight={"a": None})),
        (r"class_weight\[1\]", lambda: train(LABELS, class_weight=[{1: -1}, {}, {}])),
        ("path", lambda: train(max_iter=200).save(3)),
        ("path", lambda: MLPClassifier.load(3)),  # type: ignore[arg-type]
    ]
    for name, call in calls:
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected .*, got "):
            call()
    with pytest.raises(ValueError, match=r"^validation_data: "):
        train(early_stopping=True, validation_data=(1, 2))


def test_settings_that_a_network_is_made_with_stay() -> None:
    net = network()
    for name, value in {
        "loss": "huber",
        "output": "sigmoid",
        "layers": (),
        "max_norm": 1.0,
    }.items():
        with pytest.raises(AttributeError, match=rf"^{name}: fixed when a network is made"):
            setattr(net, name, value)
    with pytest.raises(TypeError, match=r"^l2: expected a number, got 'a'$"):
        net.l2 = "a"  # type: ignore[assignment]
    net.l2, net.seed = 0.5, 3
    other = network(l2=0.5, seed=3)
    other.parameters = net.parameters
    net.fit(X, Y, epochs=2)
    other.fit(X, Y, epochs=2)
    assert all((net.parameters[name] == other.parameters[name]).all() for name in net.parameters)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.longdouble, np.int64])
def test_numbers_of_any_type_are_numbers(kind: type) -> None:
    assert lamella.Adam(kind(1)).learning_rate == 1.0
    fit(epochs=1, learning_rate=kind(1), clip_norm=kind(1))
    with pytest.raises(ValueError, match=r"^learning_rate: expected a number of at least 0, got "):
        lamella.Adam(kind(-1))


def test_a_number_too_large_is_named() -> None:
    for value in (10**400, np.longdouble("1e400"), np.float32(np.inf), float("nan")):
        with pytest.raises(ValueError, match=r"^l2: expected a number of at least 0, got "):
            network(l2=value)


def test_what_early_stopping_needs_is_said() -> None:
    with pytest.raises(ValueError, match=r"^monitor: .* got 'val_loss', which needs validation_"):
        fit(early_stopping=True)


def test_metrics_that_have_no_names_are_functions() -> None:
    net = lamella.Network([4, 3, 2], loss=lamella.Quantile((0.1, 0.9)))
    with pytest.raises(ValueError, match=r"^metrics: expected for quantiles functions and lamella"):
        net.fit(X, X[:, 0], metrics=["r2"])


def test_the_path_that_was_asked_for_is_named(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing/net'$"):
        network().save(tmp_path / "missing" / "net")
