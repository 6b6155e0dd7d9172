"""The L-layer functions and the trainer in pure NumPy: what the core has to compute.

Made to be read next to `functional.py`, which has the same functions on the core, with the
same signatures and errors. Every formula stands here in its plainest form, one line of NumPy
each; nothing is fused, nothing is in place, and numbers are as exact as NumPy makes them.

Alphabet: m samples, L layers, `n[l]` units of layer l (`n[0]` features), `Z[l]` before and `A[l]`
after the activation, `dZ[l]`, `dW[l]`, `db[l]` the cost's gradients by them. Arrays are features x
samples: `X (n[0], m)`, `W[l] (n[l], n[l-1])`, `b[l] (n[l], 1)`; `Z[l]`, `A[l]`, `dZ[l]` are
`(n[l], m)`.

Forward:  `Z[l] = W[l] A[l-1] + b[l]`, `A[l] = g(Z[l])`.
Backward: `dZ[L] = (A[L] - Y) / m`, `dW[l] = dZ[l] A[l-1]^T`, `db[l]` = row sums of `dZ[l]`,
`dZ[l-1] = (W[l]^T dZ[l]) * g'(Z[l-1])` (Rumelhart, Hinton, Williams, 1986). The first formula
holds for each output with its own cost: sigmoid, softmax, identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import checks, course, initializers, optimizers
from ._core import DivergenceError
from .checks import LEAKY_SLOPE, Array
from .course import COSTS_EVERY, COURSE_RATE, Cache, Details, Parameters, dictionary, lists
from .initializers import Init
from .optimizers import SGD, Adagrad, Adam, Lion, NAdam, Optimizer, RMSprop

__all__ = [
    "L_layer_model",
    "L_model_backward",
    "L_model_forward",
    "compute_cost",
    "epoch_order",
    "fit",
    "gradient_check",
    "initialize_parameters_deep",
    "predict",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
    "update_parameters_deep",
]

# --- activations -----------------------------------------------------------------------------


def relu(Z: ArrayLike) -> Array:
    """Return max(Z, 0); NaN stays NaN."""
    return np.maximum(checks.float_array("Z", Z), 0)


def leaky_relu(Z: ArrayLike) -> Array:
    """Return Z where it is positive, else 0.01 Z."""
    Z = checks.float_array("Z", Z)
    return np.where(Z > 0, Z, LEAKY_SLOPE * Z)


def sigmoid(Z: ArrayLike) -> Array:
    """Return 1 / (1 + exp(-Z)), from exp(-|Z|), which cannot overflow."""
    Z = checks.float_array("Z", Z)
    E = np.exp(-np.abs(Z))
    A: Array = np.where(Z >= 0, 1, E) / (1 + E)
    return A


def tanh(Z: ArrayLike) -> Array:
    """Return the hyperbolic tangent of Z."""
    return np.tanh(checks.float_array("Z", Z))


def softmax(Z: ArrayLike) -> Array:
    """Return exp(Z) over its sum, by the largest Z down: over the units, axis 0 of Z (n, m)."""
    Z = checks.columns("Z", Z)
    E = np.exp(Z - np.max(Z, axis=0, keepdims=True))
    A: Array = E / np.sum(E, axis=0, keepdims=True)
    return A


def identity(Z: ArrayLike) -> Array:
    """Return a copy of Z."""
    return checks.float_array("Z", Z).copy()


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "identity": identity,
}

DERIVATIVES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda Z: (Z > 0).astype(Z.dtype),
    "leaky_relu": lambda Z: np.where(Z > 0, 1, LEAKY_SLOPE).astype(Z.dtype),
    "tanh": lambda Z: 1 - np.tanh(Z) ** 2,
    "sigmoid": lambda Z: sigmoid(Z) * sigmoid(-Z),
    "identity": np.ones_like,
}
"""g'(Z) of the hidden activations."""


# --- the L-layer functions -------------------------------------------------------------------


def initialize_parameters_deep(
    layer_dims: Sequence[int],
    *,
    init: Init = "normal",
    seed: int = 3,
    dtype: DTypeLike = "float64",
) -> Parameters:
    """Draw the parameters of an L-layer network.

    Parameters
    ----------
    layer_dims : sequence of int
        `n[0], ..., n[L]`.
    init : {"normal", "lecun", "xavier", "he"} or float
        What standard normal draws are multiplied by: 0.01, 1/sqrt(n[l-1]),
        sqrt(2/(n[l-1]+n[l])), sqrt(2/n[l-1]), or a number. See `lamella.initializers`.
    seed : int
        Of `numpy.random.RandomState`; the global random state is not touched.
    dtype : {"float64", "float32"}

    Returns
    -------
    dict of ndarray
        `W1, b1, ..., WL, bL`: `W[l] (n[l], n[l-1])`, `b[l] (n[l], 1)`, zeros.

    Raises
    ------
    TypeError, ValueError
        For sizes that are not integers of at least 1, fewer than two of them, an unknown
        `init`.
    MemoryError
        If the parameters exceed the available memory.
    """
    dims = checks.layer_dims("layer_dims", layer_dims)
    inits = [initializers.checked(init)] * (len(dims) - 1)
    return initializers.draw(dims, inits, checks.seed(seed), checks.floating(dtype))


def L_model_forward(
    X: ArrayLike,
    parameters: Mapping[str, ArrayLike],
    *,
    hidden: str = "relu",
    output: str = "sigmoid",
) -> tuple[Array, list[Cache]]:
    """Compute the outputs of a network, and what the backward pass reads.

    Returns
    -------
    AL : ndarray (n[L], m)
    caches : list of tuple
        `(A_prev, W, b, Z)` per layer; W and b are the dict's own arrays.
    """
    net = checks.layers(parameters)
    X = checks.samples("X", X, net.dims[0], net.dtype)
    activations = _activations(hidden, output, net.dims)
    AL, caches = _forward(X, net.weights, net.biases, activations)
    own = [(parameters[f"W{n}"], parameters[f"b{n}"]) for n in range(1, len(caches) + 1)]
    return AL, [(c[0], *pair, c[3]) for c, pair in zip(caches, own, strict=True)]  # type: ignore[misc]


def compute_cost(AL: ArrayLike, Y: ArrayLike, *, output: str = "sigmoid") -> float:
    """Return the cost of outputs AL (n[L], m).

    sigmoid: `-(1/m) sum(Y log AL + (1-Y) log(1-AL))`; softmax: `-(1/m) sum(Y log AL)`;
    identity: `(1/2m) sum((AL-Y)^2)`; sums over all outputs and samples, in float64.
    `0 log 0` is 0, so the cost is infinite only where a certain output is wrong.
    """
    AL, output = checks.activations(AL, output)
    AL = AL.astype(np.float64)
    m = AL.shape[1]
    Y = checks.target_matrix(Y, AL.shape, output, AL.dtype)
    if output == "identity":
        return float(np.sum((AL - Y) ** 2) / (2 * m))
    chosen = np.where(Y == 1, AL, 1 - AL if output == "sigmoid" else 1)
    with np.errstate(divide="ignore"):
        return float(-np.sum(np.log(chosen)) / m)


def L_model_backward(
    AL: ArrayLike,
    Y: ArrayLike,
    caches: Sequence[Cache],
    *,
    hidden: str = "relu",
    output: str = "sigmoid",
) -> Parameters:
    """Return the gradients `dW1, db1, ...` of `compute_cost`, shaped like the parameters."""
    AL, output = checks.activations(AL, output)
    cached = checks.caches(caches, AL.shape)
    Y = checks.target_matrix(Y, AL.shape, output, cached.net.dtype)
    activations = _activations(hidden, output, cached.net.dims)
    dZ = (AL.astype(cached.net.dtype) - Y) / AL.shape[1]
    return _backward(dZ, cached.inputs, cached.net.weights, cached.pre_activations, activations)


def update_parameters_deep(
    parameters: Parameters, grads: Mapping[str, ArrayLike], learning_rate: float
) -> Parameters:
    """Make one step of gradient descent in place: `W[l] -= learning_rate * dW[l]`, b likewise.

    Parameters
    ----------
    parameters : dict of ndarray
        Changed, and returned. Everything is checked before anything is changed.
    grads : dict of ndarray
        `dW1, db1, ...`, shaped like the parameters; further keys are ignored.
    learning_rate : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        For shapes that differ, numbers that are not finite, arrays of integers, read-only arrays.
    """
    net = checks.layers(parameters)
    checks.writable(parameters)
    rate = checks.number("learning_rate", learning_rate)
    for layer, (dW, db) in enumerate(checks.gradients(grads, net), start=1):
        parameters[f"W{layer}"] -= (rate * dW).astype(net.dtype, copy=False)
        parameters[f"b{layer}"] -= (rate * db).astype(net.dtype, copy=False)
    return parameters


def L_layer_model(
    X: ArrayLike,
    Y: ArrayLike,
    layers_dims: Sequence[int],
    learning_rate: float = COURSE_RATE,
    num_iterations: int = 3000,
    print_cost: bool = False,
    *,
    seed: int = 3,
    init: Init = "normal",
    dtype: DTypeLike = "float64",
    hidden: str = "relu",
    output: str = "sigmoid",
    l2: float = 0.0,
    optimizer: str | Optimizer = "sgd",
    batch_size: int | None = None,
    shuffle: bool = True,
    threads: int | None = None,
    parameters: Mapping[str, ArrayLike] | None = None,
) -> tuple[Parameters, list[float]]:
    """Train an L-layer network; see `lamella.functional.L_layer_model`, which is faster.

    `threads` is checked and ignored: NumPy's BLAS has its own count.
    """
    task = course.course_task(
        X, Y, layers_dims, seed=seed, init=init, dtype=dtype, output=output, parameters=parameters
    )
    print_cost = checks.flag("print_cost", print_cost)
    checks.threads(threads)
    trained, losses = fit(
        task.start,
        task.X,
        task.Y,
        epochs=checks.integer("num_iterations", num_iterations),
        batch_size=batch_size,
        optimizer=optimizers.for_course(optimizer, learning_rate, COURSE_RATE),
        l2=l2,
        hidden=hidden,
        output=output,
        shuffle=shuffle,
        seed=seed,
        report=course.report_cost if print_cost else None,
        report_every=COSTS_EVERY,
    )
    return trained, losses[::COSTS_EVERY].tolist()


def predict(
    X: ArrayLike,
    parameters: Mapping[str, ArrayLike],
    *,
    hidden: str = "relu",
    output: str = "sigmoid",
) -> Array:
    """Return the network's answer for each sample.

    sigmoid: 0 or 1, `(n[L], m)`, 1 where the output is above one half; softmax: class indices
    `(m,)`; identity: the outputs `(n[L], m)`.
    """
    return course.answers(L_model_forward(X, parameters, hidden=hidden, output=output)[0], output)


# --- the gradient, checked -------------------------------------------------------------------


@overload
def gradient_check(
    parameters: Mapping[str, ArrayLike], X: ArrayLike, Y: ArrayLike, *, epsilon: float = ...,
    hidden: str = ..., output: str = ..., details: Literal[False] = ...,
) -> float: ...  # fmt: skip
@overload
def gradient_check(
    parameters: Mapping[str, ArrayLike], X: ArrayLike, Y: ArrayLike, *, epsilon: float = ...,
    hidden: str = ..., output: str = ..., details: Literal[True],
) -> tuple[float, Details]: ...  # fmt: skip
def gradient_check(
    parameters: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    *,
    epsilon: float = 1e-7,
    hidden: str = "relu",
    output: str = "sigmoid",
    details: bool = False,
) -> float | tuple[float, Details]:
    """Compare the gradient of `L_model_backward` with central differences of the cost.

    Computed in float64, whatever the parameters' dtype. The cost is taken from the logits, so
    that saturated outputs do not spoil it; relu has no derivative at its kink, where a large
    difference is no error.

    Parameters
    ----------
    parameters, X, Y, hidden, output
        As in `L_model_forward` and `compute_cost`.
    epsilon : float
        Half the distance between the two costs of a difference.
    details : bool

    Returns
    -------
    difference : float
        `|g - h| / (|g| + |h|)` (Euclidean norms over all parameters) of the gradient g and
        the differences h; about 1e-7 or less for a right gradient.
    worst : dict of WorstEntry
        With `details=True`, of each array `dW1, db1, ...` the entry farthest off.
    """
    task = course.gradient_task(parameters, X, Y, output, epsilon, details)
    activations = _activations(hidden, output, task.dims)
    m = task.X.shape[1]
    targets = checks.target_matrix(Y, (task.dims[-1], m), output, task.X.dtype)

    def cost(trial: Parameters) -> float:
        _, caches = _forward(task.X, *lists(trial), activations)
        return float(np.sum(_losses(caches[-1][3], targets, output)) / m)

    AL, caches = L_model_forward(task.X, task.start, hidden=hidden, output=output)
    grads = L_model_backward(AL, Y, caches, hidden=hidden, output=output)
    return course.compare_gradients(task, grads, cost)


# --- the trainer -----------------------------------------------------------------------------


def fit(
    parameters: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    *,
    epochs: int,
    batch_size: int | None = None,
    optimizer: str | Optimizer = "sgd",
    learning_rate: float | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    decay_biases: bool = False,
    clip_value: float | None = None,
    loss_scale: float = 1.0,
    hidden: str | Sequence[str] = "relu",
    output: str = "sigmoid",
    shuffle: bool = True,
    seed: int = 0,
    operands: str | None = None,
    report: Callable[[int, float], object] | None = None,
    report_every: int = 1,
) -> tuple[Parameters, Array]:
    """Train as the core does: the twin of `lamella.Network.fit`, features x samples.

    A batch's loss is `loss_scale / rows * sum(losses) + l1 * sum(|W|) + l2/2 * sum(W**2)`, from
    logits: with
    `loss_scale=1` that of `L_layer_model`, which sums over outputs. `Network` takes means over n
    outputs: 1/n for sigmoid, 1 for softmax, 2/n for identity.

    Parameters
    ----------
    parameters : dict of ndarray
        Where to start; not changed. Their dtype is the computation's.
    X : array_like (n[0], m)
    Y : array_like
        `(n[L], m)`, or `(m,)` for one output and for class indices.
    epochs : int
    batch_size : int, optional
        None, or m and more, is the full batch, in the order of X. The short last batch is
        kept.
    optimizer : str or Optimizer
    learning_rate : float, optional
        In place of the optimizer's own.
    l1, l2, loss_scale : float
    decay_biases : bool
        Whether penalties and the optimizer's weight decay reach biases too.
    clip_value : float, optional
        What bounds each gradient, penalties included.
    hidden : str or sequence of str
        One activation for all hidden layers, or one for each.
    output : {"sigmoid", "softmax", "identity"}
    shuffle : bool
        Whether batches follow `epoch_order`.
    seed : int
    operands : {None, "bfloat16"}
        What products round their operands to; their sums keep the parameters' dtype.
    report : callable, optional
        Called with the epoch, from 0, and its loss, every `report_every` epochs.

    Returns
    -------
    parameters : dict of ndarray
    losses : ndarray (epochs,)
        The mean over each epoch's rows of their batch's loss before its update.

    Raises
    ------
    DivergenceError
        If a loss is not finite, naming step and layer.
    """
    net = checks.layers(parameters)
    X = checks.samples("X", X, net.dims[0], net.dtype)
    m = X.shape[1]
    activations = _activations(hidden, output, net.dims)
    Y = checks.target_matrix(Y, (net.dims[-1], m), output, net.dtype)
    rule = optimizers.resolve(optimizer, learning_rate)
    scale = checks.number("loss_scale", loss_scale)
    penalty = Penalty(checks.number("l1", l1), checks.number("l2", l2), decay_biases)
    clip_value = checks.clip("clip_value", clip_value)
    size = checks.batch_size(batch_size, m) or m
    shuffled = checks.flag("shuffle", shuffle) and size < m
    seed = checks.seed(seed)
    if operands is not None:
        checks.choice("operands", operands, ("bfloat16",))
    rounded = bfloat16 if operands else _as_it_is

    trained = dictionary([W.copy() for W in net.weights], [b.copy() for b in net.biases])
    state = {
        name: State(*(np.zeros_like(array) for _ in range(3))) for name, array in trained.items()
    }
    losses = np.zeros(checks.integer("epochs", epochs))
    report_every = checks.integer("report_every", report_every, low=1)
    step = 0
    for epoch in range(len(losses)):
        order = epoch_order(m, seed, epoch) if shuffled else np.arange(m)
        for first in range(0, m, size):
            batch = order[first : first + size]
            step += 1
            X_batch, Y_batch = (X, Y) if size == m else (X.T[batch].T, Y.T[batch].T)
            loss, grads = _loss_and_gradients(
                trained, X_batch, Y_batch, activations, penalty, scale, step, rounded
            )
            losses[epoch] += loss * len(batch) / m
            for name, array in trained.items():
                gradient = grads[f"d{name}"]
                if clip_value is not None:
                    gradient = np.clip(gradient, -clip_value, clip_value)
                decay = getattr(rule, "weight_decay", 0.0) if penalty.covers(name) else 0.0
                array *= 1 - rule.learning_rate * decay
                _update(rule, step, array, gradient, state[name])
        if report is not None and epoch % report_every == 0:
            report(epoch, float(losses[epoch]))
    return trained, losses


def bfloat16(A: Array) -> Array:
    """Round to the nearest bfloat16 numbers, in A's dtype; subnormal ones become 0."""
    bits = np.where(np.abs(A) < np.finfo(np.float32).tiny, 0, A).astype(np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    rounded: Array = (nearest & np.uint32(0xFFFF0000)).view(np.float32).astype(A.dtype)
    return rounded


def epoch_order(m: int, seed: int, epoch: int) -> Array:
    """Return the order of m samples in an epoch, counted from 0, as int64 `(m,)`.

    Fisher and Yates' shuffle, from the last place down, with numbers from Philox 4x64-10
    (Salmon, Moraes, Dror, Shaw, 2011) of key `[seed, 1]` and counter `[0, epoch, 0, 0]`: place i
    changes with place `floor(r (i + 1) / 2^64)`.
    """
    words = [np.array(four, np.uint64) for four in ([seed, 1], [0, epoch, 0, 0])]
    raw = np.random.Philox(key=words[0], counter=words[1]).random_raw(m - 1).tolist()
    order = list(range(m))
    for r, i in zip(raw, range(m - 1, 0, -1), strict=True):
        j = r * (i + 1) >> 64
        order[i], order[j] = order[j], order[i]
    return np.array(order)


class State(NamedTuple):
    """What an optimizer remembers of one array."""

    m: Array
    v: Array
    extra: Array


class Penalty(NamedTuple):
    """`l1 * sum(|W|) + l2/2 * sum(W**2)`, over weights and, if asked for, biases."""

    l1: float
    l2: float
    biases: bool

    def covers(self, name: str) -> bool:
        """Return whether the parameter of this name is penalised."""
        return self.biases or name.startswith("W")


def _loss_and_gradients(
    parameters: Parameters,
    X: Array,
    Y: Array,
    activations: list[str],
    penalty: Penalty,
    scale: float,
    step: int,
    rounded: Rounding,
) -> tuple[float, Parameters]:
    """Return a batch's loss, with the l2 term, and its gradients."""
    W, b = lists(parameters)
    m = X.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):  # the loss tells
        AL, caches = _forward(X, W, b, activations, rounded)
        loss = (
            float(np.sum(_losses(caches[-1][3], Y, activations[-1]), dtype=np.float64)) * scale / m
        )
        for name, w in parameters.items():
            if penalty.covers(name):
                loss += penalty.l1 * float(np.sum(np.abs(w), dtype=np.float64))
                loss += penalty.l2 / 2 * float(np.sum(w**2, dtype=np.float64))
    if not np.isfinite(loss):
        raise DivergenceError(_divergence(step, caches))
    inputs, Zs = [c[0] for c in caches], [c[3] for c in caches]
    grads = _backward((AL - Y) * (scale / m), inputs, W, Zs, activations, rounded)
    for name, w in parameters.items():
        if penalty.covers(name):
            grads[f"d{name}"] += penalty.l2 * w + penalty.l1 * np.sign(w)
    return loss, grads


def _divergence(step: int, caches: list[Cache]) -> str:
    """Spell where training left the finite numbers."""
    bad = (layer for layer, c in enumerate(caches, start=1) if not np.all(np.isfinite(c[3])))
    return (
        f"training diverged at step {step}: layer {next(bad, len(caches))} is the first whose"
        " numbers are not finite; a smaller learning_rate or scaled inputs may help"
    )


def _losses(Z: Array, Y: Array, output: str) -> Array:
    """Return the elementary losses of logits Z (n[L], m), in a form where nothing overflows."""
    losses: Array
    if output == "sigmoid":
        losses = np.maximum(Z, 0) - Y * Z + np.log1p(np.exp(-np.abs(Z)))
    elif output == "softmax":
        top = np.max(Z, axis=0)
        losses = np.log(np.sum(np.exp(Z - top), axis=0)) + (top - np.sum(Y * Z, axis=0))
    else:
        losses = (Z - Y) ** 2 / 2
    return losses


def _update(rule: Optimizer, step: int, W: Array, dW: Array, state: State) -> None:
    """Make one step on one array, in place, with its state: PyTorch's rules, and optax's Lion."""
    rate, (m, v, extra) = rule.learning_rate, state
    if isinstance(rule, SGD):
        m[...] = rule.momentum * m + dW
        W -= rate * (dW + rule.momentum * m if rule.nesterov else m)
    elif isinstance(rule, RMSprop):
        v[...] = rule.alpha * v + (1 - rule.alpha) * dW**2
        m[...] = rule.alpha * m + (1 - rule.alpha) * dW if rule.centered else 0
        extra[...] = rule.momentum * extra + dW / (np.sqrt(v - m**2) + rule.epsilon)
        W -= rate * extra
    elif isinstance(rule, Adagrad):
        v += dW**2
        W -= rate / (1 + (step - 1) * rule.learning_rate_decay) * dW / (np.sqrt(v) + rule.epsilon)
    elif isinstance(rule, Lion):
        W -= rate * np.sign(rule.beta1 * m + (1 - rule.beta1) * dW)
        m[...] = rule.beta2 * m + (1 - rule.beta2) * dW
    else:
        m[...] = rule.beta1 * m + (1 - rule.beta1) * dW
        v[...] = rule.beta2 * v + (1 - rule.beta2) * dW**2
        extra[...] = np.maximum(extra, v)
        v_hat = (extra if isinstance(rule, Adam) and rule.amsgrad else v) / (1 - rule.beta2**step)
        if isinstance(rule, Adam):
            direction = m / (1 - rule.beta1**step)
        else:
            direction = _look_ahead(rule, step, dW, m)
        W -= rate * direction / (np.sqrt(v_hat) + rule.epsilon)


def _look_ahead(rule: NAdam, step: int, dW: Array, m: Array) -> Array:
    """Return NAdam's direction, before it is scaled."""
    mu = rule.beta1 * (1 - 0.5 * 0.96 ** (np.arange(1, step + 2) * rule.momentum_decay))
    so_far, next_one = np.prod(mu[:-1]), mu[-1]
    ahead: Array = (1 - mu[-2]) / (1 - so_far) * dW + next_one / (1 - so_far * next_one) * m
    return ahead


# --- forward and backward --------------------------------------------------------------------

Rounding = Callable[[Array], Array]
"""What products do to their operands first."""


def _as_it_is(A: Array) -> Array:
    """Return A."""
    return A


def _forward(
    X: Array,
    weights: Sequence[Array],
    biases: Sequence[Array],
    activations: Sequence[str],
    rounded: Rounding = _as_it_is,
) -> tuple[Array, list[Cache]]:
    """Walk up the layers."""
    A, caches = X, []
    for W, b, activation in zip(weights, biases, activations, strict=True):
        Z = rounded(W) @ rounded(A) + b
        caches.append((A, W, b, Z))
        A = ACTIVATIONS[activation](Z)
    return A, caches


def _backward(
    dZ: Array,
    inputs: Sequence[Array],
    weights: Sequence[Array],
    Zs: Sequence[Array],
    activations: Sequence[str],
    rounded: Rounding = _as_it_is,
) -> Parameters:
    """Walk down the layers, from dZ (n[L], m)."""
    pairs = []
    for layer in reversed(range(len(weights))):
        dZ = rounded(dZ)
        pairs.append((dZ @ rounded(inputs[layer]).T, np.sum(dZ, axis=1, keepdims=True)))
        if layer > 0:
            dZ = (rounded(weights[layer]).T @ dZ) * DERIVATIVES[activations[layer - 1]](
                Zs[layer - 1]
            )
    dW, db = zip(*reversed(pairs), strict=True)
    return {f"d{name}": array for name, array in dictionary(dW, db).items()}


def _activations(hidden: str | Sequence[str], output: str, dims: Sequence[int]) -> list[str]:
    """Return the checked activation of every layer."""
    layers = len(dims) - 2
    each = [hidden] * max(1, layers) if isinstance(hidden, str) else list(hidden)
    names = [checks.choice("hidden", name, checks.HIDDEN) for name in each]
    if not isinstance(hidden, str) and len(each) != layers:
        raise checks.wrong("hidden", f"{layers} activations", len(each))
    return [*names[:layers], checks.output(output, dims[-1])]
