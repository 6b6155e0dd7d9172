"""Pictures show the numbers that they were made of, in the axes that they were given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lamella import Network, plots
from lamella.datasets import load_digits
from lamella.network import History
from lamella.plots import DecisionBoundary, LearningCurveDisplay, WeightImages

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    matplotlib.pyplot.close("all")


def axes() -> Any:
    return matplotlib.pyplot.subplots()[1]


def drawn(display: Any, path: Path) -> None:
    """Assert that a display can be drawn and is not blank."""
    assert display.figure_ is display.ax_.figure
    display.figure_.savefig(path / "picture.png", dpi=40)
    image = matplotlib.pyplot.imread(path / "picture.png")
    assert len(np.unique(image @ np.array([1.0, 10.0, 100.0, 0.0]))) > 20


# --- learning curves -------------------------------------------------------------------------


def test_a_history_is_drawn(tmp_path: Path) -> None:
    X, y = load_digits()
    history = Network([64, 20, 10], output="softmax").fit(X / 16, y, epochs=15)
    history = History(history.loss, {"val_loss": history.loss + 1, "val_accuracy": history.loss})
    display = LearningCurveDisplay.from_estimator(history)
    drawn(display, tmp_path)
    assert [line.get_label() for line in display.lines_] == [
        "training loss", "validation loss", "validation accuracy"]  # fmt: skip
    for line, curve in zip(display.lines_, [history.loss, *history.metrics.values()], strict=True):
        assert (line.get_ydata() == curve).all()
        assert (line.get_xdata() == np.arange(1, 16)).all()
    assert display.ax_scores_ is not display.ax_
    assert display.ax_.get_legend() is not None


@pytest.mark.filterwarnings("error")
def test_many_curves_leave_room_for_the_axes(tmp_path: Path) -> None:
    loss = np.linspace(1, 0, 9)
    names = "val_loss", "val_log_loss", "val_accuracy", "val_balanced_accuracy", "gradient_norm"
    display = LearningCurveDisplay.from_estimator(History(loss, dict.fromkeys(names, loss)))
    drawn(display, tmp_path)
    assert len(display.lines_) == 6
    assert display.ax_.get_position().width > 0.6


@pytest.mark.parametrize("scores", [None, [0.5, 0.7, 0.8]])
def test_an_estimators_curves_are_drawn_into_given_axes(scores: Any, tmp_path: Path) -> None:
    estimator = SimpleNamespace(loss_curve_=[40.0, 5.0, 1.0], validation_scores_=scores)
    ax = axes()
    display = LearningCurveDisplay.from_estimator(estimator, ax=ax, linewidth=5)
    assert display.ax_ is ax
    assert len(display.lines_) == 1 + (scores is not None)
    assert display.lines_[0].get_linewidth() == 5
    assert ax.get_yscale() == "log"
    drawn(display, tmp_path)


def test_curves_of_one_epoch_and_with_nan_are_drawn(tmp_path: Path) -> None:
    for curve in ([1.0], [1.0, np.nan, 0.0]):
        drawn(LearningCurveDisplay({"loss": curve}).plot(), tmp_path)
    drawn(LearningCurveDisplay({"accuracy": [0.1, 0.5]}).plot(), tmp_path)


def test_what_has_no_curve_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a History or a fitted estimator with loss_curve"):
        LearningCurveDisplay.from_estimator(Network([2, 1]))
    for curves, message in (({}, "at least one epoch"), ({"loss": [[1.0]]}, "^loss: ")):
        with pytest.raises(ValueError, match=message):
            LearningCurveDisplay(curves)


# --- decision boundaries ---------------------------------------------------------------------


def plane() -> Any:
    return np.random.default_rng(0).standard_normal((80, 2))


@pytest.mark.parametrize(("output", "units", "classes"), [("softmax", 3, 3), ("sigmoid", 1, 2)])
def test_classes_are_what_the_network_answers(
    output: str, units: int, classes: int, tmp_path: Path
) -> None:
    X = plane()
    net = Network([2, 16, units], output=output, hidden="tanh")
    net.fit(X, (X[:, 0] > 0).astype(int) + (units - 1) * (X[:, 1] > 0) // 2, epochs=20)
    y = net.predict(X)
    display = DecisionBoundary.from_estimator(net, X, y, grid_resolution=40)
    assert display.response.shape == (40, 40, classes)
    grid = np.column_stack([display.xx0.ravel(), display.xx1.ravel()])
    assert (np.argmax(display.response, axis=2).ravel() == net.predict(grid)).all()
    assert sum(len(points.get_offsets()) for points in display.scatter_) == 80
    assert display.xx0.min() < X[:, 0].min()
    drawn(display, tmp_path)
    again = display.plot(axes())
    assert again is display


def test_values_are_contours(tmp_path: Path) -> None:
    X = plane()
    net = Network([2, 16, 1])
    display = DecisionBoundary.from_estimator(net, X, X[:, 0], grid_resolution=20, ax=axes())
    assert display.response.shape == (20, 20)
    assert display.classes is None
    drawn(display, tmp_path)
    drawn(DecisionBoundary.from_estimator(net, np.ones((1, 2))), tmp_path)


def test_names_come_from_estimator_frame_and_argument(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    X = plane()
    net = Network([2, 2], output="softmax")
    named = SimpleNamespace(predict_proba=net.predict_proba, classes_=np.array(["cat", "dog"]))
    y = named.classes_[net.predict(X)]
    frame = pd.DataFrame(X, columns=["length", "height"])
    display = DecisionBoundary.from_estimator(named, frame, y)
    assert display.ax_.get_xlabel() == "length"
    assert {text.get_text() for text in display.ax_.get_legend().get_texts()} == {"cat", "dog"}
    display = DecisionBoundary.from_estimator(named, X, y, class_names=["Katze", "Hund"])
    assert {text.get_text() for text in display.ax_.get_legend().get_texts()} == {"Katze", "Hund"}
    drawn(display, tmp_path)


def test_wrong_boundaries_are_refused() -> None:
    net, X = Network([2, 2], output="softmax"), plane()
    cases: list[tuple[Any, str]] = [
        (lambda: DecisionBoundary.from_estimator(net, X[:, :1]), r"^X: expected shape \(m, 2\)"),
        (lambda: DecisionBoundary.from_estimator(net, X, X), r"^y: expected shape \(80,\)"),
        (lambda: DecisionBoundary.from_estimator(net, X, np.full(80, 7)), r"^y: .*at sample 0$"),
        (lambda: DecisionBoundary.from_estimator(net, X, class_names="a"), "^class_names: "),
        (lambda: DecisionBoundary.from_estimator(net, X, grid_resolution=1), "^grid_resolution: "),
        (lambda: DecisionBoundary.from_estimator(Network([2, 2]), X), "^estimator: .*one output"),
        (lambda: DecisionBoundary.from_estimator(Network([2, 2], output="sigmoid"), X),
         "^estimator: "),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


# --- weights ---------------------------------------------------------------------------------


def test_weight_images_are_the_weights_largest_first(tmp_path: Path) -> None:
    net = Network([64, 20, 10], output="softmax")
    display = WeightImages.from_estimator(net, max_units=7)
    W = net.parameters["W1"]
    norms = (W**2).sum(axis=1)
    assert (display.units == np.argsort(-norms)[:7]).all()
    assert np.allclose(display.images[3], W[display.units[3]].reshape(8, 8))
    drawn(display, tmp_path)
    mosaic = display.im_.get_array()
    assert np.isclose(mosaic[:8, :8].sum(), W[display.units[0]].sum(), atol=1e-5)


def test_weight_images_of_an_estimator_in_a_shape(tmp_path: Path) -> None:
    estimator = SimpleNamespace(coefs_=[np.arange(24.0).reshape(12, 2)])
    display = WeightImages.from_estimator(estimator, shape=(3, 4), ax=axes(), cmap="PiYG")
    assert display.images.shape == (2, 3, 4)
    assert (display.images[0].ravel() == estimator.coefs_[0][:, 1]).all()
    assert display.im_.get_cmap().name == "PiYG"
    drawn(display, tmp_path)


@pytest.mark.parametrize("count", [1, 3, 48])
def test_any_number_of_images_is_drawn(count: int, tmp_path: Path) -> None:
    drawn(
        WeightImages(np.random.default_rng(0).random((count, 50)), shape=(5, 10)).plot(), tmp_path
    )


def test_wrong_weights_are_refused() -> None:
    net = Network([12, 2])
    with pytest.raises(ValueError, match=r"^shape: expected rows and columns of 12 features"):
        WeightImages.from_estimator(net)
    with pytest.raises(ValueError, match=r"^shape: .*got \(5, 2\)$"):
        WeightImages.from_estimator(net, shape=(5, 2))
    with pytest.raises(TypeError, match=r"^estimator: "):
        WeightImages.from_estimator(object())


def test_without_matplotlib_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install lamella\[plots\]"):
        plots.LearningCurveDisplay({"loss": [1.0]}).plot()
