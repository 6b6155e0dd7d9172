"""What `functional.py` and `reference/` share besides the checks: start and plainest step too.

Owns the names and defaults of the course, the arguments of `L_layer_model` and
`gradient_check`, checked and made ready, the printed cost, the labels that outputs stand for,
and the comparison of a gradient with central differences. Leaves every product, activation and
update to its callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import checks, initializers, losses, matrices, passes
from .checks import Array
from .initializers import Init
from .losses import Custom, Loss, Task

Parameters = dict[str, Array]
Cache = tuple[Array, Array, Array, Array]
"""`(A_prev, W, b, Z)` of a layer."""

COURSE_RATE = 0.0075
"""The default learning rate of `L_layer_model`."""

COSTS_EVERY = 100
"""`L_layer_model` keeps the cost of every so many iterations."""


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
    net = passes.layers(parameters)
    passes.writable(parameters)
    rate = checks.number("learning_rate", learning_rate)
    for layer, (dW, db) in enumerate(passes.gradients(grads, net), start=1):
        parameters[f"W{layer}"] -= (rate * dW).astype(net.dtype, copy=False)
        parameters[f"b{layer}"] -= (rate * db).astype(net.dtype, copy=False)
    return parameters


class CourseTask(NamedTuple):
    """The checked data and the start of an L-layer model."""

    X: Array  # (n[0], m), in a dtype of its own
    Y: Array  # (n, m) of a loss's n numbers a sample, or class indices (m,); a function's (..., m)
    start: Parameters
    dims: tuple[int, ...]
    loss: Loss | Custom  # a function samples first, as `losses.Batches` takes it
    told: Task  # of the loss


def course_task(
    X: ArrayLike,
    Y: ArrayLike,
    layers_dims: Sequence[int],
    *,
    seed: int,
    init: Init,
    dtype: DTypeLike,
    output: str,
    loss: str | Loss | Custom | None,
    parameters: Mapping[str, ArrayLike] | None,
) -> CourseTask:
    """Check what `L_layer_model` learns from, and make its initial parameters."""
    dims = checks.layer_dims("layers_dims", layers_dims)
    output = checks.output(output, dims[-1])
    wanted = checks.floating(dtype)
    seed = checks.seed(seed)
    given = None if parameters is None else passes.layers(parameters, dims)
    X = matrices.samples_as_they_are("X", X, dims[0], given.dtype if given else wanted)
    start = initializers.start(dims, init, seed, wanted, given)
    criterion = losses.resolve(loss, output)
    if not isinstance(criterion, Loss):
        Y = losses.custom_targets(Y, X.shape[1], "Y", axis=-1)
        return CourseTask(X, Y, start, dims, _samples_first(criterion), losses.CUSTOM)
    task = criterion.task(output, dims[-1])
    Y = matrices.labels("Y", Y, task.columns, X.shape[1], task.like, features_first=True)
    return CourseTask(X, Y, start, dims, criterion, task)


def _samples_first(loss: Custom) -> Custom:
    """Return a loss in Python of samples x features, given one of features x samples."""

    def turned(logits: Array, targets: Array) -> Any:
        answer = loss(logits.T, targets.T)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            return answer
        return answer[0], matrices.shaped("loss gradient", answer[1], logits.T.shape).T

    return turned


def refuse_unknown_layers(norm: object, residual: object) -> None:
    """Refuse layers that are more than their W and b."""
    for name, value, none in (("norm", norm, None), ("residual", residual, False)):
        if value is not none:
            expected = f"{none}, as predict knows W and b alone (lamella.Network has {name})"
            raise checks.wrong(name, expected, repr(value))


def report_cost(iteration: int, cost: float) -> None:
    """Print a cost as the course does."""
    print(f"Cost after iteration {iteration}: {cost:.6f}", flush=True)


def answers(AL: Array, output: str) -> Array:
    """Turn outputs AL (n[L], m) into labels."""
    if output == "softmax":
        classes: Array = np.argmax(AL, axis=0)
        return classes
    return AL if output == "identity" else (AL > 0.5).astype(np.int64)


def lists(parameters: Mapping[str, Array]) -> tuple[list[Array], list[Array]]:
    """Return the weights and the biases of a dict, layer by layer."""
    layers = range(1, len(parameters) // 2 + 1)
    return [parameters[f"W{n}"] for n in layers], [parameters[f"b{n}"] for n in layers]


def dictionary(weights: Sequence[Any], biases: Sequence[Any]) -> Parameters:
    """Return the dict W1, b1, W2, ... of lists of weights and biases."""
    pairs = enumerate(zip(weights, biases, strict=True), start=1)
    return {
        f"{kind}{n}": array for n, pair in pairs for kind, array in zip("Wb", pair, strict=True)
    }


# --- gradients and central differences -------------------------------------------------------


class WorstEntry(NamedTuple):
    """Where a gradient array is farthest from its central differences."""

    place: tuple[int, ...]
    gradient: float
    numerical: float


Details = dict[str, WorstEntry]


class GradientTask(NamedTuple):
    """The checked arguments of a gradient check, in float64."""

    X: Array  # (n[0], m)
    targets: Array  # (n[L], m), or class indices (m,)
    start: Parameters
    dims: tuple[int, ...]
    epsilon: float
    details: bool


def gradient_task(
    parameters: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    output: str,
    epsilon: float,
    details: bool,
) -> GradientTask:
    """Check the arguments of `gradient_check` and copy the parameters in float64."""
    net = passes.layers(parameters)
    output = checks.output(output, net.dims[-1])
    double = np.dtype(np.float64)
    X = matrices.samples("X", X, net.dims[0], double)
    targets = matrices.labels("Y", Y, net.dims[-1], X.shape[1], output, features_first=True)
    start = dictionary(
        *([array.astype(double) for array in part] for part in (net.weights, net.biases))
    )
    epsilon = checks.number("epsilon", epsilon, positive=True)
    return GradientTask(X, targets, start, net.dims, epsilon, checks.flag("details", details))


def compare_gradients(
    task: GradientTask, grads: Mapping[str, Array], cost: Callable[[Parameters], float]
) -> float | tuple[float, Details]:
    """Compare gradients with central differences of `cost`, entry by entry."""
    differences, worst = [], {}
    for name, array in task.start.items():
        gradient, numerical = grads[f"d{name}"], np.empty_like(array)
        for index in np.ndindex(array.shape):
            numerical[index] = _central_difference(cost, task, array, index)
        differences.append((gradient.ravel(), numerical.ravel()))
        far = np.unravel_index(np.argmax(np.abs(gradient - numerical)), array.shape)
        place = tuple(int(i) for i in far)
        worst[f"d{name}"] = WorstEntry(place, float(gradient[place]), float(numerical[place]))
    g, h = (np.concatenate(part) for part in zip(*differences, strict=True))
    size = float(np.linalg.norm(g) + np.linalg.norm(h))
    difference = float(np.linalg.norm(g - h)) / size if size else 0.0
    return (difference, worst) if task.details else difference


def _central_difference(
    cost: Callable[[Parameters], float], task: GradientTask, array: Array, index: tuple[int, ...]
) -> float:
    """Return `(cost(+epsilon) - cost(-epsilon)) / 2 epsilon` for one entry, then restore it."""
    value = array[index]
    array[index] = value + task.epsilon
    above = cost(task.start)
    array[index] = value - task.epsilon
    below = cost(task.start)
    array[index] = value
    return (above - below) / (2 * task.epsilon)
