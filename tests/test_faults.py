"""Bad input is an exception that says why; nothing aborts, hangs or changes the input."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import lamella

X = np.random.default_rng(0).standard_normal((20, 4))
Y = np.arange(20) % 3


def fitted() -> lamella.Network:
    """Return a small network that has trained."""
    net = lamella.Network([4, 8, 3], output="softmax")
    net.fit(X, Y, epochs=2)
    return net


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (X[:, :3], Y, {}, "^X: "),
        (X[:0], Y[:0], {}, "^X: "),
        (X, Y[:5], {}, "^y: "),
        (X, Y + 1, {}, "^y: "),
        (X, Y - 1, {}, "^y: "),
        (np.where(X[3, 1] == X, np.nan, X), Y, {}, "row 3, column 1"),
        (np.where(X[3, 1] == X, np.inf, X), Y, {}, "row 3, column 1"),
        (X.astype(complex), Y, {}, "^X: "),
        (X.astype(str), Y, {}, "^X: "),
        (X, Y, {"learning_rate": -1.0}, "learning_rate"),
        (X, Y, {"batch_size": 0}, "batch_size"),
        (X, Y, {"epochs": -1}, "epochs"),
        (X, Y, {"threads": 0}, "threads"),
        (X, Y, {"threads": -1}, "threads"),
        (X, Y, {"optimizer": "magic"}, "optimizer"),
    ],
)
def test_bad_arguments_are_refused(x: Any, y: Any, options: dict[str, Any], message: str) -> None:
    net = fitted()
    before = {name: value.copy() for name, value in net.parameters.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        net.fit(x, y, **options)
    for name, value in net.parameters.items():
        assert (value == before[name]).all()


def test_absurd_numbers_of_threads_and_epochs_abort_nothing() -> None:
    net = fitted()
    assert len(net.fit(X, Y, epochs=1, threads=10**12)) == 1

    def stop(epoch: int, loss: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        net.fit(X, Y, epochs=10**15, progress=stop)
    assert np.isfinite(net.fit(X, Y, epochs=1).loss).all()


@pytest.mark.parametrize(
    "layers", [[], [4], [4, 2**62, 3], [2**62, 3], [4, 0, 3], [0, 3], [4, -1, 3], [4, 2.5, 3]]
)
def test_impossible_networks_are_refused(layers: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError, MemoryError)):
        lamella.Network(layers)


def test_shapes_are_named() -> None:
    parameters = lamella.initialize_parameters_deep([12, 20, 7, 1])
    parameters["W2"] = np.zeros((7, 21))
    with pytest.raises(ValueError, match=r"W2: expected shape \(7, 20\), got \(7, 21\)"):
        lamella.L_model_forward(np.zeros((12, 3)), parameters)


def test_inputs_may_be_read_only_and_stay_as_they_are() -> None:
    x, y = X.copy(), Y.copy()
    x.flags.writeable = y.flags.writeable = False
    fitted().fit(x, y, epochs=1)
    assert (x == X).all()
    assert (y == Y).all()


def test_divergence_names_step_and_layer() -> None:
    net = lamella.Network([4, 8, 1], dtype="float32")
    with pytest.raises(lamella.DivergenceError, match=r"step \d+.*layer \d"):
        net.fit(1e18 * X, 1e18 * X[:, 0], epochs=50, optimizer="sgd", learning_rate=1e3)


def child(queue: Any) -> None:
    """Fit in a forked process."""
    queue.put(float(fitted().fit(X, Y, epochs=3, threads=2).loss[-1]))


def test_a_fit_after_fork_works() -> None:
    fitted().fit(X, Y, epochs=3, threads=2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert np.isfinite(queue.get(timeout=60))
    process.join()


def test_other_threads_run_during_a_fit() -> None:
    net = lamella.Network([200, 300, 3], output="softmax")
    x, y = np.random.default_rng(0).standard_normal((2000, 200)), np.arange(2000) % 3
    done = threading.Event()

    def work() -> None:
        net.fit(x, y, epochs=20)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    ticks = 0
    while not done.is_set():
        ticks += 1
        time.sleep(0.001)
    worker.join()
    assert ticks > 5


INTERRUPTED = """
import numpy as np, time, lamella
X = np.random.default_rng(0).standard_normal((4000, 300)); y = np.arange(4000) % 3
net = lamella.Network([300, 500, 500, 3], output="softmax", dropout=DROPOUT)
print("ready", flush=True)
try:
    net.fit(X, y, epochs=100000, batch_size=BATCH, threads=THREADS)
except KeyboardInterrupt:
    print(time.time(), flush=True)
assert np.isfinite(net.fit(X, y, epochs=1).loss).all()
"""


@pytest.mark.parametrize(
    ("batch", "threads", "dropout"),
    # The last two: threads that share products, and fewer slices of a batch than threads.
    [(32, None, 0), (4000, None, 0), (16, 2, 0), (16, 2, 0.1)],
)
def test_interrupts_stop_a_fit_soon_and_leave_the_model_usable(
    batch: int, threads: int | None, dropout: float
) -> None:
    script = INTERRUPTED.replace("BATCH", str(batch)).replace("THREADS", str(threads))
    script = script.replace("DROPOUT", str(dropout))
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.0)
        sent = time.time()
        os.kill(process.pid, signal.SIGINT)
        stopped = float(process.stdout.readline())
        assert process.wait(timeout=120) == 0
    assert stopped - sent < 0.2


MEMORY = """
import resource, numpy as np, lamella
X = np.ones((1_000_000, 64), "f"); X[::2] = 0; y = np.zeros(len(X)); y[::2] = 1
net = lamella.Network([64, 32, 1], output="sigmoid")
net.fit(X[:5000], y[:5000], epochs=1, batch_size=None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
net.fit(X, y, epochs=2, batch_size=None)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_full_batch_of_a_million_rows_needs_little_memory() -> None:
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100


SHORT = """
import resource, numpy as np, lamella
X, y = np.ones((4, 6000), "f4"), np.ones(4)
def trained(meets_a_limit):
    net = lamella.Network([6000, 2000, 1], seed=1)
    momentum = {"epochs": 3, "optimizer": "momentum", "learning_rate": 1e-4, "threads": 1}
    net.fit(X, y, **momentum)
    if meets_a_limit:
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20), resource.RLIM_INFINITY))
        try:
            net.fit(X, y, optimizer="adam", threads=1)  # one array of 48 MB more
        except MemoryError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    net.fit(X, y, **momentum)
    return net.parameters["W1"].tobytes()
print(trained(True) == trained(False))
"""


def test_a_fit_without_room_for_its_state_leaves_the_other_optimizers() -> None:
    command = [sys.executable, "-c", SHORT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    message, same = done.stdout.splitlines()
    assert message.startswith("network: optimizer state")
    assert same == "True"
