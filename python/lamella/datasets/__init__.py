"""Real data that ships inside the package, for the demo, the tests and first steps.

Owns the files beside it and says where they come from (``digits.md``). A loader opens no
network connection and returns new arrays, which the caller may change.
"""

from importlib import resources

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_digits"]


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the UCI handwritten digits: 1,797 images of 8 x 8 pixels.

    Returns
    -------
    X : ndarray of uint8, shape (1797, 64)
        One image a row, its pixels row by row; 0 is paper, 16 is ink.
    y : ndarray of uint8, shape (1797,)
        The digit that each image shows, 0 to 9.

    Notes
    -----
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, doi:10.24432/C50P49; CC BY 4.0. These rows are its test part.
    """
    file = resources.files(__name__).joinpath("digits.npz")
    with file.open("rb") as stream, np.load(stream) as arrays:
        return arrays["X"], arrays["y"]
