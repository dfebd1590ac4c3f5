"""Antialiased resampling in pieces: a region, or strips from top to bottom, with the very pixels of the whole image.

The rule is Pillow's `resize(..., LANCZOS)` to the last bit, so that a slide too large to hold is reduced exactly as a
small one: a Lanczos window of three lobes, stretched by the reduction; weights in fixed point of 22 bits; columns
first, rounded to 8 bits, then rows. Pillow's own `box` cannot serve for strips: it is held in single precision.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

_LOBES = 3
_BITS = 22
_HALF = 1 << (_BITS - 1)


@dataclass(frozen=True)
class Windows:
    """What each output pixel of an axis is made of.

    first: int64 [n], its first input pixel. count: int64 [n], how many. weights: int32 [n, most], fixed point; what is
    beyond `count` is 0.
    """

    first: np.ndarray
    count: np.ndarray
    weights: np.ndarray

    def part(self, start: int, stop: int) -> "Windows":
        """Return the windows of the output pixels `start` to `stop`."""
        return Windows(self.first[start:stop], self.count[start:stop], self.weights[start:stop])

    @property
    def needed(self) -> tuple[int, int]:
        """The range of input pixels that all of them together need."""
        return int(self.first[0]), int(self.first[-1] + self.count[-1])


def windows(size_in: int, size_out: int) -> Windows | None:
    """Return how an axis of `size_in` pixels becomes one of `size_out`; None where it stays as it is."""
    if size_in == size_out:
        return None
    step = size_in / size_out
    stretch = max(step, 1.0)
    centre = (np.arange(size_out) + 0.5) * step
    first = np.maximum((centre - _LOBES * stretch + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + _LOBES * stretch + 0.5).astype(np.int64), size_in) - first
    offset = np.arange(count.max())
    place = (offset + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch)
    weight = np.where(np.abs(place) < _LOBES, np.sinc(place) * np.sinc(place / _LOBES), 0.0)
    weight[offset >= count[:, None]] = 0.0
    # Added one after the other, as `numpy.sum` would not: the last bit of the sum can decide a rounding.
    weight /= weight.cumsum(axis=1)[:, -1:]
    fixed = np.trunc(weight * (1 << _BITS) + np.where(weight < 0, -0.5, 0.5)).astype(np.int32)
    return Windows(first, count, np.ascontiguousarray(fixed))


def resample_columns(pixels: np.ndarray, columns: Windows | None, first: int = 0) -> np.ndarray:
    """Return uint8 [h, len(columns), 3] of `pixels` uint8 [h, w, 3], whose first column is the input's `first`."""
    if columns is None:
        return pixels
    out = np.empty((len(pixels), len(columns.first), 3), np.uint8)
    _columns(pixels, columns.first - first, columns.count, columns.weights, out)
    return out


def resample_rows(pixels: np.ndarray, rows: Windows | None, first: int = 0) -> np.ndarray:
    """Return uint8 [len(rows), w, 3] of `pixels` uint8 [h, w, 3], whose first row is the input's `first`."""
    if rows is None:
        return pixels
    out = np.empty((len(rows.first), *pixels.shape[1:]), np.uint8)
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    _rows(flat, rows.first - first, rows.count, rows.weights, out.reshape(len(out), -1))
    return out


@njit(cache=True, nogil=True, inline="always")
def _grey(total):
    return np.uint8(min(max(total >> _BITS, 0), 255))


@njit(cache=True, nogil=True)
def _columns(pixels, first, count, weights, out):
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            red = green = blue = np.int32(_HALF)
            start = first[x]
            for k in range(count[x]):
                weight = weights[x, k]
                red += weight * np.int32(pixels[y, start + k, 0])
                green += weight * np.int32(pixels[y, start + k, 1])
                blue += weight * np.int32(pixels[y, start + k, 2])
            out[y, x, 0] = _grey(red)
            out[y, x, 1] = _grey(green)
            out[y, x, 2] = _grey(blue)


@njit(cache=True, nogil=True)
def _rows(pixels, first, count, weights, out):
    total = np.empty(out.shape[1], np.int32)
    for y in range(out.shape[0]):
        total[:] = _HALF
        for k in range(count[y]):
            weight = weights[y, k]
            row = pixels[first[y] + k]
            for x in range(len(total)):
                total[x] += weight * np.int32(row[x])
        for x in range(len(total)):
            out[y, x] = _grey(total[x])
