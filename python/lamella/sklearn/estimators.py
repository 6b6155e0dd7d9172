"""The estimators: scikit-learn's parameters, and those that the core adds.

Owns the signatures. Promises that `__init__` only stores, as scikit-learn's protocol wants it.
Leaves everything else to `perceptron.py`, and to the classes that these stand in for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .documentation import documented
from .options import gives_margins, gives_probabilities, loss_constraint
from .perceptron import ADDITIONS, Perceptron

__all__ = ["MLPClassifier", "MLPRegressor"]


@documented
class MLPClassifier(Perceptron, neural_network.MLPClassifier):  # type: ignore[misc]
    """A classifier: softmax for several classes, sigmoid for two or for several labels.

    It stands in for `sklearn.neural_network.MLPClassifier`, of which it is a subclass: the
    parameters, the fitted attributes and the methods are documented there, and mean the same here.
    With the same `random_state` and float64 data, "adam" and "sgd" end at the same coefficients to
    rounding.

    Parameters
    ----------
    {shared}
    class_weight : dict, "balanced", list of dict or None, default=None
        What the samples of a class count, besides `sample_weight`, as scikit-learn's other
        classifiers have it: "balanced" is inversely proportional to the classes' frequencies. Of
        several labels it takes a dict for each, or "balanced" for all; a sample counts the product
        of what its labels do. It counts in the validation of early stopping too.
    loss : str, lamella.Focal, another loss of lamella's or callable, default="log_loss"
        "log_loss" is scikit-learn's. "focal", "cross_entropy" and "binary_cross_entropy", or
        objects with settings, keep the probabilities; "hinge" and "squared_hinge" give margins,
        with `decision_function` in place of `predict_proba`. A function is as for
        `lamella.Network`: its targets are class indices (rows,), or 0 and 1 (rows, n_outputs).
    {network}

    Examples
    --------
    >>> from lamella.sklearn import MLPClassifier
    >>> model = MLPClassifier(hidden_layer_sizes=(20,), random_state=0, max_iter=5, tol=0.0)
    >>> model.get_params()["learning_rate_init"]
    0.001
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - scikit-learn's protocol
        **neural_network.MLPClassifier._parameter_constraints,
        **ADDITIONS,
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
        "loss": loss_constraint("log_loss", classes=True),
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dtype: Any = None,
        threads: int | None = None,
        callbacks: Any = None,
        time_limit: float | None = None,
        progress: Any = None,
        class_weight: Any = None,
        loss: Any = "log_loss",
        activations: Any = None,
        dropout: float = 0.0,
        norm: Any = None,
        residual: bool = False,
        optimizer: Any = None,
        clip_norm: float | None = None,
        max_norm: float | None = None,
        validation_data: Any = None,
        metric: Any = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )
        self.dtype = dtype
        self.threads = threads
        self.callbacks = callbacks
        self.time_limit = time_limit
        self.progress = progress
        self.class_weight = class_weight
        self.loss = loss
        self.activations = activations
        self.dropout = dropout
        self.norm = norm
        self.residual = residual
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.max_norm = max_norm
        self.validation_data = validation_data
        self.metric = metric

    @available_if(gives_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Any:
        """Return probabilities (m, n_classes), as scikit-learn does; not with a hinge."""
        return super().predict_proba(X)

    @available_if(gives_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of probabilities (m, n_classes); not with a hinge."""
        return super().predict_log_proba(X)

    @available_if(gives_margins)  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> Any:
        """Return margins (m,), or for several outputs (m, n_outputs); only with a hinge."""
        check_is_fitted(self)
        margins = self._forward_pass_fast(X)
        return margins[:, 0] if margins.shape[1] == 1 else margins

    def _predict(self, X: Any, check_input: bool = True) -> Any:
        """Return the classes of X: with margins, those above 0 or the greatest."""
        binarizer = self._label_binarizer
        if self.out_activation_ != "identity" or binarizer.y_type_ == "multiclass":
            return super()._predict(X, check_input)
        bits = (self._forward_pass_fast(X, check_input) > 0).astype(np.int64)
        return binarizer.inverse_transform(bits[:, 0] if self.n_outputs_ == 1 else bits)


@documented
class MLPRegressor(Perceptron, neural_network.MLPRegressor):  # type: ignore[misc]
    """A regressor: squared error, or Poisson deviance under an exponential output.

    It stands in for `sklearn.neural_network.MLPRegressor`, of which it is a subclass: the
    parameters, the fitted attributes and the methods are documented there, and mean the same here.
    With the same `random_state` and float64 data, "adam" and "sgd" end at the same coefficients to
    rounding.

    Parameters
    ----------
    loss : str, lamella.Huber, another loss of lamella's or callable, default="squared_error"
        "squared_error" and "poisson" are scikit-learn's: half of the squared error, or of the
        Poisson deviance of the exponential of the output. "huber", "quantile",
        "mean_absolute_error" and "mean_squared_error", objects such as
        `lamella.Quantile(0.9)` (of one quantile) and functions are as for `lamella.Network`.
    {shared}
    {network}

    Examples
    --------
    >>> from lamella.sklearn import MLPRegressor
    >>> model = MLPRegressor(hidden_layer_sizes=(20,), random_state=0, max_iter=5, tol=0.0)
    >>> model.get_params()["learning_rate_init"]
    0.001
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - scikit-learn's protocol
        **neural_network.MLPRegressor._parameter_constraints,
        **ADDITIONS,
        "loss": loss_constraint("squared_error", "poisson", classes=False),
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dtype: Any = None,
        threads: int | None = None,
        callbacks: Any = None,
        time_limit: float | None = None,
        progress: Any = None,
        activations: Any = None,
        dropout: float = 0.0,
        norm: Any = None,
        residual: bool = False,
        optimizer: Any = None,
        clip_norm: float | None = None,
        max_norm: float | None = None,
        validation_data: Any = None,
        metric: Any = None,
    ) -> None:
        super().__init__(
            loss=loss,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )
        self.dtype = dtype
        self.threads = threads
        self.callbacks = callbacks
        self.time_limit = time_limit
        self.progress = progress
        self.activations = activations
        self.dropout = dropout
        self.norm = norm
        self.residual = residual
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.max_norm = max_norm
        self.validation_data = validation_data
        self.metric = metric
