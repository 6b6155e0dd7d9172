"""`python bench/run.py`: Lamella and its rivals on every case, one table.

Every engine trains the same network from the same start on the same rows, checked first; each
rival's best variant and number of threads is taken; calls alternate in one run. A whole run is
recorded in bench/results/.
"""

import argparse
import sys
from collections.abc import Sequence

import report
from cases import Case, load_cases
from contest import Contestant, ContestError, enter, hold
from engines import ENGINES
from report import Result, Timing


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
        "--quick", action="store_true", help="few short turns: a look, not a measurement"
    )
    parser.add_argument(
        "--rounds", type=int, default=9, metavar="N", help="turns of each contestant (default 9)"
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


def run(
    cases: Sequence[Case], contestants: list[Contestant], options: argparse.Namespace
) -> list[Result]:
    """Hold every case; say on standard error how far it is."""
    rounds, seconds = (3, 0.05) if options.quick else (options.rounds, 0.25)
    results = []
    for case in cases:
        print(f"{case.name} ...", end="", file=sys.stderr, flush=True)
        finalists = hold(case, contestants, rounds, seconds)
        result = Result(case, [Timing.of(finalist, case) for finalist in finalists])
        results.append(result)
        ratio = result.ratio()
        print("" if ratio is None else f" {ratio:.2f}x", file=sys.stderr, flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    cases = load_cases()
    options = parse_arguments(arguments, list(cases))
    began, machine = report.now(), report.describe_machine()
    contestants = enter(present(options.engine or list(ENGINES)))
    try:
        chosen = [cases[name] for name in options.case or cases]
        results = run(chosen, contestants, options)
    except ContestError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        for contestant in contestants:
            contestant.close()
    print(report.as_markdown(report.table(results)))
    print(f"\n{report.LEGEND}\n{report.describe(machine)}.")
    if not (options.quick or options.case or options.engine):
        print(f"Recorded in {report.save(results, machine, began, options.rounds)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
