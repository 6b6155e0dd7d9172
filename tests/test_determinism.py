"""The same seed gives the same bits: whatever the threads and the instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import _core

SCRIPT = """
import hashlib, sys
import numpy as np
import lamella
if sys.argv[2:] == ["flush"]:
    # ldmxcsr [rdi]; ret: flush-to-zero and denormals-are-zero for this thread
    import ctypes, mmap
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes([0x0F, 0xAE, 0x17, 0xC3]))
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    load = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    load(ctypes.addressof(ctypes.c_uint32(0x9FC0)))
    assert np.float32(1e-38) * np.float32(1e-3) == 0
shapes = [([3, 5, 2], 1, 1), ([7, 33, 18, 3], 37, 11), ([4, 1, 2], 9, 4),
          ([10000, 20, 3], 6, 6), ([8, 17, 3], 5000, 5000),
          # Later layers whose sums run along their inputs, of more than a panel of units.
          ([6, 300, 33, 3], 21, 8), ([6, 100, 9, 2], 21, 8),
          # Too small for slices: threads share products, also with sums of two segments.
          ([300, 520, 330, 37], 21, 8), ([9, 70, 4200, 40, 2], 3, 1),
          # Zero in so many places that products skip them; sums of two segments.
          ([500, 70, 3], 400, 150), ([4500, 45, 3], 90, 90)]
for case, (dims, m, batch) in enumerate(shapes):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((m, dims[0])).astype("f"), rng.integers(0, dims[-1], m)
    if dims[0] in (500, 4500):
        X *= rng.random(X.shape) < 0.1
    dtype = "float64" if dims[1] in (100, 45) else "float32"
    net = lamella.Network(dims, hidden="tanh", output="softmax", dtype=dtype)
    steps = 200 if case < 5 else 48 if max(dims[1:]) < 4000 else 12
    epochs = steps // -(-m // batch)
    net.fit(X, y, epochs=epochs, batch_size=batch, threads=int(sys.argv[1]))
    flat = b"".join(v.tobytes() for v in net.parameters.values())
    print(hashlib.sha256(flat).hexdigest())
tiny = np.full((5, 3), 90000, "u4").view("f")  # subnormal, made from bits
answers = lamella.Network([3, 4, 2], hidden="identity").decision_function(tiny)
print(answers.view("u4").tolist())
"""


def hashes(isa: str, threads: int, *options: str) -> str:
    """Train in a process of its own; return the weights' hashes."""
    environment = {**os.environ, "LAMELLA_ISA": isa}
    command = [sys.executable, "-c", SCRIPT, str(threads), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def scalar() -> str:
    """Return the oracle's hashes."""
    return hashes("scalar", 1)


# The two that are slow run once, beside the oracle itself.
RUNS = [(isa, threads) for isa in ("avx512", "avx2") for threads in (1, 2, 3, 7)]
RUNS += [("portable", 3), ("scalar", 3)]


@pytest.mark.parametrize(("isa", "threads"), RUNS)
def test_bits_depend_on_neither_threads_nor_instructions(
    isa: str, threads: int, scalar: str
) -> None:
    if isa not in _core.info()["available"]:
        pytest.skip(f"this CPU has no {isa}")
    assert hashes(isa, threads) == scalar


@pytest.mark.skipif(_core.info()["arch"] != "x86_64", reason="sets a register of x86-64")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_caller_who_flushes_subnormals_changes_no_bit(threads: int, scalar: str) -> None:
    assert hashes(_core.info()["isa"], threads, "flush") == scalar


def test_two_fits_are_one() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    once, twice = (lamella.Network([6, 20, 3], output="softmax") for _ in range(2))
    once.fit(X, y, epochs=10, batch_size=16)
    twice.fit(X, y, epochs=5, batch_size=16)
    twice.fit(X, y, epochs=5, batch_size=16)
    for name, value in once.parameters.items():
        assert (value == twice.parameters[name]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_threads_that_share_a_prediction_change_no_bit(rows: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    # Sums of two segments among them.
    net = lamella.Network([700, 4200, 600, 7], output="softmax", dtype=dtype)
    X, y = rng.standard_normal((rows, 700)).astype(dtype), rng.integers(0, 7, rows)
    alone = net.predict_proba(X, threads=1)
    expected = net.evaluate(X, y, threads=1)
    for threads in (2, 3, 7, None):
        assert net.predict_proba(X, threads=threads).tobytes() == alone.tobytes()
        assert net.evaluate(X, y, threads=threads) == expected


WIDE = [90, 700, 500, 3]  # a batch of few rows of it is shared panel by panel


class Stop(lamella.Callback):
    """Ends a fit inside an epoch."""

    every = 5

    def on_step(self, step: int, loss: float, network: lamella.Network) -> bool:
        return True


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "learning_rate": 0.1, "clip_norm": 0.5},
        {"sample_weight": np.arange(21) % 3},
        {"average": 0.9, "callbacks": [Stop()]},
    ],
    ids=["clipped", "weighted", "stopped"],
)
def test_threads_that_share_products_change_no_bit(settings: dict[str, Any], threads: int) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((21, 90)), rng.integers(0, 3, 21)
    kept = []
    for count in (1, threads):
        net = lamella.Network(WIDE, output="softmax", dtype="float64", l1=1e-3, l2=1e-2)
        history = net.fit(X, y, epochs=4, batch_size=8, threads=count, **settings)
        net.partial_fit(X[:5], y[:5], threads=count)
        loss, gradients = net.loss_and_gradients(X[:9], y[:9], threads=count)
        numbers = [*net.parameters.values(), *gradients.values(), history.loss, np.array(loss)]
        kept.append([value.tobytes() for value in numbers])
    assert kept[0] == kept[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_divergence_is_named_where_threads_share_products(threads: int) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((16, 90)), rng.standard_normal(16)
    net = lamella.Network([*WIDE[:-1], 1], output="identity")
    start = net.parameters
    settings: dict[str, Any] = {"optimizer": "sgd", "batch_size": 8, "threads": threads}
    with pytest.raises(lamella.DivergenceError, match=r"step 2: layer 2"):
        net.fit(X, y, learning_rate=1e30, epochs=9, **settings)
    net.parameters = start
    assert np.isfinite(net.fit(X, y, learning_rate=1e-3, epochs=2, **settings).loss).all()


def test_an_estimators_epochs_share_products() -> None:
    estimators = pytest.importorskip("lamella.sklearn")
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((16, 700)), np.arange(16) % 3
    coefficients = []
    for threads in (1, 2):
        model = estimators.MLPClassifier(
            (600,), max_iter=3, batch_size=8, random_state=0, threads=threads
        )
        with pytest.warns(UserWarning, match="Maximum iterations"):
            model.fit(X, y)
        coefficients.append([array.tobytes() for array in model.coefs_])
    assert coefficients[0] == coefficients[1]
