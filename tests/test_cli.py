"""The command line: the demo keeps its word, `info` tells what runs, mistakes end in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lamella
from lamella import cli, demo


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lamella", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_demo_learns_the_digits_and_agrees_with_the_reference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["demo", "--no-plot"]) == 0
    out = capsys.readouterr().out
    accuracy = re.search(r"accuracy +([\d.]+)%", out)
    agreement = re.search(r"differs by more than ([\d.e+-]+)", out)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97
    assert agreement is not None
    assert float(agreement[1]) <= 1e-9
    assert re.search(r"speed-up +[\d.]+x", out)


def test_demo_takes_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--epochs 2 --hidden 9,8,7 --dtype float32 --batch-size 5000 --no-reference"
    assert cli.main(["demo", "--no-plot", "--threads", "1", *arguments.split()]) == 0
    captured = capsys.readouterr()
    assert "64-9-8-7-10" in captured.out
    assert "float32" in captured.out
    assert "2 steps" in captured.out
    assert "reference" not in captured.out
    assert "epoch 2/2" in captured.err


def test_demo_draws_where_matplotlib_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curve.png"
    demo.run(demo.Settings(epochs=2, plot=picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in capsys.readouterr().out


def test_a_fifth_is_held_out_the_same_every_time() -> None:
    one, two = demo.Digits.load("float64"), demo.Digits.load("float32")
    assert one.X_test.shape == (359, 64)
    assert one.X_train.shape == (1438, 64)
    assert (one.y_test == two.y_test).all()
    assert one.X_train.max() == 1


def test_info_names_version_kernels_and_threads() -> None:
    for isa in lamella._core.info()["available"]:
        result = run("info", LAMELLA_ISA=isa, LAMELLA_NUM_THREADS="1")
        assert result.returncode == 0
        assert re.search(rf"lamella +{re.escape(lamella.__version__)}\n", result.stdout)
        assert re.search(rf"kernels +{isa} ", result.stdout)
        assert "at most 1\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("", 2, "required: COMMAND"),
        ("fly", 2, "invalid choice"),
        ("demo --hidden 8,0", 2, "--hidden: expected at least 1, got 0"),
        ("demo --epochs many", 2, "--epochs: expected an integer, got 'many'"),
        ("demo --threads 0", 2, "--threads: expected at least 1, got 0"),
        ("demo --seed -1", 2, "--seed: expected at least 0, got -1"),
        ("demo --epochs 1 --seed 99999999999", 1, "seed: expected"),
        ("demo --epochs 1 --hidden 99999999999", 1, "lamella: error: "),
    ],
)
def test_mistakes_end_in_one_line(arguments: str, status: int, message: str) -> None:
    result = run(*arguments.split())
    assert result.returncode == status
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_unknown_kernels_are_an_error() -> None:
    result = run("info", LAMELLA_ISA="abacus")
    assert result.returncode == 1
    assert "LAMELLA_ISA" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["", "demo", "info"])
def test_help_explains(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.returncode == 0
    assert "usage: lamella" in result.stdout
