"""JAX: the step under `jax.jit`, its state donated.

Two variants: `loop` compiles the whole call, every step of every epoch, into one program
(`lax.scan` over the batches inside `lax.fori_loop`); `step` compiles one step, and Python calls
it.
"""

from typing import Any

import jax
import jax.numpy as jnp

from cases import LEARNING_RATE, Problem

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Engine:
    """One network as a pytree: state = (parameters, first moments, second moments, steps)."""

    def __init__(self, problem: Problem, variant: str, threads: int | None) -> None:
        jax.config.update("jax_enable_x64", problem.case.dtype == "float64")
        self.problem, self.variant, case = problem, variant, problem.case
        self.mean_loss = LOSSES[case.loss]
        self.X = jnp.asarray(problem.X.reshape(case.batches, case.batch, -1))
        target = problem.y if case.loss == "cross_entropy" else problem.y.astype(case.dtype)
        self.y = jnp.asarray(target.reshape(case.batches, case.batch, *target.shape[1:]))
        self.pairs = list(zip(self.X, self.y, strict=True))
        self.step = jax.jit(self.pure_step, donate_argnums=0)
        self.loop = jax.jit(self.pure_loop, donate_argnums=0)
        self.whole = jax.jit(self.pure_loss)
        self.restart()

    def restart(self) -> None:
        pairs = zip(self.problem.weights, self.problem.biases, strict=True)
        parameters = [(jnp.array(W.T), jnp.array(b)) for W, b in pairs]  # (n_in, n_out), (n_out,)
        m, v = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
        self.state = jax.block_until_ready((parameters, m, v, jnp.int32(0)))

    def train(self, batches: int, epochs: int) -> None:
        if self.variant == "loop":
            everything = batches == len(self.X)  # a slice would be a copy
            X, y = (self.X, self.y) if everything else (self.X[:batches], self.y[:batches])
            self.state = self.loop(self.state, X, y, epochs)
        else:
            for _ in range(epochs):
                for X, y in self.pairs[:batches]:
                    self.state = self.step(self.state, X, y)
        jax.block_until_ready(self.state)

    def pure_loss(self, parameters: Any, X: Any, y: Any) -> Any:
        A = X
        for W, b in parameters[:-1]:
            A = jax.nn.relu(A @ W + b)
        W, b = parameters[-1]
        return self.mean_loss(A @ W + b, y)

    def pure_step(self, state: Any, X: Any, y: Any) -> Any:
        parameters, m, v, steps = state
        gradients = jax.grad(self.pure_loss)(parameters, X, y)
        steps = steps + 1
        correction1 = 1 - BETA1 ** steps.astype(X.dtype)
        correction2 = 1 - BETA2 ** steps.astype(X.dtype)
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, gradients)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, gradients)

        def rule(p: Any, m: Any, v: Any) -> Any:
            return p - LEARNING_RATE * (m / correction1) / (jnp.sqrt(v / correction2) + EPSILON)

        return jax.tree.map(rule, parameters, m, v), m, v, steps

    def pure_loop(self, state: Any, X: Any, y: Any, epochs: Any) -> Any:
        def epoch(_: Any, state: Any) -> Any:
            return jax.lax.scan(lambda s, pair: (self.pure_step(s, *pair), None), state, (X, y))[0]

        return jax.lax.fori_loop(0, epochs, epoch, state)

    def loss(self) -> float:
        X = self.X.reshape(-1, self.X.shape[-1])
        return float(self.whole(self.state[0], X, self.y.reshape(-1, *self.y.shape[2:])))


def binary_cross_entropy(Z: Any, y: Any) -> Any:
    """Return the mean of `softplus(z) - y z`: Z (m, 1), y (m,)."""
    return jnp.mean(jax.nn.softplus(Z[:, 0]) - y * Z[:, 0])


def cross_entropy(Z: Any, y: Any) -> Any:
    """Return the mean of `-log softmax(z)[y]`: Z (m, C), y (m,)."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(Z), y[:, None], axis=1))


def squared_error(Z: Any, y: Any) -> Any:
    """Return the mean of `(z - y)^2`: Z and y (m, n_outputs)."""
    return jnp.mean((Z - y) ** 2)


LOSSES = {
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "squared_error": squared_error,
}
