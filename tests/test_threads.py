"""Threads never hurt: limits are obeyed, neighbours share, and small calls stay small.

Times are compared with one another only, as minima of alternating runs, with generous margins.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads and binds as Linux does")
needs_two = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two processors"
)

TEAM = """
import os, sys
from pathlib import Path
import numpy as np
import lamella

def team(threads=None):
    sizes = []

    def name(task):
        try:
            return (task / "comm").read_text()
        except OSError:  # it ended meanwhile
            return ""

    def look(epoch, loss):
        tasks = Path("/proc/self/task").iterdir()
        sizes.append(1 + sum(name(task) == "lamella\\n" for task in tasks))

    X = np.ones((2000, 256), "f")
    net = lamella.Network([256, 512, 512, 4], output="softmax")
    net.fit(X, np.arange(2000) % 4, batch_size=None, epochs=3, threads=threads, progress=look)
    return sizes[1]  # the first may see threads of the fit before, the last no longer all
"""
"""Defines a function that fits what is worth sharing and returns how many threads took part."""


def run(script: str, **environment: str) -> str:
    """Run a script that may call `team`; return what it prints."""
    names = ("LAMELLA_NUM_THREADS", "OMP_NUM_THREADS")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-W", "error", "-c", TEAM + script]
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- limits -------------------------------------------------------------------------------------


@needs_two
def test_a_large_fit_is_shared_and_threads_bound_it() -> None:
    assert run("print(team(), team(1), team(2), team(3))").split()[1:] == ["1", "2", "3"]
    assert int(run("print(team())")) >= 2


@needs_linux
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LAMELLA_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1,4"}, 1),
        ({"LAMELLA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}, 2),
    ],
)
def test_the_environment_bounds_the_threads(environment: dict[str, str], expected: int) -> None:
    assert run("print(team())", **environment) == str(expected)


@needs_two
def test_a_process_bound_to_one_processor_uses_one_thread() -> None:
    script = """
print(team() > 1)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(team())
"""
    assert run(script).split() == ["True", "1"]


@needs_two
@pytest.mark.parametrize("first", ["threadpoolctl", "lamella"])
def test_threadpoolctl_bounds_the_threads(first: str) -> None:
    pytest.importorskip("threadpoolctl")
    script = """
import importlib.util, pickle
spec = importlib.util.find_spec("threadpoolctl")  # to ask whether it is there is not to import it
assert "threadpool_limits" in spec.loader.get_source("threadpoolctl")
assert pickle.loads(pickle.dumps(spec)).origin == spec.origin
from threadpoolctl import threadpool_info, threadpool_limits
lamella.threadpool.register()  # once more changes nothing
found = [library for library in threadpool_info() if library["user_api"] == "lamella"]
print(len(found), found[0]["version"] == lamella.__version__)
with threadpool_limits(1):
    print(team(), team(2), lamella._core.info()["threads"])
with threadpool_limits(1, user_api="lamella"):
    print(team())
print(team() > 1)
del sys.modules["threadpoolctl"]
import threadpoolctl  # another one
lamella.threadpool.register()
with threadpoolctl.threadpool_limits(1):
    print(team())
"""
    if first == "threadpoolctl":
        script = TEAM.replace("import lamella", "import threadpoolctl, lamella") + script
    assert run(script).split() == ["1", "True", "1", "2", "1", "1", "True", "1"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "imported"),
        ("def register(controller): ...", "imported"),
        ("LibController = object\ndef register(controller): 1 / 0", "imported"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_threadpoolctl_that_cannot_be_registered_with_is_left_alone(
    body: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "threadpoolctl.py").write_text(body)
    script = """
import sys
import lamella
sys.path.insert(0, sys.argv[1])
try:
    import threadpoolctl
    print("imported")
except Exception as error:
    print(type(error).__name__)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout.strip(), done.returncode) == (said, 0), done.stderr


@needs_two
def test_joblibs_workers_share_the_processors() -> None:
    pytest.importorskip("joblib")
    script = """
from joblib import Parallel, cpu_count, delayed
teams = Parallel(n_jobs=cpu_count())(delayed(team)() for _ in range(2 * cpu_count()))
print(max(teams))
teams = Parallel(n_jobs=2)(delayed(team)() for _ in range(4))
print(max(teams) <= max(1, cpu_count() // 2))
"""
    assert run(script).split() == ["1", "True"]


# --- children -----------------------------------------------------------------------------------


def problem(rows: int = 1000) -> tuple[lamella.Network, Any, Any]:
    """Return a network and data whose full batch takes milliseconds."""
    X = np.random.default_rng(0).standard_normal((rows, 128)).astype("f")
    return lamella.Network([128, 256, 128, 4], output="softmax"), X, np.arange(rows) % 4


def train(threads: int | None, epochs: int = 3) -> float:
    """Fit on full batches; return the last loss."""
    net, X, y = problem()
    loss = net.fit(X, y, batch_size=None, epochs=epochs, threads=threads).loss[-1]
    net.predict(X)
    return float(loss)


def child(queue: Any, threads: int | None) -> None:
    """Fit in another process."""
    queue.put(train(threads))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("threads", [None, 2])
def test_a_child_process_fits_to_the_same_bits(method: str, threads: int | None) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    expected = train(threads)
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, threads))
    process.start()
    assert queue.get(timeout=120) == expected
    process.join()


def test_threads_may_predict_with_one_network_at_once() -> None:
    net, X, _ = problem(600)
    expected = {rows: net.predict_proba(X[:rows]) for rows in (1, 7, 300, 600)}
    wrong: list[object] = []

    def ask(threads: int | None) -> None:
        try:
            for n in range(400):
                rows = (1, 7, 300, 600)[n % 4]
                answers = net.predict_proba(X[:rows], threads=threads)
                if not (answers == expected[rows]).all():
                    wrong.append(rows)
        except BaseException as error:
            wrong.append(error)

    askers = [threading.Thread(target=ask, args=(threads,)) for threads in (None, 1, 2, None)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert not wrong


# --- times --------------------------------------------------------------------------------------


def fastest(works: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return each work's least seconds, of runs that alternate."""
    least = [np.inf] * len(works)
    for _ in range(rounds):
        for i, work in enumerate(works):
            begin = time.perf_counter()
            work()
            least[i] = min(least[i], time.perf_counter() - begin)
    return least


def spin(processor: int) -> None:
    """Keep one processor busy."""
    os.sched_setaffinity(0, {processor})
    while True:
        pass


@needs_two
def test_a_busy_processor_does_not_make_two_threads_slow() -> None:
    mine = os.sched_getaffinity(0)
    two = sorted(mine)[:2]
    neighbour = multiprocessing.get_context("fork").Process(target=spin, args=(two[1],))
    neighbour.start()
    os.sched_setaffinity(0, two)
    try:
        net, X, y = problem()
        options: dict[str, Any] = {"batch_size": 200, "epochs": 20}
        one, shared = fastest(
            [
                lambda: net.fit(X, y, threads=1, **options),
                lambda: net.fit(X, y, threads=2, **options),
            ],
            7,
        )
    finally:
        os.sched_setaffinity(0, mine)
        neighbour.kill()
        neighbour.join()
    assert shared < 1.6 * one


@needs_two
def test_fits_at_once_take_little_longer_than_in_turn() -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:2])
    try:
        fits = [problem() for _ in range(4)]

        def fit(n: int) -> None:
            net, X, y = fits[n]
            net.fit(X, y, batch_size=200, epochs=10)

        def in_turn() -> None:
            for n in range(4):
                fit(n)

        def at_once() -> None:
            workers = [threading.Thread(target=fit, args=(n,)) for n in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        turn, once = fastest([in_turn, at_once], 7)
    finally:
        os.sched_setaffinity(0, mine)
    assert once < 1.6 * turn


def test_a_small_call_costs_microseconds_not_milliseconds() -> None:
    net = lamella.Network([2, 16, 16, 1], output="sigmoid")
    X = np.random.default_rng(0).standard_normal((32, 2)).astype("f")
    y = (X[:, :1] > 0).astype("f")
    works: list[Callable[[], object]] = [
        lambda: net.fit(X, y),
        lambda: net.partial_fit(X, y),
        lambda: net.predict(X[:1]),
    ]
    # An order of magnitude above what they take, and below what looking up the processors would.
    fit, partial_fit, predict = fastest(works, 2000)
    assert fit < 60e-6
    assert partial_fit < 40e-6
    assert predict < 20e-6


# --- one network from several threads ---


def test_reading_goes_on_beside_answers(tmp_path: Path) -> None:
    """A checkpoint is written while others ask."""
    net = lamella.Network([40, 200, 3], output="softmax", norm="batch")
    X = np.random.default_rng(0).standard_normal((4000, 40))
    wanted, ends = net.predict_proba(X, threads=1), threading.Event()

    def answers() -> int:
        rounds = 0
        while not ends.is_set():
            assert (net.predict_proba(X, threads=1) == wanted).all()
            rounds += 1
        return rounds

    with ThreadPoolExecutor() as pool:
        asked = pool.submit(answers)
        try:
            for _ in range(20):
                assert net.parameters["W1"].shape == (200, 40)
                assert len(net.statistics) == 2
                net.save(tmp_path / "net", state=True)
                assert (copy.deepcopy(net).predict_proba(X, threads=1) == wanted).all()
        finally:
            ends.set()
        assert asked.result() > 0


def test_a_network_that_trains_in_another_thread_says_so() -> None:
    net = lamella.Network([40, 200, 3], output="softmax")
    X = np.random.default_rng(0).standard_normal((4000, 40))
    y, begun, goes_on = np.arange(4000) % 3, threading.Event(), threading.Event()

    def wait(z: Any, t: Any) -> tuple[float, Any]:
        begun.set()
        goes_on.wait(60)
        return 0.0, np.zeros_like(z)

    slow = lamella.Network([40, 3], loss=wait)
    with ThreadPoolExecutor() as pool:
        fitted = pool.submit(slow.fit, X, X[:, :3], epochs=1, batch_size=None)
        assert begun.wait(60)
        try:
            for use in (slow.predict, lambda rows: slow.parameters, lambda rows: slow.steps):
                with pytest.raises(RuntimeError, match=r"^network: expected one at rest, got one"):
                    use(X)
            net.fit(X, y, epochs=1)  # another network
        finally:
            goes_on.set()
        assert len(fitted.result().loss) == 1
    assert slow.steps == 1
