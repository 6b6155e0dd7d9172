"""L-BFGS: the twin of `lamella.Network.fit(optimizer="lbfgs")`, features x samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .. import checks, matrices, passes
from .. import losses as named_losses
from ..checks import Array
from ..course import Parameters
from ..lbfgs import LBFGS, flat, minimise, views
from ..losses import Loss
from ..stopping import EarlyStopping
from .layers import Training, as_it_is, layers_like
from .losses import targets
from .trainer import Penalty, _loss_and_gradients


def fit_lbfgs(
    parameters: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    rule: LBFGS,
    *,
    l2: float = 0.0,
    decay_biases: bool = False,
    loss_scale: float = 1.0,
    loss: str | Loss | None = None,
    sample_weight: ArrayLike | None = None,
    hidden: str | Sequence[str] = "relu",
    output: str = "sigmoid",
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    early_stopping: EarlyStopping | None = None,
) -> tuple[Parameters, Array]:
    """Minimise the loss of all samples by SciPy's L-BFGS, as `lamella.Network` does.

    The arguments are those of `reference.fit`, an iteration being an epoch.

    Returns
    -------
    parameters : dict of ndarray
    losses : ndarray (iterations,)
        Before each iteration.
    """
    net = passes.layers(parameters)
    X = matrices.samples("X", X, net.dims[0], net.dtype)
    layers = layers_like(hidden, output, net.dims)
    m = X.shape[1]
    criterion = named_losses.resolve(loss, output)
    assert isinstance(criterion, Loss)
    Y = targets(criterion, Y, output, (net.dims[-1], m), net.dtype)
    w = (
        np.ones(m)
        if sample_weight is None
        else matrices.shaped("sample_weight", sample_weight, (m,))
    )
    held = None
    if validation is not None:
        held = matrices.samples("X", validation[0], net.dims[0], net.dtype)
        shape = (net.dims[-1], held.shape[1])
        held_Y = targets(criterion, validation[1], output, shape, net.dtype)
    penalty = Penalty(0.0, checks.number("l2", l2), checks.flag("decay_biases", decay_biases))
    scale = checks.number("loss_scale", loss_scale)
    names = [f"{kind}{layer}" for layer in range(1, len(net.dims)) for kind in "Wb"]
    start = [np.array(parameters[name], net.dtype) for name in names]
    shapes = [array.shape for array in start]
    end: Parameters = {}

    def named(numbers: Array) -> Parameters:
        arrays = (array.astype(net.dtype) for array in views(numbers, shapes))
        return dict(zip(names, arrays, strict=True))

    def at(parameters: Parameters, X: Array, Y: Array, w: Array) -> tuple[float, Parameters]:
        training = Training(0, 1)
        return _loss_and_gradients(
            parameters, X, Y, w, layers, criterion, penalty, scale, training, as_it_is, None
        )

    def function(numbers: Array) -> tuple[float, Array]:
        value, grads = at(named(numbers), X, Y, w)
        return value, flat(grads[f"d{name}"] for name in names)

    best, best_iteration, kept = np.inf, -1, end

    def heard(iteration: int, value: float) -> bool:
        nonlocal best, best_iteration, kept
        if early_stopping is None:
            return False
        if held is not None:
            value, _ = at(end, held, held_Y, np.ones(held.shape[1]))
        if value < best - early_stopping.min_delta:
            best, best_iteration, kept = value, iteration, dict(end)
        return iteration - best_iteration >= early_stopping.patience

    def keep(numbers: Array) -> None:
        end.update(named(numbers))

    losses = minimise(function, flat(start), rule, heard, keep)
    return kept if early_stopping is not None and early_stopping.restore_best else end, losses
