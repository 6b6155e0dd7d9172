"""The command line: the demo keeps its word, `info` tells what runs, mistakes end in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import checkpoint, cli, demo, summary, tables
from lamella.commands import bench
from lamella.datasets import load_digits


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lamella", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def status_of(arguments: list[str]) -> int:
    """Return the exit status of a command line that runs in this process."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


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
        ("train t.csv", 2, "required: -t/--target"),
        ("train t.csv -t y --test 1.5", 2, "--test: expected at most 0.9, got 1.5"),
        ("train t.csv -t y --l2 -1", 2, "--l2: expected a number of at least 0, got -1"),
        ("train t.csv -t y --learning-rate 0", 2, "--learning-rate: expected a number above 0"),
        ("train t.csv -t y --optimizer adm", 2, "--optimizer: expected one of sgd, "),
        ("train nowhere.csv -t y", 1, "nowhere.csv"),
        ("predict nowhere.safetensors t.csv", 1, "nowhere.safetensors"),
        ("info nowhere.safetensors", 1, "nowhere.safetensors"),
        ("bench --seconds much", 2, "--seconds: expected a number, got 'much'"),
        ("demo --epochs 1 --seed 99999999999", 1, "seed: expected"),
        ("demo --epochs 1 --hidden 99999999999", 1, "lamella: error: "),
    ],
)
def test_mistakes_end_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: str, status: int, message: str
) -> None:
    assert status_of(arguments.split()) == status
    errors = capsys.readouterr().err
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_a_process_ends_with_the_status_of_its_mistake() -> None:
    for arguments, status in (["fly"], 2), (["info", "nowhere.safetensors"], 1):
        result = run(*arguments)
        assert result.returncode == status
        assert arguments[-1] in result.stderr.splitlines()[-1]


def test_unknown_kernels_are_an_error() -> None:
    result = run("info", LAMELLA_ISA="abacus")
    assert result.returncode == 1
    assert "LAMELLA_ISA" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["", "demo", "train", "predict", "info", "bench"])
def test_help_explains(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert status_of([*command.split(), "--help"]) == 0
    assert f"usage: {' '.join(['lamella', *command.split()])} [-h]" in capsys.readouterr().out


# --- train and predict -----------------------------------------------------------------------


FLOWERS = 150


def flowers(path: Path, rows: int = FLOWERS, separator: str = ",") -> list[list[str]]:
    """Write a table of three kinds of flowers, with a text column and gaps; return its rows."""
    rng = np.random.default_rng(0)
    kinds = ["iris", "rose", "tulip"]
    lines = [["id", "petal", "sepal", "colour", "kind"]]
    for n in range(rows):
        k = n % 3
        petal = "" if n % 17 == 0 else f"{rng.normal(k, 0.4):.3f}"
        colour = rng.choice(["blue", "red"] if k == 0 else ["red", "white"])
        colour = "" if n % 31 == 0 else str(colour)
        lines.append([f"f{n}", petal, f"{rng.normal(-k, 0.4):.3f}", colour, kinds[k]])
    path.write_text("".join(separator.join(line) + "\n" for line in lines))
    return lines


def trained(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    """Run ``lamella train`` with a few epochs; return what it says."""
    assert cli.main(["train", *map(str, arguments), "--epochs", "60"]) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out if status == 0 else captured.err


def accuracy_of(report: str) -> float:
    found = re.search(r"^accuracy +([\d.]+)%", report, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_classes_are_learnt_and_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = flowers(tmp_path / "flowers.csv")
    model = tmp_path / "flowers.safetensors"
    report = trained(capsys, tmp_path / "flowers.csv", "--target", "kind", "--model", model)
    assert "150 rows, 2 columns of numbers, 1 of texts" in report
    assert "3 classes: iris, rose, tulip" in report
    assert "column id: " in report  # left out
    assert "102 to train on, 18 to stop by, 30 to report on" in report
    assert accuracy_of(report) >= 85
    assert (tmp_path / "flowers.png").read_bytes().startswith(b"\x89PNG")
    answers = tmp_path / "answers.csv"
    arguments = ["predict", model, tmp_path / "flowers.csv", "--output", answers, "--proba"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    assert "petal: 9 missing" in capsys.readouterr().err
    rows = [line.split(",") for line in answers.read_text().splitlines()]
    assert rows[0] == ["kind", "p(iris)", "p(rose)", "p(tulip)"]
    assert len(rows) == len(lines)
    right = [row[0] == line[-1] for row, line in zip(rows[1:], lines[1:], strict=True)]
    assert np.mean(right) >= 0.85
    shares = np.array([row[1:] for row in rows[1:]], float)
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert [rows[0][1:][n][2:-1] for n in shares.argmax(axis=1)] == [row[0] for row in rows[1:]]


def test_the_same_call_writes_the_same_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(tmp_path / "t.csv")
    for name, threads in (("a", 1), ("b", 2)):
        trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", "--threads", threads,
                "--model", tmp_path / name)  # fmt: skip
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_separators_are_found_out(
    separator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(tmp_path / "t.csv", separator=separator)
    report = trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", "--ignore", "id,colour",
                     "--model", tmp_path / "m")  # fmt: skip
    assert "2 columns of numbers, 0 of texts" in report


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_either_library_reads_the_same_table(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers(tmp_path / "t.csv")
    wanted = tables.read(tmp_path / "t.csv")
    other = {"polars": "pandas", "pandas": "polars"}[library]
    monkeypatch.setitem(sys.modules, other, None)
    table = tables.read(tmp_path / "t.csv")
    assert list(table) == ["id", "petal", "sepal", "colour", "kind"]
    for name, column in wanted.items():
        assert table[name].dtype == column.dtype
        np.testing.assert_array_equal(table[name], column)
    petal, colour = map(tables.numbers_or_texts, (table["petal"], table["colour"]))
    assert np.isnan(petal).sum() == 9
    assert tables.is_text(colour)
    assert table["colour"][31] is None


def test_numbers_are_learnt_from_parquet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pl = pytest.importorskip("polars")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    price = 100 + 20 * X[:, 0] - 30 * X[:, 1] * (X[:, 2] > 0)
    frame = pl.DataFrame(
        {"a": X[:, 0], "b": X[:, 1].astype("f4"), "c": X[:, 2] > 0, "price": price}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    model = tmp_path / "m"
    report = trained(capsys, tmp_path / "t.parquet", "-t", "price", "--model", model, "--no-plot")
    found = re.search(r"^r2 +([\d.]+)", report, re.MULTILINE)
    assert found is not None
    assert float(found[1]) > 0.9
    frame.drop("price").write_parquet(tmp_path / "new.parquet")
    assert cli.main(["predict", str(model), str(tmp_path / "new.parquet")]) == 0
    header, *answers = capsys.readouterr().out.splitlines()
    assert header == "price"
    assert np.corrcoef(np.array(answers, float), price)[0, 1] > 0.95
    assert cli.main(["predict", str(model), str(tmp_path / "new.parquet"), "--proba"]) == 1
    assert "expected classes for --proba, got a regression" in capsys.readouterr().err


def test_npz_needs_numpy_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("narwhals", "polars", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    X, y = load_digits()
    np.savez(tmp_path / "digits.npz", X=X, y=y)
    report = trained(capsys, tmp_path / "digits.npz", "-t", "y", "--model", tmp_path / "m",
                     "--no-plot")  # fmt: skip
    assert "64 columns of numbers" in report
    assert "10 classes: 0, 1, 2" in report
    assert accuracy_of(report) > 90
    assert cli.main(["predict", str(tmp_path / "m"), str(tmp_path / "digits.npz")]) == 0
    answers = capsys.readouterr().out.split()[1:]
    assert np.mean(np.array(answers, int) == y) > 0.9


def test_the_task_may_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    quality = rng.integers(3, 9, 200)
    np.savez(tmp_path / "t.npz", x=quality + rng.normal(0, 0.1, 200), quality=quality)
    for task, told in (("auto", "6 classes"), ("regression", "a number: mean")):
        report = trained(capsys, tmp_path / "t.npz", "-t", "quality", "--task", task, "--no-plot",
                         "--model", tmp_path / "m")  # fmt: skip
        assert told in report


def test_predict_finds_columns_by_name_and_new_texts_are_no_category(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(tmp_path / "t.csv")
    model = tmp_path / "m"
    trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", "--model", model)
    (tmp_path / "new.csv").write_text("other,colour,sepal,petal\n9,mauve,0.1,0.2\n9,red,-2,2\n")
    assert cli.main(["predict", str(model), str(tmp_path / "new.csv")]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["kind", "iris", "tulip"]
    assert "colour: 1 missing or unknown" in captured.err
    (tmp_path / "new.csv").write_text("colour,sepal\nred,1\n")
    assert cli.main(["predict", str(model), str(tmp_path / "new.csv")]) == 1
    assert "expected a column 'petal', got colour, sepal" in capsys.readouterr().err
    (tmp_path / "new.csv").write_text("colour,sepal,petal\nred,tall,3\n")
    assert cli.main(["predict", str(model), str(tmp_path / "new.csv")]) == 1
    assert "column 'sepal': expected numbers, got 'tall'" in capsys.readouterr().err
    (tmp_path / "new.csv").write_text("colour,sepal,petal\n")
    assert cli.main(["predict", str(model), str(tmp_path / "new.csv")]) == 0
    assert capsys.readouterr().out == "kind\n"


TEXTS = [("True", "False", "maybe"), ("007", "012", "abc"), ("1.0", "2.50", "x")]


@pytest.mark.parametrize("texts", TEXTS)
def test_a_row_has_one_answer_whatever_else_is_in_its_file(
    texts: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column's texts stay texts where all of a file's would pass for numbers."""
    rows = "".join(f"{text},{kind}\n" for text, kind in zip(texts, "pqr", strict=True))
    (tmp_path / "t.csv").write_text("plan,kind\n" + rows * 40)
    trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", "--model", tmp_path / "m")
    (tmp_path / "some.csv").write_text(f"plan\n{texts[0]}\n{texts[1]}\n")
    assert cli.main(["predict", str(tmp_path / "m"), str(tmp_path / "some.csv")]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["kind", "p", "q"]
    assert "unknown" not in captured.err


def test_answers_are_spelt_as_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{n},True\n{-n},False\n" for n in range(1, 40))
    (tmp_path / "t.csv").write_text("a,kind\n" + rows)
    trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", "--model", tmp_path / "m")
    assert cli.main(["predict", str(tmp_path / "m"), str(tmp_path / "t.csv")]) == 0
    assert set(capsys.readouterr().out.splitlines()) == {"kind", "True", "False"}


def test_long_identifiers_are_numbers_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{2**63 + n},{n},{n % 2}\n" for n in range(60))
    (tmp_path / "t.csv").write_text("id,a,kind\n" + rows)
    for ignored in ([], ["--ignore", "id"]):
        trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", "--model", tmp_path / "m",
                *ignored)  # fmt: skip
        assert cli.main(["predict", str(tmp_path / "m"), str(tmp_path / "t.csv")]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 61


def test_the_entry_that_is_no_number_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("a,kind\n" + "".join(f"{n},{n % 2}\n" for n in range(60)))
    trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", "--model", tmp_path / "m")
    (tmp_path / "new.csv").write_text("a,b\n0.5,1\n,2\n7,3\noops,4\n")
    assert cli.main(["predict", str(tmp_path / "m"), str(tmp_path / "new.csv")]) == 1
    assert re.search(r"column 'a': expected numbers, got 'oops' in row 4$", capsys.readouterr().err)


def test_info_tells_what_is_in_a_model_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = lamella.Network([5, 4, 3], output="softmax")
    net.save(tmp_path / "m")
    assert cli.main(["info", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == summary.text(net) + "\n"
    assert cli.main(["predict", str(tmp_path / "m"), "x.csv"]) == 1
    assert "got a bare network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--test 0.0001", "--test: expected a share that leaves rows"),
        ("--model nowhere/m", "nowhere/m"),
        ("--model .", "directory"),
        ("--plot nowhere/p.png", "nowhere/p.png"),
        ("--plot p.xyz", "--plot: expected a suffix among"),
    ],
)
def test_train_finds_mistakes_before_it_trains(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lamella.commands.train._fit", lambda *_: pytest.fail("it trained"))
    np.savez("t.npz", x=np.arange(40.0), y=np.arange(40) % 2)
    error = trained(capsys, "t.npz", "-t", "y", *arguments.split(), status=1)
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == [tmp_path / "t.npz"]


def test_other_commands_find_mistakes_before_they_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", "m", "t.csv", "--output", "nowhere/a.csv"]) == 1
    assert "nowhere/a.csv" in capsys.readouterr().err
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--plot", "nowhere/p.png"]) == 1
    captured = capsys.readouterr()
    assert "nowhere/p.png" in captured.err
    assert captured.out == ""


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_info_tells_what_is_in_an_estimators_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    from lamella.sklearn import MLPClassifier, MLPRegressor

    X, y = load_digits()
    X, y = X[:100], y[:100] % 3
    names = np.array(["ant", "bee", "cat"])[y]
    model = MLPClassifier(hidden_layer_sizes=(5,), max_iter=4, norm="batch").fit(X, names)
    model.save(tmp_path / "c")
    assert cli.main(["info", str(tmp_path / "c")]) == 0
    told = capsys.readouterr().out
    for part in (
        "MLPClassifier of lamella.sklearn, 64 features",
        "3 classes: ant, bee, cat",
        f"4 iterations, loss {model.loss_:.6g}",
        "hidden_layer_sizes=(5,), max_iter=4, norm='batch'",
        "BatchNorm, relu",
    ):
        assert part in told
    assert "0 steps" not in told
    MLPRegressor(max_iter=2).fit(X, y).save(tmp_path / "r")
    assert cli.main(["info", str(tmp_path / "r")]) == 0
    assert "MLPRegressor of lamella.sklearn, 64 features" in capsys.readouterr().out
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-9])
    assert cli.main(["info", str(tmp_path / "c")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


WRONG_TABLES = {
    "": "",
    "a,kind\n" + "1,x\n" * 9: "at least 10 rows, got 9",
    "a,kind\n" + "1,x\n" * 20: "at least 2 classes",
    "kind\n" + "x\ny\n" * 9: "columns beside 'kind', got none",
    "a,b\n" + "1,x\n" * 20: "expected a column 'kind', got a, b",
    "a,kind\n" + "1,\n" * 20: "at least 10 rows, got 0",
    "a,a,kind\n" + "1,2,x\n" * 20: "a name of its own for each column, got 'a' 2 times",
    "a,kind\n" + "".join(f"{n},3.5\n" for n in range(20)): "expected numbers that differ, got 3.5",
    "a,kind\n" + "".join(f"w{n},{n % 2}\n" for n in range(60)): "columns to learn from, got none",
}


@pytest.mark.parametrize("contents", WRONG_TABLES)
def test_wrong_tables_end_in_one_line(
    contents: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(contents)
    error = trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", status=1)
    assert error.startswith("lamella: error: ")
    assert error.count("\n") == 1
    assert WRONG_TABLES[contents] in error


@pytest.mark.parametrize("name", ["missing.csv", "noise.parquet", "noise.npz", "pickle.npz", "."])
def test_wrong_files_end_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise.parquet").write_bytes(b"PAR1 or not")
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04 or not")
    np.savez(tmp_path / "pickle.npz", x=np.array([{}, []], object))
    error = trained(capsys, tmp_path / name, "-t", "kind", status=1)
    assert error.startswith("lamella: error: ")
    assert error.count("\n") == 1


def test_without_a_library_it_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers(tmp_path / "t.csv")
    monkeypatch.setitem(sys.modules, "narwhals", None)
    error = trained(capsys, tmp_path / "t.csv", "-t", "kind", status=1)
    assert "pip install lamella[cli]" in error


def changed(value: object, *path: object) -> object:
    """Return the preprocessing of a model with one value changed."""
    encoder = {
        "columns": [{"name": "a", "mean": 0.0, "scale": 1.0},
                    {"name": "b", "categories": ["x", "y"]}],
        "target": {"name": "kind", "classes": ["p", "q"], "mean": 0.0, "scale": 1.0},
    }  # fmt: skip
    part: Any = encoder
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return encoder


@pytest.mark.parametrize(
    "kept",
    [
        [],
        {},
        changed([], "columns"),
        changed(3, "columns", 0),
        changed(3, "columns", 0, "name"),
        changed(0, "columns", 0, "scale"),
        changed("nan", "columns", 0, "mean"),
        changed(float("inf"), "columns", 0, "mean"),
        changed([1], "columns", 1, "categories"),
        changed(["x", "y", "z"], "columns", 1, "categories"),
        changed("pq", "target", "classes"),
        changed([], "target", "classes"),
        changed(True, "target", "mean"),
    ],
)
def test_a_model_file_with_other_preprocessing_is_refused(
    kept: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = lamella.Network([3, 2], output="softmax")
    (tmp_path / "t.csv").write_text("a,b\n1,x\n")
    arguments = ["predict", str(tmp_path / "m"), str(tmp_path / "t.csv")]
    checkpoint.save(net, tmp_path / "m", extra={"table": changed(0.0, "columns", 0, "mean")})
    assert cli.main(arguments) == 0
    checkpoint.save(net, tmp_path / "m", extra={"table": kept})
    assert cli.main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"lamella: error: {tmp_path / 'm'}: ")


def test_bench_measures_what_agrees(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "CASES", bench.CASES[:1])
    assert cli.main(["bench", "--seconds", "0.01", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^\d[\d-]+, \d+ .* us .*x$", out, re.MULTILINE)) == len(bench.CASES)


def test_bench_refuses_what_does_not_agree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "AGREEMENT", 0.0)
    assert cli.main(["bench"]) == 1
    assert "losses differ" in capsys.readouterr().err


def test_the_script_runs() -> None:
    script = Path(sys.executable).with_name("lamella")
    if not script.exists():
        pytest.skip("the package is not installed here")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"lamella {lamella.__version__}\n")


def test_a_file_that_is_not_in_utf_8_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{n},{n % 2}\n" for n in range(60))
    (tmp_path / "t.csv").write_bytes(("größe,kind\n" + rows).encode("latin-1"))
    error = trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", status=1)
    assert "expected text in UTF-8" in error
    (tmp_path / "t.csv").write_bytes(("größe , kind\r\n" + rows).encode("utf-8-sig"))
    trained(capsys, tmp_path / "t.csv", "-t", "kind", "--no-plot", "--model", tmp_path / "m")
    assert tables.read(tmp_path / "t.csv").keys() == {"größe", "kind"}
