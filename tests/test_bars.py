"""Bars: who sees one, when, and that nothing else changes."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import bars

pytest.importorskip("tqdm")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer"),
    pytest.mark.filterwarnings("ignore:lbfgs failed"),
]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have bars look often."""
    monkeypatch.setattr(bars, "TICK", 1e-4)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have bars appear soon."""
    monkeypatch.setattr(bars, "DELAY", 1e-9)


def seen(work: Callable[[], object]) -> str:
    """Return what somebody at a terminal sees of some work."""
    with contextlib.redirect_stderr(Terminal()) as screen:
        work()
    return screen.getvalue()


def network() -> lamella.Network:
    return lamella.Network([4, 6, 2], output="softmax")


def estimator(**settings: Any) -> Any:
    pytest.importorskip("sklearn")
    from lamella.sklearn import MLPClassifier

    given: dict[str, Any] = {"hidden_layer_sizes": (6,), "max_iter": 5, "random_state": 0}
    return MLPClassifier(**given | {"tol": 0.0} | settings)


def test_a_short_fit_shows_nothing() -> None:
    assert seen(lambda: network().fit(X, Y, epochs=5)) == ""


@pytest.mark.usefixtures("soon")
def test_a_bar_appears_by_itself_on_a_terminal() -> None:
    assert seen(lambda: network().fit(X, Y, epochs=5, progress=False)) == ""
    text = seen(lambda: network().fit(X, Y, epochs=5, validation_fraction=0.2))
    for part in ("10/10", "loss=", "val_accuracy=", "steps/s"):
        assert part in text
    assert "?" not in text  # it knows the speed


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.usefixtures("soon")
def test_a_bar_changes_no_bit(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(bars, "TICK", 1e-6)  # a look at every step or two
    plain, other = network(), network()
    wanted = plain.fit(X, Y, epochs=40, batch_size=16, progress=False).loss
    losses: list[Any] = []
    text = seen(
        lambda: losses.extend(other.fit(X, Y, epochs=40, batch_size=16, threads=threads).loss)
    )
    assert "200/200" in text
    assert (np.array(losses) == wanted).all()
    for name, array in plain.parameters.items():
        assert (other.parameters[name] == array).all()


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.1}, {"solver": "lbfgs"}], ids=str)
@pytest.mark.usefixtures("soon")
def test_a_bar_of_an_estimator(settings: dict[str, Any]) -> None:
    settings |= {"batch_size": 40}
    unit, end = ("iterations", "5/5") if "solver" in settings else ("steps", "10/10")
    shown = estimator(**settings)
    text = seen(lambda: shown.fit(X, Y))
    for part in ("loss=", f"{unit}/s", end):
        assert part in text
    plain = estimator(**settings, progress=False)
    assert seen(lambda: plain.fit(X, Y)) == ""
    for ours, theirs in zip(shown.coefs_, plain.coefs_, strict=True):
        assert (ours == theirs).all()
    assert shown.loss_ == plain.loss_
    assert shown.n_iter_ == plain.n_iter_
    heard: list[tuple[int, float]] = []
    model = estimator(**settings, progress=lambda epoch, loss: heard.append((epoch, loss)))
    assert seen(lambda: model.fit(X, Y)) == ""
    assert [epoch for epoch, _ in heard] == list(range(5))
    assert heard[-1][1] == model.loss_
    if "solver" not in settings:  # one epoch; lines and a bar do not mix
        assert seen(lambda: model.set_params(progress=None).partial_fit(X, Y)) == ""
        assert seen(lambda: estimator(**settings, verbose=True).fit(X, Y)) == ""


@pytest.mark.usefixtures("soon")
def test_a_bar_that_ends_early_is_a_whole_one() -> None:
    stop = [lambda epoch, logs, net: epoch == 3]
    text = seen(lambda: network().fit(X, Y, epochs=50, callbacks=stop))
    assert "12/12" in text.split("\r")[-1]


@pytest.mark.usefixtures("soon")
def test_bars_of_other_fits() -> None:
    configs = [{"layers": [4, 2], "output": "softmax"}] * 3
    text = seen(lambda: lamella.fit_many(configs, X, Y))
    assert "3/3" in text
    assert "networks/s" in text
    # A search may end anywhere.
    assert seen(lambda: network().find_learning_rate(X, Y, steps=20)) == ""
    pytest.importorskip("scipy")
    assert "4/4" in seen(lambda: network().fit(X, Y, epochs=4, optimizer="lbfgs"))


@pytest.mark.usefixtures("soon")
def test_without_tqdm_no_bar_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert seen(lambda: network().fit(X, Y, epochs=5)) == ""
    assert seen(lambda: estimator().fit(X, Y)) == ""


def test_who_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not bars.is_watched()
    kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
    shell = types.SimpleNamespace(get_ipython=lambda: kernel)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert not bars.is_watched()
    monkeypatch.setitem(sys.modules, "ipykernel", shell)
    assert bars.is_watched()
    worker = types.SimpleNamespace(parent_process=lambda: "another")
    monkeypatch.setitem(sys.modules, "multiprocessing.process", worker)
    assert not bars.is_watched()
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.delitem(sys.modules, "ipykernel")
    assert not bars.is_watched()


def test_a_fit_in_a_pseudo_terminal() -> None:
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    script = (
        "import sys, numpy as np, lamella\n"
        "net = lamella.Network([4, 6, 2], output='softmax')\n"
        "X, y = np.ones((80, 4), 'f'), np.arange(80) % 2\n"
        "net.fit(X, y)\n"
        "assert not any(name.startswith('tqdm') for name in sys.modules)\n"
        "net.fit(X, y, epochs=10**9, time_limit=0.8)\n"
        "assert 'tqdm' in sys.modules\n"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 1 << 16):
            text += part
    except OSError:  # the terminal is gone when nobody writes to it any more
        pass
    os.close(ours)
    assert process.wait() == 0, text.decode()
    assert b"loss=" in text
    assert b"steps/s" in text
