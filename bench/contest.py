"""Runs engines against each other: worker processes, agreement, and timings that alternate.

Owns how a comparison is made fair: each contestant in its own process, with its own number of
threads; all checked to compute the same losses; rivals represented by whichever of their variants
and thread counts is fastest; and all timed in turn, in one run, so that a busy moment of the
machine falls on everybody.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import engines
from cases import BENCH, Case, make_problem

START_TOLERANCE = 1e-5  # relative, of the first loss, against NumPy in float64
STEPS_TOLERANCE = (
    2e-3  # the same after a few steps of Adam, which magnifies what float32 rounds off
)
BF16_TOLERANCES = (1e-3, 1e-2)  # both, where operands keep 8 bits: each is off by up to 2e-3
SETTLE = (
    0.15  # seconds: BLAS threads spin for a while after work, and would take the next one's cores
)
BLAS_CHOICES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # rivals choose their own kernels
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "LAMELLA_NUM_THREADS",
)


LARGE = 10**10  # operations of a step from which no rival is faster with one thread than with two


@dataclass(frozen=True)
class Pace:
    """How long a case is looked at: turns in heats and finals, seconds of a turn.

    In a hurry no whole call is made to warm up, and in cases of `LARGE` steps rivals with one
    thread stay away.
    """

    rounds: int
    seconds: float = 0.25
    heats: int = 3
    hurry: bool = False


QUICK = Pace(rounds=2, seconds=0.05, heats=1, hurry=True)


class ContestError(Exception):
    """A contestant failed, or computes something else than the others."""


@dataclass
class Contestant:
    """One engine, one variant, one number of threads ("auto": it decides), one process."""

    engine: str
    variant: str
    threads: str
    times: list[float] = field(default_factory=list)  # seconds of each call of the present case
    losses: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Start the process."""
        self.process = subprocess.Popen(
            [sys.executable, str(BENCH / "worker.py"), self.engine, self.variant, self.threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=worker_environment(self.threads),
            cwd=BENCH,
        )

    @property
    def bf16(self) -> bool:
        """Whether it trains in mixed precision."""
        return engines.is_bf16(self.engine, self.variant)

    def __str__(self) -> str:
        """Name the contestant in messages."""
        plural = "" if self.threads == "1" else "s"
        return f"{self.engine} {self.variant}, {self.threads} thread{plural}"

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; raises ContestError for an error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ContestError(f"{self}: its process ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContestError(f"{self}: {answer['error']}")
        return answer

    def prepare(self, case: Case, hurry: bool = False) -> None:
        """Set the case up, note the losses, compile, and unless in a hurry make a whole call."""
        self.times = []
        self.ask(do="load", case=case.name, dtype=case.dtype)
        before, after = self.ask(do="check")["losses"]
        self.losses = before, after
        self.ask(do="compile")
        if not hurry:
            self.ask(do="time", seconds=1e-9)

    def turn(self, seconds: float) -> None:
        """Take one turn of timed calls."""
        time.sleep(SETTLE)
        self.times += self.ask(do="time", seconds=seconds)["times"]

    def median(self) -> float:
        """Return the median seconds of a call."""
        return statistics.median(self.times)

    def close(self) -> None:
        """End the process."""
        with self.process:  # closes the pipes, and waits
            self.process.terminate()


def worker_environment(threads: str) -> dict[str, str]:
    """Return a worker's environment: its number of threads, no choices made for its BLAS."""
    environment = {k: v for k, v in os.environ.items() if k not in BLAS_CHOICES + THREAD_VARIABLES}
    if threads != "auto":
        environment |= dict.fromkeys(THREAD_VARIABLES, threads)
    return environment


def enter(names: Iterable[str], quick: bool = False, bf16: bool = False) -> list[Contestant]:
    """Start every contestant of the named engines, each variant with one thread and with two.

    A quick run leaves out the variants that take long to compile; those in mixed precision are
    entered where asked for.
    """
    return [
        Contestant(name, variant, threads)
        for name in names
        for variant in engines.ENGINES[name].variants + (engines.ENGINES[name].bf16 if bf16 else ())
        for threads in engines.ENGINES[name].threads
        if not (quick and variant in engines.ENGINES[name].slow)
    ]


def check_agreement(case: Case, contestants: list[Contestant]) -> None:
    """Hold every contestant's losses to those of NumPy in float64."""
    oracle = engines.make("numpy", make_problem(case, "float64"), "plain", None)
    expected = engines.first_losses(oracle, case)
    for contestant in contestants:
        assert contestant.losses is not None
        tolerances = BF16_TOLERANCES if contestant.bf16 else (START_TOLERANCE, STEPS_TOLERANCE)
        for got, want, tolerance in zip(contestant.losses, expected, tolerances, strict=True):
            if not abs(got - want) <= tolerance * abs(want):
                raise ContestError(f"{contestant}: {case.name}: loss {got}, expected {want}")


def alternate(contestants: list[Contestant], rounds: int, seconds: float) -> None:
    """Give each contestant a turn in every round, starting with another one each time."""
    for number in range(rounds if contestants else 0):
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            contestant.turn(seconds)


def takes_part(contestant: Contestant, case: Case, pace: Pace) -> bool:
    """Whether a contestant runs in a case at this pace."""
    if contestant.bf16 and not case.bf16:
        return False
    away = pace.hurry and contestant.threads == "1" and contestant.engine != engines.OURS
    return not (away and case.flops >= LARGE)


def hold(case: Case, contestants: Iterable[Contestant], pace: Pace) -> list[Contestant]:
    """Run one case; return its finalists: all of ours, and of each rival the fastest.

    Mixed precision is a race of its own, run at the same time: it has its fastest rivals too. The
    heats that choose a rival's best variant and threads do not count in the final.
    """
    contestants = [c for c in contestants if takes_part(c, case, pace)]
    for contestant in contestants:
        contestant.prepare(case, pace.hurry)
    check_agreement(case, contestants)
    rivals = [c for c in contestants if c.engine != engines.OURS]
    alternate(rivals, pace.heats, pace.seconds / 2)
    finalists = [c for c in contestants if c.engine == engines.OURS]
    for race in dict.fromkeys((c.engine, c.bf16) for c in rivals):
        runners = [c for c in rivals if (c.engine, c.bf16) == race]
        finalists.append(min(runners, key=Contestant.median))
    for finalist in finalists:
        finalist.times = []
    alternate(finalists, pace.rounds, pace.seconds)
    return finalists
