"""The layers that a user names: their settings, checked and filled in.

Owns `Dense` and the rules for what a network's `layers` may be. Promises that a layer is immutable
and compares by value. Leaves the numbers to the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import checks, initializers
from .initializers import Init

__all__ = ["Dense", "layers_of"]


@dataclass(frozen=True)
class Dense:
    """A fully connected layer.

    Parameters
    ----------
    units : int
    activation : str, optional
        Hidden layers: "relu", "leaky_relu" (slope 0.01), "tanh", "sigmoid", "identity"; by
        default the network's `hidden`. Last layer: "sigmoid", "softmax", "identity"; by default the
        network's `output`.
    init : {"normal", "lecun", "xavier", "he"} or float, optional
        By default the network's.
    max_norm : float, optional
        The greatest length of a unit's incoming weights; by default the network's.
    """

    units: int
    activation: str | None = None
    init: Init | None = None
    max_norm: float | None = None


def layers_of(
    value: Sequence[int | Dense],
    hidden: str,
    output: str,
    init: Init,
    max_norm: float | None = None,
) -> tuple[int, tuple[Dense, ...]]:
    """Return the number of features, and the layers with everything filled in."""
    given = checks.sequence("layers", value)
    sizes = [d.units if isinstance(d, Dense) and n else d for n, d in enumerate(given)]
    dims = checks.layer_dims("layers", sizes)
    checks.choice("hidden", hidden, checks.HIDDEN)
    checks.choice("output", output, tuple(checks.LOSSES))
    layers = []
    for n, (units, layer) in enumerate(zip(dims[1:], given[1:], strict=True), start=1):
        asked = layer if isinstance(layer, Dense) else Dense(units)
        last = n == len(dims) - 1
        activation = checks.choice(
            f"layers[{n}].activation",
            asked.activation or (output if last else hidden),
            tuple(checks.LOSSES) if last else checks.HIDDEN,
        )
        scale = (
            init if asked.init is None else initializers.checked(asked.init, f"layers[{n}].init")
        )
        limit = checks.clip(f"layers[{n}].max_norm", asked.max_norm)
        layers.append(Dense(units, activation, scale, limit or max_norm))
    checks.output(layers[-1].activation, dims[-1])
    return dims[0], tuple(layers)
