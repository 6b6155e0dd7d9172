"""Models for other runtimes: ONNX.

Owns how layers are spelled in ONNX's operators. Promises that what has no such form is refused
by name, never left out, and that onnx itself has checked the model. Needs the package `onnx`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, checks
from .checkpoint import PathLike, replacing
from .layers import BatchNorm

if TYPE_CHECKING:
    from .network import Network

__all__ = ["to_onnx"]

OPSET = 17
"""Of 2022: old enough for every runtime in use, new enough for all operators here."""

IR = 8
"""The version of the format that belongs to it."""

LARGEST = (1 << 31) - (1 << 20)
"""Bytes that protocol buffers hold, less room for names."""

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Of Klambauer, Unterthiner, Mayr, Hochreiter (2017), as PyTorch has them."""

AT_REST = {"units", "activation", "init", "bias", "norm", "dropout", "residual", "max_norm"}
"""What a layer may have for an export. (Dropout and limits are of training.)"""


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
        with replacing(Path(checks.path(path)).resolve()) as file:
            file.write(model.SerializeToString(deterministic=True))
    return model


class _Graph:
    """A model as it grows, layer by layer."""

    def __init__(self, helper: Any, network: Network) -> None:
        self.helper = helper
        self.network = network
        self.parameters = network.parameters
        self.statistics = network.statistics
        self.kind = helper.np_dtype_to_tensor_dtype(network.dtype)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.last = "X"
        self.count = 0

    def constant(self, name: str, array: Any) -> str:
        """Store an array under a name."""
        plain = np.asarray(array, self.network.dtype.newbyteorder("<"), order="C")
        self.constants.append(
            self.helper.make_tensor(name, self.kind, array.shape, plain.tobytes(), raw=True)
        )
        return name

    def apply(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an operator, whose result gets a name."""
        node = self.helper.make_node(operator, inputs, [name], name=name, **attributes)
        self.nodes.append(node)
        return name

    def __call__(self, operator: str, *inputs: str | float, **attributes: Any) -> str:
        """Add an operator on results and numbers; return its result's name."""
        self.count += 1
        names = [
            x if isinstance(x, str) else self.constant(f"c{self.count}.{n}", np.array([x]))
            for n, x in enumerate(inputs)
        ]
        return self.apply(operator, names, f"t{self.count}", **attributes)

    def dense(self, n: int, layer: Any) -> None:
        """Add layer n: `A[n] = activation(norm(A[n-1] W[n]^T + b[n])) + A[n-1]`."""
        _check(n, layer)
        inputs = [self.last, self.constant(f"W{n}", self.parameters[f"W{n}"])]
        if f"b{n}" in self.parameters:
            inputs.append(self.constant(f"b{n}", self.parameters[f"b{n}"]))
        Z = self.apply("Gemm", inputs, f"Z{n}", transB=1)
        if layer.norm:
            Z = self.norm(n, layer.norm, Z)
        A = ACTIVATIONS[str(layer.activation)](self, Z)
        self.last = self("Add", A, self.last) if layer.residual else A

    def norm(self, n: int, norm: Any, Z: str) -> str:
        """Add a normalisation: `gamma (Z - mean) / sqrt(variance + epsilon) + beta`."""
        gamma, beta = self.parameters[f"gamma{n}"], self.parameters[f"beta{n}"]
        if isinstance(norm, BatchNorm):  # a scale and a shift, in answers
            mean, variance = (self.statistics[f"{kind}{n}"] for kind in ("mean", "variance"))
            scale = gamma / np.sqrt(variance.astype(float) + norm.epsilon)
            shift = self.constant(f"shift{n}", beta - mean * scale)
            return self("Add", self("Mul", Z, self.constant(f"scale{n}", scale)), shift)
        names = self.constant(f"gamma{n}", gamma), self.constant(f"beta{n}", beta)
        return self("LayerNormalization", Z, *names, axis=-1, epsilon=norm.epsilon)

    def erf(self, Z: str) -> str:
        """Add the error function, which runtimes have in float32 only."""
        onnx_float32 = self.helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
        single = self("Cast", Z, to=onnx_float32)
        return self("Cast", self("Erf", single), to=self.kind)

    def model(self) -> Any:
        """Return the whole: `X (m, n[0])` to probabilities or values `(m, n[L])`."""
        net, helper = self.network, self.helper
        name = "probabilities" if net.output in ("sigmoid", "softmax") else "values"
        self.apply("Identity", [self.last], name)
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
    if layer.activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise checks.wrong(f"layers[{n}].activation", f"one of {known} for ONNX", layer.activation)


def _elu(g: _Graph, z: str, alpha: float, scale: float) -> str:
    """Spell `scale * (max(z, 0) + alpha * (exp(min(z, 0)) - 1))`."""
    below = g("Mul", g("Sub", g("Exp", g("Min", z, 0.0)), 1.0), alpha)
    return g("Mul", g("Add", g("Max", z, 0.0), below), scale)


def _softplus(g: _Graph, z: str) -> str:
    """Spell `max(z, 0) + log(1 + exp(-|z|))`."""
    return g("Add", g("Max", z, 0.0), g("Log", g("Add", g("Exp", g("Neg", g("Abs", z))), 1.0)))


def _held(g: _Graph, z: str, low: float, high: float) -> str:
    """Spell z held between two numbers."""
    return g("Min", g("Max", z, low), high)


def _hard_sigmoid(g: _Graph, z: str) -> str:
    """Spell `z / 6 + 1 / 2` held between 0 and 1."""
    return _held(g, g("Add", g("Div", z, 6.0), 0.5), 0.0, 1.0)


def _gelu(g: _Graph, z: str) -> str:
    """Spell `z (1 + erf(z / sqrt(2))) / 2`."""
    return g("Mul", g("Mul", z, 0.5), g("Add", g.erf(g("Mul", z, math.sqrt(0.5))), 1.0))


def _gelu_tanh(g: _Graph, z: str) -> str:
    """Spell `z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2`."""
    cube = g("Mul", g("Mul", g("Mul", z, z), z), 0.044715)
    inner = g("Mul", g("Add", z, cube), math.sqrt(2 / math.pi))
    return g("Mul", g("Mul", z, 0.5), g("Add", g("Tanh", inner), 1.0))


ACTIVATIONS: dict[str, Callable[[_Graph, str], str]] = {
    "elu": lambda g, z: _elu(g, z, checks.ACTIVATION_PARAMETER["elu"], 1.0),
    "exponential": lambda g, z: g("Exp", z),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda g, z: g("Mul", z, _hard_sigmoid(g, z)),
    "hard_tanh": lambda g, z: _held(g, z, -1.0, 1.0),
    "identity": lambda g, z: z,
    "leaky_relu": lambda g, z: g("Max", z, g("Mul", z, checks.LEAKY_SLOPE)),
    "mish": lambda g, z: g("Mul", z, g("Tanh", _softplus(g, z))),
    "relu": lambda g, z: g("Relu", z),
    "relu6": lambda g, z: _held(g, z, 0.0, 6.0),
    "selu": lambda g, z: _elu(g, z, SELU_ALPHA, SELU_SCALE),
    "sigmoid": lambda g, z: g("Sigmoid", z),
    "silu": lambda g, z: g("Mul", z, g("Sigmoid", z)),
    "softmax": lambda g, z: g("Softmax", z, axis=1),
    "softplus": _softplus,
    "softsign": lambda g, z: g("Div", z, g("Add", g("Abs", z), 1.0)),
    "tanh": lambda g, z: g("Tanh", z),
}
"""How activations are spelled: by operators that runtimes have for float64 too."""
