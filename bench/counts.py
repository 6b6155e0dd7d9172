"""`python bench/counts.py PROGRAM`: instructions of small cases, held to those of counts.json.

A clock on a shared machine cannot see a small step become a few per cent slower; an instruction
count can, and is the same each time. `PROGRAM` is the program `counts` (counts.rs), built for
release; valgrind runs it with two numbers of calls, and the difference is what a call costs.
Valgrind shows the program a CPU with AVX2, so that AVX2's kernels are counted, on any x86-64.

Another compiler makes other instructions: counts.json names the one that made its own, and with
another nothing is compared. `--write` renews the file. Needs the standard library alone.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent
MARGIN = 0.02  # relative: an intended change renews the file, an accident is mostly larger
STEPS = {"toy": 16, "online": 64, "rl": 2}  # of a call, by case
CALLS = 1, 3
PORTABLE_ENVIRONMENT = {"LAMELLA_ISA": "avx2", "LC_ALL": "C"}


class CountError(Exception):
    """The program could not be counted."""


def count_run(program: Path, arguments: Sequence[str]) -> int:
    """Return the instructions of one run of the program under callgrind."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program)]
    run = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ.get("PATH", "")} | PORTABLE_ENVIRONMENT,
    )
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or collected is None:
        raise CountError(f"{program.name} {' '.join(arguments)}: {run.stderr.strip()}")
    return int(collected[1])


def count_cases(program: Path) -> dict[str, int]:
    """Return the instructions of one call of each case in `STEPS`."""
    with (BENCH / "cases.toml").open("rb") as file:
        tables = {table["name"]: table for table in tomllib.load(file)["case"]}
    counts = {}
    for name, steps in STEPS.items():
        case, (few, many) = tables[name], CALLS
        arguments = [case["layers"], str(case["batch"]), str(steps), case["loss"]]
        first, second = (count_run(program, [*arguments, str(calls)]) for calls in CALLS)
        counts[name] = (second - first) // (many - few)
    return counts


def differences(counts: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    """Return a line for each case whose count left the margin, either way."""
    lines = []
    for name, count in counts.items():
        if name not in expected:
            lines.append(f"{name}: {count:,} instructions, none recorded")
        elif abs(change := count / expected[name] - 1) > MARGIN:
            lines.append(
                f"{name}: {count:,} instructions, {abs(change):.1%} "
                f"{'more' if change > 0 else 'fewer'} than the {expected[name]:,} recorded"
            )
    return lines


def obstacle(recorded: Mapping[str, Any] | None, compiler: str) -> str | None:
    """Return why nothing can be compared here, or None."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "the recorded counts are of x86-64"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if recorded is not None and recorded["rustc"] != compiler:
        return f"the recorded counts are of rustc {recorded['rustc']}, here is {compiler}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, and compare or write; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench/counts.py", description="Count instructions.")
    parser.add_argument("program", type=Path, help="the program `counts`, built for release")
    parser.add_argument("--file", type=Path, default=BENCH / "counts.json", help="the record")
    parser.add_argument("--write", action="store_true", help="renew the record")
    options = parser.parse_args(arguments)
    version = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    compiler = version.stdout.split()[1]
    recorded = None if options.write else json.loads(options.file.read_text())
    if reason := obstacle(recorded, compiler):
        print(f"instruction counts: skipped, {reason}")
        return 0
    try:
        counts = count_cases(options.program)
    except CountError as error:
        print(error, file=sys.stderr)
        return 1
    if recorded is None:
        options.file.write_text(json.dumps({"rustc": compiler, "counts": counts}, indent=1) + "\n")
        return 0
    for name, count in counts.items():
        print(f"{name}: {count:,} instructions a call of {STEPS[name]} steps")
    lines = differences(counts, recorded["counts"])
    print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
    if lines:
        print("Where that is meant: make counts, and commit bench/counts.json.", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
