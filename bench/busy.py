"""`python bench/busy.py`: whether threads ever hurt, in numbers.

Microseconds a step of `Network.fit` on two processors, with one thread, with two and with as many
as Lamella chooses,

- quiet, and
- while another process computes without end on one of the two processors;

and the time of four fits at once, each with the threads that Lamella chooses, against the same
four in turn. Each fit has a process of its own; all alternate, go by go, and medians are printed
with ratios: the automatic count over the better fixed one, quiet (aim: 1.05); automatic or two
threads beside the busy process over one thread alone, quiet (aim: 1.00); four at once over four in
turn (aim: 1.20).

For figures worth keeping, let the machine do nothing else. It needs Linux, where
processes can be bound to processors, and leaves all but two of those alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import engines
from cases import Case, load_cases, make_problem
from contest import SETTLE, worker_environment
from report import as_markdown, shape

NAMES = ("digits", "tabular", "mnist", "deep")
THREADS = ("1", "2", "auto")
AT_ONCE = 4
HEAD = [
    "case",
    "layers, batch",
    *(f"quiet, {t}" for t in THREADS),
    *(f"busy, {t}" for t in THREADS),
]
HEAD += ["auto over better", "busy auto over 1", "busy 2 over 1", "four at once over in turn"]
SPIN = """import os
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""

Times = dict[str, list[float]]


def load(name: str) -> Case:
    """Return a case of cases.toml, or "digits": a small network in float64."""
    cases = load_cases()
    if name != "digits":
        return cases[name]
    return replace(
        cases["tabular"],
        name=name,
        shape="64-100-10",
        layers=(64, 100, 10),
        batch=200,
        batches=9,
        dtype="float64",
    )


class Fit:
    """A process that trains a case with so many threads, go by go."""

    def __init__(self, case: Case, threads: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", case.name, threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=worker_environment(threads),
        )
        self.wait()

    def start(self, calls: int) -> None:
        """Begin a go of so many calls."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()

    def wait(self) -> None:
        """Wait for the end of what was begun."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise SystemExit(f"a fit ended with status {self.process.wait()}")

    def close(self) -> None:
        """End the process."""
        with self.process:
            self.process.kill()


def serve(name: str, threads: str) -> None:
    """Make as many calls as each line of standard input says.

    A line on standard output says that they are made, another that the next can come.
    """
    case = load(name)
    count = None if threads == "auto" else int(threads)
    engine = engines.make(engines.OURS, make_problem(case), "fit", count)
    engine.train(case.batches, 1)
    print(flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            engine.train(case.batches, case.epochs)
        print(flush=True)
        engine.restart()
        print(flush=True)


@contextmanager
def busy(cpu: int) -> Iterator[subprocess.Popen[str]]:
    """Keep a processor busy with a process that is bound to it."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", SPIN],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    ) as spinner:
        try:
            assert spinner.stdout is not None
            spinner.stdout.readline()
            yield spinner
        finally:
            spinner.kill()


def seconds_of(fits: Sequence[Fit], calls: int) -> float:
    """Return the time until the last of several fits, started together, has made its calls."""
    began = time.perf_counter()
    for fit in fits:
        fit.start(calls)
    for fit in fits:
        fit.wait()
    seconds = time.perf_counter() - began
    for fit in fits:
        fit.wait()
    return seconds


def calls_for(fit: Fit, seconds: float) -> int:
    """Return how many calls of a fit take about so long, at least one."""
    least = min(seconds_of([fit], 1) for _ in range(3))
    return max(1, round(seconds / least))


def measure(case: Case, cpu: int, rounds: int, seconds: float) -> dict[str, float]:
    """Return medians: microseconds a step, and seconds of four fits in turn and at once."""
    times: Times = {}
    with ExitStack() as stack:

        def begin(threads: str) -> Fit:
            fit = Fit(case, threads)
            stack.callback(fit.close)
            return fit

        fits = {threads: begin(threads) for threads in THREADS}
        four = [fits["auto"]] + [begin("auto") for _ in range(AT_ONCE - 1)]
        calls = calls_for(fits["1"], seconds)
        scale = 1e6 / (calls * case.steps)

        def note(name: str, value: float) -> None:
            times.setdefault(name, []).append(value)

        for number in range(rounds):
            order = [THREADS[(number + i) % len(THREADS)] for i in range(len(THREADS))]
            for threads in order:
                time.sleep(SETTLE)
                note(f"quiet, {threads}", scale * seconds_of([fits[threads]], calls))
                with busy(cpu):
                    note(f"busy, {threads}", scale * seconds_of([fits[threads]], calls))
            time.sleep(SETTLE)
            note("in turn", sum(seconds_of([fit], calls) for fit in four))
            note("at once", seconds_of(four, calls))
    return {name: statistics.median(values) for name, values in times.items()}


def row(case: Case, medians: dict[str, float]) -> list[str]:
    """Return a case's row of the table."""
    quiet = {threads: medians[f"quiet, {threads}"] for threads in THREADS}
    steps = [medians[name] for name in HEAD if name in medians]
    ratios = [
        quiet["auto"] / min(quiet["1"], quiet["2"]),
        medians["busy, auto"] / quiet["1"],
        medians["busy, 2"] / quiet["1"],
        medians["at once"] / medians["in turn"],
    ]
    name = f"{case.name}, f{case.dtype.removeprefix('float')}"
    return [name, shape(case), *(f"{t:.4g}" for t in steps), *(f"{ratio:.2f}" for ratio in ratios)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench/busy.py", description="Do threads ever hurt?")
    parser.add_argument("--case", action="append", choices=NAMES, help="only this (repeatable)")
    parser.add_argument("--rounds", type=int, default=11, help="goes of each (default 11)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a go (default 0.2)")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(*options.serve)
        return 0
    if options.rounds < 1:
        parser.error("--rounds: expected at least 1")
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        print("expected two processors that this process may use, got one", file=sys.stderr)
        return 2
    pair = sorted(allowed)[:2]
    os.sched_setaffinity(0, pair)
    try:
        rows = [HEAD]
        for case in map(load, options.case or NAMES):
            print(f"{case.name} ...", file=sys.stderr, flush=True)
            rows.append(row(case, measure(case, pair[1], options.rounds, options.seconds)))
    finally:
        os.sched_setaffinity(0, allowed)
    print(as_markdown(rows))
    print(
        "\nMicroseconds a step, medians, with one thread, with two and with the automatic count; "
        "busy: another process computes on one of the two processors. Aims: 1.05, 1.00 and 1.20."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
