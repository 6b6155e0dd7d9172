"""`python bench/options.py`: what dropout, batch normalisation, AdamW and clipping cost together.

The `mnist` case, plain (Adam) and with all four: dropout 0.2 and batch normalisation after every
hidden layer, AdamW with decay 0.01, the whole gradient clipped to norm 1. Lamella, JAX (`jit` over
all steps of an epoch) and PyTorch (eager, fused AdamW), each with one thread and with two; all
alternate, one epoch of 30 batches at a time, and medians are printed: microseconds a step, the
cost of the options, and how far Lamella is ahead of each rival's better thread count. Leave
OPENBLAS_* out of the environment.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cases import Problem, load_cases, make_problem

CASE = "mnist"
STEPS = 30
DROPOUT, DECAY, RATE, CLIP = 0.2, 0.01, 1e-3, 1.0
ENGINES = ("lamella-plain", "lamella", "jax", "torch")


def lamella_epoch(problem: Problem, threads: int, *, plain: bool) -> Callable[[], object]:
    """Return a function that trains one epoch."""
    import lamella

    layers, options = problem.case.layers, {} if plain else {"dropout": DROPOUT, "norm": "batch"}
    net = lamella.Network(layers, output="softmax", **options)  # type: ignore[arg-type]
    rule = lamella.Adam(RATE) if plain else lamella.AdamW(RATE, weight_decay=DECAY)
    clip = None if plain else CLIP
    return lambda: net.fit(
        problem.X, problem.y, batch_size=problem.case.batch, optimizer=rule, clip_norm=clip,
        threads=threads,
    )  # fmt: skip


def torch_epoch(problem: Problem, threads: int) -> Callable[[], object]:
    """Return the same of PyTorch."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    sizes, blocks = problem.case.layers, []
    for a, b in itertools.pairwise(sizes[:-1]):
        blocks += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(DROPOUT)]
    model = nn.Sequential(*blocks, nn.Linear(sizes[-2], sizes[-1]))
    rule = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY, fused=True)
    X, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    size = problem.case.batch

    def epoch() -> None:
        order = torch.randperm(len(X))
        for first in range(0, len(X), size):
            batch = order[first : first + size]
            rule.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(X[batch]), y[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            rule.step()

    return epoch


def jax_epoch(problem: Problem, threads: int) -> Callable[[], object]:
    """Return the same of JAX, all steps in one compiled scan."""
    import jax
    import jax.numpy as jnp

    sizes, size = problem.case.layers, problem.case.batch
    keys = iter(jax.random.split(jax.random.key(0), 2 * len(sizes)))
    pairs = list(itertools.pairwise(sizes))
    parameters: Any = [
        {"W": jax.random.normal(next(keys), (a, b)) * (2 / a) ** 0.5, "b": jnp.zeros(b),
         "gamma": jnp.ones(b), "beta": jnp.zeros(b)}
        for a, b in pairs
    ]  # fmt: skip
    running = [(jnp.zeros(b), jnp.ones(b)) for b in sizes[1:-1]]
    X, y = jnp.asarray(problem.X), jnp.asarray(problem.y)

    def loss(parameters: Any, running: Any, x: Any, t: Any, key: Any) -> Any:
        moved = []
        for p, (mean, variance) in zip(parameters[:-1], running, strict=True):
            z = x @ p["W"] + p["b"]
            m, v = z.mean(0), z.var(0)
            moved.append((0.9 * mean + 0.1 * m, 0.9 * variance + 0.1 * v))
            x = jax.nn.relu((z - m) / jnp.sqrt(v + 1e-5) * p["gamma"] + p["beta"])
            key, own = jax.random.split(key)
            x = jnp.where(jax.random.bernoulli(own, 1 - DROPOUT, x.shape), x / (1 - DROPOUT), 0)
        logits = x @ parameters[-1]["W"] + parameters[-1]["b"]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), t[:, None], 1)
        return -chosen.mean(), moved

    def step(carry: Any, batch: Any) -> Any:
        parameters, running, m, v, n, key = carry
        key, own = jax.random.split(key)
        (value, running), grads = jax.value_and_grad(loss, has_aux=True)(
            parameters, running, X[batch], y[batch], own
        )
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g * jnp.minimum(1, CLIP / (norm + 1e-6)), grads)
        n = n + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        a, b = 1 - 0.9**n, 1 - 0.999**n
        parameters = jax.tree.map(
            lambda p, m, v: p * (1 - RATE * DECAY) - RATE * (m / a) / (jnp.sqrt(v / b) + 1e-8),
            parameters, m, v,
        )  # fmt: skip
        return (parameters, running, m, v, n, key), value

    def all_steps(carry: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(X)).reshape(-1, size)
        return jax.lax.scan(step, carry, order)[0]

    epoch = jax.jit(all_steps)

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    held = {"carry": (parameters, running, zeros, zeros, jnp.zeros(()), jax.random.key(1))}
    count = iter(range(1 << 30))

    def run() -> None:
        held["carry"] = epoch(held["carry"], jax.random.key(next(count)))
        jax.block_until_ready(held["carry"])

    return run


def serve(engine: str, threads: int) -> None:
    """Train an epoch for every line that comes, and answer with its seconds."""
    case = load_cases()[CASE]
    whole = make_problem(case)
    rows = STEPS * case.batch
    take = [i % len(whole.X) for i in range(rows)]
    problem = replace(whole, X=whole.X[take], y=whole.y[take])
    if engine.startswith("lamella"):
        epoch = lamella_epoch(problem, threads, plain=engine == "lamella-plain")
    else:
        epoch = {"jax": jax_epoch, "torch": torch_epoch}[engine](problem, threads)
    epoch()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        epoch()
        print(time.perf_counter() - began, flush=True)


def start(engine: str, threads: int) -> subprocess.Popen[str]:
    """Start an engine in a process of its own, with so many threads."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    environment |= {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--serve", engine, str(threads)]
    cpus = os.sched_getaffinity(0)
    if engine == "jax" and threads == 1:
        # JAX sizes its pool by the processors it may use.
        command = ["taskset", "-c", str(min(cpus)), *command]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env=environment)  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{engine} did not start")
    return process


def once(process: subprocess.Popen[str]) -> float:
    """Return the microseconds a step of one epoch."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline()) / STEPS * 1e6


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve[0], int(options.serve[1]))
    engines = [e for e in ENGINES if e.startswith("lamella") or _installed(e)]
    running = {(e, threads): start(e, threads) for e in engines for threads in (1, 2)}
    times: dict[tuple[str, int], list[float]] = {key: [] for key in running}
    for _ in range(options.rounds):
        for key, process in running.items():
            times[key].append(once(process))
    for process in running.values():
        process.terminate()
    medians = {key: statistics.median(values) for key, values in times.items()}
    best = {e: min(medians[e, threads] for threads in (1, 2)) for e in engines}
    for (engine, threads), median in medians.items():
        least = min(times[engine, threads])
        print(f"{engine:<14} {threads} threads: median {median:8.0f} us a step, least {least:8.0f}")
    print(f"the four options cost {best['lamella'] / best['lamella-plain']:.2f}x the plain step")
    for rival in engines[2:]:
        print(f"ahead of {rival}: {best[rival] / best['lamella']:.2f}x")


def _installed(name: str) -> bool:
    """Whether a package can be imported."""
    import importlib.util

    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    main()
