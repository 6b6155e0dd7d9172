"""Elementary functions of float64 with the same bits on every machine.

Owns what schedules need beyond + - * / and sqrt, which IEEE 754 rounds alike everywhere, as NumPy's
and libm's cos, exp, log and pow are not promised to be. Promises relative errors of a few 1e-16 in
the ranges that schedules use. Speed is not its aim: these run once a step at most, vectorised.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
"""log(2) as a sum: a number that integers multiply exactly, as it ends in zeros, and the rest."""

TERMS = 9
"""Of the cosine's and the sine's Taylor series, on [0, pi/4]: the next one is below 1e-19."""


def cos_pi(x: Floats) -> Floats:
    """Return `cos(pi x)`."""
    x = np.abs(x) % 2.0  # the remainder is exact
    x = np.where(x > 1, 2 - x, x)
    flipped = x > 0.5
    x = np.where(flipped, 1 - x, x)
    near = x <= 0.25  # of 0: the cosine; beyond, the sine of what is left to one half
    angle = np.pi * np.where(near, x, 0.5 - x)
    square = angle * angle
    value = np.where(near, _series(square, 0), angle * _series(square, 1))
    return np.where(flipped, -value, value)


def power(base: Floats, exponent: float) -> Floats:
    """Return `base**exponent` for base and exponent of at least 0."""
    if exponent == int(exponent) and exponent <= 64:
        return whole_power(base, np.full(base.shape, int(exponent)))
    positive = np.where(base > 0, base, 1.0)
    return np.where(base > 0, exp(exponent * log(positive)), 0.0)


def whole_power(base: Floats | float, exponent: NDArray[np.int64]) -> Floats:
    """Return `base**exponent` for exponents of at least 0, by squaring.

    The relative error is at most about 1e-16 times the exponent.
    """
    square = np.asarray(base, np.float64)
    result = np.ones(exponent.shape)
    left, most = exponent.copy(), int(exponent.max(initial=0))
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is an answer, too
        while most:
            result = np.where(left & 1, result * square, result)
            left >>= 1
            most >>= 1
            square = square * square
    return result


def exp(x: Floats) -> Floats:
    """Return `e**x` for |x| below 700."""
    n = np.rint(x / (LN2_HIGH + LN2_LOW))
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    result = np.ones_like(r)
    for k in range(14, 0, -1):  # |r| < 0.35: the next term is below 1e-18
        result = 1 + r * result / k
    scaled: Floats = np.ldexp(result, n.astype(np.int32))
    return scaled


def log(x: Floats) -> Floats:
    """Return the natural logarithm of positive x."""
    m, n = np.frexp(x)
    low = m < math.sqrt(0.5)
    m, n = np.where(low, 2 * m, m), np.where(low, n - 1, n)
    s = (m - 1) / (m + 1)
    square = s * s
    series = np.zeros_like(s)
    for k in range(23, 0, -2):  # |s| < 0.18: the next term is below 1e-18
        series = 1 / k + square * series
    result: Floats = n * LN2_HIGH + (n * LN2_LOW + 2 * s * series)
    return result


def _series(square: Floats, first: int) -> Floats:
    """Return `1 - square / ((f+1)(f+2)) + ...`: the cosine for f = 0, sin(x)/x for f = 1."""
    result = np.ones_like(square)
    for k in range(first + 2 * TERMS, first, -2):
        result = 1 - square / (k * (k - 1)) * result
    return result
