"""The data inside the package: what its note says is what is loaded."""

import hashlib

import numpy as np

from lamella.datasets import load_digits


def test_digits_are_those_of_the_note() -> None:
    X, y = load_digits()
    assert X.shape == (1797, 64)
    assert X.dtype == np.uint8
    assert y.shape == (1797,)
    assert y.dtype == np.uint8
    # the sums in python/lamella/datasets/digits.md
    sums = [hashlib.sha256(array.tobytes()).hexdigest() for array in (X, y)]
    assert sums == [
        "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3",
        "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0",
    ]


def test_each_call_returns_new_arrays() -> None:
    X, _ = load_digits()
    X[...] = 0
    assert load_digits()[0].max() == 16
