"""The measurement of threads beside other work: that it runs, and what its ratios mean."""

from __future__ import annotations

import os
import time

import pytest

import busy

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="processes cannot be bound to processors here"
)


def test_the_busy_process_is_bound_computes_and_ends() -> None:
    cpu = min(os.sched_getaffinity(0))
    with busy.busy(cpu) as spinner:
        assert os.sched_getaffinity(spinner.pid) == {cpu}
        time.sleep(0.05)
        assert spinner.poll() is None
    assert spinner.poll() is not None


def test_a_fit_makes_the_calls_it_is_asked_for() -> None:
    fit = busy.Fit(busy.load("digits"), "auto")
    try:
        one, many = (min(busy.seconds_of([fit], calls) for _ in range(3)) for calls in (1, 20))
        assert many > 3 * one > 0
        assert busy.calls_for(fit, 1e-9) == 1
    finally:
        fit.close()
    assert fit.process.poll() is not None


def test_the_ratios_are_to_one_thread_alone_and_to_four_in_turn() -> None:
    case = busy.load("digits")
    assert (case.layers, case.batch, case.dtype) == ((64, 100, 10), 200, "float64")
    medians = {"quiet, 1": 100.0, "quiet, 2": 80.0, "quiet, auto": 84.0, "busy, 1": 101.0,
               "busy, 2": 130.0, "busy, auto": 110.0, "in turn": 2.0, "at once": 1.5}  # fmt: skip
    cells = dict(zip(busy.HEAD, busy.row(case, medians), strict=True))
    assert cells["case"] == "digits, f64"
    assert cells["busy, 2"] == "130"
    ratios = [cells[name] for name in busy.HEAD[-4:]]
    assert ratios == ["1.05", "1.10", "1.30", "0.75"]


def test_one_processor_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert busy.main([]) == 2
    assert "expected two processors" in capsys.readouterr().err
