"""Warnings as scikit-learn gives them: found by the same filters, shown at the caller's line.

Programs silence them by category and by module, and the module is scikit-learn's own there.
"""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

MODULE = "sklearn.neural_network._multilayer_perceptron"
"""Where scikit-learn's own come from."""


def warn(message: str, level: int, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that is `level` calls up, 1 being the caller's own."""
    frame = sys._getframe(level)
    seen = frame.f_globals.setdefault("__warningregistry__", {})
    file, line = frame.f_code.co_filename, frame.f_lineno
    warnings.warn_explicit(message, category, file, line, MODULE, seen)
