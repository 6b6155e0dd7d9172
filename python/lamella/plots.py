"""Pictures of trainings and networks, in scikit-learn's display manner.

Owns three displays: `LearningCurveDisplay` (loss and scores by epoch), `DecisionBoundary` (what is
answered on the plane of two features) and `WeightImages` (what the units of the first layer look
for). Each is built by `from_estimator`, holds what it draws, and draws it by `plot(ax=None)`,
which sets `ax_` and `figure_`. Promises that no estimator is changed and that scikit-learn is
not needed: a `lamella.Network` is an estimator here. Needs matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from . import checks, matrices
from .checks import Array
from .network import History

__all__ = ["DecisionBoundary", "LearningCurveDisplay", "WeightImages"]

INK = "#333333"
GRID = "#e4e4e4"
LOSSES = ("#1f5fa8", "#d9622b", "#7a4fa3", "#5c6f7b")
"""Colours of the curves on the left axis."""
SCORES = ("#2e8b57", "#c2185b", "#b8860b")
"""Colours of the curves on the right axis."""
CLASSES = ("#1f5fa8", "#d9622b", "#2e8b57", "#7a4fa3", "#b8860b", "#17a2b8", "#c2185b", "#5c6f7b",
           "#8c6d46", "#7f9a2f")  # fmt: skip

SPREAD = 20.0
"""Largest over smallest loss from which the axis is logarithmic."""


class LearningCurveDisplay:
    """Loss, and scores if there are any, by epoch.

    Parameters
    ----------
    curves : dict of array_like (epochs,)
        By name. Names with "loss" in them belong to the left axis, others, such as "accuracy", to
        the right one.

    Attributes
    ----------
    curves : dict of ndarray
    ax_ : matplotlib Axes
        Of the losses, or of the scores where there are no losses.
    ax_scores_ : matplotlib Axes or None
        Of the scores.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib lines

    Examples
    --------
    >>> from lamella.plots import LearningCurveDisplay
    >>> history = net.fit(X, y, epochs=20)                     # doctest: +SKIP
    >>> LearningCurveDisplay.from_history(history)             # doctest: +SKIP
    """

    def __init__(self, curves: Mapping[str, ArrayLike]) -> None:
        if not hasattr(curves, "items"):
            raise TypeError(f"curves: expected a dict of curves, got {type(curves).__name__}")
        self.curves = {
            str(name): matrices.real(str(name), curve).astype(float)
            for name, curve in curves.items()
        }
        for name, curve in self.curves.items():
            if curve.ndim != 1:
                raise checks.wrong(name, "one number an epoch", f"shape {curve.shape}")
        if not any(curve.size for curve in self.curves.values()):
            raise checks.wrong("curves", "at least one epoch", "none")

    @classmethod
    def from_history(cls, history: History, *, ax: Any = None, **style: Any) -> Self:
        """Draw what `Network.fit` returned: its loss and its metrics."""
        if not isinstance(history, History):
            raise TypeError(f"history: expected a History, got {type(history).__name__}")
        curves = {"training loss": history.loss}
        for name, curve in history.metrics.items():
            if name != "learning_rate":
                curves[name.replace("val_", "validation_").replace("_", " ")] = curve
        return cls(curves).plot(ax, **style)

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **style: Any) -> Self:
        """Draw the curves of a fitted estimator, or of a `History`.

        Parameters
        ----------
        estimator : object
            With `loss_curve_` and, if there are any, `validation_scores_`, as scikit-learn's
            and Lamella's multilayer perceptrons have them; or a `History`.
        ax : matplotlib Axes, optional
        **style
            For the lines.

        Raises
        ------
        TypeError
            If it has no curve.
        """
        if isinstance(estimator, History):
            return cls.from_history(estimator, ax=ax, **style)
        loss = getattr(estimator, "loss_curve_", None)
        if loss is None:
            raise TypeError(
                f"estimator: expected a History or a fitted estimator with loss_curve_,"
                f" got {type(estimator).__name__}"
            )
        curves = {"training loss": loss}
        scores = getattr(estimator, "validation_scores_", None)
        if scores is not None:
            curves["validation score"] = scores
        return cls(curves).plot(ax, **style)

    def plot(self, ax: Any = None, **style: Any) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        **style
            For the lines, such as `linewidth`.

        Returns
        -------
        LearningCurveDisplay
        """
        self.figure_, self.ax_ = _axes(ax, (6.4, 4.4))
        losses = {name: c for name, c in self.curves.items() if "loss" in name and c.size}
        scores = {name: c for name, c in self.curves.items() if "loss" not in name and c.size}
        both = bool(losses) and bool(scores)
        self.ax_scores_: Any = None
        if scores:
            self.ax_scores_ = self.ax_.twinx() if both else self.ax_
        self.lines_ = _lines(self.ax_, losses, LOSSES, "-", style)
        if scores:
            self.lines_ += _lines(self.ax_scores_, scores, SCORES, "--" if both else "-", style)
        _plain(self.ax_)
        self.ax_.grid(which="major", color=GRID, linewidth=0.8)
        self.ax_.set_axisbelow(True)
        self.ax_.set_xlabel("epoch")
        self.ax_.set_ylabel("loss" if losses else "score")
        if losses and _spread(losses.values()) > SPREAD:
            self.ax_.set_yscale("log")
            self.ax_.yaxis.set_major_formatter("{x:g}")
        if both:
            self.ax_scores_.set_ylabel("score")
            self.ax_scores_.spines[["top", "left", "bottom"]].set_visible(False)
            self.ax_scores_.spines["right"].set_color(GRID)
        if all(curve.size < 30 for curve in self.curves.values()):
            self.ax_.xaxis.get_major_locator().set_params(integer=True)
        names = [line.get_label() for line in self.lines_]
        place: dict[str, Any] = {"loc": "best"}
        if both:  # above the axes: no place inside is sure to be free of both
            place = {
                "loc": "lower left",
                "bbox_to_anchor": (0.0, 1.0),
                "ncols": len(names) if len(names) < 5 else 2,
            }
        self.ax_.legend(self.lines_, names, frameon=False, **place)
        return self


class DecisionBoundary:
    """What an estimator answers on the plane of two features.

    Classes are shaded by how sure the estimator is of them; values are contours.

    Parameters
    ----------
    xx0, xx1 : ndarray (n, n)
        The grid.
    response : ndarray (n, n) or (n, n, classes)
        Values, or probabilities of the classes.
    classes : sequence, optional
        Names of the classes.
    X, y : ndarray, optional
        Samples (m, 2) and their answers (m,), drawn as points.
    feature_names : pair of str

    Attributes
    ----------
    xx0, xx1, response
    surface_ : matplotlib image
    scatter_ : list of matplotlib collections
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        *,
        xx0: Array,
        xx1: Array,
        response: Array,
        classes: Sequence[object] | None = None,
        X: Array | None = None,
        y: Array | None = None,
        feature_names: tuple[str, str] = ("feature 0", "feature 1"),
    ) -> None:
        self.xx0 = _grid("xx0", xx0)
        self.xx1 = matrices.shaped("xx1", xx1, self.xx0.shape)
        if classes is not None and not hasattr(classes, "__len__"):
            raise TypeError(f"classes: expected a list of names, got {type(classes).__name__}")
        self.classes = None if classes is None else list(classes)
        shape = self.xx0.shape if self.classes is None else (*self.xx0.shape, len(self.classes))
        self.response = matrices.shaped("response", response, shape)
        self.X = None if X is None else matrices.real("X", X)
        if self.X is not None and (self.X.ndim != 2 or self.X.shape[1] != 2):
            raise checks.wrong("X", "shape (m, 2)", self.X.shape)
        m = 0 if self.X is None else len(self.X)
        self.y = None if y is None else matrices.shaped("y", y, (m,))
        self.feature_names = checks.listed("feature_names", feature_names, "two names")
        if len(self.feature_names) != 2:
            raise checks.wrong("feature_names", "two names", self.feature_names)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        grid_resolution: int = 300,
        eps: float = 0.1,
        class_names: Sequence[object] | None = None,
        ax: Any = None,
        **style: Any,
    ) -> Self:
        """Ask an estimator on a grid around X, and draw its answers.

        Parameters
        ----------
        estimator : Network or fitted estimator
            `predict_proba` where it has that, else `predict`.
        X : array_like or frame (m, 2)
        y : array_like (m,), optional
            Answers of X, drawn as points of the classes' colours.
        grid_resolution : int
            Points of the grid along each feature.
        eps : float
            How far the grid reaches beyond X, as a share of its width.
        class_names : sequence, optional
            By default the estimator's `classes_`, else the numbers.
        ax : matplotlib Axes, optional
        **style
            For the points, such as `s`.

        Raises
        ------
        ValueError
            If X has another number of features than two, or names do not match the classes.
        """
        can_answer = any(hasattr(estimator, name) for name in ("predict", "predict_proba"))
        if isinstance(estimator, type) or not can_answer:
            got = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
            raise TypeError(f"estimator: expected a Network or a fitted estimator, got {got}")
        if class_names is not None and not hasattr(class_names, "__len__"):
            got = type(class_names).__name__
            raise TypeError(f"class_names: expected a list of names, got {got}")
        names = _feature_names(X)
        points = matrices.real("X", X).astype(float)
        if points.ndim != 2 or points.shape[1] != 2 or not len(points):
            raise checks.wrong("X", "shape (m, 2)", points.shape)
        n = checks.integer("grid_resolution", grid_resolution, low=2)
        low, high = points.min(axis=0), points.max(axis=0)
        margin = checks.number("eps", eps) * np.where(high > low, high - low, 1)
        lines = [np.linspace(a, b, n) for a, b in zip(low - margin, high + margin, strict=True)]
        xx0, xx1 = np.meshgrid(*lines)
        grid = np.column_stack([xx0.ravel(), xx1.ravel()])
        response, classes = _asked(estimator, grid)
        count = 0 if classes is None else len(classes)
        if class_names is not None and len(class_names) != count:
            raise checks.wrong("class_names", f"{count} names", len(class_names))
        shape = (n, n) if classes is None else (n, n, len(classes))
        answers = None if y is None else _vector(y, len(points))
        if answers is not None and classes is not None:
            answers = _indices(answers, classes)
        display = cls(
            xx0=xx0,
            xx1=xx1,
            response=response.reshape(shape),
            classes=classes if class_names is None else class_names,
            X=points,
            y=answers,
            feature_names=names,
        )
        return display.plot(ax, **style)

    def plot(self, ax: Any = None, **style: Any) -> Self:
        """Draw into `ax`, or into a new figure; `style` is for the points."""
        self.figure_, self.ax_ = _axes(ax, (6.0, 5.0))
        self.scatter_: list[Any] = []
        style = {"s": 22, "linewidths": 0.7, "edgecolors": "white", **style}
        if self.classes is None:
            self._values(style)
        else:
            self._regions(self.classes, style)
        _plain(self.ax_)
        self.ax_.set_xlabel(self.feature_names[0])
        self.ax_.set_ylabel(self.feature_names[1])
        self.ax_.set_xlim(self.xx0[0, 0], self.xx0[0, -1])
        self.ax_.set_ylim(self.xx1[0, 0], self.xx1[-1, 0])
        return self

    @property
    def _extent(self) -> tuple[float, float, float, float]:
        """The grid's corners."""
        return self.xx0[0, 0], self.xx0[0, -1], self.xx1[0, 0], self.xx1[-1, 0]

    def _regions(self, classes: Sequence[object], style: dict[str, Any]) -> None:
        """Shade each point by its class's colour, paler where the class is less sure."""
        from matplotlib.colors import to_rgb

        colours = np.array([to_rgb(CLASSES[n % len(CLASSES)]) for n in range(len(classes))])
        best = np.argmax(self.response, axis=2)
        sure = np.max(self.response, axis=2)
        floor = 1 / len(classes)
        weight = 0.12 + 0.38 * np.clip((sure - floor) / (1 - floor), 0, 1)[..., None]
        image = 1 - weight * (1 - colours[best])
        self.surface_ = self.ax_.imshow(
            image, extent=self._extent, origin="lower", aspect="auto", interpolation="bilinear"
        )
        for n in range(len(classes)):
            ahead = self.response[..., n] - _best_other(self.response, n)
            if ahead.min() < 0 < ahead.max():
                self.ax_.contour(self.xx0, self.xx1, ahead, [0.0], colors=INK, linewidths=0.8)
        if self.X is None or self.y is None:
            return
        for n, name in enumerate(classes):
            own = self.X[self.y == n]
            if len(own):
                points = self.ax_.scatter(*own.T, color=colours[n], label=str(name), **style)
                self.scatter_.append(points)
        if 1 < len(self.scatter_) <= len(CLASSES):
            self.ax_.legend(frameon=True, framealpha=0.85, edgecolor="none", loc="best")

    def _values(self, style: dict[str, Any]) -> None:
        """Draw values as filled contours with a colour bar, points in the same colours."""
        shown = [self.response.ravel()] + ([] if self.y is None else [self.y])
        low, high = min(map(np.min, shown)), max(map(np.max, shown))
        high = high if high > low else low + 1
        scale: dict[str, Any] = {"cmap": "viridis", "vmin": low, "vmax": high}
        levels = np.linspace(low, high, 15)
        self.surface_ = self.ax_.contourf(self.xx0, self.xx1, self.response, levels, **scale)
        bar = self.figure_.colorbar(self.surface_, ax=self.ax_, ticks=_round_ticks(low, high))
        bar.outline.set_visible(False)
        if self.X is not None and self.y is not None:
            self.scatter_.append(self.ax_.scatter(*self.X.T, c=self.y, **scale, **style))


class WeightImages:
    """The weights of the first layer's units as images: what each unit looks for.

    Blue is negative, red positive, white zero; all units share one scale. Units with the
    largest weights come first.

    Parameters
    ----------
    weights : ndarray (units, n_features)
    shape : tuple of int, optional
        Rows and columns of an image; by default a square.
    max_units : int
        How many units are shown at most.

    Attributes
    ----------
    images : ndarray (shown, rows, columns)
    units : ndarray (shown,)
        Which units are shown, in order.
    im_ : matplotlib image
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self, weights: ArrayLike, *, shape: tuple[int, int] | None = None, max_units: int = 48
    ) -> None:
        W = matrices.real("weights", weights).astype(float)
        if W.ndim != 2 or not W.size:
            raise checks.wrong("weights", "shape (units, n_features)", W.shape)
        rows, columns = _image_shape(shape, W.shape[1])
        count = checks.integer("max_units", max_units, low=1)
        self.units = np.argsort(-np.sum(W**2, axis=1), kind="stable")[:count]
        self.images = W[self.units].reshape(-1, rows, columns)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        shape: tuple[int, int] | None = None,
        max_units: int = 48,
        ax: Any = None,
        **style: Any,
    ) -> Self:
        """Draw the first layer of a `Network`, or of a fitted estimator with `coefs_`.

        Parameters
        ----------
        estimator : Network or fitted estimator
        shape : tuple of int, optional
            Rows and columns of an image; by default a square.
        max_units : int
            How many units are shown at most, those with the largest weights.
        ax : matplotlib Axes, optional
        **style
            For `imshow`, such as `cmap`.

        Raises
        ------
        TypeError
            If it has neither parameters nor `coefs_`.
        ValueError
            If the shape does not fit the number of features.
        """
        if isinstance(getattr(estimator, "parameters", None), Mapping):
            weights = estimator.parameters["W1"]
        elif hasattr(estimator, "coefs_"):
            weights = np.asarray(estimator.coefs_[0]).T
        else:
            raise TypeError(
                "estimator: expected a Network or a fitted estimator with coefs_,"
                f" got {type(estimator).__name__}"
            )
        return cls(weights, shape=shape, max_units=max_units).plot(ax, **style)

    def plot(self, ax: Any = None, **style: Any) -> Self:
        """Draw into `ax`, or into a new figure; `style` is for `imshow`."""
        count, rows, columns = self.images.shape
        across, down = _columns_and_rows(count, rows / columns)
        gap = max(1, round(0.06 * max(rows, columns)))
        mosaic = np.full((down * (rows + gap) - gap, across * (columns + gap) - gap), np.nan)
        for n, image in enumerate(self.images):
            top, left = n // across * (rows + gap), n % across * (columns + gap)
            mosaic[top : top + rows, left : left + columns] = image
        limit = float(np.quantile(np.abs(self.images), 0.998)) or 1.0
        width = 7.0
        height = width * mosaic.shape[0] / mosaic.shape[1] * 0.88 + 0.3
        self.figure_, self.ax_ = _axes(ax, (width, min(max(height, 2.0), 12.0)))
        style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, **style}
        self.im_ = self.ax_.imshow(np.ma.masked_invalid(mosaic), interpolation="nearest", **style)
        self.ax_.set_axis_off()
        bar = self.figure_.colorbar(self.im_, ax=self.ax_, fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=9)
        return self


def _pyplot() -> Any:
    """Return matplotlib.pyplot."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "lamella.plots needs matplotlib, which is not installed: pip install lamella[plots]"
        ) from error
    return plt


def _axes(ax: Any, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return the figure and axes to draw into."""
    if ax is not None:
        if not hasattr(ax, "figure") or not hasattr(ax, "get_xlim"):
            raise TypeError(f"ax: expected matplotlib Axes, got {type(ax).__name__}")
        return ax.figure, ax
    figure, ax = _pyplot().subplots(figsize=size, layout="constrained")
    return figure, ax


def _plain(ax: Any) -> None:
    """Take the upper and right frame away."""
    ax.spines[["top", "right"]].set_visible(False)


def _lines(
    ax: Any, curves: Mapping[str, Array], colours: Sequence[str], dash: str, style: dict[str, Any]
) -> list[Any]:
    """Draw curves over the epochs from 1; a single epoch is a dot."""
    lines = []
    for n, (name, curve) in enumerate(curves.items()):
        own = {"color": colours[n % len(colours)], "linestyle": dash, "linewidth": 2.0}
        marker = {"marker": "o"} if curve.size == 1 else {}
        epochs = np.arange(1, curve.size + 1)
        lines += ax.plot(epochs, curve, label=name, **(own | marker | style))
    return lines


def _spread(curves: Any) -> float:
    """Return the largest loss over the smallest, 0 where a logarithm has no meaning."""
    numbers = np.concatenate(list(curves))
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.max() / numbers.min()) if numbers.size and numbers.min() > 0 else 0.0


def _asked(estimator: Any, grid: Array) -> tuple[Array, list[object] | None]:
    """Return probabilities (points, classes) with the classes, or values (points,) and None."""
    values_only = getattr(estimator, "output", None) in ("identity", "exponential")
    if values_only or not hasattr(estimator, "predict_proba"):
        values = np.asarray(estimator.predict(grid))
        if values.ndim != 1:
            raise checks.wrong("estimator", "one output", values.shape[1])
        return values.astype(float), None
    probabilities = np.asarray(estimator.predict_proba(grid), float)
    if getattr(estimator, "output", None) == "sigmoid":
        if probabilities.shape[1] != 1:
            raise checks.wrong("estimator", "classes that exclude one another", "several sigmoids")
        probabilities = np.column_stack([1 - probabilities, probabilities])
    classes = getattr(estimator, "classes_", range(probabilities.shape[1]))
    return probabilities, list(classes)


def _best_other(response: Array, n: int) -> Array:
    """Return the largest probability but that of class n."""
    others: Array = np.delete(response, n, axis=2).max(axis=2)
    return others


def _vector(y: Any, m: int) -> Array:
    """Return answers as a vector of any dtype."""
    answers = np.asarray(y)
    if answers.shape not in ((m,), (m, 1)):
        raise checks.wrong("y", f"shape ({m},)", answers.shape)
    return answers.reshape(-1)


def _indices(answers: Array, classes: list[object]) -> Array:
    """Return which class each answer is."""
    indices = np.full(len(answers), -1)
    for n, name in enumerate(classes):
        indices[answers == name] = n
    if (indices < 0).any():
        at = int(np.argmin(indices))
        raise checks.wrong("y", f"classes among {classes}", f"{answers[at]!r} at sample {at}")
    return indices


def _grid(name: str, value: ArrayLike) -> Array:
    """Return one coordinate of a grid's points (n, n)."""
    grid = matrices.real(name, value)
    if grid.ndim != 2 or 0 in grid.shape:
        raise checks.wrong(name, "shape (n, n), not empty", grid.shape)
    return grid


def _feature_names(X: Any) -> tuple[str, str]:
    """Return a frame's column names, else numbers."""
    columns = getattr(X, "columns", None)
    names = [str(name) for name in columns] if columns is not None and len(columns) == 2 else []
    return (names[0], names[1]) if names else ("feature 0", "feature 1")


def _round_ticks(low: float, high: float) -> Array:
    """Return a few round numbers between two."""
    from matplotlib.ticker import MaxNLocator

    ticks: Array = np.asarray(MaxNLocator(7).tick_values(low, high))
    return ticks[(low <= ticks) & (ticks <= high)]


def _columns_and_rows(count: int, steepness: float) -> tuple[int, int]:
    """Return columns and rows for images of this height over width: a broad mosaic, well filled."""
    ideal = math.sqrt(1.4 * count * steepness)
    choices = range(max(1, math.floor(0.75 * ideal)), max(1, math.ceil(1.35 * ideal)) + 1)
    across = min(choices, key=lambda n: (-count % n / n > 0.34, abs(n - ideal)))
    return across, math.ceil(count / across)


def _image_shape(shape: tuple[int, int] | None, features: int) -> tuple[int, int]:
    """Return rows and columns of an image of so many pixels."""
    if shape is None:
        side = math.isqrt(features)
        if side * side != features:
            raise checks.wrong("shape", f"rows and columns of {features} features", "None")
        return side, side
    sides = checks.listed("shape", shape, "rows and columns")
    if len(sides) != 2:
        raise checks.wrong("shape", "rows and columns", sides)
    rows, columns = (checks.integer("shape", n, low=1) for n in sides)
    if rows * columns != features:
        raise checks.wrong("shape", f"rows and columns of {features} features", (rows, columns))
    return rows, columns
