"""Two networks in lockstep: the first step, layer and tensor where they part.

Owns `compare` and what it drives: Lamella's network, the NumPy reference, a PyTorch module, or any
object with the same four methods (`Side`). Promises that networks which are given stay as they
are: copies train. Leaves every number to the sides.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike

from . import checks, matrices, optimizers
from .checks import Array
from .layers import BatchNorm
from .losses import Loss, custom_targets
from .optimizers import Muon, Optimizer

if TYPE_CHECKING:
    from .network import Network

__all__ = ["Comparison", "Side", "TorchSide", "compare"]

Arrays = dict[str, Array]


class Side(Protocol):
    """One of two networks in lockstep; samples x features."""

    def activations(self, X: Array) -> list[Array]:
        """Return `A[l] (m, n[l])` of every layer, as in training."""
        ...

    def loss_and_gradients(self, X: Array, y: Array) -> tuple[float, Arrays]:
        """Return the loss of a batch and its gradients `dW1, db1, ...`."""
        ...

    def step(self, X: Array, y: Array) -> None:
        """Make one update on a batch."""
        ...

    def parameters(self) -> Arrays:
        """Return `W1 (n[1], n[0]), b1 (n[1],), W2, ...`."""
        ...


@dataclass(frozen=True)
class Comparison:
    """How far two networks went together.

    Attributes
    ----------
    steps : int
        Steps in which all agreed.
    step : int or None
        The step, from 1, in which they part; None where they do not.
    layer : int or None
        The layer of the tensor, from 1; None for the loss.
    tensor : str or None
        "A2", "loss", "dW1", "W1" (after the update), ...
    difference : float
        There, or else of all tensors the greatest: the largest difference of any entry over the
        largest size of the second's.
    tolerance : float
    """

    steps: int
    step: int | None
    layer: int | None
    tensor: str | None
    difference: float
    tolerance: float

    @property
    def agreed(self) -> bool:
        """Whether the networks never part."""
        return self.step is None

    def __bool__(self) -> bool:
        """Return whether the networks never part."""
        return self.agreed

    def __str__(self) -> str:
        """Say it in words."""
        size = f"{self.difference:.2g} of its size, more than {self.tolerance:g}"
        if self.agreed:
            return (
                f"no difference in {self.steps} steps: every tensor within {self.difference:.2g} of"
                f" its size, {self.tolerance:g} allowed"
            )
        where = "the loss" if self.layer is None else f"layer {self.layer}, {self.tensor}"
        return f"they part in step {self.step}: {where} differs by {size}"


def compare(
    a: Network | Side,
    b: Network | Side | str,
    X: ArrayLike,
    y: ArrayLike,
    *,
    steps: int = 10,
    batch_size: int = 32,
    optimizer: str | Optimizer = "sgd",
    tolerance: float | None = None,
) -> Comparison:
    """Train two networks in lockstep and find where they part.

    In every step the same batch goes through both: the activations of each layer are compared,
    then the loss, the gradients from the last layer down, and the parameters after the update.

    Parameters
    ----------
    a : Network or Side
    b : Network, Side or "reference"
        "reference" is the NumPy reference from a's start; a `TorchSide` is a PyTorch module.
    X : array_like (m, n_features)
    y : array_like
        Labels as for `Network.fit`. Batches are taken in order, over and over.
    steps, batch_size : int
    optimizer : str or Optimizer
        Of networks and of the reference; its rate is a plain number. A `TorchSide` has its own.
    tolerance : float, optional
        What tensors may differ by: the largest difference over the largest size. None is 1e-6 where
        both sides compute in float64, else 1e-3. (A bias before batch normalisation has no effect,
        and its gradient is rounding: there the difference counts as it is, and what an optimizer
        makes of that is not compared.)

    Returns
    -------
    Comparison
        True where they agree; printed, it says where they part.
    """
    rows = matrices.real("X", X)
    if rows.ndim != 2 or 0 in rows.shape:
        raise checks.wrong("X", "shape (m, n_features), not empty", rows.shape)
    labels = custom_targets(y, len(rows))
    steps = checks.integer("steps", steps, low=1)
    size = checks.integer("batch_size", batch_size, low=1, high=len(rows))
    first, second = _side("a", a, optimizer, a), _side("b", b, optimizer, a)
    if tolerance is None:
        tolerance = 1e-6 if all(_is_double(side) for side in (first, second)) else 1e-3
    tolerance = checks.number("tolerance", tolerance)
    idle = _idle_biases(a) | _idle_biases(b)
    batches = [slice(at, at + size) for at in range(0, len(rows) - size + 1, size)]
    greatest = 0.0
    for step in range(1, steps + 1):
        batch = batches[(step - 1) % len(batches)]
        for tensor, ours, theirs in _pairs(first, second, rows[batch], labels[batch], idle):
            difference = _difference(tensor, ours, theirs, idle)
            if not difference <= tolerance:
                layer = None if tensor == "loss" else int(tensor.lstrip("dAWbgamet"))
                return Comparison(step - 1, step, layer, tensor, difference, tolerance)
            greatest = max(greatest, difference)
    return Comparison(steps, None, None, None, greatest, tolerance)


def _pairs(a: Side, b: Side, X: Array, y: Array, idle: set[str]) -> Any:
    """Yield name and both values of every tensor of a step, in the order they are computed in."""
    for n, pair in enumerate(zip(a.activations(X), b.activations(X), strict=True), start=1):
        yield f"A{n}", *pair
    (loss, grads), (other_loss, other_grads) = (s.loss_and_gradients(X, y) for s in (a, b))
    yield "loss", np.array(loss), np.array(other_loss)
    for name in reversed(grads):
        yield name, grads[name], other_grads[name]
    a.step(X, y)
    b.step(X, y)
    after, other_after = a.parameters(), b.parameters()
    for name, array in after.items():
        if name not in idle:  # a rule that divides by the gradient's size makes steps of rounding
            yield name, array, other_after[name]


def _is_double(side: Side) -> bool:
    """Whether a side's parameters are float64."""
    return all(array.dtype == np.float64 for array in side.parameters().values())


def _idle_biases(network: object) -> set[str]:
    """Return the biases that batch normalisation takes out again, and their gradients."""
    layers = getattr(network, "layers", ())
    normed = [n for n, d in enumerate(layers, start=1) if isinstance(d.norm, BatchNorm)]
    return {f"{prefix}b{n}" for n in normed for prefix in ("", "d")}


def _difference(tensor: str, ours: Array, theirs: Array, idle: set[str]) -> float:
    """Return the largest difference over the largest size; shapes must be equal."""
    if ours.shape != theirs.shape:
        raise checks.wrong(tensor, f"shape {ours.shape} in b, as in a", theirs.shape)
    size = float(np.max(np.abs(theirs), initial=0.0))
    gap = float(np.max(np.abs(ours.astype(np.float64) - theirs), initial=0.0))
    return gap / size if size and tensor not in idle else gap


def _side(name: str, value: object, optimizer: str | Optimizer, other: object) -> Side:
    """Return what drives a network; the reference starts as the other one does."""
    from .network import Network

    if isinstance(value, str):
        if checks.choice(name, value, ("reference",)) and not isinstance(other, Network):
            raise TypeError(f"a: expected a Network beside the reference, got {other!r}")
        return _Reference(cast(Network, other), optimizer)
    if isinstance(value, Network):
        return _Core(value, optimizer)
    if all(hasattr(value, method) for method in ("activations", "loss_and_gradients", "step")):
        return cast(Side, value)
    raise TypeError(f'{name}: expected a Network, "reference" or a Side, got {value!r}')


class _Core:
    """A copy of a Lamella network."""

    def __init__(self, network: Network, optimizer: str | Optimizer) -> None:
        self.network, self.optimizer = copy.copy(network), optimizer

    def activations(self, X: Array) -> list[Array]:
        """Return every hidden layer's as the next step sees them, and the logits."""
        hidden = self.network.activations(X, training=True)[:-1]
        parameters, n = self.network.parameters, len(self.network.layers)
        below = hidden[-1] if hidden else X.astype(self.network.dtype)
        return [*hidden, below @ parameters[f"W{n}"].T + parameters.get(f"b{n}", 0)]

    def loss_and_gradients(self, X: Array, y: Array) -> tuple[float, Arrays]:
        """Return what the core computes."""
        return self.network.loss_and_gradients(X, y)

    def step(self, X: Array, y: Array) -> None:
        """Make one update in the core."""
        self.network.partial_fit(X, y, optimizer=self.optimizer)

    def parameters(self) -> Arrays:
        """Return copies."""
        return self.network.parameters


class _Reference:
    """The NumPy reference, from a network's start."""

    def __init__(self, network: Network, optimizer: str | Optimizer) -> None:
        from .reference import optimizers as rules
        from .reference.trainer import Penalty

        if not isinstance(network.criterion, Loss):
            raise checks.wrong("loss", "one that the reference has", network.loss)
        self.network, self.made = network, 0
        self.values = network.parameters
        self.statistics = network.statistics
        rule = optimizers.resolve(optimizer)
        if isinstance(rule, Muon):
            raise checks.wrong("optimizer", "a rule of single numbers, for the reference", "muon")
        self.rule = rule
        self.state = {
            name: rules.State(*(np.zeros_like(array) for _ in rules.State._fields))
            for name, array in self.values.items()
        }
        self.penalty = Penalty(network.l1, network.l2, network.decay_biases)

    def activations(self, X: Array) -> list[Array]:
        """Return every hidden layer's as the next step sees them, and the logits."""
        from .reference.layers import Training, forward

        network = self.network
        training = Training(network.seed, network.steps + self.made + 1)
        statistics = {name: array.copy() for name, array in self.statistics.items()}
        _, passed = forward(
            X.T.astype(network.dtype), self.values, network.layers, training=training,
            statistics=statistics,
        )  # fmt: skip
        return [*(here.A_prev.T for here in passed[1:]), passed[-1].Z.T]

    def loss_and_gradients(self, X: Array, y: Array) -> tuple[float, Arrays]:
        """Return what plain NumPy computes."""
        statistics = {name: array.copy() for name, array in self.statistics.items()}
        return self._pass(X, y, statistics)

    def _pass(self, X: Array, y: Array, statistics: Arrays) -> tuple[float, Arrays]:
        """Compute a batch's loss and gradients; the running statistics move on."""
        from .reference.layers import Training, as_it_is
        from .reference.losses import targets
        from .reference.trainer import _loss_and_gradients

        network = self.network
        criterion = cast(Loss, network.criterion)
        X, m = X.T.astype(network.dtype), len(X)
        labels = y.T if y.ndim > 1 else y
        shape = (network.n_outputs, m)
        Y = targets(criterion, labels, network.output, shape, network.dtype)
        training = Training(network.seed, network.steps + self.made + 1)
        return _loss_and_gradients(
            self.values, X, Y, np.ones(m), network.layers, criterion, self.penalty,
            network._task.scale, training, as_it_is, statistics,
        )  # fmt: skip

    def step(self, X: Array, y: Array) -> None:
        """Make one update in NumPy."""
        from .reference.constraints import constrain
        from .reference.optimizers import update

        grads = self._pass(X, y, self.statistics)[1]
        self.made += 1
        for name, array in self.values.items():
            decay = getattr(self.rule, "weight_decay", 0.0) if self.penalty.covers(name) else 0.0
            array *= 1 - optimizers.plain_rate(self.rule.learning_rate) * decay
            update(self.rule, self.made, array, grads[f"d{name}"], self.state[name])
        for n, layer in enumerate(self.network.layers, start=1):
            if layer.max_norm is not None:
                constrain(self.values[f"W{n}"], layer.max_norm)

    def parameters(self) -> Arrays:
        """Return copies."""
        return {name: array.copy() for name, array in self.values.items()}


class TorchSide:
    """A PyTorch module whose `Linear` layers are the network's, with its optimizer.

    Parameters
    ----------
    module : torch.nn.Module
        Its `Linear` layers, in the order of `module.modules()`, are layers 1 to L. It returns
        logits.
    optimizer : torch.optim.Optimizer
    loss : callable
        Of logits and targets, such as `torch.nn.functional.cross_entropy`.

    Notes
    -----
    Hidden activations are what the layers after the first get as input. The module itself trains.
    """

    def __init__(self, module: Any, optimizer: Any, loss: Any) -> None:
        import torch

        self.torch, self.module, self.optimizer, self.loss = torch, module, optimizer, loss
        self.linear = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]

    def _tensor(self, array: Array) -> Any:
        """Return an array as the module's weights are; integers stay."""
        weights = self.linear[0].weight
        tensor = self.torch.as_tensor(np.ascontiguousarray(array))
        return tensor if array.dtype.kind in "iu" else tensor.to(weights.dtype)

    def activations(self, X: Array) -> list[Array]:
        """Return the inputs of the layers after the first, and the logits."""
        seen: list[Array] = []
        hooks = [
            layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().numpy()))
            for layer in self.linear[1:]
        ]
        with self.torch.no_grad():
            logits = self.module(self._tensor(X)).numpy()
        for hook in hooks:
            hook.remove()
        return [*seen, logits]

    def loss_and_gradients(self, X: Array, y: Array) -> tuple[float, Arrays]:
        """Return what autograd computes."""
        self.optimizer.zero_grad()
        value = self.loss(self.module(self._tensor(X)), self._tensor(y))
        value.backward()
        return float(value.detach()), self._named("d", lambda p: p.grad)

    def step(self, X: Array, y: Array) -> None:
        """Make one update in PyTorch."""
        self.loss_and_gradients(X, y)
        self.optimizer.step()

    def parameters(self) -> Arrays:
        """Return copies."""
        return self._named("", lambda p: p.detach())

    def _named(self, prefix: str, of: Any) -> Arrays:
        """Return arrays of the layers' weights and biases."""
        arrays: Arrays = {}
        for n, layer in enumerate(self.linear, start=1):
            arrays[f"{prefix}W{n}"] = of(layer.weight).numpy().copy()
            if layer.bias is not None:
                arrays[f"{prefix}b{n}"] = of(layer.bias).numpy().copy()
        return arrays
