"""Progress bars: who sees one, when it appears, what it says.

Owns tqdm, which is imported when a bar appears and not before. Promises that training which is over
before `DELAY` shows nothing of a bar that nobody asked for, and that where nobody would see one,
finding that out is all that it costs. Leaves to the callers when there is news.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

Progress = bool | Callable[[int, float], object] | None
"""True for a bar, False for none, None for one where it is seen; or a function of the epoch, from
0, and its loss."""

DELAY = 0.5
"""Seconds before a bar appears that nobody asked for."""

TICK = 0.2
"""Seconds between two looks of a bar."""


class Bar:
    """A bar that counts up to `total`, and appears after `delay` seconds.

    Parameters
    ----------
    total : int
    unit : str
        What is counted.
    delay : float
        0 is at once. A delayed bar never appears where tqdm is not installed.

    Raises
    ------
    ModuleNotFoundError
        If it is to appear at once and tqdm is not installed.
    """

    def __init__(self, total: int, unit: str = "steps", delay: float = 0.0) -> None:
        self._began = time.monotonic()
        self._total, self._unit, self._delay = total, unit, delay
        self._made = 0
        self._tqdm: Any = None
        self._is_missing = False
        if not delay:
            self._appear()

    @property
    def patience(self) -> float:
        """Seconds until it wants news."""
        if self._tqdm is not None:
            return TICK
        return float("inf") if self._is_missing else max(self._delay - self._age, 0.0)

    def tell(self, made: int, numbers: Mapping[str, float]) -> None:
        """Count on, with the numbers to show beside."""
        self._made += made
        if self._tqdm is None and not self._is_missing and self._age >= self._delay:
            self._appear()
        if self._tqdm is not None:
            shown = {name: f"{number:.4g}" for name, number in numbers.items()}
            self._tqdm.set_postfix(shown, refresh=False)
            self._tqdm.update(self._made - self._tqdm.n)

    def close(self, *, done: bool) -> None:
        """Leave it as it is; `done` says that no more was to come, also where less was made."""
        if self._tqdm is None:
            return
        if done:
            self._tqdm.total = self._tqdm.n
        self._tqdm.close()

    @property
    def _age(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def _appear(self) -> None:
        """Make tqdm's bar, as old as this one."""
        with warnings.catch_warnings():
            if self._delay:  # tqdm's advice is for those who asked for a bar
                warnings.simplefilter("ignore")
            try:
                from tqdm.auto import tqdm
            except ModuleNotFoundError as error:
                if self._delay:
                    self._is_missing = True
                    return
                raise ModuleNotFoundError(
                    "progress: True needs tqdm, which is not installed; a function needs nothing"
                ) from error
            bar = tqdm(total=self._total, unit=f" {self._unit}", delay=self._delay)
        if self._delay:  # its clock is older, and there is news at once
            bar.start_t -= self._age
            bar.last_print_t = bar.start_t
        self._tqdm = bar


def wanted(value: Progress) -> float | Callable[[int, float], object] | None:
    """Return the seconds before a bar appears, or a function instead of one, or None.

    Raises
    ------
    TypeError
        If a user's `value` is something else.
    """
    if value is None:
        return DELAY if is_watched() else None
    if value is False:
        return None
    if value is True:
        return 0.0
    if callable(value):
        return value
    raise TypeError(f"progress: expected True, False, None or a function, got {value!r}")


def is_watched() -> bool:
    """Whether somebody sees a bar: on a terminal or in a notebook, and in no worker process."""
    try:
        is_terminal = _is_terminal(sys.stderr)
    except (AttributeError, TypeError, ValueError):  # there is none, or it is closed
        is_terminal = False
    return (is_terminal or _is_notebook()) and not _is_worker()


@lru_cache(maxsize=1)
def _is_terminal(stream: Any) -> bool:
    """Whether a stream ends at a terminal: asked once, as every fit asks."""
    return bool(stream.isatty())


def _is_worker() -> bool:
    """Whether another process has started this one to work for it."""
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    return parent is not None and parent() is not None


def _is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "ipykernel" not in sys.modules:
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())


@contextmanager
def shown(delay: float, total: int, unit: str = "steps") -> Iterator[Bar]:
    """Give a bar, and close it in the end."""
    bar = Bar(total, unit, delay)
    done = False
    try:
        yield bar
        done = True
    finally:
        bar.close(done=done)
