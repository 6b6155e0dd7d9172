"""One engine in a process of its own, taking commands over pipes.

`python worker.py ENGINE VARIANT THREADS` reads a JSON object a line from standard input and
answers each with one on standard output: ``{"do": "load", "case": name, "dtype": name}``,
``{"do": "check"}``, ``{"do": "compile"}``, ``{"do": "time", "seconds": s}``. It stays alive between
them, so that timings of several engines can alternate. `THREADS` is a number or "auto"; whoever
starts the process puts it into the environment too, where BLAS libraries look for it when they are
loaded.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import engines
from cases import load_cases, make_problem


@contextmanager
def seeing_one_cpu() -> Iterator[None]:
    """Show one CPU to a library that sizes its thread pool by them; lift that afterwards."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), allowed)


class Worker:
    """Holds the engine of the case that was loaded last."""

    def __init__(self, name: str, variant: str, threads: int | None) -> None:
        self.name, self.variant, self.threads = name, variant, threads

    def load(self, case: str, dtype: str) -> dict[str, Any]:
        """Make the case's data, in this dtype, and the engine."""
        self.case = replace(load_cases()[case], dtype=dtype)
        self.engine = engines.make(self.name, make_problem(self.case), self.variant, self.threads)
        return {}

    def check(self) -> dict[str, Any]:
        """Return the losses that all engines have to agree on."""
        return {"losses": engines.first_losses(self.engine, self.case)}

    def compile(self) -> dict[str, Any]:
        """Let an engine that compiles whole calls compile one; it makes no pass over the data."""
        self.engine.restart()
        self.engine.train(self.case.batches, 0)
        return {}

    def time(self, seconds: float) -> dict[str, Any]:
        """Time whole calls, each from the start, until `seconds` have been spent in them."""
        times: list[float] = []
        while sum(times) < seconds:
            self.engine.restart()
            began = time.perf_counter()
            self.engine.train(self.case.batches, self.case.epochs)
            times.append(time.perf_counter() - began)
        return {"times": times}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command; an exception is an answer too."""
        try:
            result: dict[str, Any] = getattr(self, command.pop("do"))(**command)
        except Exception:
            return {"error": traceback.format_exc(limit=-3)}
        return result


def main() -> None:
    """Answer commands until the pipe closes; what libraries print goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, variant, threads = sys.argv[1:]
    worker = Worker(name, variant, None if threads == "auto" else int(threads))
    if name == "jax" and threads == "1":
        with seeing_one_cpu():
            import jax

            jax.devices()
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
