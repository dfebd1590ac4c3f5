"""Compiled per-pixel loops of stain normalisation: tables and integer sums instead of logarithms and exponentials.

The tables are made in `stain_tables`. All loops treat pixels independently and in order: results depend neither on
chunks nor on threads. All release the GIL.
"""

import numpy as np
from numba import njit

from .stain_tables import FIELD, REACH, STEPS

_MASK = np.uint64((1 << FIELD) - 1)
BINS = 4096
"""Of the histograms that find order statistics."""


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
def _non_negative(first, second, overlap):
    """Return the non-negative amounts of two stains from the unconstrained ones, `overlap` the vectors' product.

    With an acute angle between the stains the solution is both amounts if both are positive, else the one stain alone:
    the other's amount then counts as far as the vectors overlap. Written without branches, for which stain is absent
    changes from pixel to pixel.
    """
    only_first = max(0.0, first + overlap * second)
    only_second = max(0.0, second + overlap * first)
    return (
        max(0.0, first) if second >= 0.0 else only_first,
        max(0.0, second) if first >= 0.0 else only_second,
    )


@njit(cache=True, nogil=True)
def apply_packed_positive(pixels, signs, tables, grey, out):
    """As `apply_packed` with non-negative amounts: one map (`tables` uint64 [4, 3, 256]) for each pair of signs.

    Pair 0 is both negative, 1 and 2 the first or the second alone positive, 3 both.
    """
    mask = _MASK
    red, green, blue = signs[0], signs[1], signs[2]
    for i in range(len(pixels)):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        sign = red[r] + green[g] + blue[b]
        pair = ((sign >> np.uint64(30)) & np.uint64(1)) | ((sign >> np.uint64(61)) & np.uint64(2))
        total = tables[pair, 0, r] + tables[pair, 1, g] + tables[pair, 2, b]
        out[i, 0] = grey[total & mask]
        out[i, 1] = grey[(total >> np.uint64(FIELD)) & mask]
        out[i, 2] = grey[total >> np.uint64(2 * FIELD)]


@njit(cache=True, nogil=True)
def apply_stains(pixels, free, overlap, positive, target, grey, out):
    """Write `pixels` (uint8 [n, 3]) recomposed with scaled stains `target` (float64 [2, 3]) to `out` (uint8 [n, 3])."""
    scaled = target * STEPS
    last = float(len(grey) - 1)
    middle = REACH * STEPS + 0.5
    for i in range(len(pixels)):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        first = free[0, r, 0] + free[1, g, 0] + free[2, b, 0]
        second = free[0, r, 1] + free[1, g, 1] + free[2, b, 1]
        if positive:
            first, second = _non_negative(first, second, overlap)
        for k in range(3):
            steps = first * scaled[0, k] + second * scaled[1, k] + middle
            out[i, k] = grey[int(max(0.0, min(steps, last)))]


@njit(cache=True, nogil=True)
def stained(pixels, gate, limit):
    """Return the stained ones of `pixels` (uint8 [n, 3]): their entries of `gate` (float64 [3, 256]) sum to < limit."""
    out = np.empty((len(pixels) + 1, 3), np.uint8)
    count = 0
    for i in range(len(pixels)):  # without branches: what is glass cannot be foretold
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        out[count, 0] = r
        out[count, 1] = g
        out[count, 2] = b
        count += np.int64(gate[0, r] + gate[1, g] + gate[2, b] < limit)
    return out[:count]


@njit(cache=True, nogil=True)
def moments(pixels, density):
    """Return the sum [3] and the sum of products [3, 3] of the optical density of `pixels` (uint8 [n, 3])."""
    x = y = z = xx = xy = xz = yy = yz = zz = 0.0
    for i in range(len(pixels)):
        u, v, w = density[pixels[i, 0]], density[pixels[i, 1]], density[pixels[i, 2]]
        x += u
        y += v
        z += w
        xx += u * u
        xy += u * v
        xz += u * w
        yy += v * v
        yz += v * w
        zz += w * w
    return np.array([x, y, z]), np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@njit(cache=True, nogil=True, inline="always")
def _angle(r, g, b, projected):
    """Return a number from -3 to 3 that grows with a pixel's angle in the stain plane.

    It is the angle measured along the square |t0| + |t1| = 1 instead of the circle, which keeps the order of `arctan2`
    without computing it; `angle_of` gives the angle in radians.
    """
    t0 = projected[0, r, 0] + projected[1, g, 0] + projected[2, b, 0]
    t1 = projected[0, r, 1] + projected[1, g, 1] + projected[2, b, 1]
    size = abs(t0) + abs(t1)
    place = t1 / size if size > 0.0 else 0.0
    if t0 < 0.0:
        place = 2.0 - place if t1 >= 0.0 else -2.0 - place
    return place


def angle_of(place: np.ndarray) -> np.ndarray:
    """Return the angle in radians of numbers given by `_angle`."""
    folded = np.where(place > 1, 2 - place, np.where(place < -1, -2 - place, place))
    return np.arctan2(folded, np.where(np.abs(place) > 1, -1, 1) * (1 - np.abs(folded)))


@njit(cache=True, nogil=True, inline="always")
def _bin(value, low, scale):
    return np.uint16(np.int32((value - low) * scale + 1.0))


@njit(cache=True, nogil=True)
def _bins_of(four_counts, rank):
    """Return the bins of the statistics floor(rank) and floor(rank) + 1; how many values lie below, how many in."""
    counts = four_counts[0] + four_counts[1] + four_counts[2] + four_counts[3]
    place, before, last = 0, 0, counts.sum() - 1
    while before + counts[place] <= min(rank, last):
        before += counts[place]
        place += 1
    first, below = place, before
    while before + counts[place] <= min(rank + 1, last):
        before += counts[place]
        place += 1
    return first, place, below, counts[first : place + 1].sum()


@njit(cache=True, nogil=True)
def _pick(values, place):
    values = np.partition(values, place)  # not sorted: many may share a bin
    after = values[place + 1 :]
    return values[place], after.min() if len(after) else values[place]


# Both functions below give exact order statistics without keeping the values: a histogram finds the bins that hold
# them, and what fell into those is computed again and sorted. Counts are fourfold, for neighbours (glass) share a bin,
# and a count must be stored before it can be raised again.


@njit(cache=True, nogil=True)
def angle_neighbours(pixels, projected, ranks):
    """Return the order statistics floor(rank) and floor(rank) + 1 of the angles of `pixels` (uint8 [n, 3]).

    `projected` (float64 [3, 256, 2]) sums to a pixel's two coordinates in the stain plane. float64 [len(ranks), 2],
    as `_angle` measures.
    """
    scale = (BINS - 3) / 6.0
    bins = np.empty(len(pixels), np.uint16)
    counts = np.zeros((4, BINS), np.int32)
    for i in range(len(pixels)):
        bins[i] = _bin(_angle(pixels[i, 0], pixels[i, 1], pixels[i, 2], projected), -3.0, scale)
        counts[i & 3, bins[i]] += 1
    out = np.empty((len(ranks), 2))
    for j in range(len(ranks)):
        first, last, below, number = _bins_of(counts, int(ranks[j]))
        inside, k = np.empty(number), 0
        for i in range(len(pixels)):
            if first <= bins[i] <= last:
                inside[k] = _angle(pixels[i, 0], pixels[i, 1], pixels[i, 2], projected)
                k += 1
        out[j] = _pick(inside, int(ranks[j]) - below)
    return out


@njit(cache=True, nogil=True, inline="always")
def _amounts(r, g, b, free, overlap, positive):
    first = free[0, r, 0] + free[1, g, 0] + free[2, b, 0]
    second = free[0, r, 1] + free[1, g, 1] + free[2, b, 1]
    return _non_negative(first, second, overlap) if positive else (first, second)


@njit(cache=True, nogil=True)
def amount_neighbours(pixels, free, overlap, positive, low, high, rank):
    """Return the order statistics floor(rank) and floor(rank) + 1 of both stains' amounts, float64 [2, 2].

    Amounts of `pixels` (uint8 [n, 3]) lie between `low` and `high` (float64 [2]); other arguments as `apply_stains`.
    """
    low_0, low_1 = low
    scale_0, scale_1 = (BINS - 3) / (high[0] - low_0), (BINS - 3) / (high[1] - low_1)
    bins = np.empty((2, len(pixels)), np.uint16)
    counts = np.zeros((2, 4, BINS), np.int32)
    for i in range(len(pixels)):
        first, second = _amounts(pixels[i, 0], pixels[i, 1], pixels[i, 2], free, overlap, positive)
        bins[0, i], bins[1, i] = _bin(first, low_0, scale_0), _bin(second, low_1, scale_1)
        counts[0, i & 3, bins[0, i]] += 1
        counts[1, i & 3, bins[1, i]] += 1
    out = np.empty((2, 2))
    for stain in range(2):
        first_bin, last_bin, below, number = _bins_of(counts[stain], int(rank))
        inside, k = np.empty(number), 0
        for i in range(len(pixels)):
            if first_bin <= bins[stain, i] <= last_bin:
                both = _amounts(pixels[i, 0], pixels[i, 1], pixels[i, 2], free, overlap, positive)
                inside[k] = both[stain]
                k += 1
        out[stain] = _pick(inside, int(rank) - below)
    return out
