"""L-BFGS for an estimator whose iterations somebody hears of.

Owns the call of SciPy with a callback, which scikit-learn's own has not. Promises its iterates,
bit by bit, and its attributes in the end. Leaves loss and gradient to the estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.neural_network._multilayer_perceptron import _pack
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result


def minimise(estimator: Any, heard: Callable[[], bool], *arguments: Any) -> None:
    """Minimise the loss as scikit-learn's `_fit_lbfgs` does, of the same arguments.

    After each iteration `n_iter_`, `loss_`, `coefs_` and `intercepts_` are its own, and `heard` is
    asked whether to end there.
    """
    *data, layer_units = arguments
    _number_places(estimator, layer_units)
    estimator.n_iter_ = 0
    is_ended = False

    def iterated(intermediate_result: Any) -> None:
        nonlocal is_ended
        estimator.n_iter_ += 1
        estimator.loss_ = intermediate_result.fun
        estimator._unpack(intermediate_result.x)
        is_ended = heard()
        if is_ended:
            raise StopIteration

    options = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    lines = 1 if estimator.verbose else -1
    result = minimize(
        estimator._loss_grad_lbfgs,
        _pack(estimator.coefs_, estimator.intercepts_),
        method="L-BFGS-B",
        jac=True,
        options=options | _get_additional_lbfgs_options_dict("iprint", lines),
        args=tuple(data),
        callback=iterated,
    )
    if is_ended:
        estimator.n_iter_ = min(result.nit, estimator.max_iter)
    else:
        estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = result.fun
    estimator._unpack(result.x)


def _number_places(estimator: Any, layer_units: Sequence[int]) -> None:
    """Tell the estimator's `_unpack` where each array lies in the vector of all parameters."""
    shapes = list(pairwise(layer_units))
    sizes = [n * units for n, units in shapes] + [units for _, units in shapes]
    ends = np.cumsum(sizes).tolist()
    places = list(zip([0, *ends[:-1]], ends, strict=True))
    weights, biases = places[: len(shapes)], places[len(shapes) :]
    pairs = zip(weights, shapes, strict=True)
    estimator._coef_indptr = [(begin, end, shape) for (begin, end), shape in pairs]
    estimator._intercept_indptr = biases
