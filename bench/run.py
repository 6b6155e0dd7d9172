"""`python bench/run.py`: Lamella and its rivals on every case, one table.

Every engine trains the same network from the same start on the same rows, checked first; each
rival's best variant and number of threads is taken; calls alternate in one run; the machine's own
limits are measured in between. Some cases are also trained in mixed precision, for a second table.
A whole run is recorded in bench/results/; every run is compared with the last committed record of
the same machine. `--alone` leaves the rivals out and prints Lamella's shares of the machine's peak,
where asked with the kernels of another instruction set or in another dtype.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import guard
import peaks
import report
import roofline
import tables
from cases import Case, load_cases
from contest import QUICK, Contestant, ContestError, Pace, enter, hold
from engines import ENGINES, OURS
from peaks import Peaks
from report import Result, Timing

ISAS = ("amx", "avx512", "avx2", "portable", "scalar")
QUICK_GOES, QUICK_GO = 2, 0.01  # of the measured limits in a gap; seconds of each


def parse_arguments(arguments: Sequence[str] | None, cases: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Time training steps of Lamella and of its rivals, alternately, in one run.",
        epilog="A run of all cases and engines is recorded in bench/results/, to be committed; a "
        "quick one only where --record asks for it. For figures worth keeping, let the machine do "
        "nothing else.",
    )
    parser.add_argument(
        "--case", action="append", choices=cases, help="only this case (repeatable)"
    )
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, help="only this engine (repeatable)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a look, not a measurement: one heat, two short turns, no variants that take long to "
        "compile (jax step, pytorch compiled), in large cases no rivals with one thread",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="turns of each contestant (9; in a quick look 2)"
    )
    parser.add_argument(
        "--record", action="store_true", help="record the run although it is a quick one"
    )
    parser.add_argument(
        "--alone", action="store_true", help="no rivals: Lamella's shares of the machine's peak"
    )
    parser.add_argument("--isa", choices=ISAS, help="use these kernels (sets LAMELLA_ISA)")
    parser.add_argument("--dtype", choices=peaks.OF_DTYPE, help="train every case in this dtype")
    parser.add_argument(
        "--plot", type=Path, metavar="PATH", help="draw the roofline to PATH.png and PATH.svg"
    )
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: expected at least 1")
    if options.alone and options.engine:
        parser.error("--alone: expected no --engine beside it")
    options.whole = not (options.case or options.engine or options.alone)
    options.whole = options.whole and not (options.isa or options.dtype)
    if options.record and not options.whole:
        parser.error("--record: expected all cases and engines, as they are")
    return options


def choose(cases: Iterable[Case], dtype: str | None) -> list[Case]:
    """Return the cases, in this dtype where one is asked for, and each kind of network once."""
    if dtype is None:
        return list(cases)
    once: dict[Any, Case] = {}
    for case in cases:
        changed = case if case.dtype == dtype else replace(case, dtype=dtype, bf16=False)
        key = case.layers, case.batch, case.loss
        if key not in once or changed is case:  # a case that has the dtype itself goes first
            once[key] = changed
    return list(once.values())


def present(names: Sequence[str]) -> list[str]:
    """Return the engines whose libraries are installed, and say which are not."""
    for name in names:
        if not ENGINES[name].installed:
            print(f"{name}: not installed, left out", file=sys.stderr)
    return [name for name in names if ENGINES[name].installed]


def known_measure() -> peaks.Measure | None:
    """Return the core's function that measures the machine, where Lamella is installed."""
    if not ENGINES[OURS].installed:
        return None
    from lamella import _core

    return _core.measure


def run(
    cases: Sequence[Case],
    contestants: list[Contestant],
    measured: Peaks,
    options: argparse.Namespace,
) -> list[Result]:
    """Hold every case; say on standard error how far it is."""
    pace = pace_of(options)
    results = []
    measured.fill_gap()
    for number, case in enumerate(cases):
        print(f"{case.name} ...", end="", file=sys.stderr, flush=True)
        finalists = hold(case, contestants, pace)
        measured.fill_gap()
        timings = [Timing.of(finalist, case) for finalist in finalists]
        near = measured.around(peaks.OF_DTYPE[case.dtype], number)
        near_bf16 = measured.around("bf16", number) if case.bf16 else {}
        result = Result(case, timings, near, near_bf16)
        results.append(result)
        ratio = result.ratio()
        print("" if ratio is None else f" {ratio:.2f}x", file=sys.stderr, flush=True)
    return results


def pace_of(options: argparse.Namespace) -> Pace:
    """Return the pace that the command line asks for."""
    pace = QUICK if options.quick else Pace(rounds=9)
    return pace if options.rounds is None else replace(pace, rounds=options.rounds)


def compare(record: dict[str, Any]) -> str:
    """Say what got slower since the last committed record of such a machine."""
    then = guard.last_record(record["machine"])
    if then is None:
        return "No committed result of this CPU to compare with."
    return guard.report(guard.changes(record, then), then["began"][:10])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    cases = load_cases()
    options = parse_arguments(arguments, list(cases))
    if options.isa:
        os.environ["LAMELLA_ISA"] = options.isa  # workers inherit it
    try:
        began, machine = report.now(), report.describe_machine()
    except ValueError as error:  # this CPU lacks the instruction set
        print(error, file=sys.stderr)
        return 2
    measured = Peaks(known_measure(), *((QUICK_GOES, QUICK_GO) if options.quick else ()))
    names = [OURS] if options.alone else options.engine or list(ENGINES)
    chosen = choose((cases[name] for name in options.case or cases), options.dtype)
    bf16 = "bf16" in measured.goes and any(case.bf16 for case in chosen)
    contestants = enter(present(names), options.quick, bf16)
    try:
        results = run(chosen, contestants, measured, options)
    except ContestError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        for contestant in contestants:
            contestant.close()
    record = report.as_record(results, measured, machine, began, pace_of(options).rounds)
    rows, legend = report.table(results, measured), report.LEGEND
    if options.alone:
        rows, legend = tables.alone(results, measured), tables.ALONE_LEGEND
    more = []
    if bf16:
        more.append(tables.with_legend(tables.mixed(results, measured), tables.MIXED_LEGEND))
    print("\n\n".join([report.as_markdown(rows), legend, *more]))
    print(f"\n{peaks.describe(record['peaks'])}.\n{report.describe(machine)}.")
    print(compare(record))
    if options.plot:
        roofline.draw(record, options.plot)
    if options.whole and (options.record or not options.quick):
        print(f"Recorded in {report.save(record, rows, more)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
