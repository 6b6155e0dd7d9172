"""The roofline of a run: what each case could reach on this machine, and what the engines reach.

Arithmetic intensity (across) is a case's useful operations (`Case.flops`) over the bytes that a
step has to move at least (`Case.bytes`: the batch and its targets read, weights and Adam's moments
read and written, everything else in caches). Speed (upwards) is the useful operations over the
median time of a step. The roofs are measured: the arithmetic of the cores, and the intensity times
what they read from memory. A case whose data stays in the caches from step to step may stand above
the slope of memory. `python bench/roofline.py RECORD.json PATH` draws a record again.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import engines

Record = Mapping[str, Any]

# Colours that differ for colour-blind readers too (Okabe and Ito 2008), and markers that differ in
# print; Lamella last, on top.
STYLES = {
    "numpy": ("#0072B2", "s"),
    "jax": ("#E69F00", "^"),
    "sklearn": ("#009E73", "v"),
    "pytorch": ("#CC79A7", "D"),
    engines.OURS: ("#D55E00", "o"),
}
BF16_STYLES = {"pytorch": ("#CC79A7", "D"), engines.OURS: ("#D55E00", "o")}  # hollow
ROOFS = {"f32": "#222222", "f64": "#5E3C99", "bf16": "#8C510A"}
DASHES = {"1": (0, (4, 3)), "2": "solid"}
NAME_GAP = 0.032  # of the width: names closer than that would overlap
ROOF_GAP = 0.03  # of the height


def draw(record: Record, stem: Path) -> None:
    """Draw a record to STEM.png and STEM.svg; says so and does nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("matplotlib is not installed: no roofline drawn", file=sys.stderr)
        return
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log",
        yscale="log",
        xlabel="arithmetic intensity: useful operations per byte that a step has to move (FLOP/B)",
        ylabel="speed: useful operations over the median time of a step (GFLOP/s)",
    )
    results = sorted(record["results"], key=intensity)
    x_range = min(intensity(results[0]), 1) / 2, max(intensity(results[-1]), 100) * 1.6
    roofs = draw_roofs(axes, record["peaks"], x_range)
    draw_engines(axes, results)
    top = axes.get_ylim()[1]
    axes.set(xlim=x_range, ylim=(axes.get_ylim()[0], top * 1.3))
    draw_names(axes, results)
    draw_roof_names(axes, roofs)
    axes.grid(which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    machine = record["machine"]
    figure.suptitle(
        f"Roofline of {machine['cpu']}, kernels {machine.get('isa', 'unknown')}, "
        f"{record['began'][:10]}"
    )
    axes.legend(loc="lower right", framealpha=1)
    for suffix in ("png", "svg"):
        figure.savefig(f"{stem}.{suffix}", dpi=120)


def intensity(result: Record) -> float:
    """Return a case's useful operations a byte."""
    return float(result["case"]["flops"] / result["case"]["bytes"])


def draw_roofs(
    axes: Any, measured: Record, x_range: tuple[float, float]
) -> list[tuple[float, str, str]]:
    """Draw the measured limits; return the flat ones, of arithmetic, with their names and colours.

    They end to the left in the slope of memory.
    """
    roofs: list[tuple[float, str, str]] = []
    slopes = measured.get("memory", {})
    for threads, dash in DASHES.items():
        plural = "" if threads == "1" else "s"
        speed = slopes[threads]["best"] if threads in slopes else None
        flats = [(k, c, measured[k][threads]) for k, c in ROOFS.items() if k in measured]
        for kind, colour, peak in flats:
            start = max(x_range[0], peak["best"] / speed) if speed else x_range[0]
            axes.plot([start, x_range[1]], [peak["best"]] * 2, color=colour, linestyle=dash, lw=1.2)
            roofs.append(
                (peak["best"], f"{kind}, {threads} thread{plural}: {peak['best']:.0f}", colour)
            )
        if speed and flats:
            end = max(peak["best"] for _, _, peak in flats) / speed
            label = f"memory, {threads} thread{plural}: {speed:.0f} GB/s"
            ends = [x_range[0], end]
            axes.plot(
                ends,
                [x * speed for x in ends],
                color="#56B4E9",
                linestyle=dash,
                lw=1.2,
                label=label,
            )
    return sorted(roofs)


def draw_roof_names(axes: Any, roofs: Sequence[tuple[float, str, str]]) -> None:
    """Write the flat roofs' names beside the picture, moved apart, with a line to their roofs."""
    low, high = axes.transScale.transform([(1, y) for y in axes.get_ylim()])[:, 1]
    places = axes.transScale.transform([(1, speed) for speed, _, _ in roofs])[:, 1] if roofs else []
    wanted = [float((place - low) / (high - low)) for place in places]
    for (_, name, colour), place, at in zip(roofs, wanted, spread(wanted, ROOF_GAP), strict=True):
        axes.annotate(
            name,
            (1.0, place),
            xytext=(1.02, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 0, "shrinkB": 0},
        )


def draw_engines(axes: Any, results: Sequence[Record]) -> None:
    """Draw each engine's speed in every case; of ours the one that chose its threads."""
    entries = [(engine, False, style) for engine, style in STYLES.items()]
    entries += [(engine, True, style) for engine, style in BF16_STYLES.items()]
    for engine, bf16, (colour, marker) in entries:
        points = [
            (intensity(result), result["case"]["flops"] / timing["median"] / 1e3)
            for result in results
            for timing in result["timings"]
            if timing["engine"] == engine
            and engines.is_bf16(engine, timing["variant"]) == bf16
            and (engine != engines.OURS or timing["threads"] == "auto")
        ]
        if points and bf16:
            axes.scatter(
                *zip(*points, strict=True),
                s=70 if engine == engines.OURS else 36,
                facecolors="none",
                edgecolors=colour,
                marker=marker,
                linewidths=1.6,
                zorder=5,
                label=f"{engine}, bf16",
            )
        elif points:
            ours = engine == engines.OURS
            axes.scatter(
                *zip(*points, strict=True),
                s=70 if ours else 36,
                c=colour,
                marker=marker,
                edgecolors="black" if ours else "none",
                linewidths=0.8,
                zorder=4 if ours else 3,
                label=engine,
            )


def draw_names(axes: Any, results: Sequence[Record]) -> None:
    """Write the cases' names above the picture, moved apart, with a line down to their points."""
    places = axes.transScale.transform([(intensity(result), 1) for result in results])[:, 0]
    left, right = axes.transScale.transform([(x, 1) for x in axes.get_xlim()])[:, 0]
    wanted = [float((place - left) / (right - left)) for place in places]
    for result, place, name_at in zip(results, wanted, spread(wanted, NAME_GAP), strict=True):
        axes.annotate(
            result["case"]["name"] + ("" if result["case"].get("tuned", True) else " *"),
            (place, 1.0),
            xytext=(name_at, 1.03),
            xycoords="axes fraction",
            textcoords="axes fraction",
            rotation=60,
            rotation_mode="anchor",
            ha="left",
            va="center",
            fontsize=9,
            arrowprops={
                "arrowstyle": "-",
                "color": "#999999",
                "lw": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        axes.axvline(intensity(result), color="#EEEEEE", lw=0.8, zorder=0)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move ascending places apart until neighbours keep the gap, each as little as goes."""
    groups: list[list[float]] = []  # runs of touching names, each around the mean of its places
    for place in places:
        groups.append([place])
        while len(groups) > 1 and start(groups[-1], gap) < start(groups[-2], gap) + gap * len(
            groups[-2]
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [start(group, gap) + i * gap for group in groups for i in range(len(group))]


def start(group: Sequence[float], gap: float) -> float:
    """Return where the first of a run of touching names stands."""
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
