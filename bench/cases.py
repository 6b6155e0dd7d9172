"""The cases of cases.toml, and the data and start of each.

Owns what is trained; engines/ own how. Everything is made from fixed seeds, so that every engine,
in whatever process, trains the same network from the same start on the same rows.
"""

import math
import re
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

BENCH = Path(__file__).parent
LEARNING_RATE = 1e-3

Loss = Literal["binary_cross_entropy", "cross_entropy", "squared_error"]
Target = Literal["teacher", "input"]
Array = NDArray[np.floating]


@dataclass(frozen=True)
class Case:
    """One network and how it is trained.

    Attributes
    ----------
    shape : str
        The layers as cases.toml writes them.
    layers : tuple of int
        Units of every layer, the features first.
    batch, batches, epochs : int
        Rows of a mini-batch; mini-batches of the data set; passes over it in one timed call.
    loss : str
        "binary_cross_entropy" (one sigmoid unit), "cross_entropy" (softmax) or "squared_error"
        (identity), a mean over rows and, the last one, over outputs.
    dtype : str
        "float32" or "float64".
    target : str
        "teacher" (a random linear map of the rows) or "input" (the rows themselves).
    bf16 : bool
        Whether it is also trained in mixed precision, by the engines that can.
    tuned : bool
        Whether constants of the core may be chosen by this case.
    """

    name: str
    shape: str
    layers: tuple[int, ...]
    batch: int
    batches: int
    epochs: int
    loss: Loss
    dtype: str
    target: Target = "teacher"
    bf16: bool = False
    tuned: bool = True

    @property
    def steps(self) -> int:
        """Training steps of one timed call."""
        return self.batches * self.epochs

    @property
    def flops(self) -> int:
        """Multiplications and additions of one step's matrix products."""
        products = [k * n for k, n in pairwise(self.layers)]
        return 2 * self.batch * (3 * sum(products) - products[0])

    @property
    def bytes(self) -> int:
        """Bytes that one step has to move at least, were everything else in caches.

        The batch and its targets are read; weights and biases and Adam's two moments of each are
        read and written. Activations and gradients, which could stay inside, do not count.
        """
        parameters = sum((k + 1) * n for k, n in pairwise(self.layers))
        width = self.layers[-1] if self.loss == "squared_error" and self.target != "input" else 0
        classes = 0 if self.loss == "squared_error" else 1
        numbers = self.batch * (self.layers[0] + width + classes) + 2 * 3 * parameters
        return numbers * np.dtype(self.dtype).itemsize

    @property
    def intensity(self) -> float:
        """Useful operations a byte that has to be moved: where the case stands in a roofline."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Problem:
    """A case with its data and its start.

    Attributes
    ----------
    X : ndarray, shape (batches * batch, layers[0])
    y : ndarray
        Class of each row, int64 (batches * batch,): 0 or 1, or 0 ... layers[-1] - 1. For a squared
        error values of the case's dtype, (batches * batch, layers[-1]).
    weights : list of ndarray, each (n[l], n[l-1])
    biases : list of ndarray, each (n[l],)
    """

    case: Case
    X: Array
    y: NDArray[Any]
    weights: list[Array]
    biases: list[Array]


def load_cases() -> dict[str, Case]:
    """Read cases.toml, by name, in its order."""
    with (BENCH / "cases.toml").open("rb") as file:
        tables = tomllib.load(file)["case"]
    return {table["name"]: read_case(**table) for table in tables}


def read_case(layers: str, **rest: Any) -> Case:
    """Make a case from its table in cases.toml."""
    return Case(shape=layers, layers=parse_layers(layers), **rest)


def parse_layers(text: str) -> tuple[int, ...]:
    """Read a list of widths such as ``64-(64x50)-10``: fifty layers of 64 between 64 and 10."""
    layers: list[int] = []
    for part in text.split("-"):
        repeated = re.fullmatch(r"\((\d+)x(\d+)\)", part)
        layers += [int(repeated[1])] * int(repeated[2]) if repeated else [int(part)]
    return tuple(layers)


def make_problem(case: Case, dtype: str | None = None) -> Problem:
    """Make the rows, their labels and the He start, in the case's dtype or in another.

    Labels come from a random linear teacher with a tenth of them redrawn, values from the teacher
    with a tenth of noise, so that there is something to learn and no engine ends with vanishing
    gradients.
    """
    rng = np.random.default_rng(20260101)
    rows, features, outputs = case.batches * case.batch, case.layers[0], case.layers[-1]
    kind = np.dtype(dtype or case.dtype)
    X = rng.standard_normal((rows, features), dtype=np.float32)
    classes = max(outputs, 2)
    teacher = rng.standard_normal((features, classes), dtype=np.float32)
    answers = X @ teacher
    y: NDArray[Any]
    if case.loss == "squared_error":
        noise = 0.1 * rng.standard_normal(answers.shape, dtype=np.float32)
        values = X if case.target == "input" else answers / math.sqrt(features) + noise
        y = values.astype(kind)
    else:
        y = np.argmax(answers, axis=1)
        noisy = rng.random(rows) < 0.1
        y[noisy] = rng.integers(0, classes, int(noisy.sum()))
    weights = [
        (rng.standard_normal((n, k), dtype=np.float32) * math.sqrt(2 / k)).astype(kind)
        for k, n in pairwise(case.layers)
    ]
    biases = [np.zeros(n, kind) for n in case.layers[1:]]
    return Problem(case, X.astype(kind), y, weights, biases)
