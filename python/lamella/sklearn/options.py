"""What scikit-learn's perceptrons do not have: parameters that make and train a `lamella.Network`.

Owns what those parameters may be, when they ask for a network, how it is made and trained by one
epoch, and the way between its parameters and the estimator's attributes. Promises that all else
is as without them: scikit-learn's initial weights, rules of its solvers, losses' gradients and
stopping. Leaves the decisions of a fit to `perceptron.py`.

Alphabet: m samples, L layers of n[l] units. `coefs_[l - 1] (n[l-1], n[l])` is the transpose of the
network's `W[l]`, `intercepts_[l - 1] (n[l],)` its `b[l]`; gamma, beta and running statistics of
normalised layers are the network's alone.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.utils._param_validation import Interval, StrOptions

from .. import checks, metrics, optimizers
from ..layers import BatchNorm, Dense, LayerNorm, statistic_names
from ..losses import BY_NAME, Hinge, Loss, Poisson, Quantile, Task
from ..metrics import Metric
from ..network import Network
from ..optimizers import SGD, Optimizer
from ..timing import Schedule
from .engine import ACTIVATIONS, LOSSES, PRECISIONS, assign, precision, readable, spec

Array = NDArray[Any]

PARAMETERS: dict[str, Any] = {
    "activations": [str, list, tuple, None],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "norm": [StrOptions({"batch", "layer"}), BatchNorm, LayerNorm, None],
    "residual": ["boolean"],
    "optimizer": [StrOptions(set(optimizers.BY_NAME)), *get_args(Optimizer), None],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "max_norm": [Interval(Real, 0, None, closed="neither"), None],
    "learning_rate": [
        StrOptions({"constant", "invscaling", "adaptive"}),
        Schedule,
        callable,
    ],
    "validation_data": [tuple, list, None],
    "metric": [str, Metric, callable, None],
}
"""Constraints of the parameters; those of losses are `loss_constraint`."""

OWN_LOSSES = ("log_loss", "squared_error", "poisson")
"""scikit-learn's names, of which the core computes value and gradient as scikit-learn does."""

LARGEST_SEED = 2**31 - 1


def loss_constraint(*own: str, classes: bool) -> list[Any]:
    """Return what a loss may be: scikit-learn's `own`, one for classes or values, a function."""
    fitting = {name for name, loss in BY_NAME.items() if _is_for_classes(loss) is classes}
    return [StrOptions((fitting - {"poisson"}) | set(own)), Loss, callable]


def _is_for_classes(loss: Loss) -> bool:
    """Whether targets are classes, or a yes or no."""
    return isinstance(loss, Hinge) or not {"identity", "exponential"} & set(loss.outputs)


def are_asked(estimator: Any) -> bool:
    """Whether a parameter asks for what only a network does."""
    given = (estimator.activations, estimator.norm, estimator.optimizer)
    limits = (estimator.clip_norm, estimator.max_norm)
    return (
        any(value is not None for value in (*given, *limits))
        or estimator.dropout > 0
        or bool(estimator.residual)
        or not isinstance(estimator.learning_rate, str)
        or not (isinstance(estimator.loss, str) and estimator.loss in OWN_LOSSES)
    )


def check(estimator: Any, hidden: int) -> None:
    """Refuse, before work starts, what does not go together; `hidden` counts hidden layers."""
    if are_asked(estimator) and estimator.solver == "lbfgs":
        raise checks.wrong("solver", "'adam' or 'sgd' with the parameters of a network", "'lbfgs'")
    loss = estimator.loss
    if isinstance(loss, Loss) and _is_for_classes(loss) is not is_classifier(estimator):
        kind = "classes" if is_classifier(estimator) else "values"
        raise checks.wrong("loss", f"one for {kind}", loss.name)
    if precision(estimator.dtype) not in (None, *PRECISIONS):
        raise checks.wrong("dtype", f"one of {', '.join(PRECISIONS)}", estimator.dtype)
    calls(estimator.callbacks)
    checks.threads(estimator.threads)
    quantiles = loss.quantiles if isinstance(loss, Quantile) else (0.5,)
    if isinstance(quantiles, tuple) and len(quantiles) > 1:
        raise checks.wrong("loss", "one quantile", f"{len(quantiles)}")
    _hidden_names(estimator, hidden)


def calls(callbacks: Any) -> list[Callable[..., object]]:
    """Return what hears of each epoch, of the epoch, its numbers and the estimator."""
    if callbacks is None:
        return []
    listed = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    found: list[Any] = [getattr(callback, "on_epoch_end", callback) for callback in listed]
    for callback, call in zip(listed, found, strict=True):
        if isinstance(callback, type) or not callable(call):
            got = reprlib.repr(callback)
            raise TypeError(f"callbacks: expected Callback objects or functions, got {got}")
    return found


def gives_margins(estimator: Any) -> bool:
    """Whether outputs are margins: as it was fitted, or by the loss."""
    fitted = vars(estimator).get("out_activation_")
    if fitted is not None:
        return bool(fitted == "identity")
    loss = estimator.loss
    return isinstance(BY_NAME.get(loss) if isinstance(loss, str) else loss, Hinge)


def gives_probabilities(estimator: Any) -> bool:
    """Whether outputs are probabilities."""
    return not gives_margins(estimator)


# --- what a network is made of ---------------------------------------------------------------


@dataclass(frozen=True)
class Own(Loss):
    """scikit-learn's loss of an output activation: its gradient, not divided by the outputs.

    The squared error is half of the square. Of several outputs, values are sums.
    """

    name: ClassVar[str] = "scikit-learn"
    outputs: ClassVar[tuple[str, ...]] = ("sigmoid", "softmax", "identity", "exponential")

    def task(self, output: str, n: int) -> Task:
        """Return what the core takes."""
        names = {ACTIVATIONS.get(name, name): loss for name, loss in LOSSES.items()}
        targets = {"sigmoid": "bits", "softmax": "classes", "exponential": "counts"}
        return Task((names[output], []), 1.0, targets.get(output, "real"), n)


@dataclass(frozen=True)
class Rule(SGD):
    """scikit-learn's form of an optimizer, which the core knows by another name."""

    own: Any = None

    def spec(self) -> tuple[str, dict[str, float]]:
        """Return the rule's name and settings, as the core takes them."""
        name, settings = self.own
        return name, {**settings, "learning_rate": optimizers.plain_rate(self.learning_rate)}


def output_of(estimator: Any) -> str:
    """Return `out_activation_`, given scikit-learn's choice of it and the loss."""
    if isinstance(criterion(estimator), Hinge):
        return "identity"
    return "exp" if isinstance(estimator.loss, Poisson) else str(estimator.out_activation_)


def criterion(estimator: Any) -> Any:
    """Return the loss, an object or a function."""
    loss = estimator.loss
    if isinstance(loss, str):
        loss = Own() if loss in OWN_LOSSES else BY_NAME[loss]
    if isinstance(loss, Hinge) and is_classifier(estimator):
        labels = estimator._label_binarizer.y_type_ == "multilabel-indicator"
        loss = replace(loss, multilabel=labels)
    return loss


def _hidden_names(estimator: Any, hidden: int) -> list[str]:
    """Return the hidden layers' activations by the core's names."""
    given = estimator.activations
    if given is None:
        given = estimator.activation
    names = [given] * hidden if isinstance(given, str) else list(given)
    if len(names) != hidden:
        raise checks.wrong("activations", f"one for each of {hidden} hidden layers", len(names))
    names = [ACTIVATIONS.get(name, name) if isinstance(name, str) else name for name in names]
    return [checks.choice("activations", name, checks.HIDDEN) for name in names]


def _layers(estimator: Any) -> list[int | Dense]:
    """Return a network's layers: those of the estimator's parameters and settings."""
    sizes = [int(weights.shape[0]) for weights in estimator.coefs_]
    last = int(estimator.coefs_[-1].shape[1])
    names = _hidden_names(estimator, len(sizes) - 1)
    hidden = [Dense(n, name) for n, name in zip(sizes[1:], names, strict=True)]
    return [sizes[0], *hidden, last]


def _made(estimator: Any, seed: int) -> Network:
    """Return a network of the estimator's settings, whose parameters are still its own."""
    output = output_of(estimator)
    dtype = precision(estimator.dtype) or estimator.coefs_[0].dtype.name
    return Network(
        _layers(estimator),
        output=ACTIVATIONS.get(output, output),
        loss=criterion(estimator),
        init=1e-3,  # the parameters come from the estimator
        norm=estimator.norm,
        dropout=float(estimator.dropout),
        residual=bool(estimator.residual),
        max_norm=None if estimator.max_norm is None else float(estimator.max_norm),
        dtype=dtype,
        seed=seed,
    )


def trained_network(estimator: Any, *, anew: bool) -> Network:
    """Return `network_`, made or made again where settings have changed, with the parameters.

    A network that is made draws one number, the seed of its shuffle and dropout, from the
    estimator's generator. `anew` forgets optimizer state and counters.
    """
    held = vars(estimator).get("network_")
    made = _made(estimator, 0)
    if held is None or _settings(held) != _settings(made):
        made.seed = int(estimator._random_state.randint(LARGEST_SEED))
        if held is not None:
            _take_norms(made, held)
        vars(estimator).pop("_best_network", None)
        vars(estimator).pop("_network_copies", None)
        estimator.network_ = made
    elif anew:
        held.reset()
    return current(estimator)


def _settings(network: Network) -> tuple[Any, ...]:
    """Return what two networks must have in common for one to go on as the other."""
    return (
        network.n_features,
        network.layers,
        network.criterion,
        network.precision,
        network.max_norm,
    )


def _take_norms(made: Network, held: Network) -> None:
    """Give a network what another one's normalised layers have, as far as these are alike."""
    old, new = held.parameters, made.parameters
    fitting = {k: v for k, v in old.items() if k in new and v.shape == new[k].shape}
    made.parameters = new | fitting
    if statistic_names(held.layers) == statistic_names(made.layers):
        made.statistics = held.statistics


# --- between the network and the attributes --------------------------------------------------


def write_out(estimator: Any) -> None:
    """Write the network's weights and biases into the estimator's arrays."""
    coefs, intercepts = _arrays(estimator.network_)
    assign(estimator.coefs_, coefs)
    assign(estimator.intercepts_, intercepts)
    estimator._network_copies = [array.copy() for array in (*coefs, *intercepts)]


def current(estimator: Any) -> Network:
    """Return `network_`, with what `coefs_` and `intercepts_` hold now."""
    network: Network = estimator.network_
    copies = vars(estimator).get("_network_copies")
    if copies is None:
        coefs, intercepts = _arrays(network)
        copies = [*coefs, *intercepts]
    now = [*estimator.coefs_, *estimator.intercepts_]
    if not all(np.array_equal(a, b) for a, b in zip(now, copies, strict=True)):
        weights = {f"W{n}": w.T for n, w in enumerate(estimator.coefs_, start=1)}
        biases = {f"b{n}": b for n, b in enumerate(estimator.intercepts_, start=1)}
        network.parameters = network.parameters | weights | biases
        copies = [np.array(array) for array in now]
    estimator._network_copies = copies
    return network


def _arrays(network: Network) -> tuple[list[Array], list[Array]]:
    """Return coefs and intercepts of a network."""
    arrays, numbers = network.parameters, range(1, len(network.layers) + 1)
    return [arrays[f"W{n}"].T for n in numbers], [arrays[f"b{n}"] for n in numbers]


def outputs(estimator: Any, X: Any) -> Array:
    """Return what the output layer returns for X (m, n[0]), `(m, n[L])`."""
    core = current(estimator)._net
    return core.outputs(readable(X), logits=False, threads=estimator.threads)


# --- training --------------------------------------------------------------------------------


def epochs_of(estimator: Any, network: Network, data: Any, batch_size: int) -> Callable[[], float]:
    """Return a function that trains by one epoch and returns its loss.

    Of a batch whose rows count b, scikit-learn's penalty is `alpha / (2 b) * sum(W^2)`; here b is
    that of `batch_size` rows on average, in the shorter last batch too.
    """
    rows = data.order
    X, y, weights = data.X, data.y, data.weights
    if len(rows) < X.shape[0]:
        X, y, weights = X[rows], y[rows], None if weights is None else weights[rows]
    mean = 1.0 if weights is None else float(np.mean(weights))
    network.l2 = float(estimator.alpha) / (batch_size * mean) if mean > 0 else 0.0
    steps = -(-len(rows) // batch_size)
    fixed = {
        "batch_size": batch_size,
        "clip_norm": estimator.clip_norm,
        "sample_weight": weights,
        "shuffle": bool(estimator.shuffle),
        "threads": estimator.threads,
        "progress": False,
    }
    rate = estimator.learning_rate
    rate = None if isinstance(rate, str) else _with_total(rate, estimator.max_iter, steps)

    def epoch() -> float:
        rule = _rule(estimator, steps)
        return float(network.fit(X, y, optimizer=rule, learning_rate=rate, **fixed).loss[0])

    return epoch


def _rule(estimator: Any, steps: int) -> Optimizer:
    """Return the optimizer of the next epoch, of so many steps."""
    given = estimator.optimizer
    if given is None:
        own = spec(estimator._optimizer)
        return Rule(learning_rate=own[1]["learning_rate"], own=own)
    if isinstance(given, str):
        return optimizers.resolve(given, float(estimator.learning_rate_init))
    rate = _with_total(given.learning_rate, estimator.max_iter, steps)
    rule: Optimizer = replace(given, learning_rate=rate)
    return rule


def _with_total(rate: Any, epochs: int, steps: int) -> Any:
    """Return a rate; a schedule without a total gets that of `max_iter` epochs."""
    if not isinstance(rate, Schedule) or not rate.total_missing:
        return rate
    return rate.with_total(epochs * (steps if rate.per == "step" else 1))


# --- validation ------------------------------------------------------------------------------


def checked_metric(estimator: Any) -> Metric | None:
    """Return the metric of early stopping, or None for scikit-learn's score."""
    if estimator.metric is None:
        return None
    kind = "values"
    if is_classifier(estimator):
        kind = "labels" if estimator.out_activation_ == "identity" else "probabilities"
    try:
        return metrics.checked([estimator.metric], kind)[0]
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("metrics:", "metric:", 1)) from None


def score(estimator: Any, X: Any, y: Any) -> float:
    """Return the metric on rows and what users have as y; its negative where less is better.

    The package's own metrics hear of classes as indices, functions of users' labels.
    """
    metric = checked_metric(estimator)
    assert metric is not None
    raw = estimator._forward_pass_fast(X, check_input=False)
    if not np.isfinite(raw).all():
        return float("nan")
    answers = estimator._predict(X, check_input=False)
    if is_classifier(estimator) and isinstance(estimator.metric, str):
        y, answers = (_indices(estimator, labels) for labels in (y, answers))
    elif is_classifier(estimator) and metric.probabilities and raw.shape[1] == 1:
        raw = np.hstack([1 - raw, raw])
    value = metric(y, answers, raw)
    return -value if metric.greater_is_better is False else value


def _indices(estimator: Any, labels: Any) -> Array:
    """Return labels as class indices (m,), or of several labels as 0 and 1 (m, n)."""
    binary: Array = estimator._label_binarizer.transform(labels)
    if estimator._label_binarizer.y_type_ == "multiclass":
        binary = np.argmax(binary, axis=1)[:, None]
    return binary[:, 0] if binary.shape[1] == 1 else binary
