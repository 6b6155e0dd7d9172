"""Lamella among thread pools: what threadpoolctl needs to limit the core's threads.

Owns the controller that threadpoolctl asks, and when that hears of it: once both packages are
imported, in whatever order. Leaves the limit itself to the core (`rust/threads.rs`), which exports
it by name for this purpose.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from copy import copy
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

__all__ = ["register"]


def register() -> None:
    """Let `threadpoolctl.threadpool_limits` bound the threads of calls with `threads=None`.

    The limit holds for the whole process while it is in force, for calls that begin in that time.
    An explicit `threads` goes before it.

    Raises
    ------
    ModuleNotFoundError
        If threadpoolctl is not installed.
    """
    import threadpoolctl

    if _registered_with(threadpoolctl):
        return

    class Controller(threadpoolctl.LibController):  # type: ignore[misc]
        """The core's shared library, known by what it exports."""

        user_api = "lamella"
        internal_api = "lamella"
        filename_prefixes = ("_core",)
        check_symbols = ("lamella_get_num_threads", "lamella_set_num_threads")

        def get_num_threads(self) -> int:
            """Return the most threads that a call takes of its own accord."""
            return int(self.dynlib.lamella_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            """Bound the threads of calls from now on."""
            self.dynlib.lamella_set_num_threads(num_threads)

        def get_version(self) -> str:
            """Return the package's version."""
            from . import _core

            return _core.__version__

    threadpoolctl.register(Controller)
    _controllers.append(Controller)


_controllers: list[type] = []
"""What was registered: with threadpoolctl as it was imported then."""


def _registered_with(module: ModuleType) -> bool:
    return any(issubclass(controller, module.LibController) for controller in _controllers)


def _register_if_possible() -> None:
    # Another package's import must not fail for this: before 3.2 (2023) it takes no controllers.
    with suppress(Exception):
        register()


class _Registering:
    """A loader that registers behind another one's work, and is that one in all else."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # while it is copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module as if this were not here."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _Importing)]
        _register_if_possible()


class _Importing:
    """Finds threadpoolctl where the other finders do, with a loader that registers."""

    asks = False  # the other finders

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the other finders' spec of threadpoolctl, and nothing of other modules."""
        if name != "threadpoolctl" or self.asks:
            return None
        from importlib.util import find_spec

        self.asks = True
        try:
            spec = find_spec(name)
        finally:
            self.asks = False
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec = copy(spec)
            spec.loader = cast("Loader", _Registering(spec.loader))
        return spec


def register_when_imported() -> None:
    """Call `register` now if threadpoolctl is imported, else when it will be."""
    if "threadpoolctl" in sys.modules:
        _register_if_possible()
    elif not any(isinstance(finder, _Importing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Importing())
