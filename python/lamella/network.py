"""The model: a dense network that lives in the core, samples x features.

Owns the public face of training: layers, labels, losses and their names, history, progress.
Promises that arguments are checked before work starts, that `fit(5)` then `fit(5)` gives the bits
of `fit(10)`, and that nothing depends on the number of threads. Leaves the work to
`lamella._core`, initial draws to `initializers.py` and update rules to `optimizers.py`.

Alphabet: m samples, `n[0]` features, L layers of `n[l]` units. `X (m, n[0])`, outputs `(m, n[L])`,
`W[l] (n[l], n[l-1])`, `b[l] (n[l],)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import _core, checks, initializers, optimizers
from .checks import CSR, Array
from .initializers import Init
from .layers import Dense, layers_of
from .optimizers import Optimizer

__all__ = ["History", "Network"]

Progress = bool | Callable[[int, float], object] | None
"""None or False, True for a bar, or a function of the epoch, from 0, and its loss."""


@dataclass(frozen=True)
class History:
    """What one `fit` saw.

    Attributes
    ----------
    loss : ndarray (epochs,)
        The mean over each epoch's rows of their batch's loss before its update, in float64.
    metrics : dict of ndarray
        Further numbers of each epoch, by name.
    """

    loss: Array
    metrics: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.loss)


class Network:
    """A dense network, trained by the core.

    The loss is a mean over samples and over outputs, as PyTorch's defaults: sigmoid and binary
    cross-entropy, softmax and cross-entropy, identity and mean squared error, each computed
    from logits. `l1` and `l2` add `l1 * sum(|W|) + l2/2 * sum(W^2)` over weights, and over biases
    with `decay_biases`.

    Copies and pickles keep settings and parameters, bit by bit; they do not keep the
    optimizer's state, so their training starts anew from there, at step and epoch 0.

    Parameters
    ----------
    layers : sequence
        The number of features, then of each layer an int or a `Dense`.
    hidden : {"relu", "leaky_relu", "tanh", "sigmoid", "identity"}
        The activation of the layers before the last.
    output : {"identity", "sigmoid", "softmax"}
        The activation of the last layer.
    loss : str, optional
        "binary_cross_entropy", "cross_entropy" or "mean_squared_error": the one that belongs to
        the output, which is also the default.
    init : {"he", "lecun", "xavier", "normal"} or float
        Scale of the initial weights; biases are zero. See `lamella.initializers`.
    dtype : {"float32", "float64", "bfloat16"}
        Of parameters and computation. X may have any real dtype. "bfloat16" is mixed precision:
        parameters, optimizer state and sums are float32, and products round their operands to
        bfloat16; it needs a CPU with AVX-512 BF16.
    seed : int
        Of the initial weights and of the shuffle.
    l1, l2 : float
        Penalties, at least 0.
    decay_biases : bool
        Whether penalties and an optimizer's weight decay reach biases too.
    max_norm : float, optional
        The greatest length of a unit's incoming weights: after each update, those of length r
        above it are multiplied by `max_norm / (r + 1e-7)`. A `Dense` may have its own.

    Attributes
    ----------
    layers : tuple of Dense
        With every activation and initializer filled in.
    n_features, n_outputs : int
    output, loss : str
    dtype : dtype
        Of the parameters: float32 in mixed precision too.
    precision : str
        "float32", "float64" or "bfloat16".
    seed : int
    l1, l2 : float
    decay_biases : bool
    max_norm : float or None

    Raises
    ------
    TypeError, ValueError
        For any argument that does not fit.
    MemoryError
        If the parameters exceed the available memory.
    """

    def __init__(
        self,
        layers: Sequence[int | Dense],
        *,
        hidden: str = "relu",
        output: str = "identity",
        loss: str | None = None,
        init: Init = "he",
        dtype: DTypeLike = "float32",
        seed: int = 0,
        l1: float = 0.0,
        l2: float = 0.0,
        decay_biases: bool = False,
        max_norm: float | None = None,
    ) -> None:
        self.max_norm = checks.clip("max_norm", max_norm)
        self.n_features, self.layers = layers_of(
            layers, hidden, output, initializers.checked(init), self.max_norm
        )
        self.n_outputs = self.layers[-1].units
        self.output = str(self.layers[-1].activation)
        self.loss = _loss(loss, self.output)
        self.dtype, self.precision = checks.precision(dtype)
        self.seed = checks.seed(seed)
        self.l1, self.l2 = checks.number("l1", l1), checks.number("l2", l2)
        self.decay_biases = checks.flag("decay_biases", decay_biases)
        dims = (self.n_features, *(layer.units for layer in self.layers))
        inits = [layer.init for layer in self.layers if layer.init is not None]
        start = initializers.draw(dims, inits, self.seed, self.dtype)
        self._net = self._core_network()
        self._net.set_parameters(list(start.values()))

    # --- training ---

    def fit(
        self,
        X: ArrayLike | CSR,
        y: ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int | None = 32,
        optimizer: str | Optimizer = "adam",
        learning_rate: float | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
        shuffle: bool = True,
        threads: int | None = None,
        progress: Progress = None,
    ) -> History:
        """Train, from where the last `fit` ended: parameters, optimizer state, counters.

        Parameters
        ----------
        X : array_like or SciPy sparse (m, n_features)
            Any real dtype, any strides, memory-mapped too; not changed, and copied only if it is
            wider than 64 bits, unaligned or not in native byte order. Sparse rows (CSR) are read
            as they are, with the bits of `X.toarray()`; other sparse formats are converted by
            `tocsr()`, and entries of one place are summed, in a copy.
        y : array_like
            sigmoid: 0 and 1, `(m, n_outputs)`, or `(m,)` for one output; softmax: class indices
            `(m,)` or one-hot `(m, n_outputs)`; identity: real numbers, `(m, n_outputs)`, or
            `(m,)` for one output.
        epochs : int
        batch_size : int, optional
            None is the full batch, in the order of X. The short last batch is kept, and is a
            mean over its own rows.
        optimizer : str or Optimizer
            A name ("sgd", "momentum", "nesterov", "adam", "amsgrad", "adamw", "nadam", "rmsprop",
            "adagrad", "lion", "muon") or an object such as `lamella.AdamW(weight_decay=0.05)`.
            State of another kind of optimizer is not used.
        learning_rate : float, optional
            In place of the optimizer's own.
        clip_value : float, optional
            The gradient of each weight and bias, penalties included, is held between minus and
            plus this number.
        clip_norm : float, optional
            The whole gradient, penalties included, is multiplied by
            `min(1, clip_norm / (|gradient| + 1e-6))`, where the norm is over all weights and
            biases. Not together with `clip_value`. The history has the norms before it.
        average : float, optional
            The decay, in [0, 1), of a moving average of the parameters, which begins with the
            parameters as they are: after each update,
            `average * mean + (1 - average) * parameters`. A later `fit` goes on with it, one
            without `average` leaves it alone, and `reset` forgets it. See `average_parameters`
            and `averaged`.
        shuffle : bool
            Whether batches are drawn anew in every epoch, by `seed` and the epoch's number.
        threads : int, optional
            At most so many; None is as many as help. The results are the same bits.
        progress : bool or callable, optional
            True shows a bar (needs tqdm); a callable hears of every epoch, counted from 0, and
            of its loss.

        Returns
        -------
        History
            With `clip_norm`, `metrics["gradient_norm"]` has the mean over each epoch's steps.

        Raises
        ------
        TypeError, ValueError
            For any argument that does not fit, before work starts.
        DivergenceError
            If a loss, or with `clip_norm` the gradient's norm, is not finite, naming step and
            layer; the model stays as it was before that step.
        MemoryError
            If memory does not suffice.
        KeyboardInterrupt
            After Ctrl-C; the model stays usable, with whole steps.
        """
        rows, labels = self._data(X, y)
        epochs = checks.integer("epochs", epochs)
        settings: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": checks.batch_size(batch_size, rows.shape[0]),
            "optimizer": optimizers.spec(optimizer, learning_rate),
            "shuffle": checks.flag("shuffle", shuffle),
            "seed": self.seed,
            "threads": checks.threads(threads),
            **_amendments(clip_value, clip_norm, average),
            **self._objective,
        }
        with _reporting(progress, epochs) as report:
            losses = self._net.fit(rows, labels, **settings, report=report, report_every=1)
        norms = {} if clip_norm is None else {"gradient_norm": np.array(self._net.gradient_norms)}
        return History(losses, norms)

    def partial_fit(
        self,
        X: ArrayLike | CSR,
        y: ArrayLike,
        *,
        optimizer: str | Optimizer = "adam",
        learning_rate: float | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
        threads: int | None = None,
    ) -> float:
        """Make one update on the given rows as one batch: a step of a loop that users write.

        It counts as a step, not as an epoch. The optimizer's state goes on from call to call and
        is the one that `fit` uses. A call costs a few microseconds beside the step where X and y
        are arrays that need no conversion: X of float32 or float64, y of int64 class indices
        for softmax, else of float32, float64 or bool.

        Parameters
        ----------
        X : array_like (m, n_features)
            As for `fit`.
        y : array_like
            As for `fit`.
        optimizer : str or Optimizer
            As for `fit`.
        learning_rate : float, optional
            In place of the optimizer's own.
        clip_value, clip_norm, average : float, optional
            As for `fit`.
        threads : int, optional
            At most so many; None is as many as help. The results are the same bits.

        Returns
        -------
        float
            The loss before the update.

        Raises
        ------
        TypeError, ValueError, DivergenceError, MemoryError, KeyboardInterrupt
            As for `fit`.
        """
        rows, labels = self._data(X, y)
        return self._net.partial_fit(
            rows,
            labels,
            optimizer=optimizers.spec(optimizer, learning_rate),
            threads=checks.threads(threads),
            **_amendments(clip_value, clip_norm, average),
            **self._objective,
        )

    def loss_and_gradients(
        self, X: ArrayLike | CSR, y: ArrayLike, *, threads: int | None = None
    ) -> tuple[float, dict[str, Array]]:
        """Return the loss of all samples as one batch, and its gradients `dW1, db1, ...`.

        Both include the penalties. The gradients are shaped as `parameters`.
        """
        rows, labels = self._data(X, y)
        loss, arrays = self._net.loss_and_gradients(
            rows, labels, **self._objective, threads=checks.threads(threads)
        )
        return loss, dict(zip((f"d{name}" for name in self._names), arrays, strict=True))

    # --- answers ---

    def predict(self, X: ArrayLike | CSR, *, threads: int | None = None) -> Array:
        """Return the answer for each sample of X (m, n_features).

        softmax: class indices `(m,)`; one sigmoid unit: 0 or 1 `(m,)`, 1 where the probability
        is above one half; several: a matrix of 0 and 1 `(m, n_outputs)`; identity: values
        `(m, n_outputs)`, or `(m,)` for one output.
        """
        rows, threads = self._rows(X), checks.threads(threads)
        if self.output != "identity":
            return self._net.labels(rows, threads=threads)
        values = self._net.outputs(rows, logits=False, threads=threads)
        return values[:, 0] if self.n_outputs == 1 else values

    def predict_proba(self, X: ArrayLike | CSR, *, threads: int | None = None) -> Array:
        """Return probabilities `(m, n_outputs)`; a `ValueError` for identity outputs."""
        if self.output == "identity":
            raise checks.wrong("output", "sigmoid or softmax for probabilities", self.output)
        return self._net.outputs(self._rows(X), logits=False, threads=checks.threads(threads))

    def decision_function(self, X: ArrayLike | CSR, *, threads: int | None = None) -> Array:
        """Return the logits `(m, n_outputs)`: what the output activation is applied to."""
        return self._net.outputs(self._rows(X), logits=True, threads=checks.threads(threads))

    def evaluate(
        self, X: ArrayLike | CSR, y: ArrayLike, *, threads: int | None = None
    ) -> dict[str, float]:
        """Return the loss, with its penalties, and how good the answers are.

        Returns
        -------
        dict of float
            "loss", and "accuracy" (the share of right labels, over samples and outputs) or, for
            identity, "r2" (the coefficient of determination, its mean over outputs; an output
            whose target is constant counts 1 if met exactly, else 0).
        """
        rows, labels = self._data(X, y)
        loss, outputs = self._net.evaluate(
            rows, labels, **self._objective, threads=checks.threads(threads)
        )
        if self.output == "identity":
            return {"loss": loss, "r2": _r2(outputs, labels.reshape(outputs.shape))}
        if self.output == "softmax":
            right = np.argmax(outputs, axis=1) == labels
        else:
            right = (outputs > 0.5) == labels.reshape(outputs.shape)
        return {"loss": loss, "accuracy": float(np.mean(right))}

    # --- parameters ---

    @property
    def parameters(self) -> dict[str, Array]:
        """Copies of the parameters: `W1 (n[1], n[0]), b1 (n[1],), W2, ...`.

        Assign a dict of the same keys to set them (`b` may be a column, as in the L-layer
        functions); the optimizer's state stays.
        """
        return dict(zip(self._names, self._net.get_parameters(), strict=True))

    @parameters.setter
    def parameters(self, parameters: Mapping[str, ArrayLike]) -> None:
        L = checks.depth("parameters", parameters)
        if len(self.layers) != L:
            raise checks.wrong("parameters", f"{len(self.layers)} layers", L)
        arrays = [checks.real(name, parameters[name]) for name in self._names]
        for name, array, shape in zip(self._names, arrays, self._shapes, strict=True):
            if array.shape != shape and not (len(shape) == 1 and array.shape == (*shape, 1)):
                raise checks.wrong(name, f"shape {shape}", array.shape)
            checks.finite(name, array, self.dtype)
        self._net.set_parameters([array.astype(self.dtype, copy=False) for array in arrays])

    @property
    def average_parameters(self) -> dict[str, Array]:
        """Copies of the parameters' moving average, which `fit(average=...)` keeps.

        Raises
        ------
        RuntimeError
            If there is none.
        """
        arrays = self._net.get_average()
        if arrays is None:
            raise RuntimeError("average_parameters: there are none before a fit with average=...")
        return dict(zip(self._names, arrays, strict=True))

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """Answer by the average parameters: `with net.averaged(): net.predict(X)`.

        The trained parameters come back, bit by bit, at the end of the block; what was trained
        inside it is lost. `net.parameters = net.average_parameters` is for good.
        """
        trained, self.parameters = self.parameters, self.average_parameters
        try:
            yield self
        finally:
            self.parameters = trained

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return self._net.n_parameters

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return self._net.steps

    @property
    def epochs(self) -> int:
        """Epochs trained so far."""
        return self._net.epochs

    def reset(self) -> None:
        """Forget optimizer state, average and counters; the parameters stay."""
        self._net.reset()

    def summary(self) -> None:
        """Print the layers, their activations, shapes and numbers of parameters."""
        row = "{:<6} {:<12} {:>16} {:>14}"
        print(row.format("layer", "activation", "weights", "parameters"))
        sizes = zip(self.layers, self._shapes[0::2], strict=True)
        for n, (layer, (units, inputs)) in enumerate(sizes, start=1):
            shape = f"{units} x {inputs}"
            print(row.format(n, layer.activation or "", shape, f"{units * (inputs + 1):,}"))
        print(row.format("total", "", "", f"{self.n_parameters:,}"))
        print(f"loss {self.loss}, {self.precision}")

    def __repr__(self) -> str:
        """Return the layers, the loss and the dtype."""
        layers = ", ".join(f"{layer.units} {layer.activation}" for layer in self.layers)
        return f"Network({self.n_features} -> {layers}; {self.loss}, {self.precision})"

    def __getstate__(self) -> dict[str, Any]:
        """Return settings and parameters, without the optimizer's state."""
        settings = {name: value for name, value in vars(self).items() if name != "_net"}
        return {**settings, "parameters": self.parameters}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the core's network from settings and parameters."""
        settings = dict(state)
        parameters = settings.pop("parameters")
        vars(self).update(settings)
        self._net = self._core_network()
        self.parameters = parameters

    # --- what is derived ---

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        """The shapes of W1, b1, W2, ..."""
        sizes = [self.n_features, *(layer.units for layer in self.layers)]
        pairs = zip(sizes[1:], sizes[:-1], strict=True)
        return [shape for n, n_prev in pairs for shape in ((n, n_prev), (n,))]

    @property
    def _names(self) -> list[str]:
        """The keys W1, b1, W2, ..."""
        return [f"{kind}{n}" for n in range(1, len(self.layers) + 1) for kind in "Wb"]

    @property
    def _objective(self) -> dict[str, Any]:
        """What turns the core's sums over outputs into this model's loss."""
        scale = 1.0
        if self.output != "softmax":
            scale = (1 if self.output == "sigmoid" else 2) / self.n_outputs
        return {"loss_scale": scale, "penalty": (self.l1, self.l2, self.decay_biases)}

    def _core_network(self) -> _core.Network:
        """Build the core's network, all parameters zero."""
        layers = [(d.units, str(d.activation), checks.LEAKY_SLOPE) for d in self.layers]
        loss = checks.CORE_LOSSES[self.output]
        net = _core.Network(self.n_features, layers, loss, self.precision)
        net.set_max_norms([layer.max_norm for layer in self.layers])
        return net

    def _rows(self, X: ArrayLike | CSR) -> Array | CSR:
        """Check samples (m, n_features); whether plain arrays are finite the core looks itself."""
        if self._net.takes(X):
            return cast(Array, X)
        return checks.rows("X", X, self.n_features)

    def _data(self, X: ArrayLike | CSR, y: ArrayLike) -> tuple[Array | CSR, Array]:
        """Check samples and their labels, which stay a vector where plain arrays came so."""
        if self._net.takes(X, y):
            return cast(Array, X), cast(Array, y)
        rows = self._rows(X)
        m = rows.shape[0]
        labels = checks.labels("y", y, self.n_outputs, m, self.output, features_first=False)
        if self.output != "softmax":
            checks.finite("y", labels, self.dtype)
        return rows, labels


def _loss(name: str | None, output: str) -> str:
    """Return the loss that belongs to the output; another one is an error."""
    matching = checks.LOSSES[output]
    if name not in (None, matching):
        raise checks.wrong("loss", f"{matching} for output {output}", repr(name))
    return matching


def _amendments(
    clip_value: float | None, clip_norm: float | None, average: float | None
) -> dict[str, Any]:
    """Check what an update does beside the optimizer's rule."""
    if None not in (clip_value, clip_norm):
        raise checks.wrong("clip_norm", "None beside clip_value", clip_norm)
    return {
        "clip_value": checks.clip("clip_value", clip_value),
        "clip_norm": checks.clip("clip_norm", clip_norm),
        "average": checks.decay("average", average),
    }


def _r2(values: Array, y: Array) -> float:
    """Return the coefficient of determination, its mean over outputs; values, y (m, n_outputs)."""
    y = y.astype(np.float64)
    residual = np.sum((y - values) ** 2, axis=0)
    total = np.sum((y - np.mean(y, axis=0)) ** 2, axis=0)
    varies = total > 0
    score = np.where(varies, 1 - residual / np.where(varies, total, 1), residual == 0)
    return float(np.mean(score))


@contextmanager
def _reporting(progress: Progress, epochs: int) -> Iterator[Callable[[int, float], object] | None]:
    """Give what the core reports epochs to, and close the bar in the end."""
    if progress is None or progress is False:
        yield None
    elif progress is True:
        with _bar(epochs) as bar:

            def advance(epoch: int, loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
                bar.update()

            yield advance
    elif callable(progress):
        yield progress
    else:
        raise TypeError(f"progress: expected None, True or a function, got {progress!r}")


def _bar(epochs: int) -> Any:
    """Return tqdm's bar for a number of epochs."""
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "progress: True needs tqdm, which is not installed; a function needs nothing"
        ) from error
    return tqdm(total=epochs, unit="epoch")
