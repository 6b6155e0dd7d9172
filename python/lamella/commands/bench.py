"""``lamella bench``: how fast this machine trains, beside the NumPy reference and scikit-learn.

Owns a look of a few seconds: full epochs of Adam on random numbers, the fastest of alternating
runs. Promises that before anything is timed, the core's losses were held to the reference's.
The benchmark in the source tree (`make bench`) is the thorough one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamella import _core, reference
from lamella.checks import Array
from lamella.demo import say
from lamella.network import Network

__all__ = ["run"]

AGREEMENT = 1e-3
"""How far the losses of float32 may be from the reference's, relatively."""


@dataclass(frozen=True)
class Case:
    """A network and how it is trained."""

    name: str
    dims: tuple[int, ...]
    batch: int
    rows: int


CASES = (
    Case("small", (20, 32, 16, 2), 32, 2_048),
    Case("table", (54, 128, 64, 7), 200, 8_000),
    Case("images", (784, 256, 128, 10), 128, 3_840),
)


def run(seconds: float, threads: int | None) -> None:
    """Measure each case for about so many seconds and print microseconds a step.

    Raises
    ------
    RuntimeError
        If the core's losses are not the reference's.
    """
    rivals = ["lamella", "NumPy"] + (["scikit-learn"] if _has_sklearn() else [])
    count = "as many as help" if threads is None else str(threads)
    say("kernels", f"{_core.info()['isa']}; threads: {count}")
    print(f"\n{'layers, batch':<28}" + "".join(f"{name:>14}" for name in rivals) + f"{'ahead':>9}")
    for case in CASES:
        times = measure(case, rivals, seconds, threads)
        others = min(times[name] for name in rivals[1:])
        cells = "".join(f"{times[name] * 1e6:>11,.1f} us" for name in rivals)
        title = f"{'-'.join(map(str, case.dims))}, {case.batch}"
        print(f"{title:<28}{cells}{others / times['lamella']:>8.1f}x", flush=True)
    print("\nmicroseconds a step (Adam, float32), the fastest of runs that took turns")


def measure(case: Case, rivals: list[str], seconds: float, threads: int | None) -> dict[str, float]:
    """Return the seconds of a step of each rival, the fastest of runs that took turns."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((case.rows, case.dims[0])).astype(np.float32)
    y = rng.integers(0, case.dims[-1], case.rows)
    _agree(case, X, y, threads)
    runs = {"lamella": _lamella(case, X, y, threads), "NumPy": _numpy(case, X, y)}
    if "scikit-learn" in rivals:
        runs["scikit-learn"] = _sklearn(case, X, y)
    best = dict.fromkeys(rivals, np.inf)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or np.inf in best.values():
        for name in rivals:
            start = time.perf_counter()
            steps = runs[name]()
            best[name] = min(best[name], (time.perf_counter() - start) / steps)
    return best


def _agree(case: Case, X: Array, y: Array, threads: int | None) -> None:
    """Hold two epochs' losses to the reference's."""
    network = _network(case)
    start = _columns(network)
    ours = network.fit(X, y, epochs=2, batch_size=case.batch, threads=threads, progress=False).loss
    _, theirs = _reference(case, start, X, y, epochs=2)
    far = float(np.max(np.abs(ours - theirs) / np.abs(theirs)))
    if not far <= AGREEMENT:
        raise RuntimeError(f"{case.name}: losses differ from the reference's by {far:.1e}")


def _network(case: Case) -> Network:
    """Return a new network of a case."""
    return Network(list(case.dims), output="softmax")


def _columns(network: Network) -> dict[str, Array]:
    """Return parameters as the reference takes them."""
    items = network.parameters.items()
    return {name: array if array.ndim == 2 else array[:, None] for name, array in items}


def _reference(
    case: Case, start: dict[str, Array], X: Array, y: Array, epochs: int
) -> tuple[dict[str, Array], Array]:
    """Train by the reference."""
    return reference.fit(
        start,
        X.T,
        y,
        epochs=epochs,
        batch_size=case.batch,
        optimizer="adam",
        output="softmax",
        seed=0,
    )


def _steps(case: Case) -> int:
    """Return the steps of an epoch."""
    return -(-case.rows // case.batch)


def _lamella(case: Case, X: Array, y: Array, threads: int | None) -> Callable[[], int]:
    """Return a run of an epoch in the core."""
    network = _network(case)

    def epoch() -> int:
        network.fit(X, y, batch_size=case.batch, threads=threads, progress=False)
        return _steps(case)

    return epoch


def _numpy(case: Case, X: Array, y: Array) -> Callable[[], int]:
    """Return a run of an epoch by the reference."""
    start = _columns(_network(case))

    def epoch() -> int:
        _reference(case, start, X, y, epochs=1)
        return _steps(case)

    return epoch


def _sklearn(case: Case, X: Array, y: Array) -> Callable[[], int]:
    """Return a run of an epoch by scikit-learn's classifier."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    settings: dict[str, Any] = {"batch_size": case.batch, "max_iter": 1, "alpha": 0.0}
    estimator = MLPClassifier(case.dims[1:-1], random_state=0, **settings)

    def epoch() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(X, y)
        return _steps(case)

    return epoch


def _has_sklearn() -> bool:
    """Return whether scikit-learn is installed."""
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True
