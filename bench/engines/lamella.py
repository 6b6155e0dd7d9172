"""Lamella: one `Network.fit` call.

The variant `bf16` is mixed precision: bfloat16 operands, float32 sums, parameters and state.
"""

import lamella
from cases import LEARNING_RATE, Problem

OUTPUTS = {
    "binary_cross_entropy": "sigmoid",
    "cross_entropy": "softmax",
    "squared_error": "identity",
}


class Engine:
    """One `lamella.Network`."""

    def __init__(self, problem: Problem, variant: str, threads: int | None) -> None:
        self.problem, self.threads = problem, threads
        self.dtype = "bfloat16" if variant == "bf16" else problem.case.dtype
        self.optimizer = lamella.Adam(LEARNING_RATE)
        self.restart()

    def restart(self) -> None:
        case = self.problem.case
        output = OUTPUTS[case.loss]
        self.network = lamella.Network(list(case.layers), output=output, dtype=self.dtype)
        pairs = enumerate(zip(self.problem.weights, self.problem.biases, strict=True), 1)
        self.network.parameters = {
            name: array
            for layer, pair in pairs
            for name, array in zip((f"W{layer}", f"b{layer}"), pair, strict=True)
        }

    def train(self, batches: int, epochs: int) -> None:
        rows = batches * self.problem.case.batch
        self.network.fit(
            self.problem.X[:rows],
            self.problem.y[:rows],
            epochs=epochs,
            shuffle=False,
            batch_size=self.problem.case.batch,
            optimizer=self.optimizer,
            threads=self.threads,
        )

    def loss(self) -> float:
        return float(self.network.evaluate(self.problem.X, self.problem.y)["loss"])
