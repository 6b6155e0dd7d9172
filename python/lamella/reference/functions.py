"""The L-layer functions; see `lamella.functional`, which has them on the core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import checks, course, matrices, optimizers, passes
from ..checks import Array
from ..course import COSTS_EVERY, COURSE_RATE, Cache, Details, Parameters, dictionary
from ..initializers import Init
from ..losses import Custom, Loss
from ..optimizers import Optimizer, Rate
from ..weights import ClassWeight, weights
from .layers import Passed, backward, forward, layers_like
from .losses import losses
from .trainer import fit


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
    net = passes.layers(parameters)
    X = matrices.samples("X", X, net.dims[0], net.dtype)
    layers = layers_like(hidden, output, net.dims)
    AL, passed = forward(X, dictionary(net.weights, net.biases), layers)
    own = [(parameters[f"W{n}"], parameters[f"b{n}"]) for n in range(1, len(passed) + 1)]
    return AL, [(here.A_prev, *pair, here.Z) for here, pair in zip(passed, own, strict=True)]  # type: ignore[misc]


def compute_cost(AL: ArrayLike, Y: ArrayLike, *, output: str = "sigmoid") -> float:
    """Return the cost of outputs AL (n[L], m).

    sigmoid: `-(1/m) sum(Y log AL + (1-Y) log(1-AL))`; softmax: `-(1/m) sum(Y log AL)`;
    identity: `(1/2m) sum((AL-Y)^2)`; sums over all outputs and samples, in float64.
    `0 log 0` is 0, so the cost is infinite only where a certain output is wrong.
    """
    AL, output = matrices.activations(AL, output)
    AL = AL.astype(np.float64)
    m = AL.shape[1]
    Y = matrices.target_matrix(Y, AL.shape, output, AL.dtype)
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
    AL, output = matrices.activations(AL, output)
    cached = passes.caches(caches, AL.shape)
    Y = matrices.target_matrix(Y, AL.shape, output, cached.net.dtype)
    layers = layers_like(hidden, output, cached.net.dims)
    dZ = (AL.astype(cached.net.dtype) - Y) / AL.shape[1]
    one = np.ones((1, 1))
    pairs = zip(cached.inputs, cached.pre_activations, strict=True)
    passed = [Passed(A_prev, Z, Z, Z, one, 1.0) for A_prev, Z in pairs]
    return backward(dZ, dictionary(cached.net.weights, cached.net.biases), layers, passed)


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
    """Train an L-layer network; see `lamella.functional.L_layer_model`, which is faster.

    `threads` is checked and ignored: NumPy's BLAS has its own count.
    """
    course.refuse_unknown_layers(norm, residual)
    task = course.course_task(
        X, Y, layers_dims, seed=seed, init=init, dtype=dtype, output=output, loss=loss,
        parameters=parameters,
    )  # fmt: skip
    print_cost = checks.flag("print_cost", print_cost)
    checks.threads(threads)
    dropout = checks.number("dropout", dropout, below=1.0)
    layers = layers_like(hidden, output, task.dims)
    averages: Parameters = {}
    trained, losses = fit(
        task.start,
        task.X,
        task.Y if isinstance(task.loss, Loss) else task.Y.T,
        epochs=checks.integer("num_iterations", num_iterations),
        batch_size=batch_size,
        optimizer=optimizers.for_course(optimizer, learning_rate, COURSE_RATE),
        loss=task.loss,
        l1=l1,
        l2=l2,
        decay_biases=checks.flag("decay_biases", decay_biases),
        max_norm=max_norm,
        clip_value=clip_value,
        clip_norm=clip_norm,
        average=average,
        averages=averages,
        sample_weight=weights(sample_weight, class_weight, task.Y.T, task.told),
        layers=[*(replace(d, dropout=dropout) for d in layers[:-1]), layers[-1]],
        shuffle=shuffle,
        seed=seed,
        report=course.report_cost if print_cost else None,
        report_every=COSTS_EVERY,
    )
    return trained if average is None else averages, losses[::COSTS_EVERY].tolist()


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
    layers = layers_like(hidden, output, task.dims)
    m = task.X.shape[1]
    targets = matrices.target_matrix(Y, (task.dims[-1], m), output, task.X.dtype)

    def cost(trial: Parameters) -> float:
        _, passed = forward(task.X, trial, layers)
        return float(np.sum(losses(passed[-1].Z, targets, output)) / m)

    AL, caches = L_model_forward(task.X, task.start, hidden=hidden, output=output)
    grads = L_model_backward(AL, Y, caches, hidden=hidden, output=output)
    return course.compare_gradients(task, grads, cost)
