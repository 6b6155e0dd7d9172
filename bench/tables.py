"""The small tables beside the one of all rivals: mixed precision, and Lamella alone.

Each function returns rows of text, the head first; `with_legend` makes a table of them.
"""

from collections.abc import Sequence

import report
from peaks import Peaks
from report import Result, Timing, cell, percent, times

MIXED_LEGEND = (
    "Mixed precision: operands of bfloat16, sums, parameters and Adam's state of float32; times of "
    "the same run. Lamella chooses its threads; PyTorch is eager under `torch.autocast`. "
    "Of peak: the useful operations as a share of the dot products of bf16 that two threads were "
    "measured to make."
)
ALONE_LEGEND = (
    "Microseconds a training step (Adam), medians of calls that alternated in one run. Shares are "
    "useful operations over the multiply-adds of that dtype that as many threads (two for auto) "
    "were measured to make: in the run's best go, and in brackets in the median of the goes just "
    "before and after the case. * not tuned for."
)
WAYS = ("1", "2", "auto")


def mixed(results: Sequence[Result], measured: Peaks) -> list[list[str]]:
    """Return the table of mixed precision: the cases that were trained in it."""
    head = ["case", "layers, batch", "lamella f32", "lamella bf16", "pytorch bf16"]
    head += ["over our f32", "over pytorch's bf16", "of bf16 peak"]
    chosen = [result for result in results if any(timing.bf16 for timing in result.timings)]
    return [head] + [mixed_row(result, measured) for result in chosen]


def mixed_row(result: Result, measured: Peaks) -> list[str]:
    """Return one case's row."""
    full, ours = result.ours("auto"), result.ours("auto", bf16=True)
    rival = result.rival("pytorch", bf16=True)
    return [
        result.case.name,
        report.shape(result.case),
        cell(full),
        cell(ours),
        cell(rival, detail=True),
        times(faster(ours, full)),
        times(faster(ours, rival)),
        percent(result.share(measured, bf16=True)),
    ]


def faster(timing: Timing | None, than: Timing | None) -> float | None:
    """Return how many times faster one timing is than another."""
    return than.median / timing.median if timing and than else None


def alone(results: Sequence[Result], measured: Peaks) -> list[list[str]]:
    """Return the table of a run without rivals: times and shares of the peaks."""
    head = ["case", "layers, batch", "dtype", *(f"lamella {threads}" for threads in WAYS)]
    head += [f"of peak, {threads}" for threads in WAYS]
    return [head] + [alone_row(result, measured) for result in results]


def alone_row(result: Result, measured: Peaks) -> list[str]:
    """Return one case's row."""
    case = result.case
    name = case.name if case.tuned else f"{case.name} *"
    cells = [cell(result.ours(threads)) for threads in WAYS]
    shares = [both_shares(result, measured, threads) for threads in WAYS]
    return [name, report.shape(case), case.dtype, *cells, *shares]


def both_shares(result: Result, measured: Peaks, threads: str) -> str:
    """Write the share of the run's best peak, and of the peak around the case."""
    near = result.peak.get(report.peak_threads(threads))
    of_best = percent(result.share(measured, threads))
    return f"{of_best} ({percent(result.share_of(near, result.ours(threads)))})"


def with_legend(rows: Sequence[Sequence[str]], legend: str) -> str:
    """Write a table with its legend above."""
    return f"{legend}\n\n{report.as_markdown(rows)}"
