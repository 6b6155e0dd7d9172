"""Models in files: what is written is read, bit by bit; what is damaged or hostile is refused."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Array

import lamella
from lamella import Dense, Network, checkpoint
from lamella.schedules import ReduceOnPlateau, Warmup
from lamella.timing import Plateau

DTYPES = ["float32", "float64", "bfloat16"]
OPTIMIZERS = ["sgd", "momentum", "nesterov", "adam", "amsgrad", "adamw", "nadam", "rmsprop",
              lamella.RMSprop(momentum=0.9), lamella.RMSprop(momentum=0.9, centered=True),
              "adagrad", "lion"]  # fmt: skip


def network(dtype: str = "float32", **settings: Any) -> Network:
    if dtype == "bfloat16" and "avx512bf16" not in lamella._core.info()["features"]:
        pytest.skip("no CPU with AVX512_BF16")
    layers: list[Any] = [
        6,
        Dense(17, "tanh", "xavier", norm="batch", dropout=0.2),
        Dense(17, init=0.5, norm=lamella.LayerNorm(epsilon=0.01), residual=True),
        Dense(1, init=np.ones((1, 17)), bias=False),
        Dense(40, norm=lamella.BatchNorm(momentum=0.3)),
        3,
    ]
    return Network(layers, output="softmax", dtype=dtype, seed=5, l2=1e-3, **settings)


def data(m: int = 50) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((m, 6)), rng.integers(0, 3, m)


def bits(net: Network) -> list[bytes]:
    return [a.tobytes() for a in (*net.parameters.values(), *net.statistics.values())]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_network_comes_back_as_it_was(dtype: str, tmp_path: Path) -> None:
    net, path = network(dtype, decay_biases=True, l1=1e-4), tmp_path / "net.safetensors"
    net.fit(*data(), epochs=2)
    net.save(path)
    for again in (Network.load(path), lamella.load(str(path))):
        assert type(again) is Network
        assert bits(again) == bits(net)
        assert again.predict_proba(data()[0]).tobytes() == net.predict_proba(data()[0]).tobytes()
        assert checkpoint.settings(again) == checkpoint.settings(net)
        assert again.layers == net.layers
        assert again.criterion == net.criterion
        assert (again.steps, again.epochs, again.seed) == (0, 0, 5)
        assert (again.l1, again.l2, again.decay_biases) == (1e-4, 1e-3, True)
        assert repr(again) == repr(net)


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ("sigmoid", None),
        ("sigmoid", "focal"),
        ("identity", None),
        ("identity", lamella.Huber(delta=0.5)),
        ("identity", lamella.Quantile((0.1, 0.9))),
        ("softmax", lamella.CrossEntropy(label_smoothing=0.1)),
        ("exponential", None),
    ],
)
def test_outputs_and_losses_come_back(output: str, loss: Any, tmp_path: Path) -> None:
    net = Network([3, 2], output=output, loss=loss)
    net.save(tmp_path / "net")
    again = lamella.load(tmp_path / "net")
    assert (again.output, again.loss, again.criterion) == (net.output, net.loss, net.criterion)


def test_a_loss_in_python_is_not_saved(tmp_path: Path) -> None:
    net = Network([3, 2], loss=lambda Z, y: (0.0, np.zeros_like(Z)))
    with pytest.raises(TypeError, match=r"^loss: expected what a file can hold, got <function"):
        net.save(tmp_path / "net")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_goes_on_as_if_never_interrupted(
    dtype: str, optimizer: Any, tmp_path: Path
) -> None:
    straight, stopped = network(dtype), network(dtype)
    settings: dict[str, Any] = {"optimizer": optimizer, "batch_size": 16}
    whole = straight.fit(*data(), epochs=6, **settings).loss
    first = stopped.fit(*data(), epochs=3, **settings).loss
    stopped.save(tmp_path / "net", state=True)
    again = lamella.load(tmp_path / "net")
    assert (again.steps, again.epochs) == (12, 3)
    second = again.fit(*data(), epochs=3, **settings).loss
    assert whole.tobytes() == np.append(first, second).tobytes()
    assert bits(again) == bits(straight)
    forgetful = lamella.load(tmp_path / "net")
    forgetful.reset()
    forgetful.fit(*data(), epochs=3, **settings)
    assert bits(forgetful) != bits(straight)


@pytest.mark.parametrize("warm", [False, True])
def test_a_plateau_goes_on_as_if_never_interrupted(warm: bool, tmp_path: Path) -> None:
    schedule: Any = ReduceOnPlateau(0.01, patience=1, threshold=0.2, cooldown=1, factor=0.3)
    schedule = Warmup(steps=3, then=schedule) if warm else schedule
    settings: dict[str, Any] = {"learning_rate": schedule, "batch_size": 16}
    straight, stopped = network("float64"), network("float64")
    rates = straight.fit(*data(), epochs=9, **settings).metrics["learning_rate"]
    stopped.fit(*data(), epochs=5, **settings)
    stopped.save(tmp_path / "net", state=True)
    assert stopped._plateau is not None
    assert stopped._plateau.rate < 0.01
    again = lamella.load(tmp_path / "net")
    assert again._plateau == stopped._plateau
    again.save(tmp_path / "again", state=True)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "net").read_bytes()
    after = again.fit(*data(), epochs=4, **settings).metrics["learning_rate"]
    assert after.tolist() == rates[5:].tolist()
    assert bits(again) == bits(straight)
    stopped.save(tmp_path / "plain")
    assert lamella.load(tmp_path / "plain")._plateau is None


def test_a_plateau_of_numpy_numbers_is_kept(tmp_path: Path) -> None:
    def share(targets: Array, outputs: Array) -> Any:
        return np.float32(0.1)

    net = network("float64")
    schedule = ReduceOnPlateau(0.01, monitor="val_share", mode="max")
    net.fit(*data(), epochs=2, learning_rate=schedule, validation_data=data(), metrics=[share])
    net.save(tmp_path / "net", state=True)
    again = lamella.load(tmp_path / "net")._plateau
    assert again is not None
    assert again == net._plateau
    assert again.best == np.float32(0.1)


@pytest.mark.parametrize("greater", [False, True])
def test_a_plateau_that_saw_nothing_comes_back(greater: bool, tmp_path: Path) -> None:
    net = network("float64")
    net._plateau = Plateau(ReduceOnPlateau(), 0.1, greater)
    net.save(tmp_path / "net", state=True)
    assert lamella.load(tmp_path / "net")._plateau == net._plateau


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_moving_average_goes_on_as_if_never_interrupted(dtype: str, tmp_path: Path) -> None:
    straight, stopped = network(dtype), network(dtype)
    settings: dict[str, Any] = {"average": 0.9, "clip_norm": 1.0, "batch_size": 16}
    straight.fit(*data(), epochs=6, **settings)
    stopped.fit(*data(), epochs=3, **settings)
    stopped.save(tmp_path / "net", state=True)
    again = lamella.load(tmp_path / "net")

    def average(net: Network) -> dict[str, bytes]:
        return {name: a.tobytes() for name, a in net.average_parameters.items()}

    assert average(again) == average(stopped)
    again.fit(*data(), epochs=3, **settings)
    assert bits(again) == bits(straight)
    assert average(again) == average(straight)
    again.save(tmp_path / "plain")
    with pytest.raises(RuntimeError, match="average_parameters"):
        lamella.load(tmp_path / "plain").average_parameters  # noqa: B018
    again.reset()
    again.save(tmp_path / "reset", state=True)
    with pytest.raises(RuntimeError, match="average_parameters"):
        lamella.load(tmp_path / "reset").average_parameters  # noqa: B018


def test_the_same_model_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        net = network()
        net.fit(*data(), epochs=1)
        net.save(tmp_path / name, state=True)
    lamella.load(tmp_path / "a").save(tmp_path / "c", state=True)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b == c


def test_the_package_safetensors_reads_it(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors")
    from safetensors.numpy import load_file

    net, path = network("float64"), tmp_path / "net.safetensors"
    net.fit(*data(), epochs=1)
    net.save(path, state=True)
    arrays = load_file(path)
    for name, array in net.parameters.items():
        assert (arrays[name] == array).all()
        assert arrays[f"state2.{name}"].shape == array.shape
    with package.safe_open(path, "np") as file:
        text = json.loads(file.metadata()["lamella"])
    assert (text["format"], text["kind"], text["counters"]["optimizer"]) == (1, "Network", "adam")


# --- the way to disk -------------------------------------------------------------------------


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net"
    network().save(path)
    before = path.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        network("float64").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "real").touch(mode=0o640)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    network().save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640
    assert bits(lamella.load(tmp_path / "link")) == bits(network())


def test_paths_that_cannot_be_are_os_errors(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nobody")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name in ("missing", "dangling", "round", "."):
        with pytest.raises(OSError, match=r".") as caught:
            lamella.load(tmp_path / name)
        assert "Traceback" not in str(caught.value)
    for name in ("nowhere/net", "."):
        with pytest.raises(OSError, match=r"."):
            network().save(tmp_path / name)
    with pytest.raises(ValueError, match="regular file"):
        lamella.load("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="regular file"):
        lamella.load(tmp_path / "pipe")
    with pytest.raises(TypeError):
        lamella.load(3)  # type: ignore[arg-type]


def test_parameters_that_are_not_finite_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network()
    broken = net.parameters
    broken["W2"][0, 3] = np.nan
    monkeypatch.setattr(Network, "parameters", broken)
    with pytest.raises(ValueError, match=r"^W2: expected finite numbers"):
        net.save(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_setting_that_is_a_function_is_not_saved(tmp_path: Path) -> None:
    net = network()
    vars(net)["seed"] = print
    with pytest.raises(TypeError, match=r"^seed: expected what a file can hold"):
        net.save(tmp_path / "net")


# --- files from anybody ----------------------------------------------------------------------


def refused(path: Path, contents: bytes, match: str = ".") -> None:
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=match):
        lamella.load(path)


def small(path: Path) -> bytes:
    """Return the bytes of a small file with state."""
    net = Network([2, 1], output="sigmoid")
    net.fit(np.eye(2), [0, 1])
    net.save(path, state=True)
    return path.read_bytes()


def test_no_part_of_a_file_is_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "net"
    whole = small(path)
    for n in range(len(whole)):
        refused(path, whole[:n])
    refused(path, whole + b"\0")
    refused(path, b"\0" + whole)


def test_a_flipped_byte_is_an_error_or_another_number(tmp_path: Path) -> None:
    path = tmp_path / "net"
    whole = small(path)
    shapes = [array.shape for array in lamella.load(path).parameters.values()]
    errors = 0
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            net = lamella.load(path)
        except ValueError:
            errors += 1
        else:
            assert [array.shape for array in net.parameters.values()] == shapes
            assert all(np.isfinite(array).all() for array in net.parameters.values())
    assert len(whole) / 2 < errors < len(whole)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 10**4, 8 << 20, (8 << 20) + 1, 2**40, 2**64 - 1])
def test_a_header_that_lies_about_its_length_is_refused(length: int, tmp_path: Path) -> None:
    whole = small(tmp_path / "net")
    refused(tmp_path / "net", struct.pack("<Q", length) + whole[8:])


def test_a_large_file_of_nothing_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.write_bytes(small(path))
    os.truncate(path, 1 << 42)
    with pytest.raises(ValueError, match="for numbers that take"):
        lamella.load(path)
    path.write_bytes(b"")
    os.truncate(path, 1 << 42)
    with pytest.raises(ValueError, match="header"):
        lamella.load(path)


HUGE = """
import resource, sys, lamella
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    lamella.load(sys.argv[1])
except (ValueError, MemoryError) as error:
    print(type(error).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "net", 1 << 36
    text = {"format": 1, "kind": "Network", "settings": {"layers": [rows, 1]}}
    entries = [("W1", "F32", [1, rows]), ("b1", "F32", [1])]
    path.write_bytes(lamella._core.file_header(entries, json.dumps(text)))
    os.truncate(path, path.stat().st_size + 4 * (rows + 1))
    command = [sys.executable, "-c", HUGE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kind, kilobytes = done.stdout.split()
    assert kind == "MemoryError"
    assert int(kilobytes) < 50_000


Change = Callable[[dict[str, Any], dict[str, Array]], object]


def rewritten(path: Path, change: Change, state: bool = True) -> None:
    """Write a file whose text and arrays were changed."""
    net = Network([2, Dense(2, "tanh"), 1], output="sigmoid")
    net.fit(np.eye(2), [0, 1], average=0.9)
    net.save(path, state=state)
    arrays, text = checkpoint.read(path)
    del text["format"]
    change(text, arrays)
    checkpoint.write(path, arrays, text)


def settings(**values: Any) -> Change:
    return lambda text, arrays: text["settings"].update(values)


def text(**values: Any) -> Change:
    return lambda text, arrays: text.update(values)


def counters(**values: Any) -> Change:
    return lambda text, arrays: text["counters"].update(values)


def plateau(**values: Any) -> Change:
    seen = {"schedule": {"type": "ReduceOnPlateau"}, "rate": 0.1, "greater_is_better": False,
            "best": "inf", "bad": 0, "cooling": 0}  # fmt: skip
    return lambda text, arrays: text.update(plateau=seen | values)


def array(name: str, value: Any) -> Change:
    return lambda text, arrays: arrays.update({name: np.asarray(value)})


def without(name: str) -> Change:
    return lambda text, arrays: arrays.pop(name)


def nested(text: dict[str, Any], arrays: object) -> None:
    value: Any = 1
    for _ in range(400):
        value = [value]
    text["settings"]["layers"] = value


WRONG: dict[str, tuple[Change, str]] = {
    "newer": (text(format=2), "format: expected at most 1.*newer"),
    "no version": (text(format="1"), "format: "),
    "version true": (text(format=True), "format: "),
    "other kind": (text(kind="Pickle"), "kind: "),
    "kind of no name": (text(kind=[]), "kind: "),
    "unknown key": (text(code="import os"), "text: .*code"),
    "no settings": (text(settings=None), "settings: "),
    "settings list": (text(settings=[1]), "settings: "),
    "unknown setting": (settings(depth=3), "settings: .*'depth'"),
    "unknown type": (settings(layers=[2, {"type": "System", "units": 2}, 1]), "layers.1.: "),
    "type of no layer": (settings(layers=[2, {"type": "Adam"}, 1]), "W1: "),
    "function's name": (settings(layers=[2, {"type": "load", "path": "x"}, 1]), "layers.1.: "),
    "unknown field": (settings(layers=[2, {"type": "Dense", "units": 2, "x": 1}, 1]), "x"),
    "object": (settings(l2={"a": 1}), "l2: "),
    "too wide": (settings(layers=[2, 2**40, 1]), "W1: expected shape"),
    "too many": (settings(layers=[2, 2, 1, 1]), "W3: "),
    "too few": (settings(layers=[2, 2]), "parameters: "),
    "negative": (settings(layers=[-2, 2, 1]), "W1: "),
    "no layers": (settings(layers=[]), "layers: "),
    "layers of text": (settings(layers="221"), "layers: "),
    "nested": (nested, "layers"),
    "activation": (settings(layers=[2, {"type": "Dense", "units": 2, "activation": "eval"}, 1]),
                   r"layers\[1\].activation: "),
    "seed": (settings(seed=1e9), "seed: "),
    "penalty": (settings(l2=float("nan")), "l2: "),
    "dtype": (settings(dtype="float64"), "W1: expected numbers of float64, got float32"),
    "no dtype": (settings(dtype="float16"), "dtype: "),
    "loss": (settings(loss="mean_squared_error"), "loss: "),
    "output": (settings(output="exec"), "output: "),
    "shape": (array("b1", np.zeros(3, "f")), "b1: expected shape"),
    "turned": (array("W2", np.zeros((2, 1), "f")), "W2: expected shape"),
    "scalar": (array("b2", np.float32(1)), "b2: expected shape"),
    "nan": (array("W1", np.array([[1, np.nan], [1, 1]], "f")), "W1: expected finite .*nan"),
    "infinity": (array("b2", np.array([np.inf], "f")), "b2: expected finite .*inf"),
    "float64 array": (array("b1", np.zeros(2)), "b1: expected numbers of float32"),
    "missing": (without("W2"), "W2: "),
    "missing bias": (without("b2"), "state1"),
    "more": (array("W3", np.zeros((1, 1), "f")), "state1"),
    "no state": (without("state2.b1"), "state2: "),
    "third state": (array("state3.b1", np.zeros(2, "f")), "state3: "),
    "state of nothing": (array("state1.W9", np.zeros(2, "f")), "state1: "),
    "state's shape": (array("state1.b1", np.zeros(3, "f")), "state1.b1: expected shape"),
    "state's nan": (array("state2.W1", np.full((2, 2), np.nan, "f")), "state2.W1: .*NaN"),
    "no counters": (lambda text, arrays: text.pop("counters"), "counters: "),
    "counters list": (text(counters=[]), "counters: "),
    "no steps": (lambda text, arrays: text["counters"].pop("steps"), "counters: steps: "),
    "steps": (counters(steps=-1), "counters: steps: "),
    "many steps": (counters(state_steps=2**64 - 1), "counters: state_steps: "),
    "too many epochs": (counters(epochs=2**90), "counters: epochs: "),
    "power": (counters(beta1_power=1.5), "counters: beta1_power: "),
    "no power": (counters(beta2_power=float("nan")), "counters: beta2_power: "),
    "optimizer": (counters(optimizer="adamant"), "counters: optimizer: "),
    "optimizer number": (counters(optimizer=3), "counters: optimizer: "),
    "no average": (without("average.b1"), "average: .*no b1"),
    "average of nothing": (array("average.W9", np.zeros(2, "f")), "average: .*also W9"),
    "average's shape": (array("average.b1", np.zeros(3, "f")), "average.b1: expected shape"),
    "average's nan": (array("average.W1", np.full((2, 2), np.nan, "f")), "average.W1: .*NaN"),
    "average's infinity": (array("average.b2", np.array([np.inf], "f")), "average.b2: .*inf"),
    "average alone": (lambda text, arrays: [
        arrays.pop(n) for n in [*arrays] if n.startswith("state")] and text.pop("counters"),
        "counters: .*average"),
    "plateau alone": (lambda text, arrays: [
        arrays.pop(n) for n in [*arrays] if n.startswith(("state", "average"))]
        and text.pop("counters") and plateau()(text, arrays), "counters: .*plateau"),
    "plateau list": (text(plateau=[]), "plateau: "),
    "plateau of nothing": (text(plateau={}), "plateau: .*no schedule"),
    "plateau of more": (plateau(code="x"), "plateau: .*also code"),
    "plateau of no schedule": (plateau(schedule=None), "plateau.schedule: "),
    "plateau of another": (plateau(schedule={"type": "Constant"}), "plateau.schedule: "),
    "plateau's rate": (plateau(rate=-1), "plateau.rate: "),
    "plateau's direction": (plateau(greater_is_better=1), "plateau.greater_is_better: "),
    "plateau's best": (plateau(best="nan"), "plateau.best: .*'nan'"),
    "plateau's best nan": (plateau(best=float("nan")), "plateau.best: .*nan"),
    "plateau's count": (plateau(bad=-1), "plateau.bad: "),
    "plateau's rest": (plateau(cooling=0.5), "plateau.cooling: "),
    "optimizer of other state": (counters(optimizer="sgd"), "state: "),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_files_that_say_wrong_things_are_refused(case: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    path = tmp_path / "net"
    rewritten(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        lamella.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "KeyError" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"{" * 10_000,
        b'{"a":' * 10_000,
        b'{"__metadata__":{"lamella":3}}',
        b'{"__metadata__":{"lamella":"' + b"[" * 100_000 + b'"}}',
        b'{"__metadata__":{"lamella":"{}"}}',
        b'{"__metadata__":{"lamella":"1e999"}}',
        b'{"__metadata__":{"lamella":"' + b"9" * 10_000 + b'"}}',
        b'{"__metadata__":{"format":"pt"}}',
        b'{"W1":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"W1":{"dtype":"F32","shape":[2,-1],"data_offsets":[0,8]}}',
        b'{"W1":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}',
        b'{"W1":{"dtype":"F32","shape":[0],"data_offsets":[8,0]}}',
        b'{"W1":{"dtype":"F32","shape":[0],"data_offsets":[9223372036854775807,9223372036854775807]}}',
        b'{"W1":{"dtype":"O","shape":[0],"data_offsets":[0,0]}}',
    ],
)
def test_headers_of_others_are_refused(header: bytes, tmp_path: Path) -> None:
    refused(tmp_path / "net", struct.pack("<Q", len(header)) + header)


def test_sizes_of_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net"
    entries = [("W1", "F32", [0, 2**62]), ("b1", "F32", [0])]
    contents = {"format": 1, "kind": "Network", "settings": {"layers": [2**62, 0]}}
    refused(path, lamella._core.file_header(entries, json.dumps(contents)))


def test_integers_and_halves_are_refused(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    contents = json.dumps({"format": 1, "kind": "Network", "settings": {"layers": [2, 1]}})
    arrays = {"W1": np.zeros((1, 2), "i4"), "b1": np.zeros(1, "f2")}
    refused(tmp_path / "net", numpy.save(arrays, metadata={"lamella": contents}), "F32 or F64")


def test_infinite_state_is_taken(tmp_path: Path) -> None:
    """A second moment may overflow in a training that goes on."""
    rewritten(tmp_path / "net", array("state2.W1", np.full((2, 2), np.inf, "f")))
    again = lamella.load(tmp_path / "net")
    assert np.isfinite(again.fit(np.eye(2), [0, 1]).loss).all()
