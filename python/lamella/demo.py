"""The demo: a real network trained on real data, and the same training by the NumPy reference.

Owns what ``lamella demo`` prints and draws. Everything it states, it has measured a moment
before. tqdm (progress bar) and matplotlib (picture) are used where they are installed.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella import _core, reference
from lamella.commands.targets import check_picture
from lamella.datasets import load_digits
from lamella.network import Network

__all__ = ["Settings", "run"]

HELD_OUT = 5  # one image in five is kept for the test
INK = 16  # the value of a black pixel
EXAMPLES = (5, 6)  # rows and columns of test images in the picture

Array = NDArray[Any]
Report = Callable[[int, float], object]


@dataclass(frozen=True)
class Settings:
    """What the demo trains, and what it does besides."""

    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 60
    batch_size: int = 32
    dtype: str = "float64"
    seed: int = 0
    threads: int | None = None
    reference: bool = True
    plot: Path | None = Path("lamella-demo.png")


@dataclass(frozen=True)
class Digits:
    """The digits, pixels from 0 to 1, and a fixed fifth of them held out."""

    X_train: Array  # (1438, 64)
    y_train: NDArray[np.uint8]
    X_test: Array  # (359, 64)
    y_test: NDArray[np.uint8]

    @classmethod
    def load(cls, dtype: str) -> "Digits":
        """Load and split them; the split is the same in every run."""
        X, y = load_digits()
        scaled = X.astype(dtype) / INK
        order = np.random.RandomState(0).permutation(len(y))
        test, train = np.split(order, [len(y) // HELD_OUT])
        return cls(scaled[train], y[train], scaled[test], y[test])


@dataclass(frozen=True)
class Training:
    """What a training ended with: parameters, the loss of each epoch, and its seconds."""

    parameters: dict[str, Array]
    losses: Array
    seconds: float


def run(settings: Settings) -> None:
    """Train, test, compare and draw, printing what happens.

    Raises
    ------
    ValueError, DivergenceError
        If the settings cannot be trained.
    OSError
        If the picture cannot be written.
    """
    if settings.plot is not None:
        check_picture(settings.plot)
    digits = Digits.load(settings.dtype)
    n_classes = int(digits.y_train.max()) + 1
    layers = [digits.X_train.shape[1], *settings.hidden, n_classes]
    network = Network(layers, output="softmax", dtype=settings.dtype, seed=settings.seed)
    start = plain(network.parameters)
    say("data", f"{len(digits.y_train)} handwritten digits, {len(digits.y_test)} held out")
    say("network", f"{'-'.join(map(str, layers))}, relu, softmax; {settings.dtype}")

    ours = train(network, digits, settings)
    report_training(ours, network, digits, settings)
    theirs = None
    if settings.reference:
        theirs = train_reference(start, digits, settings)
        report_comparison(ours, theirs)
    if settings.plot is not None:
        draw_if_possible(settings.plot, network, digits, ours, theirs)


def train(network: Network, digits: Digits, settings: Settings) -> Training:
    """Train the network in one call."""
    with progress("lamella", settings.epochs) as report:
        began = time.perf_counter()
        history = network.fit(
            digits.X_train,
            digits.y_train,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            optimizer="adam",
            threads=settings.threads,
            progress=report,
        )
        seconds = time.perf_counter() - began
    return Training(plain(network.parameters), history.loss, seconds)


def train_reference(start: dict[str, Array], digits: Digits, settings: Settings) -> Training:
    """Train from the same start, in the same order, by the NumPy reference."""
    with progress("reference", settings.epochs) as report:
        began = time.perf_counter()
        parameters, losses = reference.fit(
            {name: a if a.ndim == 2 else a[:, None] for name, a in start.items()},
            digits.X_train.T,
            digits.y_train,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            optimizer="adam",
            output="softmax",
            seed=settings.seed,
            report=report,
        )
        seconds = time.perf_counter() - began
    return Training(plain(parameters), losses, seconds)


def plain(parameters: dict[str, Array]) -> dict[str, Array]:
    """Copy parameters, biases as vectors."""
    return {
        name: array.copy() if name.startswith("W") else array.ravel().copy()
        for name, array in parameters.items()
    }


def report_training(ours: Training, network: Network, digits: Digits, settings: Settings) -> None:
    """Print how well and how fast the network was trained."""
    images = min(settings.batch_size, len(digits.y_train))
    steps = settings.epochs * -(-len(digits.y_train) // images)
    accuracy = float(np.mean(network.predict(digits.X_test) == digits.y_test))
    say("accuracy", f"{accuracy:.2%} of the test images")
    say("time", f"{ours.seconds:.3f} s for {steps:,} steps on {kernels()}")
    say("speed", f"{steps / ours.seconds:,.0f} steps a second, {images} images each")


def kernels() -> str:
    """Name the kernels in use."""
    return f"{_core.info()['isa']} kernels"


def report_comparison(ours: Training, theirs: Training) -> None:
    """Print how far apart the two trainings ended, and how much faster one was."""
    names = ours.parameters
    worst = max(names, key=lambda name: difference(ours, theirs, name))
    say("reference", f"{theirs.seconds:.3f} s for the same training in NumPy")
    say("agreement", f"no parameter differs by more than {difference(ours, theirs, worst):.1e}")
    say("speed-up", f"{theirs.seconds / ours.seconds:.1f}x")


def difference(ours: Training, theirs: Training, name: str) -> float:
    """Return the largest difference of a parameter array's entries."""
    return float(np.max(np.abs(ours.parameters[name] - theirs.parameters[name])))


def say(what: str, text: str) -> None:
    """Print one line of the report."""
    print(f"{what:<10} {text}", flush=True)


@contextmanager
def progress(name: str, epochs: int) -> Iterator[Report]:
    """Show progress on standard error: tqdm's bar on a terminal that has it, else a few lines."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    if tqdm is None or not sys.stderr.isatty():
        yield lambda epoch, loss: tell(name, epoch, epochs, loss)
        return
    with tqdm(total=epochs, desc=f"{name:<10}", unit="epoch", leave=False) as bar:

        def update(epoch: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(epoch + 1 - bar.n)

        yield update


def tell(name: str, epoch: int, epochs: int, loss: float) -> None:
    """Print one of about six lines of progress."""
    if epoch % max(1, epochs // 6) == 0 or epoch == epochs - 1:
        print(f"{name:<10} epoch {epoch + 1}/{epochs}, loss {loss:.4f}", file=sys.stderr)


def draw_if_possible(
    path: Path, network: Network, digits: Digits, ours: Training, theirs: Training | None
) -> None:
    """Draw the learning curve where matplotlib is installed, and say what was done."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        say("picture", "none: matplotlib is not installed")
        return
    figure: Any = Figure(figsize=(11, 5), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1), wspace=0.04)
    draw_losses(left.subplots(), ours, theirs)
    draw_examples(right, network, digits)
    figure.savefig(path)
    say("picture", str(path))


def draw_losses(axes: Any, ours: Training, theirs: Training | None) -> None:
    """Draw the loss of every epoch."""
    epochs = np.arange(1, len(ours.losses) + 1)
    axes.semilogy(
        epochs, ours.losses, color="#1f5fa8", linewidth=2.2, label=f"lamella, {ours.seconds:.2f} s"
    )
    if theirs is not None:
        axes.semilogy(
            epochs,
            theirs.losses,
            "o",
            color="#d9622b",
            markersize=4,
            markerfacecolor="none",
            markevery=max(1, len(epochs) // 30),
            label=f"NumPy reference, {theirs.seconds:.2f} s",
        )
    axes.set_title("Learning curve", loc="left", fontsize=13)
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy on the training images")
    axes.set_xlim(0, len(epochs) + 1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(which="major", color="#e4e4e4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=11)


def draw_examples(figure: Any, network: Network, digits: Digits) -> None:
    """Draw test images with what the network takes them for, its mistakes first."""
    predicted = network.predict(digits.X_test)
    right = predicted == digits.y_test
    order = np.argsort(right, kind="stable")
    rows, columns = EXAMPLES
    figure.suptitle(f"{right.sum()} of {right.size} test images right; mistakes first", fontsize=13)
    for axes, index in zip(figure.subplots(rows, columns).flat, order, strict=False):
        axes.imshow(digits.X_test[index].reshape(8, 8), cmap="gray_r", interpolation="nearest")
        axes.set_axis_off()
        name, wrong = int(predicted[index]), not right[index]
        axes.set_title(
            f"{name}, is {digits.y_test[index]}" if wrong else str(name),
            fontsize=10,
            pad=3,
            color="#b3261e" if wrong else "#2e6f40",
            fontweight="bold" if wrong else "normal",
        )
