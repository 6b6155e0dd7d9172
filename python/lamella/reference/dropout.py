"""Dropout's masks, from a counter: who is dropped depends on seed, step, layer, unit and sample."""

from __future__ import annotations

import numpy as np

from ..checks import Array

_MASK = np.uint64(0xFFFFFFFF)


def mask(share: float, seed: int, step: int, layer: int, units: int, m: int) -> Array:
    """Return what A (units, m) is multiplied by: 0, or 1 / (1 - share) where it is kept.

    Unit j of the batch's sample i is dropped where word `i mod 4` of Philox 4x32-10 (Salmon,
    Moraes, Dror, Shaw, 2011) with the seed as key and counter `[i // 4, j, layer, step]` is
    below `share * 2^32`. Steps count from 1, layers from 0.
    """
    groups = -(-m // 4)
    counter = [
        np.broadcast_to(np.arange(groups, dtype=np.uint64), (units, groups)),
        np.broadcast_to(np.arange(units, dtype=np.uint64)[:, None], (units, groups)),
        np.full((units, groups), (layer ^ (step >> 32) << 16) & 0xFFFFFFFF, np.uint64),
        np.full((units, groups), step & 0xFFFFFFFF, np.uint64),
    ]
    words = np.stack(philox(counter, [seed & 0xFFFFFFFF, seed >> 32]), axis=2)
    kept = words.reshape(units, 4 * groups)[:, :m] >= min(round(share * 2**32), 2**32 - 1)
    factor: Array = kept / (1 - share)
    return factor


def philox(counter: list[Array], key: list[int]) -> list[Array]:
    """Return the ten rounds of Philox 4x32 on arrays of counters, uint64 that hold 32 bits."""
    c0, c1, c2, c3 = counter
    for number in range(10):
        k0 = np.uint64((key[0] + number * 0x9E3779B9) & 0xFFFFFFFF)
        k1 = np.uint64((key[1] + number * 0xBB67AE85) & 0xFFFFFFFF)
        first, second = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        high = np.uint64(32)
        c0, c1, c2, c3 = (
            second >> high ^ c1 ^ k0,
            second & _MASK,
            first >> high ^ c3 ^ k1,
            first & _MASK,
        )
    return [c0, c1, c2, c3]
