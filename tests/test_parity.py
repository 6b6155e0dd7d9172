"""The core equals the NumPy reference, the course page's numbers and PyTorch's."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import Array, agree, difference, start
from hypothesis import given, settings
from hypothesis import strategies as st

import lamella
from lamella import functional, optimizers, reference, span

BOTH = pytest.mark.parametrize("module", [functional, reference], ids=["core", "reference"])
OUTPUTS = ["sigmoid", "softmax", "identity"]
HIDDEN = ["relu", "leaky_relu", "tanh", "sigmoid", "identity"]


def labels(rng: np.random.Generator, n: int, m: int, output: str) -> Array:
    """Return targets that fit an output."""
    if output == "softmax":
        return rng.integers(0, n, m)
    if output == "sigmoid":
        return rng.integers(0, 2, (n, m))
    return rng.standard_normal((n, m))


def laid_out(X: Array, order: str) -> Array:
    """Return X with C, Fortran or other strides."""
    if order == "strided":
        wide = np.zeros((2 * X.shape[0], 3 * X.shape[1]), X.dtype)
        wide[::2, ::3] = X
        return wide[::2, ::3]
    return np.asarray(X, order="F" if order == "F" else "C")


def check_passes(dims: list[int], m: int, hidden: str, output: str, order: str, seed: int) -> None:
    """Assert that one forward and backward pass equals the reference's."""
    if output == "softmax":  # which needs two outputs to choose from
        dims = [*dims[:-1], max(2, dims[-1])]
    rng = np.random.default_rng(seed)
    parameters = start(dims, seed)
    X = laid_out(rng.standard_normal((dims[0], m)), order)
    Y = labels(rng, dims[-1], m, output)
    AL, caches = functional.L_model_forward(X, parameters, hidden=hidden, output=output)
    wanted, expected = reference.L_model_forward(X, parameters, hidden=hidden, output=output)
    assert difference(AL, wanted) <= 1e-12
    for ours, theirs in zip(caches, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert difference(a, b) <= 1e-12
        if hidden in ("relu", "leaky_relu") and np.abs(theirs[3]).min() < 1e-9:
            return  # a rounding error away from the kink the derivative may differ
    cost = functional.compute_cost(AL, Y, output=output)
    assert cost == pytest.approx(reference.compute_cost(wanted, Y, output=output), rel=1e-12)
    ours_grads = functional.L_model_backward(AL, Y, caches, hidden=hidden, output=output)
    grads = reference.L_model_backward(wanted, Y, expected, hidden=hidden, output=output)
    for name in grads:
        if np.abs(grads[name]).max() > 1e-12:
            assert difference(ours_grads[name], grads[name]) <= 1e-12, name


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_passes_equal_the_reference(hidden: str, output: str, order: str) -> None:
    check_passes([13, 37, 5, 17, 3], 61, hidden, output, order, 1)
    check_passes([300, 20, 7, 5, 2], 97, hidden, output, order, 2)
    check_passes([1, 1], 1, hidden, output, order, 3)
    check_passes([6, 300, 17, 4], 130, hidden, output, order, 4)


@settings(max_examples=40, deadline=None)
@given(
    dims=st.lists(st.integers(1, 70), min_size=2, max_size=11),
    m=st.integers(1, 130),
    hidden=st.sampled_from(HIDDEN),
    output=st.sampled_from(OUTPUTS),
    order=st.sampled_from(["C", "F", "strided"]),
    seed=st.integers(0, 1000),
)
def test_passes_of_any_network_equal_the_reference(**case: Any) -> None:
    check_passes(**case)


@BOTH
def test_passes_equal_the_course(module: ModuleType, course: dict[str, Array]) -> None:
    names = [f"{kind}{layer}" for layer in range(1, 5) for kind in "Wb"]
    parameters = {name: course[f"pass/{name}"].copy() for name in names}
    AL, caches = module.L_model_forward(course["pass/X"], parameters)
    assert difference(AL, course["pass/AL"]) <= 1e-12
    cost = module.compute_cost(AL, course["pass/Y"])
    assert cost == pytest.approx(float(course["pass/cost"]), rel=1e-12)
    for layer, (A_prev, _, _, Z) in enumerate(caches, 1):
        assert difference(A_prev, course[f"pass/cache{layer}_A_prev"]) <= 1e-12
        assert difference(Z, course[f"pass/cache{layer}_Z"]) <= 1e-12
    grads = module.L_model_backward(AL, course["pass/Y"], caches)
    for name in names:
        assert difference(grads[f"d{name}"], course[f"pass/d{name}"]) <= 1e-12
    updated = module.update_parameters_deep(parameters, grads, 0.1)
    for name in names:
        assert difference(updated[name], course[f"pass_updated_rate.1/{name}"]) <= 1e-12


@BOTH
@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("train_default_500", {"num_iterations": 500}),
        (
            "train_lecun_seed1_rate.03_2000",
            {"num_iterations": 2000, "init": "lecun", "seed": 1, "learning_rate": 0.03},
        ),
    ],
)
def test_training_equals_the_course(
    module: ModuleType, key: str, options: dict[str, Any], course: dict[str, Array]
) -> None:
    X, Y = course["train/X"], course["train/Y"]
    parameters, costs = module.L_layer_model(X, Y, [10, 20, 7, 5, 1], **options)
    assert difference(np.array(costs), course[f"{key}/costs"]) <= 1e-9
    for name in parameters:
        assert difference(parameters[name], course[f"{key}/{name}"]) <= 1e-9, name


@pytest.mark.parametrize(
    ("key", "optimizer", "options"),
    [
        ("sgd_lr.1", lamella.SGD(0.1), {}),
        ("sgd_momentum.9_lr.05", lamella.SGD(0.05, momentum=0.9), {}),
        ("sgd_nesterov.9_lr.05", lamella.SGD(0.05, momentum=0.9, nesterov=True), {}),
        ("sgd_momentum.9_coupled_decay.01_lr.05", lamella.SGD(0.05, momentum=0.9), {"l2": 0.01}),
        ("sgd_lr.5_clip_value.02", lamella.SGD(0.5), {"clip_value": 0.02}),
        ("adam_lr.001", lamella.Adam(0.001), {}),
        ("adam_lr.01_b.8_.95_eps1e-6", lamella.Adam(0.01, 0.8, 0.95, 1e-6), {}),
        ("adam_coupled_decay.01_lr.001", lamella.Adam(0.001), {"l2": 0.01}),
        ("amsgrad_lr.001", lamella.Adam(0.001, amsgrad=True), {}),
        ("adamw_decay.01_lr.001", lamella.AdamW(0.001, weight_decay=0.01), {}),
        ("nadam_lr.002", lamella.NAdam(0.002), {}),
        ("rmsprop_lr.001", lamella.RMSprop(0.001), {}),
        (
            "rmsprop_centered_momentum.9_lr.001",
            lamella.RMSprop(0.001, momentum=0.9, centered=True),
            {},
        ),
        ("adagrad_lr.01", lamella.Adagrad(0.01), {}),
        ("lion_lr.0001_decay0", lamella.Lion(1e-4), {}),
        ("lion_lr.0001_decay.1", lamella.Lion(1e-4, weight_decay=0.1), {}),
    ],
)
def test_optimizers_follow_pytorch(
    key: str, optimizer: Any, options: dict[str, Any], torch: dict[str, Array]
) -> None:
    X, y = torch["net/X"], torch["net/y"]
    # PyTorch's decay knows no difference between weights and biases.
    settings: dict[str, Any] = {"l2": options.get("l2", 0.0), "decay_biases": True}
    clip: dict[str, Any] = {"clip_value": options.get("clip_value")}
    net = lamella.Network(
        [5, 7, 6, 3], hidden="tanh", output="softmax", dtype="float64", **settings
    )
    names = [f"{kind}{layer}" for layer in range(1, 4) for kind in "Wb"]
    begin = {name: torch[f"net/{name}"] for name in names}
    net.parameters = begin
    if not settings["l2"]:
        loss, gradients = net.loss_and_gradients(X, y)
        assert loss == pytest.approx(float(torch["net/loss"]), rel=1e-12)
        for name in names:
            assert difference(gradients[f"d{name}"], torch[f"net/d{name}"]) <= 1e-12
    done = 0
    for row, steps in zip(torch[f"optim/{key}"], (1, 2, 10, 100, 1000), strict=True):
        if key == "rmsprop_lr.001" and steps == 1000:
            break  # that row is rounding: see the next test
        net.fit(X, y, epochs=steps - done, batch_size=None, optimizer=optimizer, **clip)
        done = steps
        ours = np.concatenate([net.parameters[name].ravel() for name in names])
        np.testing.assert_allclose(ours, row, rtol=1e-9)
        columns = {n: begin[n].reshape(-1, 1) if n[0] == "b" else begin[n] for n in names}
        theirs, _ = reference.fit(
            columns,
            X.T,
            y,
            epochs=min(steps, 100),
            optimizer=optimizer,
            hidden="tanh",
            output="softmax",
            **settings,
            **clip,
        )
        if steps <= 100:
            flat = np.concatenate([theirs[name].ravel() for name in names])
            np.testing.assert_allclose(flat, row, rtol=1e-9)


def rmsprop_exactly(torch: dict[str, Array], steps: tuple[int, ...]) -> list[Array]:
    """Return the path of RMSprop(0.001) in extended precision, by PyTorch's formulas."""
    wide = np.longdouble
    X, y = torch["net/X"].astype(wide), torch["net/y"]
    P = [torch[f"net/{kind}{layer}"].astype(wide) for layer in (1, 2, 3) for kind in "Wb"]
    squares = [np.zeros_like(p) for p in P]
    rate, kept, epsilon = wide("0.001"), wide("0.99"), wide("1e-8")
    rows = []
    for step in range(1, max(steps) + 1):
        A = [X]
        for layer in range(3):
            Z = A[-1] @ P[2 * layer].T + P[2 * layer + 1]
            A.append(np.tanh(Z) if layer < 2 else Z)
        dZ = np.exp(A[3] - A[3].max(axis=1, keepdims=True))
        dZ /= dZ.sum(axis=1, keepdims=True)
        dZ[np.arange(len(y)), y] -= 1
        dZ /= len(y)
        gradients: list[Array] = []
        for layer in (2, 1, 0):
            gradients = [dZ.T @ A[layer], dZ.sum(axis=0), *gradients]
            dZ = (dZ @ P[2 * layer]) * (1 - A[layer] ** 2)
        for p, square, gradient in zip(P, squares, gradients, strict=True):
            square[...] = kept * square + (1 - kept) * gradient * gradient
            p -= rate * gradient / (np.sqrt(square) + epsilon)
        if step in steps:
            rows.append(np.concatenate([p.ravel() for p in P]).astype(np.float64))
    return rows


@pytest.mark.skipif(
    bool(np.finfo(np.longdouble).eps > 1e-18), reason="this platform has no extended precision"
)
def test_plain_rmsprop_keeps_to_the_exact_path_while_float64_can(torch: dict[str, Array]) -> None:
    """From step 850 a rounding error grows tenfold every ten steps, and decides the last row.

    After 1,000 steps PyTorch is 3e-4 off the exact path, as are NumPy and the core, each elsewhere:
    only PyTorch's own order of operations gives PyTorch's numbers there.
    """
    steps = (1, 10, 100, 500, 800)
    net = lamella.Network([5, 7, 6, 3], hidden="tanh", output="softmax", dtype="float64")
    names = [f"{kind}{layer}" for layer in range(1, 4) for kind in "Wb"]
    net.parameters = {name: torch[f"net/{name}"] for name in names}
    *exact, last = rmsprop_exactly(torch, (*steps, 1000))
    for before, step, row in zip((0, *steps), steps, exact, strict=False):
        net.fit(
            torch["net/X"], torch["net/y"], epochs=step - before, batch_size=None,
            optimizer=lamella.RMSprop(0.001),
        )  # fmt: skip
        ours = np.concatenate([net.parameters[name].ravel() for name in names])
        np.testing.assert_allclose(ours, row, rtol=1e-11)
    assert difference(torch["optim/rmsprop_lr.001"][-1], last) > 1e-5


@pytest.mark.parametrize("optimizer", tuple(optimizers.BY_NAME))
@pytest.mark.parametrize("output", OUTPUTS)
def test_shuffled_batches_equal_the_reference(optimizer: str, output: str) -> None:
    rng = np.random.default_rng(5)
    dims, m = [6, 19, 4], 70
    X, Y = rng.standard_normal((6, m)), labels(rng, 4, m, output)
    penalties: dict[str, Any] = {"l1": 0.003, "l2": 0.01}
    net = lamella.Network(dims, hidden="tanh", output=output, dtype="float64", seed=3, **penalties)
    parameters = start(dims, 4)
    net.parameters = {k: v.ravel() if k[0] == "b" else v for k, v in parameters.items()}
    history = net.fit(X.T, Y.T, epochs=4, batch_size=32, optimizer=optimizer, clip_value=0.05)
    scale = {"sigmoid": 1 / 4, "softmax": 1.0, "identity": 2 / 4}[output]
    theirs, losses = reference.fit(
        parameters,
        X,
        Y,
        epochs=4,
        batch_size=32,
        optimizer=optimizer,
        hidden="tanh",
        output=output,
        seed=3,
        **penalties,
        clip_value=0.05,
        loss_scale=scale,
    )
    assert difference(history.loss, losses) <= 1e-10
    ours = {k: v.reshape(theirs[k].shape) for k, v in net.parameters.items()}
    agree(ours, theirs, 1e-10)


@pytest.mark.parametrize("rows", [30, 2500])
def test_gradients_include_the_penalties(rows: int) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((rows, 6)), rng.standard_normal((rows, 2))
    options: dict[str, Any] = {"hidden": "tanh", "dtype": "float64"}
    plain = lamella.Network([6, 19, 2], **options)
    penalised = lamella.Network([6, 19, 2], l1=0.3, l2=2.0, decay_biases=True, **options)
    parameters = {k: v + 0.1 for k, v in plain.parameters.items()}
    plain.parameters = penalised.parameters = parameters
    (loss, gradients), (more, theirs) = (n.loss_and_gradients(X, y) for n in (plain, penalised))
    penalty = sum(0.3 * np.abs(v).sum() + (v**2).sum() for v in parameters.values())
    assert more - loss == pytest.approx(penalty, rel=1e-12)
    for name, value in parameters.items():
        wanted = gradients[f"d{name}"] + 2.0 * value + 0.3 * np.sign(value)
        assert difference(theirs[f"d{name}"], wanted) <= 1e-12, name


def test_losses_do_not_depend_on_the_threads() -> None:
    rng = np.random.default_rng(4)
    net = lamella.Network([5, 9, 3], output="softmax")
    # The last slice is short, and helpers take slices in any order.
    X, y = rng.standard_normal((2001, 5)), rng.integers(0, 3, 2001)
    alone = net.evaluate(X, y, threads=1)
    for _ in range(200):
        assert net.evaluate(X, y, threads=16) == alone


def test_gradients_equal_central_differences() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((5, 12)), rng.integers(0, 2, (1, 12))
    assert lamella.gradient_check(start([5, 7, 4, 1], 2), X, Y, hidden="tanh") < 1e-7


def test_a_long_training_equals_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    X = np.asfortranarray(rng.random((12288, 209)))  # NumPy takes two thirds of the time so
    Y = (X[:40].sum(axis=0, keepdims=True) > 20).astype(int)
    options: dict[str, Any] = {"learning_rate": 0.02, "init": "lecun"}
    options["num_iterations"] = 2500
    dims = [12288, 20, 7, 5, 1]
    theirs, expected = reference.L_layer_model(X, Y, dims, **options)
    assert expected[-1] < 0.1
    for plainly in (False, True):
        if plainly:
            monkeypatch.setattr(span, "pays", lambda *_: False)
        ours, costs = functional.L_layer_model(X, Y, dims, **options)
        assert difference(np.array(costs), np.array(expected)) <= 1e-10
        agree(ours, theirs, 1e-10)


def test_float32_agrees_with_float64() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 54)), rng.integers(0, 7, 200)
    single = lamella.Network([54, 128, 64, 7], output="softmax", dtype="float32")
    double = lamella.Network([54, 128, 64, 7], output="softmax", dtype="float64")
    double.parameters = {k: v.astype("float64") for k, v in single.parameters.items()}
    loss, gradients = single.loss_and_gradients(X.astype("float32"), y)
    wanted, expected = double.loss_and_gradients(X.astype("float32"), y)
    assert loss == pytest.approx(wanted, rel=1e-6)
    agree(gradients, expected, 1e-5)
