"""What the estimators have beside scikit-learn's parameters: right, checked, kept in files."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Array, difference
from sklearn import datasets, metrics, neural_network
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.utils.estimator_checks import check_estimator

import lamella
from lamella import checkpoint, schedules
from lamella.callbacks import StopTraining
from lamella.sklearn import MLPClassifier, MLPRegressor
from lamella.sklearn.engine import spec
from lamella.sklearn.options import Rule

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

IRIS_X, IRIS_Y = datasets.load_iris(return_X_y=True)
IRIS_X = (IRIS_X - IRIS_X.mean(0)) / IRIS_X.std(0)
NAMES = np.array(["setosa", "versicolor", "virginica"])[IRIS_Y]
X, Y = datasets.load_diabetes(return_X_y=True)
X, Y = X[:200] * 20, (Y[:200] - 150) / 80

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (8, 8),
    "max_iter": 6,
    "batch_size": 50,
    "random_state": 0,
    "n_iter_no_change": 100,
}

TRAINED: dict[str, dict[str, Any]] = {
    "activations": {"activations": ["gelu", "leaky_relu"]},
    "dropout": {"dropout": 0.3},
    "batch norm": {"norm": "batch"},
    "layer norm": {"norm": lamella.LayerNorm(epsilon=1e-3)},
    "residual": {"residual": True},
    "name": {"optimizer": "adamw", "learning_rate_init": 0.01},
    "object": {"optimizer": lamella.RMSprop(0.01)},
    "schedule": {"learning_rate": schedules.Cosine()},
    "scheduled object": {"optimizer": lamella.SGD(schedules.Cosine(0.1))},
    "plateau": {"learning_rate": schedules.ReduceOnPlateau(0.01, patience=1, threshold=0.1)},
    "clip_norm": {"clip_norm": 0.05},
    "max_norm": {"max_norm": 0.5},
}
"""Parameters that a network is trained for, both estimators alike."""

each = pytest.mark.parametrize("extra", TRAINED.values(), ids=TRAINED)


def halve(t: int) -> float:
    return float(0.01 / 2 ** (t // 5))


def squares(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return the squared error as a loss in Python."""
    return np.sum((logits - y) ** 2, axis=1), 2 * (logits - y)


def same(a: Any, b: Any) -> bool:
    """Whether two estimators have the same weights and answers, bit by bit."""
    rows = IRIS_X if isinstance(a, MLPClassifier) else X
    arrays = zip([*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_], strict=True)
    return all(np.array_equal(*pair) for pair in arrays) and np.array_equal(
        a._forward_pass_fast(rows), b._forward_pass_fast(rows)
    )


# --- as scikit-learn, but for what was asked for ---------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("rate", ["constant", "invscaling", "adaptive"])
def test_a_network_trains_classifiers_as_scikit_learn_does(solver: str, rate: str) -> None:
    settings = SMALL | {"solver": solver, "learning_rate": rate, "shuffle": False}
    settings |= {"tol": 0.1, "n_iter_no_change": 1, "alpha": 0.1}  # so that adaptive adapts
    for y in (NAMES, NAMES == "setosa", np.eye(3, dtype=int)[IRIS_Y][:, :2]):
        theirs = neural_network.MLPClassifier(**settings).fit(IRIS_X, y)
        ours = MLPClassifier(activations="relu", **settings).fit(IRIS_X, y)
        assert isinstance(ours.network_, lamella.Network)
        arrays = [*zip(ours.coefs_, theirs.coefs_, strict=True)]
        arrays += zip(ours.intercepts_, theirs.intercepts_, strict=True)
        assert max(difference(*pair) for pair in arrays) < 1e-9
        assert difference(ours.loss_curve_, theirs.loss_curve_) < 1e-9
        for name in ("n_iter_", "t_", "n_outputs_", "n_layers_", "out_activation_"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.best_loss_ == pytest.approx(theirs.best_loss_, abs=1e-12)
        assert np.array_equal(ours.predict(IRIS_X), theirs.predict(IRIS_X))


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("columns", [1, 2])
def test_a_network_trains_regressors_as_scikit_learn_does(loss: str, columns: int) -> None:
    y = np.abs(np.column_stack([Y, Y**2]))[:, :columns]
    y = y[:, 0] if columns == 1 else y
    theirs = neural_network.MLPRegressor(loss, shuffle=False, **SMALL).fit(X, y)
    ours = MLPRegressor(loss, shuffle=False, activations="relu", **SMALL).fit(X, y)
    assert difference(ours.predict(X), theirs.predict(X)) < 1e-9
    factor = columns if loss == "squared_error" else 1
    values, rest = np.array(theirs.loss_curve_), 1e-4 * (factor - 1)
    assert np.abs(ours.loss_curve_ - factor * values).max() <= 1e-9 + rest


@each
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_each_has_an_effect_and_equals_a_network(kind: Any, extra: dict[str, Any]) -> None:
    rows, y = (IRIS_X, IRIS_Y) if kind is MLPClassifier else (X, Y)
    classifies = kind is MLPClassifier
    model = kind(**SMALL, **extra).fit(rows, y)
    plain = kind(**SMALL, activations="relu").fit(rows, y)
    assert not same(model, plain)
    # The same by hand: a network from the same start, by scikit-learn's draws.
    rng = np.random.RandomState(0)
    dims = [rows.shape[1], 8, 8, 3 if classifies else 1]
    start = {}
    for n, (n_in, n_out) in enumerate(pairwise(dims), start=1):
        bound = np.sqrt(6 / (n_in + n_out))
        start[f"W{n}"] = rng.uniform(-bound, bound, (n_in, n_out)).T
        start[f"b{n}"] = rng.uniform(-bound, bound, n_out)
    seed = rng.randint(2**31 - 1)
    names = extra.get("activations", ["relu", "relu"])
    made = {k: v for k, v in extra.items() if k in ("dropout", "norm", "residual", "max_norm")}
    network = lamella.Network(
        [dims[0], *(lamella.Dense(8, name) for name in names), dims[-1]],
        output="softmax" if classifies else "identity",
        loss=model.network_.criterion,
        dtype="float64",
        seed=seed,
        l2=1e-4 / 50,
        **made,
    )
    network.parameters = network.parameters | start
    rate = extra.get("learning_rate")
    optimizer = extra.get("optimizer")
    if optimizer is None:
        optimizer = plain_rule(model)
    elif isinstance(optimizer, str):
        rate = extra["learning_rate_init"]
    history = network.fit(
        rows,
        y,
        epochs=6,
        batch_size=50,
        optimizer=optimizer,
        learning_rate=rate,
        clip_norm=extra.get("clip_norm"),
    )
    assert np.array_equal(history.loss, model.loss_curve_)
    for n, weights in enumerate(model.coefs_, start=1):
        assert np.array_equal(network.parameters[f"W{n}"].T, weights)
    assert np.array_equal(network._net.outputs(rows, logits=False, threads=1),
                          model._forward_pass_fast(rows))  # fmt: skip


def plain_rule(model: Any) -> Any:
    """Return scikit-learn's Adam as networks take it."""
    own = spec(model._optimizer)
    return Rule(learning_rate=own[1]["learning_rate"], own=own)


def test_a_function_is_a_schedule() -> None:
    constant = MLPRegressor(learning_rate=lambda t: 1e-3, **SMALL).fit(X, Y)
    assert same(constant, MLPRegressor(activations="relu", **SMALL).fit(X, Y))
    assert not same(constant, MLPRegressor(learning_rate=halve, **SMALL).fit(X, Y))


def test_defaults_train_without_a_network() -> None:
    model = MLPClassifier(dropout=0.2, **SMALL).fit(IRIS_X, NAMES)
    assert hasattr(model, "network_")
    model.set_params(dropout=0.0).fit(IRIS_X, NAMES)
    assert not hasattr(model, "network_")
    assert same(model, MLPClassifier(**SMALL).fit(IRIS_X, NAMES))


def test_weighted_rows_are_penalised_as_scikit_learn_does() -> None:
    settings = SMALL | {"batch_size": 200, "alpha": 1.0}
    weights = np.random.default_rng(0).uniform(0.1, 3.0, 200)
    theirs = neural_network.MLPRegressor(**settings).fit(X, Y, sample_weight=weights)
    ours = MLPRegressor(activations="relu", **settings).fit(X, Y, sample_weight=weights)
    assert difference(ours.predict(X), theirs.predict(X)) < 1e-9
    assert difference(ours.loss_curve_, theirs.loss_curve_) < 1e-9


@pytest.mark.parametrize(
    "model",
    [
        MLPClassifier(loss="hinge", norm="layer", max_iter=100),
        MLPRegressor("huber", optimizer="adamw", residual=True, max_iter=100),
    ],
)
def test_scikit_learns_checks_pass_with_a_network(model: Any) -> None:
    results = check_estimator(model, on_skip=None, on_fail="raise")
    assert len(results) > 50


# --- losses ----------------------------------------------------------------------------------


def test_regressors_minimise_the_loss_that_they_were_given() -> None:
    settings = SMALL | {"max_iter": 200, "learning_rate_init": 0.01, "alpha": 0.0}
    high = MLPRegressor(lamella.Quantile(0.9), **settings).fit(X, Y)
    low = MLPRegressor(lamella.Quantile(0.1), **settings).fit(X, Y)
    assert np.mean(high.predict(X) > Y) > 0.75
    assert np.mean(low.predict(X) > Y) < 0.25
    huber = MLPRegressor("huber", **SMALL).fit(X, Y)
    d = np.abs(huber.predict(X) - Y)
    value = np.mean(np.where(d <= 1, d**2 / 2, d - 0.5))
    assert huber.network_.evaluate(X, Y)["loss"] == pytest.approx(value, rel=1e-4)
    custom = MLPRegressor(squares, **SMALL).fit(X, Y)
    named = MLPRegressor("mean_squared_error", **SMALL).fit(X, Y)
    assert difference(custom.predict(X), named.predict(X)) < 1e-9
    counts = MLPRegressor(lamella.Poisson(), **SMALL).fit(X, np.abs(Y))
    assert counts.out_activation_ == "exp"
    assert counts.predict(X).min() > 0


def test_classifiers_minimise_the_loss_that_they_were_given() -> None:
    plain = MLPClassifier(activations="relu", **SMALL).fit(IRIS_X, NAMES)
    entropy = MLPClassifier(loss="cross_entropy", **SMALL).fit(IRIS_X, NAMES)
    assert difference(entropy.predict_proba(IRIS_X), plain.predict_proba(IRIS_X)) < 1e-6
    focal = MLPClassifier(loss=lamella.Focal(2.0), **SMALL).fit(IRIS_X, NAMES)
    assert difference(focal.predict_proba(IRIS_X), plain.predict_proba(IRIS_X)) > 1e-3
    assert focal.loss_ < plain.loss_


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", lamella.Hinge()])
def test_a_hinge_gives_margins(loss: Any) -> None:
    settings = SMALL | {"max_iter": 100, "learning_rate_init": 0.01}
    many = MLPClassifier(loss=loss, **settings).fit(IRIS_X, NAMES)
    assert many.score(IRIS_X, NAMES) > 0.9
    margins = many.decision_function(IRIS_X)
    assert np.array_equal(many.classes_[margins.argmax(axis=1)], many.predict(IRIS_X))
    two = np.where(IRIS_Y == 0, "yes", "no")
    one = MLPClassifier(loss=loss, **settings).fit(IRIS_X, two)
    assert one.score(IRIS_X, two) > 0.95
    assert np.array_equal(one.decision_function(IRIS_X) > 0, one.predict(IRIS_X) == "yes")
    labels = np.column_stack([IRIS_Y == 0, IRIS_Y == 2]).astype(int)
    several = MLPClassifier(loss=loss, **settings).fit(IRIS_X, labels)
    assert np.array_equal(several.decision_function(IRIS_X) > 0, several.predict(IRIS_X) == 1)
    assert several.score(IRIS_X, labels) > 0.8
    for model in (many, MLPClassifier(loss=loss)):
        assert not hasattr(model, "predict_proba")
        assert hasattr(model, "decision_function")
    assert not hasattr(MLPClassifier(), "decision_function")


# --- validation ------------------------------------------------------------------------------


def test_validation_data_takes_the_place_of_a_fraction() -> None:
    settings = SMALL | {"early_stopping": True, "max_iter": 20, "n_iter_no_change": 3}
    train, held = train_test_split(np.arange(150), random_state=1)
    given = (IRIS_X[held], NAMES[held])
    for norm in (None, "batch"):
        model = MLPClassifier(validation_data=given, norm=norm, **settings)
        model.fit(IRIS_X[train], NAMES[train])
        assert model.score(*given) == pytest.approx(max(model.validation_scores_), abs=1e-12)
        assert model.best_validation_score_ == max(model.validation_scores_)
        assert model.t_ == model.n_iter_ * len(train)
    # All rows are trained on: without stopping, as many epochs are the same training.
    whole = MLPClassifier(**SMALL).fit(IRIS_X[train], NAMES[train])
    model = MLPClassifier(validation_data=given, early_stopping=True, **SMALL)
    model.fit(IRIS_X[train], NAMES[train])
    assert np.array_equal(model.loss_curve_, whole.loss_curve_)


@pytest.mark.parametrize("extra", [{}, {"norm": "batch", "dropout": 0.1}])
def test_the_metric_is_the_validation_score(extra: dict[str, Any]) -> None:
    given = (IRIS_X[::3], NAMES[::3])
    settings = SMALL | {"validation_data": given, "early_stopping": True} | extra
    checks: list[tuple[Any, Callable[[Any], float]]] = [
        ("log_loss", lambda m: -metrics.log_loss(given[1], m.predict_proba(given[0]))),
        ("balanced_accuracy",
         lambda m: metrics.balanced_accuracy_score(given[1], m.predict(given[0]))),
        (macro_f1, lambda m: macro_f1(given[1], m.predict(given[0]))),
        (lamella.Metric(metrics.log_loss, probabilities=True, greater_is_better=False),
         lambda m: -metrics.log_loss(given[1], m.predict_proba(given[0]))),
    ]  # fmt: skip
    for metric, expected in checks:
        model = MLPClassifier(metric=metric, **settings).fit(IRIS_X, NAMES)
        assert expected(model) == pytest.approx(max(model.validation_scores_), rel=1e-9)
    held = (X[::3], Y[::3])
    model = MLPRegressor(metric="mae", **(settings | {"validation_data": held})).fit(X, Y)
    error = metrics.mean_absolute_error(held[1], model.predict(held[0]))
    assert max(model.validation_scores_) == pytest.approx(-error, rel=1e-9)


def macro_f1(y: Array, prediction: Array) -> float:
    return float(metrics.f1_score(y, prediction, average="macro"))


def test_the_best_epoch_is_restored_whole() -> None:
    seen = []

    def keep(_epoch: int, _logs: Any, model: Any) -> None:
        seen.append(model.predict_proba(IRIS_X))

    model = MLPClassifier(
        norm="batch", early_stopping=True, metric="log_loss", callbacks=keep, solver="sgd",
        **(SMALL | {"learning_rate_init": 0.5, "momentum": 0.9, "max_iter": 15}),
    ).fit(IRIS_X, NAMES)  # fmt: skip
    best = int(np.argmax(model.validation_scores_))
    assert best < len(seen) - 1
    assert np.array_equal(model.predict_proba(IRIS_X), seen[best])


# --- scikit-learn's protocol -----------------------------------------------------------------


@each
def test_copies_and_pickles_answer_and_go_on_alike(extra: dict[str, Any]) -> None:
    model = MLPClassifier(**SMALL, **extra).fit(IRIS_X, NAMES)
    assert same(model, MLPClassifier(**SMALL, **extra).fit(IRIS_X, NAMES))
    copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    assert same(copy.copy(model), model)
    for other in copies:
        assert same(other, model)
    model.partial_fit(IRIS_X, NAMES)
    if "plateau" in str(extra).lower():
        return  # what the schedule has seen is not copied
    for other in copies:
        assert not same(other, model)
        assert same(other.partial_fit(IRIS_X, NAMES), model)
    again = clone(model)
    assert again.get_params() == model.get_params()
    assert not hasattr(again, "network_")


def test_predictions_follow_what_is_written_into_the_weights() -> None:
    model = MLPClassifier(norm="batch", **SMALL).fit(IRIS_X, NAMES)
    before = model.predict_proba(IRIS_X)
    model.intercepts_[-1] += [5.0, 0.0, 0.0]
    after = model.predict_proba(IRIS_X)
    odds = (after[:, 0] / after[:, 1]) / (before[:, 0] / before[:, 1])
    assert np.allclose(odds, np.exp(5.0))


def test_a_warm_start_goes_on_and_takes_new_settings() -> None:
    model = MLPClassifier(norm="batch", dropout=0.1, warm_start=True, **SMALL).fit(IRIS_X, NAMES)
    network, first = model.network_, model.loss_curve_[0]
    model.fit(IRIS_X, NAMES)
    assert model.network_ is network
    assert len(model.loss_curve_) == 12
    assert model.loss_curve_[6] < first
    gamma = network.parameters["gamma1"]
    model.set_params(dropout=0.2, max_iter=1, learning_rate_init=1e-12).fit(IRIS_X, NAMES)
    assert model.network_ is not network
    assert np.allclose(model.network_.parameters["gamma1"], gamma)
    model.set_params(norm=None, dropout=0.0).fit(IRIS_X, NAMES)
    assert not hasattr(model, "network_")


def test_a_grid_search_over_dropout_and_norm() -> None:
    grid = {"dropout": [0.0, 0.2], "norm": [None, "batch"]}
    search = GridSearchCV(MLPClassifier(**SMALL), grid, cv=2).fit(IRIS_X, NAMES)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(set(search.cv_results_["mean_test_score"])) > 1


def test_weights_of_samples_and_classes_count() -> None:
    weights = np.where(IRIS_Y == 0, 0.0, 1.0)
    only = MLPClassifier(dropout=0.1, **SMALL).fit(IRIS_X, NAMES, sample_weight=weights)
    by_class = MLPClassifier(dropout=0.1, class_weight={"setosa": 0.0}, **SMALL)
    assert same(only, by_class.fit(IRIS_X, NAMES))
    assert not same(only, MLPClassifier(dropout=0.1, **SMALL).fit(IRIS_X, NAMES))


WRONG: list[tuple[type[Any], dict[str, Any], str]] = [
    (MLPClassifier, {"dropout": 1.0}, "dropout"),
    (MLPClassifier, {"norm": "group"}, "norm"),
    (MLPClassifier, {"residual": "yes"}, "residual"),
    (MLPClassifier, {"optimizer": "newton"}, "optimizer"),
    (MLPClassifier, {"learning_rate": "cosine"}, "learning_rate"),
    (MLPClassifier, {"clip_norm": 0.0}, "clip_norm"),
    (MLPClassifier, {"max_norm": -1.0}, "max_norm"),
    (MLPClassifier, {"loss": "squared_error"}, "loss"),
    (MLPClassifier, {"loss": lamella.Huber()}, "loss"),
    (MLPClassifier, {"loss": "binary_cross_entropy"}, "loss"),
    (MLPRegressor, {"loss": "hinge"}, "loss"),
    (MLPRegressor, {"loss": lamella.Focal()}, "loss"),
    (MLPRegressor, {"loss": lamella.Quantile([0.1, 0.9])}, "quantile"),
    (MLPClassifier, {"activations": ["relu"]}, "activations"),
    (MLPClassifier, {"activations": "softmax"}, "activations"),
    (MLPClassifier, {"solver": "lbfgs", "dropout": 0.1}, "solver"),
    (MLPClassifier, {"early_stopping": True, "metric": "r2"}, "^metric: "),
    (MLPClassifier, {"early_stopping": True, "validation_data": (IRIS_X,)}, "validation_data"),
    (MLPClassifier, {"early_stopping": True, "validation_data": (IRIS_X, IRIS_X)}, "validation"),
    (MLPClassifier, {"early_stopping": True, "validation_data": (IRIS_X, ["x"] * 150)}, "classes"),
    (MLPRegressor, {"early_stopping": True, "validation_data": (X, Y[1:])}, "inconsistent"),
    (MLPRegressor, {"early_stopping": True, "validation_data": (X[:, 1:], Y)}, "features"),
]


@pytest.mark.parametrize(("kind", "extra", "name"), WRONG)
def test_wrong_parameters_are_refused(kind: Any, extra: dict[str, Any], name: str) -> None:
    rows, y = (IRIS_X, NAMES) if kind is MLPClassifier else (X, Y)
    with pytest.raises(ValueError, match=name):
        kind(**(SMALL | extra)).fit(rows, y)


# --- files -----------------------------------------------------------------------------------

KEPT: dict[str, tuple[Any, Array, Any]] = {
    "plain": (MLPClassifier(**SMALL), IRIS_X, IRIS_Y),
    "strings": (MLPClassifier(**SMALL, solver="sgd"), IRIS_X, NAMES),
    "objects": (MLPClassifier(**SMALL), IRIS_X, NAMES.astype(object)),
    "booleans": (MLPClassifier(**SMALL), IRIS_X, IRIS_Y == 1),
    "small integers": (MLPClassifier(**SMALL), IRIS_X, IRIS_Y.astype(np.int8)),
    "labels": (MLPClassifier(**SMALL), IRIS_X, np.eye(3, dtype=int)[IRIS_Y][:, :2]),
    "lbfgs": (MLPClassifier(**SMALL, solver="lbfgs"), IRIS_X, NAMES),
    "weights": (MLPClassifier(**SMALL, class_weight={"setosa": 3.0}), IRIS_X, NAMES),
    "float32": (MLPClassifier(**SMALL, dtype=np.float32), IRIS_X, NAMES),
    "a dtype": (MLPClassifier(**SMALL, dtype=np.dtype("float32")), IRIS_X, NAMES),
    "network": (
        MLPClassifier(**SMALL, norm="batch", dropout=0.2, activations=("gelu", "mish")),
        IRIS_X,
        NAMES,
    ),
    "hinge": (MLPClassifier(**SMALL, loss=lamella.SquaredHinge()), IRIS_X, NAMES),
    "stopped": (MLPClassifier(**SMALL, norm="layer", early_stopping=True), IRIS_X, NAMES),
    "schedule": (
        MLPRegressor(
            "huber", **SMALL, learning_rate=schedules.Warmup(steps=5, then=schedules.Cosine())
        ),
        X,
        Y,
    ),
    "several": (MLPRegressor(**SMALL, optimizer=lamella.AdamW()), X, np.column_stack([Y, -Y])),
    "poisson": (MLPRegressor("poisson", **SMALL), X, np.abs(Y)),
    "generator": (MLPRegressor(**(SMALL | {"random_state": np.random.RandomState(3)})), X, Y),
}
ATTRIBUTES = (
    "n_features_in_", "n_outputs_", "n_layers_", "n_iter_", "t_", "out_activation_", "loss_",
    "best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_",
)  # fmt: skip

kept = pytest.mark.parametrize(("model", "rows", "y"), KEPT.values(), ids=KEPT)


@kept
def test_a_loaded_estimator_is_the_saved_one(
    model: Any, rows: Array, y: Array, tmp_path: Path
) -> None:
    model = clone(model).fit(rows, y)
    model.save(tmp_path / "model.safetensors", state=True)
    loaded = type(model).load(tmp_path / "model.safetensors")
    assert same(loaded, model)
    assert np.array_equal(loaded.predict(rows), model.predict(rows))
    assert loaded.predict(rows).dtype == model.predict(rows).dtype
    for name in ATTRIBUTES:
        assert hasattr(loaded, name) == hasattr(model, name)
        assert getattr(loaded, name, None) == getattr(model, name, None), name
    if isinstance(model, MLPClassifier):
        assert loaded.classes_.dtype == model.classes_.dtype
        assert np.array_equal(loaded.classes_, model.classes_)
    different = {"random_state", "dtype"}
    for name, value in model.get_params().items():
        assert name in different or loaded.get_params()[name] == value, name
    if model.solver == "lbfgs" or model.early_stopping:
        return
    assert same(loaded.partial_fit(rows, y), model.partial_fit(rows, y))
    assert np.array_equal(loaded.loss_curve_, model.loss_curve_)


def test_without_its_state_training_goes_on_with_a_new_optimizer(tmp_path: Path) -> None:
    model = MLPClassifier(**SMALL).fit(IRIS_X, NAMES)
    model.save(tmp_path / "a")
    loaded = MLPClassifier.load(tmp_path / "a")
    del model._optimizer
    assert same(loaded.partial_fit(IRIS_X, NAMES), model.partial_fit(IRIS_X, NAMES))


def test_names_of_features_are_kept(tmp_path: Path) -> None:
    frame = pd.DataFrame(IRIS_X, columns=["a", "b", "c", "d"])
    model = MLPClassifier(**SMALL).fit(frame, NAMES)
    model.save(tmp_path / "a")
    loaded = MLPClassifier.load(tmp_path / "a")
    assert loaded.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert np.array_equal(loaded.predict(frame), model.predict(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[["b", "a", "c", "d"]])


def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        MLPClassifier().save(tmp_path / "a")
    with pytest.raises(TypeError, match="loss"):
        MLPRegressor(squares, **SMALL).fit(X, Y).save(tmp_path / "a")
    broken = MLPRegressor(**SMALL).fit(X, Y)
    broken.coefs_[0][0, 0] = np.nan
    with pytest.raises(ValueError, match="W1"):
        broken.save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_another_class_does_not_load_it(tmp_path: Path) -> None:
    MLPClassifier(**SMALL).fit(IRIS_X, NAMES).save(tmp_path / "a")
    with pytest.raises(ValueError, match="kind"):
        MLPRegressor.load(tmp_path / "a")
    with pytest.raises(ValueError, match="kind"):
        lamella.load(tmp_path / "a")
    lamella.Network([2, 1]).save(tmp_path / "b")
    with pytest.raises(ValueError, match="kind"):
        MLPClassifier.load(tmp_path / "b")


BAD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**12,
    1.5,
    "x",
    [],
    [[1]],
    {},
    {"type": "Network"},
    float("nan"),
)


def damaged(text: Any) -> list[Any]:
    """Return texts with one of their values, at any depth, taken away or made into another."""
    found: list[Any] = []
    parts = list(text.items()) if isinstance(text, dict) else []
    for key, value in parts:
        found.append({k: v for k, v in text.items() if k != key})
        found += [{**text, key: bad} for bad in BAD]
        found += [{**text, key: part} for part in damaged(value)]
    return found


@pytest.mark.parametrize("name", ["strings", "network", "generator"])
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    model, rows, y = KEPT[name]
    model = clone(model).fit(rows, y)
    path = tmp_path / "a"
    model.save(path, state=True)
    arrays, text = checkpoint.read(path)
    text.pop("format")
    texts = damaged(text)
    assert len(texts) > 300
    loaded = 0
    for bad in texts:
        checkpoint.write(path, arrays, bad)
        try:
            other = type(model).load(path)
        except ValueError:
            continue
        other.predict(rows)  # what is not refused works
        loaded += 1
    assert loaded < len(texts) / 3
    whole = path.read_bytes()
    for end in range(0, len(whole), 501):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=path.name):
            type(model).load(path)


def test_arrays_of_other_shapes_are_refused(tmp_path: Path) -> None:
    model = MLPClassifier(norm="batch", **SMALL).fit(IRIS_X, NAMES)
    model.save(tmp_path / "a", state=True)
    arrays, text = checkpoint.read(tmp_path / "a")
    text.pop("format")
    for name, array in arrays.items():
        shorter = arrays | {name: array[:-1]}
        nothing = {k: v for k, v in arrays.items() if k != name}
        others = arrays | {name: array.astype(np.float32)}
        not_finite = arrays | {name: np.full_like(array, np.nan)}
        for bad in (shorter, nothing, others, not_finite):
            if bad is not_finite and name.startswith("state"):
                continue
            checkpoint.write(tmp_path / "b", bad, text)
            with pytest.raises(ValueError, match="b: "):
                MLPClassifier.load(tmp_path / "b")
    assert json.dumps(text)


# --- the network behind an estimator ---


@pytest.mark.parametrize("activation", ["relu", "logistic", "tanh", "identity"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_an_estimator_gives_its_network(kind: Any, activation: str, capsys: Any) -> None:
    rows = np.random.RandomState(0).randn(60, 4)
    y = rows[:, 0] > 0 if kind is MLPClassifier else rows[:, 0] * 2
    model = kind(hidden_layer_sizes=(5, 3), activation=activation, max_iter=300).fit(rows, y)
    net = model.to_network()
    answers = net.predict_proba(rows)[:, 0] if kind is MLPClassifier else net.predict(rows)
    wanted = model.predict_proba(rows)[:, 1] if kind is MLPClassifier else model.predict(rows)
    np.testing.assert_allclose(answers, wanted, rtol=1e-12)
    model.summary()
    assert "float64" in capsys.readouterr().out
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(model.to_onnx())


def test_a_trained_network_is_handed_out_as_a_copy() -> None:
    rows = np.random.RandomState(0).randn(60, 4)
    model = MLPClassifier((5,), dropout=0.2, norm="layer", max_iter=30).fit(rows, rows[:, 0] > 0)
    net = model.to_network()
    np.testing.assert_array_equal(net.predict_proba(rows)[:, 0], model.predict_proba(rows)[:, 1])
    before = model.predict_proba(rows)
    net.fit(rows, rows[:, 0] > 0)
    np.testing.assert_array_equal(model.predict_proba(rows), before)


class Capsule:
    """An array that shows itself through DLPack only."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_dlpack_arrays_are_data() -> None:
    rows = np.random.RandomState(0).randn(60, 4)
    labels = (rows[:, 0] > 0).astype(np.int64)
    plain = MLPClassifier((5,), max_iter=20, random_state=0).fit(rows, labels)
    other = MLPClassifier((5,), max_iter=20, random_state=0).fit(Capsule(rows), Capsule(labels))
    np.testing.assert_array_equal(plain.coefs_[0], other.coefs_[0])
    np.testing.assert_array_equal(plain.predict(rows), other.predict(Capsule(rows)))
    weights = np.linspace(0.5, 2, 60)
    watched: dict[str, Any] = {"early_stopping": True, "max_iter": 20, "random_state": 0}
    plain = MLPClassifier((5,), **watched, validation_data=(rows, labels))
    other = MLPClassifier((5,), **watched, validation_data=(Capsule(rows), Capsule(labels)))
    plain.fit(rows, labels, sample_weight=weights)
    other.fit(Capsule(rows), Capsule(labels), sample_weight=Capsule(weights))
    np.testing.assert_array_equal(plain.coefs_[0], other.coefs_[0])
    assert plain.validation_scores_ == other.validation_scores_


class Interface:
    """An array that shows itself through the array interface only."""

    def __init__(self, array: Array) -> None:
        self.__array_interface__ = array.__array_interface__
        self.array = array


def test_objects_with_the_array_interface_are_data() -> None:
    rows = np.random.RandomState(0).randn(60, 4)
    labels = (rows[:, 0] > 0).astype(np.int64)
    plain = MLPClassifier((5,), max_iter=20, random_state=0).fit(rows, labels)
    other = MLPClassifier((5,), max_iter=20, random_state=0).fit(Interface(rows), Interface(labels))
    np.testing.assert_array_equal(plain.coefs_[0], other.coefs_[0])
    np.testing.assert_array_equal(plain.predict_proba(rows), other.predict_proba(Interface(rows)))
    np.testing.assert_array_equal(plain.predict(rows), other.predict(Interface(rows)))


def test_a_summary_tells_how_long_a_fit_was(capsys: pytest.CaptureFixture[str]) -> None:
    for solver, words in (("adam", "trained    7 epochs"), ("lbfgs", "trained    7 iterations")):
        MLPClassifier((5,), solver=solver, max_iter=7, random_state=0).fit(IRIS_X, NAMES).summary()
        assert words in capsys.readouterr().out


# --- lbfgs, heard of ---


def test_callbacks_hear_of_each_iteration_of_lbfgs_and_change_no_bit() -> None:
    plain = MLPClassifier(**SMALL, solver="lbfgs").fit(IRIS_X, NAMES)
    heard: list[tuple[int, float, Array]] = []

    def hear(epoch: int, logs: dict[str, float], model: MLPClassifier) -> None:
        heard.append((epoch, logs["loss"], model.coefs_[0].copy()))

    model = MLPClassifier(**SMALL, solver="lbfgs", callbacks=hear, early_stopping=True)
    model.fit(IRIS_X, NAMES)
    assert [epoch for epoch, _, _ in heard] == list(range(6))
    losses = [loss for _, loss, _ in heard]
    assert losses == sorted(losses, reverse=True)
    assert heard[-1][1] == model.loss_ == plain.loss_
    assert model.n_iter_ == plain.n_iter_
    for ours, theirs in zip(model.coefs_, plain.coefs_, strict=True):
        assert (ours == theirs).all()
    assert (heard[-1][2] == model.coefs_[0]).all()


@pytest.mark.parametrize("way", ["answer", "exception", "time"])
def test_lbfgs_ends_where_it_is_told(way: str) -> None:
    heard: list[Array] = []

    def stop(epoch: int, logs: dict[str, float], model: MLPRegressor) -> bool:
        heard.append(model.coefs_[0].copy())
        if epoch == 2 and way == "exception":
            raise StopTraining
        return epoch == 2 and way == "answer"

    limit = 1e-9 if way == "time" else None
    model = MLPRegressor(**SMALL, solver="lbfgs", callbacks=[stop], time_limit=limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it did not fail to converge
        model.fit(X, Y)
    assert len(heard) == model.n_iter_ == (1 if way == "time" else 3)
    assert (heard[-1] == model.coefs_[0]).all()
    shorter = {**SMALL, "max_iter": model.n_iter_}
    short = MLPRegressor(**shorter, solver="lbfgs").fit(X, Y)
    assert (short.coefs_[0] == model.coefs_[0]).all()
    assert short.loss_ == model.loss_


@pytest.mark.parametrize("callbacks", [[3], [None], ["name"], [lamella.Callback]])
def test_callbacks_are_checked_before_work(callbacks: list[Any]) -> None:
    with pytest.raises(TypeError, match=r"^callbacks: expected .*, got"):
        MLPRegressor(**SMALL, callbacks=callbacks).fit(X, Y)
