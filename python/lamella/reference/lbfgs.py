"""L-BFGS: the twin of `lamella.Network.fit(optimizer="lbfgs")`, features x samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from .. import losses as named_losses
from ..checks import Array
from ..course import Parameters
from ..lbfgs import LBFGS, flat, minimise, views
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
    hidden: str | Sequence[str] = "relu",
    output: str = "sigmoid",
) -> tuple[Parameters, Array]:
    """Minimise the loss of all samples by SciPy's L-BFGS, as `lamella.Network` does.

    The arguments are those of `reference.fit`.

    Returns
    -------
    parameters : dict of ndarray
    losses : ndarray (iterations,)
        Before each iteration.
    """
    net = checks.layers(parameters)
    X = checks.samples("X", X, net.dims[0], net.dtype)
    layers = layers_like(hidden, output, net.dims)
    m = X.shape[1]
    criterion = named_losses.resolve(None, output)
    assert isinstance(criterion, named_losses.Loss)
    Y = targets(criterion, Y, output, (net.dims[-1], m), net.dtype)
    penalty = Penalty(0.0, checks.number("l2", l2), checks.flag("decay_biases", decay_biases))
    scale = checks.number("loss_scale", loss_scale)
    names = [f"{kind}{layer}" for layer in range(1, len(net.dims)) for kind in "Wb"]
    start = [np.array(parameters[name], net.dtype) for name in names]
    shapes = [array.shape for array in start]
    end: Parameters = {}

    def named(numbers: Array) -> Parameters:
        arrays = (array.astype(net.dtype) for array in views(numbers, shapes))
        return dict(zip(names, arrays, strict=True))

    def function(numbers: Array) -> tuple[float, Array]:
        loss, grads = _loss_and_gradients(
            named(numbers),
            X,
            Y,
            np.ones(m),
            layers,
            criterion,
            penalty,
            scale,
            Training(0, 1),
            as_it_is,
            None,
        )
        return loss, flat(grads[f"d{name}"] for name in names)

    losses = minimise(function, flat(start), rule, None, lambda numbers: end.update(named(numbers)))
    return end, losses
