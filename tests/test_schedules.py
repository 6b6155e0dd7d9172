"""Schedules are PyTorch's, go on from fit to fit, and reach the update and the decoupled decay."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Array, agree, difference, start

import lamella
from lamella import exact, reference, schedules
from lamella.reference.schedules import Plateau as PlainPlateau
from lamella.reference.schedules import rate_at
from lamella.schedules import (
    Constant,
    Cosine,
    Exponential,
    Function,
    InverseTime,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    Step,
    Warmup,
)
from lamella.timing import Clock, Plateau, Schedule, Timed

X = np.random.default_rng(0).standard_normal((70, 6))
Y = np.arange(70) % 4
START = Clock(0, 0, 0, 3)

PYTORCH = {
    "step_10_gamma.5": Step(every=10, factor=0.5),
    "multistep_20_40_gamma.1": Step(at_times=(20, 40)),
    "exponential.95": Exponential(factor=0.95),
    "cosine_50_min.001": Cosine(total=50, minimum=0.001),
    "polynomial_50_power2": Polynomial(total=50, power=2),
    "linear_warmup_.1_to_1_in_10": Warmup(steps=10, start=0.1),
    "warm_restarts_10_mult2": Cosine(total=10, restarts=2),
    "onecycle_max.4_60": OneCycle(0.4, total=60),
}

ALL: list[Schedule] = [
    *PYTORCH.values(),
    Constant(0.3),
    InverseTime(decay=0.1),
    InverseTime(decay=1, power=0.5),
    Polynomial(total=30, power=0.7, minimum=0.01),
    Cosine(total=7, restarts=1, minimum=0.02),
    Cosine(total=3, restarts=3),
    OneCycle(total=40, shape="linear"),
    OneCycle(total=3, warmup=0.1),
    OneCycle(total=1),
    Warmup(steps=5, then=Cosine(0.2, total=20)),
    Warmup(steps=7, then=OneCycle(total=30)),
    Function(function=lambda t: 1 / (1 + t)),
]


def rates(schedule: Schedule, count: int, base: float = 0.1) -> Array:
    """Return a schedule's first rates."""
    return Timed.of(schedule, schedule.base(base), START, 1).rates(START, count)


@pytest.mark.parametrize("name", PYTORCH)
def test_schedules_are_pytorchs(name: str, torch: dict[str, Array]) -> None:
    np.testing.assert_allclose(rates(PYTORCH[name], 60), torch[f"schedule/{name}"], rtol=1e-12)


@pytest.mark.parametrize("plateau", [Plateau, PlainPlateau])
def test_a_plateau_is_pytorchs(plateau: Any, torch: dict[str, Array]) -> None:
    settings = ReduceOnPlateau(factor=0.5, patience=3)
    seen = Plateau(settings, 0.1, False) if plateau is Plateau else PlainPlateau(settings, 0.1)
    ours = []
    for value in torch["schedule/plateau_metric"].tolist():
        ours.append(seen.rate)
        seen.observe(value)
    wanted = torch["schedule/plateau_factor.5_patience3"]
    assert len(set(wanted)) > 2
    np.testing.assert_allclose(ours, wanted, rtol=1e-12)


@pytest.mark.parametrize("relative", [True, False])
def test_plateaus_cool_down_and_look_up_or_down(relative: bool) -> None:
    settings = ReduceOnPlateau(
        factor=0.5, patience=1, cooldown=2, threshold=0.1, relative=relative, minimum=0.03
    )
    down, up, plain = (
        Plateau(settings, 0.1, False),
        Plateau(settings, 0.1, True),
        PlainPlateau(settings, 0.1),
    )
    seen = []
    for value in [1.0, 0.95, 0.85, 0.8, 0.79, 0.79, 0.79, 0.79, 0.79, 0.79, 0.7, 0.7, 0.7, 0.7]:
        down.observe(value)
        up.observe(-value if not relative else 1 / value)
        plain.observe(value)
        seen.append((down.rate, up.rate, plain.rate))
    assert [a for a, _, _ in seen] == [c for _, _, c in seen]
    assert {a for a, _, _ in seen} == {0.1, 0.05, 0.03}
    if not relative:
        assert [a for a, _, _ in seen] == [b for _, b, _ in seen]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_schedules_equal_the_reference(schedule: Schedule) -> None:
    base = schedule.base(0.1)
    wanted = [rate_at(schedule, base, t) for t in range(200)]
    np.testing.assert_allclose(rates(schedule, 200), wanted, rtol=1e-12, atol=1e-17)
    # Whatever the pieces.
    whole = rates(schedule, 200)
    timed = Timed.of(schedule, base, START, 1)
    pieces = [timed.rates(Clock(t, 0, 0, 3), 1)[0] for t in range(200)]
    assert (whole == pieces).all()
    assert (
        pickle.loads(pickle.dumps(schedule)) == schedule
        if not isinstance(schedule, Function)
        else True
    )


def test_epochs_are_counted_where_asked() -> None:
    per_step, per_epoch = (Exponential(factor=0.5, per=per) for per in ("step", "epoch"))
    clock = Clock(steps=100, epochs=2, batch=1, batches=3)
    assert Timed.of(per_epoch, 1.0, clock, 1).rates(clock, 6).tolist() == [2**-2] * 2 + [
        2**-3
    ] * 3 + [2**-4]
    assert Timed.of(per_step, 1.0, clock, 1).rates(clock, 2).tolist() == [2.0**-100, 2.0**-101]
    long = rates(Cosine(total=10_000), 10_000)
    assert long[0] == 0.1
    assert (np.diff(long) < 0).all()


def test_the_elementary_functions_are_accurate() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-50, 50, 20_000)
    assert np.abs(exact.cos_pi(x / 50) - np.cos(np.pi * (x / 50))).max() < 4e-16
    assert np.abs(exact.exp(x) / np.exp(x) - 1).max() < 1e-15
    positive = np.exp(x)
    assert np.abs(exact.log(positive) - np.log(positive)).max() < 2e-14
    for exponent in (0, 0.3, 1, 2, 2.5, 70):
        wanted = np.abs(x) ** exponent
        assert np.abs(exact.power(np.abs(x), exponent) / wanted - 1).max() < 1e-13
    assert exact.power(np.zeros(1), 0.5)[0] == 0
    ends = exact.cos_pi(np.array([0, 0.5, 1, 1.5, 2, -1, 1 / 3]))
    np.testing.assert_allclose(ends, [1, 0, -1, 0, 1, -1, 0.5], rtol=1e-15, atol=0)


def network(**options: Any) -> lamella.Network:
    """Return a small float64 network."""
    return lamella.Network([6, 19, 4], hidden="tanh", output="softmax", dtype="float64", **options)


def same(a: lamella.Network, b: lamella.Network) -> None:
    """Assert that two networks have the same parameters, bit by bit."""
    for name, value in a.parameters.items():
        assert (value == b.parameters[name]).all(), name


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ("sgd", Cosine(0.2, total=9)),
        ("momentum", Warmup(steps=4, then=Polynomial())),
        ("adam", OneCycle()),
        (lamella.AdamW(1e-2, weight_decay=0.3), Step(every=2, factor=0.3)),
        (lamella.AdamW(Exponential(0.03, factor=0.8), weight_decay=0.3), None),
        ("nadam", Cosine(per="epoch")),
        ("rmsprop", InverseTime(decay=0.3)),
        ("adagrad", Step(at_times=(3, 5), per="epoch")),
        (lamella.Lion(1e-3, weight_decay=0.3), Cosine(total=4, restarts=2)),
        ("sgd", lambda step: 0.1 / (1 + step)),
        ("sgd", Warmup(steps=3, then=ReduceOnPlateau(0.5, patience=0, threshold=0.2))),
    ],
)
def test_scheduled_training_equals_the_reference(optimizer: Any, schedule: Any) -> None:
    parameters = start([6, 19, 4], 4)
    net = network(seed=3, l2=0.01)
    net.parameters = parameters
    options: dict[str, Any] = {"epochs": 6, "batch_size": 32, "optimizer": optimizer}
    history = net.fit(X, Y, learning_rate=schedule, **options)
    theirs, losses = reference.fit(
        parameters,
        X.T,
        Y,
        learning_rate=schedule,
        hidden="tanh",
        output="softmax",
        seed=3,
        l2=0.01,
        **options,
    )
    assert difference(history.loss, losses) <= 1e-10
    agree({k: v.reshape(theirs[k].shape) for k, v in net.parameters.items()}, theirs, 1e-10)
    used = history.metrics["learning_rate"]
    assert used.shape == (6,)
    assert len(set(used.tolist())) > 1


SCHEDULES: list[Callable[[], Schedule]] = [
    lambda: Cosine(0.05, total=30),
    lambda: Warmup(steps=8, then=OneCycle(total=20)),
    lambda: Exponential(factor=0.9, per="epoch"),
    lambda: ReduceOnPlateau(0.1, patience=0, threshold=0.1),
]


@pytest.mark.parametrize("make", SCHEDULES)
def test_two_fits_are_one(make: Callable[[], Schedule]) -> None:
    once, twice, threads = network(), network(), network()
    history = once.fit(X, Y, epochs=10, learning_rate=make())
    first, second = (twice.fit(X, Y, epochs=5, learning_rate=make()) for _ in range(2))
    threads.fit(X, Y, epochs=10, learning_rate=make(), threads=3)
    same(once, twice)
    same(once, threads)
    parts = [h.metrics["learning_rate"] for h in (first, second)]
    assert (np.concatenate(parts) == history.metrics["learning_rate"]).all()


def test_a_missing_total_is_the_fits_length() -> None:
    net, given = network(), network()
    for done in (0, 12):
        history = net.fit(X, Y, epochs=4, learning_rate=Polynomial(0.1))
        assert history.metrics["learning_rate"][-1] == pytest.approx(0.1 / 12)
        assert net.steps == done + 12
    given.fit(X, Y, epochs=4, learning_rate=Polynomial(0.1, total=12))
    history = given.fit(X, Y, epochs=4, learning_rate=Polynomial(0.1, total=12))
    assert (history.metrics["learning_rate"] == 0).all()


def test_a_constant_schedule_is_a_plain_rate() -> None:
    plain, scheduled, inside = network(), network(), network()
    plain.fit(X, Y, epochs=3, learning_rate=0.02, optimizer="adamw")
    scheduled.fit(X, Y, epochs=3, learning_rate=Constant(0.02), optimizer="adamw")
    inside.fit(X, Y, epochs=3, optimizer=lamella.AdamW(Constant(0.02)))
    same(plain, scheduled)
    same(plain, inside)


def test_schedules_scale_the_optimizers_rate() -> None:
    half = Step(every=1, factor=0.5)
    for optimizer, rate in (("adam", 1e-3), (lamella.SGD(0.3), 0.3), (lamella.Lion(half), 1e-4)):
        net = network()
        schedule = None if isinstance(optimizer, lamella.Lion) else half
        history = net.fit(
            X, Y, batch_size=None, optimizer=optimizer, epochs=3, learning_rate=schedule
        )
        assert history.metrics["learning_rate"].tolist() == [rate, rate / 2, rate / 4]


def test_partial_fit_takes_the_rate_of_its_step() -> None:
    one, other = network(), network()
    schedule = Cosine(0.1, total=9)
    one.fit(X, Y, epochs=5, batch_size=None, optimizer="momentum", learning_rate=schedule)
    for _ in range(5):
        other.partial_fit(X, Y, optimizer=lamella.SGD(schedule, momentum=0.9))
    same(one, other)
    for bad in (Cosine(0.1), ReduceOnPlateau()):
        with pytest.raises(ValueError, match=r"^learning_rate: "):
            other.partial_fit(X, Y, learning_rate=bad)


def test_the_course_model_takes_schedules() -> None:
    options: dict[str, Any] = {"num_iterations": 201, "init": "lecun", "batch_size": 32}
    for module_options in (
        {"learning_rate": Cosine(0.1)},
        {"optimizer": lamella.AdamW(Exponential(factor=0.99))},
        {"optimizer": "momentum", "learning_rate": Warmup(steps=50)},
    ):
        ours, costs = lamella.L_layer_model(X.T, Y > 1, [6, 9, 1], **options, **module_options)
        theirs, expected = reference.L_layer_model(
            X.T, Y > 1, [6, 9, 1], **options, **module_options
        )
        assert difference(np.array(costs), np.array(expected)) <= 1e-10
        agree(ours, theirs, 1e-10)
    with pytest.raises(ValueError, match=r"^learning_rate: "):
        lamella.L_layer_model(X.T, Y > 1, [6, 9, 1], ReduceOnPlateau())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(-1.0), "learning_rate"),
        (lambda: Cosine(per="batch"), "per"),
        (lambda: Cosine(total=0), "total"),
        (lambda: Cosine(restarts=0), "restarts"),
        (lambda: Step(), "every"),
        (lambda: Step(every=3, at_times=(3,)), "every"),
        (lambda: Step(every=3, factor=0), "factor"),
        (lambda: OneCycle(warmup=1), "warmup"),
        (lambda: OneCycle(shape="round"), "shape"),
        (lambda: Warmup(steps=0), "steps"),
        (lambda: Warmup(steps=3, then=0.1), "then"),  # type: ignore[arg-type]
        (lambda: Warmup(steps=3, then=Cosine(per="epoch")), "then"),
        (lambda: ReduceOnPlateau(factor=1.0), "factor"),
        (lambda: InverseTime(decay=-1.0), "decay"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{message}: "):
        make()


@pytest.mark.parametrize(
    "rate", [lambda t: -1.0, lambda t: np.nan, lambda t: "fast", Exponential(factor=1e300)]
)
def test_bad_rates_are_refused_and_change_nothing(rate: Any) -> None:
    net, untouched = network(), network()
    with pytest.raises((ValueError, TypeError), match=r"^learning_rate: "):
        net.fit(X, Y, epochs=2, learning_rate=rate)
    same(net, untouched)
    assert net.steps == 0


def test_what_a_plateau_saw_is_the_networks() -> None:
    net = network()
    settings = ReduceOnPlateau(0.5, patience=0, threshold=0.9, factor=0.5)
    history = net.fit(X, Y, epochs=4, learning_rate=settings)
    assert history.metrics["learning_rate"].tolist() == [0.5, 0.5, 0.25, 0.125]
    assert copy.deepcopy(net).fit(X, Y, learning_rate=settings).metrics["learning_rate"] == [0.5]
    assert net.fit(X, Y, learning_rate=settings).metrics["learning_rate"] == [0.0625]
    net.reset()
    assert net.fit(X, Y, learning_rate=settings).metrics["learning_rate"] == [0.5]


def test_the_names_are_there() -> None:
    for name in schedules.__all__:
        assert issubclass(getattr(lamella.schedules, name), Schedule)


SCRIPT = """
import hashlib
import numpy as np
import lamella
from lamella.schedules import *
from lamella.timing import Clock, Timed
from lamella import exact
clock, digest = Clock(0, 0, 0, 3), hashlib.sha256()
for schedule in (
    Cosine(0.1, total=7000), Cosine(0.1, total=100, restarts=2), Exponential(0.1, factor=0.999),
    OneCycle(total=9000), Polynomial(total=9000, power=0.7), InverseTime(decay=1, power=0.5),
):
    digest.update(Timed.of(schedule, 0.1, clock, 1).rates(clock, 10_000).tobytes())
digest.update(exact.log(np.arange(1.0, 1000)).tobytes())
print(digest.hexdigest())
X, y = np.random.default_rng(0).standard_normal((90, 5)), np.arange(90) % 3
net = lamella.Network([5, 33, 3], output="softmax")
net.fit(X, y, epochs=20, optimizer="adamw", learning_rate=OneCycle(0.02), threads=2)
print(hashlib.sha256(b"".join(v.tobytes() for v in net.parameters.values())).hexdigest())
"""


def hashes(**environment: str) -> str:
    """Compute rates and train with them in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_rates_have_the_same_bits_whatever_the_instructions() -> None:
    plain = hashes()
    assert len(plain) == 130
    assert hashes(LAMELLA_ISA="scalar") == plain
    fewer = "X86_V4 X86_V3 AVX512_ICL AVX512_SKX AVX512F AVX2 FMA3"  # of NumPy's own kernels
    assert hashes(NPY_DISABLE_CPU_FEATURES=fewer, PYTHONWARNINGS="ignore") == plain
