"""The comparison of the estimators: what it measures and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

import estimators


def test_the_libraries_agree_on_a_small_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert estimators.main(["--quick", "--only", "diabetes", "--repeats", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["diabetes", "442 x 10", "10"]
    assert float(cells[4]) < 1e-9
    assert "/" not in line


def test_missing_data_are_left_out_with_a_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--only", "Fashion", "--fashion-mnist", str(tmp_path)]
    assert estimators.main(arguments) == 0
    assert capsys.readouterr().err.count("left out") == 2


def test_other_scores_are_told_apart() -> None:
    assert estimators.pair((0.5, 0.5), ".2f") == "0.50"
    assert estimators.pair((0.5, 0.6), ".2f") == "0.50 / 0.60"
