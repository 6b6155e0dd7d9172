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

from .options import gives_margins, gives_probabilities, loss_constraint
from .perceptron import ADDITIONS, Perceptron

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(Perceptron, neural_network.MLPClassifier):  # type: ignore[misc]
    """A classifier: softmax for several classes, sigmoid for two or for several labels.

    It stands in for `sklearn.neural_network.MLPClassifier`, of which it is a subclass: the
    parameters, the fitted attributes and the methods are documented there, and mean the same here.
    With the same `random_state` and float64 data, "adam" and "sgd" end at the same coefficients to
    rounding.

    Parameters
    ----------
    hidden_layer_sizes, activation
        As in scikit-learn, where the defaults are the same too.
    solver, alpha, batch_size, learning_rate_init, power_t, max_iter, shuffle
        As in scikit-learn.
    learning_rate : {"constant", "invscaling", "adaptive"}, Schedule or callable, default="constant"
        As in scikit-learn, or a schedule such as `lamella.schedules.Cosine()`, whose total is
        `max_iter` epochs where it has none and which scales `learning_rate_init`, or a function
        of the updates made before a step. A schedule that reduces on a plateau hears of "loss".
    random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping
        As in scikit-learn.
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in scikit-learn.
    dtype : {"float32", "float64", "bfloat16"}, np.float32, np.float64 or None, default=None
        Of parameters and computation. None is that of X, float64 unless X is float32, as in
        scikit-learn. "bfloat16" is mixed precision: parameters are float32, products round their
        operands to bfloat16; it needs a CPU with AVX-512 BF16.
    threads : int or None, default=None
        Threads of a call at most; None is as many as help. The results are the same bits.
    callbacks : callable, lamella.Callback, list of them or None, default=None
        Called after each epoch of "adam" and "sgd", `callback(epoch, logs, estimator)`: the epoch
        from 0, "loss" and with early stopping "val_score", and the estimator, whose `coefs_` are
        the epoch's. A true answer, or `lamella.callbacks.StopTraining`, ends the fit. Of a
        `Callback`, `on_epoch_end` is called.
    time_limit : float or None, default=None
        Seconds after which a fit by "adam" or "sgd" ends with the epoch that it is in.
    class_weight : dict, "balanced", list of dict or None, default=None
        What the samples of a class count, besides `sample_weight`, as scikit-learn's other
        classifiers have it: "balanced" is inversely proportional to the classes' frequencies; a
        dict for each of several labels. It counts in the validation of early stopping too.
    loss : str, lamella.Focal, another loss of lamella's or callable, default="log_loss"
        "log_loss" is scikit-learn's. "focal", "cross_entropy" and "binary_cross_entropy", or
        objects with settings, keep the probabilities; "hinge" and "squared_hinge" give margins,
        with `decision_function` in place of `predict_proba`. A function is as for
        `lamella.Network`: its targets are class indices (rows,), or 0 and 1 (rows, n_outputs).
    activations : str, list of str or None, default=None
        Of the hidden layers, in place of `activation`: one for all or one for each, of those that
        `lamella.Dense` has, such as "gelu" or "leaky_relu". The initial weights are drawn as for
        `activation` all the same.
    dropout : float, default=0.0
        The share of hidden units that training drops, in [0, 1).
    norm : {"batch", "layer"}, lamella.BatchNorm, lamella.LayerNorm or None, default=None
        Normalisation of the hidden layers, before their activation. Its own parameters and
        running statistics are `network_`'s: `coefs_` and `intercepts_` are not the whole model.
    residual : bool, default=False
        Whether the input of a hidden layer is added to its result, where both are as wide.
    optimizer : str, lamella.Adam, another optimizer of lamella's or None, default=None
        In place of `solver`, which must not be "lbfgs" then. A name ("adamw", "lion", ...) takes
        `learning_rate_init`, an object has a rate of its own. `alpha` counts beside its weight
        decay.
    clip_norm : float or None, default=None
        The greatest norm of the gradient, which longer ones are scaled to.
    max_norm : float or None, default=None
        The greatest length of a unit's incoming weights after each update.
    validation_data : (X, y) or None, default=None
        With `early_stopping`, what the validation score is computed on, in place of a
        `validation_fraction` of the training data; all of that is trained on then.
    metric : str, callable, lamella.Metric or None, default=None
        With `early_stopping`, the validation score, in place of accuracy or R2: a name that
        `lamella.Network.fit` knows or a function `metric(y, predictions)`, of which more is
        better. A `Metric` may have it the other way, as "log_loss" and the errors do:
        `validation_scores_` has the negatives of those. All rows count the same.

    Where `activations`, `dropout`, `norm`, `residual`, `optimizer`, `clip_norm`, `max_norm`, a
    schedule or a loss of lamella's is used, a `lamella.Network` trains. Initial weights, rules of
    the solvers, gradients of the losses, stopping and attributes stay scikit-learn's, but the
    shuffle is the network's, by a seed drawn after the initial weights; the penalty is that
    of a whole batch of average weight in each; an error that is not finite is a
    `lamella.DivergenceError`; and values of the squared error are summed over several outputs.
    `solver="lbfgs"` does none of this.

    Attributes
    ----------
    coefs_ : list of ndarray (n[l], n[l+1])
        The weights. Predictions use what they hold, also after they were written to.
    intercepts_ : list of ndarray (n[l+1],)
        The biases.
    loss_curve_ : list of float
        The loss of each epoch, penalties included; not with lbfgs.
    network_ : lamella.Network
        What was trained, where a network was needed. It follows what is written into `coefs_`.

    The others, such as `best_loss_`, `n_iter_`, `t_` and `validation_scores_`, are scikit-learn's.

    Raises
    ------
    ValueError, TypeError, AttributeError
        Where scikit-learn raises them.

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
    hidden_layer_sizes, activation
        As in scikit-learn, where the defaults are the same too.
    solver, alpha, batch_size, learning_rate_init, power_t, max_iter, shuffle
        As in scikit-learn.
    learning_rate : {"constant", "invscaling", "adaptive"}, Schedule or callable, default="constant"
        As in scikit-learn, or a schedule such as `lamella.schedules.Cosine()`, whose total is
        `max_iter` epochs where it has none and which scales `learning_rate_init`, or a function
        of the updates made before a step. A schedule that reduces on a plateau hears of "loss".
    random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping
        As in scikit-learn.
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in scikit-learn.
    dtype : {"float32", "float64", "bfloat16"}, np.float32, np.float64 or None, default=None
        Of parameters and computation. None is that of X, float64 unless X is float32, as in
        scikit-learn. "bfloat16" is mixed precision: parameters are float32, products round their
        operands to bfloat16; it needs a CPU with AVX-512 BF16.
    threads : int or None, default=None
        Threads of a call at most; None is as many as help. The results are the same bits.
    callbacks : callable, lamella.Callback, list of them or None, default=None
        Called after each epoch of "adam" and "sgd", `callback(epoch, logs, estimator)`: the epoch
        from 0, "loss" and with early stopping "val_score", and the estimator, whose `coefs_` are
        the epoch's. A true answer, or `lamella.callbacks.StopTraining`, ends the fit. Of a
        `Callback`, `on_epoch_end` is called.
    time_limit : float or None, default=None
        Seconds after which a fit by "adam" or "sgd" ends with the epoch that it is in.
    activations : str, list of str or None, default=None
        Of the hidden layers, in place of `activation`: one for all or one for each, of those that
        `lamella.Dense` has, such as "gelu" or "leaky_relu". The initial weights are drawn as for
        `activation` all the same.
    dropout : float, default=0.0
        The share of hidden units that training drops, in [0, 1).
    norm : {"batch", "layer"}, lamella.BatchNorm, lamella.LayerNorm or None, default=None
        Normalisation of the hidden layers, before their activation. Its own parameters and
        running statistics are `network_`'s: `coefs_` and `intercepts_` are not the whole model.
    residual : bool, default=False
        Whether the input of a hidden layer is added to its result, where both are as wide.
    optimizer : str, lamella.Adam, another optimizer of lamella's or None, default=None
        In place of `solver`, which must not be "lbfgs" then. A name ("adamw", "lion", ...) takes
        `learning_rate_init`, an object has a rate of its own. `alpha` counts beside its weight
        decay.
    clip_norm : float or None, default=None
        The greatest norm of the gradient, which longer ones are scaled to.
    max_norm : float or None, default=None
        The greatest length of a unit's incoming weights after each update.
    validation_data : (X, y) or None, default=None
        With `early_stopping`, what the validation score is computed on, in place of a
        `validation_fraction` of the training data; all of that is trained on then.
    metric : str, callable, lamella.Metric or None, default=None
        With `early_stopping`, the validation score, in place of accuracy or R2: a name that
        `lamella.Network.fit` knows or a function `metric(y, predictions)`, of which more is
        better. A `Metric` may have it the other way, as "log_loss" and the errors do:
        `validation_scores_` has the negatives of those. All rows count the same.

    Where `activations`, `dropout`, `norm`, `residual`, `optimizer`, `clip_norm`, `max_norm`, a
    schedule or a loss of lamella's is used, a `lamella.Network` trains. Initial weights, rules of
    the solvers, gradients of the losses, stopping and attributes stay scikit-learn's, but the
    shuffle is the network's, by a seed drawn after the initial weights; the penalty is that
    of a whole batch of average weight in each; an error that is not finite is a
    `lamella.DivergenceError`; and values of the squared error are summed over several outputs.
    `solver="lbfgs"` does none of this.

    Attributes
    ----------
    coefs_ : list of ndarray (n[l], n[l+1])
        The weights. Predictions use what they hold, also after they were written to.
    intercepts_ : list of ndarray (n[l+1],)
        The biases.
    loss_curve_ : list of float
        The loss of each epoch, penalties included; not with lbfgs.
    network_ : lamella.Network
        What was trained, where a network was needed. It follows what is written into `coefs_`.

    The others, such as `best_loss_`, `n_iter_`, `t_` and `validation_scores_`, are scikit-learn's.

    Raises
    ------
    ValueError, TypeError, AttributeError
        Where scikit-learn raises them.

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
        self.activations = activations
        self.dropout = dropout
        self.norm = norm
        self.residual = residual
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.max_norm = max_norm
        self.validation_data = validation_data
        self.metric = metric
