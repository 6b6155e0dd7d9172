"""How a network's answers change with its inputs.

Owns what a direction is, and the way back through the output's activation. Promises that rows do
not depend on each other. Leaves the way through the layers to the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from . import _core, matrices
from .checks import Array, wrong
from .gradients import in_precision
from .matrices import CSR

if TYPE_CHECKING:
    from .network import Network

MOST_DELTAS = 1 << 22
"""Numbers of all outputs' directions that a Jacobian makes at once."""


def input_gradients(
    network: Network,
    rows: Array | CSR,
    directions: ArrayLike | None,
    *,
    logits: bool,
    threads: int | None,
) -> Array:
    """Do what `Network.input_gradients` says, of checked rows."""
    v = _directions(directions, rows.shape[0], network.n_outputs, network.dtype)
    network = _in_full_precision(network)
    Z = _logits(network, rows, logits=logits, threads=threads)
    deltas = _through_output(network.output, Z, v)
    return network._net.input_gradients(rows, deltas, 1, threads=threads)


def jacobian(network: Network, rows: Array | CSR, *, logits: bool, threads: int | None) -> Array:
    """Do what `Network.jacobian` says, of checked rows: forward once, back for each output."""
    (m, features), outputs = rows.shape, network.n_outputs
    network = _in_full_precision(network)
    Z = _logits(network, rows, logits=logits, threads=threads)

    def part(first: int, count: int) -> Array:
        unit = np.eye(count, outputs, first, dtype=network.dtype)
        deltas = [_through_output(network.output, Z, np.tile(v, (m, 1))) for v in unit]
        found = network._net.input_gradients(rows, np.concatenate(deltas), count, threads=threads)
        return found.reshape(m, count, features)

    # As many outputs at once as need no more room than this for their directions.
    several = max(1, MOST_DELTAS // (m * outputs))
    if several >= outputs:
        return part(0, outputs)
    _core.check_memory(m * (outputs + several) * features * network.dtype.itemsize)
    result = np.empty((m, outputs, features), network.dtype)
    for first in range(0, outputs, several):
        count = min(several, outputs - first)
        result[:, first : first + count] = part(first, count)
    return result


def _in_full_precision(network: Network) -> Network:
    return in_precision(network, "float32") if network.precision == "bfloat16" else network


def _directions(
    value: ArrayLike | None, m: int, outputs: int, dtype: np.dtype[np.floating]
) -> Array:
    """Return directions as a matrix (m, outputs)."""
    if value is None and outputs == 1:
        return np.ones((m, 1), dtype)
    shapes = [(outputs,), (m, outputs)] if outputs > 1 else [(1,), (m,), (m, 1)]
    spelled = " or ".join(str(shape) for shape in shapes[-2:])
    if value is None:
        raise wrong("directions", f"shape {spelled} for {outputs} outputs", None)
    array = matrices.real("directions", value)
    if array.shape not in shapes:
        raise wrong("directions", f"shape {spelled}", array.shape)
    array = array.reshape(-1, outputs)
    matrices.finite("directions", array, dtype)
    array = array.astype(dtype, copy=False)
    return array if len(array) == m else np.repeat(array, m, axis=0)


def _logits(
    network: Network, rows: Array | CSR, *, logits: bool, threads: int | None
) -> Array | None:
    """Return the logits, if the output's derivative is wanted and depends on them."""
    if logits or network.output == "identity":
        return None
    return network.decision_function(rows, threads=threads)


def _through_output(output: str, Z: Array | None, v: Array) -> Array:
    """Return `v^T dA/dZ` of the output's activation, in each row."""
    if Z is None:
        return v
    if output == "sigmoid":  # 1 - A, without the loss of digits
        slopes = _core.elementwise("sigmoid", Z) * _core.elementwise("sigmoid", -Z)
    elif output == "exponential":
        slopes = _core.elementwise("exp", Z)
    else:
        # A (v - A . v), by differences to the likeliest class's v: near 1 nothing cancels then.
        slopes = _core.softmax(Z)
        v = v - np.take_along_axis(v, slopes.argmax(axis=1)[:, None], axis=1)
        v = v - np.sum(slopes * v, axis=1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        result: Array = np.where(v == 0, v, v * slopes)  # an exponential may be infinite
    return result
