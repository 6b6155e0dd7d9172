"""The same seed gives the same bits: whatever the threads and the instruction set."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import lamella
from lamella import _core

SCRIPT = """
import hashlib, sys
import numpy as np
import lamella
shapes = [([3, 5, 2], 1, 1), ([7, 33, 18, 3], 37, 11), ([4, 1, 2], 9, 4),
          ([10000, 20, 3], 6, 6), ([8, 17, 3], 5000, 5000)]
for dims, m, batch in shapes:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((m, dims[0])).astype("f"), rng.integers(0, dims[-1], m)
    net = lamella.Network(dims, hidden="tanh", output="softmax")
    epochs = 200 // -(-m // batch) if m < 5000 else int(sys.argv[2])
    net.fit(X, y, epochs=epochs, batch_size=batch, threads=int(sys.argv[1]))
    flat = b"".join(v.tobytes() for v in net.parameters.values())
    print(hashlib.sha256(flat).hexdigest())
"""


def hashes(isa: str, threads: int, epochs: int) -> str:
    """Train in a process of its own; return the weights' hashes."""
    environment = {**os.environ, "LAMELLA_ISA": isa}
    command = [sys.executable, "-c", SCRIPT, str(threads), str(epochs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def scalar() -> str:
    """Return the oracle's hashes."""
    return hashes("scalar", 1, 20)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable", "scalar"])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_bits_depend_on_neither_threads_nor_instructions(
    isa: str, threads: int, scalar: str
) -> None:
    if isa not in _core.info()["available"]:
        pytest.skip(f"this CPU has no {isa}")
    if isa in ("portable", "scalar") and threads not in (1, 3):
        pytest.skip("slow: two counts of threads suffice here")
    assert hashes(isa, threads, 20) == scalar


def test_two_fits_are_one() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    once, twice = (lamella.Network([6, 20, 3], output="softmax") for _ in range(2))
    once.fit(X, y, epochs=10, batch_size=16)
    twice.fit(X, y, epochs=5, batch_size=16)
    twice.fit(X, y, epochs=5, batch_size=16)
    for name, value in once.parameters.items():
        assert (value == twice.parameters[name]).all()
