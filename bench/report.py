"""The table of a run, and its record in results/: JSON with every sample, Markdown, a picture.

A record is plain data, as JSON has it: what guard.py compares and roofline.py draws.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import engines
import peaks
import roofline
from cases import BENCH, Case
from contest import Contestant
from peaks import Peaks

PACKAGES = ("lamella", "numpy", "jax", "jaxlib", "scikit-learn", "torch")


@dataclass(frozen=True)
class Timing:
    """What one finalist measured on a case: microseconds a step, a number for each timed call."""

    engine: str
    variant: str
    threads: str
    median: float
    samples: list[float]
    losses: list[float]

    @property
    def bf16(self) -> bool:
        """Whether it is one of mixed precision."""
        return engines.is_bf16(self.engine, self.variant)

    @classmethod
    def of(cls, contestant: Contestant, case: Case) -> "Timing":
        """Take a finalist's times."""
        scale = 1e6 / case.steps
        return cls(
            contestant.engine,
            contestant.variant,
            contestant.threads,
            contestant.median() * scale,
            [time * scale for time in contestant.times],
            list(contestant.losses or ()),
        )


@dataclass(frozen=True)
class Result:
    """A case with the timings of its finalists, and by threads the peaks around it.

    `peak` is that of the case's dtype, `bf16_peak` that of mixed precision.
    """

    case: Case
    timings: list[Timing]
    peak: dict[str, float]
    bf16_peak: dict[str, float] = field(default_factory=dict)

    def ours(self, threads: str, bf16: bool = False) -> Timing | None:
        """Return Lamella's timing with "1", "2" or "auto" threads."""
        timings = (t for t in self.timings if t.engine == engines.OURS and t.bf16 == bf16)
        return next((t for t in timings if t.threads == threads), None)

    def rival(self, name: str, bf16: bool = False) -> Timing | None:
        """Return a rival's timing."""
        return next((t for t in self.timings if t.engine == name and t.bf16 == bf16), None)

    def ratio(self) -> float | None:
        """Return how many times faster Lamella, choosing its threads, is than the fastest rival."""
        ours, rivals = (
            self.ours("auto"),
            [t.median for t in self.timings if t.engine != engines.OURS and not t.bf16],
        )
        return min(rivals) / ours.median if ours and rivals else None

    def share(self, measured: Peaks, threads: str = "auto", bf16: bool = False) -> float | None:
        """Return the share of the run's best peak that Lamella makes use of.

        Useful operations alone count: `Case.flops` over the time. The peak is that of so many
        threads, and of two where Lamella chooses them ("auto").
        """
        kind = "bf16" if bf16 else peaks.OF_DTYPE[self.case.dtype]
        best = measured.best(kind, peak_threads(threads))
        return self.share_of(best, self.ours(threads, bf16))

    def share_of(self, peak: float | None, timing: Timing | None) -> float | None:
        """Return the share of a peak, in GFLOP/s, that a timing makes use of."""
        return self.case.flops / (timing.median * 1e3) / peak if timing and peak else None


def peak_threads(threads: str) -> str:
    """Return whose peak a timing is held to: Lamella may choose up to two threads."""
    return "2" if threads == "auto" else threads


def describe_machine() -> dict[str, Any]:
    """Return the CPU, its cores, the present load, and the versions of what is measured."""
    machine: dict[str, Any] = {
        "cpu": describe_cpu(Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
    }
    if engines.ENGINES[engines.OURS].installed:
        from lamella import _core

        machine["isa"] = _core.info()["isa"]
    return machine


def describe_cpu(cpuinfo: Path) -> str:
    """Return the CPU's name with its family and model: hosts rent out CPUs under a brand alone."""
    fallback = platform.processor() or platform.machine()
    if not cpuinfo.exists():
        return fallback
    first = cpuinfo.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in pairs}
    if "cpu family" not in facts or "model" not in facts:
        return facts.get("model name", fallback)
    generation = f"family {facts['cpu family']}, model {facts['model']}"
    return f"{facts.get('model name', fallback)} ({generation})"


def installed_version(package: str) -> str | None:
    """Return a distribution's version, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def table(results: Sequence[Result], measured: Peaks) -> list[list[str]]:
    """Return the rows of the table, its head first."""
    rivals = [name for name in engines.RIVALS if any(result.rival(name) for result in results)]
    ours = ["lamella 1", "lamella 2", "lamella auto"]
    head = ["case", "layers, batch", *ours, *rivals, "ratio", "of peak"]
    return [head] + [row(result, rivals, measured) for result in results]


def row(result: Result, rivals: Sequence[str], measured: Peaks) -> list[str]:
    """Return one case's row: microseconds a step, the ratio to the fastest rival, the share."""
    case, ratio, share = result.case, result.ratio(), result.share(measured)
    ours = [cell(result.ours(threads)) for threads in ("1", "2", "auto")]
    theirs = [cell(result.rival(name), detail=True) for name in rivals]
    verdict = "" if ratio is None else f"{ratio:.2f}x"
    of_peak = percent(share)
    name = case.name if case.tuned else f"{case.name} *"
    return [name, shape(case), *ours, *theirs, verdict, of_peak]


def shape(case: Case) -> str:
    """Write a case's layers and batch."""
    return f"{case.shape}, {case.batch}"


def percent(share: float | None) -> str:
    """Write a share."""
    return "-" if share is None else f"{share:.1%}"


def times(ratio: float | None) -> str:
    """Write how many times faster something is."""
    return "-" if ratio is None else f"{ratio:.2f}x"


def cell(timing: Timing | None, detail: bool = False) -> str:
    """Write a median; for a rival also what served it best."""
    if timing is None:
        return "-"
    digits = 2 if timing.median < 10 else 1 if timing.median < 100 else 0
    choice = (
        timing.threads
        if len(engines.ENGINES[timing.engine].variants) == 1
        else (f"{timing.variant} {timing.threads}")
    )
    return f"{timing.median:.{digits}f}" + (f" ({choice})" if detail else "")


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as a Markdown table, padded so that it reads as text too."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def describe(machine: dict[str, Any]) -> str:
    """Write the machine and the versions as a line."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    kernels = f", Lamella's kernels {machine['isa']}" if "isa" in machine else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores{kernels}; load {machine['load']} "
        f"at the start; Python {machine['python']}, {packages}"
    )


LEGEND = (
    "Microseconds a training step (Adam), medians of calls that alternated in one run; in brackets "
    "the variant and the number of threads that served a rival best. Ratio: the fastest rival over "
    "Lamella with its own choice of threads. Of peak: the useful operations of the latter as a "
    "share of the multiply-adds that two threads were measured to make. * not tuned for."
)


def as_record(
    results: Sequence[Result],
    measured: Peaks,
    machine: dict[str, Any],
    began: datetime,
    rounds: int,
) -> dict[str, Any]:
    """Return everything about a run as plain data."""
    return {
        "began": began.isoformat(timespec="seconds"),
        "rounds": rounds,
        "machine": machine,
        "peaks": measured.as_record(),
        "results": [
            {
                "case": vars(r.case) | {"flops": r.case.flops, "bytes": r.case.bytes},
                "ratio": r.ratio(),
                "share": r.share(measured),
                "peak": r.peak,
                "bf16_peak": r.bf16_peak,
                "timings": [vars(t) | {"samples": rounded(t.samples)} for t in r.timings],
            }
            for r in results
        ],
    }


def rounded(samples: Sequence[float]) -> list[float]:
    """Keep five digits of each sample: there are thousands, and a record is committed."""
    return [float(f"{sample:.5g}") for sample in samples]


def save(record: dict[str, Any], rows: Sequence[Sequence[str]], more: Sequence[str] = ()) -> Path:
    """Write results/DATE-CPU.json, .md, .png and .svg; return the Markdown's path.

    `more` are further tables with their legends, as text.
    """
    date, cpu = record["began"][:10], record["machine"]["cpu"]
    slug = "-".join("".join(c if c.isalnum() or c == "." else " " for c in cpu).split())
    # Not with_suffix: names of CPUs have dots.
    stem = BENCH / "results" / f"{date}-{slug}"
    stem.parent.mkdir(exist_ok=True)
    Path(f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    path = Path(f"{stem}.md")
    picture = f"![Roofline]({stem.name}.png)"
    notes = f"{peaks.describe(record['peaks'])}.\n\n{describe(record['machine'])}."
    parts = (f"# {date}", LEGEND, as_markdown(rows), *more, notes, picture)
    path.write_text("\n\n".join(parts) + "\n")
    roofline.draw(record, stem)
    return path


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)
