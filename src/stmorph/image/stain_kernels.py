"""Compiled per-pixel loops of stain normalisation: tables and integer sums instead of logarithms and exponentials.

A pixel has 256 possible values a channel, so every linear function of its optical density is a sum of three looked-up
numbers; and a grey level is one of 256, so `exp` is a table over finely rounded optical density. All loops treat pixels
independently and in order: results depend neither on chunks nor on threads. All release the GIL.
"""

from functools import lru_cache

import numpy as np
from numba import njit

STEPS = 4096  # steps of the exponential's table per unit of optical density: 3 roundings cost 0.1 grey level at most
REACH = 32  # the table covers optical densities of -REACH to REACH
FIELD = 21  # bits a channel takes in a packed sum
_MASK = np.uint64((1 << FIELD) - 1)
_BINS = 4096


@lru_cache(maxsize=8)
def exponential_table(intensity: float, truncate: bool) -> np.ndarray:
    """Return the grey level, uint8 [2 REACH STEPS], of the optical density (index - REACH STEPS) / STEPS."""
    density = np.arange(-REACH * STEPS, REACH * STEPS) / STEPS
    grey = intensity * np.exp(-density)
    return np.clip(np.floor(grey) if truncate else np.rint(grey), 0, 255).astype(np.uint8)


def packed_tables(density: np.ndarray, matrix: np.ndarray) -> np.ndarray | None:
    """Pack the linear map `matrix` of optical density into one integer a channel and value.

    Parameters
    ----------
    density
        float64 [256], optical density of each grey level.
    matrix
        float64 [3, 3], output optical density = matrix @ input optical density.

    Returns
    -------
    numpy.ndarray or None
        uint64 [3, 256]; the sum of three entries holds the three table indices. None where a sum could leave the
        exponential's table (a map too steep for this short cut).
    """
    terms = matrix.T[:, :, None] * density[None, None, :]  # [input channel, output channel, value]
    low, high = terms.min(axis=2).sum(axis=0), terms.max(axis=2).sum(axis=0)
    if not (np.isfinite(terms).all() and low.min() > 1 - REACH and high.max() < REACH - 1):
        return None
    # Each term gets its own offset, so that entries are non-negative and no channel borrows from its neighbour.
    offset = np.ceil(-terms.min(axis=2) * STEPS) + 1
    offset[2] = REACH * STEPS - offset[0] - offset[1]
    entries = np.rint(terms * STEPS) + offset[:, :, None]
    if entries.min() < 0:
        return None
    entries = entries.astype(np.uint64)
    return entries[:, 0] | (entries[:, 1] << np.uint64(FIELD)) | (entries[:, 2] << np.uint64(2 * FIELD))


@njit(cache=True, nogil=True)
def apply_packed(pixels, tables, grey, out):
    """Write the linear map of `pixels` (uint8 [n, 3]) to `out` (uint8 [n, 3])."""
    mask = _MASK
    first, second, third = tables[0], tables[1], tables[2]
    for i in range(len(pixels)):
        total = first[pixels[i, 0]] + second[pixels[i, 1]] + third[pixels[i, 2]]
        out[i, 0] = grey[total & mask]
        out[i, 1] = grey[(total >> np.uint64(FIELD)) & mask]
        out[i, 2] = grey[total >> np.uint64(2 * FIELD)]


@njit(cache=True, nogil=True, inline="always")
def _two_stains(r, g, b, free, alone, positive):
    """Return both concentrations of one pixel.

    `free` [3, 256, 2] sums to the unconstrained solution, `alone` [3, 256, 2] to each stain's solution without the
    other. With two stains of an acute angle the non-negative solution is: both if both are, else the other one alone.
    """
    first = free[0, r, 0] + free[1, g, 0] + free[2, b, 0]
    second = free[0, r, 1] + free[1, g, 1] + free[2, b, 1]
    if positive:  # written without branches: which stain is absent changes from pixel to pixel
        only_first = max(0.0, alone[0, r, 0] + alone[1, g, 0] + alone[2, b, 0])
        only_second = max(0.0, alone[0, r, 1] + alone[1, g, 1] + alone[2, b, 1])
        return (
            max(0.0, first) if second >= 0.0 else only_first,
            max(0.0, second) if first >= 0.0 else only_second,
        )
    return first, second


@njit(cache=True, nogil=True)
def apply_stains(pixels, free, alone, positive, target, grey, out):
    """Write `pixels` (uint8 [n, 3]) recomposed with scaled stains `target` (float64 [2, 3]) to `out` (uint8 [n, 3])."""
    scaled = target * STEPS
    last = float(len(grey) - 1)
    middle = REACH * STEPS + 0.5
    for i in range(len(pixels)):
        first, second = _two_stains(pixels[i, 0], pixels[i, 1], pixels[i, 2], free, alone, positive)
        for k in range(3):
            steps = first * scaled[0, k] + second * scaled[1, k] + middle
            out[i, k] = grey[int(max(0.0, min(steps, last)))]


@njit(cache=True, nogil=True)
def concentrations(pixels, free, alone, positive):
    """Return both concentrations of `pixels` (uint8 [n, 3]) as float64 [2, n]."""
    out = np.empty((2, len(pixels)))
    for i in range(len(pixels)):
        out[0, i], out[1, i] = _two_stains(pixels[i, 0], pixels[i, 1], pixels[i, 2], free, alone, positive)
    return out


@njit(cache=True, nogil=True)
def moments(pixels, density, gate, limit):
    """Return the number of stained pixels, the sum [3] and the sum of products [3, 3] of their optical density.

    A pixel is stained where its three entries of `gate` (float64 [3, 256]) sum to less than `limit`.
    """
    count = 0
    x = y = z = xx = xy = xz = yy = yz = zz = 0.0
    for i in range(len(pixels)):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        if gate[0, r] + gate[1, g] + gate[2, b] < limit:
            u, v, w = density[r], density[g], density[b]
            count += 1
            x += u
            y += v
            z += w
            xx += u * u
            xy += u * v
            xz += u * w
            yy += v * v
            yz += v * w
            zz += w * w
    return count, np.array([x, y, z]), np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@njit(cache=True, nogil=True)
def angles(pixels, projected, gate, limit, count):
    """Return a number that grows with the angle of each stained pixel in the stain plane, float64 [count].

    `projected` (float64 [3, 256, 2]) sums to the pixel's two coordinates. The number is the angle measured along the
    square |t0| + |t1| = 1 instead of the circle, which keeps the order of `arctan2` without computing it;
    `angle_of` gives the angle in radians.
    """
    out = np.empty(count)
    k = 0
    for i in range(len(pixels)):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        if gate[0, r] + gate[1, g] + gate[2, b] < limit:
            t0 = projected[0, r, 0] + projected[1, g, 0] + projected[2, b, 0]
            t1 = projected[0, r, 1] + projected[1, g, 1] + projected[2, b, 1]
            size = abs(t0) + abs(t1)
            place = t1 / size if size > 0.0 else 0.0
            if t0 < 0.0:
                place = 2.0 - place if t1 >= 0.0 else -2.0 - place
            out[k] = place
            k += 1
    return out


def angle_of(place: np.ndarray) -> np.ndarray:
    """Return the angle in radians of numbers given by `angles`."""
    folded = np.where(place > 1, 2 - place, np.where(place < -1, -2 - place, place))
    return np.arctan2(folded, np.where(np.abs(place) > 1, -1, 1) * (1 - np.abs(folded)))


@njit(cache=True, nogil=True)
def neighbours(values, ranks):
    """Return the order statistics floor(rank) and floor(rank) + 1 for each of `ranks`, float64 [len(ranks), 2].

    Exact: a histogram finds the bin, only that bin is sorted.
    """
    n = len(values)
    low, high = values[0], values[0]
    for value in values:
        low = min(low, value)
        high = max(high, value)
    out = np.empty((len(ranks), 2))
    if high <= low:
        out[:] = low
        return out
    scale = (_BINS - 1) / (high - low)
    counts = np.zeros(_BINS, np.int64)
    for value in values:
        counts[np.int64((value - low) * scale)] += 1
    for j in range(len(ranks)):
        place, before, sorted_place = 0, 0, -1
        inside = values[:0]
        for side in range(2):
            rank = min(int(ranks[j]) + side, n - 1)
            while before + counts[place] <= rank:
                before += counts[place]
                place += 1
            if place != sorted_place:
                inside = np.empty(counts[place])
                k = 0
                for value in values:
                    if np.int64((value - low) * scale) == place:
                        inside[k] = value
                        k += 1
                inside.sort()
                sorted_place = place
            out[j, side] = inside[rank - before]
    return out
