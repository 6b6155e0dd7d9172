"""The estimators against scikit-learn's own: same data, same random state, same everything.

Coefficients agree to 1e-9 (max |a - b| over max |b|, per array) after 50 epochs in float64, with
equal epochs and loss curves, whatever the option; lbfgs's objective agrees to 1e-12.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from conftest import Array, difference
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

import lamella.sklearn

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning"
)

BOUND = 1e-9
EPOCHS = 50


@pytest.fixture(autouse=True, scope="module")
def one_thread_of_blas() -> Iterator[None]:
    """Keep scikit-learn's threads from waiting for one another on a busy machine."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def digits(n: int = 500) -> tuple[Array, Array]:
    X, y = datasets.load_digits(return_X_y=True)
    return X[:n] / 16, y[:n]


def cancer() -> tuple[Array, Array]:
    X, y = datasets.load_breast_cancer(return_X_y=True)
    return scale(X), y


def raw_cancer() -> tuple[Array, Array]:
    return datasets.load_breast_cancer(return_X_y=True)  # type: ignore[no-any-return]


def diabetes() -> tuple[Array, Array]:
    X, y = datasets.load_diabetes(return_X_y=True)
    return scale(X), scale(y)


def two_targets() -> tuple[Array, Array]:
    X, y = diabetes()
    return X, np.c_[y, np.abs(y) - X[:, 0]]


def counts() -> tuple[Array, Array]:
    X, y = diabetes()
    return X, np.floor(np.abs(3 * y))


def labels() -> tuple[Array, Array]:
    return datasets.make_multilabel_classification(  # type: ignore[no-any-return]
        n_samples=300, n_features=12, n_classes=4, random_state=0
    )


def sparse_digits() -> tuple[Any, Array]:
    X, y = digits(300)
    return scipy.sparse.csr_matrix(X), y


def columns_of_digits() -> tuple[Any, Array]:
    X, y = digits(300)
    return scipy.sparse.csc_array(X), y


def doubled_digits() -> tuple[Any, Array]:
    """Return rows each of whose entries are stored in two halves, unsorted."""
    X, y = digits(200)
    half = scipy.sparse.coo_array(X / 2)
    rows, columns = (np.r_[part, part] for part in half.coords)
    order = np.argsort(rows, kind="stable")
    entries = np.r_[half.data, half.data][order]
    starts = np.searchsorted(rows[order], np.arange(len(X) + 1))
    return scipy.sparse.csr_array((entries, columns[order], starts), shape=X.shape), y


CLASSIFIER, REGRESSOR = "MLPClassifier", "MLPRegressor"
CASES: dict[str, tuple[str, Callable[[], tuple[Any, Array]], dict[str, Any]]] = {
    "digits-adam": (CLASSIFIER, digits, {}),
    "digits-sgd": (CLASSIFIER, digits, {"solver": "sgd", "learning_rate_init": 0.05}),
    "digits-plain-momentum": (
        CLASSIFIER,
        digits,
        {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.05},
    ),
    "digits-descent": (CLASSIFIER, digits, {"solver": "sgd", "momentum": 0.0}),
    "digits-all-momentum": (
        CLASSIFIER,
        digits,
        {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4},
    ),
    "digits-inverse-scaling": (
        CLASSIFIER,
        digits,
        {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5, "power_t": 0.3},
    ),
    "digits-adaptive": (
        CLASSIFIER,
        digits,
        {
            "solver": "sgd",
            "learning_rate": "adaptive",
            "learning_rate_init": 0.5,
            "tol": 0.05,
            "n_iter_no_change": 2,
        },
    ),
    "digits-early-stopping": (
        CLASSIFIER,
        digits,
        {"early_stopping": True, "n_iter_no_change": 5, "tol": 1e-3, "validation_fraction": 0.2},
    ),
    "digits-betas": (CLASSIFIER, digits, {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-4}),
    "digits-no-second-moment": (CLASSIFIER, digits, {"beta_2": 0.0, "max_iter": 3}),
    "digits-deep-tanh": (
        CLASSIFIER,
        digits,
        {"hidden_layer_sizes": (30, 7, 20), "activation": "tanh", "batch_size": 64},
    ),
    "digits-logistic": (CLASSIFIER, digits, {"activation": "logistic", "alpha": 0.1}),
    "digits-identity": (CLASSIFIER, digits, {"activation": "identity", "alpha": 0.0}),
    "digits-in-order": (CLASSIFIER, digits, {"shuffle": False, "batch_size": 33}),
    "digits-one-batch": (CLASSIFIER, digits, {"batch_size": 500}),
    "digits-stops": (CLASSIFIER, digits, {"tol": 0.1, "n_iter_no_change": 2}),
    "digits-sparse": (CLASSIFIER, sparse_digits, {}),
    "digits-sparse-columns": (CLASSIFIER, columns_of_digits, {"early_stopping": True}),
    "digits-sparse-doubled": (CLASSIFIER, doubled_digits, {}),
    "cancer-adam": (CLASSIFIER, cancer, {}),
    "cancer-unscaled": (CLASSIFIER, raw_cancer, {}),
    "cancer-early-stopping": (CLASSIFIER, cancer, {"early_stopping": True, "solver": "sgd"}),
    "labels-adam": (CLASSIFIER, labels, {}),
    "labels-early-stopping": (CLASSIFIER, labels, {"early_stopping": True}),
    "diabetes-adam": (REGRESSOR, diabetes, {}),
    "diabetes-sgd": (REGRESSOR, diabetes, {"solver": "sgd", "hidden_layer_sizes": (20, 20)}),
    "diabetes-early-stopping": (
        REGRESSOR,
        diabetes,
        {"early_stopping": True, "activation": "tanh"},
    ),
    "diabetes-two-targets": (REGRESSOR, two_targets, {"alpha": 1.0}),
    "diabetes-poisson": (REGRESSOR, counts, {"loss": "poisson"}),
}


def pair(name: str, *, seed: Any = 3, max_iter: int = EPOCHS, **parameters: Any) -> tuple[Any, Any]:
    """Return this package's estimator and scikit-learn's of the same name, unfitted."""
    parameters = {"tol": 0.0, "max_iter": max_iter, **parameters}
    modules = (lamella.sklearn, neural_network)
    made = (getattr(m, name)(random_state=copy.deepcopy(seed), **parameters) for m in modules)
    ours, theirs = made
    return ours, theirs


def agree(ours: Any, theirs: Any, bound: float = BOUND) -> None:
    """Assert that all fitted attributes agree."""
    public = {name for name in vars(theirs) if name.endswith("_") and not name.startswith("_")}
    assert public == {
        name for name in vars(ours) if name.endswith("_") and not name.startswith("_")
    }
    for kind in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(ours, kind), getattr(theirs, kind), strict=True):
            assert a.dtype == b.dtype
            assert a.flags.c_contiguous
            assert difference(a, b) <= bound, kind
    for name in ("n_iter_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "t_"):
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    for name in (
        "loss_",
        "loss_curve_",
        "best_loss_",
        "validation_scores_",
        "best_validation_score_",
    ):
        a, b = getattr(ours, name, None), getattr(theirs, name, None)
        assert (a is None) == (b is None), name
        if a is not None and b is not None:
            np.testing.assert_allclose(a, b, rtol=bound, atol=1e-15, err_msg=name)
    for name in ("_no_improvement_count",):
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    if hasattr(theirs, "_optimizer"):
        rates = ours._optimizer.learning_rate, theirs._optimizer.learning_rate
        assert rates[0] == pytest.approx(rates[1], rel=1e-12)
        assert getattr(ours._optimizer, "t", None) == getattr(theirs._optimizer, "t", None)


def same_answers(ours: Any, theirs: Any, X: Any) -> None:
    """Assert that predictions agree, dtypes too."""
    if hasattr(theirs, "predict_proba"):
        a, b = ours.predict_proba(X), theirs.predict_proba(X)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)
        assert np.array_equal(ours.predict(X), theirs.predict(X))
        np.testing.assert_allclose(
            ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-6, atol=1e-12
        )
    else:
        a, b = ours.predict(X), theirs.predict(X)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_fifty_epochs_end_at_the_same_coefficients(case: str) -> None:
    name, data, parameters = CASES[case]
    X, y = data()
    ours, theirs = pair(name, **parameters)
    agree(ours.fit(X, y), theirs.fit(X, y))
    same_answers(ours, theirs, X[:50])


@pytest.mark.parametrize(
    "case", ["digits-adam", "digits-one-batch", "cancer-unscaled", "labels-adam"]
)
@pytest.mark.filterwarnings("ignore:Got `batch_size`")  # held-out rows leave fewer than a batch
@pytest.mark.parametrize("early_stopping", [False, True])
def test_sample_weights_of_classifiers(case: str, early_stopping: bool) -> None:
    name, data, parameters = CASES[case]
    X, y = data()
    weights = np.random.RandomState(0).uniform(0, 3, len(y))
    ours, theirs = pair(name, early_stopping=early_stopping, max_iter=20, **parameters)
    agree(ours.fit(X, y, weights), theirs.fit(X, y, weights))


@pytest.mark.parametrize("parameters", [{}, {"loss": "poisson"}, {"solver": "sgd", "alpha": 2.0}])
def test_sample_weights_of_regressors(parameters: dict[str, Any]) -> None:
    X, y = counts()
    weights = np.random.RandomState(0).randint(0, 4, len(y))
    ours, theirs = pair(REGRESSOR, max_iter=20, **parameters)
    agree(ours.fit(X, y, weights), theirs.fit(X, y, weights))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_targets_below_zero_have_no_poisson_loss(early_stopping: bool) -> None:
    X, y = counts()
    settings: dict[str, Any] = {"loss": "poisson", "early_stopping": early_stopping, "tol": 1e-2}
    ours, theirs = pair(REGRESSOR, max_iter=20, **settings)
    agree(ours.fit(X, y - 5), theirs.fit(X, y - 5))
    assert np.isnan(ours.loss_curve_).all()


def test_a_batch_whose_weights_are_all_zero_is_an_error_as_there() -> None:
    X, y = diabetes()
    for estimator in pair(REGRESSOR, max_iter=2, batch_size=100):
        with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
            estimator.fit(X, y, np.arange(len(y)) == 7)


# --- the generator ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters", [{}, {"early_stopping": True}, {"tol": 0.2}, {"shuffle": False}]
)
def test_a_random_state_ends_where_scikit_learn_leaves_it(parameters: dict[str, Any]) -> None:
    X, y = digits(300)
    states = [np.random.RandomState(5), np.random.RandomState(5)]
    for state, module in zip(states, (lamella.sklearn, neural_network), strict=True):
        estimator = module.MLPClassifier(
            random_state=state, max_iter=30, n_iter_no_change=3, **parameters
        )
        estimator.fit(X, y).fit(X, y)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(states[0].get_state(), states[1].get_state(), strict=True)
    )


def test_without_a_random_state_the_global_one_is_drawn_from() -> None:
    X, y = digits(200)
    fitted = []
    for module in (lamella.sklearn, neural_network):
        np.random.seed(11)
        fitted.append(module.MLPClassifier(max_iter=5).fit(X, y))
    agree(*fitted)


# --- going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_warm_starts(solver: str, early_stopping: bool) -> None:
    X, y = digits(300)
    parameters = {"solver": solver, "early_stopping": early_stopping, "learning_rate": "invscaling"}
    ours, theirs = pair(CLASSIFIER, max_iter=10, warm_start=True, **parameters)
    for _ in range(3):
        agree(ours.fit(X, y), theirs.fit(X, y))


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("name", [CLASSIFIER, REGRESSOR])
def test_partial_fits_through_pickles_and_copies(solver: str, name: str) -> None:
    X, y = digits(300) if name == CLASSIFIER else diabetes()
    ours, theirs = pair(name, solver=solver, learning_rate="adaptive", tol=1e-3)
    first = {"classes": np.arange(10)} if name == CLASSIFIER else {}
    for turn in range(12):
        rows = slice(20 * turn, 20 * turn + 50)
        for estimator in (ours, theirs):
            estimator.partial_fit(X[rows], y[rows], **(first if turn == 0 else {}))
        if turn == 3:
            ours = pickle.loads(pickle.dumps(ours))
        if turn == 6:
            ours = copy.deepcopy(ours)
        if turn == 9:
            # Not a state that anybody should depend on, but one that a search may make.
            ours.set_params(activation="tanh")
            theirs.set_params(activation="tanh")
        agree(ours, theirs)


def test_a_fit_after_another_solver_and_partial_fit_after_a_fit() -> None:
    X, y = digits(300)
    ours, theirs = pair(CLASSIFIER, max_iter=5)
    for estimator in (ours, theirs):
        estimator.fit(X, y).partial_fit(X[:70], y[:70])
    agree(ours, theirs)
    for estimator in (ours, theirs):
        estimator.set_params(solver="sgd", warm_start=True).fit(X, y)
    agree(ours, theirs)


def test_refitting_changes_layers_and_arrays_are_updated_in_place() -> None:
    X, y = digits(300)
    ours, theirs = pair(CLASSIFIER, max_iter=5)
    agree(ours.fit(X, y), theirs.fit(X, y))
    held = ours.coefs_[0]
    ours.partial_fit(X, y)
    assert held is ours.coefs_[0]
    for estimator in (ours, theirs):
        estimator.set_params(hidden_layer_sizes=[8, 9]).fit(X[:, :20], y)
    agree(ours, theirs)


# --- what users write ---------------------------------------------------------------------------


def test_predictions_use_what_was_written_into_coefs() -> None:
    X, y = digits(300)
    ours, theirs = pair(CLASSIFIER, max_iter=5)
    ours.fit(X, y)
    theirs.fit(X, y)
    for estimator in (ours, theirs):
        estimator.coefs_[1] *= 0.5
        estimator.coefs_[0][3, :] = 1.0
        estimator.intercepts_[1] = np.arange(10.0)
    same_answers(ours, theirs, X)
    before = ours.predict_proba(X)
    for estimator in (ours, theirs):
        estimator.partial_fit(X, y)
    agree(ours, theirs)
    assert not np.array_equal(before, ours.predict_proba(X))


def test_threads_that_predict_while_another_writes() -> None:
    X, y = digits(300)
    ours = lamella.sklearn.MLPClassifier(max_iter=2).fit(X, y)
    failures: list[BaseException] = []

    def predict() -> None:
        try:
            for _ in range(50):
                ours.predict(X)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        ours.coefs_[0] = ours.coefs_[0] * 1.01
    for thread in threads:
        thread.join()
    assert failures == []


# --- lbfgs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_lbfgs_sees_the_same_objective(case: str) -> None:
    name, data, parameters = CASES[case]
    X, y = data()
    parameters = {k: v for k, v in parameters.items() if k in ("alpha", "activation", "loss")}
    weights = None if len(y) % 2 else np.random.RandomState(1).uniform(0, 2, len(y))
    ours, theirs = pair(name, solver="lbfgs", max_iter=1, **parameters)
    points: list[list[tuple[float, Array]]] = [[], []]
    for estimator, seen in zip((ours, theirs), points, strict=True):
        evaluate = estimator._loss_grad_lbfgs

        def look(x: Array, *rest: Any, evaluate: Any = evaluate, seen: Any = seen) -> Any:
            value, gradient = evaluate(x, *rest)
            seen.append((value, gradient.copy()))
            return value, gradient

        estimator._loss_grad_lbfgs = look
        estimator.fit(X, y, weights)
        del estimator._loss_grad_lbfgs
    (loss, gradient), (wanted, wanted_gradient) = points[0][0], points[1][0]
    assert loss == pytest.approx(wanted, rel=1e-12)
    assert difference(gradient, wanted_gradient) <= 1e-12


@pytest.mark.parametrize(
    "case", ["digits-adam", "cancer-adam", "diabetes-adam", "diabetes-poisson"]
)
def test_lbfgs_ends_as_low(case: str) -> None:
    name, data, parameters = CASES[case]
    X, y = data()
    X, y = X[:200], y[:200]
    parameters = {**parameters, "alpha": 1.0, "hidden_layer_sizes": (20,), "max_iter": 200}
    ours, theirs = pair(name, solver="lbfgs", **parameters)
    assert ours.fit(X, y).loss_ == pytest.approx(theirs.fit(X, y).loss_, rel=1e-2)
    assert not hasattr(ours, "loss_curve_")
    assert hasattr(ours, "partial_fit") == hasattr(theirs, "partial_fit")


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"verbose": True, "tol": 0.05, "n_iter_no_change": 2},
        {"verbose": True, "early_stopping": True, "tol": 0.05, "n_iter_no_change": 2},
        {
            "verbose": 10,
            "solver": "sgd",
            "learning_rate": "adaptive",
            "tol": 0.5,
            "n_iter_no_change": 1,
            "learning_rate_init": 1e-5,
        },
    ],
)
def test_verbose_fits_print_the_same(
    parameters: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = digits(200)
    printed = []
    for estimator in pair(CLASSIFIER, **parameters):
        estimator.fit(X, y)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "Stopping." in printed[0]


def messages(work: Callable[[], Any]) -> list[tuple[type, str]]:
    """Return the warnings of some work, or the exception."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            work()
        except Exception as error:
            return [(type(error), str(error))]
    return [(one.category, str(one.message)) for one in seen if one.category is not RuntimeWarning]


WRONG: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "not-converged": (CLASSIFIER, {"max_iter": 2}, lambda e: e.fit(*digits(100))),
    "large-batch": (CLASSIFIER, {"max_iter": 2, "batch_size": 999}, lambda e: e.fit(*digits(100))),
    "diverged": (
        REGRESSOR,
        {"solver": "sgd", "learning_rate_init": 1e6, "max_iter": 4},
        lambda e: e.fit(*diabetes()),
    ),
    "diverged-lbfgs": (
        REGRESSOR,
        {"solver": "lbfgs", "activation": "identity", "max_iter": 4},
        lambda e: e.fit(np.full((9, 2), 1e300), np.arange(9.0)),
    ),
    "no-layer": (CLASSIFIER, {"hidden_layer_sizes": (3, 0)}, lambda e: e.fit(*digits(100))),
    "bad-solver": (CLASSIFIER, {"solver": "adamant"}, lambda e: e.fit(*digits(100))),
    "bad-momentum": (CLASSIFIER, {"momentum": 1.5}, lambda e: e.fit(*digits(100))),
    "nan": (CLASSIFIER, {}, lambda e: e.fit(np.full((4, 2), np.nan), [0, 1, 0, 1])),
    "one-column-y": (
        CLASSIFIER,
        {"max_iter": 1},
        lambda e: e.fit(*digits(60)[:1], digits(60)[1][:, None]),
    ),
    "unfitted": (CLASSIFIER, {}, lambda e: e.predict([[0.0]])),
    "features": (
        CLASSIFIER,
        {"max_iter": 300},
        lambda e: e.fit([[0.0], [1.0]], [0, 1]).predict([[0.0, 1.0]]),
    ),
    "classes": (CLASSIFIER, {}, lambda e: e.partial_fit([[0.0]], [0])),
    "unseen": (
        CLASSIFIER,
        {},
        lambda e: e.partial_fit([[0.0]], [0], classes=[0, 1]).partial_fit([[0.0]], [2]),
    ),
    "warm": (
        CLASSIFIER,
        {"warm_start": True, "max_iter": 300},
        lambda e: e.fit([[0.0], [1.0]], [0, 1]).fit([[0.0], [1.0]], [0, 2]),
    ),
    "early-partial": (REGRESSOR, {"early_stopping": True}, lambda e: e.partial_fit(*diabetes())),
    "small-validation": (
        REGRESSOR,
        {"early_stopping": True},
        lambda e: e.fit([[0.0], [1.0]], [0, 1]),
    ),
    "weights": (REGRESSOR, {}, lambda e: e.fit(*diabetes(), sample_weight=[1.0, 2.0])),
}


@pytest.mark.parametrize("case", WRONG)
def test_exceptions_and_warnings_are_the_same(case: str) -> None:
    name, parameters, work = WRONG[case]
    ours, theirs = pair(name, **parameters)
    expected = messages(lambda: work(theirs))
    got = messages(lambda: work(ours))
    assert expected
    assert got == [(kind, text.replace("sklearn.neural_network", "")) for kind, text in expected]


def test_divergence_under_early_stopping_restores_the_best() -> None:
    X, y = diabetes()
    ours, theirs = pair(
        REGRESSOR, solver="sgd", learning_rate_init=10, early_stopping=True, max_iter=9
    )
    for estimator in (ours, theirs):
        estimator.fit(X, y)
        assert np.isnan(estimator.validation_scores_[-1])
    assert len(ours.loss_curve_) == len(theirs.loss_curve_)
    assert all(np.isfinite(weights).all() for weights in ours.coefs_)


def test_warnings_name_the_line_that_called_fit() -> None:
    X, y = digits(100)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        lamella.sklearn.MLPClassifier(max_iter=1, batch_size=999).fit(X, y)
    assert [one.filename for one in seen] == [__file__] * 2


def test_filters_by_module_find_the_warnings() -> None:
    X, y = digits(100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match="hasn't converged yet"):
            lamella.sklearn.MLPClassifier(max_iter=1).fit(X, y)
        warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
        lamella.sklearn.MLPClassifier(max_iter=1).fit(X, y)


@pytest.mark.parametrize("name", [CLASSIFIER, REGRESSOR])
@pytest.mark.filterwarnings("ignore")
def test_what_diverged_answers_and_is_refused_as_there(name: str) -> None:
    X, y = diabetes()
    y = (y > 100).astype(int) if name == CLASSIFIER else y
    estimators = pair(name, max_iter=2, warm_start=True)
    for estimator in estimators:
        estimator.fit(X, y)
        estimator.coefs_[0][0, 0] = np.nan
    ours, theirs = estimators
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    for estimator in estimators:
        for fit in (estimator.fit, estimator.partial_fit):
            with pytest.raises(ValueError, match=r"^Solver produced non-finite parameter weights"):
                fit(X, y)


def test_fitted_numbers_are_numpys() -> None:
    X, y = diabetes()
    for estimator in pair(REGRESSOR, max_iter=2, early_stopping=False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(X, y)
        for number in (estimator.loss_, estimator.best_loss_, *estimator.loss_curve_):
            assert type(number) is np.float64


def test_weights_of_sparse_labels_are_those_of_dense_ones() -> None:
    X, y = digits(100)
    labels = np.eye(10, dtype=int)[y][:, :2]
    given: dict[str, Any] = {"class_weight": [{0: 1.0, 1: 5.0}, {0: 2.0, 1: 1.0}], "max_iter": 3}
    weights = np.linspace(1, 2, len(y))
    dense, sparse, plain = (
        lamella.sklearn.MLPClassifier(random_state=0, **settings) for settings in (given, given, {})
    )
    dense.fit(X, labels, weights)
    sparse.fit(X, scipy.sparse.csr_matrix(labels), weights)
    plain.set_params(max_iter=3).fit(X, labels, weights)
    assert (dense.coefs_[0] == sparse.coefs_[0]).all()
    assert (dense.coefs_[0] != plain.coefs_[0]).any()


WRONG_LABELS: dict[str, dict[str, Any]] = {
    "none": {"y": None},
    "NaN": {"y": np.where(np.arange(100) < 3, np.nan, 1.0)},
    "short weights": {"sample_weight": np.ones(3)},
    "weights of text": {"sample_weight": "a"},
}


@pytest.mark.parametrize("case", WRONG_LABELS)
def test_class_weights_leave_the_checks_to_scikit_learn(case: str) -> None:
    X, y = digits(100)
    arguments = {"X": X, "y": y, **WRONG_LABELS[case]}
    plain = lamella.sklearn.MLPClassifier()
    weighted = lamella.sklearn.MLPClassifier(class_weight="balanced")
    expected = messages(lambda: plain.fit(**arguments))
    assert expected
    assert messages(lambda: weighted.fit(**arguments)) == expected


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_warns_and_returns() -> None:
    X, y = digits(500)
    estimator = lamella.sklearn.MLPClassifier(
        max_iter=10**6, tol=0, n_iter_no_change=10**9, hidden_layer_sizes=(200, 200)
    )
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.warns(UserWarning, match="Training interrupted by user"):
            estimator.fit(X, y)
    finally:
        timer.join()
    assert 0 < estimator.n_iter_ == len(estimator.loss_curve_)
    assert estimator.score(X, y) > 0.5
    estimator.partial_fit(X, y)


# --- dtypes and what is added -------------------------------------------------------------------


@pytest.mark.parametrize("name", [CLASSIFIER, REGRESSOR])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "uint8", ">f8", "bool"])
def test_dtypes_of_X(name: str, dtype: str) -> None:
    X, y = digits(300)
    X = (16 * X).astype(dtype)
    ours, theirs = pair(name, max_iter=5)
    ours.fit(X, y)
    theirs.fit(X, y)
    bound = 1e-3 if dtype == "float32" else BOUND
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        assert a.dtype == b.dtype
        assert difference(a, b) <= bound
    for other in (X, X.astype("float64"), X.astype("float32"), X[::2, :].tolist()):
        a, b = ours.predict(other), theirs.predict(other)
        assert a.dtype == b.dtype
        assert a.shape == b.shape


def test_dtype_is_that_of_parameters_and_answers() -> None:
    X, y = digits(300)
    narrow = lamella.sklearn.MLPClassifier(max_iter=30, random_state=0, dtype="float32").fit(X, y)
    same = lamella.sklearn.MLPClassifier(max_iter=30, random_state=0, dtype=np.float32).fit(X, y)
    given = lamella.sklearn.MLPClassifier(max_iter=30, random_state=0).fit(X.astype("float32"), y)
    wide = lamella.sklearn.MLPClassifier(max_iter=30, random_state=0, dtype="float64")
    wide.fit(X.astype("float32"), y)
    for a, b, c in zip(narrow.coefs_, same.coefs_, given.coefs_, strict=True):
        assert a.dtype == np.float32
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    assert narrow.predict_proba(X).dtype == np.float32
    assert wide.coefs_[0].dtype == np.float64
    assert wide.predict_proba(X.astype("float32")).dtype == np.float64
    assert difference(narrow.predict_proba(X), wide.predict_proba(X)) < 1e-2


def test_mixed_precision() -> None:
    X, y = digits(300)
    estimator = lamella.sklearn.MLPClassifier(max_iter=60, random_state=0, dtype="bfloat16")
    info = lamella._core.info()
    if "avx512bf16" not in info["features"] or info["isa"] not in ("amx", "avx512"):
        with pytest.raises(ValueError, match="bfloat16"):
            estimator.fit(X, y)
        return
    estimator.fit(X, y)
    plain = lamella.sklearn.MLPClassifier(max_iter=60, random_state=0, dtype="float32").fit(X, y)
    assert estimator.coefs_[0].dtype == np.float32
    assert not np.array_equal(estimator.coefs_[0], plain.coefs_[0])
    assert estimator.score(X, y) > 0.95


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_threads_change_no_bit(solver: str) -> None:
    X, y = digits(500)
    fitted = [
        lamella.sklearn.MLPClassifier(
            max_iter=5,
            random_state=0,
            solver=solver,
            threads=threads,
            early_stopping=solver == "sgd",
        ).fit(X, y)
        for threads in (1, 2, 3)
    ]
    for other in fitted[1:]:
        assert all(
            np.array_equal(a, b) for a, b in zip(fitted[0].coefs_, other.coefs_, strict=True)
        )
        assert fitted[0].loss_ == other.loss_


def test_callbacks_hear_of_every_epoch_and_change_nothing() -> None:
    X, y = digits(300)
    heard: list[tuple[int, float, float]] = []

    def hear(epoch: int, logs: dict[str, float], estimator: Any) -> None:
        heard.append((epoch, logs["loss"], estimator.score(X, y)))

    ours, theirs = pair(CLASSIFIER, max_iter=8)
    agree(ours.set_params(callbacks=hear).fit(X, y), theirs.fit(X, y))
    assert [epoch for epoch, _, _ in heard] == list(range(8))
    assert [loss for _, loss, _ in heard] == ours.loss_curve_
    assert heard[-1][2] == ours.score(X, y)
    assert heard[0][2] < heard[-1][2]


def test_callbacks_and_the_clock_end_a_fit() -> None:
    X, y = digits(300)

    class Third(lamella.Callback):
        def on_epoch_end(self, epoch: int, logs: Any, network: Any) -> bool:
            assert "val_score" in logs
            return epoch == 2

    def second(epoch: int, logs: Any, estimator: Any) -> None:
        if epoch == 1:
            raise lamella.callbacks.StopTraining

    settings: dict[str, Any] = {"max_iter": 10**6, "tol": 0, "n_iter_no_change": 10**6}
    make = lamella.sklearn.MLPClassifier
    stopped = make(early_stopping=True, callbacks=[Third()], **settings).fit(X, y)
    assert stopped.n_iter_ == 3
    assert make(callbacks=second, **settings).fit(X, y).n_iter_ == 2
    limited = make(time_limit=0.2, **settings).fit(X, y)
    assert 0 < limited.n_iter_ < 10**6


@pytest.mark.parametrize("weights", [None, 2.0, "rows"])
def test_weights_of_classes_are_weights_of_their_samples(weights: Any) -> None:
    X, y = cancer()
    rows = np.random.RandomState(0).uniform(0.5, 2, len(y)) if weights == "rows" else weights
    all_weights = np.where(y == 0, 3.0, 0.5) * (1.0 if rows is None else rows)
    ours, theirs = pair(CLASSIFIER, max_iter=10)
    ours.set_params(class_weight={0: 3.0, 1: 0.5}).fit(X, y, rows)
    agree(ours, theirs.fit(X, y, all_weights))
    balanced = lamella.sklearn.MLPClassifier(class_weight="balanced", random_state=3, max_iter=10)
    share = len(y) / (2 * np.bincount(y))
    same, _ = pair(CLASSIFIER, max_iter=10, tol=1e-4)
    agree(balanced.fit(X, y), same.fit(X, y, share[y]))
    with pytest.raises(ValueError, match="partial_fit"):
        balanced.partial_fit(X, y)


@pytest.mark.parametrize("class_weight", ["balanced", [{0: 1, 1: 3}, {0: 0.5, 1: 2}, {0: 1, 1: 1}]])
def test_weights_of_several_labels_are_multiplied(class_weight: Any) -> None:
    X, _ = cancer()
    y = np.random.RandomState(0).randint(0, 2, (len(X), 3))
    ours, theirs = pair(CLASSIFIER, max_iter=5)
    ours.set_params(class_weight=class_weight).fit(X, y)
    agree(ours, theirs.fit(X, y, compute_sample_weight(class_weight, y)))
    lacking = lamella.sklearn.MLPClassifier(class_weight={0: 1.0, 1: 2.0})
    with pytest.raises(ValueError, match="list of dicts"):
        lacking.fit(X, y)


@pytest.mark.parametrize(
    "parameters",
    [{"dtype": "float8"}, {"threads": 0}, {"threads": 1.5}, {"time_limit": 0}, {"callbacks": 3}],
)
def test_additions_are_checked_as_the_others_are(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"The '{next(iter(parameters))}' parameter"):
        lamella.sklearn.MLPRegressor(**parameters).fit(*diabetes())


def test_parameters_are_scikit_learns_and_a_few_more() -> None:
    for name in (CLASSIFIER, REGRESSOR):
        ours, theirs = (getattr(m, name)() for m in (lamella.sklearn, neural_network))
        none = "dtype threads callbacks time_limit progress activations norm optimizer clip_norm"
        none += " max_norm validation_data metric"
        more: dict[str, Any] = dict.fromkeys(none.split()) | {"dropout": 0.0, "residual": False}
        if name == CLASSIFIER:
            more |= {"class_weight": None, "loss": "log_loss"}
        assert ours.get_params() == theirs.get_params() | more
        assert isinstance(ours, type(theirs))


def test_the_package_does_not_import_scikit_learn() -> None:
    script = (
        "import sys, lamella; print({'sklearn', 'scipy', 'joblib', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"
