"""Diagnosis: what goes on inside a network as it trains, and what it means, in words.

Owns the measurements between steps and the rules that read them. Promises that no bit of the
training depends on them. One is made before training and one after it, however short it is; those
between take about two percent of the time. Leaves the numbers to the core: gradients,
activations, parameters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import checks, matrices
from .callbacks import Callback
from .checks import Array
from .layers import BatchNorm
from .losses import custom_targets
from .matrices import CSR

if TYPE_CHECKING:
    from .loop import History
    from .network import Network

__all__ = ["Diagnosis", "Finding", "Health"]

SHARE = 0.02
"""The share of a fit's time that measurements may take."""

BOUNDS = {"tanh": 1.0, "sigmoid": 1.0, "softsign": 1.0, "hard_tanh": 1.0, "hard_sigmoid": 1.0}
"""The activations that saturate, and the size that they tend to."""

ZERO = ("relu", "relu6")
"""The activations whose units can die: zero for every sample, and no gradient."""


@dataclass(frozen=True)
class Health:
    """What was measured before and after one step.

    Attributes
    ----------
    step : int
        The network's count of steps before it.
    loss : float
        Of the sample.
    gradient_norms, weight_norms : ndarray (L,)
        Euclidean norms of dW[l] and W[l], each over the root of the number of weights.
    update_ratios : ndarray (L,)
        `|W_new - W| / |W|` of the step that followed; NaN where none did.
    signal : ndarray (L,)
        The standard deviation of A[l] over samples and units.
    dead : ndarray (L,)
        The share of units that are 0 for every sample; 0 where units cannot die.
    saturated : ndarray (L,)
        The share of activations within a hundredth of their bound; 0 without one.
    """

    step: int
    loss: float
    gradient_norms: Array
    weight_norms: Array
    update_ratios: Array
    signal: Array
    dead: Array
    saturated: Array


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes
    ----------
    kind : str
        "vanishing", "exploding", "dead units", "saturation", "rate too high" or "rate too low".
    layer : int or None
        The layer where it shows most, from 1.
    text : str
        What was seen.
    advice : str
        What to change.
    """

    kind: str
    layer: int | None
    text: str
    advice: str

    def __str__(self) -> str:
        """Return what was seen and what to change."""
        return f"{self.kind}: {self.text} {self.advice}"


class Diagnosis(Callback):
    """Measure a network's health while it trains: a callback of `Network.fit`.

    `fit(diagnose=True)` makes one on rows of the training data and leaves it in the history. In
    words: `print(diagnosis)`; as numbers: `records`.

    Parameters
    ----------
    X : array_like (m, n_features)
    y : array_like
        The samples that are measured on, at most `samples` of them, evenly spaced.
    samples : int, default 256
        At most 1,024.

    Attributes
    ----------
    records : list of Health
    """

    def __init__(self, X: ArrayLike | CSR, y: ArrayLike, *, samples: int = 256) -> None:
        samples = checks.integer("samples", samples, low=1, high=1024)
        sparse = matrices.sparse("X", X)
        rows: Any = matrices.real("X", X, half=True) if sparse is None else sparse  # type: ignore[arg-type]
        if len(rows.shape) != 2 or 0 in rows.shape:
            raise checks.wrong("X", "shape (m, n_features), not empty", rows.shape)
        m = rows.shape[0]
        chosen = np.unique(np.linspace(0, m - 1, min(samples, m)).astype(np.int64))
        self._X, self._y = rows[chosen], custom_targets(y, m)[chosen]
        self.records: list[Health] = []
        self._layers: list[str] = []
        self._batch_norm = False
        self._weights: list[Array] | None = None
        self._spent = self._began = 0.0
        self._first_step = 0
        self.every = 1

    # --- the callback ---

    def on_fit_begin(self, network: Network) -> None:
        """Measure the network as it starts."""
        self._layers = [str(layer.activation) for layer in network.layers]
        self._batch_norm = any(isinstance(layer.norm, BatchNorm) for layer in network.layers)
        self._began, self._spent = time.monotonic(), 0.0
        self._first_step = network.steps
        self._weights = None
        self.every = 1
        self._measure(network)

    def on_step(self, step: int, loss: float, network: Network) -> None:
        """End a measurement with what its step changed, or begin another."""
        if self._weights is not None:
            self._see_update(network)
            self.every = self._interval(step)
        else:
            self.every = 1
            self._measure(network)

    def on_fit_end(self, history: History, network: Network) -> None:
        """Measure the network as it is in the end."""
        self._weights = None
        self._measure(network)
        self._weights = None

    def _interval(self, step: int) -> int:
        """Return the steps between measurements that keep their share of the time."""
        now = time.monotonic()
        steps = step - self._first_step
        each = max((now - self._began - self._spent) / max(steps, 1), 1e-9)
        cost = self._spent / len(self.records)
        return max(2, int(np.ceil(cost / (SHARE * each))))

    def _measure(self, network: Network) -> None:
        """Measure everything but an update."""
        began = time.monotonic()
        loss, gradients = network.loss_and_gradients(self._X, self._y)
        parameters = network.parameters  # a copy each time
        weights = [parameters[f"W{n}"] for n in range(1, len(self._layers) + 1)]
        units = network.activations(self._X, training=self._batch_norm)
        self.records.append(
            Health(
                network.steps,
                loss,
                np.array([_rms(gradients[f"dW{n}"]) for n in range(1, len(weights) + 1)]),
                np.array([_rms(W) for W in weights]),
                np.full(len(weights), np.nan),
                np.array([float(np.std(A)) for A in units]),
                np.array([_dead(*pair) for pair in zip(units, self._layers, strict=True)]),
                np.array([_saturated(*pair) for pair in zip(units, self._layers, strict=True)]),
            )
        )
        self._weights = weights
        self._spent += time.monotonic() - began

    def _see_update(self, network: Network) -> None:
        """Record what the last step changed."""
        began = time.monotonic()
        parameters, before = network.parameters, self._weights or []
        for n, W in enumerate(before):
            size = _rms(W)
            change = _rms(parameters[f"W{n + 1}"] - W)
            self.records[-1].update_ratios[n] = change / size if size else np.nan
        self._weights = None
        self._spent += time.monotonic() - began

    # --- what it means ---

    def findings(self) -> list[Finding]:
        """Return what is wrong, worst first; nothing for a healthy run."""
        if not self.records:
            return []
        rules = (_vanishing, _exploding, _dead_units, _saturation, _too_high, _too_low)
        found = [rule(self.records, self._layers) for rule in rules]
        return [finding for finding in found if finding is not None]

    def __str__(self) -> str:
        """Return the findings in words, or that there are none."""
        findings = self.findings()
        if not findings:
            return "healthy: gradients reach every layer, units live, updates are of a good size"
        return "\n".join(str(finding) for finding in findings)


def _rms(array: Array) -> float:
    """Return the root of the mean square, in float64."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def _dead(A: Array, activation: str) -> float:
    """Return the share of units of A (m, n) that are 0 for every sample."""
    return float(np.mean(np.all(A == 0, axis=0))) if activation in ZERO else 0.0


def _saturated(A: Array, activation: str) -> float:
    """Return the share of activations within a hundredth of a bound."""
    bound = BOUNDS.get(activation)
    if bound is None:
        return 0.0
    size = np.abs(A) if activation in ("tanh", "softsign", "hard_tanh") else np.abs(2 * A - 1)
    return float(np.mean(size > 0.99 * bound))


Rule = Sequence[Health]


def _vanishing(records: Rule, layers: Sequence[str]) -> Finding | None:
    """Look for a layer whose gradients were never a ten-thousandth of the largest."""
    gradients = np.max([_relative(r.gradient_norms) for r in records], axis=0)
    strengths = [r.signal[:-1] / max(float(r.signal[0]), 1e-300) for r in records]
    signal = np.max(strengths, axis=0, initial=0.0)
    if len(layers) < 2 or min(np.min(gradients), np.min(signal)) >= 1e-4:
        return None
    advice = (
        'scale the initial weights by the inputs (init="he" for relu, "lecun" for tanh), or add'
        " residual=True or a norm."
    )
    if np.min(signal) < 1e-4:
        layer = int(np.argmin(signal))
        faded = int(np.sum(signal < 1e-4))
        text = (
            f"{faded} of {len(layers)} layers pass on less than a ten-thousandth of the first"
            f" layer's signal, layer {layer + 1} {signal[layer]:.1e} of it, and gradients fade too;"
        )
        return Finding("vanishing", layer + 1, text, advice)
    layer = int(np.argmin(gradients))
    text = (
        f"the gradients of layer {layer + 1} of {len(layers)} are {gradients[layer]:.1e} of the"
        " largest layer's;"
    )
    return Finding("vanishing", layer + 1, text, advice)


def _relative(norms: Array) -> Array:
    """Return norms over the largest of them."""
    largest = float(np.max(norms, initial=0.0))
    relative: Array = norms / largest if largest > 0 else np.zeros_like(norms)
    return relative


def _exploding(records: Rule, layers: Sequence[str]) -> Finding | None:
    """Look for a signal or gradients that grow ten-thousandfold through the layers."""
    first = records[0]
    growth = float(np.max(first.signal) / max(float(first.signal[0]), 1e-300))
    sizes = first.gradient_norms / np.maximum(first.weight_norms, 1e-300)
    if growth < 1e4 and float(np.max(sizes)) < 1e4:
        return None
    layer = int(np.argmax(first.signal if growth >= 1e4 else sizes))
    return Finding(
        "exploding",
        layer + 1,
        f"at the start the signal grows {growth:.1e}-fold through the layers, and gradients reach"
        f" {float(np.max(sizes)):.1e} times their weights;",
        'scale the initial weights by the inputs (init="he", "lecun"), add a norm, scale the'
        " features, or bound the gradient (clip_value).",
    )


def _dead_units(records: Rule, layers: Sequence[str]) -> Finding | None:
    """Look for layers more than half of whose relu units are 0 for every sample."""
    dead = records[-1].dead
    layer = int(np.argmax(dead))
    if dead[layer] <= 0.5:
        return None
    return Finding(
        "dead units",
        layer + 1,
        f"{dead[layer]:.0%} of the units of layer {layer + 1} are 0 for every sample, and get no"
        " gradient;",
        'lower the learning rate, or take "leaky_relu", "elu" or "gelu".',
    )


def _saturation(records: Rule, layers: Sequence[str]) -> Finding | None:
    """Look for layers two thirds of whose activations stand at their bounds."""
    saturated = records[-1].saturated[:-1]
    if len(saturated) == 0 or float(np.max(saturated)) <= 2 / 3:
        return None
    layer = int(np.argmax(saturated))
    return Finding(
        "saturation",
        layer + 1,
        f"{saturated[layer]:.0%} of the activations of layer {layer + 1} stand at their bounds,"
        " where the derivative is near 0;",
        "scale the features, start with smaller weights, add a norm, or lower the learning rate.",
    )


def _largest_updates(records: Rule) -> list[float]:
    """Return the largest layer's update of each record that has one."""
    known = [r.update_ratios for r in records if not np.all(np.isnan(r.update_ratios))]
    return [float(np.nanmax(ratios)) for ratios in known]


def _too_high(records: Rule, layers: Sequence[str]) -> Finding | None:
    """Look for updates of a tenth of the weights, or a loss far above its start."""
    losses = np.array([r.loss for r in records])
    ratios = _largest_updates(records)
    # A large first step alone, as Adagrad's and RMSprop's are, is no habit: of two the lower one.
    typical = sorted(ratios)[(len(ratios) - 1) // 2] if len(ratios) > 1 else 0.0
    # By the size of what it began with, whatever its sign: a likelihood's may lie below zero.
    rises = len(losses) > 1 and not losses[-1] - losses[0] <= abs(losses[0]) + 1e-12
    first = ratios[0] if ratios else 0.0
    if typical <= 0.1 and first <= 1.0 and not rises:
        return None
    text = f"a step changes a layer's weights by {max(typical, first):.1%} of their size"
    if rises:
        text = f"the loss rose from {losses[0]:.3g} to {losses[-1]:.3g}"
    return Finding("rate too high", None, f"{text};", "lower the learning rate tenfold.")


def _too_low(records: Rule, layers: Sequence[str]) -> Finding | None:
    """Look for updates of less than a millionth of the weights, and a loss that stands."""
    ratios = _largest_updates(records)
    losses = np.array([r.loss for r in records])
    if not ratios or max(ratios) >= 1e-6 or losses[0] - losses[-1] > 0.01 * abs(losses[0]):
        return None
    return Finding(
        "rate too low",
        None,
        f"a step changes weights by {max(ratios):.1e} of their size at most, and the loss stands at"
        f" {losses[-1]:.3g};",
        "raise the learning rate tenfold; Network.find_learning_rate suggests one.",
    )
