"""The machine's limits, measured between the cases of a run.

The core has the kernels (`lamella._core.measure`); here they are run in short goes, some before
the first case and some after each. The best go of a run is the machine's limit; the goes around a
case tell how much of the machine there was while it ran.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS = {"f32": "GFLOP/s", "f64": "GFLOP/s", "bf16": "GFLOP/s", "memory": "GB/s"}
OF_DTYPE = {"float32": "f32", "float64": "f64"}
THREADS = ("1", "2")
SETTLE = 0.15  # seconds: BLAS threads of a case's contestants spin for a while after work

Measure = Callable[[str, int, float], float]


@dataclass
class Peaks:
    """What every go measured, by kind and threads: `goes[kind][threads][gap]` is a list.

    Gap 0 lies before the first case, gap i after the i-th.
    """

    measure: Measure | None  # None: not known here
    count: int = 5  # goes of a gap
    seconds: float = 0.02
    goes: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find out what this machine has."""
        for kind in KINDS:
            try:
                if self.measure is not None:
                    self.measure(kind, 1, 1e-4)
                    self.goes[kind] = {threads: [] for threads in THREADS}
            except ValueError:  # no such arithmetic here
                continue

    def fill_gap(self) -> None:
        """Measure everything in turn, a few times."""
        if self.measure is None:
            return
        time.sleep(SETTLE)
        pairs = [(kind, threads) for kind in self.goes for threads in THREADS]
        for kind, threads in pairs:
            self.goes[kind][threads].append([])
        for _ in range(self.count):
            for kind, threads in pairs:
                rate = self.measure(kind, int(threads), self.seconds)
                self.goes[kind][threads][-1].append(rate)

    def best(self, kind: str, threads: str) -> float | None:
        """Return the best go of the run, or None where nothing was measured."""
        gaps = self.goes.get(kind, {}).get(threads, [])
        return max(flat(gaps), default=None)

    def around(self, kind: str, case: int) -> dict[str, float]:
        """Return by threads the median of the goes just before and just after a case, from 0."""
        by_threads = self.goes.get(kind, {})
        near = {threads: flat(gaps[case : case + 2]) for threads, gaps in by_threads.items()}
        return {threads: statistics.median(goes) for threads, goes in near.items() if goes}

    def as_record(self) -> dict[str, Any]:
        """Return the peaks for the record: best, spread (how far the median lies below), goes."""
        record: dict[str, Any] = {}
        for kind, by_threads in self.goes.items():
            for threads, gaps in by_threads.items():
                goes = flat(gaps)
                if goes:
                    best = max(goes)
                    record.setdefault(kind, {"unit": KINDS[kind]})[threads] = {
                        "best": best,
                        "spread": 1 - statistics.median(goes) / best,
                        "goes": gaps,
                    }
        return record


def flat(gaps: Sequence[Sequence[float]]) -> list[float]:
    """Return the goes of several gaps as one list."""
    return [rate for gap in gaps for rate in gap]


def describe(record: dict[str, Any]) -> str:
    """Write the peaks as a line: the best goes of one thread and of two."""
    parts = []
    for kind, peak in record.items():
        numbers = [
            f"{peak[threads]['best']:.0f} (median {peak[threads]['spread']:.0%} lower)"
            for threads in THREADS
            if threads in peak
        ]
        parts.append(f"{kind} {' and '.join(numbers)} {peak['unit']}")
    return "Measured peaks of one thread and of two: " + "; ".join(parts) if parts else ""
