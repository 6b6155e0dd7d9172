"""scikit-learn's estimators and those of `lamella.sklearn` on the same data, with their defaults.

Prints a Markdown table: epochs and scores of both, which have to be equal, the largest difference
of a coefficient (max |a - b| over max |b|, of all arrays), seconds and the speed-up. Both libraries
take as many threads as they want. Fits alternate, and the fastest of each counts.

    python bench/estimators.py [--quick] [--only NAME ...] [--repeats N]

`--quick` ends every fit after 10 epochs. Fashion-MNIST is read from where Debian's package
dataset-fashion-mnist puts it, or from --fashion-mnist; without it the case is left out.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

import lamella.sklearn

Array = NDArray[Any]
Data = tuple[Array, Array]

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_ROWS = 10_000
QUICK_EPOCHS = 10
SHORT = 2.0
"""A fit that takes less than so many seconds is repeated."""
SETTLE = 0.3
"""Seconds between fits: BLAS threads spin for a while after work, on the next one's cores."""


@dataclass(frozen=True)
class Case:
    """Data and the estimator that fits them."""

    name: str
    estimator: str
    load: Callable[[], Data]


@dataclass(frozen=True)
class Outcome:
    """What the two libraries made of a case; theirs stands first in a pair."""

    shape: tuple[int, ...]
    epochs: tuple[int, int]
    scores: tuple[float, float]
    difference: float
    seconds: tuple[float, float]

    @property
    def speed_up(self) -> float:
        """How many times faster these estimators are."""
        return self.seconds[0] / self.seconds[1]


def fashion_mnist(folder: Path, dtype: str) -> Data:
    """Return the first training images, in [0, 1], and their classes."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + FASHION_ROWS * 784)[16:], np.uint8)
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        classes = np.frombuffer(file.read(8 + FASHION_ROWS)[8:], np.uint8)
    X = (pixels.reshape(FASHION_ROWS, 784) / 255).astype(dtype)
    return X, classes.astype(np.int64)


def synthetic() -> Data:
    X, y = datasets.make_classification(
        n_samples=100_000, n_features=20, n_informative=10, n_classes=5, random_state=0
    )
    return X, y


def words() -> Data:
    """Return sparse rows like those of short texts, and which of five rules fits best."""
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((5_000, 5_000), density=0.01, format="csr", rng=rng)
    return X, (X @ rng.standard_normal((5_000, 5))).argmax(axis=1)


def scaled(load: Callable[..., Data]) -> Data:
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def cases(folder: Path) -> Iterator[Case]:
    """Yield what is to be compared."""
    classifier, regressor = "MLPClassifier", "MLPRegressor"
    yield Case("digits", classifier, lambda: datasets.load_digits(return_X_y=True))
    yield Case("breast cancer", classifier, lambda: scaled(datasets.load_breast_cancer))
    yield Case("diabetes", regressor, lambda: scaled(datasets.load_diabetes))
    for dtype in ("float64", "float32"):
        name = f"Fashion-MNIST, {dtype}"
        yield Case(name, classifier, lambda dtype=dtype: fashion_mnist(folder, dtype))  # type: ignore[misc]
    yield Case("synthetic", classifier, synthetic)
    yield Case("sparse (CSR)", classifier, words)


def timed(module: Any, case: Case, X: Array, y: Array, settings: dict[str, Any]) -> Any:
    """Fit once; return the estimator and the seconds it took."""
    estimator = getattr(module, case.estimator)(random_state=0, **settings)
    time.sleep(SETTLE)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X, y)
    return estimator, time.perf_counter() - begin


def compare(case: Case, repeats: int, settings: dict[str, Any]) -> Outcome:
    """Fit both libraries' estimators in turn."""
    X, y = case.load()
    best = [float("inf")] * 2
    fitted: list[Any] = [None, None]
    for turn in range(repeats):
        for i, module in enumerate((neural_network, lamella.sklearn)):
            if turn > 0 and max(best) > SHORT:
                continue
            fitted[i], seconds = timed(module, case, X, y, settings)
            best[i] = min(best[i], seconds)
    theirs, ours = fitted
    return Outcome(
        X.shape,
        (theirs.n_iter_, ours.n_iter_),
        (theirs.score(X, y), ours.score(X, y)),
        difference(ours, theirs),
        (best[0], best[1]),
    )


def difference(ours: Any, theirs: Any) -> float:
    """Return the largest of all arrays' max |a - b| over max |b|."""
    a, b = (one.coefs_ + one.intercepts_ for one in (ours, theirs))
    return max(float(np.abs(p - q).max() / np.abs(q).max()) for p, q in zip(a, b, strict=True))


def row(case: Case, outcome: Outcome) -> str:
    """Return the case's line of the table."""
    rows, features = outcome.shape
    cells = [
        case.name,
        f"{rows:,} x {features}",
        pair(outcome.epochs, "d"),
        pair(outcome.scores, ".4f"),
        f"{outcome.difference:.1e}",
        *(f"{seconds:.3f}" for seconds in outcome.seconds),
        f"{outcome.speed_up:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def pair(values: tuple[Any, Any], how: str) -> str:
    """Return one number where both are the same as printed, else both."""
    texts = [format(value, how) for value in values]
    return texts[0] if texts[0] == texts[1] else " / ".join(texts)


HEAD = """\
| data | rows | epochs | score | coefficients differ by | scikit-learn, s | lamella, s | speed-up |
|---|---|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what is asked for; return 1 where scores differ in float64."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_EPOCHS} epochs a fit")
    parser.add_argument("--only", nargs="+", default=[], help="cases whose names contain this")
    parser.add_argument("--repeats", type=int, default=5, help="fits that take little time")
    parser.add_argument("--fashion-mnist", type=Path, default=FASHION_MNIST, metavar="FOLDER")
    options = parser.parse_args(arguments)
    settings = {"max_iter": QUICK_EPOCHS} if options.quick else {}
    failed = False
    print(HEAD, flush=True)
    for case in cases(options.fashion_mnist):
        if options.only and not any(word in case.name for word in options.only):
            continue
        try:
            outcome = compare(case, options.repeats, settings)
        except FileNotFoundError as error:
            print(f"{case.name}: left out, {error.filename} is not there", file=sys.stderr)
            continue
        print(row(case, outcome), flush=True)
        a, b = outcome.scores
        failed |= "float32" not in case.name and not np.isclose(a, b, rtol=1e-6)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
