"""The examples run, say what they are there to say, and draw their pictures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture
def run(tmp_path: Path) -> object:
    def run(name: str) -> str:
        """Run an example in a directory of its own; return what it prints."""
        environment = os.environ | {"MPLBACKEND": "agg"}
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        return done.stdout

    return run


def test_depth_folds_what_width_counts(run: object) -> None:
    said = run("depth")  # type: ignore[operator]
    assert re.search(r"deep +4 hidden layers, +8 units: 100%", said)
    assert re.search(r"shallow +1 hidden layers, 16 units: 100%", said)
    best = re.findall(r"^  best, [\d.]+: (\w+)", said, re.M)
    assert best == ["healthy"] * 4
    # The deepest one's worst start does not learn.
    worst = re.findall(r"^  worst, ([\d.]+): (\w+)", said, re.M)
    assert worst[:2] == [(loss, "healthy") for loss, _ in worst[:2]]
    assert float(worst[3][0]) > 0.05


def test_gradients_vanish_explode_or_pass(run: object) -> None:
    said = run("gradients")  # type: ignore[operator]
    assert re.search(r"^0.01: .*\n +vanishing", said, re.M)
    assert re.search(r"^twice He: .*\n +exploding", said, re.M)
    assert re.search(r"^He: .*\n +healthy", said, re.M)
    assert re.search(r"^He, batch norm, residual: .*\n +healthy", said, re.M)


def test_overfitting_is_cured(run: object) -> None:
    said = run("overfitting")  # type: ignore[operator]
    found = re.findall(
        r"^(\w+).* learned ([\d.]+) of the labels, answers ([\d.]+) right", said, re.M
    )
    learned, right = ({row[0]: float(row[n]) for row in found} for n in (1, 2))
    assert re.findall(r"^  (\w+)", said, re.M) == ["healthy"] * 3
    assert learned["plain"] > 0.99  # by heart, wrong labels too
    for cure in ("l2", "dropout"):
        assert learned[cure] < 0.95
        assert right[cure] > right["plain"] + 0.02


def test_optimizers_are_compared(run: object) -> None:
    said = run("optimizers")  # type: ignore[operator]
    rows = re.findall(r"^(\w+) +[\d.e-]+ +([\d.]+) +([\d.]+)$", said, re.M)
    names = {"sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "nadam", "lion"}
    assert {name for name, *_ in rows} == names  # each has a rate at which it is healthy
    passed_over = re.findall(r"^passed over: (\w+) ([\d.e-]+), .*; ([\w ]+):", said, re.M)
    assert ("adagrad", "0.1", "dead units") in passed_over
    assert all(float(accuracy) > 0.9 for _, _, accuracy in rows)


def test_a_network_of_152_layers_trains(run: object) -> None:
    said = run("very_deep")  # type: ignore[operator]
    accuracy, diagnosis = re.findall(r"with residuals: accuracy ([\d.]+); (\w+)", said)[0]
    assert float(accuracy) >= 0.97
    assert diagnosis == "healthy"
    assert re.search(r"plain layers from 0.01: .*; vanishing: .* layers pass on less", said)
