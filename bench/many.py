"""`python bench/many.py`: a search of many networks, by `fit_many` and by what else there is.

Networks of the `tabular` case that differ in their seed and rate, on that case's rows, trained

- by `lamella.fit_many` on two threads and on one, and one after the other by `Network.fit`,
- by scikit-learn's `MLPClassifier` over joblib, two processes of one BLAS thread each.

They alternate, a few networks at a time (a chunk), and the quickest chunk of each counts: a busy
neighbour makes some slower, nothing makes one faster. scikit-learn's chunks take as many epochs and
batches; its workers are started and have the data before the clock runs. For figures worth
keeping, let the machine do nothing else, and leave OPENBLAS_* out of the environment.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import joblib
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import lamella
from cases import Problem, load_cases, make_problem

CASE = "tabular"
NETWORKS = 200
RATES = [3e-4, 1e-3, 3e-3, 1e-2]


def configurations(problem: Problem, n: int, epochs: int) -> list[dict[str, Any]]:
    """Return arguments of n networks of the case's shape, each with its seed and rate."""
    shared = {"layers": problem.case.layers, "output": "softmax", "batch_size": problem.case.batch}
    return [
        {**shared, "epochs": epochs, "learning_rate": RATES[i % len(RATES)], "seed": i}
        for i in range(n)
    ]


def together(problem: Problem, configs: Sequence[dict[str, Any]], threads: int) -> None:
    """Train all by one call."""
    fitted = lamella.fit_many(configs, problem.X, problem.y, threads=threads)
    assert all(result.error is None for result in fitted)


def one_by_one(problem: Problem, configs: Sequence[dict[str, Any]]) -> None:
    """Train each by a call of its own, on one thread."""
    kind = ("layers", "output", "seed")
    for config in configs:
        net = lamella.Network(**{name: config[name] for name in kind})
        rest = {name: value for name, value in config.items() if name not in kind}
        net.fit(problem.X, problem.y, **rest, threads=1)


def estimator(X: Any, y: Any, config: dict[str, Any]) -> float:
    """Train scikit-learn's estimator with the same settings, all epochs; return its last loss."""
    model = MLPClassifier(
        hidden_layer_sizes=config["layers"][1:-1],
        alpha=0.0,
        batch_size=config["batch_size"],
        learning_rate_init=config["learning_rate"],
        max_iter=config["epochs"],
        tol=0.0,
        n_iter_no_change=config["epochs"] + 1,
        random_state=config["seed"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    assert model.n_iter_ == config["epochs"]
    return float(model.loss_)


def by_joblib(
    parallel: joblib.Parallel, problem: Problem, configs: Sequence[dict[str, Any]]
) -> None:
    """Train scikit-learn's estimators in joblib's processes."""
    parallel(joblib.delayed(estimator)(problem.X, problem.y, config) for config in configs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Alternate the contestants and print the quickest chunk of each, for all networks."""
    parser = argparse.ArgumentParser(prog="bench/many.py", description="Time a search.")
    parser.add_argument("--rounds", type=int, default=5, help="chunks of each (default 5)")
    parser.add_argument("--chunk", type=int, default=20, help="networks of a chunk (default 20)")
    parser.add_argument("--epochs", type=int, default=4, help="of each network (default 4)")
    options = parser.parse_args(arguments)
    problem = make_problem(load_cases()[CASE])
    configs = configurations(problem, options.chunk, options.epochs)
    with joblib.Parallel(n_jobs=2) as parallel:
        contestants: dict[str, Callable[[], None]] = {
            "fit_many, 2 threads": lambda: together(problem, configs, 2),
            "fit_many, 1 thread": lambda: together(problem, configs, 1),
            "Network.fit, one by one": lambda: one_by_one(problem, configs),
            "MLPClassifier, joblib 2": lambda: by_joblib(parallel, problem, configs),
        }
        by_joblib(parallel, problem, configs[:2])
        best = dict.fromkeys(contestants, float("inf"))
        for _ in range(options.rounds):
            for name, train in contestants.items():
                began = time.perf_counter()
                train()
                best[name] = min(best[name], time.perf_counter() - began)
    first = best["fit_many, 2 threads"]
    print(f"{NETWORKS} networks {problem.case.shape}, {options.epochs} epochs of "
          f"{len(problem.X)} rows in batches of {problem.case.batch}")  # fmt: skip
    for name, seconds in best.items():
        whole = seconds * NETWORKS / options.chunk
        print(f"{name:<24} {whole:>8.2f} s {seconds / first:>6.2f}x")


if __name__ == "__main__":
    main()
