"""Initial parameters: NumPy's legacy generator, layer after layer, then a scale.

Owns the draws of `initialize_parameters_deep` and of `Network`, so that both, and their
references, start from the same bits. Promises the numbers of the course's NumPy code,
`RandomState(seed).randn(n[l], n[l-1])` for l = 1, 2, ..., and that NumPy's global random
state is not touched. Biases are zero and take no draws.

`orthogonal` has orthonormal rows or columns, whichever are fewer (Saxe, McClelland, Ganguli,
2014), by LAPACK's QR, whose last bits depend on the build of NumPy. Scales keep the variance of
the signal from layer to layer: `lecun` for identity, tanh and sigmoid (LeCun, Bottou, Orr,
Müller, 1998, "Efficient BackProp"), `xavier` a compromise between forward and backward (Glorot,
Bengio, 2010), `he` for relu (He, Zhang, Ren, Sun, 2015); `normal` is the course's constant 0.01.
Their `_uniform` forms draw uniformly with the same variance, `uniform` within 0.05 of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import checks, passes
from .checks import Array

Init = str | float
"""The name of an initializer, or the number that scales standard normal draws."""

SCALE: dict[str, Callable[[Array, int, int], Array]] = {
    "normal": lambda W, fan_in, fan_out: np.multiply(W, 0.01, out=W),
    "lecun": lambda W, fan_in, fan_out: np.divide(W, np.sqrt(fan_in), out=W),
    "xavier": lambda W, fan_in, fan_out: np.multiply(W, np.sqrt(2 / (fan_in + fan_out)), out=W),
    "he": lambda W, fan_in, fan_out: np.multiply(W, np.sqrt(2 / fan_in), out=W),
}
"""How standard normal `W (fan_out, fan_in)` is scaled, in place, by name."""


UNIFORM: dict[str, Callable[[int, int], float]] = {
    "uniform": lambda fan_in, fan_out: 0.05,
    "lecun_uniform": lambda fan_in, fan_out: float(np.sqrt(3 / fan_in)),
    "xavier_uniform": lambda fan_in, fan_out: float(np.sqrt(6 / (fan_in + fan_out))),
    "he_uniform": lambda fan_in, fan_out: float(np.sqrt(6 / fan_in)),
}
"""The bound of uniform draws, by name."""

NAMES = (*SCALE, *UNIFORM, "orthogonal")


def checked(init: Init, name: str = "init") -> Init:
    """Return `init` if it is the name of an initializer or a scale of at least 0."""
    return checks.choice(name, init, NAMES) if isinstance(init, str) else \
        checks.number(name, init)  # fmt: skip


def draw(
    dims: Sequence[int], inits: Sequence[Init | Array], seed: int, dtype: np.dtype[Any]
) -> dict[str, Array]:
    """Draw the parameters of a network.

    Parameters
    ----------
    dims : sequence of int
        `n[0], ..., n[L]`, checked.
    inits : sequence of str, float or ndarray
        One initializer a layer, checked; arrays are taken as they are, without a draw.
    seed : int
    dtype : dtype
        float32 or float64; draws are made and scaled in float64 and rounded once.

    Returns
    -------
    dict of ndarray
        `W1 (n[1], n[0]), b1 (n[1], 1), ..., WL, bL`.

    Raises
    ------
    MemoryError
        If the parameters (drawn in float64, or plain and in the core's two packed forms)
        exceed the available memory; nothing was allocated then.
    """
    shapes = list(zip(dims[1:], dims[:-1], strict=True))
    count = sum(n * (n_prev + 1) for n, n_prev in shapes)
    checks.memory("layer_dims", count * max(8 + dtype.itemsize, 3 * dtype.itemsize))
    random = np.random.RandomState(seed)
    parameters: dict[str, Array] = {}
    for layer, ((n, n_prev), init) in enumerate(zip(shapes, inits, strict=True), start=1):
        W = init if isinstance(init, np.ndarray) else _weights(random, n, n_prev, init)
        parameters[f"W{layer}"] = W.astype(dtype, copy=False)
        parameters[f"b{layer}"] = np.zeros((n, 1), dtype)
    return parameters


def _weights(random: np.random.RandomState, n: int, n_prev: int, init: Init) -> Array:
    """Draw `W (n, n_prev)`."""
    if isinstance(init, str) and init in UNIFORM:
        bound = UNIFORM[init](n_prev, n)
        return random.uniform(-bound, bound, (n, n_prev))
    W = random.randn(n, n_prev)
    if init == "orthogonal":
        return _orthogonal(W)
    return SCALE[init](W, n_prev, n) if isinstance(init, str) else np.multiply(W, init, out=W)


def _orthogonal(W: Array) -> Array:
    """Return the orthogonal factor of W's longer way, unique by R's positive diagonal."""
    tall = len(W) >= W.shape[1]
    Q, R = np.linalg.qr(W if tall else W.T)
    Q = Q * np.where(np.diag(R) < 0, -1.0, 1.0)
    return np.ascontiguousarray(Q if tall else Q.T)


def start(
    dims: Sequence[int], init: Init, seed: int, dtype: np.dtype[Any], given: passes.Layers | None
) -> dict[str, Array]:
    """Return where an L-layer model starts: copies of the given parameters, else draws.

    Given parameters keep their dtype; then `init` and `seed` are only checked.
    """
    init = checked(init)
    if given is None:
        return draw(dims, [init] * (len(dims) - 1), seed, dtype)
    copies: dict[str, Array] = {}
    for layer, (W, b) in enumerate(zip(given.weights, given.biases, strict=True), start=1):
        copies[f"W{layer}"], copies[f"b{layer}"] = W.copy(), b.copy()
    return copies
