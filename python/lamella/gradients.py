"""The gradient of a whole network, held to central differences.

Owns the loop over entries. Promises that the network which is checked stays as it is: a copy in
float64 is. Leaves loss and gradient to the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .checks import Array
from .course import WorstEntry
from .matrices import CSR

if TYPE_CHECKING:
    from .network import Network


def check(
    network: Network,
    X: ArrayLike | CSR,
    y: ArrayLike,
    *,
    epsilon: float,
    entries: int,
    sample_weight: ArrayLike | None,
    details: bool,
) -> float | tuple[float, dict[str, WorstEntry]]:
    """Do what `Network.gradient_check` says."""
    epsilon = checks.number("epsilon", epsilon, positive=True)
    entries = checks.integer("entries", entries, low=1)
    details = checks.flag("details", details)
    double = in_float64(network)
    _, gradients = double.loss_and_gradients(X, y, sample_weight=sample_weight)
    start = double.parameters

    def loss(name: str, index: tuple[int, ...], shift: float) -> float:
        moved = {**start, name: start[name].copy()}
        moved[name][index] += shift
        double.parameters = moved
        return double.loss_and_gradients(X, y, sample_weight=sample_weight)[0]

    worst: dict[str, WorstEntry] = {}
    found: list[tuple[float, float]] = []
    for name, array in start.items():
        pairs: list[WorstEntry] = []
        for flat in np.unique(np.linspace(0, array.size - 1, entries).astype(np.int64)):
            index = tuple(int(i) for i in np.unravel_index(flat, array.shape))
            numerical = (loss(name, index, epsilon) - loss(name, index, -epsilon)) / (2 * epsilon)
            pairs.append(WorstEntry(index, float(gradients[f"d{name}"][index]), numerical))
        found += [(pair.gradient, pair.numerical) for pair in pairs]
        worst[f"d{name}"] = max(pairs, key=lambda pair: abs(pair.gradient - pair.numerical))
    g, h = cast(tuple[Array, Array], np.array(found).T)
    size = float(np.linalg.norm(g) + np.linalg.norm(h))
    difference = float(np.linalg.norm(g - h)) / size if size else 0.0
    return (difference, worst) if details else difference


def in_float64(network: Network) -> Network:
    """Return a copy whose parameters and computation are float64."""
    return in_precision(network, "float64")


def in_precision(network: Network, precision: str) -> Network:
    """Return a copy whose parameters and computation are float32 or float64."""
    state = network.__getstate__()
    state |= {"dtype": np.dtype(precision), "precision": precision}
    copy = object.__new__(type(network))
    copy.__setstate__(state)
    return copy
