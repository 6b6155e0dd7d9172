"""What the two estimators share: scikit-learn's plumbing around the core's training.

Owns the decisions of a fit, epoch by epoch: order, validation, stopping, learning rates, messages.
Promises scikit-learn's draws from its generator, one shuffle an executed epoch and none ahead, and
its attributes after each fit. Parameters' checks, input validation, labels, the initial draws and
scoring are inherited from scikit-learn; every product, loss, gradient and update is the core's.

Alphabet: m samples, n[0] features, L layers of n[l] units. `coefs_[l] (n[l], n[l+1])`,
`intercepts_[l] (n[l+1],)`.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import validate_data
from threadpoolctl import threadpool_limits

from ..callbacks import Callback, StopTraining
from .engine import Engine, precision, readable, spec

Array = NDArray[Any]

ADDITIONS: dict[str, Any] = {
    "dtype": [
        StrOptions({"float32", "float64", "bfloat16"}),
        Options(type, {np.float32, np.float64}),
        None,
    ],
    "threads": [Interval(Integral, 1, None, closed="left"), None],
    "callbacks": [callable, Callback, list, tuple, None],
    "time_limit": [Interval(Real, 0, None, closed="neither"), None],
}
"""Constraints of the parameters that scikit-learn's estimators do not have."""

CALLER = 6
"""From `_fit_stochastic` up to who called `fit`: two `_fit`, `fit` and its wrapper lie between."""


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


class Perceptron(BaseMultilayerPerceptron):  # type: ignore[misc]
    """Training and answers by the core, in the place of scikit-learn's.

    A further option of the core becomes a parameter beside `dtype` and `threads`, with its
    constraint in `ADDITIONS`: what a network is made of belongs into `engine.key_of`, what the loss
    is into `_objective`, what happens between epochs into `_end_epoch`.
    """

    # --- what scikit-learn's `fit`, `partial_fit` and `predict` call ---

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:
        """Fit as scikit-learn does, with networks of the core at hand."""
        self._prepared_engine()
        weights = self._weights(y, sample_weight, incremental)
        return super()._fit(X, y, sample_weight=weights, incremental=incremental)

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> Any:
        """Check as scikit-learn does, and take X to the dtype that was asked for."""
        X, y = super()._validate_input(X, y, incremental, reset)
        wanted = precision(self.dtype)
        if wanted is not None:
            X = X.astype(np.float64 if wanted == "float64" else np.float32, copy=False)
        return X, y

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Array:
        """Return what the output layer returns for X (m, n[0]), `(m, n[L])`."""
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        return self._prepared_engine().outputs(self, X)

    def _backprop(
        self, X: Any, y: Array, sample_weight: Any, *_scratch: Any
    ) -> tuple[float, list[Array], list[Array]]:
        """Return the loss at the estimator's parameters and its gradients: lbfgs's objective."""
        if not all(np.isfinite(p).all() for p in (*self.coefs_, *self.intercepts_)):
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
        with threadpool_limits(limits=1, user_api="blas"):
            super()._fit_lbfgs(*arguments)

    def _fit_stochastic(self, X: Any, y: Array, sample_weight: Any, *scratch: Any) -> None:
        """Train by adam or sgd; the last argument says whether for one epoch, by `partial_fit`."""
        incremental = scratch[-1]
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = self._new_optimizer()
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        data = self._data(X, y, sample_weight)
        batch_size = self._batch_rows(len(data.order))
        engine = self._prepared_engine()
        network = engine.trainer(self)
        engine.own(self._optimizer)
        engine.is_training = True
        try:
            self._epochs(network, data, batch_size, incremental)
        except StopTraining:
            pass
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=CALLER)
        finally:
            engine.write_out(self)
            engine.is_training = False
        self._tell_optimizer(network)
        if self.early_stopping:
            self.coefs_, self.intercepts_ = self._best_coefs, self._best_intercepts
            engine.trainer(self)

    # --- a fit ---

    def _epochs(self, network: Any, data: Data, batch_size: int, incremental: bool) -> None:
        """Train epoch after epoch until it is time to stop."""
        fixed = {
            **self._objective(),
            "batch_size": batch_size,
            "weights": data.weights,
            "threads": self.threads,
        }
        self.n_iter_ = 0
        begin = time.monotonic()
        while self.n_iter_ < self.max_iter:
            if self.shuffle:
                drawn = np.arange(len(data.order))
                self._random_state.shuffle(drawn)
                data.order = data.order[drawn]
            _check_weights(data, batch_size)
            rule = spec(self._optimizer)
            self.loss_ = network.epoch(data.X, data.y, data.order, optimizer=rule, **fixed)
            # In this order: callbacks hear of every epoch.
            if self._end_epoch(data) | self._is_asked_to_stop(begin) or incremental:
                return
            if self.n_iter_ == self.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                    "optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=CALLER + 1,
                )

    def _end_epoch(self, data: Data) -> bool:
        """Book an epoch's loss, validate, adapt the learning rate; return whether to stop."""
        self.n_iter_ += 1
        self.t_ += len(data.order)
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if self.early_stopping:
            self._prepared_engine().write_out(self)
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

    def _is_asked_to_stop(self, begin: float) -> bool:
        """Tell the callbacks of an epoch; return whether one, or the clock, ends the fit."""
        callbacks = self.callbacks
        if callbacks is None:
            callbacks = []
        elif not isinstance(callbacks, (list, tuple)):
            callbacks = [callbacks]
        logs = {"loss": self.loss_}
        if self.early_stopping:
            logs["val_score"] = self.validation_scores_[-1]
        if callbacks:
            self._prepared_engine().write_out(self)
        calls = [getattr(callback, "on_epoch_end", callback) for callback in callbacks]
        answers = [bool(call(self.n_iter_ - 1, logs, self)) for call in calls]
        late = self.time_limit is not None and time.monotonic() - begin >= self.time_limit
        return late or any(answers)

    def _data(self, X: Any, y: Array, sample_weight: Any) -> Data:
        """Hold rows out, if they are to be, as `train_test_split` of X and y would do it."""
        X, rows = _canonical(readable(X)), np.arange(X.shape[0])
        all_weights = _as_weights(sample_weight)
        if not self.early_stopping:
            return Data(X, self._targets(y), all_weights, rows)
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

    def _weights(self, y: Any, sample_weight: Any, incremental: bool) -> Any:
        """Return sample weights, multiplied by those of the classes, where these have any."""
        class_weight = vars(self).get("class_weight")
        if class_weight is None:
            return sample_weight
        if incremental and class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit, which sees the rows of "
                "one call: sklearn.utils.class_weight.compute_class_weight takes all of y"
            )
        weights = compute_sample_weight(class_weight, y)
        return weights if sample_weight is None else weights * np.asarray(sample_weight)

    def _batch_rows(self, rows: int) -> int:
        """Return the rows of a batch, of `rows` that there are."""
        if self.batch_size == "auto":
            return min(200, rows)
        if self.batch_size > rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
                stacklevel=CALLER + 1,
            )
        return int(min(self.batch_size, rows))

    def _targets(self, y: Array) -> Array:
        """Return y (m, n[L]) as the core reads it: classes (m,) for softmax."""
        targets: Array = np.argmax(y, axis=1) if self.out_activation_ == "softmax" else readable(y)
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
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes; networks are made of them when they are needed."""
        super().__setstate__(state)
        self._engine = Engine()


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
