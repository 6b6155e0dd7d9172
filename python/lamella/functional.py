"""The L-layer functions on the core: NumPy arrays and dicts in and out, features x samples.

A thin layer: it checks arguments, calls `lamella._core` and gives the results their course
names. `reference/` has the same functions in NumPy, to be read beside this file, and says
what each of them computes. Code written on the course page runs after
`from lamella import *` in place of its own definitions.

Alphabet: m samples, L layers, `n[l]` units of layer l (`n[0]` features). `X (n[0], m)`,
`W[l] (n[l], n[l-1])`, `b[l] (n[l], 1)`, `Z[l]` and `A[l] (n[l], m)`. The parameters' dtype decides
the computation's: float32 if all of them are, else float64. X and Y of any real dtype are read
as that; Y may be `(1, m)` or `(m,)`, and class indices `(m,)` for softmax. `hidden` is "relu",
"leaky_relu" (slope 0.01), "tanh", "sigmoid" or "identity"; `output` "sigmoid", "softmax" or
"identity".

Wrong arguments are a `TypeError` or a `ValueError` before anything is computed, with the
argument, what was expected and what came. No argument is changed, but for the parameters of
`update_parameters_deep`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import _core, checks, course, matrices, optimizers, passes, span
from .checks import Array
from .course import (
    COSTS_EVERY,
    COURSE_RATE,
    Cache,
    Details,
    Parameters,
    dictionary,
    initialize_parameters_deep,
    update_parameters_deep,
)
from .initializers import Init
from .layers import Dense, core_layer
from .losses import Batches, Custom, Loss
from .optimizers import Optimizer, Rate
from .timing import Clock
from .weights import ClassWeight, weights

__all__ = [
    "L_layer_model",
    "L_model_backward",
    "L_model_forward",
    "compute_cost",
    "gradient_check",
    "initialize_parameters_deep",
    "predict",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
    "update_parameters_deep",
]


def relu(Z: ArrayLike) -> Array:
    """Return max(Z, 0), of any shape, in float32 or float64; NaN stays NaN."""
    return _core.elementwise("relu", matrices.float_array("Z", Z))


def sigmoid(Z: ArrayLike) -> Array:
    """Return 1 / (1 + exp(-Z)), of any shape, in float32 or float64."""
    return _core.elementwise("sigmoid", matrices.float_array("Z", Z))


def tanh(Z: ArrayLike) -> Array:
    """Return the hyperbolic tangent of Z, of any shape, in float32 or float64."""
    return _core.elementwise("tanh", matrices.float_array("Z", Z))


def softmax(Z: ArrayLike) -> Array:
    """Return exp(Z) over its sum over the units: along axis 0 of Z, (n, m) or (n,)."""
    Z = matrices.columns("Z", Z)
    rows = Z.T.reshape(-1, len(Z))
    return np.ascontiguousarray(_core.softmax(rows).T).reshape(Z.shape)


def L_model_forward(
    X: ArrayLike,
    parameters: Mapping[str, ArrayLike],
    *,
    hidden: str = "relu",
    output: str = "sigmoid",
) -> tuple[Array, list[Cache]]:
    """Compute the outputs of a network, and what the backward pass reads.

    Parameters
    ----------
    X : array_like (n[0], m)
    parameters : dict of array_like
        `W1, b1, ..., WL, bL`.
    hidden, output : str

    Returns
    -------
    AL : ndarray (n[L], m)
    caches : list of tuple
        `(A_prev, W, b, Z)` per layer: `A[l-1] (n[l-1], m)`, the dict's own W and b,
        `Z[l] (n[l], m)`.

    Raises
    ------
    ValueError
        For shapes that do not fit, such as `W2: expected shape (7, 20), got (7, 21)`; no
        samples; NaN or infinity, naming the first row and column.
    TypeError
        For arrays that are not real numbers.
    """
    net = passes.layers(parameters)
    X = matrices.samples("X", X, net.dims[0], net.dtype)
    hidden = checks.choice("hidden", hidden, checks.HIDDEN)
    output = checks.output(output, net.dims[-1])
    A, caches = X, []
    passed = _core.forward(X, net.weights, net.biases, hidden, output)
    for layer, (Z, A_next) in enumerate(passed, start=1):
        caches.append((A, parameters[f"W{layer}"], parameters[f"b{layer}"], Z))
        A = A_next
    return A, caches  # type: ignore[return-value]  # W and b are what the caller gave


def compute_cost(AL: ArrayLike, Y: ArrayLike, *, output: str = "sigmoid") -> float:
    """Return the cost of outputs.

    sigmoid: `-(1/m) sum(Y log AL + (1-Y) log(1-AL))`; softmax: `-(1/m) sum(Y log AL)`;
    identity: `(1/2m) sum((AL-Y)^2)`; sums over all outputs and samples.

    Parameters
    ----------
    AL : array_like (n[L], m)
        From 0 to 1 for sigmoid and softmax.
    Y : array_like (n[L], m)
        Or `(m,)` for one output and for class indices. 0 and 1 for sigmoid; one-hot, or class
        indices, for softmax.
    output : str

    Returns
    -------
    float
        In float64. `0 log 0` is 0: infinite where a certain output is wrong, never NaN.

    Raises
    ------
    TypeError, ValueError
        For arrays that are not real, shapes that differ, outputs and labels out of range.
    """
    AL, output = matrices.activations(AL, output)
    AL = AL.astype(np.float64)
    m = AL.shape[1]
    Y = matrices.target_matrix(Y, AL.shape, output, AL.dtype)
    if output == "identity":
        return float(np.sum((AL - Y) ** 2) / (2 * m))
    chosen = np.where(Y == 1, AL, 1 - AL if output == "sigmoid" else 1)
    return float(-np.sum(_core.elementwise("log", chosen)) / m)


def L_model_backward(
    AL: ArrayLike,
    Y: ArrayLike,
    caches: Sequence[Cache],
    *,
    hidden: str = "relu",
    output: str = "sigmoid",
) -> Parameters:
    """Return the gradients of `compute_cost` by the parameters.

    Parameters
    ----------
    AL : array_like (n[L], m)
        The outputs of the network; the gradient starts from `dZ[L] = (AL - Y) / m`.
    Y : array_like
        As in `compute_cost`.
    caches : list of tuple
        `(A_prev, W, b, Z)` per layer, from `L_model_forward`.
    hidden, output : str

    Returns
    -------
    dict of ndarray
        `dW1, db1, ..., dWL, dbL`, shaped like the parameters, in the computation's dtype.

    Raises
    ------
    TypeError, ValueError
        For caches whose shapes do not fit each other or AL, and as `compute_cost`.
    """
    AL, output = matrices.activations(AL, output)
    cached = passes.caches(caches, AL.shape)
    net = cached.net
    Y = matrices.target_matrix(Y, AL.shape, output, net.dtype)
    hidden = checks.choice("hidden", hidden, checks.HIDDEN)
    dZ = (AL.astype(net.dtype, copy=False) - Y) / AL.shape[1]
    arrays = _core.backward(dZ, cached.inputs, net.weights, cached.pre_activations, hidden)
    grads = dictionary(arrays[0::2], arrays[1::2])
    return {f"d{name}": array for name, array in grads.items()}


def L_layer_model(
    X: ArrayLike,
    Y: ArrayLike,
    layers_dims: Sequence[int],
    learning_rate: Rate = COURSE_RATE,
    num_iterations: int = 3000,
    print_cost: bool = False,
    *,
    seed: int = 3,
    init: Init = "normal",
    dtype: DTypeLike = "float64",
    hidden: str = "relu",
    output: str = "sigmoid",
    loss: str | Loss | Custom | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    decay_biases: bool = False,
    max_norm: float | None = None,
    dropout: float = 0.0,
    norm: None = None,
    residual: Literal[False] = False,
    optimizer: str | Optimizer = "sgd",
    batch_size: int | None = None,
    clip_value: float | None = None,
    clip_norm: float | None = None,
    average: float | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight = None,
    shuffle: bool = True,
    threads: int | None = None,
    parameters: Mapping[str, ArrayLike] | None = None,
) -> tuple[Parameters, list[float]]:
    """Train an L-layer network, in one call into the core.

    With the defaults this is full-batch gradient descent from the course's start, whose weights
    are so small (0.01) that networks of more than two or three layers hardly move for thousands
    of iterations; `init="lecun"` or `"he"` keep the signal's size through the layers.

    Where samples have more features than there are samples, and the update is that of SGD without
    `l1` and `clip_value`, the first layer is trained in the space that the samples span (see
    `span.py`) as soon as that takes clearly fewer operations: in float64, and what differs is
    rounding.

    What is asked for between iterations (validation, early stopping, callbacks, a time limit)
    and what W and b do not tell (normalisation, residual connections, exponential outputs) is
    `lamella.Network`'s.

    Parameters
    ----------
    X : array_like (n[0], m)
    Y : array_like (n[L], m)
        Or `(m,)` for one output and for class indices, as in `compute_cost`; with a `loss`, what
        that takes, as for `lamella.Network.fit`, turned.
    layers_dims : sequence of int
        `n[0], ..., n[L]`.
    learning_rate : float or Schedule
        Of an optimizer given by name. An optimizer object has its own.
    num_iterations : int
        Passes over the data: steps, as long as `batch_size` is None.
    print_cost : bool
        Print the cost of iterations 0, 100, 200, ... as they go.
    seed : int
        Of the initial parameters (see `initialize_parameters_deep`) and of the shuffle.
    init : str or float
        See `lamella.initializers`.
    dtype : {"float64", "float32"}
        Of the initial parameters, and so of the computation (but in the samples' span) and of
        what is returned.
    hidden, output : str
    loss : str, Loss or callable, optional
        As for `lamella.Network`, but that costs are sums over outputs where its losses are means
        (and half the squared error). A callable is given logits `(n[L], rows)` and `Y[..., rows]`,
        Y then any array whose last axis is the samples; it returns the batch's value, or the
        samples' `(rows,)`, and the gradient `(n[L], rows)`.
    l1, l2 : float
        Add `l1 * sum(|W|) + l2/2 * sum(W^2)`, over all weights, to the cost.
    decay_biases : bool
        Whether penalties and an optimizer's weight decay reach biases too.
    max_norm : float, optional
        The greatest length of a row of W after an update, as for `lamella.Network`.
    dropout : float
        The share of hidden units that each step drops, in [0, 1).
    norm, residual
        None and False: `predict` and `L_model_forward` know of neither. `lamella.Network` has them.
    optimizer : str or Optimizer
        A name or an object, as for `lamella.Network.fit`.
    batch_size : int, optional
        Samples a step; None is all of them, in their order. The short last batch is kept.
    clip_value, clip_norm : float, optional
        Bounds of the gradient, as for `lamella.Network.fit`.
    average : float, optional
        The decay, in [0, 1), of a moving average of the parameters, which begins with the initial
        ones; it is then what is returned.
    sample_weight : array_like (m,), optional
        What each sample counts: a batch's cost is `sum(w l) / sum(w)`.
    class_weight : dict, "balanced" or list of dict, optional
        What the samples of each class count, as for `lamella.Network.fit`.
    shuffle : bool
        Whether batches are drawn anew in every pass.
    threads : int, optional
        At most so many; None is as many as help.
    parameters : dict of array_like, optional
        Where to start instead, copied; their dtype then decides the computation's.

    Returns
    -------
    parameters : dict of ndarray
        `W1, b1, ..., WL, bL`.
    costs : list of float
        The cost of iterations 0, 100, 200, ..., before their updates (with `batch_size` the
        mean over the pass), printed or not.

    Raises
    ------
    TypeError, ValueError
        For any argument that does not fit, before work starts.
    DivergenceError
        If the cost leaves the finite numbers, naming step and layer.
    MemoryError
        If memory does not suffice.
    """
    course.refuse_unknown_layers(norm, residual)
    task = course.course_task(
        X, Y, layers_dims, seed=seed, init=init, dtype=dtype, output=output, loss=loss,
        parameters=parameters,
    )  # fmt: skip
    dropout = checks.number("dropout", dropout, below=1.0)
    w = weights(sample_weight, class_weight, task.Y.T, task.told)
    asked = None
    if not isinstance(task.loss, Loss):
        asked = Batches(task.loss, task.Y.T, weighted=w is not None)
    hidden = checks.choice("hidden", hidden, checks.HIDDEN)
    m, kind = task.X.shape[1], task.start["W1"].dtype
    max_norm = checks.clip("max_norm", max_norm)
    epochs = checks.integer("num_iterations", num_iterations)
    size = checks.batch_size(batch_size, m)
    rule, schedule = optimizers.split(optimizers.for_course(optimizer, learning_rate, COURSE_RATE))
    l1, l2 = checks.number("l1", l1), checks.number("l2", l2)
    threads = checks.threads(threads)
    settings = {
        "epochs": epochs,
        "batch_size": size,
        "optimizer": rule.spec(),
        "rates": optimizers.rates(rule, schedule, Clock(0, 0, 0, -(-m // (size or m))), epochs),
        "penalty": (l1, l2, checks.flag("decay_biases", decay_biases)),
        **optimizers.amendments(clip_value, clip_norm, average),
        "loss_scale": 1.0,
        "loss": asked,
        "weights": w,
        "shuffle": checks.flag("shuffle", shuffle),
        "seed": checks.seed(seed),
        "threads": threads,
        "report": course.report_cost if checks.flag("print_cost", print_cost) else None,
        "report_every": COSTS_EVERY,
    }

    def trained(task: course.CourseTask) -> tuple[list[Array], list[float]]:
        dtype = task.start["W1"].dtype
        net = _network(task.dims, hidden, output, dtype, dropout, task.told.core)
        net.set_parameters(list(task.start.values()))
        net.set_max_norms([max_norm] * (len(task.dims) - 1))
        losses = net.fit(task.X.T, task.Y.T, **settings)
        arrays = (None if average is None else net.get_average()) or net.get_parameters()
        return arrays, losses[::COSTS_EVERY].tolist()

    # A loss in Python sees the task's own dtype.
    suits = span.keeps(rule, l1, clip_value) and (asked is None or kind == np.float64)
    arrays = found = None
    if suits and span.pays(task.dims, m, epochs, kind):
        matrices.finite("Y", task.Y.T, kind)
        found = span.reduced(task, threads, lengths=bool(l2) or max_norm is not None)
    if found:
        inside, costs = trained(found.inside)
        arrays = found.restored(inside)
    if arrays is None:
        arrays, costs = trained(task)
    columns = [b.reshape(-1, 1) for b in arrays[1::2]]
    return dictionary(arrays[0::2], columns), costs


def predict(
    X: ArrayLike,
    parameters: Mapping[str, ArrayLike],
    *,
    hidden: str = "relu",
    output: str = "sigmoid",
) -> Array:
    """Return the network's answer for each sample.

    Parameters
    ----------
    X, parameters, hidden, output
        As in `L_model_forward`.

    Returns
    -------
    ndarray
        sigmoid: int64 0 or 1, `(n[L], m)`, 1 where the output is above one half; softmax:
        class indices `(m,)`; identity: the outputs `(n[L], m)`.
    """
    return course.answers(L_model_forward(X, parameters, hidden=hidden, output=output)[0], output)


@overload
def gradient_check(
    parameters: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    *,
    epsilon: float = ...,
    hidden: str = ...,
    output: str = ...,
    details: Literal[False] = ...,
) -> float: ...
@overload
def gradient_check(
    parameters: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    *,
    epsilon: float = ...,
    hidden: str = ...,
    output: str = ...,
    details: Literal[True],
) -> tuple[float, Details]: ...
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
    """Compare the gradient of `L_model_backward` with central differences of the core's cost.

    Computed in float64, whatever the parameters' dtype. The cost is taken from the logits, so
    that saturated outputs do not spoil it; relu has no derivative at its kink, where a large
    difference is no error.

    Parameters
    ----------
    parameters, X, Y, hidden, output
        As in `L_model_forward` and `compute_cost`. Not changed.
    epsilon : float
        Half the distance between the two costs of a difference.
    details : bool

    Returns
    -------
    difference : float
        `|g - h| / (|g| + |h|)` (Euclidean norms over all parameters) of the gradient g and
        the differences h; about 1e-7 or less for a right gradient.
    worst : dict of WorstEntry
        With `details=True`, of each array `dW1, db1, ...` the entry farthest off: its index,
        its gradient and its central difference.
    """
    task = course.gradient_task(parameters, X, Y, output, epsilon, details)
    net = _network(task.dims, hidden, output, np.dtype(np.float64))
    rows, targets = task.X.T, task.targets.T

    def cost(trial: Parameters) -> float:
        net.set_parameters(list(trial.values()))
        penalty = (0.0, 0.0, False)
        return net.evaluate(
            rows, targets, loss_scale=1.0, penalty=penalty, weights=None, threads=1
        )[0]

    AL, caches = L_model_forward(task.X, task.start, hidden=hidden, output=output)
    grads = L_model_backward(AL, Y, caches, hidden=hidden, output=output)
    return course.compare_gradients(task, grads, cost)


def _network(
    dims: Sequence[int],
    hidden: str,
    output: str,
    dtype: np.dtype[np.floating],
    dropout: float = 0.0,
    loss: tuple[str, list[float]] | None = None,
) -> _core.Network:
    """Build the core's network of a course model."""
    hidden = checks.choice("hidden", hidden, checks.HIDDEN)
    layers = [Dense(n, hidden, dropout=dropout) for n in dims[1:-1]]
    specs = [core_layer(layer) for layer in (*layers, Dense(dims[-1], output))]
    return _core.Network(dims[0], specs, loss or (checks.CORE_LOSSES[output], []), dtype.name)
