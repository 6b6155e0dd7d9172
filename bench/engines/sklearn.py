"""scikit-learn: `MLPClassifier.partial_fit`, one call an epoch."""

import numpy as np
from sklearn.neural_network import MLPClassifier

from cases import LEARNING_RATE, Problem


class Engine:
    """One estimator; its start is written into `coefs_` and `intercepts_`."""

    def __init__(self, problem: Problem, variant: str, threads: int | None) -> None:
        self.problem, case = problem, problem.case
        self.classes = np.arange(max(case.layers[-1], 2))
        self.model = MLPClassifier(
            hidden_layer_sizes=case.layers[1:-1],
            activation="relu",
            solver="adam",
            alpha=0.0,
            batch_size=case.batch,
            learning_rate_init=LEARNING_RATE,
            shuffle=False,
            random_state=0,
        )
        self.model.partial_fit(
            problem.X[: case.batch], problem.y[: case.batch], classes=self.classes
        )
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
        P = self.model.predict_proba(self.problem.X).astype(np.float64)
        return float(-np.mean(np.log(P[np.arange(len(P)), self.problem.y])))
