"""What the two estimators' docstrings have in common, written once.

Owns the words for the parameters and attributes that both have. Promises that `help()` shows them
whole, in each of the two.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

Estimator = TypeVar("Estimator", bound=type)

SHARED = """\
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
dtype : {"float32", "float64", "bfloat16"}, such a type or dtype of NumPy, or None, default=None
    Of parameters and computation. None is that of X, float64 unless X is float32, as in
    scikit-learn. "bfloat16" is mixed precision: parameters are float32, products round their
    operands to bfloat16; it needs a CPU with AVX-512 BF16.
threads : int or None, default=None
    Threads of a call at most; None is as many as help. The results are the same bits.
callbacks : callable, lamella.Callback, list of them or None, default=None
    Called after each epoch, of "lbfgs" after each iteration, `callback(epoch, logs, estimator)`:
    the epoch from 0, "loss" and with early stopping "val_score", and the estimator, whose
    `coefs_` are the epoch's. A true answer, or `lamella.callbacks.StopTraining`, ends the fit.
    Of a `Callback`, `on_epoch_end` is called. What "lbfgs" has as "loss" is the one at `coefs_`;
    what is written into these, it does not see.
time_limit : float or None, default=None
    Seconds after which a fit ends with the epoch, or the iteration, that it is in.
progress : bool, callable or None, default=None
    True shows a bar with the loss, the validation score, steps a second and the time left
    (needs tqdm), False none. None shows one in a notebook, or where standard error is a
    terminal, in a `fit` of more than half a second without `verbose`. A callable hears of every
    epoch, from 0, and of its loss.
"""
"""The parameters of scikit-learn, and how they are fitted."""

NETWORK = """\
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
"""
"""The parameters that ask for a network, and what a fit leaves."""


def documented(estimator: Estimator) -> Estimator:
    """Put the common words into an estimator's docstring, at `{shared}` and `{network}`."""
    if estimator.__doc__ is not None:  # python -OO has none
        text = inspect.cleandoc(estimator.__doc__)
        text = text.replace("{shared}\n", SHARED).replace("{network}\n", NETWORK)
        estimator.__doc__ = text
    return estimator
