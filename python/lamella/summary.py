"""A network at a glance, as text: shapes, parameters, memory.

Owns the table that `Network.summary` prints. Promises that its numbers are the network's own,
asked for at that moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .layers import Dense
    from .network import Network

__all__ = ["text"]

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def text(network: Network, trained: str | None = None) -> str:
    """Return a table with a line a layer, the total, and what is held in memory.

    Parameters
    ----------
    network : Network
    trained : str or None
        How much, in words; None asks the network.

    Returns
    -------
    str
        "output" is the shape of a layer's activations for m samples; "in the core" is the memory
        of all packed forms of the weights and of the optimizer's state, with padding.
    """
    if not hasattr(network, "n_parameters"):
        raise TypeError(f"network: expected a Network, got {type(network).__name__}")
    rows: list[tuple[str, ...]] = [("layer", "activation", "weights", "output", "parameters")]
    rows.append(("input", "", "", f"(m, {network.n_features})", ""))
    shapes = {name: array.shape for name, array in network.parameters.items()}
    for n, layer in enumerate(network.layers, start=1):
        own = [shape for name, shape in shapes.items() if _layer_of(name) == n]
        count = sum(_size(shape) for shape in own)
        weights = str(shapes[f"W{n}"])
        rows.append((str(n), _function(layer), weights, f"(m, {layer.units})", f"{count:,}"))
    rows.append(("total", "", "", "", f"{network.n_parameters:,}"))
    numbers = network.n_parameters * network.dtype.itemsize
    table = _table(rows)
    rule = "-" * len(table[0])
    lines = [table[0], rule, *table[1:-1], rule, table[-1]]
    lines.append(f"loss       {network.loss}")
    lines.append(f"precision  {network.precision}")
    trained = trained or f"{network.steps:,} steps, {network.epochs:,} epochs"
    lines.append(f"trained    {trained}")
    held = network._net.n_bytes
    lines.append(f"memory     {amount(numbers)} of parameters, {amount(held)} in the core")
    return "\n".join(lines)


def amount(size: float) -> str:
    """Spell a number of bytes: 1.3 MB."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == UNITS[0] else f"{size:.1f} {unit}"


def _function(layer: Dense) -> str:
    """Spell what a layer does after its product."""
    parts = [str(layer.activation)]
    if layer.norm:
        parts.insert(0, type(layer.norm).__name__)
    if layer.dropout:
        parts.append(f"dropout {layer.dropout:g}")
    if layer.residual:
        parts.append("residual")
    return ", ".join(parts)


def _layer_of(name: str) -> int:
    """Return the layer of a parameter's name, such as W12."""
    return int("".join(letter for letter in name if letter.isdigit()))


def _size(shape: tuple[int, ...]) -> int:
    """Return how many numbers a shape has."""
    count = 1
    for n in shape:
        count *= n
    return count


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Align columns: the first two to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if n < 2 else cell.rjust(width)
                 for n, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        lines.append("  ".join(cells).rstrip().ljust(sum(widths) + 2 * len(widths) - 2))
    return [line.rstrip() if n else line for n, line in enumerate(lines)]
