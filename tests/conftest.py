"""What the tests share: fixtures' files, random networks, the measure of agreement."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]

DATA = Path(__file__).parent / "data"


def pytest_configure() -> None:
    """Let interrupts arrive, here and in children, also where a shell's background ignores them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def read(name: str) -> dict[str, Array]:
    """Read a file of fixtures; keys are paths."""
    with np.load(DATA / name) as file:
        return {key.replace("__", "/"): file[key] for key in file.files}


@pytest.fixture(scope="session")
def course() -> dict[str, Array]:
    """Return what the course page's own NumPy code computed."""
    return read("course.npz")


@pytest.fixture(scope="session")
def torch() -> dict[str, Array]:
    """Return what PyTorch computed."""
    return read("torch.npz")


def difference(a: Array, b: Array) -> float:
    """Return max |a - b| over max |b|."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300))


def agree(a: Arrays, b: Arrays, bound: float) -> None:
    """Assert that two dicts hold the same arrays, each within the bound."""
    assert list(a) == list(b)
    for name in b:
        assert difference(a[name], b[name]) <= bound, name


def start(dims: list[int], seed: int, dtype: str = "float64") -> dict[str, Array]:
    """Return random parameters with biases that are not zero."""
    rng = np.random.default_rng(seed)
    parameters = {}
    for layer, (n_in, n_out) in enumerate(pairwise(dims), 1):
        weights = rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)
        parameters[f"W{layer}"] = weights.astype(dtype)
        parameters[f"b{layer}"] = (0.1 * rng.standard_normal((n_out, 1))).astype(dtype)
    return parameters
