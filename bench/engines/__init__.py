"""The engines that the benchmark compares, one file each.

An engine is a class `Engine` (the protocol below) in a module of this package, written as its
library's users would write a fast training loop, no better and no worse. `ENGINES` lists them:
who takes part is data.
"""

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

from cases import Case, Problem


@dataclass(frozen=True)
class Entry:
    """What an engine needs, and the ways to use it that are tried."""

    library: str
    variants: tuple[str, ...]
    threads: tuple[str, ...] = ("1", "2")  # "auto": the library decides
    slow: tuple[str, ...] = ()  # variants that take long to compile: a quick run leaves them out
    bf16: tuple[str, ...] = ()  # variants in mixed precision, for the cases that ask for it

    @property
    def installed(self) -> bool:
        """Whether the library can be imported."""
        return find_spec(self.library) is not None


OURS = "lamella"
ENGINES = {
    OURS: Entry("lamella", ("fit",), ("1", "2", "auto"), bf16=("bf16",)),
    "numpy": Entry("numpy", ("plain",)),
    "jax": Entry("jax", ("loop", "step"), slow=("step",)),
    "sklearn": Entry("sklearn", ("partial_fit",)),
    "pytorch": Entry("torch", ("eager", "compiled"), slow=("compiled",), bf16=("autocast",)),
}
RIVALS = [name for name in ENGINES if name != OURS]


def is_bf16(name: str, variant: str) -> bool:
    """Whether an engine's variant trains in mixed precision."""
    return variant in ENGINES[name].bf16


class Engine(Protocol):
    """Trains one problem. Reading data, compiling and setting up are not timed; `train` is."""

    def __init__(self, problem: Problem, variant: str, threads: int | None) -> None: ...

    def restart(self) -> None:
        """Go back to the problem's start, with a fresh optimizer."""

    def train(self, batches: int, epochs: int) -> None:
        """Make `epochs` passes over the first `batches` mini-batches, in order."""

    def loss(self) -> float:
        """Return the mean loss of the present parameters over all rows."""


def make(name: str, problem: Problem, variant: str, threads: int | None) -> Engine:
    """Import an engine's module and set the engine up."""
    engine: Engine = importlib.import_module(f"engines.{name}").Engine(problem, variant, threads)
    return engine


def first_losses(engine: Engine, case: Case) -> tuple[float, float]:
    """Return the loss at the start and after the first steps: what all engines have to agree on."""
    batches = min(3, case.batches)
    engine.restart()
    before = engine.loss()
    engine.train(batches, -(-3 // batches))
    return before, engine.loss()
