"""The estimators: scikit-learn's parameters, and those that the core adds.

Owns the signatures. Promises that `__init__` only stores, as scikit-learn's protocol wants it.
Leaves everything else to `perceptron.py`, and to the classes that these stand in for.
"""

from __future__ import annotations

from typing import Any

from sklearn import neural_network
from sklearn.utils._param_validation import StrOptions

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
    solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle
        As in scikit-learn.
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

    Attributes
    ----------
    coefs_ : list of ndarray (n[l], n[l+1])
        The weights. Predictions use what they hold, also after they were written to.
    intercepts_ : list of ndarray (n[l+1],)
        The biases.
    loss_curve_ : list of float
        The loss of each epoch, penalties included; not with lbfgs.

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
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
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


class MLPRegressor(Perceptron, neural_network.MLPRegressor):  # type: ignore[misc]
    """A regressor: squared error, or Poisson deviance under an exponential output.

    It stands in for `sklearn.neural_network.MLPRegressor`, of which it is a subclass: the
    parameters, the fitted attributes and the methods are documented there, and mean the same here.
    With the same `random_state` and float64 data, "adam" and "sgd" end at the same coefficients to
    rounding.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default="squared_error"
        Half of the squared error, or of the Poisson deviance of the exponential of the output.
    hidden_layer_sizes, activation
        As in scikit-learn, where the defaults are the same too.
    solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle
        As in scikit-learn.
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

    Attributes
    ----------
    coefs_ : list of ndarray (n[l], n[l+1])
        The weights. Predictions use what they hold, also after they were written to.
    intercepts_ : list of ndarray (n[l+1],)
        The biases.
    loss_curve_ : list of float
        The loss of each epoch, penalties included; not with lbfgs.

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
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
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
