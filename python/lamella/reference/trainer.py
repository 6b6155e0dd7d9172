"""The trainer: the twin of `lamella.Network.fit`, features x samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import checks, optimizers
from .._core import DivergenceError
from ..checks import Array
from ..course import Cache, Parameters, dictionary, lists
from ..optimizers import Muon, Optimizer
from .constraints import approach, clip_by_norm, constrain
from .layers import Rounding, activations_of, as_it_is, backward, bfloat16, forward
from .losses import losses
from .muon import follow, rule_of
from .optimizers import State, update


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
    clip_norm: float | None = None,
    max_norm: float | Sequence[float | None] | None = None,
    average: float | None = None,
    averages: Parameters | None = None,
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
    clip_norm : float, optional
        What bounds the norm of the whole gradient, penalties included.
    max_norm : float or sequence of float, optional
        What bounds the length of each row of W after an update; one for all layers or one each.
    average : float, optional
        The decay of a moving average of the parameters, which begins with the first.
    averages : dict, optional
        Filled with that average.
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
    activations = activations_of(hidden, output, net.dims)
    Y = checks.target_matrix(Y, (net.dims[-1], m), output, net.dtype)
    rule = optimizers.resolve(optimizer, learning_rate)
    scale = checks.number("loss_scale", loss_scale)
    penalty = Penalty(checks.number("l1", l1), checks.number("l2", l2), decay_biases)
    clip_value = checks.clip("clip_value", clip_value)
    clip_norm = checks.clip("clip_norm", clip_norm)
    average = checks.decay("average", average)
    L = len(net.weights)
    each = list(max_norm) if isinstance(max_norm, Sequence) else [max_norm] * L
    limits = [checks.clip("max_norm", limit) for limit in each]
    if len(limits) != L:
        raise checks.wrong("max_norm", f"{L} limits", len(limits))
    if None not in (clip_value, clip_norm):
        raise checks.wrong("clip_norm", "None beside clip_value", clip_norm)
    size = checks.batch_size(batch_size, m) or m
    shuffled = checks.flag("shuffle", shuffle) and size < m
    seed = checks.seed(seed)
    if operands is not None:
        checks.choice("operands", operands, ("bfloat16",))
    rounded = bfloat16 if operands else as_it_is

    trained = dictionary([W.copy() for W in net.weights], [b.copy() for b in net.biases])
    state = {
        name: State(*(np.zeros_like(array) for _ in range(3))) for name, array in trained.items()
    }
    history = np.zeros(checks.integer("epochs", epochs))
    report_every = checks.integer("report_every", report_every, low=1)
    means = {name: array.copy() for name, array in trained.items()}
    step = 0
    for epoch in range(len(history)):
        order = epoch_order(m, seed, epoch) if shuffled else np.arange(m)
        for first in range(0, m, size):
            batch = order[first : first + size]
            step += 1
            X_batch, Y_batch = (X, Y) if size == m else (X.T[batch].T, Y.T[batch].T)
            loss, grads = _loss_and_gradients(
                trained, X_batch, Y_batch, activations, penalty, scale, step, rounded
            )
            history[epoch] += loss * len(batch) / m
            if clip_norm is not None:
                clip_by_norm(grads, clip_norm)
            for name, array in trained.items():
                gradient = grads[f"d{name}"]
                if clip_value is not None:
                    gradient = np.clip(gradient, -clip_value, clip_value)
                own = rule_of(rule, name, L)
                decay = getattr(own, "weight_decay", 0.0) if penalty.covers(name) else 0.0
                array *= 1 - own.learning_rate * decay
                if isinstance(own, Muon):
                    follow(own, array, gradient, state[name].m)
                else:
                    update(own, step, array, gradient, state[name])
            for layer, limit in enumerate(limits, start=1):
                if limit is not None:
                    constrain(trained[f"W{layer}"], limit)
            if average is not None:
                approach(means, trained, average)
        if report is not None and epoch % report_every == 0:
            report(epoch, float(history[epoch]))
    if averages is not None:
        averages.update(means)
    return trained, history


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
        AL, caches = forward(X, W, b, activations, rounded)
        loss = (
            float(np.sum(losses(caches[-1][3], Y, activations[-1]), dtype=np.float64)) * scale / m
        )
        for name, w in parameters.items():
            if penalty.covers(name):
                loss += penalty.l1 * float(np.sum(np.abs(w), dtype=np.float64))
                loss += penalty.l2 / 2 * float(np.sum(w**2, dtype=np.float64))
    if not np.isfinite(loss):
        raise DivergenceError(_divergence(step, caches))
    inputs, Zs = [c[0] for c in caches], [c[3] for c in caches]
    grads = backward((AL - Y) * (scale / m), inputs, W, Zs, activations, rounded)
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
