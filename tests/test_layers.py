"""Layers with everything: activations, initializers, biases, dropout, normalisation, residuals."""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import BatchNorm, Dense, LayerNorm, Network, _core, checks, initializers, reference
from lamella.reference import layers as layers_of_reference
from lamella.reference.activations import ACTIVATIONS, DERIVATIVES
from lamella.reference.dropout import mask, philox

TORCH = np.load(Path(__file__).parent / "data" / "torch.npz")
RANDOM = np.random.RandomState(5)
ISAS = ["avx512", "avx2", "portable", "scalar"]


def data(m: int = 60, features: int = 9, classes: int = 4) -> tuple[Any, Any]:
    random = np.random.RandomState(m)
    return random.randn(m, features), random.randint(0, classes, m)


def close(a: Any, b: Any, bound: float = 1e-10) -> None:
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.max(np.abs(a - b)) <= bound * max(np.max(np.abs(b)), 1e-300)


def parity(
    net: Network, X: Any, y: Any, epochs: int = 4, threads: int | None = None, **options: Any
) -> None:
    """Train by core and reference from the same start and compare everything."""
    statistics = net.statistics
    options = {"optimizer": "adam"} | options
    parameters, losses = reference.fit(
        net.parameters,
        X.T,
        y,
        epochs=epochs,
        layers=net.layers,
        statistics=statistics,
        seed=net.seed,
        **options,
    )
    history = net.fit(X, y, epochs=epochs, threads=threads, **options)
    close(history.loss, losses)
    ours = net.parameters
    assert set(ours) == set(parameters)
    # A bias before batch normalisation has no effect: its gradient is rounding.
    normed = [n for n, layer in enumerate(net.layers, start=1) if isinstance(layer.norm, BatchNorm)]
    for name, array in parameters.items():
        if name in [f"b{n}" for n in normed]:
            np.testing.assert_allclose(ours[name], array, atol=1e-9)
        else:
            close(ours[name], array)
    for name, array in statistics.items():
        close(net.statistics[name], array)


# --- activations ---


@pytest.mark.parametrize("name", [n for n in checks.HIDDEN if n != "identity"])
def test_activations_and_their_derivatives_are_pytorchs(name: str) -> None:
    theirs = {"leaky_relu": "leaky_relu.01"}.get(name, name.replace("hard_", "hard"))
    x = TORCH["act__x"]
    value, slope = TORCH[f"act__{theirs}"], TORCH[f"act__d{theirs}"]
    np.testing.assert_allclose(ACTIVATIONS[name](x), value, rtol=1e-12, atol=1e-15)
    # PyTorch multiplies by 1/6 in float32 in hard sigmoid's derivative.
    bound = 1e-7 if name == "hard_sigmoid" else 1e-11
    np.testing.assert_allclose(DERIVATIVES[name](x), slope, rtol=bound, atol=1e-14)
    # The core, one unit whose weight is 1: A from forward, f' from the backward pass to W1.
    unit, zero = np.ones((1, 1)), np.zeros((1, 1))
    parameters = {"W1": unit, "b1": zero, "W2": unit, "b2": zero}
    AL, caches = lamella.L_model_forward(x[None], parameters, hidden=name, output="identity")
    np.testing.assert_allclose(AL[0], value, rtol=1e-12, atol=1e-15)
    for i in range(0, len(x), 7):
        (A0, _, _, Z1), (A1, _, _, Z2) = caches
        A0, Z1, A1, Z2 = (array[:, i : i + 1] for array in (A0, Z1, A1, Z2))
        one = [(A0, unit, zero, Z1), (A1, unit, zero, Z2)]
        grads = lamella.L_model_backward(
            AL[:, i : i + 1], AL[:, i : i + 1] - 1, one, hidden=name, output="identity"
        )
        np.testing.assert_allclose(grads["db1"][0, 0], slope[i], rtol=bound, atol=1e-14)


@pytest.mark.parametrize("name", checks.HIDDEN)
def test_networks_of_every_activation_train_as_the_reference(name: str) -> None:
    X, y = data()
    net = Network([9, 33, 7, 4], hidden=name, output="softmax", dtype="float64", seed=2)
    parity(net, X, y, batch_size=16)


@pytest.mark.parametrize("name", checks.HIDDEN)
def test_the_l_layer_functions_have_every_activation(name: str) -> None:
    X, y = RANDOM.randn(6, 40), RANDOM.randint(0, 2, 40)
    start = lamella.initialize_parameters_deep([6, 8, 5, 1], init="he")
    assert lamella.gradient_check(start, X, y, hidden=name) < 2e-6


def test_activations_of_extreme_numbers_are_finite_and_nan_passes_on() -> None:
    extreme = np.array([-1e30, -700.0, -50.0, 0.0, 50.0, 700.0, 1e30])
    for dtype in ("float32", "float64"):
        for name in checks.HIDDEN:
            net = Network([1, 1, 1], hidden=name, dtype=dtype)
            one = np.ones((1, 1))
            net.parameters = {"W1": one, "b1": [0], "W2": one, "b2": [0]}
            values = net.predict(extreme[:, None])
            assert np.all(np.isfinite(values)), (dtype, name)
            with np.errstate(over="ignore", invalid="ignore"):
                wanted = ACTIVATIONS[name](extreme)
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6)


# --- initializers and biases ---


@pytest.mark.parametrize("init", initializers.NAMES)
def test_initializers_have_their_scale(init: str) -> None:
    W = lamella.initialize_parameters_deep([300, 200, 400], init=init, seed=1)
    for name, (n, n_prev) in {"W1": (200, 300), "W2": (400, 200)}.items():
        kind = init.removesuffix("_uniform")
        wanted = {
            "normal": 0.01, "uniform": 0.05 / np.sqrt(3), "lecun": np.sqrt(1 / n_prev),
            "xavier": np.sqrt(2 / (n + n_prev)), "he": np.sqrt(2 / n_prev),
            "orthogonal": 1 / np.sqrt(max(n, n_prev)),
        }[kind]  # fmt: skip
        assert abs(np.std(W[name]) / wanted - 1) < 0.02
        if "uniform" in init:
            assert np.max(np.abs(W[name])) <= np.sqrt(3) * wanted * (1 + 1e-12)
            assert np.max(np.abs(W[name])) > np.sqrt(3) * wanted * 0.99
    if init == "orthogonal":
        np.testing.assert_allclose(W["W1"] @ W["W1"].T, np.eye(200), atol=1e-12)
        np.testing.assert_allclose(W["W2"].T @ W["W2"], np.eye(200), atol=1e-12)


def test_weights_may_be_given() -> None:
    W = RANDOM.randn(5, 3)
    net = Network([3, Dense(5, init=W), 2], dtype="float64")
    np.testing.assert_array_equal(net.parameters["W1"], W)
    assert net.layers[0].init == "given"
    with pytest.raises(
        ValueError, match=r"layers\[1\].init: expected shape \(5, 4\), got \(5, 3\)"
    ):
        Network([4, Dense(5, init=W), 2])
    with pytest.raises(ValueError, match=r"layers\[2\].init.*finite"):
        Network([4, 5, Dense(1, init=np.full((1, 5), np.nan))])


@pytest.mark.parametrize("dims", [[9, 33, 7, 4], [300, 20, 7, 4]])
def test_layers_without_biases_train_as_the_reference(dims: list[int]) -> None:
    X, y = data(features=dims[0])
    layers: list[int | Dense] = [dims[0], *(Dense(n, bias=n == 7) for n in dims[1:])]
    net = Network(layers, output="softmax", dtype="float64", decay_biases=True, l2=0.1)
    assert list(net.parameters) == ["W1", "W2", "b2", "W3"]
    assert net.n_parameters == sum(array.size for array in net.parameters.values())
    start = net.parameters
    expected, losses = reference.fit(
        start, X.T, y, epochs=3, batch_size=16, l2=0.1, decay_biases=True, layers=net.layers,
        optimizer="adam",
    )  # fmt: skip
    close(net.fit(X, y, epochs=3, batch_size=16).loss, losses)
    for name, array in expected.items():
        close(net.parameters[name], array)
    assert set(net.loss_and_gradients(X, y)[1]) == {"dW1", "dW2", "db2", "dW3"}


# --- dropout ---


def test_masks_are_philoxs() -> None:
    # Random123's known answers.
    ones = [np.array([0xFFFFFFFF], np.uint64)] * 4
    answer = [int(word[0]) for word in philox(ones, [0xFFFFFFFF, 0xFFFFFFFF])]
    assert answer == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    kept = mask(0.3, 7, 1, 0, 500, 1000)
    assert abs(np.mean(kept > 0) - 0.7) < 0.002
    assert set(np.unique(kept)) == {0, 1 / 0.7}


@pytest.mark.parametrize("rows", [1, 31, 130])
@pytest.mark.parametrize("dims", [[9, 33, 7, 4], [300, 20, 70, 4]])
def test_dropout_trains_as_the_reference(dims: list[int], rows: int) -> None:
    X, y = data(150, dims[0])
    net = Network(dims, dropout=0.4, output="softmax", dtype="float64", seed=3)
    parity(net, X, y, batch_size=rows, optimizer="adam", threads=2)


def test_dropout_leaves_predictions_alone_and_differs_by_step_and_seed() -> None:
    X, y = data()
    net = Network([9, 40, 4], dropout=0.5, output="softmax", dtype="float64")
    plain = Network([9, 40, 4], output="softmax", dtype="float64")
    np.testing.assert_array_equal(net.predict_proba(X), plain.predict_proba(X))
    assert net.evaluate(X, y) == plain.evaluate(X, y)
    first = net.loss_and_gradients(X, y)[0]
    assert net.loss_and_gradients(X, y)[0] == first
    net.partial_fit(X, y, optimizer="sgd", learning_rate=0.0)
    assert net.loss_and_gradients(X, y)[0] != first
    other = Network([9, 40, 4], dropout=0.5, output="softmax", dtype="float64", seed=1)
    other.parameters = plain.parameters
    assert other.loss_and_gradients(X, y)[0] != first


def test_the_l_layer_model_has_dropout() -> None:
    X, y = data()
    ours, costs = lamella.L_layer_model(X.T, y % 2, [9, 20, 5, 1], 0.1, 201, init="he", dropout=0.2)
    theirs, expected = reference.L_layer_model(
        X.T, y % 2, [9, 20, 5, 1], 0.1, 201, init="he", dropout=0.2
    )
    close(costs, expected)
    for name, array in theirs.items():
        close(ours[name], array)
    assert costs != lamella.L_layer_model(X.T, y % 2, [9, 20, 5, 1], 0.1, 201, init="he")[1]


# --- normalisation ---


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_normalisation_is_pytorchs(kind: str) -> None:
    x, dout = TORCH["norm__x"], TORCH["norm__dout"]
    layers = [
        Dense(6, "identity", init=np.eye(6), norm=kind, bias=False),
        Dense(1, "identity", init=np.ones((1, 6))),
    ]
    net = Network([6, *layers], dtype="float64")
    gamma, beta = TORCH[f"norm__{kind}_gamma"], TORCH[f"norm__{kind}_beta"]
    net.parameters = net.parameters | {"gamma1": gamma, "beta1": beta}
    # Against the reference's pieces, with PyTorch's gradient of the layer's output.
    parameters = {"W1": np.eye(6), "gamma1": gamma, "beta1": beta, "W2": np.eye(6)}
    spec = [*net.layers[:1], Dense(6, "identity")]
    statistics = {"mean1": np.zeros(6), "variance1": np.ones(6)}
    training = layers_of_reference.Training(0, 1)
    out, passed = layers_of_reference.forward(
        x.T, parameters, spec, training=training, statistics=statistics
    )
    np.testing.assert_allclose(out.T, TORCH[f"norm__{kind}_out"], rtol=1e-12)
    grads = layers_of_reference.backward(dout.T, parameters, spec, passed)
    np.testing.assert_allclose(grads["dgamma1"], TORCH[f"norm__{kind}_dgamma"], rtol=1e-12)
    np.testing.assert_allclose(grads["dbeta1"], TORCH[f"norm__{kind}_dbeta"], rtol=1e-12)
    # dW1 = dx^T x
    wanted = TORCH[f"norm__{kind}_dx"].T @ x
    np.testing.assert_allclose(grads["dW1"], wanted, rtol=1e-10, atol=1e-12)
    if kind == "batch":
        net.partial_fit(x, x[:, 0], optimizer="sgd", learning_rate=0.0)
        running = {"mean1": "norm__batch_running_mean", "variance1": "norm__batch_running_var"}
        for name, key in running.items():
            close(statistics[name], TORCH[key], 1e-12)
            close(net.statistics[name], TORCH[key], 1e-12)
        wanted = TORCH["norm__batch_inference_out"]
    else:
        wanted = TORCH["norm__layer_out"]
    close(net.predict(x), np.sum(wanted, axis=1), 1e-12)


@pytest.mark.parametrize("norm", ["batch", "layer", BatchNorm(0.3, 1e-3), LayerNorm(0.1)])
@pytest.mark.parametrize("rows", [33, 64, 200])
def test_normalised_networks_train_as_the_reference(norm: Any, rows: int) -> None:
    X, y = data(150)
    layers: list[int | Dense] = [
        9,
        33,
        Dense(40, "gelu", dropout=0.1),
        Dense(5, "tanh", bias=False),
        4,
    ]
    net = Network(layers, norm=norm, output="softmax", dtype="float64", seed=4)
    parity(net, X, y, batch_size=rows, optimizer="adamw", threads=2)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_large_normalised_batches_train_as_the_reference(norm: str) -> None:
    X, y = data(5000)
    net = Network([9, 20, 17, 4], norm=norm, dropout=0.2, output="softmax", dtype="float64")
    parity(net, X, y, epochs=2, batch_size=None, optimizer="adam")


@pytest.mark.parametrize("features", [9, 300])
def test_a_first_layer_of_either_form_may_be_normalised(features: int) -> None:
    X, y = data(150, features)
    net = Network([features, 20, 3, 4], norm="batch", output="softmax", dtype="float64")
    parity(net, X, y, batch_size=50, optimizer="sgd")


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("units", [1, 3, 7, 17, 20])
def test_narrow_first_layers_may_be_normalised(norm: str, units: int) -> None:
    X, y = data(150, 300)
    nets = [
        Network([300, units, 4], norm=norm, bias=False, output="softmax", dtype=dtype)
        for dtype in ("float32", "float64")
    ]
    losses = [net.fit(X, y, epochs=3, batch_size=50, threads=2).loss for net in nets]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_a_mean_that_overflows_where_there_is_no_unit_reaches_no_sum() -> None:
    # 24 units are no whole number of vectors; all are alike, so that each becomes its shift.
    net = Network([1, Dense(24, norm=LayerNorm()), 1])
    parameters = {name: value.copy() for name, value in net.parameters.items()}
    parameters["W1"][:], parameters["beta1"][:] = 1.0, 1.0
    net.parameters = parameters
    answer = net.decision_function(np.array([[2.0**123]], np.float32))
    wanted = parameters["W2"].sum() + parameters["b2"][0]
    np.testing.assert_allclose(answer, [[wanted]], rtol=1e-5)


def test_epsilons_that_are_nothing_in_float32_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 1: epsilon: expected.*float32.*above 0"):
        Network([3, Dense(4, norm=BatchNorm(epsilon=1e-50)), 2])
    net = Network([3, 4, 2])
    with pytest.raises(ValueError, match=r"epsilon: expected.*float32.*above 0"):
        net.fit(np.ones((4, 3)), np.ones((4, 2)), optimizer=lamella.Adam(epsilon=1e-50))


def test_wrong_data_is_an_error_where_there_is_no_gradient_yet() -> None:
    net = Network([300, 20, 1])
    with pytest.raises(ValueError, match="X: expected finite numbers"):
        net.loss_and_gradients(np.full((4, 300), np.nan), np.zeros(4))


def test_statistics_are_all_checked_before_any_is_set() -> None:
    net = Network([3, 4, 5, 2], norm="batch")
    wrong = {name: array - (name == "variance2") * 2 for name, array in net.statistics.items()}
    wrong["mean1"] = wrong["mean1"] + 1
    with pytest.raises(ValueError, match="variance2"):
        net.statistics = wrong
    np.testing.assert_array_equal(net.statistics["mean1"], np.zeros(4))


def test_batches_too_large_for_batch_normalisation_are_refused() -> None:
    X = np.zeros((65_537, 1), np.float32)
    net = Network([1, Dense(2, norm="batch"), 1])
    with pytest.raises(ValueError, match=r"batch_size: expected at most 65536 rows.*got 65537"):
        net.fit(X, X[:, 0], batch_size=None)
    net.fit(X, X[:, 0], batch_size=65_536)


def test_statistics_are_kept_by_copies_and_pickles_and_can_be_set() -> None:
    X, y = data()
    net = Network([9, 12, 4], norm="batch", output="softmax", dtype="float64")
    net.fit(X, y, epochs=3)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))
    fresh = Network([9, 12, 4], norm="batch", output="softmax", dtype="float64")
    fresh.parameters, fresh.statistics = net.parameters, net.statistics
    np.testing.assert_array_equal(fresh.predict_proba(X), net.predict_proba(X))
    with pytest.raises(ValueError, match="statistics: expected mean1, variance1, got no variance1"):
        fresh.statistics = {"mean1": np.zeros(12)}
    with pytest.raises(ValueError, match="variance1: expected numbers of at least 0"):
        fresh.statistics = {"mean1": np.zeros(12), "variance1": -np.ones(12)}


def test_loss_and_gradients_leave_the_statistics_alone() -> None:
    X, y = data()
    net = Network([9, 12, 4], norm="batch", output="softmax")
    before = net.statistics
    net.loss_and_gradients(X, y)
    for name, array in before.items():
        np.testing.assert_array_equal(net.statistics[name], array)


# --- residuals ---


def test_the_residual_network_of_pytorch() -> None:
    layers: list[int | Dense] = [
        4,
        Dense(8, residual=False),
        *[Dense(8, norm="batch", residual=True)] * 3,
        3,
    ]
    net = Network(layers, output="softmax", dtype="float64")
    net.parameters = {name: TORCH[f"resnet__{name}"] for name in net.parameters}
    loss, gradients = net.loss_and_gradients(TORCH["resnet__X"], TORCH["resnet__y"])
    np.testing.assert_allclose(loss, TORCH["resnet__loss"], rtol=1e-12)
    for name, array in gradients.items():
        # A bias before batch normalisation has no effect: its gradient is rounding.
        wanted = TORCH[f"resnet__{name}"]
        np.testing.assert_allclose(array, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("hidden", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("features", [9, 20])
def test_residual_networks_train_as_the_reference(hidden: str, features: int) -> None:
    X, y = data(150, features)
    layers: list[int | Dense] = [
        features,
        20,
        20,
        Dense(20, residual=False),
        20,
        Dense(5, dropout=0.5),
        5,
        5,
        4,
    ]
    net = Network(layers, residual=True, hidden=hidden, output="softmax", dtype="float64")
    wanted = [features == 20, True, False, True, False, True, True, False]
    assert [layer.residual for layer in net.layers] == wanted
    parity(net, X, y, batch_size=40, optimizer="adam", threads=2)


def test_everything_at_once_trains_as_the_reference() -> None:
    X, y = data(150, 20)
    layers: list[int | Dense] = [
        20,
        Dense(20, "silu", norm="layer", residual=True, dropout=0.1),
        Dense(33, "mish", norm="batch"),
        Dense(33, "elu", residual=True, bias=False),
        Dense(33, "softplus", norm="batch", residual=True, dropout=0.3),
        Dense(2, "hard_sigmoid"),
        Dense(2, "selu", residual=True),
        4,
    ]
    net = Network(layers, output="softmax", dtype="float64", seed=9)
    parity(net, X, y, batch_size=64, optimizer="adam", threads=2)


# --- gradients and bits ---

EVERYTHING: list[Any] = [
    Dense(17, "gelu", norm="batch", dropout=0.2),
    Dense(17, "elu", norm="layer", residual=True),
    Dense(33, "mish", bias=False),
    Dense(33, "relu", residual=True, dropout=0.5),
]


def test_gradients_match_central_differences() -> None:
    X, y = data(20, 5)
    net = Network([5, *EVERYTHING, 4], output="softmax", dtype="float64", init="lecun")
    loss, gradients = net.loss_and_gradients(X, y)
    start = net.parameters
    for name, array in start.items():
        for index in list(np.ndindex(array.shape))[:: max(1, array.size // 7)]:
            costs = []
            for sign in (1, -1):
                moved = {k: v.copy() for k, v in start.items()}
                moved[name][index] += sign * 1e-6
                net.parameters = moved
                costs.append(net.loss_and_gradients(X, y)[0])
            numerical = (costs[0] - costs[1]) / 2e-6
            assert abs(gradients[f"d{name}"][index] - numerical) < 1e-7 * max(1, loss), (
                name,
                index,
            )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 50, 1500])
def test_bits_depend_on_neither_threads_nor_instruction_set(
    dtype: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data(1600, 5)
    hashes = set()
    for isa in ISAS:
        if isa not in _core.info()["available"]:
            continue
        monkeypatch.setenv("LAMELLA_ISA", isa)
        for threads in (1, 2, 3):
            net = Network([5, *EVERYTHING, 4], output="softmax", dtype=dtype, seed=11)
            used = 8 if rows == 1 else 1600
            net.fit(X[:used], y[:used], epochs=2, batch_size=rows, threads=threads)
            arrays = [*net.parameters.values(), *net.statistics.values(), net.predict_proba(X[:70])]
            hashes.add(hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
    assert len(hashes) == 1


def test_mixed_precision_trains_layers_with_everything() -> None:
    info = _core.info()
    if "avx512bf16" not in info["features"] or info["isa"] not in ("amx", "avx512"):
        pytest.skip("this CPU has no AVX-512 BF16")
    X, y = data(300, 5)
    nets = [
        Network([5, *EVERYTHING, 4], output="softmax", dtype=dtype, seed=1)
        for dtype in ("float32", "bfloat16")
    ]
    losses = [net.fit(X, y, epochs=5, batch_size=64).loss for net in nets]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert not np.array_equal(losses[0], losses[1])


# --- errors ---


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([3, Dense(4, residual=True), 2], {}, r"layers\[1\].units: expected 3.*residual, got 4"),
        ([3, Dense(4, dropout=1.0), 2], {}, r"layers\[1\].dropout: expected"),
        ([3, 4, Dense(2, dropout=0.5)], {}, r"layers\[2\]: expected no norm, dropout or residual"),
        ([3, 4, Dense(2, norm="batch")], {}, r"layers\[2\]: expected no norm"),
        ([3, Dense(4, norm="group"), 2], {}, r"layers\[1\].norm: expected.*batch.*got 'group'"),
        ([3, 4, 2], {"dropout": -0.1}, "dropout: expected"),
        ([3, 4, 2], {"norm": "instance"}, "norm: expected"),
        ([3, 4, 2], {"hidden": "swish"}, "hidden: expected one of.*silu"),
        ([3, 4, 2], {"init": "random"}, "init: expected one of.*orthogonal"),
    ],
)
def test_wrong_layers_are_named(layers: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(layers, **options)


def test_wrong_norms_are_named() -> None:
    with pytest.raises(TypeError, match=r"norm: expected .batch.*got 3"):
        Network([3, Dense(4, norm=3), 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epsilon: expected"):
        LayerNorm(0.0)
    with pytest.raises(ValueError, match="momentum: expected"):
        BatchNorm(1.5)


@pytest.mark.parametrize(
    ("loss", "output", "n"),
    [("focal", "sigmoid", 3), ("cross_entropy", "softmax", 4), ("huber", "identity", 2)],
)
def test_a_network_checks_its_own_gradient(loss: str, output: str, n: int) -> None:
    X, _ = data(20, 5)
    y = RANDOM.randint(0, 2, (20, n)) if output != "softmax" else RANDOM.randint(0, n, 20)
    layers: list[int | Dense] = [5, Dense(17, "gelu", norm="batch", dropout=0.2, bias=False)]
    layers += [Dense(17, "elu", norm="layer", residual=True), Dense(9, "mish"), n]
    net = Network(layers, output=output, loss=loss, init="lecun", l2=0.01)
    before = net.parameters
    difference = net.gradient_check(X, y, sample_weight=np.linspace(0, 1, 20))
    assert isinstance(difference, float)
    assert difference < 1e-6
    np.testing.assert_array_equal(net.parameters["W1"], before["W1"])


def test_a_wrong_gradient_does_not_pass_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(20, 5)
    net = Network([5, 8, 4], output="softmax", hidden="tanh")
    right = Network.loss_and_gradients

    def wrong(self: Network, *args: Any, **options: Any) -> Any:
        loss, gradients = right(self, *args, **options)
        gradients["dW2"] = gradients["dW2"].copy()
        gradients["dW2"][0, 0] += 0.1
        return loss, gradients

    monkeypatch.setattr(Network, "loss_and_gradients", wrong)
    found = net.gradient_check(X, y, details=True)
    assert isinstance(found, tuple)
    difference, worst = found
    assert difference > 1e-3
    assert worst["dW2"].place == (0, 0)
    assert abs(worst["dW2"].gradient - worst["dW2"].numerical - 0.1) < 1e-6
