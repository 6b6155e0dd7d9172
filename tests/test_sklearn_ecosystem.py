"""The estimators in what people use scikit-learn's with: searches, pipelines, frames, workers."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import threadpoolctl
from conftest import Array
from sklearn import datasets
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingRandomSearchCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from lamella import _core
from lamella.sklearn import MLPClassifier, MLPRegressor

assert enable_halving_search_cv is not None
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module", autouse=True)
def workers() -> Any:
    """End joblib's workers, which would outlive the tests."""
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


@pytest.fixture(scope="module")
def cancer() -> tuple[Array, Array]:
    X, y = datasets.load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def frame() -> tuple[pd.DataFrame, pd.Series]:
    """Return a frame with numbers and categories, and what depends on both."""
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "length": rng.normal(size=200),
            "width": rng.normal(size=200) * 50,
            "kind": rng.choice(["ash", "beech", "oak"], size=200),
        }
    )
    y = (frame["length"] + (frame["kind"] == "oak") > 0.3).map({True: "yes", False: "no"})
    return frame, y


def small(**parameters: Any) -> MLPClassifier:
    settings = {
        "hidden_layer_sizes": (16,),
        "max_iter": 30,
        "random_state": 0,
        "learning_rate_init": 0.01,
    }
    return MLPClassifier(**{**settings, **parameters})


# --- copies -------------------------------------------------------------------------------------


def test_clones_are_unfitted_and_equal() -> None:
    estimator = small(dtype="float32", threads=2).fit([[0.0], [1.0]], [0, 1])
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params()
    assert not hasattr(copy, "coefs_")


def test_pickles_keep_answers_and_hold_no_network(cancer: tuple[Array, Array]) -> None:
    X, y = cancer
    estimator = small().fit(X, y)
    dumped = pickle.dumps(estimator)
    assert b"lamella._core" not in dumped
    loaded = pickle.loads(dumped)
    assert np.array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
    assert np.array_equal(loaded.coefs_[0], estimator.coefs_[0])


def test_memory_mapped_models_answer_and_go_on(cancer: tuple[Array, Array], tmp_path: Any) -> None:
    X, y = cancer
    estimator = small().fit(X, y)
    joblib.dump(estimator, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert np.array_equal(mapped.predict(X), estimator.predict(X))
    mapped.partial_fit(X, y)
    estimator.partial_fit(X, y)
    assert np.array_equal(mapped.coefs_[0], estimator.coefs_[0])


# --- searches and workers -----------------------------------------------------------------------


def test_grid_search_in_two_processes_finds_what_one_finds(cancer: tuple[Array, Array]) -> None:
    X, y = cancer
    grid = {"alpha": [1e-4, 1.0], "activation": ["relu", "tanh"]}
    searches = [GridSearchCV(small(), grid, cv=3, n_jobs=n).fit(X, y) for n in (1, 2)]
    scores = [search.cv_results_["mean_test_score"] for search in searches]
    assert np.array_equal(scores[0], scores[1])
    assert searches[1].best_score_ > 0.95


def test_halving_random_search(cancer: tuple[Array, Array]) -> None:
    X, y = cancer
    search = HalvingRandomSearchCV(
        small(),
        {"learning_rate_init": [1e-5, 1e-2], "hidden_layer_sizes": [(4,), (16,)]},
        resource="max_iter",
        max_resources=27,
        n_candidates=4,
        random_state=0,
        cv=2,
    ).fit(X, y)
    assert search.best_params_["learning_rate_init"] == 1e-2


def test_cross_validated_predictions_in_two_processes(cancer: tuple[Array, Array]) -> None:
    X, y = cancer
    one, two = (
        cross_val_predict(small(), X, y, cv=3, method="predict_proba", n_jobs=n) for n in (1, 2)
    )
    assert np.array_equal(one, two)
    assert np.mean(np.argmax(one, axis=1) == y) > 0.95


def test_workers_of_joblib_take_their_share_of_the_processors() -> None:
    """Two worker processes together have no more threads than there are processors."""
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        limits = joblib.Parallel(n_jobs=2)(joblib.delayed(_limit)() for _ in range(2))
    assert limits == [1, 1]


def _limit() -> int:
    return int(_core.info()["threads"])


def test_threads_of_joblib_share_one_process(cancer: tuple[Array, Array]) -> None:
    X, y = cancer
    jobs = joblib.Parallel(n_jobs=3, backend="threading")(
        joblib.delayed(small(random_state=seed).fit)(X, y) for seed in range(3)
    )
    for seed, job in enumerate(jobs):
        assert np.array_equal(job.coefs_[0], small(random_state=seed).fit(X, y).coefs_[0])


def test_threadpoolctl_finds_and_bounds_the_core() -> None:
    with threadpoolctl.threadpool_limits(limits=1):
        assert _core.info()["threads"] == 1
    assert "lamella" in {pool["user_api"] for pool in threadpoolctl.threadpool_info()}


def test_optuna_prunes_what_does_not_learn(cancer: tuple[Array, Array]) -> None:
    import optuna

    X, y = cancer
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Any) -> float:
        rate = trial.suggest_categorical("learning_rate_init", [1e-2, 1e-9])
        model = small(learning_rate_init=rate)
        for epoch in range(10):
            model.partial_fit(X[:400], y[:400], classes=[0, 1])
            trial.report(model.score(X[400:], y[400:]), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(model.score(X[400:], y[400:]))

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.GridSampler({"learning_rate_init": [1e-2, 1e-9]}, seed=1),
        pruner=optuna.pruners.ThresholdPruner(lower=0.8, n_warmup_steps=4),
    )
    study.optimize(objective, n_trials=2)
    states = {trial.params["learning_rate_init"]: trial.state.name for trial in study.trials}
    assert states == {1e-2: "COMPLETE", 1e-9: "PRUNED"}


# --- pipelines and frames -----------------------------------------------------------------------


def test_a_pipeline_over_columns_of_a_frame(frame: tuple[pd.DataFrame, pd.Series]) -> None:
    X, y = frame
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["length", "width"]),
            ("kinds", OneHotEncoder(sparse_output=False), ["kind"]),
        ]
    )
    model = make_pipeline(columns, small(max_iter=200)).set_output(transform="pandas").fit(X, y)
    assert model.score(X, y) > 0.9
    assert list(model[-1].classes_) == ["no", "yes"]
    assert list(model[-1].feature_names_in_) == list(columns.fit(X).get_feature_names_out())
    assert set(model.predict(X)) == {"no", "yes"}


def test_names_of_features_are_checked(frame: tuple[pd.DataFrame, pd.Series]) -> None:
    X, y = frame
    numbers = X[["length", "width"]]
    model = small().fit(numbers, y)
    assert list(model.feature_names_in_) == ["length", "width"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(numbers[["width", "length"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(numbers.to_numpy())


def test_sparse_columns_of_a_pipeline(frame: tuple[pd.DataFrame, pd.Series]) -> None:
    X, y = frame
    sparse = make_pipeline(OneHotEncoder(), small()).fit(X[["kind"]], y)
    dense = make_pipeline(OneHotEncoder(sparse_output=False), small()).fit(X[["kind"]], y)
    assert np.array_equal(sparse.predict_proba(X[["kind"]]), dense.predict_proba(X[["kind"]]))


def test_metadata_is_routed(cancer: tuple[Array, Array]) -> None:
    X, y = cancer
    weights = np.where(y == 1, 1.0, 0.0)
    weights[:20] = 0.1
    with sklearn.config_context(enable_metadata_routing=True):
        asks = small().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(
            make_pipeline(FunctionTransformer(), asks), {"mlpclassifier__alpha": [1e-4]}, cv=2
        )
        search.fit(X, y, sample_weight=weights)
        weighted = np.mean(search.predict(X) == 1)
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError):
            GridSearchCV(small(), {"alpha": [1e-4]}, cv=2).fit(X, y, sample_weight=weights)
    assert weighted > np.mean(small().fit(X, y).predict(X) == 1) + 0.05
    assert hasattr(small(), "set_partial_fit_request")


def test_ensembles(cancer: tuple[Array, Array]) -> None:
    X, y = cancer
    voters = [("mlp", small()), ("linear", LogisticRegression())]
    assert VotingClassifier(voters, voting="soft").fit(X, y).score(X, y) > 0.95
    bags = BaggingClassifier(small(), n_estimators=3, random_state=0, n_jobs=2).fit(X, y)
    assert bags.score(X, y) > 0.95
    two = MultiOutputClassifier(small()).fit(X, np.c_[y, 1 - y])
    assert two.predict(X).shape == (len(y), 2)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration(cancer: tuple[Array, Array], method: str) -> None:
    X, y = cancer
    calibrated = CalibratedClassifierCV(small(), method=method, cv=2).fit(X, y)
    assert calibrated.predict_proba(X).shape == (len(y), 2)
    assert calibrated.score(X, y) > 0.95


def test_curves_and_transformed_targets() -> None:
    X, y = datasets.load_diabetes(return_X_y=True)
    model = make_pipeline(
        StandardScaler(),
        TransformedTargetRegressor(
            MLPRegressor(
                hidden_layer_sizes=(16,), random_state=0, max_iter=60, learning_rate_init=1e-2
            ),
            transformer=StandardScaler(),
        ),
    )
    assert cross_val_score(model, X, y, cv=3).mean() > 0.3
    sizes, train, test = learning_curve(model, X, y, train_sizes=[50, 200], cv=2)
    assert train.shape == test.shape == (len(sizes), 2)


def test_inspection() -> None:
    rng = np.random.RandomState(0)
    X = rng.normal(size=(300, 3))
    y = 3 * X[:, 1]
    model = MLPRegressor(hidden_layer_sizes=(16,), random_state=0, max_iter=200).fit(X, y)
    importance = permutation_importance(model, X, y, n_repeats=3, random_state=0, n_jobs=2)
    assert np.argmax(importance.importances_mean) == 1
    average = partial_dependence(model, X, [1], kind="average")["average"][0]
    assert np.all(np.diff(average) > 0)


def test_html_and_text() -> None:
    estimator = small(threads=2)
    assert repr(estimator) == (
        "MLPClassifier(hidden_layer_sizes=(16,), learning_rate_init=0.01, max_iter=30,\n"
        "              random_state=0, threads=2)"
    )
    html = make_pipeline(StandardScaler(), estimator)._repr_html_()
    assert "MLPClassifier" in html
    assert "threads" in html


def test_no_warning_comes_from_a_fit_that_ends_well(cancer: tuple[Array, Array]) -> None:
    X, y = cancer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = small(tol=0.1, max_iter=200).fit(X, y)
    assert model.n_iter_ < 200
