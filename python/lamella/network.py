"""The model: a dense network that lives in the core, samples x features.

Owns the public face of training: layers, labels, losses and their names.
Promises that arguments are checked before work starts, that `fit(5)` then `fit(5)` gives the bits
of `fit(10)`, and that nothing depends on the number of threads. Leaves the work to
`lamella._core`, what happens between its steps to `loop.py`, initial draws to `initializers.py` and
update rules to `optimizers.py`.

Alphabet: m samples, `n[0]` features, L layers of `n[l]` units. `X (m, n[0])`, outputs `(m, n[L])`,
`W[l] (n[l], n[l-1])`, `b[l] (n[l],)`.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import (
    _core,
    bars,
    checks,
    initializers,
    lbfgs,
    losses,
    matrices,
    optimizers,
    stopping,
    validation,
)
from . import callbacks as calling
from . import metrics as measures
from ._core import DivergenceError
from .bars import Progress
from .callbacks import Callback
from .checks import Array
from .initializers import Init
from .layers import (
    BatchNorm,
    Defaults,
    Dense,
    Norm,
    core_layer,
    layers_of,
    parameter_shapes,
    statistic_names,
)
from .lbfgs import LBFGS
from .loop import Asked, Data, History, Loop, Minimisation
from .losses import Custom, Loss
from .matrices import CSR
from .metrics import Metric
from .optimizers import Optimizer, Rate
from .stopping import EarlyStopping
from .timing import Clock, Plateau, Timed
from .weights import ClassWeight, weights

if TYPE_CHECKING:
    from .course import WorstEntry
    from .diagnosis import Diagnosis
    from .finder import RateSearch

__all__ = ["History", "Network", "load"]

Metrics = Sequence[str | Metric | Callable[..., Any]]
"""Names, metrics, or functions of the targets and the predictions."""

FIXED = {"n_features", "n_outputs", "layers", "output", "loss", "criterion", "dtype", "precision",
         "max_norm"}  # fmt: skip
"""Settings that the core's network is made with."""

CHANGEABLE: dict[str, Callable[[str, Any], object]] = {
    "l1": checks.number,
    "l2": checks.number,
    "decay_biases": checks.flag,
    "seed": lambda _, value: checks.seed(value),
}
"""Settings that each call reads anew, and what checks them."""


class Network:
    """A dense network, trained by the core.

    The loss is a mean over samples and over outputs, as PyTorch's defaults, computed from logits.
    By default it is the one that matches the output: sigmoid and binary cross-entropy, softmax
    and cross-entropy, identity and mean squared error, exponential and Poisson. `l1` and `l2` add
    `l1 * sum(|W|) + l2/2 * sum(W^2)` over weights, and over biases with `decay_biases`.

    Copies and pickles keep settings and parameters, bit by bit; they do not keep the
    optimizer's state, so their training starts anew from there, at step and epoch 0.

    Parameters
    ----------
    layers : sequence
        The number of features, then of each layer an int or a `Dense`.
    hidden : str
        The activation of the layers before the last; see `Dense`.
    output : {"identity", "sigmoid", "softmax", "exponential"}
        The activation of the last layer.
    loss : str, Loss or callable, optional
        A name or an object of `lamella.losses` such as `lamella.Focal(gamma=2)`, and what output
        it goes with: "binary_cross_entropy" and "focal" with sigmoid, "cross_entropy" and "focal"
        with softmax, "mean_squared_error", "mean_absolute_error", "huber", "quantile", "hinge" and
        "squared_hinge" with identity, "poisson" with exponential. By default the matching one.
        A callable is given each batch's logits (rows, n_outputs), as an array of its own, and its
        targets `y[rows]`, where y may be any array whose first axis is the samples; it returns
        value and gradient by the logits (rows, n_outputs): the batch's value, a number, and its
        gradient, or the rows' values `(rows,)`, whose weighted mean is the loss, and the gradient
        of each. It goes with every output; the activation is not applied to its logits, and a
        batch's logits are held at once, whatever its size. Inside it the model cannot be used.
    init : str or float
        Scale of the initial weights; biases are zero. See `lamella.initializers`, also for
        uniform and orthogonal ones.
    bias : bool
        Whether layers have a b.
    norm : {"batch", "layer"}, BatchNorm, LayerNorm or None
        Normalisation of the hidden layers, before their activation.
    dropout : float
        The share of hidden units that training drops, in [0, 1).
    residual : bool
        Whether the input of a hidden layer is added to its result, where both are as wide.
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
        The names of the last layer's activation and of the loss.
    criterion : Loss or callable
        The loss with its settings.
    dtype : dtype
        Of the parameters: float32 in mixed precision too.
    precision : str
        "float32", "float64" or "bfloat16".
    seed : int
    l1, l2 : float
    decay_biases : bool
        These four may be assigned: the next call goes by them. Other settings are fixed.

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
        loss: str | Loss | Custom | None = None,
        init: Init = "he",
        bias: bool = True,
        norm: str | Norm | None = None,
        dropout: float = 0.0,
        residual: bool = False,
        dtype: DTypeLike = "float32",
        seed: int = 0,
        l1: float = 0.0,
        l2: float = 0.0,
        decay_biases: bool = False,
        max_norm: float | None = None,
    ) -> None:
        self.max_norm = checks.clip("max_norm", max_norm)
        defaults = Defaults.checked(
            hidden, output, init, bias, norm, dropout, residual, self.max_norm
        )
        self.n_features, self.layers, inits = layers_of(layers, defaults)
        self.n_outputs = self.layers[-1].units
        self.output = str(self.layers[-1].activation)
        self.criterion = losses.resolve(loss, self.output)
        self.loss = losses.name_of(self.criterion)
        self._task = losses.CUSTOM
        if isinstance(self.criterion, Loss):
            self._task = self.criterion.task(self.output, self.n_outputs)
        self.dtype, self.precision = checks.precision(dtype)
        self.seed, self.l1, self.l2, self.decay_biases = seed, l1, l2, decay_biases
        dims = (self.n_features, *(layer.units for layer in self.layers))
        drawn = initializers.draw(dims, inits, self.seed, self.dtype)
        self._plateau: Plateau | None = None
        self._net = self._core_network()
        start = self.parameters  # with gamma 1 and beta 0
        self.parameters = start | {name: drawn[name] for name in start if name in drawn}

    def __setattr__(self, name: str, value: Any) -> None:
        """Check settings that can change; refuse another value for those that cannot."""
        if name in FIXED and name in vars(self):
            raise AttributeError(f"{name}: fixed when a network is made, got {reprlib.repr(value)}")
        checked = CHANGEABLE[name](name, value) if name in CHANGEABLE else value
        object.__setattr__(self, name, checked)

    # --- training ---

    def fit(
        self,
        X: ArrayLike | CSR,
        y: ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int | None = 32,
        optimizer: str | Optimizer | LBFGS = "adam",
        learning_rate: Rate | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight = None,
        shuffle: bool = True,
        validation_data: tuple[ArrayLike | CSR, ArrayLike] | None = None,
        validation_fraction: float | None = None,
        metrics: Metrics | None = None,
        early_stopping: EarlyStopping | bool = False,
        callbacks: Sequence[Callback | Callable[..., object]] | None = None,
        time_limit: float | None = None,
        threads: int | None = None,
        diagnose: bool = False,
        progress: Progress = None,
    ) -> History:
        """Train, from where the last `fit` ended: parameters, optimizer state, counters.

        It goes on so after every end: all epochs done, a stop, a time limit, Ctrl-C. An epoch
        that was cut short begins anew, with the batches that it had.

        Parameters
        ----------
        X : array_like or SciPy sparse (m, n_features)
            Any real dtype, any strides, memory-mapped too; not changed, and copied only if it is
            wider than 64 bits, unaligned or not in native byte order. Sparse rows (CSR) are read
            as they are, with the bits of `X.toarray()`; other sparse formats are converted by
            `tocsr()`, and entries of one place are summed, in a copy. Data frames and tables are
            read in place where their columns lie as one matrix, and else copied once; arrays of
            other libraries through DLPack.
        y : array_like or series
            sigmoid: 0 and 1, `(m, n_outputs)`, or `(m,)` for one output; softmax: class indices
            `(m,)` or one-hot `(m, n_outputs)`; identity: real numbers, `(m, n_outputs)`, or
            `(m,)` for one output; exponential: the same, at least 0. With hinges: 0 and 1 as for
            sigmoid, or classes as for softmax; with quantiles: `(m, n_targets)`, or `(m,)` for one.
        epochs : int
        batch_size : int, optional
            None is the full batch, in the order of X. The short last batch is kept, and is a
            mean over its own rows.
        optimizer : str or Optimizer
            A name ("sgd", "momentum", "nesterov", "adam", "amsgrad", "adamw", "nadam", "rmsprop",
            "adagrad", "lion", "muon") or an object such as `lamella.AdamW(weight_decay=0.05)`.
            State of another kind of optimizer is not used. "lbfgs" or a `lamella.LBFGS` (needs
            SciPy) minimises the loss of all rows, an iteration an epoch; see there.
        learning_rate : float, Schedule or callable, optional
            In place of the optimizer's own: a number, a schedule such as
            `lamella.schedules.Cosine(1e-2, total=1000)`, or a function that gets the number of
            the updates made before a step, and returns its rate. Decoupled weight decay follows
            it.
        clip_value : float, optional
            The gradient of each weight and bias, penalties included, is held between minus and
            plus this number.
        clip_norm : float, optional
            The whole gradient, penalties included, is multiplied by
            `min(1, clip_norm / (|gradient| + 1e-6))`, where the norm is over all parameters. Not
            together with `clip_value`. The history has the norms before it.
        average : float, optional
            The decay, in [0, 1), of a moving average of the parameters, which begins with the
            parameters as they are: after each update,
            `average * mean + (1 - average) * parameters`. A later `fit` goes on with it, one
            without `average` leaves it alone, and `reset` forgets it. See `average_parameters`
            and `averaged`. Validation, metrics and early stopping are of the parameters
            themselves, and the mean is that of the last step, whichever epoch was best.
        sample_weight : array_like (m,), optional
            What each sample counts, finite and at least 0: a batch's loss is
            `sum(w l) / sum(w)`. An update on a batch whose weights are all 0 has no gradient.
            Weights all one change no bit.
        class_weight : dict, "balanced" or list of dict, optional
            What the samples of each class count, 1 for classes not named, times their
            `sample_weight`; "balanced" is `m / (classes * count)`, as scikit-learn's. Of several
            sigmoid outputs: a list with a dict, "balanced" or None for each, or "balanced" for
            all; a sample counts the product of what its labels do.
        shuffle : bool
            Whether batches are drawn anew in every epoch, by `seed` and the epoch's number.
        validation_data : tuple, optional
            X and y, which the history's "val_loss" and metrics are computed on after each epoch.
        validation_fraction : float, optional
            In (0, 1): so much of X and y is not trained on, but used as `validation_data`. Which
            rows, `seed` decides; every class gives its share. The others are copied. In
            validation every row counts 1, whatever its weight.
        metrics : list, optional
            Names ("accuracy", "balanced_accuracy", "log_loss"; "r2", "mean_absolute_error" or
            "mae", "mean_squared_error" or "mse"), `lamella.Metric` objects, and functions of the
            targets and the predictions. They are computed on the validation's rows, as
            "val_accuracy", or without those on X, as "accuracy", by a pass forward after each
            epoch. None is "accuracy" or "r2" with validation, else nothing; nothing for losses in
            Python.
        early_stopping : EarlyStopping or bool
            True is `lamella.EarlyStopping()`: the loss of validation, a patience of 10 epochs,
            and the best parameters in the end.
        callbacks : list, optional
            `lamella.Callback` objects; functions are called as `on_epoch_end`.
        time_limit : float, optional
            Seconds after which the fit ends, with a whole step.
        threads : int, optional
            At most so many; None is as many as help. The results are the same bits.
        diagnose : bool
            Whether to measure gradients, updates, dead and saturated units before, between and
            after steps; those between take about two percent of the time.
            `print(history.diagnosis)` names what is wrong and what to change, and so does the
            note of a `DivergenceError`. No bit of the training changes.
        progress : bool or callable, optional
            True shows a bar with the last epoch's numbers, steps a second and the time left
            (needs tqdm). None does so where tqdm is installed and somebody sees it, in a notebook
            or where standard error is a terminal, after half a second. False never does. A
            callable hears of every epoch, counted from 0, and of its loss.

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
            layer; the parameters stay as they were before that step.
        MemoryError
            If memory does not suffice.
        KeyboardInterrupt
            After Ctrl-C; the model stays usable, with whole steps.
        """
        rows, labels = self._data(X, y)
        diagnosis: Diagnosis | None = None
        heard = calling.checked(callbacks)
        minimiser: LBFGS | None = None
        if lbfgs.is_meant(optimizer):
            minimiser = self._minimiser(
                optimizer, epochs, heard, learning_rate=learning_rate, clip_value=clip_value,
                clip_norm=clip_norm, average=average,
            )  # fmt: skip
        if checks.flag("diagnose", diagnose):
            from .diagnosis import Diagnosis

            diagnosis = Diagnosis(rows, labels)
            heard = [diagnosis, *heard]
        epochs = checks.integer("epochs", epochs)
        threads = checks.threads(threads)
        shown = bars.wanted(progress)
        w = weights(sample_weight, class_weight, labels, self._task)
        scored: Data | None = None
        if validation_data is not None or validation_fraction is not None:
            (rows, labels), scored, w = self._validation(
                Data(rows, labels), w, validation_data, validation_fraction
            )
        asks = (scored, metrics, heard or None, time_limit)
        if minimiser is not None:
            watched = self._watched(Data(rows, labels), *asks, early_stopping)
            minimise = partial(self._minimise, rows, labels, w, minimiser, threads)
            iterations = minimiser.max_iter or 0
            asked = Asked(iterations, 1, rows.shape[0], None, 0.0, shown, **watched)
            score = partial(self._scores, threads=threads)
            return self._run(Minimisation(self, asked, minimise, score), diagnosis)
        optimizer = cast(str | Optimizer, optimizer)
        self._net.take_gradient_norms()  # those of fits that were stopped
        spec, rate, schedule = optimizers.spec(optimizer, learning_rate), 0.0, None
        if spec is None:
            rule, schedule = optimizers.split(optimizer, learning_rate)
            spec, rate = rule.spec(), optimizers.plain_rate(rule.learning_rate)
        settings: dict[str, Any] = {
            "batch_size": checks.batch_size(batch_size, rows.shape[0]),
            "optimizer": spec,
            **optimizers.amendments(clip_value, clip_norm, average),
            "weights": w,
            "loss": self._asked(labels, w),
            "shuffle": checks.flag("shuffle", shuffle),
            "seed": self.seed,
            "threads": threads,
            "report_every": 1,
            **self._objective,
        }
        plain = early_stopping is False and schedule is None and all(ask is None for ask in asks)
        if plain and not isinstance(shown, float):
            losses = self._net.fit(rows, labels, epochs=epochs, report=shown, **settings)
            return self._with_norms(History(losses), clip_norm)
        batch_rows = settings["batch_size"] or rows.shape[0]
        batches = -(-rows.shape[0] // batch_rows)
        watched = self._watched(Data(rows, labels), *asks, early_stopping)
        asked = Asked(epochs, batches, batch_rows, schedule, rate, shown, **watched)
        fit = partial(self._net.fit, rows, labels, report=None, **settings)
        score = partial(self._scores, threads=threads)
        return self._with_norms(self._run(Loop(self, asked, fit, score), diagnosis), clip_norm)

    def find_learning_rate(
        self,
        X: ArrayLike | CSR,
        y: ArrayLike,
        *,
        low: float = 1e-7,
        high: float = 10.0,
        steps: int = 100,
        smoothing: float = 0.9,
        batch_size: int | None = 32,
        optimizer: str | Optimizer = "adam",
        clip_value: float | None = None,
        shuffle: bool = True,
        threads: int | None = None,
    ) -> RateSearch:
        """Try rates from low to high, one a step, on a copy; this network stays as it is.

        Parameters
        ----------
        X, y, batch_size, optimizer, clip_value, shuffle, threads
            As for `fit`. The copy's optimizer starts anew.
        low, high : float
            The first rate and the last; between them lie equal factors.
        steps : int
            At least 2. The search ends earlier where the smoothed loss exceeds four times its
            least, or where training diverges. (Of a loss below zero: where it lies above its
            least by three times the size of that, or of what it fell.)
        smoothing : float
            In [0, 1): what the mean of the losses keeps at each step.

        Returns
        -------
        RateSearch
            `rates`, `losses`, `smoothed`, and `suggestion`: a rate about which `smoothed` falls
            most.

        References
        ----------
        Smith (2017), "Cyclical learning rates for training neural networks", section 3.3.
        """
        from . import finder

        return finder.search(
            self, X, y, low=low, high=high, steps=steps, smoothing=smoothing, batch_size=batch_size,
            optimizer=optimizer, clip_value=clip_value, shuffle=shuffle, threads=threads,
        )  # fmt: skip

    def partial_fit(
        self,
        X: ArrayLike | CSR,
        y: ArrayLike,
        *,
        optimizer: str | Optimizer = "adam",
        learning_rate: Rate | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight = None,
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
        learning_rate : float, Schedule or callable, optional
            In place of the optimizer's own; a schedule with its total, and without a plateau.
            One that counts epochs stays where it is: no epoch ends here.
        clip_value, clip_norm, average : float, optional
            As for `fit`.
        sample_weight : array_like (m,), optional
            As for `fit`.
        class_weight : dict or list of dict, optional
            As for `fit`; one batch does not know what is balanced.
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
        spec = optimizers.spec(optimizer, learning_rate)
        if spec is None:
            spec = self._spec_now(optimizer, learning_rate)
        threads = checks.threads(threads)
        w = weights(sample_weight, class_weight, labels, self._task, balance=False)
        return self._net.partial_fit(
            rows,
            labels,
            optimizer=spec,
            loss=self._asked(labels, w),
            weights=w,
            seed=self.seed,
            threads=threads,
            **optimizers.amendments(clip_value, clip_norm, average),
            **self._objective,
        )

    def loss_and_gradients(
        self,
        X: ArrayLike | CSR,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight = None,
        threads: int | None = None,
    ) -> tuple[float, dict[str, Array]]:
        """Return the loss of all samples as one batch, and its gradients `dW1, db1, ...`.

        Both include the penalties. The gradients are shaped as `parameters`; weights are as
        for `fit`. They are those that the next step would see: with its dropout, and by the
        batch's own statistics.
        """
        rows, labels = self._data(X, y)
        w = weights(sample_weight, class_weight, labels, self._task)
        loss, arrays = self._net.loss_and_gradients(
            rows,
            labels,
            **self._objective,
            loss=self._asked(labels, w),
            weights=w,
            seed=self.seed,
            threads=checks.threads(threads),
        )
        return loss, dict(zip((f"d{name}" for name in self._names), arrays, strict=True))

    def gradient_check(
        self,
        X: ArrayLike | CSR,
        y: ArrayLike,
        *,
        epsilon: float = 1e-6,
        entries: int = 20,
        sample_weight: ArrayLike | None = None,
        details: bool = False,
    ) -> float | tuple[float, dict[str, WorstEntry]]:
        """Compare `loss_and_gradients` with central differences of the loss it returns.

        Computed by a copy in float64, with the masks of the next step's dropout and the batch's
        own statistics, so that every setting of the network is part of what is checked. Where an
        activation or a loss has a kink, a large difference there is no error.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        epsilon : float
            Half the distance between the two losses of a difference.
        entries : int
            How many entries of each parameter are checked, evenly spaced.
        details : bool

        Returns
        -------
        difference : float
            `|g - h| / (|g| + |h|)` (Euclidean norms over all that was checked) of the gradient g
            and the differences h; about 1e-6 or less for a right gradient.
        worst : dict of WorstEntry
            With `details=True`, of each array `dW1, db1, ...` the entry farthest off.
        """
        from . import gradients

        return gradients.check(
            self, X, y, epsilon=epsilon, entries=entries, sample_weight=sample_weight,
            details=details,
        )  # fmt: skip

    # --- answers ---

    def predict(self, X: ArrayLike | CSR, *, threads: int | None = None) -> Array:
        """Return the answer for each sample of X (m, n_features).

        softmax: class indices `(m,)`; one sigmoid unit: 0 or 1 `(m,)`, 1 where the probability
        is above one half; several: a matrix of 0 and 1 `(m, n_outputs)`; identity and
        exponential: values `(m, n_outputs)`, or `(m,)` for one output. With hinges: 1 where an
        output is above 0, or the class of the greatest. With several quantiles: `(m, quantiles)`,
        or `(m, n_targets, quantiles)`.
        """
        rows, threads = self._rows(X), checks.threads(threads)
        if self._answers_labels:
            return self._net.labels(rows, threads=threads)
        values = self._net.outputs(rows, logits=False, threads=threads)
        targets = self._task.columns
        if 1 < targets < self.n_outputs:
            return values.reshape(len(values), targets, self.n_outputs // targets)
        return values[:, 0] if self.n_outputs == 1 else values

    def predict_proba(self, X: ArrayLike | CSR, *, threads: int | None = None) -> Array:
        """Return probabilities `(m, n_outputs)`; a `ValueError` for other outputs."""
        if self.output not in ("sigmoid", "softmax"):
            raise checks.wrong("output", "sigmoid or softmax for probabilities", self.output)
        return self._net.outputs(self._rows(X), logits=False, threads=checks.threads(threads))

    def decision_function(self, X: ArrayLike | CSR, *, threads: int | None = None) -> Array:
        """Return the logits `(m, n_outputs)`: what the output activation is applied to."""
        return self._net.outputs(self._rows(X), logits=True, threads=checks.threads(threads))

    def input_gradients(
        self,
        X: ArrayLike | CSR,
        directions: ArrayLike | None = None,
        *,
        logits: bool = False,
        threads: int | None = None,
    ) -> Array:
        """Return the gradient of the answers with respect to the inputs.

        Row i is the gradient of `directions[i] . outputs[i]` by the features of sample i (a
        vector-Jacobian product), in a prediction: nothing is dropped, batch normalisation uses its
        running statistics. In mixed precision it is that of the same weights in float32.

        Parameters
        ----------
        X : array_like (m, n_features)
        directions : array_like (m, n_outputs) or (n_outputs,), optional
            The weight of each output; needed where there are several. For the gradient of a loss,
            its gradient by the outputs.
        logits : bool
            Whether the outputs are those of `decision_function`, in place of what the output
            activation makes of them: probabilities (sigmoid, softmax) or exponentials.
        threads : int, optional

        Returns
        -------
        ndarray (m, n_features)
            Dense, in the network's dtype.

        Raises
        ------
        ValueError
            If directions are missing where they are needed, of another shape or not finite.
        """
        from . import sensitivity

        rows, threads = self._rows(X), checks.threads(threads)
        logits = checks.flag("logits", logits)
        return sensitivity.input_gradients(self, rows, directions, logits=logits, threads=threads)

    def jacobian(
        self, X: ArrayLike | CSR, *, logits: bool = False, threads: int | None = None
    ) -> Array:
        """Return the derivative of each output by each feature, `(m, n_outputs, n_features)`.

        As `input_gradients`, forward once and back for each output. A `MemoryError` where it
        has no room.
        """
        from . import sensitivity

        rows, threads = self._rows(X), checks.threads(threads)
        logits = checks.flag("logits", logits)
        return sensitivity.jacobian(self, rows, logits=logits, threads=threads)

    def evaluate(
        self,
        X: ArrayLike | CSR,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight = None,
        threads: int | None = None,
    ) -> dict[str, float]:
        """Return the loss, with its penalties, and how good the answers are.

        Both are weighted means where there are weights, which are as for `fit`; they must not
        all be 0.

        Returns
        -------
        dict of float
            "loss", and "accuracy" (the share of right labels, over samples and outputs) or, for
            identity and exponential, "r2" (the coefficient of determination, its mean over
            outputs; an output whose target is constant counts 1 if met exactly, else 0). For
            quantiles and losses in Python the loss alone.
        """
        rows, labels = self._data(X, y)
        w = weights(sample_weight, class_weight, labels, self._task)
        if w is not None and not np.any(w):
            raise checks.wrong("sample_weight", "a weight above 0", "none")
        asked = self._asked(labels, w)
        if asked is not None:
            logits = self._net.outputs(rows, logits=True, threads=checks.threads(threads))
            value, values, _ = asked(logits, slice(None))
            if values is not None:
                value = float(np.average(values, weights=w))
            return {"loss": cast(float, value) + self._net.penalty(self._objective["penalty"])}
        loss, outputs = self._net.evaluate(
            rows, labels, **self._objective, weights=w, threads=checks.threads(threads)
        )
        return self._score(loss, outputs, labels, w)

    def _score(
        self, loss: float, outputs: Array, labels: Array, w: Array | None = None
    ) -> dict[str, float]:
        """Return what `evaluate` does, of outputs (m, n_outputs) and checked labels."""
        if self.loss == "quantile":
            return {"loss": loss}
        if not self._answers_labels:
            return {"loss": loss, "r2": measures.r2(labels, outputs, w)}
        if self._task.targets == "classes":
            right = np.argmax(outputs, axis=1) == labels
        else:
            threshold = 0.5 if self.output == "sigmoid" else 0.0
            right = np.mean((outputs > threshold) == labels.reshape(outputs.shape), axis=1)
        return {"loss": loss, "accuracy": float(np.average(right, weights=w))}

    def activations(self, X: ArrayLike | CSR, *, training: bool = False) -> list[Array]:
        """Return what every layer makes of X (m, n_features): `A[l] (m, n[l])`.

        As in predictions: nothing is dropped, and batch normalisation uses its running
        statistics. With `training` as the next step would see them, all samples, at most 1,024,
        one batch. The last is the answer.
        """
        rows = self._rows(X)
        if checks.flag("training", training):
            return self._net.activations_in_training(rows, self.seed)
        return self._net.activations(rows)

    # --- parameters ---

    @property
    def parameters(self) -> dict[str, Array]:
        """Copies of the parameters: `W1 (n[1], n[0]), b1 (n[1],), W2, ...`.

        A normalised layer has `gamma` and `beta (n[l],)` too; one without bias has no `b`. Assign
        a dict of the same keys to set them (`b` may be a column, as in the L-layer functions); the
        optimizer's state stays.
        """
        return dict(zip(self._names, self._net.get_parameters(), strict=True))

    @parameters.setter
    def parameters(self, parameters: Mapping[str, ArrayLike]) -> None:
        checks.keys("parameters", parameters, self._names)
        arrays = [matrices.real(name, parameters[name]) for name in self._names]
        for name, array, shape in zip(self._names, arrays, self._shapes, strict=True):
            if array.shape != shape and not (len(shape) == 1 and array.shape == (*shape, 1)):
                raise checks.wrong(name, f"shape {shape}", array.shape)
            matrices.finite(name, array, self.dtype)
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
    def averaged(self) -> Iterator[Self]:
        """Answer by the average parameters: `with net.averaged(): net.predict(X)`.

        Running statistics of batch normalisation are the network's own. The trained parameters
        come back, bit by bit, at the end of the block; what was trained inside it is lost.
        `net.parameters = net.average_parameters` is for good.
        """
        trained, self.parameters = self.parameters, self.average_parameters
        try:
            yield self
        finally:
            self.parameters = trained

    @property
    def statistics(self) -> dict[str, Array]:
        """Copies of the running statistics of batch normalisation: `mean1, variance1 (n[1],)`, ...

        Assign a dict of the same keys to set them.
        """
        return dict(zip(statistic_names(self.layers), self._net.get_statistics(), strict=True))

    @statistics.setter
    def statistics(self, statistics: Mapping[str, ArrayLike]) -> None:
        names = statistic_names(self.layers)
        checks.keys("statistics", statistics, names)
        arrays = [matrices.real(name, statistics[name]) for name in names]
        self._net.set_statistics([array.astype(self.dtype, copy=False) for array in arrays])

    @property
    def n_parameters(self) -> int:
        """Numbers that training changes: weights, biases, gammas and betas."""
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
        self._plateau = None
        self._net.reset()

    # --- files ---

    def save(self, path: str | os.PathLike[str], *, state: bool = False) -> None:
        """Write settings and parameters to a safetensors file, without any pickle.

        The file appears under its name when it is whole; one that was there is replaced then.
        The same model makes the same bytes, on every machine. The Python package `safetensors`
        reads the arrays: `safetensors.numpy.load_file(path)["W1"]`.

        Parameters
        ----------
        path : str or path
        state : bool
            Whether the optimizer's state, the moving average of `fit(average=)`, the counters
            and what `ReduceOnPlateau` has seen are kept too, so that a `fit` after `load` goes on
            with the bits of one that was never interrupted: from the end of an epoch on (save in
            `on_epoch_end`), since a fit begins with a whole epoch, or between calls of
            `partial_fit`. It takes up to four times the parameters' space more.

        Raises
        ------
        ValueError
            If a parameter is not finite.
        TypeError
            If a setting is a function, which no file can hold.
        OSError
            If the file cannot be written; one that was there is still whole.
        """
        from . import checkpoint  # not before it is needed: `import lamella` stays quick

        checkpoint.save(self, path, state=state)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the network that `save` wrote to a file. The file may come from anybody.

        Raises
        ------
        ValueError
            If the file is damaged, is none of Lamella's, or needs a newer version or another
            CPU ("bfloat16").
        MemoryError
            If the network exceeds the available memory.
        OSError
            If the file cannot be read.
        """
        from . import checkpoint

        return checkpoint.load(path, cls)

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Return the network as an ONNX model, and write it to a file where a path is given.

        Its input is `X (m, n_features)`, for any m, in the parameters' dtype; its output are
        "probabilities" or, for identity, "values", `(m, n_outputs)`: what `predict_proba` and
        `predict` compute, up to rounding. In mixed precision it multiplies in float32.

        Needs the package `onnx`: `pip install lamella[onnx]`.

        Returns
        -------
        onnx.ModelProto

        Raises
        ------
        ValueError
            If a layer has no form in ONNX here, or the model exceeds ONNX's 2 GB.
        ModuleNotFoundError
            If onnx is not installed.
        OSError
            If the file cannot be written.
        """
        from .export import to_onnx

        return to_onnx(self, path)

    def summary(self) -> None:
        """Print the layers with activations, shapes, numbers of parameters, and the memory.

        The same text is `lamella.summary.text(network)`.
        """
        from . import summary

        print(summary.text(self))

    def __repr__(self) -> str:
        """Return the layers, the loss and the dtype."""
        layers = ", ".join(f"{layer.units} {layer.activation}" for layer in self.layers)
        return f"Network({self.n_features} -> {layers}; {self.loss}, {self.precision})"

    def __getstate__(self) -> dict[str, Any]:
        """Return settings and parameters, without the optimizer's state."""
        kept = vars(self).items()
        settings = {name: value for name, value in kept if name not in ("_net", "_plateau")}
        return {**settings, "parameters": self.parameters, "statistics": self.statistics}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the core's network from settings and parameters."""
        settings = dict(state)
        parameters, statistics = settings.pop("parameters"), settings.pop("statistics")
        vars(self).update(settings)
        self._plateau = None
        self._net = self._core_network()
        self.parameters, self.statistics = parameters, statistics

    # --- what is derived ---

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        """The shapes of W1, b1, W2, ..."""
        return list(parameter_shapes(self.n_features, self.layers).values())

    @property
    def _names(self) -> list[str]:
        """The keys W1, b1, W2, ..."""
        return list(parameter_shapes(self.n_features, self.layers))

    @property
    def _objective(self) -> dict[str, Any]:
        """What turns the core's sums over outputs into this model's loss."""
        penalty = (self.l1, self.l2, self.decay_biases)
        return {"loss_scale": self._task.scale, "penalty": penalty}

    @property
    def _answers_labels(self) -> bool:
        """Whether answers are labels, not values."""
        return self.output in ("sigmoid", "softmax") or self._task.targets in ("bits", "classes")

    def _asked(self, y: Array, w: Array | None) -> losses.Batches | None:
        """Return what the core asks for the loss of batches of y, where it is a function."""
        if isinstance(self.criterion, Loss):
            return None
        return losses.Batches(self.criterion, y, weighted=w is not None)

    def _with_norms(self, history: History, clip_norm: float | None) -> History:
        """Add the norms that clipping measured to a history."""
        norms = np.array(self._net.take_gradient_norms())
        if clip_norm is not None:
            history.metrics["gradient_norm"] = norms
        return history

    def _fit_settings(
        self,
        m: int,
        *,
        epochs: int = 1,
        batch_size: int | None = 32,
        optimizer: str | Optimizer = "adam",
        learning_rate: Rate | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
        shuffle: bool = True,
    ) -> dict[str, Any]:
        """Check arguments of `fit` on m samples; return what the core takes for one call."""
        epochs, size = checks.integer("epochs", epochs), checks.batch_size(batch_size, m)
        spec, rates = optimizers.spec(optimizer, learning_rate), None
        if spec is None:
            rule, schedule = optimizers.split(optimizer, learning_rate)
            spec, clock = rule.spec(), Clock(self.steps, self.epochs, 0, -(-m // (size or m)))
            rates = optimizers.rates(rule, schedule, clock, epochs)
        return {
            "epochs": epochs,
            "batch_size": size,
            "optimizer": spec,
            "rates": rates,
            **optimizers.amendments(clip_value, clip_norm, average),
            "shuffle": checks.flag("shuffle", shuffle),
            "seed": self.seed,
            **self._objective,
        }

    def _watched(
        self,
        data: Data,
        scored: Data | None,
        metrics: Metrics | None,
        heard: list[Callback] | None,
        time_limit: float | None,
        early_stopping: EarlyStopping | bool,
    ) -> dict[str, Any]:
        """Check what a fit asks for between its steps; return the fields of `Asked` for it."""
        known = isinstance(self.criterion, Loss)
        if metrics is None:
            metrics = measures.DEFAULT[self._kind] if scored is not None and known else []
        if time_limit is not None:
            time_limit = checks.number("time_limit", time_limit, positive=True)
        if not known:
            self._suits_answers(metrics, (data if scored is None else scored).labels)
        return {
            "scored": data if scored is None else scored,
            "validates": scored is not None,
            "metrics": measures.checked(metrics, self._kind),
            "early_stopping": stopping.checked(early_stopping),
            "callbacks": heard or [],
            "time_limit": time_limit,
        }

    def _suits_answers(self, metrics: Metrics, targets: Array) -> None:
        """Refuse metrics by name where a loss in Python has targets unlike the answers."""
        one = self.output == "softmax" or self.n_outputs == 1
        shape = (len(targets),) if one else (len(targets), self.n_outputs)
        alike = targets.size == np.prod(shape) and targets.dtype.kind in "biuf"
        if not alike and any(isinstance(metric, str) for metric in metrics):
            expected = f"functions, or targets of numbers shaped as the answers, {shape}"
            raise checks.wrong("metrics", expected, f"targets {targets.shape} of {targets.dtype}")

    def _run(self, fitting: Loop, diagnosis: Diagnosis | None) -> History:
        """Train by a loop; the diagnosis goes with its history, or with its error."""
        if diagnosis is None:
            return fitting.run()
        try:
            return replace(fitting.run(), diagnosis=diagnosis)
        except DivergenceError as error:
            if diagnosis.findings():
                error.add_note(f"diagnosis:\n{diagnosis}")
            raise

    def _minimiser(
        self, optimizer: object, epochs: int, heard: Sequence[Callback], **refused: object
    ) -> LBFGS:
        """Return L-BFGS's settings; refuse what has no place in a minimisation."""
        for n, layer in enumerate(self.layers, start=1):
            if isinstance(layer.norm, BatchNorm) or layer.dropout:
                expected = "neither batch normalisation nor dropout with lbfgs"
                raise checks.wrong(f"layers[{n}]", expected, layer)
            if layer.max_norm is not None:
                raise checks.wrong("max_norm", "None with lbfgs", layer.max_norm)
        for n, callback in enumerate(heard):
            if callback.every is not None:
                expected = "None with lbfgs, whose iterations are epochs"
                raise checks.wrong(f"callbacks[{n}].every", expected, callback.every)
        return lbfgs.checked(optimizer, epochs, self.l1, **refused)

    def _minimise(
        self,
        rows: Array | CSR,
        labels: Array,
        w: Array | None,
        rule: LBFGS,
        threads: int | None,
        heard: Callable[[int, float], bool],
    ) -> None:
        """Minimise the loss of checked data by L-BFGS; `heard` hears of each iteration."""

        def place(parameters: Array) -> None:
            arrays = lbfgs.views(parameters, self._shapes)
            self._net.set_parameters([a.astype(self.dtype, copy=False) for a in arrays])

        def function(parameters: Array) -> tuple[float, Array]:
            place(parameters)
            loss, gradients = self._net.loss_and_gradients(
                rows,
                labels,
                **self._objective,
                loss=self._asked(labels, w),
                weights=w,
                seed=self.seed,
                threads=threads,
            )
            return loss, lbfgs.flat(gradients)

        lbfgs.minimise(function, lbfgs.flat(self._net.get_parameters()), rule, heard, place)

    def _core_network(self) -> _core.Network:
        """Build the core's network, all parameters zero."""
        layers = [core_layer(layer) for layer in self.layers]
        net = _core.Network(self.n_features, layers, self._task.core, self.precision)
        net.set_max_norms([layer.max_norm for layer in self.layers])
        return net

    def _spec_now(self, optimizer: str | Optimizer, learning_rate: Rate | None) -> optimizers.Spec:
        """Return what the core takes of an optimizer whose schedule stands at the next step."""
        rule, schedule = optimizers.split(optimizer, learning_rate)
        if schedule is None or schedule.total_missing or schedule.plateau is not None:
            expected = "a schedule with its total, and no plateau"
            raise checks.wrong("learning_rate", expected, schedule)
        clock = Clock(self.steps, self.epochs, 0, 1)
        timed = Timed.of(schedule, optimizers.plain_rate(rule.learning_rate), clock, 1)
        rate = float(timed.rates(clock, 1)[0])
        return optimizers.resolve(rule, rate).spec()

    def _validation(
        self,
        data: Data,
        w: Array | None,
        given: tuple[ArrayLike | CSR, ArrayLike] | None,
        fraction: float | None,
    ) -> tuple[Data, Data, Array | None]:
        """Return the rows to train on, those to validate on, and the former's weights."""
        if given is not None:
            if fraction is not None:
                raise checks.wrong("validation_fraction", "None with validation_data", fraction)
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise TypeError(f"validation_data: expected (X, y), got {type(given).__name__}")
            try:
                held = Data(*self._data(*given))
                self._net.outputs(held.rows, logits=True, threads=None)  # looks at every number
            except (TypeError, ValueError) as error:
                raise type(error)(f"validation_data: {error}") from error
            return data, held, w
        share = checks.number("validation_fraction", fraction, positive=True, below=1.0)
        task = self._task
        by_class = task.targets == "classes" or (task.targets == "bits" and task.columns == 1)
        parts = validation.split(data.labels, share, self.seed, by_class=by_class)
        rows = cast(Array, data.rows)
        train, held = (Data(rows[part], data.labels[part]) for part in parts)
        return train, held, None if w is None else w[parts[0]]

    def _scores(
        self, data: Data, metrics: Sequence[Metric], *, threads: int | None
    ) -> tuple[float, list[float]]:
        """Return the loss of some rows, and the metrics of the answers."""
        rows, labels = data
        asked = self._asked(labels, None)
        if asked is not None:
            logits = self._net.outputs(rows, logits=True, threads=threads)
            value, values, _ = asked(logits, slice(None))
            loss = float(np.mean(cast(Array, values))) if value is None else value
            loss += self._net.penalty(self._objective["penalty"])
            outputs = self._net.outputs(rows, logits=False, threads=threads)
        else:
            loss, outputs = self._net.evaluate(
                rows, labels, **self._objective, weights=None, threads=threads
            )
        answers = self._answers(outputs)
        if answers.size == labels.size:
            labels = labels.reshape(answers.shape)
        return loss, [metric(labels, answers, outputs) for metric in metrics]

    def _answers(self, outputs: Array) -> Array:
        """Return what `predict` makes of outputs (m, n_outputs)."""
        if self.output == "softmax" or self._task.targets == "classes":
            classes: Array = np.argmax(outputs, axis=1)
            return classes
        answers, targets = outputs, self._task.columns
        if self._answers_labels:
            threshold = 0.5 if self.output == "sigmoid" else 0.0
            answers = (outputs > threshold).astype(np.int64)
        elif 1 < targets < self.n_outputs:
            return answers.reshape(len(answers), targets, self.n_outputs // targets)
        return answers[:, 0] if self.n_outputs == 1 else answers

    @property
    def _kind(self) -> str:
        """What answers are, for metrics."""
        if self.loss == "quantile":
            return "quantiles"
        if self.output in ("sigmoid", "softmax"):
            return "probabilities"
        return "labels" if self._answers_labels else "values"

    def _snapshot(self) -> tuple[list[Array], list[Array]]:
        """Return what `_restore` takes: copies of parameters and running statistics."""
        return self._net.get_parameters(), self._net.get_statistics()

    def _restore(self, snapshot: tuple[list[Array], list[Array]]) -> None:
        """Go back to a snapshot; the optimizer's state stays."""
        self._net.set_parameters(snapshot[0])
        self._net.set_statistics(snapshot[1])

    def _rows(self, X: ArrayLike | CSR) -> Array | CSR:
        """Check samples (m, n_features); whether plain arrays are finite the core looks itself."""
        if self._net.takes(X):
            return cast(Array, X)
        return matrices.rows("X", X, self.n_features)

    def _data(self, X: ArrayLike | CSR, y: ArrayLike) -> tuple[Array | CSR, Array]:
        """Check samples and their labels, which stay a vector where plain arrays came so."""
        if y is not None and self._net.takes(X, y):
            return cast(Array, X), cast(Array, y)
        rows = self._rows(X)
        m = rows.shape[0]
        task = self._task
        if not isinstance(self.criterion, Loss):
            return rows, losses.custom_targets(y, m)
        labels = matrices.labels("y", y, task.columns, m, task.like, features_first=False)
        if task.targets != "classes":
            matrices.finite("y", labels, self.dtype)
        if task.targets == "counts" and labels.dtype.kind != "b":
            matrices.refuse("y", "numbers of at least 0", labels, lambda block: block < 0)
        return rows, labels


load = Network.load
