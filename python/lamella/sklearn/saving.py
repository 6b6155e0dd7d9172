"""Fitted estimators in files: safetensors with their settings as JSON, and no pickle.

Owns what a file says of an estimator beside what every file of Lamella's says (`checkpoint.py`).
Promises that a loaded estimator answers with the same bits, and that a file which is damaged or
hostile is a `ValueError`: everything in it is checked, nothing is run.

The tensors are those of a network: `W1 (n[1], n[0]), b1, ...`, `gamma1, beta1, mean1, ...` of
normalised layers and, with the training's state, `state1.W1, ...`. The text's "kind" is the
class, its "settings" are the estimator's parameters, its "extra" has

- `"fitted"`: the attributes that are numbers or names;
- `"classes"`: a classifier's labels;
- `"network"`: what `network_` is made of, if there is one;
- `"rate"`: the learning rate that the training has come to, with its state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from .. import checkpoint, checks, matrices, passes
from ..checkpoint import decoded, encoded
from ..layers import statistic_names
from ..network import Network
from . import options
from .engine import ACTIVATIONS, LOSSES, precision

Array = NDArray[Any]
Estimator = TypeVar("Estimator")

NOT_KEPT = ("callbacks", "progress", "validation_data")
"""Parameters that are no part of a model."""

KEY_LENGTH = 624
"""Numbers in the state of NumPy's `RandomState`, each below 2**32."""

LABELS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "object": str}
"""Kinds of labels, and what each of them is in JSON."""


# --- writing ---------------------------------------------------------------------------------


def save(estimator: Any, path: checkpoint.PathLike, *, state: bool) -> None:
    """Write a fitted estimator to a file; see `Perceptron.save`."""
    check_is_fitted(estimator)
    given = estimator.get_params(deep=False)
    settings = {k: _setting(k, value) for k, value in given.items() if k not in NOT_KEPT}
    extra: dict[str, Any] = {"fitted": _fitted(estimator)}
    if is_classifier(estimator):
        extra["classes"] = _classes(estimator)
    if "network_" in vars(estimator):
        network = options.current(estimator)
        parameters, arrays = network.parameters, network.parameters | network.statistics
        extra["network"] = _network(network)
    else:
        pairs = enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True), start=1)
        parameters = {
            name: array for n, (w, b) in pairs for name, array in ((f"W{n}", w.T), (f"b{n}", b))
        }
        arrays = dict(parameters)
    for name, array in arrays.items():
        matrices.finite(name, array)
    text = {"kind": type(estimator).__name__, "settings": settings, "extra": extra}
    kept = estimator._training_state() if checks.flag("state", state) else None
    if kept is not None:
        text["counters"], states = kept
        extra["rate"] = float(estimator._optimizer.learning_rate)
        for n, one in enumerate(states, start=1):
            names = [f"state{n}.{name}" for name in parameters]
            arrays |= dict(zip(names, one, strict=True))
    checkpoint.write(path, arrays, text)


def _setting(name: str, value: Any) -> Any:
    """Return a parameter as JSON has it."""
    if name == "dtype":
        return precision(value)
    if isinstance(value, np.random.RandomState):
        state: Any = value.get_state(legacy=False)
        key, pos = state["state"]["key"].tolist(), int(state["state"]["pos"])
        gauss = [int(state["has_gauss"]), float(state["gauss"])]
        return {"type": "RandomState", "key": key, "pos": pos, "gauss": gauss}
    if name == "class_weight" and isinstance(value, list):
        return [_setting(name, part) for part in value]
    if name == "class_weight" and isinstance(value, Mapping):
        pairs = [[encoded(name, k), encoded(name, v)] for k, v in value.items()]
        return {"type": "dict", "pairs": pairs}
    return encoded(name, value.tolist() if isinstance(value, np.ndarray) else value)


def _fitted(estimator: Any) -> dict[str, Any]:
    """Return the attributes that are numbers or names."""
    found = {name: vars(estimator)[name] for name in FITTED if name in vars(estimator)}
    if "feature_names_in_" in found:
        found["feature_names_in_"] = found["feature_names_in_"].tolist()
    return {name: encoded(name, value) for name, value in found.items()}


def _classes(estimator: Any) -> dict[str, Any]:
    """Return a classifier's labels."""
    classes = estimator.classes_
    kinds = {"b": "bool", "i": "int", "u": "int", "f": "float", "U": "str", "O": "object"}
    kind = kinds.get(classes.dtype.kind)
    if kind is None or not all(isinstance(x, LABELS[kind]) for x in classes.tolist()):
        raise TypeError(f"classes_: expected numbers or strings, got dtype {classes.dtype}")
    return {
        "kind": kind,
        "dtype": classes.dtype.str if kind in ("int", "float") else kind,
        "values": classes.tolist(),
        "targets": estimator._label_binarizer.y_type_,
    }


def _network(network: Network) -> dict[str, Any]:
    """Return what a network is made of."""
    own = isinstance(network.criterion, options.Own)
    made = {
        "layers": (network.n_features, *network.layers),
        "output": network.output,
        "loss": None if own else network.criterion,
        "dtype": network.precision,
        "max_norm": network.max_norm,
        "seed": network.seed,
    }
    return {name: encoded(name, value) for name, value in made.items()}


# --- reading ---------------------------------------------------------------------------------


def load(path: checkpoint.PathLike, kind: type[Estimator]) -> Estimator:
    """Read an estimator of class `kind` from a file; see `Perceptron.load`."""
    arrays, text = checkpoint.read(path)
    with checkpoint.told_of(path):
        for name, array in arrays.items():
            if array.dtype != (dtype := next(iter(arrays.values())).dtype):
                raise checks.wrong(name, f"numbers of {dtype}, as the others", array.dtype)
        if text["kind"] != kind.__name__:
            raise checks.wrong("kind", repr(kind.__name__), repr(text["kind"]))
        estimator: Any = _constructed(kind, checkpoint.an_object("settings", text.get("settings")))
        extra = checkpoint.an_object("extra", text.get("extra"))
        vars(estimator).update(_read_fitted(checkpoint.an_object("fitted", extra.get("fitted"))))
        if is_classifier(estimator):
            _take_classes(estimator, checkpoint.an_object("classes", extra.get("classes")))
        network: Network | None = None
        if "network" in extra:
            made = checkpoint.an_object("network", extra["network"])
            network = _read_network(made, arrays)
        statistics: dict[str, Array] = {}
        if network is not None:
            names = statistic_names(network.layers)
            statistics = {name: arrays.pop(name) for name in names if name in arrays}
        states = checkpoint.take_states(arrays)
        _take_arrays(estimator, arrays, network, statistics)
        _check(estimator)
        _resume(estimator, text.get("counters"), states, extra.get("rate"))
    loaded: Estimator = estimator
    return loaded


def _constructed(kind: type[Any], settings: dict[str, Any]) -> Any:
    """Return an estimator of the parameters, checked as `fit` does it."""
    known = [name for name in kind._get_param_names() if name not in NOT_KEPT]
    for name in settings:
        if name not in known:
            raise checks.wrong("settings", f"names among {', '.join(known)}", repr(name))
    estimator = kind(**{name: _read_setting(name, value) for name, value in settings.items()})
    estimator._validate_params()
    return estimator


def _read_setting(name: str, value: Any) -> Any:
    """Return the parameter that `_setting` made a value of."""
    kind = value.get("type") if isinstance(value, dict) else None
    if name == "random_state" and kind == "RandomState":
        return _generator(value)
    if name == "class_weight" and isinstance(value, list):
        return [_read_setting(name, part) for part in value]
    if name == "class_weight" and kind == "dict":
        return {key: checks.number(name, weight) for key, weight in value["pairs"]}
    return decoded(name, value)


def _generator(value: dict[str, Any]) -> np.random.RandomState:
    """Return a generator in its state."""
    key = [checks.integer("key", number, high=2**32 - 1) for number in value["key"]]
    if len(key) != KEY_LENGTH:
        raise checks.wrong("key", f"{KEY_LENGTH} numbers", len(key))
    has_gauss, gauss = value["gauss"]
    generator = np.random.RandomState()
    pos = checks.integer("pos", value["pos"], high=KEY_LENGTH)
    has_gauss = checks.integer("gauss", has_gauss, high=1)
    generator.set_state(("MT19937", np.array(key, np.uint32), pos, has_gauss, _number("", gauss)))
    return generator


def _number(name: str, value: Any) -> float:
    """Return a float, finite or not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise checks.wrong(name, "a number", repr(value))
    return float(value)


def _number_or_none(name: str, value: Any) -> float | None:
    """Return a float, or None."""
    return None if value is None else _number(name, value)


def _numbers(name: str, value: Any) -> list[float] | None:
    """Return a list of floats, or None."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise checks.wrong(name, "a list", repr(value))
    return [_number(name, part) for part in value]


def _names(name: str, value: Any) -> Array:
    """Return names of features."""
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise checks.wrong(name, "names", repr(value))
    return np.array(value, dtype=object)


def _output(name: str, value: Any) -> str:
    """Return an output activation by scikit-learn's name."""
    return checks.choice(name, value, tuple(LOSSES))


FITTED: dict[str, Callable[[str, Any], Any]] = {
    "n_features_in_": checks.integer,
    "n_outputs_": checks.integer,
    "n_layers_": checks.integer,
    "n_iter_": checks.integer,
    "t_": checks.integer,
    "out_activation_": _output,
    "loss_": _number,
    "best_loss_": _number_or_none,
    "best_validation_score_": _number_or_none,
    "loss_curve_": _numbers,
    "validation_scores_": _numbers,
    "feature_names_in_": _names,
    "_no_improvement_count": checks.integer,
}
"""The attributes that are numbers or names, and what checks each."""

NEEDED = ("n_features_in_", "n_outputs_", "n_layers_", "n_iter_", "t_", "out_activation_")


def _read_fitted(given: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes, checked one by one."""
    for name in NEEDED:
        if name not in given:
            raise checks.wrong("fitted", name, "none")
    for name in given:
        if name not in FITTED:
            raise checks.wrong("fitted", f"names among {', '.join(FITTED)}", repr(name))
    return {name: FITTED[name](name, value) for name, value in given.items()}


def _take_classes(estimator: Any, given: dict[str, Any]) -> None:
    """Give a classifier its labels."""
    kind = checks.choice("classes.kind", given.get("kind"), tuple(LABELS))
    values = given.get("values")
    if not isinstance(values, list) or not all(type(x) is LABELS[kind] for x in values):
        raise checks.wrong("classes", f"a list of {kind}", repr(values))
    dtype = np.dtype(given["dtype"] if kind in ("int", "float") else kind)
    if kind in ("int", "float") and dtype.kind not in {"int": "iu", "float": "f"}[kind]:
        raise checks.wrong("classes.dtype", kind, dtype)
    classes = np.array(values, dtype=dtype)
    if classes.tolist() != values or not np.array_equal(np.unique(classes), classes):
        raise checks.wrong("classes", "labels in order, each once", repr(values))
    binarizer = LabelBinarizer()
    kinds = ("binary", "multiclass", "multilabel-indicator")
    binarizer.y_type_ = checks.choice("classes.targets", given.get("targets"), kinds)
    binarizer.sparse_input_ = False
    binarizer.classes_ = classes
    estimator._label_binarizer, estimator.classes_ = binarizer, binarizer.classes_


def _read_network(made: dict[str, Any], arrays: Mapping[str, Array]) -> Network:
    """Return the network, its parameters still its own."""
    names = {"layers", "output", "loss", "dtype", "max_norm", "seed"}
    if set(made) != names:
        raise checks.wrong("network", f"the keys {', '.join(sorted(names))}", sorted(made))
    settings = {name: decoded(name, value) for name, value in made.items()}
    layers, loss = settings.pop("layers"), settings.pop("loss")
    checkpoint.check_sizes(layers, arrays)
    return Network(layers, loss=options.Own() if loss is None else loss, **settings)


def _take_arrays(
    estimator: Any,
    arrays: dict[str, Array],
    network: Network | None,
    statistics: dict[str, Array],
) -> None:
    """Give the estimator its parameters."""
    layers = estimator.n_layers_ - 1
    if network is not None:
        checkpoint.check_dtypes(arrays | statistics, network)
        network.parameters, network.statistics = arrays, statistics
        layers = len(network.layers)
        estimator.network_ = network
        estimator._best_network = network._snapshot()
    elif passes.depth("parameters", arrays) != layers:
        raise checks.wrong("parameters", f"those of {layers} layers", ", ".join(arrays))
    for name, array in arrays.items():
        matrices.finite(name, array)
    numbers = range(1, layers + 1)
    estimator.coefs_ = [np.ascontiguousarray(arrays[f"W{n}"].T) for n in numbers]
    estimator.intercepts_ = [arrays[f"b{n}"] for n in numbers]
    estimator._best_coefs = [w.copy() for w in estimator.coefs_]
    estimator._best_intercepts = [b.copy() for b in estimator.intercepts_]


def _check(estimator: Any) -> None:
    """Refuse attributes that do not fit one another."""
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    sizes = [estimator.n_features_in_, *(b.shape[-1] if b.ndim else 0 for b in intercepts)]
    for n, (w, b, shape) in enumerate(zip(coefs, intercepts, pairwise(sizes), strict=True), 1):
        if w.shape != shape or b.shape != shape[1:]:
            raise checks.wrong(f"W{n}", f"shape {shape[::-1]}", w.shape[::-1])
    outputs, activation = estimator.n_outputs_, estimator.out_activation_
    if min(sizes) < 1 or (outputs, estimator.n_layers_) != (sizes[-1], len(sizes)):
        raise checks.wrong("n_layers_", f"{len(sizes)} layers of at least 1 unit", f"{sizes}")
    names = vars(estimator).get("feature_names_in_")
    if names is not None and len(names) != sizes[0]:
        raise checks.wrong("feature_names_in_", f"{sizes[0]} names", len(names))
    allowed = ["identity", "exp"]
    if is_classifier(estimator):
        kind, count = estimator._label_binarizer.y_type_, len(estimator.classes_)
        wanted = (1, 2) if kind == "binary" else (outputs,)
        if count not in wanted or (kind == "binary" and outputs != 1):
            raise checks.wrong("classes", f"{outputs} for the outputs", count)
        allowed = ["identity", "softmax" if kind == "multiclass" else "logistic"]
    checks.choice("out_activation_", activation, allowed)
    network = vars(estimator).get("network_")
    name = ACTIVATIONS.get(activation, activation)
    if network is not None and network.output != name:
        raise checks.wrong("network.output", name, network.output)


def _resume(estimator: Any, counters: object, states: list[Any], rate: Any) -> None:
    """Give the estimator its training's state, if the file has it, and try its network."""
    engine = estimator._prepared_engine()
    if "network_" not in vars(estimator):
        engine.trainer(estimator)
    if counters is None:
        if states:
            raise checks.wrong("counters", "them beside the optimizer's state", "none")
        return
    estimator._optimizer = estimator._new_optimizer()
    estimator._optimizer.learning_rate = checks.number("rate", rate)
    state = (checkpoint.an_object("counters", counters), states)
    if "network_" in vars(estimator):
        network = estimator.network_._net
        network.set_state(*state)
    else:
        network = engine.trainer(estimator)
        estimator._optimizer._state = state
        engine.own(estimator._optimizer)
    estimator._tell_optimizer(network)
