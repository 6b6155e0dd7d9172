"""What got slower since the last committed result of the same machine.

Compares the record of a run with the newest one in bench/results/ that git has and that comes from
the same CPU model, number of cores and instruction set. A time counts in units of what the machine
could do just then: the ratio of medians is multiplied by the ratio of the peaks measured around the
case (now over then), so that a busy machine does not cry wolf. The correction is one for
arithmetic: what waits for memory or for other threads is only roughly served by it.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engines
from cases import BENCH

MARGIN = 0.10  # relative, of corrected times
SAME_MACHINE = ("cpu", "cores", "isa")
SAME_CASE = ("layers", "batch", "batches", "epochs", "loss", "dtype")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """Lamella's time of a case, then and now, in microseconds a step."""

    case: str
    threads: str
    before: float
    after: float
    correction: float  # the peak now over the peak then; 1 where one of them is unknown

    @property
    def ratio(self) -> float:
        """How many times slower, in units of what the machine could do."""
        return self.after / self.before * self.correction

    def __str__(self) -> str:
        """Say it."""
        return (
            f"{self.case}, {self.threads}: {self.ratio - 1:+.0%} ({self.before:.4g} then, "
            f"{self.after:.4g} now, the machine's peak {self.correction:.2f} of what it was)"
        )


def last_record(machine: Mapping[str, Any], directory: Path = BENCH / "results") -> Record | None:
    """Return the newest committed record of such a machine, or None."""
    for name in sorted(
        git(directory, "ls-tree", "--name-only", "HEAD", "./").split(), reverse=True
    ):
        if name.endswith(".json"):
            record: Record = json.loads(git(directory, "show", f"HEAD:./{name}"))
            if all(record["machine"].get(key) == machine.get(key) for key in SAME_MACHINE):
                return record
    return None


def git(directory: Path, *arguments: str) -> str:
    """Return what git says in a directory; nothing where it has nothing to say."""
    try:
        run = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True)
    except OSError:
        return ""
    return run.stdout if run.returncode == 0 else ""


def changes(now: Record, then: Record) -> list[Change]:
    """Return Lamella's change in every case that both records have and define alike."""
    earlier = {result["case"]["name"]: result for result in then["results"]}
    found = []
    for result in now["results"]:
        before = earlier.get(result["case"]["name"])
        if before is not None and same_case(result["case"], before["case"]):
            old = {way(t): t for t in before["timings"] if t["engine"] == engines.OURS}
            for new in result["timings"]:
                if new["engine"] == engines.OURS and way(new) in old:
                    found.append(change(result, before, new, old[way(new)]))
    return found


def way(timing: Record) -> tuple[str, str]:
    """Return what tells the timings of one engine apart."""
    return timing["variant"], timing["threads"]


def same_case(a: Record, b: Record) -> bool:
    """Whether two records mean the same work by a case; tuples became lists in the file."""
    return all(json.dumps(a[key]) == json.dumps(b[key]) for key in SAME_CASE)


def change(result: Record, before: Record, new: Record, old: Record) -> Change:
    """Compare two timings of a case."""
    threads = "2" if new["threads"] == "auto" else new["threads"]
    bf16 = engines.is_bf16(engines.OURS, new["variant"])
    kind, label = ("bf16_peak", f"{new['threads']} in bf16") if bf16 else ("peak", new["threads"])
    peaks = [record.get(kind, {}).get(threads) for record in (result, before)]
    correction = peaks[0] / peaks[1] if all(peaks) else 1.0
    return Change(result["case"]["name"], label, old["median"], new["median"], correction)


def report(found: Sequence[Change], since: str) -> str:
    """Write what got slower than the margin allows."""
    slower = [change for change in found if change.ratio > 1 + MARGIN]
    head = f"Since the committed result of {since}, of {len(found)} times of Lamella"
    if not slower:
        return f"{head} none got more than {MARGIN:.0%} slower, corrected by the measured peaks."
    lines = [f"  {change}" for change in sorted(slower, key=lambda c: -c.ratio)]
    return "\n".join([f"{head} {len(slower)} got more than {MARGIN:.0%} slower:", *lines])
