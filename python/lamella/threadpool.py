"""Lamella among thread pools: what threadpoolctl needs to limit the core's threads.

Owns the controller that threadpoolctl asks; importing the package registers it where threadpoolctl
was imported before, else call `register`. Leaves the limit itself to the core
(`rust/threads.rs`), which exports it by name for this purpose.
"""

from __future__ import annotations

from functools import cache

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
