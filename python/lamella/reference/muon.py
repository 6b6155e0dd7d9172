"""Muon, in PyTorch's form; W, dW and its momentum m (n[l], n[l-1])."""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..optimizers import Elementwise, Muon, Optimizer, plain_rate, resolve
from .layers import as_it_is, bfloat16


def rule_of(rule: Optimizer, name: str, L: int) -> Optimizer:
    """Return what the parameter of this name follows in a network of L layers."""
    if not isinstance(rule, Muon):
        return rule
    covers = name[0] == "W" and (not rule.hidden_only or 1 < int(name[1:]) < L)
    return rule if covers else _others(rule)


def follow(rule: Muon, W: Array, dW: Array, m: Array) -> None:
    """Make one step on a matrix, in place, with its momentum."""
    m[...] = rule.momentum * m + (1 - rule.momentum) * dW
    U = (1 - rule.momentum) * dW + rule.momentum * m if rule.nesterov else m
    n_out, n_in = W.shape
    adjustment = {
        "original": np.sqrt(max(1.0, n_out / n_in)),
        "match_rms_adamw": 0.2 * np.sqrt(max(n_out, n_in)),
        "spectral_unclamped": np.sqrt(n_out / n_in),
    }[rule.adjust_lr_fn]
    W -= plain_rate(rule.learning_rate) * adjustment * orthogonalized(rule, U)


def orthogonalized(rule: Muon, U: Array) -> Array:
    """Drive the singular values of U towards 1 by Newton and Schulz's iteration."""
    rounded = bfloat16 if rule.bfloat16 else as_it_is
    a, b, c = rule.ns_coefficients
    X = rounded(U.T if U.shape[0] > U.shape[1] else U)
    X = rounded(X / max(float(rounded(np.array(np.linalg.norm(X)))), rule.epsilon))
    for _ in range(rule.ns_steps):
        A = rounded(X @ X.T)
        B = rounded(b * A + c * A @ A)
        X = rounded(a * X + B @ X)
    return X.T if U.shape[0] > U.shape[1] else X


def _others(rule: Muon) -> Elementwise:
    """Return what biases follow."""
    others = resolve(rule.others)
    assert not isinstance(others, Muon)
    return others
