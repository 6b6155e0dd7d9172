"""scikit-learn's checks of estimators that keep its protocol; none is expected to fail."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from lamella.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings(
    "default::UserWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)

ESTIMATORS = [
    MLPClassifier(max_iter=100),
    MLPRegressor(max_iter=100),
    MLPClassifier(solver="lbfgs", hidden_layer_sizes=(10,), dtype="float64", threads=1),
    MLPRegressor(solver="sgd", hidden_layer_sizes=(10,), learning_rate="adaptive", threads=2),
]


@parametrize_with_checks(ESTIMATORS)  # type: ignore[untyped-decorator]
def test_the_protocol(estimator: Any, check: Any) -> None:
    """One check of one estimator."""
    check(estimator)
