"""`python bench/run.py`: Lamella and its rivals on every case, one table.

Every engine trains the same network from the same start on the same rows, checked first; each
rival's best variant and number of threads is taken; calls alternate in one run; the machine's own
limits are measured in between. A whole run is recorded in bench/results/; every run is compared
with the last committed record of the same machine.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import guard
import peaks
import report
import roofline
from cases import Case, load_cases
from contest import QUICK, Contestant, ContestError, Pace, enter, hold
from engines import ENGINES, OURS
from peaks import Peaks
from report import Result, Timing

QUICK_GOES, QUICK_GO = 2, 0.01  # of the measured limits in a gap; seconds of each


def parse_arguments(arguments: Sequence[str] | None, cases: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Time training steps of Lamella and of its rivals, alternately, in one run.",
        epilog="With neither --quick, --case nor --engine the run is recorded in bench/results/. "
        "For figures worth keeping, let the machine do nothing else.",
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
        "--rounds", type=int, default=9, metavar="N", help="turns of each contestant (default 9)"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="PATH", help="draw the roofline to PATH.png and PATH.svg"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: expected at least 1")
    return options


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
    pace = QUICK if options.quick else Pace(options.rounds)
    results = []
    measured.fill_gap()
    for number, case in enumerate(cases):
        print(f"{case.name} ...", end="", file=sys.stderr, flush=True)
        finalists = hold(case, contestants, pace)
        measured.fill_gap()
        timings = [Timing.of(finalist, case) for finalist in finalists]
        result = Result(case, timings, measured.around(peaks.OF_DTYPE[case.dtype], number))
        results.append(result)
        ratio = result.ratio()
        print("" if ratio is None else f" {ratio:.2f}x", file=sys.stderr, flush=True)
    return results


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
    began, machine = report.now(), report.describe_machine()
    measured = Peaks(known_measure(), *((QUICK_GOES, QUICK_GO) if options.quick else ()))
    contestants = enter(present(options.engine or list(ENGINES)), options.quick)
    try:
        chosen = [cases[name] for name in options.case or cases]
        results = run(chosen, contestants, measured, options)
    except ContestError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        for contestant in contestants:
            contestant.close()
    rows = report.table(results, measured)
    record = report.as_record(results, measured, machine, began, options.rounds)
    print(report.as_markdown(rows))
    print(f"\n{report.LEGEND}\n{peaks.describe(record['peaks'])}.\n{report.describe(machine)}.")
    print(compare(record))
    if options.plot:
        roofline.draw(record, options.plot)
    if not (options.quick or options.case or options.engine):
        print(f"Recorded in {report.save(record, rows)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
