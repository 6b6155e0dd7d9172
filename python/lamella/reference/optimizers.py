"""The optimizers' rules: PyTorch's, and optax's Lion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..checks import Array
from ..optimizers import SGD, Adagrad, Adam, Lion, NAdam, Optimizer, RMSprop, plain_rate


class State(NamedTuple):
    """What an optimizer remembers of one array."""

    m: Array
    v: Array
    extra: Array


def update(rule: Optimizer, step: int, W: Array, dW: Array, state: State) -> None:
    """Make one step on one array, in place, with its state: PyTorch's rules, and optax's Lion."""
    rate, (m, v, extra) = plain_rate(rule.learning_rate), state
    if isinstance(rule, SGD):
        m[...] = rule.momentum * m + dW
        W -= rate * (dW + rule.momentum * m if rule.nesterov else m)
    elif isinstance(rule, RMSprop):
        v[...] = rule.alpha * v + (1 - rule.alpha) * dW**2
        m[...] = rule.alpha * m + (1 - rule.alpha) * dW if rule.centered else 0
        extra[...] = rule.momentum * extra + dW / (np.sqrt(v - m**2) + rule.epsilon)
        W -= rate * extra
    elif isinstance(rule, Adagrad):
        v += dW**2
        W -= rate / (1 + (step - 1) * rule.learning_rate_decay) * dW / (np.sqrt(v) + rule.epsilon)
    elif isinstance(rule, Lion):
        W -= rate * np.sign(rule.beta1 * m + (1 - rule.beta1) * dW)
        m[...] = rule.beta2 * m + (1 - rule.beta2) * dW
    else:
        m[...] = rule.beta1 * m + (1 - rule.beta1) * dW
        v[...] = rule.beta2 * v + (1 - rule.beta2) * dW**2
        extra[...] = np.maximum(extra, v)
        v_hat = (extra if isinstance(rule, Adam) and rule.amsgrad else v) / (1 - rule.beta2**step)
        if isinstance(rule, Adam):
            direction = m / (1 - rule.beta1**step)
        else:
            direction = _look_ahead(rule, step, dW, m)
        W -= rate * direction / (np.sqrt(v_hat) + rule.epsilon)


def _look_ahead(rule: NAdam, step: int, dW: Array, m: Array) -> Array:
    """Return NAdam's direction, before it is scaled."""
    mu = rule.beta1 * (1 - 0.5 * 0.96 ** (np.arange(1, step + 2) * rule.momentum_decay))
    so_far, next_one = np.prod(mu[:-1]), mu[-1]
    ahead: Array = (1 - mu[-2]) / (1 - so_far) * dW + next_one / (1 - so_far * next_one) * m
    return ahead
