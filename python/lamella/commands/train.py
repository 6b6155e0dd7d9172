"""``lamella train`` and ``lamella predict``: from a table to a model file, and to answers.

Owns what is held out, when training stops, and what is reported. Promises that the rows of the
report were seen neither by the training nor by its stopping, that preprocessing is learnt on the
training rows alone and kept in the model file, and that the same seed gives the same file.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from lamella import checkpoint, tables
from lamella.checks import Array
from lamella.commands.targets import check_file, check_picture
from lamella.demo import progress, say
from lamella.network import History, Network
from lamella.stopping import EarlyStopping
from lamella.tables import Encoder, NumberColumn, Target, TextColumn

__all__ = ["Settings", "predict", "train"]

FEWEST_ROWS = 10
VALIDATION = 0.15
"""Share of the training rows that stopping looks at."""
MOST_NAMES = 20
"""Texts of a column that may all differ."""
LARGE = 10_000
"""Rows from which batches are larger by default."""


@dataclass(frozen=True)
class Settings:
    """What ``lamella train`` is asked for."""

    data: Path
    target: str
    task: str = "auto"
    ignore: tuple[str, ...] = ()
    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 200
    patience: int = 15
    batch_size: int | None = None
    optimizer: str = "adam"
    learning_rate: float | None = None
    l2: float = 1e-4
    test: float = 0.2
    seed: int = 0
    threads: int | None = None
    model: Path = Path("model.safetensors")
    plot: Path | None = None


@dataclass(frozen=True)
class Part:
    """Some rows of the table, as the network takes them."""

    X: Array  # (m, features)
    y: Array  # (m,)


@dataclass(frozen=True)
class Split:
    """The rows of each part."""

    train: Array
    validation: Array
    test: Array


# --- train -----------------------------------------------------------------------------------


def train(settings: Settings) -> None:
    """Read, split, train until validation stops improving, report, and write the model.

    Raises
    ------
    ValueError, DivergenceError
        If the table cannot be trained on.
    OSError
        If a file cannot be read or written.
    """
    check_file(settings.model, replaces=True)
    if settings.plot is not None:
        check_picture(settings.plot)
    table, answers = _table_and_target(settings)
    target = Target.learn(settings.target, answers, settings.task)
    y = target.encode(answers)
    split = _split(y, settings)
    encoder = Encoder(tuple(_columns(table, split.train)), target)
    X, missing = encoder.encode(table)
    _say_data(settings, encoder, len(y), missing)
    parts = [Part(X[rows], y[rows]) for rows in (split.train, split.validation, split.test)]
    outputs = max(1, len(target.classes))
    network = Network(
        [encoder.width, *settings.hidden, outputs],
        output="softmax" if target.classes else "identity",
        init="xavier",  # whose first answers are milder than he's: better where rows are few
        seed=settings.seed,
        l2=settings.l2,
    )
    sizes = "-".join(map(str, (encoder.width, *settings.hidden, outputs)))
    say("network", f"{sizes}, relu; {network.n_parameters:,} parameters; {settings.optimizer}")
    train_on, stop_by, report_on = (len(part.y) for part in parts)
    say("rows", f"{train_on:,} to train on, {stop_by:,} to stop by, {report_on:,} to report on")
    history = _fit(network, parts[0], parts[1], settings)
    _report(network, target, parts[2], parts[0])
    checkpoint.save(network, settings.model, extra={"table": encoder.to_json()})
    say("model", str(settings.model))
    if settings.plot is not None:
        _draw(settings.plot, history)


def _table_and_target(settings: Settings) -> tuple[dict[str, Array], Array]:
    """Return the columns to learn from and the target, without rows that lack it."""
    table = tables.read(settings.data)
    for name in (settings.target, *settings.ignore):
        if name not in table:
            raise ValueError(f"{settings.data}: expected a column {name!r}, got {', '.join(table)}")
    answers = tables.numbers_or_texts(table.pop(settings.target))
    for name in settings.ignore:
        table.pop(name, None)
    table = {name: tables.numbers_or_texts(column) for name, column in table.items()}
    if not table:
        raise ValueError(f"{settings.data}: expected columns beside {settings.target!r}, got none")
    if tables.is_text(answers):
        known = np.array([text is not None for text in answers], bool)
    else:
        known = np.isfinite(answers)
    if not known.all():
        say("left out", f"{np.count_nonzero(~known):,} rows without {settings.target}")
    if np.count_nonzero(known) < FEWEST_ROWS:
        got = np.count_nonzero(known)
        raise ValueError(f"{settings.data}: expected at least {FEWEST_ROWS} rows, got {got}")
    return {name: column[known] for name, column in table.items()}, answers[known]


def _split(y: Array, settings: Settings) -> Split:
    """Deal the rows out, each part with all sorts of answers in their shares."""
    order = np.random.default_rng(settings.seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    test = _every(order, settings.test)
    rest = order[~test]
    rng = np.random.default_rng(settings.seed + 1)
    rest = rest[rng.permutation(len(rest))]
    rest = rest[np.argsort(y[rest], kind="stable")]
    validation = _every(rest, VALIDATION)
    parts = Split(np.sort(rest[~validation]), np.sort(rest[validation]), np.sort(order[test]))
    counts = [len(part) for part in (parts.train, parts.validation, parts.test)]
    if not all(counts):
        told = "{} to train on, {} to stop by, {} to report on".format(*counts)
        raise ValueError(
            f"--test: expected a share that leaves rows for each purpose,"
            f" got {settings.test:g} of {len(y):,} rows: {told}"
        )
    return parts


def _every(rows: Array, share: float) -> Array:
    """Mark a share of ordered rows, evenly."""
    steps = np.floor(np.arange(len(rows) + 1) * share + 0.5)
    marked: Array = np.diff(steps) > 0
    return marked


def _columns(table: dict[str, Array], rows: Array) -> Iterator[NumberColumn | TextColumn]:
    """Learn the columns on some rows; texts that nearly all differ are left out."""
    for name, column in table.items():
        known = column[rows]
        if not tables.is_text(column):
            yield NumberColumn.learn(name, known)
            continue
        different = len({text for text in known if text is not None})
        if different > max(MOST_NAMES, len(rows) / 2):
            say("left out", f"column {name}: {different:,} different texts")
            continue
        yield TextColumn.learn(name, known)


def _say_data(settings: Settings, encoder: Encoder, rows: int, missing: dict[str, int]) -> None:
    """Print what was found in the table."""
    if not encoder.width:
        raise ValueError(f"{settings.data}: expected columns to learn from, got none")
    texts = sum(isinstance(column, TextColumn) for column in encoder.columns)
    numbers = len(encoder.columns) - texts
    say("data", f"{settings.data}: {rows:,} rows, {numbers} columns of numbers, {texts} of texts")
    target = encoder.target
    if target.classes:
        shown = ", ".join(target.classes[:8]) + (", ..." if len(target.classes) > 8 else "")
        say("target", f"{target.name}, {len(target.classes)} classes: {shown}")
    else:
        say("target", f"{target.name}, a number: mean {target.mean:.4g}, spread {target.scale:.4g}")
    if missing:
        most = sorted(missing, key=lambda name: -missing[name])[:3]
        told = ", ".join(f"{name} {missing[name]:,}" for name in most)
        say("missing", f"{sum(missing.values()):,} entries, taken as mean or no category: {told}")


def _fit(network: Network, seen: Part, unseen: Part, settings: Settings) -> History:
    """Train until `unseen` has not improved for a while; keep the best epoch."""
    began = time.perf_counter()
    with progress("train", settings.epochs) as report:
        history = network.fit(
            seen.X,
            seen.y,
            epochs=settings.epochs,
            batch_size=settings.batch_size or (32 if len(seen.y) < LARGE else 256),
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            validation_data=(unseen.X, unseen.y),
            early_stopping=EarlyStopping(patience=settings.patience),
            threads=settings.threads,
            progress=report,
        )
    seconds = time.perf_counter() - began
    best = len(history) if history.best_epoch is None else history.best_epoch + 1
    say("training", f"{len(history)} epochs in {seconds:.2f} s; the best was {best}")
    return history


def _report(network: Network, target: Target, test: Part, seen: Part) -> None:
    """Print how good the answers are on rows that nothing has seen."""
    answers = network.predict(test.X)
    if target.classes:
        common = int(np.argmax(np.bincount(seen.y)))
        right, guess = np.mean(answers == test.y), np.mean(test.y == common)
        name = target.classes[common]
        say(
            "accuracy",
            f"{right:.1%} of {len(test.y):,} rows held out; always {name!r}: {guess:.1%}",
        )
        _report_classes(target, answers, test.y)
        return
    error = (answers - test.y) * target.scale
    spread = (test.y - np.mean(test.y)) * target.scale
    explained = 1 - np.sum(error**2) / np.sum(spread**2) if np.any(spread) else float("nan")
    say("r2", f"{explained:.3f} on {len(test.y):,} rows held out")
    mean, root, always = np.mean(np.abs(error)), _root_mean(error), _root_mean(spread)
    say("error", f"mean {mean:.4g}, root mean square {root:.4g}; always the mean: {always:.4g}")


def _root_mean(errors: Array) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(errors**2)))


def _report_classes(target: Target, answers: Array, y: Array) -> None:
    """Print precision and recall of each class."""
    if len(target.classes) > 20:
        return
    width = max(8, *(len(name) for name in target.classes))
    print(f"{'':<10} {'':<{width}} {'rows':>7} {'precision':>10} {'recall':>7}")
    for n, name in enumerate(target.classes):
        both = np.sum((answers == n) & (y == n))
        said, true = np.sum(answers == n), np.sum(y == n)
        shares = [f"{both / count:.1%}" if count else "-" for count in (said, true)]
        print(f"{'':<10} {name:<{width}} {true:>7,} {shares[0]:>10} {shares[1]:>7}")


def _draw(path: Path, history: History) -> None:
    """Draw the learning curve where matplotlib is installed, and say what was done."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        say("picture", "none: matplotlib is not installed")
        return
    from lamella.plots import LearningCurveDisplay

    figure: Any = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    LearningCurveDisplay.from_history(history, ax=figure.subplots())
    figure.savefig(path)
    say("picture", str(path))


# --- predict ---------------------------------------------------------------------------------


def predict(
    model: Path, data: Path, output: Path | None, *, probabilities: bool, threads: int | None
) -> None:
    """Write a model's answer to each row of a table as CSV.

    Raises
    ------
    ValueError
        If the model was not made by ``lamella train``, or the table lacks one of its columns.
    OSError
        If a file cannot be read or written.
    """
    if output is not None:
        check_file(output)
    network, encoder = load(model)
    target = encoder.target
    if probabilities and not target.classes:
        raise ValueError(f"{model}: expected classes for --proba, got a regression")
    X, missing = encoder.encode(tables.read(data))
    for name, count in missing.items():
        print(f"note: {name}: {count:,} missing or unknown entries", file=sys.stderr)
    header = [target.name]
    rows: list[list[Any]] = []
    if len(X) and target.classes:
        rows = [[target.classes[n]] for n in network.predict(X, threads=threads)]
    elif len(X):
        values = network.predict(X, threads=threads).astype(np.float64)
        rows = [[f"{value:.7g}"] for value in values * target.scale + target.mean]
    if probabilities:
        header += [f"p({name})" for name in target.classes]
        if len(X):
            shares = network.predict_proba(X, threads=threads)
            for row, own in zip(rows, shares, strict=True):
                row += [f"{share:.6f}" for share in own]
    with _opened(output) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def load(model: Path) -> tuple[Network, Encoder]:
    """Return a model file's network and preprocessing.

    Raises
    ------
    ValueError
        If they do not belong together, or the file is of another kind.
    """
    network, extra = checkpoint.load_extra(model, Network)
    if "table" not in extra:
        raise ValueError(f"{model}: expected a model of `lamella train`, got a bare network")
    try:
        encoder = Encoder.from_json(extra["table"])
    except ValueError as error:
        raise ValueError(f"{model}: {error}") from error
    sizes = (network.n_features, network.n_outputs, network.output)
    classes = len(encoder.target.classes)
    wanted = (encoder.width, max(1, classes), "softmax" if classes else "identity")
    if sizes != wanted:
        raise ValueError(f"{model}: expected a network of {wanted} for its columns, got {sizes}")
    return network, encoder


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    """Open a file to write, or give standard output."""
    if output is None:
        yield sys.stdout
        return
    with open(output, "w", encoding="utf-8", newline="") as file:
        yield file
