"""Lamella among thread pools: what threadpoolctl needs to limit the core's threads.

Owns the controller that threadpoolctl asks, and when that hears of it: once both packages are
imported, in whatever order. Leaves the limit itself to the core (`rust/threads.rs`), which exports
it by name for this purpose.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["register"]


@cache
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


def _register_with(module: ModuleType) -> None:
    # Before threadpoolctl 3.2 (2023) nobody could register.
    if hasattr(module, "register"):
        register()


class _Importing:
    """Sees threadpoolctl being imported, and registers behind it."""

    asks = False  # the other finders

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec that the other finders have for threadpoolctl."""
        if name != "threadpoolctl" or self.asks:
            return None
        from importlib.util import find_spec

        self.asks = True
        try:
            spec = find_spec(name)
        finally:
            self.asks = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _register_with(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_when_imported() -> None:
    """Call `register` now if threadpoolctl is imported, else when it will be."""
    if "threadpoolctl" in sys.modules:
        _register_with(sys.modules["threadpoolctl"])
    elif not any(isinstance(finder, _Importing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Importing())
