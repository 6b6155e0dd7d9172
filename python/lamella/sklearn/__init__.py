"""scikit-learn's multilayer perceptrons, trained by the core: change one import.

`from lamella.sklearn import MLPClassifier` in place of `from sklearn.neural_network import
MLPClassifier` leaves a program as it is: the same parameters with the same meaning and defaults,
the same draws from the same random state, the same attributes, exceptions and warnings, and with
float64 data the same coefficients to rounding. Parameters that scikit-learn does not have are
keyword-only and change nothing by default.

This module needs scikit-learn, `pip install "lamella[sklearn]"`; the rest of the package does not.
"""

from __future__ import annotations

try:
    from .estimators import MLPClassifier, MLPRegressor
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("sklearn", "scipy", "joblib"):
        raise
    raise ModuleNotFoundError(
        'lamella.sklearn needs scikit-learn: pip install "lamella[sklearn]"', name=error.name
    ) from error

from .. import threadpool

threadpool.register()

__all__ = ["MLPClassifier", "MLPRegressor"]
