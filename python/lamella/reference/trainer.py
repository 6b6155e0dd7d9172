"""The trainer: the twin of `lamella.Network.fit`, features x samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import checks, matrices, optimizers, passes
from .. import losses as named
from .._core import DivergenceError
from ..checks import Array
from ..course import Parameters, dictionary
from ..layers import Dense
from ..losses import Batches, Custom, Loss
from ..optimizers import Muon, Optimizer, Rate
from ..schedules import Schedule
from ..stopping import EarlyStopping
from .constraints import approach, clip_by_norm, constrain
from .layers import Passed, Rounding, Training, as_it_is, backward, bfloat16, forward, layers_like
from .losses import loss_and_gradient, targets
from .muon import follow, rule_of
from .optimizers import State, update
from .schedules import Plateau, rate_at


def fit(
    parameters: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    *,
    epochs: int,
    batch_size: int | None = None,
    optimizer: str | Optimizer = "sgd",
    learning_rate: Rate | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    decay_biases: bool = False,
    clip_value: float | None = None,
    clip_norm: float | None = None,
    average: float | None = None,
    averages: Parameters | None = None,
    max_norm: float | Sequence[float | None] | None = None,
    loss: str | Loss | Custom | None = None,
    loss_scale: float = 1.0,
    sample_weight: ArrayLike | None = None,
    hidden: str | Sequence[str] = "relu",
    output: str = "sigmoid",
    shuffle: bool = True,
    seed: int = 0,
    operands: str | None = None,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    early_stopping: EarlyStopping | None = None,
    layers: Sequence[Dense] | None = None,
    statistics: Parameters | None = None,
    report: Callable[[int, float], object] | None = None,
    report_every: int = 1,
) -> tuple[Parameters, Array]:
    """Train as the core does: the twin of `lamella.Network.fit`, features x samples.

    A batch's loss is `loss_scale / sum(w) * sum(w * losses) + l1 * sum(|W|) + l2/2 * sum(W**2)`,
    from logits, where w are the samples' weights: with `loss_scale=1` that of `L_layer_model`,
    which sums over outputs. `Network` takes means over n outputs: `lamella.losses` has the scale
    of each loss, 1/n for sigmoid, 1 for softmax, 2/n for mean squared error.

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
    learning_rate : float, Schedule or callable, optional
        In place of the optimizer's own. A plateau hears the loss of `validation`, or without it
        the training's.
    l1, l2, loss_scale : float
    loss : str, Loss or callable, optional
        By default the one that matches the output. A callable is as `Network`'s, and Y (m, ...)
        whatever it takes.
    sample_weight : array_like (m,), optional
        1 by default. A batch whose weights are all 0 has the loss 0 and no gradient.
    decay_biases : bool
        Whether penalties and the optimizer's weight decay reach biases too.
    clip_value : float, optional
        What bounds each gradient, penalties included.
    clip_norm : float, optional
        What bounds the norm of the whole gradient, penalties included.
    average : float, optional
        The decay of a moving average of the parameters, which begins with the first.
    averages : dict, optional
        Filled with that average.
    max_norm : float or sequence of float, optional
        What bounds the length of each row of W after an update, one for all layers or one each;
        by default the `layers`' own.
    hidden : str or sequence of str
        One activation for all hidden layers, or one for each.
    output : {"sigmoid", "softmax", "identity", "exponential"}
    shuffle : bool
        Whether batches follow `epoch_order`.
    seed : int
    operands : {None, "bfloat16"}
        What products round their operands to; their sums keep the parameters' dtype.
    validation : tuple, optional
        X and Y whose loss early stopping and plateaus watch instead of the training's.
    early_stopping : EarlyStopping, optional
        Its `monitor` and `mode` are not looked at.
    layers : sequence of Dense, optional
        Layers with everything filled in, as `Network.layers`, in place of `hidden` and `output`.
        Parameters are then those of `Network.parameters`.
    statistics : dict of ndarray, optional
        Running statistics of batch normalisation, as `Network.statistics`; brought up to date.
    report : callable, optional
        Called with the epoch, from 0, and its loss, every `report_every` epochs.

    Returns
    -------
    parameters : dict of ndarray
    losses : ndarray (epochs,)
        The mean over each epoch's rows of their batch's loss before its update, weighted by w;
        fewer where it was stopped early.

    Raises
    ------
    DivergenceError
        If a loss is not finite, naming step and layer.
    """
    if layers is None:
        net = passes.layers(parameters)
        # Losses are of logits: the output's function is not needed, and no layer else has this one.
        layers = layers_like(hidden, "identity" if output == "exponential" else output, net.dims)
        trained = dictionary([W.copy() for W in net.weights], [b.copy() for b in net.biases])
    else:
        trained = {name: np.array(array) for name, array in parameters.items()}
        output = str(layers[-1].activation)
    features, dtype = trained["W1"].shape[1], trained["W1"].dtype
    X = matrices.samples("X", X, features, dtype)
    m, units = X.shape[1], layers[-1].units
    criterion = named.resolve(loss, output)
    if isinstance(criterion, Loss):
        Y = targets(criterion, Y, output, (units, m), dtype)
    else:
        Y = np.asarray(Y).T  # so that its last axis is the samples'
    w = (
        np.ones(m)
        if sample_weight is None
        else matrices.shaped("sample_weight", sample_weight, (m,))
    )
    rule, schedule = optimizers.split(optimizer, learning_rate)
    scale = checks.number("loss_scale", loss_scale)
    penalty = Penalty(checks.number("l1", l1), checks.number("l2", l2), decay_biases)
    clip_value = checks.clip("clip_value", clip_value)
    clip_norm = checks.clip("clip_norm", clip_norm)
    if None not in (clip_value, clip_norm):
        raise checks.wrong("clip_norm", "None beside clip_value", clip_norm)
    average = checks.decay("average", average)
    if max_norm is None:
        max_norm = [layer.max_norm for layer in layers]
    asked = list(max_norm) if isinstance(max_norm, Sequence) else [max_norm] * len(layers)
    limits = [checks.clip("max_norm", limit) for limit in asked]
    if len(limits) != len(layers):
        raise checks.wrong("max_norm", f"{len(layers)} limits", len(limits))
    size = checks.batch_size(batch_size, m) or m
    shuffled = checks.flag("shuffle", shuffle) and size < m
    seed = checks.seed(seed)
    if operands is not None:
        checks.choice("operands", operands, ("bfloat16",))
    rounded = bfloat16 if operands else as_it_is

    state = {
        name: State(*(np.zeros_like(array) for _ in range(3))) for name, array in trained.items()
    }
    history = np.zeros(checks.integer("epochs", epochs))
    report_every = checks.integer("report_every", report_every, low=1)
    means = {name: array.copy() for name, array in trained.items()}
    step, of_epoch = 0, -(-m // size)
    base = optimizers.plain_rate(rule.learning_rate)
    plateau: Plateau | None = None
    if schedule is not None:
        schedule = schedule.with_total(len(history) * (of_epoch if schedule.per == "step" else 1))
        if schedule.plateau is not None:
            plateau = Plateau(schedule.plateau, base)
    if validation is not None:
        held = matrices.samples("X", validation[0], features, dtype)
        shape = (units, held.shape[1])
        assert isinstance(criterion, Loss)
        held_Y = targets(criterion, validation[1], output, shape, dtype)
    best, best_epoch, kept = np.inf, -1, trained
    for epoch in range(len(history)):
        order = epoch_order(m, seed, epoch) if shuffled else np.arange(m)
        for first in range(0, m, size):
            batch = order[first : first + size]
            rate = _rate(schedule, base if plateau is None else plateau.rate, step, epoch)
            rule = replace(rule, learning_rate=rate)
            step += 1
            X_batch, Y_batch = (X, Y) if size == m else (X.T[batch].T, Y.T[batch].T)
            value, grads = _loss_and_gradients(
                trained,
                X_batch,
                Y_batch,
                w[batch],
                layers,
                criterion,
                penalty,
                scale,
                Training(seed, step),
                rounded,
                statistics,
            )
            history[epoch] += value * np.sum(w[batch]) / np.sum(w)
            if clip_norm is not None:
                clip_by_norm(grads, clip_norm)
            for name, array in trained.items():
                gradient = grads[f"d{name}"]
                if clip_value is not None:
                    gradient = np.clip(gradient, -clip_value, clip_value)
                own = rule_of(rule, name, len(layers))
                decay = getattr(own, "weight_decay", 0.0) if penalty.covers(name) else 0.0
                array *= 1 - optimizers.plain_rate(own.learning_rate) * decay
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
        watched = float(history[epoch])
        if validation is not None:
            assert isinstance(criterion, Loss)
            Z = forward(held, trained, layers, rounded, None, statistics)[1][-1].Z
            each, _ = loss_and_gradient(criterion, Z, held_Y, output)
            watched = scale * float(np.sum(each, dtype=np.float64)) / held.shape[1]
            watched += penalty.of(trained)
        if plateau is not None:
            plateau.observe(watched)
        if early_stopping is not None:
            if watched < best - early_stopping.min_delta:
                best, best_epoch = watched, epoch
                kept = {name: array.copy() for name, array in trained.items()}
            elif epoch - best_epoch >= early_stopping.patience:
                history = history[: epoch + 1]
                break
    if early_stopping is not None and early_stopping.restore_best:
        trained = kept
    if averages is not None:
        averages.update(means)
    return trained, history


def _rate(schedule: Schedule | None, base: float, step: int, epoch: int) -> float:
    """Return the rate of a step, which `step` steps and `epoch` epochs went before."""
    if schedule is None:
        return base
    return rate_at(schedule, base, step if schedule.per == "step" else epoch)


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
        """Return whether the parameter of this name is penalised; gamma and beta as biases."""
        return self.biases or name.startswith("W")

    def of(self, parameters: Parameters) -> float:
        """Return the penalty of all parameters."""
        if self.l1 == self.l2 == 0:
            return 0.0
        covered = [p for name, p in parameters.items() if self.covers(name)]
        absolute = sum(float(np.sum(np.abs(p), dtype=np.float64)) for p in covered)
        squares = sum(float(np.sum(p**2, dtype=np.float64)) for p in covered)
        return self.l1 * absolute + self.l2 / 2 * squares


def _loss_and_gradients(
    parameters: Parameters,
    X: Array,
    Y: Array,
    w: Array,
    layers: Sequence[Dense],
    criterion: Loss | Custom,
    penalty: Penalty,
    scale: float,
    training: Training,
    rounded: Rounding,
    statistics: Parameters | None,
) -> tuple[float, Parameters]:
    """Return a batch's loss, with the penalties, and its gradients."""
    share = w / np.sum(w) if np.any(w) else 0 * w
    with np.errstate(over="ignore", invalid="ignore"):  # the loss tells
        _, passed = forward(X, parameters, layers, rounded, training, statistics)
        Z = passed[-1].Z
        if isinstance(criterion, Loss):
            each, dZ = loss_and_gradient(criterion, Z, Y, str(layers[-1].activation))
            dZ = dZ * (scale * share)
            loss = scale * float(np.sum(share * np.sum(each, axis=0, dtype=np.float64)))
        else:
            batches = Batches(criterion, Y.T, weighted=bool(np.any(w != 1)))
            value, values, rows = batches(Z.T, slice(None))
            dZ = rows.T if values is None else rows.T * share
            loss = float(np.sum(share * values)) if value is None else value
        loss += penalty.of(parameters)
    if not np.isfinite(loss):
        raise DivergenceError(_divergence(training.step, passed))
    grads = backward(dZ.astype(X.dtype), parameters, layers, passed, rounded)
    for name, p in parameters.items():
        if (penalty.l1 or penalty.l2) and penalty.covers(name):
            grads[f"d{name}"] += penalty.l2 * p + penalty.l1 * np.sign(p)
    return loss, grads


def _divergence(step: int, passed: list[Passed]) -> str:
    """Spell where training left the finite numbers."""
    bad = (n for n, here in enumerate(passed, start=1) if not np.all(np.isfinite(here.Z)))
    return (
        f"training diverged at step {step}: layer {next(bad, len(passed))} is the first whose"
        " numbers are not finite; a smaller learning_rate or scaled inputs may help"
    )
