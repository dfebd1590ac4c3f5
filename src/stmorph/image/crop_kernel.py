"""Boxes copied out of a large picture that lies in blocks (see `blocks`).

Rows are copied in steps of fixed length, which the compiler makes into two or three instructions; where a step goes
beyond what is wanted it writes into the box's next row, which is written after it. The last row of each box is copied
exactly, so that nothing is read or written outside of the arrays.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 64  # rows of a block, and bytes of a row of it
_STEP = 32  # bytes copied at once
_WIDE = 2 * BLOCK  # bytes of a row, from which on a step beyond its end stays in the next row
_LINES = 4  # of each block of the box to come that are asked for beforehand; the processor then foresees the rest
_BYTE = ir.IntType(8).as_pointer()


@intrinsic
def _hint(typing, blocks, at):
    """Ask for the memory about byte `at` of an array; a place outside of it does no harm."""

    def build(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        kind = ir.IntType(32)
        function = ir.FunctionType(ir.VoidType(), [place.type, kind, kind, kind])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", (place.type,), function)
        builder.call(prefetch, [place, kind(0), kind(3), kind(1)])  # to read, to keep near, data
        return context.get_dummy_value()

    return types.void(blocks, types.int64), build


@intrinsic
def _step(typing, out, at, blocks, start):
    """Copy `_STEP` bytes."""

    def build(context, builder, signature, arguments):
        vector = ir.VectorType(ir.IntType(8), _STEP).as_pointer()
        to = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        come = _place(context, builder, signature.args[2], arguments[2], arguments[3])
        value = builder.load(builder.bitcast(come, vector), align=1)
        builder.store(value, builder.bitcast(to, vector), align=1)
        return context.get_dummy_value()

    return types.void(out, types.int64, blocks, types.int64), build


@intrinsic
def _copy(typing, out, at, blocks, start, count):
    """Copy `count` bytes: numba's own loop over bytes is ten times slower."""

    def build(context, builder, signature, arguments):
        to = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        come = _place(context, builder, signature.args[2], arguments[2], arguments[3])
        cgutils.raw_memcpy(builder, to, come, arguments[4], 1)
        return context.get_dummy_value()

    return types.void(out, types.int64, blocks, types.int64, types.int64), build


def _place(context, builder, kind, array, offset):
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, _BYTE), [offset])


@njit(nogil=True, inline="always")
def _exactly(blocks, start, skip, out, to, length):
    """Copy one row of a box, which begins `skip` bytes after byte `start` of the blocks."""
    while length > 0:
        count = min(length, BLOCK - skip)
        _copy(out, to, blocks, start + skip, count)
        to += count
        length -= count
        start, skip = start + BLOCK * BLOCK, 0


@njit(cache=True, nogil=True)
def _boxes(blocks, columns, width, height, x0, y0, rows, size, channels, out):
    page, wide = BLOCK * BLOCK, size * channels
    for i in range(len(x0)):  # bytes are copied unseen, so that nothing may lie outside
        if x0[i] < 0 or y0[i] < 0 or x0[i] > width - size or y0[i] > height - size:
            return i
        if rows[i] < 0 or rows[i] >= len(out) // (size * wide):
            raise IndexError("a box has no place in the output")
    for i in range(len(x0)):
        if i + 1 < len(x0):
            left, top = x0[i + 1] * channels, y0[i + 1]
            for row in range(top // BLOCK, (top + size - 1) // BLOCK + 1):
                for column in range(left // BLOCK, (left + wide - 1) // BLOCK + 1):
                    coming = (row * columns + column) * page + max(0, top - row * BLOCK) * BLOCK
                    for k in range(_LINES):
                        _hint(blocks, coming + k * BLOCK)
        left, to = x0[i] * channels, rows[i] * size * wide
        column, skip = left // BLOCK, left % BLOCK
        others = (left + wide - 1) // BLOCK - column
        last = y0[i] + size - 1
        y = y0[i]
        while y <= last:
            start = ((y // BLOCK) * columns + column) * page + (y % BLOCK) * BLOCK
            end = min(last + 1, (y // BLOCK + 1) * BLOCK)  # of the rows in these blocks
            for row in range(y, end):
                if wide < _WIDE or row == last:
                    _exactly(blocks, start, skip, out, to, wide)
                else:
                    for k in range(skip, BLOCK, _STEP):
                        _step(out, to + k - skip, blocks, start + k)
                    at, come = to + BLOCK - skip, start + page
                    for _ in range(others):
                        for k in range(0, BLOCK, _STEP):
                            _step(out, at + k, blocks, come + k)
                        at += BLOCK
                        come += page
                start += BLOCK
                to += wide
            y = end
    return -1


def blocks_of(width_px: int, height_px: int, channels: int) -> tuple[int, int, int, int]:
    """Return the shape of a picture's blocks: rows and columns of them, and what a block holds."""
    return -(-height_px // BLOCK), -(-width_px * channels // BLOCK), BLOCK, BLOCK


def copy_boxes(
    blocks: np.ndarray, width: int, height: int, x0: np.ndarray, y0: np.ndarray, rows: np.ndarray, out: np.ndarray
) -> int:
    """Write boxes of a picture to `out[rows]`; return -1, or the first that leaves the picture (then none is written).

    Parameters
    ----------
    blocks
        uint8 [block rows, block columns, 64, 64], contiguous.
    width, height
        Of the picture, in pixels.
    x0, y0
        int64 [k], top-left corners.
    rows
        int64 [k], places in `out`.
    out
        uint8 [n, size, size, channels], contiguous.

    Raises
    ------
    IndexError
        A place is not in `out`.
    ValueError
        `out` is not contiguous, and could not be written in place, or the blocks are of another picture.
    """
    if not out.flags.c_contiguous:
        raise ValueError("boxes are written to contiguous arrays alone")
    size, channels = out.shape[2:]
    if blocks.shape != blocks_of(width, height, channels):
        raise ValueError(f"blocks {blocks.shape} do not hold a picture of {width} x {height} x {channels}")
    if not out.size:
        return -1
    return _boxes(blocks.reshape(-1), blocks.shape[1], width, height, x0, y0, rows, size, channels, out.reshape(-1))
