"""`python bench/descent.py`: the course's own training, full-batch gradient descent, by all.

The course's network on rows as wide as its pictures, from the same start:

- `L_layer_model`: Lamella, whole calls of `--iterations`. It trains in the span of the samples
  (see `lamella/span.py`), and what that takes before and after is timed too.
- `fit`: Lamella's model, whose steps read all features, as the rivals' do.
- NumPy (`lamella.reference`), JAX (`jit` over all iterations), PyTorch (eager, SGD).

The rivals make `--few` iterations a turn. Each turn is a process of its own, with one thread or
two, and they alternate. Medians are printed: microseconds an iteration, and how many times as long
as `L_layer_model` each takes with its better number of threads. All must have the same cost after
100 iterations.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from cases import Array, Problem, load_cases, make_problem
from contest import worker_environment
from engines import ENGINES
from worker import seeing_one_cpu

CASE, RATE = "course", 0.0075
Train = Callable[[int], float]
"""Makes so many iterations from the start; returns the cost before the last of them."""


def start(problem: Problem, shape: tuple[int, ...]) -> dict[str, Array]:
    """Return the initial parameters by name, biases in this shape."""
    weights = {f"W{n}": W for n, W in enumerate(problem.weights, 1)}
    return weights | {f"b{n}": b.reshape(shape) for n, b in enumerate(problem.biases, 1)}


def by_lamella(problem: Problem, threads: int) -> Train:
    """Return the training by `L_layer_model`, which keeps the cost of every hundredth iteration."""
    import lamella

    parameters = start(problem, (-1, 1))

    def train(iterations: int) -> float:
        return lamella.L_layer_model(
            problem.X.T, problem.y, problem.case.layers, RATE, iterations, parameters=parameters,
            threads=threads,
        )[1][-1]  # fmt: skip

    return train


def by_fit(problem: Problem, threads: int) -> Train:
    """Return the training by `Network.fit`."""
    import lamella

    def train(iterations: int) -> float:
        net = lamella.Network(problem.case.layers, output="sigmoid", dtype=problem.case.dtype)
        net.parameters = start(problem, (-1,))
        history = net.fit(
            problem.X, problem.y, epochs=iterations, batch_size=len(problem.X), optimizer="sgd",
            learning_rate=RATE, threads=threads,
        )  # fmt: skip
        return float(history.loss[-1])

    return train


def by_numpy(problem: Problem, threads: int) -> Train:
    """Return the training in NumPy; its threads are in the environment."""
    from lamella import reference

    parameters = start(problem, (-1, 1))

    def train(iterations: int) -> float:
        return reference.L_layer_model(
            problem.X.T, problem.y, problem.case.layers, RATE, iterations, parameters=parameters
        )[1][-1]

    return train


def by_jax(problem: Problem, threads: int) -> Train:
    """Return the training by JAX, compiled once."""
    import jax
    import jax.numpy as jnp

    from engines.jax import Engine

    engine = Engine(problem, "loop", threads)
    X, y = engine.X[0], engine.y[0]

    def step(_: int, state: tuple[object, object]) -> tuple[object, object]:
        cost, gradients = jax.value_and_grad(engine.pure_loss)(state[0], X, y)
        return jax.tree.map(lambda p, g: p - RATE * g, state[0], gradients), cost

    loop = jax.jit(lambda parameters, n: jax.lax.fori_loop(
        0, n, step, (parameters, jnp.zeros((), X.dtype))))  # fmt: skip
    first = engine.state[0]
    return lambda iterations: float(loop(first, iterations)[1])


def by_pytorch(problem: Problem, threads: int) -> Train:
    """Return the training by PyTorch."""
    import torch

    from engines.pytorch import Engine

    engine = Engine(problem, "eager", threads)

    def train(iterations: int) -> float:
        engine.restart()
        rule = torch.optim.SGD(engine.network.parameters(), RATE)
        for _ in range(iterations):
            rule.zero_grad(set_to_none=True)
            cost = engine.forward(engine.X, engine.y)
            cost.backward()
            rule.step()
        return float(cost)

    return train


MAKERS = {
    "L_layer_model": by_lamella,
    "fit": by_fit,
    "numpy": by_numpy,
    "jax": by_jax,
    "pytorch": by_pytorch,
}


def turn(name: str, dtype: str, threads: int, iterations: int) -> tuple[float, float]:
    """Train once, after a short call that warms up; return seconds and the cost after a hundred."""
    case = replace(load_cases()[CASE], dtype=dtype)
    one = name == "jax" and threads == 1  # it sizes its pool by the processors it may use
    with seeing_one_cpu() if one else nullcontext():
        train = MAKERS[name](make_problem(case), threads)
    cost = train(101)
    began = time.perf_counter()
    train(iterations)
    return time.perf_counter() - began, cost


def process(name: str, dtype: str, threads: int, iterations: int) -> tuple[float, float]:
    """Do the same in a process of its own."""
    command = [sys.executable, __file__, "--turn", name, dtype, str(threads), str(iterations)]
    done = subprocess.run(command, env=worker_environment(str(threads)), capture_output=True,
                          text=True, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    seconds, cost = map(float, done.stdout.split()[-2:])
    return seconds, cost


def compare(dtype: str, names: Sequence[str], options: argparse.Namespace) -> None:
    """Alternate, in one dtype, and print."""
    times: dict[tuple[str, int], list[float]] = {}
    costs: list[tuple[float, str]] = []
    for _, name, threads in itertools.product(range(options.rounds), names, (1, 2)):
        iterations = options.iterations if name == "L_layer_model" else options.few
        seconds, cost = process(name, dtype, threads, iterations)
        costs.append((cost, name))
        times.setdefault((name, threads), []).append(seconds / iterations * 1e6)
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    if max(costs)[0] > min(costs)[0] * (1 + tolerance):
        raise SystemExit(f"after 100 iterations the costs differ: {min(costs)}, {max(costs)}")
    medians = {key: statistics.median(values) for key, values in times.items()}
    best = {name: min(medians[name, threads] for threads in (1, 2)) for name in names}
    print(f"{dtype}: microseconds an iteration")
    for name in names:
        one, two = medians[name, 1], medians[name, 2]
        print(f"  {name:<14} one thread {one:8.0f}   two {two:8.0f}   "
              f"{best[name] / best['L_layer_model']:6.1f}x")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare in both dtypes."""
    parser = argparse.ArgumentParser(prog="bench/descent.py", description="Time the course.")
    parser.add_argument("--iterations", type=int, default=2500, help="of L_layer_model")
    parser.add_argument("--few", type=int, default=100, help="of the others (default 100)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default 5)")
    parser.add_argument("--turn", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.turn:
        name, dtype, threads, iterations = options.turn
        print(*turn(name, dtype, int(threads), int(iterations)))
        return
    rivals = [name for name in ("numpy", "jax", "pytorch") if ENGINES[name].installed]
    for dtype in ("float64", "float32"):
        compare(dtype, ["L_layer_model", "fit", *rivals], options)


if __name__ == "__main__":
    main()
