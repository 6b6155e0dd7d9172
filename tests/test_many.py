"""Many networks at once: the bits of one after the other, and no one spoils another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import many
from lamella.schedules import ReduceOnPlateau

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"

RNG = np.random.default_rng(2)
M = 230
X = RNG.standard_normal((M, 9))
CLASSES = RNG.integers(0, 4, M)

NETWORK = {"layers", "hidden", "output", "dtype", "seed", "l1", "l2", "decay_biases", "init"}

CONFIGS: list[dict[str, Any]] = [
    {"layers": (9, 12, 4), "output": "softmax", "epochs": 4},
    {"layers": (9, 40, 30, 4), "output": "softmax", "hidden": "tanh", "epochs": 2, "l2": 0.01},
    {"layers": (9, 12, 4), "output": "softmax", "epochs": 3, "batch_size": 7, "seed": 5},
    {"layers": (9, 12, 4), "output": "softmax", "dtype": "float64", "epochs": 2, "l1": 1e-3},
    {"layers": (9, 300, 4), "output": "softmax", "epochs": 1, "shuffle": False, "optimizer": "sgd"},
    {"layers": (9, 12, 4), "output": "softmax", "batch_size": None, "epochs": 6, "clip_value": 0.1},
    {"layers": (9, 12, 4), "output": "softmax", "epochs": 0},
    {
        "layers": (9, *[16] * 9, 4),
        "output": "softmax",
        "optimizer": lamella.AdamW(weight_decay=0.1),
        "learning_rate": 0.01,
        "epochs": 2,
    },
]


def alone(config: dict[str, Any], x: Any, y: Any) -> tuple[lamella.Network, lamella.History]:
    """Train one network as `Network.fit` does."""
    net = lamella.Network(**{k: v for k, v in config.items() if k in NETWORK})
    return net, net.fit(x, y, **{k: v for k, v in config.items() if k not in NETWORK})


def same(a: lamella.Network, b: lamella.Network) -> None:
    """Assert that two networks have the same bits."""
    for name, value in a.parameters.items():
        assert value.tobytes() == b.parameters[name].tobytes(), name


@pytest.mark.parametrize("threads", [None, 1, 2, 5])
def test_the_bits_are_those_of_one_after_the_other(threads: int | None) -> None:
    fitted = lamella.fit_many(CONFIGS, X, CLASSES, threads=threads)
    assert [f.index for f in fitted] == list(range(len(CONFIGS)))
    for config, result in zip(CONFIGS, fitted, strict=True):
        net, history = alone(config, X, CLASSES)
        assert result.error is None
        assert result.score is None
        assert result.config is config
        assert result.history is not None
        assert result.history.loss.tolist() == history.loss.tolist()
        assert result.network.steps == net.steps
        assert result.network.epochs == net.epochs
        same(result.network, net)


@pytest.mark.parametrize(
    "kind", ["plain", "float32", "fortran", "strided", "uint8", "sparse", "memory map"]
)
def test_folds_are_read_in_place_whatever_the_array(kind: str, tmp_path: Path) -> None:
    arrays = {
        "float32": X.astype("f"),
        "fortran": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
        "uint8": (20 * np.abs(X)).astype("u1"),
    }
    x: Any = arrays.get(kind, X)
    if kind == "sparse":
        x = pytest.importorskip("scipy.sparse").csr_array(np.where(X > 0, X, 0))
    if kind == "memory map":
        np.save(tmp_path / "X.npy", X)
        x = np.load(tmp_path / "X.npy", mmap_mode="r")
    pairs = [(np.arange(0, M, 2), np.arange(1, M, 2)), ([5, 3, 99, 5, -1], [0])]
    configs = CONFIGS[:6]
    fitted = lamella.fit_many(configs, x, CLASSES, cv=pairs)
    assert [(f.index, f.fold) for f in fitted] == [(i, k) for i in range(6) for k in range(2)]
    for result in fitted:
        train, held_out = (np.asarray(part) for part in pairs[result.fold])
        net, history = alone(configs[result.index], x[train], CLASSES[train])
        assert result.history is not None
        assert result.history.loss.tolist() == history.loss.tolist()
        same(result.network, net)
        assert result.score == net.evaluate(x[held_out], CLASSES[held_out])


@pytest.mark.parametrize("output", ["identity", "sigmoid"])
@pytest.mark.parametrize("width", [1, 3])
def test_scores_are_what_evaluate_says(output: str, width: int) -> None:
    y = RNG.standard_normal((M, width)) if output == "identity" else RNG.integers(0, 2, (M, width))
    for targets in (y, y.astype("f"), y[:, 0]) if width == 1 else (y, y.tolist()):
        configs = lamella.grid(
            layers=(9, 8, width), output=output, dtype=["float32", "float64"], l2=[0.0, 0.01]
        )
        held_out = np.arange(100, 150)
        rest = np.setdiff1d(np.arange(M), held_out)
        for result in lamella.fit_many(configs, X, targets, validation=held_out):
            labels = np.asarray(targets)
            net, _ = alone(configs[result.index], X[rest], labels[rest])
            same(result.network, net)
            assert result.score == net.evaluate(X[held_out], labels[held_out])


def test_networks_of_several_outputs_share_one_call() -> None:
    y = np.arange(M) % 2
    outputs = {"softmax": 2, "sigmoid": 1, "identity": 1}
    configs = [{"layers": (9, 5, n), "output": name} for name, n in outputs.items()]
    for config, result in zip(configs, lamella.fit_many(configs, X, y), strict=True):
        same(result.network, alone(config, X, y)[0])


def test_given_networks_go_on_from_where_they_are() -> None:
    nets = [lamella.Network([9, 6, 4], output="softmax", seed=seed) for seed in range(3)]
    twins = [lamella.Network([9, 6, 4], output="softmax", seed=seed) for seed in range(3)]
    for net in [*nets, *twins]:
        net.fit(X, CLASSES, epochs=2)
    settings = {"epochs": 3, "batch_size": 20}
    pairs = [(net, settings) for net in nets]
    fitted = lamella.fit_many(pairs, X, CLASSES, keep_state=True)
    for net, twin, result in zip(nets, twins, fitted, strict=True):
        assert result.network is net
        twin.fit(X, CLASSES, **settings)  # type: ignore[arg-type]
        same(net, twin)
        net.fit(X, CLASSES, epochs=2)
        twin.fit(X, CLASSES, epochs=2)
        same(net, twin)
    before = nets[0].parameters
    (whole,) = lamella.fit_many(pairs[1:2], X, CLASSES, validation=0.1)
    assert whole.network is nets[1]
    folded = lamella.fit_many(pairs[:1], X, CLASSES, cv=3)
    assert len({id(f.network) for f in folded} | {id(nets[0])}) == 4
    for name, value in before.items():
        assert (nets[0].parameters[name] == value).all()


def test_without_its_state_a_network_begins_with_a_new_one() -> None:
    (kept,) = lamella.fit_many(CONFIGS[:1], X, CLASSES, keep_state=True)
    (dropped,) = lamella.fit_many(CONFIGS[:1], X, CLASSES)
    same(kept.network, dropped.network)
    twin = lamella.Network((9, 12, 4), output="softmax")
    twin.parameters = dropped.network.parameters
    assert dropped.network.epochs == kept.network.epochs == 4
    for net in (kept.network, dropped.network, twin):
        net.fit(X, CLASSES, epochs=1, batch_size=None)
    same(dropped.network, twin)
    assert (kept.network.parameters["W1"] != twin.parameters["W1"]).any()


def test_one_that_diverges_spoils_no_other() -> None:
    diverging = {**CONFIGS[0], "optimizer": "sgd", "learning_rate": 1e37}
    configs = [*CONFIGS[:3], diverging, *CONFIGS[3:]]
    heard: list[int] = []
    fitted = lamella.fit_many(
        configs, X, CLASSES, validation=0.2, threads=2, progress=lambda f: heard.append(f.index)
    )
    assert sorted(heard) == list(range(len(configs)))
    failed = fitted.pop(3)
    assert isinstance(failed.error, lamella.DivergenceError)
    assert "step" in str(failed.error)
    assert failed.history is None
    assert failed.score is None
    alone_again = lamella.fit_many(CONFIGS, X, CLASSES, validation=0.2, threads=1)
    for ours, theirs in zip(fitted, alone_again, strict=True):
        assert ours.score == theirs.score
        assert ours.score is not None
        same(ours.network, theirs.network)


def test_what_a_callback_raises_ends_the_call() -> None:
    def stop(fitted: lamella.Fitted) -> None:
        raise InterruptedError(str(fitted.index))

    pairs = [(lamella.Network([9, 6, 4], output="softmax"), {"epochs": 1000}) for _ in range(9)]
    with pytest.raises(InterruptedError):
        lamella.fit_many(pairs, X, CLASSES, progress=stop)
    assert sum(net.epochs for net, _ in pairs) < 9000  # a busy machine hears late
    for net, _ in pairs:
        assert np.isfinite(net.fit(X, CLASSES).loss).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layers": (9, 4), "learning_rte": 1}, "learning_rte"),
        ({"layers": (9, 4), "threads": 1}, "threads"),
        ({"epochs": 1}, "layers"),
        ({"layers": (8, 4), "output": "softmax"}, "9 features"),
        ({"layers": (9, 4), "output": "softmax", "epochs": -1}, "epochs"),
        ({"layers": (9, 4), "output": "softmax", "learning_rate": "x"}, "learning_rate"),
        (
            {"layers": (9, 4), "output": "softmax", "learning_rate": lambda step: -1},
            "learning_rate",
        ),
        (
            {"layers": (9, 4), "output": "softmax", "learning_rate": ReduceOnPlateau()},
            "learning_rate: .*ReduceOnPlateau",
        ),
        ({"layers": (9, 4), "output": "softmax", "optimizer": "lbfgs"}, "lbfgs"),
        ({"layers": (9, 4), "output": "softmax", "optimizer": lamella.LBFGS()}, "lbfgs"),
        ((lamella.Network([9, 4], output="softmax"), {"layers": (9, 4)}), "layers"),
        ((lamella.Network([9, 4], output="softmax"), 3), "dict"),
        (3, "dict"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_with_its_index(
    config: Any, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^configs\[1\]: .*{message}"):
        lamella.fit_many([CONFIGS[0], config], X, CLASSES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "^threads: "),
        ({"cv": 1}, "^cv: "),
        ({"cv": M + 1}, "^cv: "),
        ({"cv": []}, "^cv: "),
        ({"cv": "five"}, "^cv: "),
        ({"cv": [3]}, r"^cv\[0\]: "),
        ({"cv": [([0], [])]}, r"^cv\[0\]\[1\]: "),
        ({"cv": [([0, M], [1])]}, r"^cv\[0\]\[0\]: "),
        ({"cv": [([0.5], [1])]}, r"^cv\[0\]\[0\]: "),
        ({"cv": 2, "validation": 0.5}, "^cv: "),
        ({"validation": 0.0}, "^validation: "),
        ({"validation": 1.0}, "^validation: "),
        ({"validation": range(M)}, "^validation: "),
        ({"keep_state": 1}, "^keep_state: "),
        ({"progress": 3}, "^progress: "),
        ({"seed": -1}, "^seed: "),
        ({"sample_weight": np.ones(M - 1)}, "^sample_weight: "),
        ({"sample_weight": -np.ones(M)}, "^sample_weight: "),
        ({"sample_weight": np.ones(M - 1), "cv": 2}, "^sample_weight: "),
        ({"class_weight": {4: 1.0}}, "^class_weight: "),
        ({"class_weight": "even"}, "^class_weight: "),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        lamella.fit_many(CONFIGS[:1], X, CLASSES, **options)


def test_bad_data_is_refused_before_any_work() -> None:
    net = lamella.Network([9, 4], output="softmax")
    bad = X.copy()
    bad[7, 3] = np.nan
    for x, y, message in [(bad, CLASSES, "row 7, column 3"), (X, CLASSES + 9, "^y: "),
                          (X, CLASSES[:-1], "^y: "), (X[:, 0], CLASSES, "^X: ")]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            lamella.fit_many([(net, {})], x, y)
    with pytest.raises(ValueError, match=r"^configs\[1\]: .*before"):
        lamella.fit_many([(net, {}), (net, {})], X, CLASSES)
    assert net.epochs == 0
    assert lamella.fit_many([], X, CLASSES) == []


@pytest.mark.parametrize(
    "weights",
    [
        {"sample_weight": np.linspace(0, 2, M)},
        {"class_weight": "balanced"},
        {"sample_weight": RNG.integers(0, 3, M), "class_weight": {0: 0.2, 3: 1.5}},
    ],
)
def test_weights_are_those_of_one_fit_on_the_rows(weights: dict[str, Any]) -> None:
    pairs = [(np.arange(0, M, 2), np.arange(1, M, 2)), ([5, 3, 99, 5, -1], [0]), (range(200), [7])]
    whole = lamella.fit_many(CONFIGS[:4], X, CLASSES, **weights)
    for result in (*whole, *lamella.fit_many(CONFIGS[:4], X, CLASSES, cv=pairs, **weights)):
        train, held_out = np.arange(M), None
        if result.score is not None:
            train, held_out = (np.asarray(part) for part in pairs[result.fold])
        own = dict(weights)
        if "sample_weight" in own:
            own["sample_weight"] = own["sample_weight"][train]
        net, history = alone(CONFIGS[result.index] | own, X[train], CLASSES[train])
        assert result.history is not None
        assert result.history.loss.tolist() == history.loss.tolist()
        same(result.network, net)
        if held_out is not None:
            assert result.score == net.evaluate(X[held_out], CLASSES[held_out])
    plain = lamella.fit_many(CONFIGS[:1], X, CLASSES)[0]
    assert plain.history is not None
    assert whole[0].history is not None
    assert plain.history.loss.tolist() != whole[0].history.loss.tolist()


def test_weights_of_one_change_no_bit() -> None:
    plain = lamella.fit_many(CONFIGS, X, CLASSES)
    weighed = lamella.fit_many(CONFIGS, X, CLASSES, sample_weight=np.ones(M))
    for one, other in zip(plain, weighed, strict=True):
        same(one.network, other.network)


def test_every_network_has_a_schedule_of_its_own() -> None:
    schedules: list[Any] = [
        lamella.schedules.Cosine(0.03),
        lamella.schedules.Step(0.02, every=1, factor=0.5, per="epoch"),
        lamella.schedules.Warmup(steps=5),
        lambda step: 0.01 / (1 + step),
    ]
    plain = {"layers": (9, 12, 4), "output": "softmax", "epochs": 3}
    configs = [plain | {"learning_rate": schedule} for schedule in schedules]
    configs.append(plain | {"optimizer": lamella.AdamW(lamella.schedules.Exponential(factor=0.9))})
    configs.append(plain | {"optimizer": "muon", "learning_rate": lamella.schedules.Cosine()})
    configs.append(plain | {"epochs": 0, "learning_rate": lamella.schedules.Cosine()})
    fitted = lamella.fit_many([*configs, plain], X, CLASSES)
    for config, result in zip([*configs, plain], fitted, strict=True):
        net, history = alone(config, X, CLASSES)
        assert result.history is not None
        assert result.history.loss.tolist() == history.loss.tolist()
        same(result.network, net)
        rates = {name: n.tolist() for name, n in result.history.metrics.items()}
        assert rates == {name: n.tolist() for name, n in history.metrics.items()}
    # A network that goes on is further on its schedule.
    more: dict[str, Any] = {"epochs": 2, "learning_rate": lamella.schedules.Cosine(0.03, total=40)}
    (first,) = lamella.fit_many(configs[:1], X, CLASSES, keep_state=True)
    (second,) = lamella.fit_many([(first.network, more)], X, CLASSES)
    net, _ = alone(configs[0], X, CLASSES)
    net.fit(X, CLASSES, **more)
    assert second.network.steps == net.steps == 40
    same(second.network, net)


# --- helpers ---


def test_a_grid_has_every_combination() -> None:
    configs = lamella.grid(a=[1, 2], b=(3, 4), c=np.array([0.5, 0.25, 0.125]), d="x")
    assert len(configs) == 6
    assert configs[1] == {"a": 1, "b": (3, 4), "c": 0.25, "d": "x"}
    assert type(configs[0]["c"]) is float
    assert lamella.grid() == [{}]
    with pytest.raises(ValueError, match=r"^a: "):
        lamella.grid(a=[])


def test_samples_repeat_by_seed_and_follow_their_distributions() -> None:
    uniform = pytest.importorskip("scipy.stats").uniform(2, 1)

    def draw(seed: int) -> list[dict[str, Any]]:
        return lamella.sample(
            300, seed, a=[1, 2], b=lambda r: 10 ** r.uniform(-4, -1), c=uniform, d=(5, 6)
        )

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    drawn = draw(3)
    assert 100 < sum(c["a"] == 1 for c in drawn) < 200
    assert all(1e-4 <= c["b"] <= 0.1 and 2 <= c["c"] <= 3 and c["d"] == (5, 6) for c in drawn)
    assert 0.4 < np.mean([c["b"] < 10**-2.5 for c in drawn]) < 0.6


def test_folds_hold_every_row_out_once() -> None:
    for m, k in [(10, 3), (7, 7), (230, 5)]:
        pairs = lamella.folds(m, k, seed=1)
        assert sorted(np.concatenate([held for _, held in pairs])) == list(range(m))
        for train, held in pairs:
            assert sorted([*train, *held]) == list(range(m))
            assert m // k <= len(held) <= -(-m // k)
    assert any((a[1] != b[1]).any() for a, b in zip(lamella.folds(9, 3, 0), lamella.folds(9, 3, 1),
                                                    strict=True))  # fmt: skip


def test_a_number_of_folds_and_a_share_are_drawn_by_the_seed() -> None:
    whole = lamella.fit_many(CONFIGS[:1], X, CLASSES, cv=lamella.folds(M, 3, 7))
    for a, b in zip(whole, lamella.fit_many(CONFIGS[:1], X, CLASSES, cv=3, seed=7), strict=True):
        assert a.score == b.score
    train, held = many._held_out(0.25, M, 3)
    assert len(held) == round(0.25 * M)
    assert sorted([*train, *held]) == list(range(M))


class Splitter:
    """Two halves, as scikit-learn's splitters give them."""

    def split(self, X: Any, y: Any) -> Any:
        halves = np.arange(len(y) // 2), np.arange(len(y) // 2, len(y))
        yield halves
        yield halves[::-1]


def test_splitters_and_masks_are_taken() -> None:
    mask = np.arange(M) < M // 2
    by_hand = lamella.fit_many(CONFIGS[:2], X, CLASSES, cv=[(mask, ~mask), (~mask, mask)])
    for a, b in zip(by_hand, lamella.fit_many(CONFIGS[:2], X, CLASSES, cv=Splitter()), strict=True):
        assert a.score == b.score


# --- in processes of their own ---

INTERRUPTED = """
import numpy as np, time, lamella
X = np.random.default_rng(0).standard_normal((4000, 100)); y = np.arange(4000) % 3
nets = [lamella.Network([100, 50, 50, 3], output="softmax", seed=s) for s in range(6)]
print("ready", flush=True)
try:
    lamella.fit_many([(net, {"epochs": 10**6}) for net in nets], X, y, threads=THREADS)
except KeyboardInterrupt:
    print(time.time(), flush=True)
assert 0 < sum(net.steps > 0 for net in nets) <= (THREADS or 64)
for net in nets:
    assert np.isfinite(net.fit(X, y, epochs=1).loss).all()
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupts_stop_all_soon_and_leave_whole_steps(threads: int) -> None:
    command = [sys.executable, "-c", INTERRUPTED.replace("THREADS", str(threads))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.7)
        sent = time.time()
        os.kill(process.pid, signal.SIGINT)
        stopped = float(process.stdout.readline())
        assert process.wait(timeout=120) == 0
    assert stopped - sent < 0.2


MEMORY = """
import resource, numpy as np, lamella
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
X = np.ones((100_000, 100), "f"); X[::2] = 0; y = np.zeros(len(X), int); y[::2] = 1
config = {"layers": (100, 8, 2), "output": "softmax", "batch_size": 1000}
lamella.fit_many([config], X, y)
before = peak()
lamella.fit_many([config] * 2, X, y, cv=5)
print(peak() - before)
before = peak()
wide = {"layers": (100, 2000, 2), "output": "softmax", "batch_size": 1000}
lamella.fit_many([{**wide, "seed": s} for s in range(20)], X[:1000], y[:1000])
print(peak() - before)
"""


def test_folds_and_states_need_no_memory_of_their_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    data, states = map(float, done.stdout.split())
    assert data < 30  # X has 38 MB, its five folds 152
    # 20 networks of 2 x 0.8 MB; the states of all would add 33 MB, their workspaces 330
    assert states < 80


@pytest.mark.parametrize("name", ["search_grid", "search_random", "search_optuna"])
def test_an_example_finds_a_network_that_knows_the_digits(name: str) -> None:
    if name == "search_optuna":
        pytest.importorskip("optuna")
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, check=True
    )
    *lines, last = done.stdout.splitlines()
    assert last.startswith("the best on all rows: healthy")
    rows = [line.split() for line in lines[1:]]
    column = {"search_grid": 2, "search_random": -1, "search_optuna": 1}[name]
    accuracies = [float(row[column]) for row in rows]
    assert max(accuracies) > 0.96


def test_losses_may_differ() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 6)), rng.standard_normal(60)
    losses = ["mean_squared_error", "huber", lamella.Huber(0.5), "mean_absolute_error"]
    configs = [{"layers": [6, 8, 1], "loss": loss, "epochs": 2} for loss in losses]
    for config, fitted in zip(configs, lamella.fit_many(configs, X, y), strict=True):
        net = lamella.Network(config["layers"], loss=config["loss"])  # type: ignore[arg-type]
        history = net.fit(X, y, epochs=2)
        assert fitted.history is not None
        np.testing.assert_array_equal(fitted.history.loss, history.loss)


def test_a_loss_in_python_is_refused() -> None:
    config = {"layers": [2, 1], "loss": lambda logits, y: (0.0, 0 * logits)}
    with pytest.raises(ValueError, match=r"configs\[0\]: loss: expected one of the core"):
        lamella.fit_many([config], np.ones((4, 2)), np.ones(4))
