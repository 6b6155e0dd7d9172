"""Models for other runtimes: ONNX.

Owns how layers are spelled in ONNX's operators. Promises that what has no such form is refused
by name, never left out, and that onnx itself has checked the model. Needs the package `onnx`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, checks
from .checkpoint import PathLike, replacing

if TYPE_CHECKING:
    from .network import Network

__all__ = ["to_onnx"]

OPSET = 17
"""Of 2022: old enough for every runtime in use, new enough for all operators here."""

IR = 8
"""The version of the format that belongs to it."""

LARGEST = (1 << 31) - (1 << 20)
"""Bytes that protocol buffers hold, less room for names."""

OPERATORS: dict[str, str | None] = {
    "identity": None,
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "tanh": "Tanh",
}
"""Activations that are one operator. leaky relu is spelled out, since runtimes lack its float64."""

AT_REST = {"units", "activation", "init", "dropout"}
"""What a layer may have for an export: the rest of it is at its default. (Dropout is off then.)"""


def to_onnx(network: Network, path: PathLike | None = None) -> Any:
    """Return a network as an `onnx.ModelProto`; see `Network.to_onnx`."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to_onnx needs onnx, which is not installed: pip install lamella[onnx]"
        ) from error
    size = network.n_parameters * network.dtype.itemsize
    if size > LARGEST:
        raise checks.wrong("network", f"at most {LARGEST} bytes for ONNX", size)
    graph = _Graph(onnx.helper, network)
    for n, layer in enumerate(network.layers, start=1):
        graph.dense(n, layer)
    model = graph.model()
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        with replacing(Path(path).resolve()) as file:
            file.write(model.SerializeToString(deterministic=True))
    return model


class _Graph:
    """A model as it grows, layer by layer."""

    def __init__(self, helper: Any, network: Network) -> None:
        self.helper = helper
        self.network = network
        self.parameters = network.parameters
        self.kind = helper.np_dtype_to_tensor_dtype(network.dtype)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.last = "X"

    def constant(self, name: str, array: Any) -> str:
        """Store an array under a name."""
        plain = np.ascontiguousarray(array, self.network.dtype.newbyteorder("<"))
        self.constants.append(
            self.helper.make_tensor(name, self.kind, array.shape, plain.tobytes(), raw=True)
        )
        return name

    def apply(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an operator, whose result gets a name."""
        node = self.helper.make_node(operator, inputs, [name], name=name, **attributes)
        self.nodes.append(node)
        return name

    def dense(self, n: int, layer: Any) -> None:
        """Add layer n: `A[n] = activation(A[n-1] W[n]^T + b[n])`."""
        _check(n, layer)
        W = self.constant(f"W{n}", self.parameters[f"W{n}"])
        b = self.constant(f"b{n}", self.parameters[f"b{n}"])
        Z = self.apply("Gemm", [self.last, W, b], f"Z{n}", transB=1)
        name = str(layer.activation)
        if name == "leaky_relu":  # max(z, slope z)
            slope = np.full(1, checks.LEAKY_SLOPE, self.network.dtype)
            scaled = self.apply("Mul", [Z, self.constant(f"slope{n}", slope)], f"scaled{n}")
            self.last = self.apply("Max", [Z, scaled], f"A{n}")
        elif (operator := OPERATORS[name]) is None:
            self.last = Z
        else:
            attributes = {"axis": 1} if operator == "Softmax" else {}
            self.last = self.apply(operator, [Z], f"A{n}", **attributes)

    def model(self) -> Any:
        """Return the whole: `X (m, n[0])` to probabilities or values `(m, n[L])`."""
        net, helper = self.network, self.helper
        name = "values" if net.output == "identity" else "probabilities"
        self.nodes[-1].output[0] = name
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "lamella",
            [value("X", self.kind, ["m", net.n_features])],
            [value(name, self.kind, ["m", net.n_outputs])],
            self.constants,
        )
        return helper.make_model(
            graph,
            producer_name="lamella",
            producer_version=_core.__version__,
            ir_version=IR,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )


def _check(n: int, layer: Any) -> None:
    """Refuse a layer with something that is not exported."""
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if field.name not in AT_REST and value != field.default:
            raise checks.wrong(f"layers[{n}].{field.name}", "its default for ONNX", repr(value))
    if layer.activation not in (*OPERATORS, "leaky_relu"):
        known = ", ".join([*OPERATORS, "leaky_relu"])
        raise checks.wrong(f"layers[{n}].activation", f"one of {known} for ONNX", layer.activation)
