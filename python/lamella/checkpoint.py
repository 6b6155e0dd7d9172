"""Models in files: tensors in the safetensors format, and beside them a text in JSON.

Owns what a file says and the way it gets to disk. Promises that nothing in a file is run (there
is no pickle inside), that a file which is damaged, hostile or of a newer version is a
`ValueError` before a network is built, that the same model makes the same bytes, and that
a file on disk is the old one or a whole new one, never half of one. Leaves the header to the
core (`rust/train/checkpoint.rs`), and what settings may be to the constructors that check them.

The tensors are `W1, b1, W2, ...`, the running statistics `mean1, variance1, ...` of batch
normalisation, and, where a training is to go on, `state1.W1, ...`: the optimizer's state, and
`average.W1, ...`: the moving average of the parameters, if one is kept, both shaped as the
parameters. The text is one JSON object:

- `"format"`: the version of this, a number;
- `"kind"`: what was kept, such as `"Network"`;
- `"settings"`: the arguments of its constructor, objects as `{"type": name, field: value}`;
- `"counters"`: how far the training has come, where it is to go on;
- `"plateau"`: what a schedule that reduces on a plateau has seen in it, if there is one;
- `"extra"`: whatever else the writer keeps there.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from . import _core, checks, matrices
from .checks import Array
from .layers import Dense, statistic_names
from .schedules import ReduceOnPlateau
from .timing import Plateau

if TYPE_CHECKING:
    from .network import Network

__all__ = ["FORMAT", "decoded", "encoded", "load", "load_extra", "read", "save", "write"]

FORMAT = 1
"""The version of the text. A reader takes this one and the ones before it."""

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
"""The format's names of the dtypes that are kept."""

AVERAGE = "average."
"""What the names of the moving average's arrays begin with."""

KEYS = {"format", "kind", "settings", "counters", "plateau", "extra"}
LENGTH_BYTES = 8
LONGEST_HEADER = 8 << 20
"""More is not read: the core refuses it."""

LARGE = 64 << 20
"""Bytes from which it is looked whether the memory suffices."""

PathLike = str | os.PathLike[str]
Model = TypeVar("Model", bound="Network")


# --- networks --------------------------------------------------------------------------------


def save(
    network: Network, path: PathLike, *, state: bool = False, extra: Mapping[str, Any] | None = None
) -> None:
    """Write a network to a file; see `Network.save`.

    Parameters
    ----------
    network : Network
    path : str or path
    state : bool
        Whether what the training goes on from is kept too: the optimizer's state, the moving
        average, the counters, and what a schedule has seen.
    extra : dict, optional
        Of what JSON knows; kept beside the network for `load_extra`.

    Raises
    ------
    ValueError
        If a parameter is not finite.
    TypeError
        If a setting is a function or another object that no file can hold.
    OSError
        If the file cannot be written.
    """
    parameters = network.parameters
    for name, array in parameters.items():
        matrices.finite(name, array)
    arrays = parameters | network.statistics
    text: dict[str, Any] = {"kind": "Network", "settings": settings(network)}
    if checks.flag("state", state):
        counters, states = network._net.get_state()
        text["counters"] = counters
        if network._plateau is not None:
            text["plateau"] = _plateau_text(network._plateau)
        for n, kept in enumerate(states, start=1):
            names = [f"state{n}.{name}" for name in parameters]
            arrays.update(zip(names, kept, strict=True))
        if (average := network._net.get_average()) is not None:
            arrays.update(zip([f"{AVERAGE}{name}" for name in parameters], average, strict=True))
    if extra is not None:
        text["extra"] = dict(extra)
    write(path, arrays, text)


def load(path: PathLike, kind: type[Model]) -> Model:
    """Read a network from a file; see `Network.load`."""
    return load_extra(path, kind)[0]


def load_extra(path: PathLike, kind: type[Model]) -> tuple[Model, dict[str, Any]]:
    """Read a network of class `kind` from a file, and what else its writer kept there.

    Raises
    ------
    ValueError
        If the file does not hold a network that this version can build.
    MemoryError
        If the network exceeds the available memory.
    OSError
        If the file cannot be read.
    """
    arrays, text = read(path)
    with told_of(path):
        if text["kind"] != "Network":
            raise checks.wrong("kind", "'Network'", repr(text["kind"]))
        chosen = an_object("settings", text.get("settings"))
        known = list(inspect.signature(kind).parameters)
        for name in chosen:
            if name not in known:
                raise checks.wrong("settings", f"names among {', '.join(known)}", repr(name))
        arguments = {name: decoded(name, value) for name, value in chosen.items()}
        check_sizes(arguments.get("layers"), arrays)
        arguments["layers"] = _started(arguments["layers"], arrays)
        network = kind(**arguments)
        check_dtypes(arrays, network)
        names = statistic_names(network.layers)
        statistics = {name: arrays.pop(name) for name in names if name in arrays}
        average = take_average(arrays)
        states = take_states(arrays)
        network.parameters = arrays
        network.statistics = statistics
        _resume(network, text, states, average)
        return network, an_object("extra", text.get("extra", {}))


def settings(network: Network) -> dict[str, Any]:
    """Return the constructor's arguments that make this network, as `encoded` values.

    Taken from the constructor's signature: an argument is kept if an attribute has its name. (The
    others, such as `hidden`, are filled into the layers.)
    """
    own: dict[str, Any] = {
        "layers": (network.n_features, *network.layers),
        "loss": network.criterion,
        "dtype": network.precision,
    }
    for name in inspect.signature(type(network)).parameters:
        if name not in own and hasattr(network, name):
            own[name] = getattr(network, name)
    return {name: encoded(name, value) for name, value in own.items()}


def check_sizes(layers: object, arrays: Mapping[str, Array]) -> None:
    """Refuse layers that the file has no weights for, before memory is taken for them."""
    if not isinstance(layers, tuple) or len(layers) < 2:
        raise checks.wrong("layers", "the number of features and the layers", repr(layers))
    sizes = [getattr(layer, "units", layer) for layer in layers]
    for n, (units, inputs) in enumerate(zip(sizes[1:], sizes[:-1], strict=True), start=1):
        array = arrays.get(f"W{n}")
        if array is None:
            raise checks.wrong(f"W{n}", f"weights of {len(layers) - 1} layers", "none")
        if array.shape != (units, inputs):
            raise checks.wrong(f"W{n}", f"shape ({units}, {inputs})", array.shape)


def _started(layers: tuple[Any, ...], arrays: Mapping[str, Array]) -> tuple[Any, ...]:
    """Give layers whose weights were given in the beginning those of the file."""
    return tuple(
        dataclasses.replace(layer, init=arrays[f"W{n}"])
        if isinstance(layer, Dense) and layer.init == "given"
        else layer
        for n, layer in enumerate(layers)
    )


def check_dtypes(arrays: Mapping[str, Array], network: Network) -> None:
    """Refuse numbers of another dtype than the network's, which would be rounded."""
    for name, array in arrays.items():
        if array.dtype != network.dtype:
            raise checks.wrong(name, f"numbers of {network.dtype}", array.dtype)


def take_average(arrays: dict[str, Array]) -> dict[str, Array]:
    """Take the moving average, if there is one, out of a file's arrays: W1, b1, W2, ..."""
    names = [name for name in arrays if name.startswith(AVERAGE)]
    return {name.removeprefix(AVERAGE): arrays.pop(name) for name in names}


def take_states(arrays: dict[str, Array]) -> list[list[Array]]:
    """Take the optimizer's state out of a file's arrays: of each state, those of W1, b1, W2, ..."""
    found: dict[int, dict[str, Array]] = {}
    for name in list(arrays):
        if place := re.fullmatch(r"state([1-9])\.(.+)", name):
            found.setdefault(int(place[1]), {})[place[2]] = arrays.pop(name)
    states = []
    for n in range(1, len(found) + 1):
        state = found.get(n)
        if state is None or set(state) != set(arrays):
            raise checks.wrong(f"state{n}", "one array for each parameter", "others")
        states.append([state[name] for name in arrays])
    return states


def _resume(
    network: Network,
    text: Mapping[str, Any],
    states: list[list[Array]],
    average: dict[str, Array],
) -> None:
    """Give a network what its training goes on from, if the file has it."""
    counters = text.get("counters")
    if counters is None:
        beside = {
            "the optimizer's state": states,
            "an average": average,
            "a plateau": text.get("plateau"),
        }
        if kinds := [kind for kind, kept in beside.items() if kept]:
            raise checks.wrong("counters", f"them beside {kinds[0]}", "none")
        return
    network._net.set_state(an_object("counters", counters), states)
    if average:
        checks.keys("average", average, network._names)
        network._net.set_average([average[name] for name in network._names])
    if "plateau" in text:
        network._plateau = _plateau(text["plateau"])


def _plateau_text(plateau: Plateau) -> dict[str, Any]:
    """Return what a plateau has seen, as JSON knows it."""
    names = [field.name for field in dataclasses.fields(plateau)]
    seen = {name: encoded(f"plateau.{name}", getattr(plateau, name)) for name in names}
    return seen if np.isfinite(plateau.best) else seen | {"best": str(seen["best"])}


def _plateau(value: object) -> Plateau:
    """Return the plateau that `_plateau_text` made of."""
    seen = an_object("plateau", value)
    checks.keys("plateau", seen, [field.name for field in dataclasses.fields(Plateau)])
    schedule = decoded("plateau.schedule", seen["schedule"])
    if not isinstance(schedule, ReduceOnPlateau):
        raise checks.wrong("plateau.schedule", "a ReduceOnPlateau", repr(seen["schedule"]))
    plateau = Plateau(
        schedule,
        checks.number("plateau.rate", seen["rate"]),
        checks.flag("plateau.greater_is_better", seen["greater_is_better"]),
    )
    plateau.best = _any_number("plateau.best", seen["best"])
    plateau.bad = checks.integer("plateau.bad", seen["bad"])
    plateau.cooling = checks.integer("plateau.cooling", seen["cooling"])
    return plateau


def _any_number(name: str, value: object) -> float:
    """Return a number, which may be negative, or "inf" or "-inf", which JSON has no number for."""
    if value in ("inf", "-inf"):
        return float(str(value))
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise checks.wrong(name, "a number, 'inf' or '-inf'", repr(value))
    return float(value)


# --- values in JSON --------------------------------------------------------------------------


def encoded(name: str, value: object) -> Any:
    """Return a setting as JSON knows it: plain values, lists, objects by the name of their type.

    Raises
    ------
    TypeError
        For what cannot be kept, such as a function, naming the setting.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [encoded(f"{name}[{i}]", part) for i, part in enumerate(value)]
    kind = type(value)
    if dataclasses.is_dataclass(value) and _types().get(kind.__name__) is kind:
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        parts = {field: encoded(f"{name}.{field}", getattr(value, field)) for field in fields}
        return {"type": kind.__name__, **parts}
    raise TypeError(f"{name}: expected what a file can hold, got {value!r}")


def decoded(name: str, value: Any) -> Any:
    """Return the setting that `encoded` made of; lists come back as tuples.

    Raises
    ------
    TypeError, ValueError
        For a type that is not one of the package's settings, and for fields that it refuses.
    """
    if isinstance(value, list):
        return tuple(decoded(f"{name}[{i}]", part) for i, part in enumerate(value))
    if not isinstance(value, dict):
        return value
    fields = dict(value)
    kind = _types().get(str(fields.pop("type", None)))
    if kind is None:
        raise checks.wrong(name, "one of lamella's types", repr(value.get("type")))
    return kind(**{field: decoded(f"{name}.{field}", part) for field, part in fields.items()})


def _types() -> dict[str, type[Any]]:
    """Return the types that settings may have: the package's public dataclasses, by name."""
    import lamella
    from lamella import schedules

    public = {name: getattr(lamella, name) for name in lamella.__all__}
    public |= {name: getattr(schedules, name) for name in schedules.__all__}
    return {
        name: kind
        for name, kind in public.items()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }


def an_object(name: str, value: object) -> dict[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise checks.wrong(name, "an object", repr(value))
    return value


# --- files -----------------------------------------------------------------------------------


def write(path: PathLike, arrays: Mapping[str, Array], text: Mapping[str, Any]) -> None:
    """Write arrays (float32 or float64, any shape) and a text to a file, whole or not at all.

    The file appears under its name when it is complete and on disk; a symbolic link stays one, and
    a file that was there keeps its permissions.

    Parameters
    ----------
    path : str or path
    arrays : dict of ndarray
    text : dict
        Of what JSON knows, with `"kind"` and, if wanted, the other keys of this module's list.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    plain = {
        name: np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        for name, array in arrays.items()
    }
    entries = [(name, names[array.dtype], list(array.shape)) for name, array in plain.items()]
    header = _core.file_header(entries, json.dumps({"format": FORMAT, **text}))
    with replacing(Path(checks.path(path)).resolve()) as file:
        file.write(header)
        for array in plain.values():
            if array.size:
                file.write(array.reshape(-1).view(np.uint8).data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a new file beside `path` to write to, and put it in its place once it is whole."""
    if path.is_dir():
        raise IsADirectoryError(21, os.strerror(21), str(path))
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    new = path.with_name(f".{path.name[:64]}.{os.urandom(8).hex()}.tmp")
    try:
        made = open(new, "xb")  # noqa: SIM115 - closed below
    except OSError as error:  # of the file that was asked for
        raise type(error)(error.errno, error.strerror, str(path)) from None
    try:
        with made as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            new.chmod(mode)
        new.replace(path)
    except BaseException:  # Ctrl-C too
        new.unlink(missing_ok=True)
        raise


def read(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the arrays of a file in their order, and its text with `"format"` and `"kind"`.

    Raises
    ------
    ValueError
        If this is not a whole file that some version of Lamella wrote, up to this one.
    MemoryError
        If its arrays exceed the available memory.
    OSError
        If the file cannot be read.
    """
    with told_of(path):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise checks.wrong("file", "a regular file", "a device or a pipe")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(LENGTH_BYTES)
            head += file.read(min(int.from_bytes(head, "little"), LONGEST_HEADER))
            entries, text = _core.parse_file(head, size)
            contents = _text(text)
            for name, dtype, _, _, _ in entries:
                if dtype not in DTYPES:
                    raise checks.wrong(name, f"numbers of {' or '.join(DTYPES)}", dtype)
            if size > LARGE:
                checks.memory("file", size)
            arrays = {
                name: _numbers(file, name, DTYPES[dtype], tuple(shape), begin)
                for name, dtype, shape, begin, _ in entries
            }
    return arrays, contents


def _numbers(
    file: BinaryIO, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], begin: int
) -> Array:
    """Read one array; its size is what the header's checked places leave for it."""
    array = np.empty(shape, dtype)
    if array.size:
        file.seek(begin)
        numbers = array.reshape(-1).view(np.uint8).data
        if file.readinto(numbers) != array.nbytes:  # type: ignore[attr-defined]
            raise checks.wrong(name, f"{array.nbytes} bytes", "an end of the file before them")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _text(text: str | None) -> dict[str, Any]:
    """Return a file's text, checked as far as every kind of model has it in common."""
    if text is None:
        raise checks.wrong("file", "one that Lamella wrote", "other tensors")
    contents = an_object("text", json.loads(text))
    version = contents.get("format")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise checks.wrong("format", "the number of a version", repr(version))
    if version > FORMAT:
        raise checks.wrong("format", f"at most {FORMAT} (a newer lamella reads more)", version)
    if unknown := set(contents) - KEYS:
        raise checks.wrong("text", f"keys among {', '.join(sorted(KEYS))}", sorted(unknown))
    if not isinstance(contents.get("kind"), str):
        raise checks.wrong("kind", "a name", repr(contents.get("kind")))
    return contents


@contextmanager
def told_of(path: PathLike) -> Iterator[None]:
    """Name the file in the error of what it says, always a `ValueError`."""
    name = checks.path(path)
    try:
        yield
    except RecursionError:
        raise ValueError(f"{name}: expected settings, got objects nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        told = str(error).startswith(f"{name}: ")
        raise ValueError(str(error) if told else f"{name}: {error}") from error
