"""Tiles straight from an image file, in any order, without a store: each of the file's own tiles is decoded once.

Units come in the order of their barcodes, which is random on the slide, so that reading tile by tile decodes each piece
of the file again for every unit that touches it. Here the pieces are taken in the file's order, and what each holds
of every tile asked for is copied out before it is let go.
"""

from collections.abc import Iterator

import numpy as np

from ..errors import DataError
from .source import ImageSource, OpenLevel
from .tiff_source import TiffLevel

UNFINISHED_BYTES = 2**26
"""Most memory for tiles of which a part is still to come; where it would take more, the slide is read in columns."""
_BLOCK_PX = 512


def read_tiles(
    image: ImageSource,
    x0_px: np.ndarray,
    y0_px: np.ndarray,
    size_px: int,
    out: np.ndarray | None = None,
    level: int = 0,
) -> np.ndarray:
    """Return tiles as uint8 [k, size_px, size_px, 3], in the order asked for.

    Parameters
    ----------
    image
        The slide.
    x0_px, y0_px
        int [k], top-left corners in pixels of the level.
    size_px
        Side of a tile.
    out
        Where to write them, if given: that shape, may be memory-mapped.
    level
        The stored resolution, 0 the full one.

    Raises
    ------
    DataError
        A tile leaves the image, or the file is damaged.
    """
    if out is None:
        out = np.empty((len(x0_px), size_px, size_px, 3), np.uint8)
    for _ in _tiles(image, x0_px, y0_px, size_px, level, out):
        pass
    return out


def iterate_tiles(
    image: ImageSource, x0_px: np.ndarray, y0_px: np.ndarray, size_px: int, level: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (its place in the order asked for, tile uint8 [size_px, size_px, 3]) in the order of the file.

    For more tiles than memory holds: at most `UNFINISHED_BYTES` of them are kept. A tile is overwritten in the next
    step. Parameters and errors as for `read_tiles`.
    """
    return _tiles(image, x0_px, y0_px, size_px, level, None)


def _tiles(
    image: ImageSource, x0_px: np.ndarray, y0_px: np.ndarray, size_px: int, level: int, out: np.ndarray | None
) -> Iterator[tuple[int, np.ndarray]]:
    x0, y0 = np.asarray(x0_px, dtype=np.int64), np.asarray(y0_px, dtype=np.int64)
    width, height = image.levels[level]
    outside = (x0 < 0) | (y0 < 0) | (x0 + size_px > width) | (y0 + size_px > height)
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{image.path} has {width} x {height} px, but a tile of {size_px} px at ({x0[i]}, {y0[i]}) was asked for; "
            "cut only tiles that the tile list keeps"
        )
    with image.decoded(level) as opened:
        pieces = opened if isinstance(opened, TiffLevel) else _Blocks(opened, width, height)
        waiting = [np.arange(len(x0))] if len(x0) else []
        while waiting:
            rows = waiting.pop()
            plan = _Plan(pieces, x0[rows], y0[rows], size_px)
            if out is None and plan.unfinished * size_px**2 * 3 > UNFINISHED_BYTES and np.ptp(x0[rows]) > 0:
                right = x0[rows] > np.median(x0[rows])
                right = right if right.any() else x0[rows] == x0[rows].max()
                waiting += [rows[right], rows[~right]]
                continue
            yield from plan.run(rows, out)


class _Plan:
    """Which pieces of the file some tiles need, in the file's order, and how many tiles are unfinished at a time."""

    def __init__(self, pieces: "TiffLevel | _Blocks", x0: np.ndarray, y0: np.ndarray, size: int):
        self._pieces, self._size = pieces, size
        self._x0, self._y0 = x0.tolist(), y0.tolist()
        high, wide = pieces.piece_height_px, pieces.piece_width_px
        top, left = y0 // high, x0 // wide
        bottom, right = (y0 + size - 1) // high, (x0 + size - 1) // wide
        piece, tile = [], []
        for down in range(int((bottom - top).max()) + 1):
            for across in range(int((right - left).max()) + 1):
                met = np.flatnonzero((top + down <= bottom) & (left + across <= right))
                piece.append((top[met] + down) * pieces.columns + left[met] + across)
                tile.append(met)
        piece, tile = np.concatenate(piece), np.concatenate(tile)
        order = np.lexsort((tile, piece))
        self._tile = tile[order].tolist()
        self._piece, first = np.unique(piece[order], return_index=True)
        self._ends = [*first[1:].tolist(), len(tile)]
        self._missing = ((bottom - top + 1) * (right - left + 1)).tolist()
        begun = np.searchsorted(self._piece, top * pieces.columns + left)
        ended = np.searchsorted(self._piece, bottom * pieces.columns + right)
        change = np.bincount(begun, minlength=len(self._piece) + 1)
        change[1:] -= np.bincount(ended, minlength=len(self._piece))[: len(self._piece)]
        self.unfinished = int(change.cumsum().max())

    def run(self, rows: np.ndarray, out: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
        pieces, size, start = self._pieces, self._size, 0
        pool = np.empty((self.unfinished, size, size, 3), np.uint8) if out is None else out
        free = list(range(self.unfinished))
        slot = [-1] * len(rows) if out is None else rows.tolist()
        for number, end in zip(self._piece.tolist(), self._ends):
            row, column = divmod(number, pieces.columns)
            pixels = pieces.piece(row, column)
            top, left = row * pieces.piece_height_px, column * pieces.piece_width_px
            bottom, right = top + pixels.shape[0], left + pixels.shape[1]
            for tile in self._tile[start:end]:
                if slot[tile] < 0:
                    slot[tile] = free.pop()
                x, y = self._x0[tile], self._y0[tile]
                a, b = max(y, top), min(y + size, bottom)
                c, d = max(x, left), min(x + size, right)
                pool[slot[tile], a - y : b - y, c - x : d - x] = pixels[a - top : b - top, c - left : d - left]
                self._missing[tile] -= 1
                if not self._missing[tile]:
                    yield int(rows[tile]), pool[slot[tile]]
                    if out is None:
                        free.append(slot[tile])
            start = end


class _Blocks:
    """Pieces of a format that does not show its own: squares, or bands of one that is decoded whole."""

    def __init__(self, level: OpenLevel, width_px: int, height_px: int):
        self._level, self._width_px, self._height_px = level, width_px, height_px
        self.piece_height_px = self.piece_width_px = _BLOCK_PX
        self.columns = -(-width_px // _BLOCK_PX)

    def piece(self, row: int, column: int) -> np.ndarray:
        y0, x0 = row * _BLOCK_PX, column * _BLOCK_PX
        return self._level.read(x0, y0, min(self._width_px, x0 + _BLOCK_PX), min(self._height_px, y0 + _BLOCK_PX))
