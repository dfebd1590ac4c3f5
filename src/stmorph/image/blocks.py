"""A large picture on disk in blocks, so that a box lies in a few runs of memory and not in one a row.

A block is 64 rows high and 64 bytes wide: a page of memory, whose rows are the lines that memory gives at a time. A box
then takes hardly more lines than it has pixels, and they follow each other, which the processor foresees. The bytes of
a picture's row (W x C of them) are cut wherever 64 are full, also within a pixel.
"""

import mmap
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from .crop_kernel import BLOCK, blocks_of, copy_boxes

_LINE = np.dtype((np.void, BLOCK))  # a row of a block, moved as one
_WRITTEN = 2**23  # bytes written at once, from a multiple of it on: so the system's cache holds them in large pages


class BlockedImage:
    """A picture of uint8 [height_px, width_px, channels] in a memory-mapped file of blocks, read as boxes or strips."""

    def __init__(self, path: str | Path, width_px: int, height_px: int, channels: int):
        """Map the file; ValueError where it holds something else, OSError where it cannot be read."""
        self.path, self.width_px, self.height_px, self.channels = Path(path), width_px, height_px, channels
        mapped = np.load(self.path, mmap_mode="r")
        # Else the processor looks up each block's page: small tiles take a quarter longer.
        with suppress(AttributeError, OSError, ValueError):  # where the system knows no large pages
            mapped.base.madvise(mmap.MADV_HUGEPAGE)
        # A plain view: slices of numpy's memmap class are slow.
        self._blocks = np.asarray(mapped)
        shape = blocks_of(width_px, height_px, channels)
        if self._blocks.dtype != np.uint8 or self._blocks.shape != shape or not self._blocks.flags.c_contiguous:
            raise ValueError(f"it holds {self._blocks.dtype} {self._blocks.shape} and not uint8 {shape}")

    def boxes_into(self, out: np.ndarray, x0_px: np.ndarray, y0_px: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Write square boxes to `out[rows]` (in order where not given).

        Parameters
        ----------
        out
            uint8 [n, size, size, channels], contiguous.
        x0_px, y0_px
            int [k], top-left corners.
        rows
            int64 [k], places in `out`.

        Raises
        ------
        DataError
            A box leaves the picture; nothing is written then.
        """
        x0, y0 = (np.ascontiguousarray(corner, dtype=np.int64) for corner in (x0_px, y0_px))
        rows = np.arange(len(x0)) if rows is None else rows
        bad = copy_boxes(self._blocks, self.width_px, self.height_px, x0, y0, rows, out)
        if bad >= 0:
            raise DataError(
                f"{self.path} has {self.width_px} x {self.height_px} px, but a tile of {out.shape[1]} px at "
                f"({x0[bad]}, {y0[bad]}) was asked for; cut only tiles that the tile list keeps"
            )

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the picture from top to bottom as (first row, uint8 [h, width_px, channels])."""
        for top, blocks in zip(range(0, self.height_px, BLOCK), self._blocks, strict=True):
            yield top, from_blocks(blocks, self.width_px, self.channels)[: self.height_px - top]


def write_header(file: BinaryIO, width_px: int, height_px: int, channels: int) -> int:
    """Begin an `.npy` file of blocks; return where its first block begins."""
    header = {"descr": "|u1", "fortran_order": False, "shape": blocks_of(width_px, height_px, channels)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def write_blocks(file: BinaryIO, strips: Iterable[tuple[int, np.ndarray]]) -> None:
    """Append a picture, given in strips from top to bottom: (first row, uint8 [h, W, C])."""
    held, at = bytearray(), file.tell()
    for blocks in _rows_of_blocks(strips):
        held += blocks.data.cast("B")
        while len(held) >= (room := _WRITTEN - at % _WRITTEN):
            at += file.write(bytes(held[:room]))
            del held[:room]
    file.write(held)


def _rows_of_blocks(strips: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    waiting = None
    for _, strip in strips:
        pixels = strip if waiting is None else np.concatenate([waiting, strip])
        full = len(pixels) - len(pixels) % BLOCK
        for top in range(0, full, BLOCK):
            yield to_blocks(pixels[top : top + BLOCK])
        waiting = pixels[full:] if full < len(pixels) else None
    if waiting is not None:
        yield to_blocks(waiting)


def to_blocks(pixels: np.ndarray) -> np.ndarray:
    """Return at most 64 rows of a picture, uint8 [h, W, C], as a row of blocks [columns, 64, 64]; what lacks is 0."""
    _, columns, _, _ = blocks_of(pixels.shape[1], BLOCK, pixels.shape[2])
    out, length = np.zeros((columns, BLOCK, BLOCK), np.uint8), pixels.shape[1] * pixels.shape[2]
    rows, filled = pixels.reshape(len(pixels), length), length // BLOCK
    out.view(_LINE)[:filled, : len(pixels), 0] = _lines(rows, filled).T
    if filled < columns:
        out[filled, : len(pixels), : length - filled * BLOCK] = rows[:, filled * BLOCK :]
    return out


def from_blocks(blocks: np.ndarray, width_px: int, channels: int) -> np.ndarray:
    """Return the rows of a row of blocks [columns, 64, 64] as uint8 [64, width_px, channels]."""
    length = width_px * channels
    out, filled = np.empty((BLOCK, length), np.uint8), length // BLOCK
    _lines(out, filled)[:] = blocks.view(_LINE)[:filled, :, 0].T
    out[:, filled * BLOCK :] = blocks[filled:, :, : length - filled * BLOCK].reshape(BLOCK, -1)
    return out.reshape(BLOCK, width_px, channels)


def _lines(rows: np.ndarray, filled: int) -> np.ndarray:
    """Return a view of contiguous bytes [h, length] as the full lines that they begin with, [h, filled]."""
    return rows[:, : filled * BLOCK].reshape(len(rows), filled, BLOCK).view(_LINE)[..., 0]
