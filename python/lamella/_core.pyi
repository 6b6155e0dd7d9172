"""The compiled core: plain arrays in and out. The modules beside it are the public interface.

Samples x features unless a function says otherwise. Arrays may have any strides; X any real
numeric dtype, or be compressed sparse rows. Errors: ValueError, TypeError, MemoryError;
DivergenceError where training left the finite numbers; RuntimeError for a defect in the core.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DivergenceError",
    "Network",
    "__version__",
    "backward",
    "check_memory",
    "elementwise",
    "file_header",
    "fit_many",
    "forward",
    "info",
    "measure",
    "parse_file",
    "softmax",
]

__version__: str

class DivergenceError(ArithmeticError): ...

def info() -> dict[str, Any]: ...
def check_memory(bytes: int) -> None: ...
def measure(what: str, threads: int, seconds: float) -> float: ...
def file_header(tensors: Sequence[tuple[str, str, Sequence[int]]], text: str) -> bytes: ...
def parse_file(
    head: bytes, size: int
) -> tuple[list[tuple[str, str, list[int], int, int]], str | None]: ...
def elementwise(name: str, Z: NDArray[Any]) -> NDArray[Any]: ...
def softmax(Z: NDArray[Any]) -> NDArray[Any]: ...
def forward(
    X: NDArray[Any],
    weights: Sequence[NDArray[Any]],
    biases: Sequence[NDArray[Any]],
    hidden: str,
    output: str,
) -> list[tuple[NDArray[Any], NDArray[Any]]]: ...
def backward(
    dZL: NDArray[Any],
    A_prevs: Sequence[NDArray[Any]],
    weights: Sequence[NDArray[Any]],
    Zs: Sequence[NDArray[Any]],
    hidden: str,
) -> list[NDArray[Any]]: ...
def fit_many(
    tasks: Sequence[tuple[Network, Mapping[str, Any], int, int | None, int | None]],
    X: NDArray[Any] | _CSR,
    targets: Sequence[NDArray[Any]],
    selections: Sequence[NDArray[np.uint32]],
    *,
    keep_state: bool,
    threads: int | None,
    report: Callable[
        [
            int,
            float,
            NDArray[np.float64] | None,
            Exception | None,
            float | None,
            NDArray[Any] | None,
        ],
        object,
    ],
) -> None: ...

class _CSR(Protocol):
    shape: tuple[int, int]
    data: NDArray[Any]
    indices: NDArray[Any]
    indptr: NDArray[Any]

_Asked = Callable[
    [NDArray[Any], Any], tuple[float | None, NDArray[np.float64] | None, NDArray[Any]]
]

@final
class Network:
    def __new__(
        cls,
        n_features: int,
        layers: Sequence[
            tuple[int, str, float, bool, tuple[str, float, float] | None, float, bool]
        ],
        loss: tuple[str, Sequence[float]],
        dtype: str,
    ) -> Network: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def n_bytes(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def position(self) -> tuple[int, float, float, float]: ...
    def set_parameters(self, arrays: Sequence[NDArray[Any]]) -> None: ...
    def get_parameters(self) -> list[NDArray[Any]]: ...
    def set_max_norms(self, limits: Sequence[float | None]) -> None: ...
    def get_average(self) -> list[NDArray[Any]] | None: ...
    def set_average(self, arrays: Sequence[NDArray[Any]]) -> None: ...
    def take_gradient_norms(self) -> list[float]: ...
    def get_statistics(self) -> list[NDArray[Any]]: ...
    def set_statistics(self, arrays: Sequence[NDArray[Any]]) -> None: ...
    def reset(self) -> None: ...
    def get_state(self) -> tuple[dict[str, Any], list[list[NDArray[Any]]]]: ...
    def set_state(
        self, counters: Mapping[str, Any], states: Sequence[Sequence[NDArray[Any]]]
    ) -> None: ...
    def penalty(self, penalty: tuple[float, float, bool]) -> float: ...
    def fit(
        self,
        X: NDArray[Any] | _CSR,
        Y: NDArray[Any],
        *,
        epochs: int,
        batch_size: int | None,
        optimizer: tuple[str, Mapping[str, float]],
        penalty: tuple[float, float, bool],
        clip_value: float | None,
        loss_scale: float,
        loss: _Asked | None,
        weights: NDArray[np.float64] | None,
        shuffle: bool,
        seed: int,
        threads: int | None,
        report: Callable[[int, float], object] | None,
        report_every: int,
        begin: tuple[int, float, float] = ...,
        checked: bool = False,
        steps: int | None = None,
        seconds: float | None = None,
        rates: NDArray[np.float64] | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
    ) -> NDArray[np.float64]: ...
    def partial_fit(
        self,
        X: NDArray[Any] | _CSR,
        Y: NDArray[Any],
        *,
        optimizer: tuple[str, Mapping[str, float]],
        penalty: tuple[float, float, bool],
        loss_scale: float,
        loss: _Asked | None,
        weights: NDArray[np.float64] | None,
        seed: int,
        threads: int | None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
    ) -> float: ...
    def drawn_epochs(
        self,
        X: NDArray[Any] | _CSR,
        Y: NDArray[Any],
        order: NDArray[np.int64],
        turn: Callable[[float], tuple[NDArray[np.int64], float] | None] | None = None,
        *,
        epochs: int = 1,
        batch_size: int,
        optimizer: tuple[str, Mapping[str, float]],
        alpha: float,
        loss_scale: float,
        gradient_scale: float,
        weights: NDArray[np.float64] | None,
        threads: int | None,
    ) -> float: ...
    def objective(
        self,
        X: NDArray[Any] | _CSR,
        Y: NDArray[Any],
        *,
        alpha: float,
        loss_scale: float,
        gradient_scale: float,
        weights: NDArray[np.float64] | None,
        threads: int | None,
    ) -> tuple[float, list[NDArray[Any]]]: ...
    def takes(self, X: object, Y: object = None) -> bool: ...
    def input_gradients(
        self, X: NDArray[Any] | _CSR, deltas: NDArray[Any], count: int, *, threads: int | None
    ) -> NDArray[Any]: ...
    def activations(self, X: NDArray[Any] | _CSR) -> list[NDArray[Any]]: ...
    def activations_in_training(self, X: NDArray[Any] | _CSR, seed: int) -> list[NDArray[Any]]: ...
    def labels(self, X: NDArray[Any] | _CSR, *, threads: int | None) -> NDArray[np.int64]: ...
    def outputs(
        self, X: NDArray[Any] | _CSR, *, logits: bool, threads: int | None
    ) -> NDArray[Any]: ...
    def evaluate(
        self,
        X: NDArray[Any] | _CSR,
        Y: NDArray[Any],
        *,
        loss_scale: float,
        penalty: tuple[float, float, bool],
        weights: NDArray[np.float64] | None,
        threads: int | None,
    ) -> tuple[float, NDArray[Any]]: ...
    def loss_and_gradients(
        self,
        X: NDArray[Any] | _CSR,
        Y: NDArray[Any],
        *,
        loss_scale: float,
        penalty: tuple[float, float, bool],
        loss: _Asked | None,
        weights: NDArray[np.float64] | None,
        seed: int,
        threads: int | None,
    ) -> tuple[float, list[NDArray[Any]]]: ...
