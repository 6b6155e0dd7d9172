"""Lamella's cases under pytest-benchmark, and the agreement that makes a comparison fair.

`pytest bench` times whole calls; with ``--benchmark-disable`` each runs once, as a test.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import engines
from cases import Case, load_cases, make_problem, parse_layers
from contest import START_TOLERANCE, STEPS_TOLERANCE

CASES = load_cases()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Give every case of cases.toml."""
    return CASES[request.param]


def test_step(case: Case, benchmark: BenchmarkFixture) -> None:
    engine = engines.make(engines.OURS, make_problem(case), "fit", None)
    benchmark.extra_info["steps"] = case.steps
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        engine.train, (case.batches, case.epochs), setup=engine.restart, rounds=9, warmup_rounds=1
    )


def test_lamella_and_numpy_compute_the_same_losses(case: Case) -> None:
    ours = engines.make(engines.OURS, make_problem(case), "fit", None)
    oracle = engines.make("numpy", make_problem(case, "float64"), "plain", None)
    (start, later), expected = engines.first_losses(ours, case), engines.first_losses(oracle, case)
    assert start == pytest.approx(expected[0], rel=START_TOLERANCE)
    assert later == pytest.approx(expected[1], rel=STEPS_TOLERANCE)


def test_widths_in_brackets_are_repeated() -> None:
    assert parse_layers("3-(4x5)-1") == (3, 4, 4, 4, 4, 4, 1)
