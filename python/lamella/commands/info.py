"""``lamella info MODEL``: what is in a model file, of whatever kind it is.

Owns the words for an estimator's and a table's file; layers and memory are `summary.py`'s. The file
may come from anybody: it is read by what reads and checks it elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lamella import checkpoint, summary
from lamella.network import Network
from lamella.tables import Encoder

__all__ = ["text"]

ESTIMATORS = ("MLPClassifier", "MLPRegressor")
MOST_CLASSES = 8
"""Classes that are named."""


def text(model: Path) -> str:
    """Return what is in a model file: a line or a few, then the table of layers.

    Raises
    ------
    ValueError
        If it is no such file.
    ModuleNotFoundError
        If it is an estimator's and scikit-learn is not installed.
    OSError
        If it cannot be read.
    """
    kind = checkpoint.read(model)[1]["kind"]
    if kind in ESTIMATORS:
        return _estimator(model, kind)
    network, extra = checkpoint.load_extra(model, Network)
    lines, shown = [], summary.text(network)
    if "table" in extra:
        with checkpoint.told_of(model):
            target = Encoder.from_json(extra["table"]).target
        names = _names(target.classes) if target.classes else "a number"
        lines = [f"model of a table: predicts {target.name}, {names}", ""]
        shown = _without_counters(shown)
    return "\n".join([*lines, shown])


def _estimator(model: Path, kind: str) -> str:
    """Return what is in an estimator's file."""
    from lamella import sklearn

    fitted: Any = getattr(sklearn, kind).load(model)
    lines = [f"{kind} of lamella.sklearn, {fitted.n_features_in_} features"]
    if kind == "MLPClassifier":
        lines.append(f"classes    {_names(fitted.classes_)}")
    lines.append(f"trained    {fitted.n_iter_} iterations, loss {fitted.loss_:.6g}")
    changed = _changed(fitted)
    lines += [f"parameters {changed}"] if changed else []
    return "\n".join([*lines, "", _without_counters(summary.text(fitted.to_network()))])


def _without_counters(text: str) -> str:
    """Leave out how long a network trained: a copy's counters, and those of a file, are 0."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("trained"))


def _names(classes: Any) -> str:
    """Return how many classes there are, and the first of them."""
    more = ", ..." if len(classes) > MOST_CLASSES else ""
    return f"{len(classes)} classes: {', '.join(map(str, classes[:MOST_CLASSES]))}{more}"


def _changed(fitted: Any) -> str:
    """Return the parameters that are not the defaults, as they are written in a call."""
    own, usual = fitted.get_params(deep=False), type(fitted)().get_params(deep=False)
    spelt = {name: repr(value) for name, value in own.items()}
    return ", ".join(f"{k}={v}" for k, v in spelt.items() if v != repr(usual[k]))
