"""Many small networks at once: what a search for hyper-parameters runs on.

Owns configurations, folds and results. Promises the bits of one `Network.fit` after the other, one
copy of X and y for all (a fold is a list of rows, read where they lie), and that a network that
fails spoils no other. Leaves the work to the core (`rust/train/many.rs`): every network is trained
on one thread, so that all processors are busy with networks too small to share.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core, bars, checks, lbfgs, matrices
from .checks import Array
from .loop import History
from .losses import Loss
from .matrices import CSR
from .network import Network
from .weights import ClassWeight, weights

__all__ = ["Fitted", "fit_many", "folds", "grid", "sample"]

Split = tuple[Array | None, Array | None]
"""The rows to train on and those held out; None for all and for none."""
Config = Mapping[str, Any] | tuple[Network, Mapping[str, Any]]
"""Arguments of `Network` and of `fit` by name, or a network and arguments of `fit`."""


@dataclass(frozen=True)
class Fitted:
    """One trained network.

    Attributes
    ----------
    index : int
        Of its configuration.
    fold : int
        From 0.
    config : dict or tuple
        As it was given.
    network : Network
    history : History or None
        None where an error ended the training.
    error : Exception or None
        What ended it: `DivergenceError`, `MemoryError`, or `RuntimeError` for a defect in the core.
        The network then is as it was before the step that failed.
    score : dict of float or None
        What `Network.evaluate` says of the rows held out: "loss", and "accuracy" or "r2". None
        without such rows, or after an error.
    seconds : float
        How long it took, its answers to the rows held out included.
    """

    index: int
    fold: int
    config: Config
    network: Network
    history: History | None
    error: Exception | None
    score: dict[str, float] | None
    seconds: float


@dataclass(frozen=True)
class _Task:
    """A network to be trained, with what the core is told."""

    index: int
    fold: int
    config: Config
    network: Network
    settings: dict[str, Any]
    target: int
    rows: int | None
    held_out: int | None

    @property
    def rates(self) -> dict[str, Array]:
        """Where a schedule gives it, the rate of each epoch's last step, as `History.metrics`."""
        rates, epochs = self.settings["rates"], self.settings["epochs"]
        if rates is None or epochs == 0:
            return {}
        return {"learning_rate": rates.reshape(epochs, -1)[:, -1].copy()}


class _Shared:
    """Arrays that tasks share, each kept once and known by its place."""

    def __init__(self) -> None:
        self.targets: list[Array] = []
        self.selections: list[Array] = []
        self._places: dict[Any, int] = {}
        self._weights: dict[Any, Array | None] = {}

    def labels(self, network: Network, rows: Array | CSR, y: ArrayLike) -> int:
        """Return the place of the checked labels of all rows for such a network."""
        key = (network.output, network.n_outputs, network.dtype, repr(network._task))
        if key not in self._places:
            self.targets.append(network._data(rows, y)[1])
            self._places[key] = len(self.targets) - 1
        return self._places[key]

    def weights(
        self,
        network: Network,
        target: int,
        rows: Array | None,
        given: tuple[ArrayLike | None, ClassWeight],
    ) -> Array | None:
        """Return what each of all rows counts where these are trained on, or None for no weights.

        Classes are counted among the rows that are trained on, as one `Network.fit` does it.
        """
        key = ("weights", target, repr(network._task), None if rows is None else id(rows))
        if key not in self._weights:
            sample_weight, class_weight = given
            labels, task = self.targets[target], network._task
            w: Array | None = weights(sample_weight, None, labels, task)
            if class_weight is not None:
                chosen: Any = slice(None) if rows is None else rows
                own = weights(None if w is None else w[chosen], class_weight, labels[chosen], task)
                w = np.zeros(len(labels))
                w[chosen] = own
            self._weights[key] = w
        return self._weights[key]

    def selection(self, rows: Array | None) -> int | None:
        """Return the place of some rows' indices, the same object each time; None for all rows."""
        if rows is None:
            return None
        if id(rows) not in self._places:
            self.selections.append(rows)
            self._places[id(rows)] = len(self.selections) - 1
        return self._places[id(rows)]


def fit_many(
    configs: Iterable[Config],
    X: ArrayLike | CSR,
    y: ArrayLike,
    *,
    validation: float | ArrayLike | None = None,
    cv: int | Iterable[tuple[ArrayLike, ArrayLike]] | Any = None,
    seed: int = 0,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight = None,
    keep_state: bool = False,
    threads: int | None = None,
    progress: bool | Callable[[Fitted], object] | None = None,
) -> list[Fitted]:
    """Train many networks on the same data, each on one thread and as many at once as there are.

    The results are the bits of one `Network(...).fit(X[rows], y[rows], ...)` after the other,
    whatever `threads` is. The largest networks are begun first, so that all threads end together.

    Parameters
    ----------
    configs : iterable
        Each a dict of keyword arguments: those of `Network` (`layers` among them) and those of
        `Network.fit` that say how to train (`epochs`, `batch_size`, `optimizer`,
        `learning_rate`, a schedule too, `clip_value`, `clip_norm`, `average`, `shuffle`); or a
        pair of a network, which is trained from where it stands, and a dict of the latter.
        "lbfgs" is not among the optimizers here, nor `ReduceOnPlateau` among the schedules, nor a
        function of Python's among the losses.
        `grid` and `sample` make such dicts, and so do scikit-learn's `ParameterGrid` and
        `ParameterSampler`.
    X : array_like or SciPy sparse (m, n_features)
        As for `Network.fit`.
    y : array_like
        As for `Network.fit`.
    validation : float or array_like of int, optional
        The share of rows to hold out, drawn by `seed`, or the rows themselves.
    cv : int or iterable of pairs, or an object with `split`, optional
        A number of folds as `folds(m, cv, seed)` makes them, whatever the classes; or the rows to
        train on and those to hold out, one pair of arrays of indices a fold; or one of
        scikit-learn's splitters. Every configuration is then trained once a fold, and given
        networks are copied where there are several.
    seed : int
        Of the folds alone.
    sample_weight : array_like (m,), optional
        What each row counts in training, as for `Network.fit`; the same for all networks. Rows
        that are held out count 1 each in the scores, whatever their weight.
    class_weight : dict, "balanced" or list of dict, optional
        As for `Network.fit`, on the rows that a network is trained on.
    keep_state : bool
        Whether networks keep their optimizer's state for another `fit`. Without it only those
        in training have one, and a `fit` later begins with a new state.
    threads : int, optional
        Networks trained at once; None is as many as this process may use.
    progress : bool or callable, optional
        True shows a bar (needs tqdm), False none; None as for `Network.fit`. A callable hears of
        every `Fitted` as it ends, from this thread. Its network answers when `fit_many` has
        returned.

    Returns
    -------
    list of Fitted
        By configuration, and for one configuration by fold.

    Raises
    ------
    TypeError, ValueError
        For any argument that does not fit, before work starts; what is wrong with a
        configuration is said with its index.
    MemoryError
        If memory does not suffice for the networks' parameters.
    KeyboardInterrupt
        After Ctrl-C. Networks that were given stay usable, with whole steps.
    """
    splits: list[Split] | None = None
    rows, seed = _data(X), checks.seed(seed)
    m = rows.shape[0]
    if validation is not None and cv is not None:
        raise checks.wrong("cv", "None where validation is given", reprlib.repr(cv))
    if validation is not None:
        splits = [_held_out(validation, m, seed)]
    elif cv is not None:
        splits = _splits(cv, X, y, m, seed)
    threads = checks.threads(threads)
    shared = _Shared()
    if isinstance(configs, str | bytes | Mapping) or not isinstance(configs, Iterable):
        got = reprlib.repr(configs)
        raise TypeError(f"configs: expected a list of configurations, got {got}")
    tasks = list(_tasks(configs, rows, y, splits, shared, (sample_weight, class_weight)))
    fitted: list[Fitted | None] = [None] * len(tasks)
    with _told(progress, len(tasks)) as tell:

        def report(
            at: int,
            seconds: float,
            losses: Array | None,
            error: Exception | None,
            loss: float | None,
            outputs: Array | None,
        ) -> None:
            task, score = tasks[at], None
            if loss is not None and outputs is not None and task.held_out is not None:
                labels = shared.targets[task.target][shared.selections[task.held_out]]
                outputs = outputs.reshape(len(labels), -1)
                score = task.network._score(loss, outputs, labels)
            history = None if losses is None else History(losses, task.rates)
            fitted[at] = Fitted(
                task.index, task.fold, task.config, task.network, history, error, score, seconds
            )
            tell(fitted[at])

        _core.fit_many(
            [(t.network._net, t.settings, t.target, t.rows, t.held_out) for t in tasks],
            rows,
            shared.targets,
            shared.selections,
            keep_state=checks.flag("keep_state", keep_state),
            threads=threads,
            report=report,
        )
    return [result for result in fitted if result is not None]


def grid(**values: Any) -> list[dict[str, Any]]:
    """Return every combination of the given values, as dicts.

    Parameters
    ----------
    **values
        A list or an array is a choice of values; anything else, a tuple too, is one value. The
        last name changes fastest.

    Examples
    --------
    >>> grid(layers=[(64, 32, 10), (64, 32, 32, 10)], learning_rate=[1e-3, 1e-2], epochs=20)[1]
    {'layers': (64, 32, 10), 'learning_rate': 0.01, 'epochs': 20}
    """
    choices = [_choices(name, value) or [value] for name, value in values.items()]
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*choices)]


def sample(n: int, seed: int = 0, **distributions: Any) -> list[dict[str, Any]]:
    """Return n dicts of values drawn independently, the same ones for the same seed.

    Parameters
    ----------
    n : int
    seed : int
    **distributions
        A list or an array: each of its values equally often. An object with `rvs`, such as
        SciPy's distributions: its draws. A callable: what it returns for a
        `numpy.random.RandomState`. Anything else, a tuple too, is one value.

    Examples
    --------
    >>> drawn = sample(3, layers=[(64, 32, 10)], learning_rate=lambda r: 10 ** r.uniform(-4, -1))
    >>> [sorted(config) for config in drawn]
    [['layers', 'learning_rate'], ['layers', 'learning_rate'], ['layers', 'learning_rate']]
    """
    random = np.random.RandomState(checks.seed(seed))
    n = checks.integer("n", n)

    def draw(name: str, value: Any) -> Any:
        choices = _choices(name, value)
        if choices:
            return choices[random.randint(len(choices))]
        if hasattr(value, "rvs"):
            return value.rvs(random_state=random)
        return value(random) if callable(value) else value

    return [{name: draw(name, value) for name, value in distributions.items()} for _ in range(n)]


def folds(m: int, k: int, seed: int = 0) -> list[tuple[Array, Array]]:
    """Return k pairs of indices of m rows: those to train on, those held out; ascending.

    The rows are dealt out at random, evenly; each is held out once.
    """
    m = checks.integer("m", m, low=2)
    parts = np.array_split(_shuffled(m, checks.seed(seed)), checks.integer("k", k, low=2, high=m))
    return [(_others(part, m), np.sort(part)) for part in parts]


def _choices(name: str, value: Any) -> list[Any]:
    """Return the values to choose from: Python's own numbers; none where it is one value."""
    if not isinstance(value, list | np.ndarray):
        return []
    if len(value) == 0:
        raise checks.wrong(name, "at least one value", "none")
    return value.tolist() if isinstance(value, np.ndarray) else value


def _data(X: ArrayLike | CSR) -> Array | CSR:
    """Check samples; their number of features is each network's own matter."""
    sparse = matrices.sparse("X", X)
    rows: Array | CSR = matrices.real("X", X, half=True) if sparse is None else sparse  # type: ignore[arg-type]
    if len(rows.shape) != 2 or 0 in rows.shape:
        raise checks.wrong("X", "shape (m, n_features), not empty", rows.shape)
    return rows


def _tasks(
    configs: Iterable[Config],
    rows: Array | CSR,
    y: ArrayLike,
    splits: list[Split] | None,
    shared: _Shared,
    given: tuple[ArrayLike | None, ClassWeight],
) -> Iterator[_Task]:
    """Make the networks of every configuration, one a fold, and check all that belongs to them."""
    seen: set[int] = set()
    for index, config in enumerate(configs):
        for fold, split in enumerate(splits or [(None, None)]):
            with _named(index):
                network, arguments = _network(config, copied=len(splits or []) > 1)
                if id(network) in seen:
                    raise ValueError("expected a network of its own, got one that was given before")
                seen.add(id(network))
                m = rows.shape[0] if split[0] is None else len(split[0])
                settings = _settings(network, arguments, m, rows.shape[1])
            # Labels that fitted others before do not fit this one.
            with _named(index) if shared.targets else nullcontext():
                target = shared.labels(network, rows, y)
            selected = map(shared.selection, split)
            settings["weights"] = shared.weights(network, target, split[0], given)
            yield _Task(index, fold, config, network, settings, target, *selected)


def _settings(
    network: Network, arguments: dict[str, Any], m: int, n_features: int
) -> dict[str, Any]:
    """Return what the core is told of a training on m rows of so many features."""
    if network.n_features != n_features:
        raise checks.wrong("layers", f"{n_features} features, as X has", network.n_features)
    if lbfgs.is_meant(arguments.get("optimizer")):
        raise checks.wrong("optimizer", "one that makes steps of its own", "lbfgs")
    if not isinstance(network.criterion, Loss):
        raise checks.wrong("loss", "one of the core's own, for many networks at once", "a function")
    return network._fit_settings(m, **arguments)


def _network(config: Config, *, copied: bool) -> tuple[Network, dict[str, Any]]:
    """Return a configuration's network and its arguments of `fit`."""
    if isinstance(config, tuple) and len(config) == 2 and isinstance(config[0], Network):
        network, arguments = config
        _known(arguments, FIT)
        return copy.copy(network) if copied else network, dict(arguments)
    if not isinstance(config, Mapping):
        raise TypeError(f"expected a dict or (Network, dict), got {reprlib.repr(config)}")
    _known(config, NETWORK | FIT)
    made = {name: value for name, value in config.items() if name in NETWORK}
    return Network(**made), {name: value for name, value in config.items() if name in FIT}


def _keywords(function: Callable[..., Any], *others: str) -> frozenset[str]:
    """Return the names of a function's arguments, without the others."""
    return frozenset(inspect.signature(function).parameters) - {"self", *others}


NETWORK = _keywords(Network.__init__)
FIT = _keywords(Network._fit_settings, "m")


def _known(arguments: object, names: frozenset[str]) -> None:
    """Refuse arguments of other names."""
    if not isinstance(arguments, Mapping):
        raise TypeError(f"expected a dict of arguments, got {reprlib.repr(arguments)}")
    for name in arguments:
        if name not in names:
            raise checks.wrong("arguments", f"some of {', '.join(sorted(names))}", repr(name))


@contextmanager
def _named(index: int) -> Iterator[None]:
    """Say in an error which configuration it is about."""
    try:
        yield
    except (TypeError, ValueError, MemoryError) as error:
        raise type(error)(f"configs[{index}]: {error}") from error


# --- folds -----------------------------------------------------------------------------------


def _shuffled(m: int, seed: int) -> Array:
    """Return m rows in a random order."""
    return np.random.RandomState(seed).permutation(m).astype(np.uint32)


def _others(part: Array, m: int) -> Array:
    """Return the rows that are not in this part, ascending."""
    rest = np.ones(m, bool)
    rest[part] = False
    return np.flatnonzero(rest).astype(np.uint32)


def _held_out(validation: object, m: int, seed: int) -> tuple[Array, Array]:
    """Return the rows to train on and those held out: a share of them, or the given ones."""
    if isinstance(validation, float | np.floating):
        share = checks.number("validation", validation, positive=True, below=1.0)
        held = np.sort(_shuffled(m, seed)[: max(1, round(share * m))])
    else:
        held = _indices("validation", validation, m)
    rest = _others(held, m)
    if len(rest) == 0:
        raise checks.wrong("validation", "rows left to train on", "none")
    return rest, held


def _splits(cv: Any, X: ArrayLike | CSR, y: ArrayLike, m: int, seed: int) -> list[Split]:
    """Return each fold's rows to train on and those held out."""
    if isinstance(cv, int | np.integer):
        return [*folds(m, checks.integer("cv", cv, low=2, high=m), seed)]
    if hasattr(cv, "split") and not isinstance(cv, str | bytes):
        cv = cv.split(X, y)
    if isinstance(cv, str | bytes | Mapping) or not isinstance(cv, Iterable):
        raise TypeError(f"cv: expected a number, pairs or a splitter, got {reprlib.repr(cv)}")
    splits: list[Split] = []
    for n, pair in enumerate(cv):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"cv[{n}]: expected two arrays of rows, got {reprlib.repr(pair)}")
        train, held_out = (_indices(f"cv[{n}][{i}]", part, m) for i, part in enumerate(pair))
        splits.append((train, held_out))
    if not splits:
        raise checks.wrong("cv", "at least one fold", "none")
    return splits


def _indices(name: str, value: Any, m: int) -> Array:
    """Return rows of m as `(n,)`, n >= 1; from a mask or from indices, from the end too."""
    array = matrices.real(name, value)
    if array.dtype == bool and array.shape == (m,):
        array = np.flatnonzero(array)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise checks.wrong(name, "a vector of rows", f"{array.dtype} of shape {array.shape}")
    if len(array) == 0:
        raise checks.wrong(name, "at least one row", "none")
    matrices.refuse(name, f"rows of {m}", array, lambda block: (block < -m) | (block >= m))
    return np.where(array < 0, array + m, array).astype(np.uint32)


@contextmanager
def _told(progress: Any, total: int) -> Iterator[Callable[[Any], object]]:
    """Give what hears of every network, and close the bar in the end."""
    asked: Any = bars.wanted(progress)
    if not isinstance(asked, float):
        yield asked or (lambda fitted: None)
        return
    with bars.shown(asked, total, "networks") as bar:
        yield lambda fitted: bar.tell(1, {})
