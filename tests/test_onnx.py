"""ONNX: another runtime computes what the network does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Array

import lamella
from lamella import Dense, Network, export

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

OUTPUTS = [
    ("exponential", 2),
    ("sigmoid", 1),
    ("sigmoid", 3),
    ("softmax", 4),
    ("identity", 1),
    ("identity", 2),
]
HIDDEN = lamella.checks.HIDDEN


def run(model: Any, X: Array) -> Array:
    """Return what onnxruntime makes of X."""
    contents = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(contents, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"X": X})
    answers: Array = output
    return answers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(("output", "units"), OUTPUTS)
def test_onnxruntime_computes_the_same(dtype: str, hidden: str, output: str, units: int) -> None:
    net = Network([7, 33, 5, units], hidden=hidden, output=output, dtype=dtype, seed=2)
    rng = np.random.default_rng(0)
    net.parameters = {name: a + 0.1 * rng.standard_normal(a.shape).astype(dtype)
                      for name, a in net.parameters.items()}  # fmt: skip
    for m in (1, 50):
        X = (2 * rng.standard_normal((m, 7))).astype(dtype)
        values = output in ("identity", "exponential")
        wanted = net.predict(X).reshape(m, units) if values else net.predict_proba(X)
        got = run(net.to_onnx(), X)
        assert got.dtype == net.dtype
        assert got.shape == wanted.shape
        bound = 1e-5 if dtype == "float32" else 1e-12 if hidden != "gelu" else 1e-6
        assert np.abs(got - wanted).max() <= bound * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", ["batch", "layer", lamella.BatchNorm(epsilon=0.1)])
def test_norms_residuals_and_layers_without_bias_are_there(dtype: str, norm: Any) -> None:
    second = Dense(9, "silu", residual=True, bias=False)
    layers: list[Any] = [7, Dense(9, norm=norm, dropout=0.3), second, 3]
    net = Network(layers, output="softmax", dtype=dtype, seed=2)
    rng = np.random.default_rng(0)
    X = (1 + 2 * rng.standard_normal((60, 7))).astype(dtype)
    net.fit(X, rng.integers(0, 3, 60), epochs=10, batch_size=20)
    got, wanted = run(net.to_onnx(), X), net.predict_proba(X)
    assert np.abs(got - wanted).max() <= (1e-5 if dtype == "float32" else 1e-12)


def test_mixed_precision_becomes_float32() -> None:
    if "avx512bf16" not in lamella._core.info()["features"]:
        pytest.skip("no CPU with AVX512_BF16")
    mixed = Network([7, 33, 2], output="softmax", dtype="bfloat16")
    plain = Network([7, 33, 2], output="softmax")
    X = np.random.default_rng(0).standard_normal((9, 7)).astype("f")
    assert np.abs(run(mixed.to_onnx(), X) - plain.predict_proba(X)).max() <= 1e-5


def test_a_file_holds_the_model(tmp_path: Path) -> None:
    net, path = Network([3, 4, 1], output="sigmoid"), tmp_path / "net.onnx"
    model = net.to_onnx(path)
    assert list(tmp_path.iterdir()) == [path]
    assert onnx.load(path) == model
    X = np.eye(3, dtype="f")
    assert np.abs(run(str(path), X) - net.predict_proba(X)).max() <= 1e-5
    assert [output.name for output in model.graph.output] == ["probabilities"]
    assert model.producer_version == lamella.__version__


def test_what_has_no_form_is_refused() -> None:
    @dataclass(frozen=True)
    class Wider(Dense):
        attention: int = 0

    for layer, message in (
        (Wider(2, "swirl"), r"^layers\[1\].activation: expected one of .*, got swirl$"),
        (Wider(2, "relu", attention=3), r"^layers\[1\].attention: expected its default"),
    ):
        net = Network([2, 2, 1])
        vars(net)["layers"] = (layer, net.layers[1])
        with pytest.raises(ValueError, match=message):
            net.to_onnx()


def test_more_than_onnx_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LARGEST", 30)
    with pytest.raises(ValueError, match=r"^network: expected at most 30 bytes for ONNX, got 36$"):
        Network([2, 3]).to_onnx()


def test_without_onnx_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install lamella\[onnx\]"):
        Network([2, 1]).to_onnx()
