"""scikit-learn: `MLPClassifier.partial_fit` or `MLPRegressor.partial_fit`, one call an epoch.

The regressor's own loss is half the squared error, summed over outputs in its gradient: the mean
squared error times half the outputs. Adam's steps do not feel the factor (its epsilon aside), so
that the same network is trained; the mean squared error is what `loss` returns.
"""

from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from cases import LEARNING_RATE, Problem


class Engine:
    """One estimator; its start is written into `coefs_` and `intercepts_`."""

    def __init__(self, problem: Problem, variant: str, threads: int | None) -> None:
        self.problem, case = problem, problem.case
        self.regression = case.loss == "squared_error"
        estimator: Any = MLPRegressor if self.regression else MLPClassifier
        self.model = estimator(
            hidden_layer_sizes=case.layers[1:-1],
            activation="relu",
            solver="adam",
            alpha=0.0,
            batch_size=case.batch,
            learning_rate_init=LEARNING_RATE,
            shuffle=False,
            random_state=0,
        )
        labels = {} if self.regression else {"classes": np.arange(max(case.layers[-1], 2))}
        self.model.partial_fit(problem.X[: case.batch], problem.y[: case.batch], **labels)
        self.restart()

    def restart(self) -> None:
        self.model.coefs_ = [np.ascontiguousarray(W.T) for W in self.problem.weights]
        self.model.intercepts_ = [b.copy() for b in self.problem.biases]
        vars(self.model).pop("_optimizer", None)  # partial_fit makes a fresh one

    def train(self, batches: int, epochs: int) -> None:
        rows = batches * self.problem.case.batch
        X, y = self.problem.X[:rows], self.problem.y[:rows]
        for _ in range(epochs):
            self.model.partial_fit(X, y)

    def loss(self) -> float:
        if self.regression:
            return float(np.mean((self.model.predict(self.problem.X) - self.problem.y) ** 2.0))
        P = self.model.predict_proba(self.problem.X).astype(np.float64)
        return float(-np.mean(np.log(P[np.arange(len(P)), self.problem.y])))
