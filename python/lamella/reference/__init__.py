"""The L-layer functions and the trainer in pure NumPy: what the core has to compute.

Made to be read next to `functional.py`, which has the same functions on the core, with the
same signatures and errors. Every formula stands here in its plainest form, one line of NumPy
each; nothing is fused, nothing is in place, and numbers are as exact as NumPy makes them.

Alphabet: m samples, L layers, `n[l]` units of layer l (`n[0]` features), `Z[l]` before and `A[l]`
after the activation, `dZ[l]`, `dW[l]`, `db[l]` the cost's gradients by them. Arrays are features x
samples: `X (n[0], m)`, `W[l] (n[l], n[l-1])`, `b[l] (n[l], 1)`; `Z[l]`, `A[l]`, `dZ[l]` are
`(n[l], m)`.

Forward:  `Z[l] = W[l] A[l-1] + b[l]`, `A[l] = g(Z[l])`.
Backward: `dZ[L] = (A[L] - Y) / m`, `dW[l] = dZ[l] A[l-1]^T`, `db[l]` = row sums of `dZ[l]`,
`dZ[l-1] = (W[l]^T dZ[l]) * g'(Z[l-1])` (Rumelhart, Hinton, Williams, 1986). The first formula
holds for each output with its own cost: sigmoid, softmax, identity.
"""

from __future__ import annotations

from ..course import initialize_parameters_deep, update_parameters_deep
from .activations import relu, sigmoid, softmax, tanh
from .functions import (
    L_layer_model,
    L_model_backward,
    L_model_forward,
    compute_cost,
    gradient_check,
    predict,
)
from .layers import bfloat16
from .lbfgs import fit_lbfgs
from .sensitivity import input_gradients
from .trainer import epoch_order, fit

__all__ = [
    "L_layer_model",
    "L_model_backward",
    "L_model_forward",
    "bfloat16",
    "compute_cost",
    "epoch_order",
    "fit",
    "fit_lbfgs",
    "gradient_check",
    "initialize_parameters_deep",
    "input_gradients",
    "predict",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
    "update_parameters_deep",
]
