"""Files that a command will write in the end: whether that can work, asked before the work.

Promises that nothing is written and nothing that exists is touched. What changes meanwhile, a full
disk among it, is told when it happens.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["check_file", "check_picture"]


def check_file(path: Path, *, replaces: bool = False) -> None:
    """Refuse a path that no file can be written to.

    Parameters
    ----------
    path : path
    replaces : bool
        Whether a new file takes the place of one that is there, which needs its directory.

    Raises
    ------
    OSError
        If it is a directory, or its own directory is not there or not to be written to.
    """
    parent = path.resolve().parent
    if path.is_dir():
        number = errno.EISDIR
    elif not parent.exists():
        number = errno.ENOENT
    elif not parent.is_dir():
        number = errno.ENOTDIR
    elif os.access(parent if replaces or not path.exists() else path, os.W_OK):
        return
    else:
        number = errno.EACCES
    raise OSError(number, os.strerror(number), str(path))


def check_picture(path: Path) -> None:
    """Refuse a path that no picture can be written to, where matplotlib is there to draw one.

    Raises
    ------
    OSError
        As `check_file`.
    ValueError
        If its suffix is no kind of picture.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError:
        return
    check_file(path)
    kinds = FigureCanvasBase.get_supported_filetypes()
    suffix = path.suffix.lower().removeprefix(".")
    if suffix and suffix not in kinds:
        got = f"{path.suffix} of {path}"
        raise ValueError(f"--plot: expected a suffix among {', '.join(sorted(kinds))}, got {got}")
