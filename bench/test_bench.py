"""Lamella's cases under pytest-benchmark, and the agreement that makes a comparison fair.

`pytest bench` times whole calls; with ``--benchmark-disable`` each runs once, as a test.
"""

import json
import math
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import contest
import counts
import descent
import engines
import guard
import peaks
import report
import roofline
import run
import tables
import worker
from cases import Case, load_cases, make_problem, parse_layers
from contest import START_TOLERANCE, STEPS_TOLERANCE
from lamella import _core
from peaks import Peaks
from report import Result, Timing

CASES = load_cases()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Give every case of cases.toml."""
    return CASES[request.param]


def test_step(case: Case, benchmark: BenchmarkFixture) -> None:
    if benchmark.disabled:  # nobody looks at the time
        case = replace(case, batches=1, epochs=1)
    engine = engines.make(engines.OURS, make_problem(case), "fit", None)
    benchmark.extra_info["steps"] = case.steps
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        engine.train, (case.batches, case.epochs), setup=engine.restart, rounds=9, warmup_rounds=1
    )


def test_lamella_and_numpy_compute_the_same_losses(case: Case) -> None:
    # A benchmark checks all rows before it times any; here large cases have fewer.
    case = replace(case, batch=min(case.batch, 256 if max(case.layers[1:]) < 1000 else 64))
    ours = engines.make(engines.OURS, make_problem(case), "fit", None)
    oracle = engines.make("numpy", make_problem(case, "float64"), "plain", None)
    (start, later), expected = engines.first_losses(ours, case), engines.first_losses(oracle, case)
    assert start == pytest.approx(expected[0], rel=START_TOLERANCE)
    assert later == pytest.approx(expected[1], rel=STEPS_TOLERANCE)


def test_a_search_of_many_networks_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    import many

    many.main(["--rounds", "1", "--chunk", "2", "--epochs", "1"])
    assert "fit_many, 2 threads" in capsys.readouterr().out


def test_descents_of_the_course_start_at_the_same_cost() -> None:
    # After a hundred iterations the comparison itself holds them to each other.
    problem = make_problem(CASES[descent.CASE])
    names = ("L_layer_model", "fit", "numpy")
    costs = [descent.MAKERS[name](problem, 1)(1) for name in names]
    assert costs == pytest.approx([costs[-1]] * len(names), rel=1e-5)


def test_widths_in_brackets_are_repeated() -> None:
    assert parse_layers("3-(4x5)-1") == (3, 4, 4, 4, 4, 4, 1)


# --- the machine's limits ---


def fake_measure(what: str, threads: int, seconds: float) -> float:
    if what == "bf16":
        raise ValueError("what: not here")
    return {"f32": 100.0, "f64": 50.0, "memory": 10.0}[what] * threads


def test_the_core_measures_what_a_machine_can_have() -> None:
    for kind in ("f32", "f64", "memory"):
        rate = _core.measure(kind, 1, 0.01)
        assert 0.01 < rate < 2000, kind


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("f16", 1, 0.1), "what"),
        (("f32", 0, 0.1), "threads"),
        (("f32", -1, 0.1), "threads"),
        (("f32", 257, 0.1), "threads"),
        (("f32", 1, 0.0), "seconds"),
        (("f32", 1, math.nan), "seconds"),
        (("f32", 1, math.inf), "seconds"),
    ],
)
def test_a_measurement_names_the_argument_that_is_wrong(
    arguments: tuple[str, int, float], name: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        _core.measure(*arguments)


def test_peaks_are_the_best_goes_and_gaps_lie_around_their_case() -> None:
    rates = iter(range(1, 1000))
    measured = Peaks(lambda what, threads, seconds: float(next(rates)), count=1)
    for _ in range(3):
        measured.fill_gap()
    goes = measured.as_record()["f32"]["1"]["goes"]
    assert measured.best("f32", "1") == goes[-1][0] == max(go for gap in goes for go in gap)
    assert measured.around("f32", 1)["1"] == (goes[1][0] + goes[2][0]) / 2


def test_arithmetic_that_the_machine_lacks_is_left_out() -> None:
    measured = Peaks(fake_measure, count=2)
    measured.fill_gap()
    assert set(measured.as_record()) == {"f32", "f64", "memory"}
    assert measured.best("bf16", "1") is None
    assert Peaks(None).as_record() == {}


def test_bytes_of_a_step_are_the_batch_its_targets_and_the_optimizers_state() -> None:
    online = CASES["online"]  # 20-40-1, one row, one target; six passes over each parameter
    assert online.bytes == 4 * (20 + 1 + 6 * (21 * 40 + 41))
    small = replace(CASES["rl"], layers=(3, 2), batch=5)
    assert small.bytes == 4 * (5 * (3 + 2) + 6 * 8)
    assert replace(small, target="input").bytes == 4 * (5 * 3 + 6 * 8)
    assert replace(small, dtype="float64").bytes == 2 * small.bytes
    assert small.flops == 2 * 2 * 5 * 3 * 2  # no backward data in a first layer


# --- a run's table, record and picture ---


def make_result(case: Case, median: float, peak: float = 100.0) -> Result:
    timings = [
        Timing("lamella", "fit", threads, median, [median], []) for threads in ("1", "2", "auto")
    ]
    timings.append(Timing("numpy", "plain", "1", 3 * median, [3 * median], []))
    return Result(case, timings, {"1": peak, "2": 2 * peak})


def make_record(median: float, peak: float = 100.0, names: Sequence[str] = ("toy", "rl")) -> Any:
    measured = Peaks(fake_measure, count=1)
    measured.fill_gap()
    results = [make_result(CASES[name], median, peak) for name in names]
    machine = {"cpu": "A CPU @ 2.50GHz", "cores": 2, "isa": "avx2", "packages": {}}
    began = datetime(2026, 1, 2, tzinfo=UTC)
    return json.loads(json.dumps(report.as_record(results, measured, machine, began, 9)))


def test_the_table_has_the_share_of_two_threads_peak_and_marks_untuned_cases() -> None:
    measured = Peaks(fake_measure, count=1)
    measured.fill_gap()
    case = CASES["rl"]
    median = case.flops / 1e3 / 50  # 50 GFLOP/s of 200
    head, row = report.table([make_result(case, median)], measured)
    assert dict(zip(head, row, strict=True))["of peak"] == "25.0%"
    assert row[0] == "rl *"
    double = report.table([make_result(CASES["course_f64"], 1.0)], measured)[1]
    assert double[-1] == f"{CASES['course_f64'].flops / 1e3 / 100:.1%}"
    assert report.table([make_result(case, 1.0)], Peaks(None))[1][-1] == "-"


def test_a_run_is_saved_with_its_peaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "BENCH", tmp_path)
    monkeypatch.setattr(roofline, "draw", lambda record, stem: None)
    record = make_record(10.0)
    record["machine"] |= {"load": 0.1, "python": "3"}
    path = report.save(record, [["case"], ["toy"]])
    assert path.name == "2026-01-02-A-CPU-2.50GHz.md"
    saved = json.loads(path.with_name(path.stem + ".json").read_text())
    assert saved["peaks"]["f32"]["2"]["best"] == 200.0
    assert saved["results"][0]["share"] == pytest.approx(CASES["toy"].flops / 10e3 / 200)


def test_names_in_the_picture_keep_apart_and_stay_in_order() -> None:
    places = [0.1, 0.5, 0.5, 0.51, 0.9, 0.91]
    moved = roofline.spread(places, 0.04)
    assert all(b - a > 0.04 - 1e-9 for a, b in pairwise(moved))
    assert moved[0] == pytest.approx(0.1)
    assert sum(moved) == pytest.approx(sum(places))


def test_the_roofline_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    roofline.draw(make_record(10.0), tmp_path / "roof.line")
    assert (tmp_path / "roof.line.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "roof.line.svg").read_text()


# --- mixed precision ---


def make_mixed_result(name: str = "wide", ours: float = 50.0, rival: float = 300.0) -> Result:
    result = make_result(CASES[name], 100.0)
    mixed = [Timing("lamella", "bf16", t, ours, [ours], []) for t in ("1", "2", "auto")]
    mixed.append(Timing("pytorch", "autocast", "2", rival, [rival], []))
    full = Timing("pytorch", "eager", "1", 400.0, [400.0], [])
    return Result(
        CASES[name], [*mixed, *result.timings, full], result.peak, {"1": 300.0, "2": 600.0}
    )


def test_mixed_precision_is_compared_with_itself_and_with_our_float32() -> None:
    measured = Peaks(lambda what, threads, seconds: 1e9 if what == "bf16" else 1.0, count=1)
    measured.fill_gap()
    result = make_mixed_result()
    assert result.ratio() == 3.0  # of float32: NumPy's 300, not PyTorch's in bf16
    head, row = tables.mixed([make_result(CASES["toy"], 1.0), result], measured)
    cells = dict(zip(head, row, strict=True))
    assert cells["lamella f32"] == "100"
    assert cells["lamella bf16"] == "50.0"
    assert cells["pytorch bf16"] == "300 (autocast 2)"
    assert cells["over our f32"] == "2.00x"
    assert cells["over pytorch's bf16"] == "6.00x"
    assert cells["of bf16 peak"] == f"{CASES['wide'].flops / 50e3 / 1e9:.1%}"
    assert dict(zip(*report.table([result], measured), strict=True))["pytorch"] == "400 (eager 1)"


def test_mixed_precision_is_entered_where_asked_for_and_runs_where_the_case_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered: list[tuple[str, ...]] = []
    monkeypatch.setattr(contest, "Contestant", lambda *who: entered.append(who))
    contest.enter(engines.ENGINES, quick=True, bf16=True)
    mixed = [who for who in entered if engines.is_bf16(who[0], who[1])]
    assert [who[2] for who in mixed if who[0] == "lamella"] == ["1", "2", "auto"]
    assert {who[:2] for who in mixed} == {("lamella", "bf16"), ("pytorch", "autocast")}
    contestant: Any = SimpleNamespace(engine="pytorch", threads="2", bf16=True)
    with_bf16 = [n for n in CASES if contest.takes_part(contestant, CASES[n], contest.Pace(9))]
    assert with_bf16 == ["course", "tabular_lg", "mnist", "wide"]


def test_losses_of_mixed_precision_may_be_off_by_what_rounding_makes() -> None:
    case = CASES["tabular"]
    oracle = engines.make("numpy", make_problem(case, "float64"), "plain", None)
    start, later = engines.first_losses(oracle, case)

    def check(bf16: bool, by: float, by_later: float) -> None:
        losses = start * (1 + by), later * (1 + by_later)
        contestant: Any = SimpleNamespace(losses=losses, bf16=bf16)
        contest.check_agreement(case, [contestant])

    check(True, 9e-4, 9e-3)
    for wrong in [(True, 1.1e-3, 0), (True, 0, 1.1e-2), (False, 1e-4, 0), (False, 0, 9e-3)]:
        with pytest.raises(contest.ContestError, match="tabular: loss"):
            check(*wrong)


@pytest.mark.skipif("avx512bf16" not in _core.info()["features"], reason="needs AVX-512 BF16")
@pytest.mark.skipif(_core.info()["isa"] not in ("amx", "avx512"), reason="other kernels are forced")
def test_lamella_trains_in_mixed_precision() -> None:
    problem = make_problem(CASES["mnist"])
    engine = engines.make(engines.OURS, problem, "bf16", 1)
    oracle = engines.make("numpy", make_problem(problem.case, "float64"), "plain", None)
    got, want = (engines.first_losses(e, problem.case) for e in (engine, oracle))
    for a, b, tolerance in zip(got, want, contest.BF16_TOLERANCES, strict=True):
        assert 1e-8 < abs(a / b - 1) < tolerance  # neither float32's bits nor something else


# --- Lamella alone ---


def test_alone_the_shares_are_of_the_threads_peak_then_and_at_best() -> None:
    measured = Peaks(fake_measure, count=1)  # 100 GFLOP/s a thread
    measured.fill_gap()
    case = CASES["rl"]
    result = make_result(case, case.flops / 1e3 / 50, peak=62.5)  # 50 GFLOP/s
    head, row = tables.alone([result], measured)
    cells = dict(zip(head, row, strict=True))
    assert cells["of peak, 1"] == "50.0% (80.0%)"
    assert cells["of peak, 2"] == cells["of peak, auto"] == "25.0% (40.0%)"
    assert cells["dtype"] == "float32"
    assert row[0] == "rl *"


def test_a_run_alone_prints_the_shares_of_the_kernels_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAMELLA_ISA", "portable")  # put back afterwards
    for module in (contest, peaks):
        monkeypatch.setattr(module, "SETTLE", 0.0)
    arguments = ["--quick", "--alone", "--isa", "portable", "--dtype", "float64", "--case", "toy"]
    assert run.main(arguments) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("| toy"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "float64"
    assert all(float(cell) > 0 for cell in cells[3:6])
    assert all(float(cell.split("%")[0]) > 0 for cell in cells[6:])
    assert "kernels portable" in out
    assert "Mixed precision" not in out
    assert "Recorded" not in out


def test_another_dtype_changes_every_case_and_keeps_each_network_once() -> None:
    chosen = {case.name: case for case in run.choose(CASES.values(), "float64")}
    assert set(chosen) == set(CASES) - {"course"}
    assert {case.dtype for case in chosen.values()} == {"float64"}
    assert not any(case.bf16 for case in chosen.values())
    assert chosen["course_f64"] is CASES["course_f64"]
    assert run.choose(CASES.values(), None) == list(CASES.values())


@pytest.mark.parametrize(
    "arguments",
    [["--alone", "--engine", "numpy"], ["--record", "--alone"], ["--record", "--case", "toy"],
     ["--record", "--isa", "avx2"], ["--record", "--dtype", "float64"]],
)  # fmt: skip
def test_only_whole_runs_are_recorded(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run.parse_arguments(arguments, list(CASES))
    assert ": expected" in capsys.readouterr().err
    assert run.parse_arguments(["--quick", "--record"], list(CASES)).whole


# --- the guards ---


def test_slower_cases_are_named_and_a_busy_machine_is_not() -> None:
    then = make_record(10.0)
    assert len(guard.changes(make_record(10.5), then)) == 6
    assert "none got more" in guard.report(guard.changes(make_record(10.5), then), "then")
    slower = guard.report(guard.changes(make_record(11.5), then), "then")
    assert "toy, auto: +15%" in slower
    assert "6 got more than 10% slower" in slower
    busy = guard.changes(make_record(20.0, peak=50.0), then)
    assert [change.ratio for change in busy] == [pytest.approx(1.0)] * 6
    hidden = guard.changes(make_record(12.0, peak=120.0), then)  # a faster machine hides nothing
    assert [change.ratio for change in hidden] == [pytest.approx(1.44)] * 6


def test_cases_that_changed_and_records_without_peaks_are_no_alarm() -> None:
    then = make_record(10.0)
    for result in then["results"]:
        result.pop("peak")
    then["results"][0]["case"]["epochs"] += 1
    found = guard.changes(make_record(12.0, peak=50.0), then)
    assert {change.case for change in found} == {"rl"}
    assert {change.correction for change in found} == {1.0}


def test_cpus_that_a_host_calls_alike_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    assert report.describe_cpu(path) == (platform.processor() or platform.machine())
    core = "processor\t: 0\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: A CPU\n\n"
    path.write_text(core.format(25, 17) * 2)
    assert report.describe_cpu(path) == "A CPU (family 25, model 17)"
    path.write_text(core.format(26, 2) * 2)
    assert report.describe_cpu(path) == "A CPU (family 26, model 2)"
    path.write_text("model name\t: A CPU\n\n")
    assert report.describe_cpu(path) == "A CPU"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_last_committed_record_of_the_same_machine_counts(tmp_path: Path) -> None:
    def run_git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    machine = make_record(1.0)["machine"]
    assert guard.last_record(machine, tmp_path) is None
    run_git("init", "--quiet")
    for date, change in [("01", {}), ("02", {}), ("03", {"cpu": "another"}), ("04", {})]:
        record = make_record(float(date))
        record["machine"] |= change
        (tmp_path / f"2026-01-{date}-cpu.json").write_text(json.dumps(record))
        if date != "04":  # not committed
            run_git("add", ".")
            run_git("commit", "--quiet", "-m", date)
    last = guard.last_record(machine, tmp_path)
    assert last is not None
    assert last["results"][0]["timings"][0]["median"] == 2.0
    assert guard.last_record(machine | {"isa": "portable"}, tmp_path) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_run_is_compared_with_a_record_that_was_saved_and_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `save` writes is what the guard reads, mixed precision included."""
    measured = Peaks(None)
    machine = {"cpu": "A CPU @ 2.50GHz", "cores": 2, "isa": "avx512", "packages": {}}
    began = datetime(2026, 1, 2, tzinfo=UTC)

    def record(ours: float) -> Any:
        results = [make_mixed_result(ours=ours), make_result(CASES["toy"], 10.0)]
        return report.as_record(results, measured, machine | {"load": 0, "python": "3"}, began, 9)

    monkeypatch.setattr(report, "BENCH", tmp_path)
    monkeypatch.setattr(roofline, "draw", lambda record, stem: None)
    saved = report.save(record(50.0), [["case"], ["toy"]], ["A second table"])
    assert "A second table" in saved.read_text()
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "r"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    last_record, results = guard.last_record, tmp_path / "results"
    monkeypatch.setattr(guard, "last_record", lambda machine: last_record(machine, results))
    assert "of 9 times of Lamella none got more" in run.compare(record(51.0))
    slower = run.compare(record(60.0))
    assert "Since the committed result of 2026-01-02, of 9 times of Lamella 3 got more" in slower
    assert "wide, auto in bf16: +20%" in slower
    machine["cpu"] = "another"
    assert "No committed result of this CPU" in run.compare(record(60.0))


def test_times_in_bf16_are_corrected_by_its_own_peak() -> None:
    then, now = (
        report.as_record(
            [replace(make_mixed_result(), bf16_peak={"1": peak, "2": peak})],
            Peaks(None), {}, datetime(2026, 1, 2, tzinfo=UTC), 9,
        )
        for peak in (600.0, 300.0)
    )  # fmt: skip
    ratios = {change.threads: change.ratio for change in guard.changes(now, then)}
    assert ratios["auto in bf16"] == 0.5
    assert ratios["auto"] == 1.0


def test_instruction_counts_have_a_margin_both_ways() -> None:
    expected = {"toy": 1000, "rl": 1000}
    assert counts.differences({"toy": 1019, "rl": 981}, expected) == []
    more, fewer = counts.differences({"toy": 1021, "rl": 979}, expected)
    assert "toy: 1,021 instructions, 2.1% more" in more
    assert "rl: 979 instructions, 2.1% fewer" in fewer
    assert counts.differences({"online": 1}, expected) == ["online: 1 instructions, none recorded"]


def test_counts_are_recorded_for_the_cases_that_are_counted() -> None:
    recorded = json.loads((counts.BENCH / "counts.json").read_text())
    assert set(recorded["counts"]) == set(counts.STEPS)


def test_counts_of_another_compiler_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert counts.obstacle({"rustc": "1.0.0"}, "1.0.0") is None
    assert "rustc 1.0.0, here is 1.1.0" in str(counts.obstacle({"rustc": "1.0.0"}, "1.1.0"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert counts.obstacle({"rustc": "1.0.0"}, "1.0.0") == "valgrind is not installed"


def test_a_quick_run_leaves_out_what_takes_long_to_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered: list[tuple[str, ...]] = []
    monkeypatch.setattr(contest, "Contestant", lambda *who: entered.append(who))
    contest.enter(engines.ENGINES, quick=True)
    quick = {(engine, variant) for engine, variant, _ in entered}
    contest.enter(engines.ENGINES)
    whole = {(engine, variant) for engine, variant, _ in entered}
    assert whole - quick == {("jax", "step"), ("pytorch", "compiled")}


@pytest.mark.parametrize(
    ("arguments", "rounds"),
    [([], 9), (["--quick"], 2), (["--quick", "--rounds", "4"], 4), (["--rounds", "5"], 5)],
)
def test_rounds_are_those_asked_for(arguments: list[str], rounds: int) -> None:
    pace = run.pace_of(run.parse_arguments(arguments, list(CASES)))
    assert pace.rounds == rounds
    assert pace.hurry == ("--quick" in arguments)


def test_in_a_hurry_rivals_with_one_thread_stay_away_from_large_cases() -> None:
    def takes_part(engine: str, threads: str, case: str, pace: contest.Pace) -> bool:
        contestant: Any = SimpleNamespace(engine=engine, threads=threads, bf16=False)
        return contest.takes_part(contestant, CASES[case], pace)

    assert not takes_part("numpy", "1", "wide", contest.QUICK)
    assert takes_part("numpy", "2", "wide", contest.QUICK)
    assert takes_part("lamella", "1", "wide", contest.QUICK)
    assert takes_part("numpy", "1", "tabular", contest.QUICK)
    assert takes_part("numpy", "1", "wide", contest.Pace(9))


def test_a_worker_compiles_without_a_pass_over_the_data() -> None:
    runner = worker.Worker("numpy", "plain", 1)
    runner.load("toy", "float32")
    before = runner.engine.loss()
    assert runner.compile() == {}
    assert runner.engine.loss() == before
    assert runner.time(1e-9)["times"][0] > 0
    assert runner.engine.loss() != before
