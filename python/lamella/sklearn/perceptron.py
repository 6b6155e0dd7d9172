"""What the two estimators share: scikit-learn's plumbing around the core's training.

Owns the decisions of a fit, epoch by epoch: order, validation, stopping, learning rates, messages.
Promises scikit-learn's draws from its generator, one shuffle an executed epoch and none ahead, and
its attributes after each fit. Parameters' checks, input validation, labels, the initial draws and
scoring are inherited from scikit-learn; every product, loss, gradient and update is the core's.

Alphabet: m samples, n[0] features, L layers of n[l] units. `coefs_[l] (n[l], n[l+1])`,
`intercepts_[l] (n[l+1],)`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.neural_network._stochastic_optimizers import (
    AdamOptimizer,
    BaseOptimizer,
    SGDOptimizer,
)
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import (
    _num_samples,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)
from threadpoolctl import threadpool_limits

from .. import bars, checks, frames, summary
from ..callbacks import Callback, StopTraining
from ..layers import Dense
from ..network import Network
from . import options
from .engine import PRECISIONS, Engine, precision, readable, spec
from .minimising import minimise
from .warning import warn

Array = NDArray[Any]

ADDITIONS: dict[str, Any] = {
    "dtype": [
        StrOptions(set(PRECISIONS)),
        Options(type, {np.float32, np.float64}),
        np.dtype,
        None,
    ],
    "threads": [Interval(Integral, 1, None, closed="left"), None],
    "callbacks": [callable, Callback, list, tuple, None],
    "time_limit": [Interval(Real, 0, None, closed="neither"), None],
    "progress": ["boolean", callable, None],
    **options.PARAMETERS,
}
"""Constraints of the parameters that scikit-learn's estimators do not have."""

CALLER = 6
"""From `_fit_stochastic` up to who called `fit`: two `_fit`, `fit` and its wrapper lie between."""


def _are_labels(y: Any, sample_weight: Any) -> bool:
    """Whether weights can be made of labels and given weights; else scikit-learn refuses them."""
    if y is None:
        return False
    labels = y.data if issparse(y) else np.asarray(y)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        return False
    try:
        given = np.asarray(1.0 if sample_weight is None else sample_weight, float)
    except (TypeError, ValueError):
        return False
    return given.shape in ((), (_num_samples(y),))


@dataclass
class Data:
    """The rows of one fit, as the core reads them."""

    X: Any
    """(m, n[0]), an array or sparse rows"""
    y: Array
    """(m, n[L]), or for softmax classes (m,)"""
    weights: Array | None
    """(m,), float64"""
    order: Array
    """The rows that are trained on, in the order of the next epoch; int64"""
    held_out: tuple[Any, Any, Any] = (None, None, None)
    """X, y as users have it, and weights of the rows that are validated on"""
    ran_out: bool = False
    """Whether there were as many epochs as there may be, and no sign of an end"""


class Perceptron(BaseMultilayerPerceptron):  # type: ignore[misc]
    """Training and answers by the core, in the place of scikit-learn's.

    Where a parameter asks for what scikit-learn's perceptrons do not have, a `lamella.Network`,
    `network_`, trains and answers (`options.py`): what it is made of belongs there, what happens
    between epochs into `_end_epoch`.
    """

    # --- what scikit-learn's `fit`, `partial_fit` and `predict` call ---

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:
        """Fit as scikit-learn does, with networks of the core at hand."""
        self._prepared_engine()
        options.check(self, np.size(self.hidden_layer_sizes))
        y, sample_weight = _as_array("y", y), _as_array("sample_weight", sample_weight)
        weights = self._weights(y, sample_weight, incremental)
        return super()._fit(X, y, sample_weight=weights, incremental=incremental)

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> Any:
        """Check as scikit-learn does, and take X to the dtype that was asked for."""
        X, y = (_as_array(name, value) for name, value in (("X", X), ("y", y)))
        X, y = super()._validate_input(X, y, incremental, reset)
        wanted = precision(self.dtype)
        if wanted is not None:
            X = X.astype(np.float64 if wanted == "float64" else np.float32, copy=False)
        return X, y

    def _initialize(self, y: Array, layer_units: list[int], dtype: Any) -> None:
        """Draw the parameters as scikit-learn does; forget a network that was trained before."""
        for name in ("network_", "_network_copies", "_best_network"):
            self.__dict__.pop(name, None)
        super()._initialize(y, layer_units, dtype)
        self.out_activation_ = options.output_of(self)

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Array:
        """Return what the output layer returns for X (m, n[0]), `(m, n[L])`."""
        X = _as_array("X", X)
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        if "network_" in vars(self):
            return options.outputs(self, X)
        try:
            return self._prepared_engine().outputs(self, X)
        except ValueError:
            if self._is_finite():
                raise
            # What a fit that diverged left: the core takes no such weights.
            answers: Array = super()._forward_pass_fast(X, check_input=False)
            return answers

    def _is_finite(self) -> bool:
        """Whether all parameters are."""
        return all(np.isfinite(p).all() for p in (*self.coefs_, *self.intercepts_))

    def _score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the score of early stopping: scikit-learn's, or `metric`."""
        if self.metric is None:
            return float(super()._score(X, y, sample_weight=sample_weight))
        return options.score(self, X, y)

    def _backprop(
        self, X: Any, y: Array, sample_weight: Any, *_scratch: Any
    ) -> tuple[float, list[Array], list[Array]]:
        """Return the loss at the estimator's parameters and its gradients: lbfgs's objective."""
        if not self._is_finite():
            nothing = [np.full_like(p, np.nan) for p in (*self.coefs_, *self.intercepts_)]
            return np.nan, nothing[: len(self.coefs_)], nothing[len(self.coefs_) :]
        network = self._prepared_engine().trainer(self)
        weights = _as_weights(sample_weight)
        loss, gradients = network.objective(
            readable(X),
            self._targets(y),
            weights=weights,
            **self._objective(),
            threads=self.threads,
        )
        return loss, [gradient.T for gradient in gradients[0::2]], gradients[1::2]

    def _fit_lbfgs(self, *arguments: Any) -> None:
        """Let SciPy search, with one thread for its products of small matrices: the same bits."""
        begin = time.monotonic()
        with (
            threadpool_limits(limits=1, user_api="blas"),
            self._shown(1, incremental=False, unit="iterations") as show,
        ):
            if show is None and self.callbacks is None and self.time_limit is None:
                super()._fit_lbfgs(*arguments)
                return

            def heard() -> bool:
                if show is not None:
                    show()
                return self._is_asked_to_stop(begin)

            minimise(self, heard, *arguments)

    def _fit_stochastic(self, X: Any, y: Array, sample_weight: Any, *scratch: Any) -> None:
        """Train by adam or sgd; the last argument says whether for one epoch, by `partial_fit`."""
        incremental = scratch[-1]
        anew = not incremental or not hasattr(self, "_optimizer")
        if anew:
            self._optimizer = self._new_optimizer()
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        data = self._data(X, y, sample_weight)
        batch_size = self._batch_rows(len(data.order))
        engine = self._prepared_engine()
        network: Any
        epoch: Callable[[], float]
        if options.are_asked(self):
            network = options.trained_network(self, anew=anew)
            epoch = options.epochs_of(self, network, data, batch_size)
        else:
            self.__dict__.pop("network_", None)
            if not self._is_finite():  # since an earlier fit
                raise ValueError(
                    "Solver produced non-finite parameter weights. The input data may contain "
                    "large values and need to be preprocessed."
                )
            network = engine.trainer(self)
            engine.own(self._optimizer)
            epoch = partial(self._train, network, data, batch_size)
            engine.is_training = True
        try:
            steps = -(-len(data.order) // batch_size)
            with self._shown(steps, incremental) as show:
                if self._trains_at_once(incremental):
                    self._drawn_epochs(network, data, batch_size, show)
                else:
                    self._epochs(epoch, data, incremental, show)
            if data.ran_out:
                warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                    "optimization hasn't converged yet.",
                    CALLER,
                    ConvergenceWarning,
                )
        except KeyboardInterrupt:
            warn("Training interrupted by user.", CALLER)
        finally:
            self._write_out()
            engine.is_training = False
        self._tell_optimizer(network)
        if self.early_stopping:
            self.coefs_, self.intercepts_ = self._best_coefs, self._best_intercepts
            self._hold_best()

    # --- a fit ---

    def _train(
        self,
        network: Any,
        data: Data,
        batch_size: int,
        turn: Callable[[float], tuple[Array, float] | None] | None = None,
    ) -> float:
        """Train for one epoch, or as long as `turn` draws further ones; return the last loss."""
        loss: float = network.drawn_epochs(
            data.X,
            data.y,
            self._draw(data, batch_size),
            turn,
            epochs=self.max_iter if turn else 1,
            optimizer=spec(self._optimizer),
            **self._objective(),
            batch_size=batch_size,
            weights=data.weights,
            threads=self.threads,
        )
        return loss

    @contextmanager
    def _shown(
        self, steps: int, incremental: bool, unit: str = "steps"
    ) -> Iterator[Callable[[], object] | None]:
        """Give what shows an epoch of so many steps, or None; lines and a bar do not mix."""
        wanted = None
        if self.progress is not None or not (self.verbose or incremental):
            wanted = bars.wanted(self.progress)
        if not isinstance(wanted, float):
            yield wanted and (lambda: wanted(self.n_iter_ - 1, self.loss_))
            return
        epochs = 1 if incremental else self.max_iter
        with bars.shown(wanted, epochs * steps, unit) as bar:
            yield lambda: bar.tell(steps, self._logs())

    def _draw(self, data: Data, batch_size: int) -> Array:
        """Draw the order of the next epoch as scikit-learn does."""
        if self.shuffle:
            drawn = np.arange(len(data.order))
            self._random_state.shuffle(drawn)
            data.order = data.order[drawn]
        _check_weights(data, batch_size)
        return data.order

    def _trains_at_once(self, incremental: bool) -> bool:
        """Whether nobody looks at the network between the epochs of this fit."""
        looks = incremental or self.early_stopping or self.callbacks or callable(self.progress)
        return not looks and not options.are_asked(self)

    def _drawn_epochs(
        self, network: Any, data: Data, batch_size: int, show: Callable[[], object] | None
    ) -> None:
        """Train in one call of the core, which asks for the order of each epoch."""
        self.n_iter_ = 0
        begin = time.monotonic()

        def turn(loss: float) -> tuple[Array, float] | None:
            if not self._goes_on(loss, data, begin, show):
                return None
            rate = spec(self._optimizer)[1]["learning_rate"]
            return self._draw(data, batch_size), rate

        self._train(network, data, batch_size, turn)

    def _epochs(
        self,
        epoch: Callable[[], float],
        data: Data,
        incremental: bool,
        show: Callable[[], object] | None,
    ) -> None:
        """Train epoch after epoch until it is time to stop."""
        self.n_iter_ = 0
        begin = time.monotonic()
        while self._goes_on(epoch(), data, begin, show, incremental):
            pass

    def _goes_on(
        self,
        loss: float,
        data: Data,
        begin: float,
        show: Callable[[], object] | None,
        incremental: bool = False,
    ) -> bool:
        """Book an epoch; return whether there is another."""
        self.loss_ = np.float64(loss)
        # In this order: callbacks hear of every epoch.
        ends = self._end_epoch(data)
        if show is not None:
            show()
        if self._is_asked_to_stop(begin) or ends or incremental:
            return False
        if self.n_iter_ < self.max_iter:
            return True
        data.ran_out = True
        return False

    def _end_epoch(self, data: Data) -> bool:
        """Book an epoch's loss, validate, adapt the learning rate; return whether to stop."""
        self.n_iter_ += 1
        self.t_ += len(data.order)
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if self.early_stopping:
            self._write_out()
        self._update_no_improvement_count(self.early_stopping, *data.held_out)
        self._optimizer.iteration_ends(self.t_)
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        what = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={self.tol:f} for "
            f"{self.n_iter_no_change} consecutive epochs."
        )
        if self._optimizer.trigger_stopping(message, self.verbose):
            return True
        self._no_improvement_count: int = 0
        return False

    def _update_no_improvement_count(self, early_stopping: bool, *held_out: Any) -> None:
        """Count as scikit-learn does; keep the whole of the best network, not `coefs_` alone."""
        best = vars(self).get("_best_coefs")
        super()._update_no_improvement_count(early_stopping, *held_out)
        if vars(self).get("_best_coefs") is not best and "network_" in vars(self):
            self._best_network = self.network_._snapshot()

    def _hold_best(self) -> None:
        """Give the network the best epoch's parameters, which the attributes hold already."""
        if "network_" not in vars(self):
            self._prepared_engine().trainer(self)
            return
        best = vars(self).get("_best_network")
        if best is not None:
            self.network_._restore(best)
            self._network_copies = None
        options.current(self)

    def _write_out(self) -> None:
        """Write the parameters of what trains into the attributes."""
        if "network_" in vars(self):
            options.write_out(self)
        else:
            self._prepared_engine().write_out(self)

    def _is_asked_to_stop(self, begin: float) -> bool:
        """Tell the callbacks of an epoch; return whether one, or the clock, ends the fit."""
        calls = options.calls(self.callbacks)
        answers = []
        if calls:
            logs = self._logs()
            if self.solver != "lbfgs":
                self._write_out()
            try:
                answers = [bool(call(self.n_iter_ - 1, logs, self)) for call in calls]
            except StopTraining:
                return True
        late = self.time_limit is not None and time.monotonic() - begin >= self.time_limit
        return late or any(answers)

    def _logs(self) -> dict[str, float]:
        """Return the epoch's numbers by name."""
        logs = {"loss": float(self.loss_)}
        if self.early_stopping and self.solver != "lbfgs":
            logs["val_score"] = self.validation_scores_[-1]
        return logs

    def _data(self, X: Any, y: Array, sample_weight: Any) -> Data:
        """Hold rows out, if they are to be, as `train_test_split` of X and y would do it."""
        X, rows = _canonical(readable(X)), np.arange(X.shape[0])
        all_weights = _as_weights(sample_weight)
        if not self.early_stopping:
            return Data(X, self._targets(y), all_weights, rows)
        options.checked_metric(self)
        if self.validation_data is not None:
            return Data(X, self._targets(y), all_weights, rows, self._given_validation())
        train, held_out = train_test_split(
            rows,
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        y_held_out = y[held_out]
        if is_classifier(self):
            y_held_out = self._label_binarizer.inverse_transform(y_held_out)
        weights = None if sample_weight is None else sample_weight[held_out]
        held_out_data = (_safe_indexing(X, held_out), y_held_out, weights)
        return Data(X, self._targets(y), all_weights, train, held_out_data)

    def _given_validation(self) -> tuple[Any, Any, None]:
        """Return `validation_data`, checked, without weights."""
        if len(self.validation_data) != 2:
            raise checks.wrong("validation_data", "(X, y)", f"{len(self.validation_data)} parts")
        try:
            X, y = validate_data(
                self,
                *(_as_array("validation_data", part) for part in self.validation_data),
                accept_sparse=["csr", "csc"],
                multi_output=True,
                y_numeric=not is_classifier(self),
                dtype=(np.float64, np.float32),
                reset=False,
            )
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation_data: {error}") from error
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        columns = 1 if y.ndim == 1 else y.shape[1]
        if is_classifier(self):
            missing = np.setdiff1d(y, self.classes_ if columns == 1 else y)
            if len(missing):
                raise checks.wrong("validation_data", f"classes of {self.classes_}", missing)
        many = self._label_binarizer.y_type_ if is_classifier(self) else "continuous-multioutput"
        wanted = self.n_outputs_ if many.startswith(("multilabel", "continuous")) else 1
        if columns != wanted:
            raise checks.wrong("validation_data", f"{wanted} columns of y", columns)
        check_consistent_length(X, y)
        return _canonical(readable(X)), y, None

    def _weights(self, y: Any, sample_weight: Any, incremental: bool) -> Any:
        """Return sample weights, multiplied by those of the classes, where these have any."""
        class_weight = vars(self).get("class_weight")
        if class_weight is None:
            return sample_weight
        of_labels = class_weight if isinstance(class_weight, list) else [class_weight]
        for given in of_labels:
            for label, weight in (given if isinstance(given, dict) else {}).items():
                checks.number(f"class_weight[{label!r}]", weight)
        if incremental and "balanced" in of_labels:
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit, which sees the rows of "
                "one call: sklearn.utils.class_weight.compute_class_weight takes all of y"
            )
        if not _are_labels(y, sample_weight):
            return sample_weight
        weights = compute_sample_weight(class_weight, y)
        return weights if sample_weight is None else weights * np.asarray(sample_weight)

    def _batch_rows(self, rows: int) -> int:
        """Return the rows of a batch, of `rows` that there are."""
        if self.batch_size == "auto":
            return min(200, rows)
        if self.batch_size > rows:
            warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
                CALLER + 1,
            )
        return int(min(self.batch_size, rows))

    def _targets(self, y: Array) -> Array:
        """Return y (m, n[L]) as the core reads it: classes (m,) for softmax."""
        of_classes = is_classifier(self) and self._label_binarizer.y_type_ == "multiclass"
        targets: Array = np.argmax(y, axis=1) if of_classes else readable(y)
        return targets

    def _objective(self) -> dict[str, Any]:
        """Return what turns the core's sums over outputs into scikit-learn's loss and gradient."""
        is_mean = self.out_activation_ == "identity"
        return {
            "alpha": float(self.alpha),
            "loss_scale": 1.0 / self.n_outputs_ if is_mean else 1.0,
            "gradient_scale": 1.0,
        }

    # --- what a fit leaves ---

    def _new_optimizer(self) -> Any:
        """Return scikit-learn's optimizer, for its rate and decisions; its state is the core's."""
        if self.optimizer is not None:
            return BaseOptimizer(self.learning_rate_init)
        if self.solver == "adam":
            settings = (self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)
            return AdamOptimizer([], *settings)
        return SGDOptimizer(
            [],
            self.learning_rate_init,
            self.learning_rate,
            self.momentum,
            self.nesterovs_momentum,
            self.power_t,
        )

    def _tell_optimizer(self, network: Any) -> None:
        """Write what the core counted into the attributes of Adam's optimizer."""
        optimizer = self._optimizer
        if not isinstance(optimizer, AdamOptimizer) or network.steps == 0:
            return
        optimizer.t = network.steps
        corrections = np.sqrt(1 - optimizer.beta_2**optimizer.t) / (
            1 - optimizer.beta_1**optimizer.t
        )
        optimizer.learning_rate = optimizer.learning_rate_init * corrections

    def _training_state(self) -> Any:
        """Return counters and state of what trains, or None where nothing was trained."""
        if "_optimizer" not in vars(self):
            return None
        if "network_" in vars(self):
            return self.network_._net.get_state()
        return vars(self._prepared_engine().exported(self._optimizer)).get("_state")

    # --- files ---

    def to_network(self) -> Network:
        """Return a `lamella.Network` with these layers and parameters: a copy, without a state."""
        check_is_fitted(self)
        if "network_" in vars(self):
            options.current(self)
            kept: Network = copy(self.network_)
            return kept
        hidden = CORE_NAMES.get(self.activation, self.activation)
        output = CORE_NAMES.get(self.out_activation_, self.out_activation_)
        units = [len(b) for b in self.intercepts_]
        names = [hidden] * (len(units) - 1) + [output]
        layers = [Dense(n, name) for n, name in zip(units, names, strict=True)]
        network = Network(
            [self.n_features_in_, *layers], output=output, dtype=self.coefs_[0].dtype, init="normal"
        )
        pairs = enumerate(zip(self.coefs_, self.intercepts_, strict=True), start=1)
        network.parameters = {
            f"{kind}{n}": array.T
            for n, pair in pairs
            for kind, array in zip("Wb", pair, strict=True)
        }
        return network

    def summary(self) -> None:
        """Print the layers, their activations, shapes, numbers of parameters and memory."""
        unit = "iterations" if self.solver == "lbfgs" else "epochs"
        print(summary.text(self.to_network(), f"{self.n_iter_:,} {unit}"))

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Return, or write, the network as ONNX; see `lamella.Network.to_onnx`.

        It gives what the last layer returns: probabilities or values, not labels.
        """
        return self.to_network().to_onnx(path)

    def save(self, path: str | os.PathLike[str], *, state: bool = False) -> None:
        """Write parameters and fitted attributes to a safetensors file, without any pickle.

        The file appears under its name when it is whole. `load` gives an estimator that answers
        with the same bits. `callbacks` and `validation_data` are not kept.

        Parameters
        ----------
        path : str or path
        state : bool
            Whether the optimizer's state is kept too, so that `partial_fit` after `load` goes on
            with the bits of one that was never interrupted; without it, `partial_fit` goes on
            from the weights with a new optimizer. What a schedule that reduces on a plateau has
            seen is not kept.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If a weight is not finite.
        TypeError
            If a parameter is a function, which no file can hold.
        OSError
            If the file cannot be written; one that was there is still whole.
        """
        from . import saving

        saving.save(self, path, state=state)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the estimator that `save` wrote to a file. The file may come from anybody.

        Raises
        ------
        ValueError
            If the file is damaged, holds no estimator of this class, or needs a newer version or
            another CPU ("bfloat16").
        MemoryError
            If it exceeds the available memory.
        OSError
            If the file cannot be read.
        """
        from . import saving

        return saving.load(path, cls)

    # --- copies ---

    def _prepared_engine(self) -> Engine:
        """Return the estimator's engine; copies and pickles come without one."""
        engine: Engine | None = vars(self).get("_engine")
        if engine is None:
            engine = self._engine = Engine()
        return engine

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, the optimizer with its state and without the core's networks."""
        state = dict(super().__getstate__())
        engine = state.pop("_engine", None)
        if engine is not None and "_optimizer" in state:
            state["_optimizer"] = engine.exported(state["_optimizer"])
        if "network_" in state:
            state["network_"] = copy(self.network_)
            state["_network_state"] = self.network_._net.get_state()
            state.pop("_network_copies", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes; networks are made of them when they are needed."""
        super().__setstate__(state)
        self._engine = Engine()
        kept = self.__dict__.pop("_network_state", None)
        if kept is not None:
            self.network_._net.set_state(*kept)


CORE_NAMES = {"logistic": "sigmoid", "exp": "exponential"}
"""scikit-learn's names of activations that are others in the core."""


def _as_array(name: str, value: Any) -> Any:
    """Return an array of what scikit-learn does not read everywhere, else `value`.

    That is what shows its numbers through DLPack or the array interface alone.
    """
    if frames.is_dlpack(value):
        return frames.from_dlpack(name, value)
    if hasattr(value, "__array__") or not any(hasattr(value, mark) for mark in frames.ARRAY_MARKS):
        return value
    return np.asarray(value)


def _canonical(X: Any) -> Any:
    """Return X with the entries of one place summed, which the core would do in every epoch."""
    if hasattr(X, "has_canonical_format") and not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def _as_weights(sample_weight: Any) -> Array | None:
    """Return sample weights (m,) as the core reads them."""
    return None if sample_weight is None else np.ascontiguousarray(sample_weight, dtype=np.float64)


def _check_weights(data: Data, batch_size: int) -> None:
    """Refuse an epoch in which the weights of a batch are no divisor, as `numpy.average` does."""
    if data.weights is None or data.weights.min() > 0:
        return
    sums = np.add.reduceat(data.weights[data.order], np.arange(0, len(data.order), batch_size))
    if not np.all(sums):
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
