"""Tables of stain normalisation: linear maps of optical density as sums of integers, and grey levels of the result.

A pixel has 256 possible values a channel, so every linear function of its optical density is a sum of three looked-up
numbers; and a grey level is one of 256, so `exp` is a table over finely rounded optical density. The loops over pixels
that look up are in `stain_kernels`.
"""

from functools import lru_cache

import numpy as np
from numba import njit

STEPS = 4096  # steps of the exponential's table per unit of optical density: 3 roundings cost 0.1 grey level at most
REACH = 32  # the table covers optical densities of -REACH to REACH
FIELD = 21  # bits a channel takes in a packed sum


@lru_cache(maxsize=8)
def exponential_table(intensity: float, truncate: bool) -> np.ndarray:
    """Return the grey level, uint8 [2 REACH STEPS], of the optical density (index - REACH STEPS) / STEPS."""
    density = np.arange(-REACH * STEPS, REACH * STEPS) / STEPS
    grey = intensity * np.exp(-density)
    return np.clip(np.floor(grey) if truncate else np.rint(grey), 0, 255).astype(np.uint8)


def packed_tables(density: np.ndarray, matrix: np.ndarray, constant: np.ndarray | None = None) -> np.ndarray | None:
    """Pack linear maps of optical density into one integer a channel and value.

    Parameters
    ----------
    density
        float64 [256], optical density of each grey level.
    matrix
        float64 [..., 3, 3], output optical density = matrix @ input optical density + constant.
    constant
        float64 [..., 3], if any.

    Returns
    -------
    numpy.ndarray or None
        uint64 [..., 3, 256]; the sum of three entries holds the three table indices. None where a sum could leave the
        exponential's table (a map too steep for this short cut).
    """
    maps = np.ascontiguousarray(matrix, np.float64).reshape(-1, 3, 3)
    added = np.zeros((len(maps), 3)) if constant is None else np.ascontiguousarray(constant, np.float64).reshape(-1, 3)
    packed = np.empty((len(maps), 3, 256), np.uint64)
    return packed.reshape(*matrix.shape[:-2], 3, 256) if _pack(density, maps, added, packed) else None


@njit(cache=True, nogil=True)
def _pack(density, maps, added, packed):
    """Fill `packed` as `packed_tables` says; return whether every sum stays in the table."""
    offset = np.empty(3)
    terms = np.empty((3, 256))
    packed[:] = 0
    for m in range(len(maps)):
        for k in range(3):
            lowest = highest = 0.0
            for c in range(3):
                for value in range(256):
                    term = maps[m, k, c] * density[value]
                    terms[c, value] = term + added[m, k] if c == 0 else term
                lowest += terms[c].min()
                highest += terms[c].max()
                # Each term gets its own offset: entries are non-negative and no channel borrows from its neighbour.
                offset[c] = np.ceil(-terms[c].min() * STEPS) + 1
            if not (lowest > 1 - REACH and highest < REACH - 1):  # nor where one is not a number
                return False
            offset[2] = REACH * STEPS - offset[0] - offset[1]
            for c in range(3):
                for value in range(256):
                    entry = np.rint(terms[c, value] * STEPS) + offset[c]
                    if entry < 0:
                        return False
                    packed[m, c, value] |= np.uint64(entry) << np.uint64(k * FIELD)
    return True


def packed_signs(free: np.ndarray) -> np.ndarray | None:
    """Pack the tables of both stains' unconstrained amounts (float64 [3, 256, 2]) into one integer a channel and value.

    Returns
    -------
    numpy.ndarray or None
        uint64 [3, 256]; in the sum of three entries bit 30 is set where the first amount is not negative, bit 62 where
        the second is not. None where a sum could leave the 31 bits of a field.
    """
    packed = np.zeros((3, 256), np.uint64)
    return packed if _pack_signs(free, packed) else None


@njit(cache=True, nogil=True)
def _pack_signs(free, packed):
    steps = 2**30 // REACH
    for stain in range(2):
        offset = np.empty(3)
        lowest = highest = 0.0
        for c in range(3):
            lowest += free[c, :, stain].min()
            highest += free[c, :, stain].max()
            offset[c] = np.ceil(-free[c, :, stain].min() * steps) + 1  # no field borrows from the other
        if not (lowest > 1 - REACH and highest < REACH - 1):
            return False
        offset[2] = 2**30 - offset[0] - offset[1]
        for c in range(3):
            for value in range(256):
                entry = np.rint(free[c, value, stain] * steps) + offset[c]
                if entry < 0:
                    return False
                packed[c, value] |= np.uint64(entry) << np.uint64(32 * stain)
    return True
