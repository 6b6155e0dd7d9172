"""Checks of settings, shared by the L-layer functions, their reference and the model.

Owns the form of every message about a wrong argument: `name: expected ..., got ...`. Promises
that a checked value is plain (an int, a float, a str). Computes nothing; leaves arrays to
`matrices.py`, and what only the core can see (threads, memory, divergence) to the core.

Raises `TypeError` for what is not a number at all (strings, objects, complex numbers, a bool
where a count belongs) and `ValueError` for numbers and shapes that do not fit.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

HIDDEN = (
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "softplus",
    "softsign",
    "hard_tanh",
    "hard_sigmoid",
    "hard_swish",
    "relu6",
    "tanh",
    "sigmoid",
    "identity",
)
"""The activations of hidden layers."""

LEAKY_SLOPE = 0.01
"""What leaky relu multiplies negative numbers by."""

ACTIVATION_PARAMETER = {"leaky_relu": LEAKY_SLOPE, "elu": 1.0}
"""The parameter of the activations that have one: a slope, alpha."""

LOSSES = {
    "sigmoid": "binary_cross_entropy",
    "softmax": "cross_entropy",
    "identity": "mean_squared_error",
}
"""The output activations, each with the loss that belongs to it."""

CORE_LOSSES = LOSSES | {"identity": "squared_error"}
"""The core's names; its squared error is half the square."""

LARGEST_INTEGER = 2**63 - 1
LARGEST_FLOAT = float(np.finfo(np.float64).max)
LARGEST_SEED = 2**32 - 1
"""The largest seed of `numpy.random.RandomState`."""


# --- numbers ---------------------------------------------------------------------------------


def wrong(name: str, expected: str, received: object) -> ValueError:
    """Build the error of an argument that has the right type and the wrong value."""
    return ValueError(f"{name}: expected {expected}, got {received}")


def integer(name: str, value: object, low: int = 0, high: int = LARGEST_INTEGER) -> int:
    """Return `value` as an int in [low, high]; a bool or a float is a `TypeError`."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {reprlib.repr(value)}") from None
    if not low <= number <= high:
        bounds = f"at least {low}" if high == LARGEST_INTEGER else f"from {low} to {high}"
        raise wrong(name, f"an integer {bounds}", number)
    return number


def number(name: str, value: object, *, positive: bool = False, below: float = np.inf) -> float:
    """Return `value` as a finite float in [0, below), or in (0, below) if `positive`."""
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise TypeError(f"{name}: expected a number, got {reprlib.repr(value)}")
    try:  # first: NumPy would make a limit of the number's own type
        number = float(value)
    except OverflowError:
        number = np.inf
    if not 0 <= number < min(below, LARGEST_FLOAT) or (positive and number == 0):
        expected = "a positive number" if positive else "a number of at least 0"
        bound = "" if below == np.inf else f" and below {below:g}"
        raise wrong(name, expected + bound, reprlib.repr(value))
    return number


def flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {reprlib.repr(value)}")
    return bool(value)


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of the names `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise wrong(name, f"one of {', '.join(allowed)}", reprlib.repr(value))
    return value


def seed(value: object) -> int:
    """Return a seed that every generator of the package takes."""
    return integer("seed", value, high=LARGEST_SEED)


def threads(value: object) -> int | None:
    """Return a count of threads, or None for as many as help."""
    return None if value is None else integer("threads", value, low=1)


def batch_size(value: object, m: int) -> int | None:
    """Return how many of m samples a batch holds, or None if it holds all of them."""
    if value is None:
        return None
    size = integer("batch_size", value, low=1)
    return size if size < m else None


def floating(value: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = np.dtype(object)
    if value is None or dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise wrong("dtype", "float32 or float64", reprlib.repr(value))
    return dtype


def clip(name: str, value: float | None) -> float | None:
    """Return a limit above 0, or None for none."""
    return None if value is None else number(name, value, positive=True)


def decay(name: str, value: float | None) -> float | None:
    """Return what is kept in each step, in [0, 1), or None for no average."""
    return None if value is None else number(name, value, below=1.0)


def path(value: object) -> str:
    """Return a file's path as a str."""
    spelt = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(spelt, str):
        raise TypeError(f"path: expected a file's path, got {reprlib.repr(value)}")
    if not spelt:
        raise wrong("path", "a file's path", repr(spelt))
    return spelt


def listed(name: str, value: object, of: str) -> list[Any]:
    """Return the entries of a list, a tuple or an array; a str or bytes is none."""
    plain = value.tolist() if hasattr(value, "tolist") else value  # an array, a series, an index
    if isinstance(plain, str | bytes) or not isinstance(plain, Sequence):
        raise TypeError(f"{name}: expected a list of {of}, got {reprlib.repr(value)}")
    return list(plain)


def precision(value: DTypeLike) -> tuple[np.dtype[Any], str]:
    """Return the dtype of the parameters, and the name of what products compute in."""
    if isinstance(value, str) and value == "bfloat16":
        return np.dtype(np.float32), "bfloat16"
    try:
        dtype = floating(value)
    except ValueError:
        raise wrong("dtype", "float32, float64 or bfloat16", reprlib.repr(value)) from None
    return dtype, dtype.name


def keys(name: str, value: object, expected: Sequence[str]) -> None:
    """Check that a mapping has just these keys."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a dict, got {type(value).__name__}")
    missing = [key for key in expected if key not in value]
    unknown = [str(key) for key in value if key not in expected]
    if missing or unknown:
        wanted = ", ".join(expected) or "nothing"
        got = f"no {missing[0]}" if missing else f"also {unknown[0]}"
        raise wrong(name, wanted, got)


# --- layers and their memory -----------------------------------------------------------------


def sequence(name: str, value: object) -> list[Any]:
    """Return the layers of a sequence or a vector."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected a list of layer sizes, got {reprlib.repr(value)}")
    return list(value)


def layer_dims(name: str, value: object) -> tuple[int, ...]:
    """Return `(n[0], ..., n[L])`, all at least 1, with at least one layer after the input."""
    sizes = sequence(name, value)
    if len(sizes) < 2:
        raise wrong(name, "the number of features and at least one layer", sizes)
    return tuple(integer(f"{name}[{i}]", n, low=1) for i, n in enumerate(sizes))


def output(value: object, units: int) -> str:
    """Return the output activation of a last layer of `units` units."""
    name = choice("output", value, tuple(LOSSES))
    if name == "softmax" and units < 2:
        raise wrong("output", "at least 2 units for softmax", units)
    return name


def memory(name: str, size: int) -> None:
    """Refuse, before anything is allocated, what exceeds the available memory (size in bytes)."""
    available = available_memory()
    if size > available:
        raise MemoryError(
            f"{name}: the parameters need {size / 1e9:.1f} GB,"
            f" {available / 1e9:.1f} GB are available"
        )


def available_memory() -> float:
    """Return the bytes this process may still use, as far as the system tells; else infinity."""
    limits = [math.inf]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(path).strip()
        limits += [int(text)] if text.isdigit() else []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(1024 * int(line.split()[1]))
    return min(limits)


def _read(path: str) -> str:
    """Return a system file's text, or nothing where there is no such file."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
