"""NumPy: the gradient step written by hand, with every temporary kept.

Adam runs over all parameters as one flat array, in blocks that stay in a core's cache. That is
faster than the loop over layers that most people write.
"""

import math

import numpy as np

from cases import LEARNING_RATE, Array, Problem

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
BLOCK = 32 * 1024  # elements of a parameter block: five arrays of 128 KiB in float32


class Engine:
    """One network, its buffers, and its Adam state."""

    def __init__(self, problem: Problem, variant: str, threads: int | None) -> None:
        self.problem, case = problem, problem.case
        kind = problem.X.dtype
        size = sum(W.size + b.size for W, b in zip(problem.weights, problem.biases, strict=True))
        self.flat, self.grad, self.m, self.v = (np.zeros(size, kind) for _ in range(4))
        self.scratch = np.empty(min(size, BLOCK), kind)
        self.weights, self.biases = self.views(self.flat)  # (n_in, n_out), (n_out,)
        self.dweights, self.dbiases = self.views(self.grad)
        self.A = [np.empty((case.batch, n), kind) for n in case.layers[1:]]
        self.dA = [np.empty((case.batch, n), kind) for n in case.layers[1:]]
        self.active = [np.empty((case.batch, n), bool) for n in case.layers[1:-1]]
        self.rows = np.arange(case.batch)
        y = problem.y if case.loss == "squared_error" else problem.y[:, None]
        self.y = y.astype(kind, copy=False)
        self.restart()

    def views(self, flat: Array) -> tuple[list[Array], list[Array]]:
        """Cut a flat array into weights (n_in, n_out) and biases (n_out,)."""
        weights, biases, at = [], [], 0
        for W in self.problem.weights:
            n_out, n_in = W.shape
            weights.append(flat[at : at + W.size].reshape(n_in, n_out))
            at += W.size
            biases.append(flat[at : at + n_out])
            at += n_out
        return weights, biases

    def restart(self) -> None:
        for view, W in zip(self.weights, self.problem.weights, strict=True):
            view[...] = W.T
        for view, b in zip(self.biases, self.problem.biases, strict=True):
            view[...] = b
        self.m[...] = 0
        self.v[...] = 0
        self.steps = 0

    def train(self, batches: int, epochs: int) -> None:
        size = self.problem.case.batch
        for _ in range(epochs):
            for start in range(0, batches * size, size):
                self.step(start, start + size)

    def step(self, start: int, stop: int) -> None:
        X = self.problem.X[start:stop]
        self.forward(X, self.A)
        self.output_gradient(start, stop)
        self.backward(X)
        self.steps += 1
        self.adam()

    def forward(self, X: Array, outputs: list[Array]) -> None:
        A = X
        for W, b, Z in zip(self.weights, self.biases, outputs, strict=True):
            np.matmul(A, W, out=Z)
            Z += b
            if Z is not outputs[-1]:
                np.maximum(Z, 0, out=Z)
            A = Z

    def output_gradient(self, start: int, stop: int) -> None:
        """Write the mean loss's gradient by the logits.

        It is (softmax or sigmoid - target) / rows, and 2 (value - target) / (rows outputs).
        """
        Z, dZ = self.A[-1], self.dA[-1]
        if self.problem.case.loss == "cross_entropy":
            np.subtract(Z, Z.max(axis=1, keepdims=True), out=dZ)
            np.exp(dZ, out=dZ)
            dZ /= dZ.sum(axis=1, keepdims=True)
            dZ[self.rows, self.problem.y[start:stop]] -= 1
        elif self.problem.case.loss == "squared_error":
            np.subtract(Z, self.y[start:stop], out=dZ)
            dZ *= 2 / Z.shape[1]
        else:
            np.negative(Z, out=dZ)
            np.exp(dZ, out=dZ)
            dZ += 1
            np.reciprocal(dZ, out=dZ)
            dZ -= self.y[start:stop]
        dZ /= stop - start

    def backward(self, X: Array) -> None:
        for layer in reversed(range(len(self.weights))):
            dZ = self.dA[layer]
            A_prev = self.A[layer - 1] if layer else X
            np.matmul(A_prev.T, dZ, out=self.dweights[layer])
            np.sum(dZ, axis=0, out=self.dbiases[layer])
            if layer:
                dA = self.dA[layer - 1]
                np.matmul(dZ, self.weights[layer].T, out=dA)
                np.greater(A_prev, 0, out=self.active[layer - 1])
                dA *= self.active[layer - 1]

    def adam(self) -> None:
        root = math.sqrt(1 - BETA2**self.steps)
        rate, epsilon = LEARNING_RATE * root / (1 - BETA1**self.steps), EPSILON * root
        for at in range(0, self.flat.size, BLOCK):
            block = slice(at, at + BLOCK)
            p, g, m, v = self.flat[block], self.grad[block], self.m[block], self.v[block]
            t = self.scratch[: p.size]
            m *= BETA1
            np.multiply(g, 1 - BETA1, out=t)
            m += t
            v *= BETA2
            np.multiply(g, g, out=t)
            t *= 1 - BETA2
            v += t
            np.sqrt(v, out=t)
            t += epsilon
            np.divide(m, t, out=t)
            t *= rate
            p -= t

    def loss(self) -> float:
        A = [
            np.empty((len(self.problem.X), n), A.dtype)
            for n, A in zip(self.problem.case.layers[1:], self.A, strict=True)
        ]
        self.forward(self.problem.X, A)
        Z = A[-1].astype(np.float64)
        if self.problem.case.loss == "cross_entropy":
            Z -= Z.max(axis=1, keepdims=True)
            picked = Z[np.arange(len(Z)), self.problem.y]
            return float(np.mean(np.log(np.exp(Z).sum(axis=1)) - picked))
        if self.problem.case.loss == "squared_error":
            return float(np.mean((Z - self.y) ** 2))
        return float(np.mean(np.logaddexp(0, Z) - self.y * Z))
