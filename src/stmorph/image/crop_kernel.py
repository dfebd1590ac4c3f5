"""Boxes copied out of a large picture, row by row; memory is asked for the rows to come before they are needed.

A row of a box is short and lies in a page of memory of its own, so that the processor, which foresees only steps within
a page, waits for each. Two hints undo that: the first byte of a row far ahead, by which its page is looked up, and all
of a row near ahead. They change no byte.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

NEAR, FAR = 4, 16  # rows ahead: measured, and flat about these
_LINE_BYTES = 64  # what memory gives at a time, on all common processors
_BYTE = ir.IntType(8).as_pointer()


@intrinsic
def _hint(typing, pixels, at):
    """Ask for the memory about byte `at` of an array; a place outside of it does no harm."""

    def build(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        kind = ir.IntType(32)
        function = ir.FunctionType(ir.VoidType(), [place.type, kind, kind, kind])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", (place.type,), function)
        builder.call(prefetch, [place, kind(0), kind(3), kind(1)])  # to read, to keep near, data
        return context.get_dummy_value()

    return types.void(pixels, types.int64), build


@intrinsic
def _copy(typing, out, at, pixels, start, count):
    """Copy `count` bytes: numba's own loop over bytes is ten times slower."""

    def build(context, builder, signature, arguments):
        to = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        come = _place(context, builder, signature.args[2], arguments[2], arguments[3])
        cgutils.raw_memcpy(builder, to, come, arguments[4], 1)
        return context.get_dummy_value()

    return types.void(out, types.int64, pixels, types.int64, types.int64), build


def _place(context, builder, kind, array, offset):
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, _BYTE), [offset])


@njit(cache=True, nogil=True)
def _boxes(pixels, height, width, x0, y0, rows, size, out):
    line, length = width * 3, size * 3
    for i in range(len(x0)):  # bytes are copied unseen, so that nothing may lie outside
        if x0[i] < 0 or y0[i] < 0 or x0[i] + size > width or y0[i] + size > height:
            return i
        if rows[i] < 0 or (rows[i] + 1) * size * length > len(out):
            raise IndexError("a box has no place in the output")
    for i in range(len(x0)):
        start = y0[i] * line + x0[i] * 3
        after = start
        if i + 1 < len(x0):  # the rows to come are the next box's
            after = (y0[i + 1] - size) * line + x0[i + 1] * 3
        to = rows[i] * size * length
        for row in range(size):
            far, near = row + FAR, row + NEAR
            _hint(pixels, (start if far < size else after) + far * line)
            coming = (start if near < size else after) + near * line
            for k in range(0, length, _LINE_BYTES):
                _hint(pixels, coming + k)
            _copy(out, to + row * length, pixels, start + row * line, length)
    return -1


def copy_boxes(pixels: np.ndarray, x0: np.ndarray, y0: np.ndarray, rows: np.ndarray, out: np.ndarray) -> int:
    """Write boxes of a picture to `out[rows]`; return -1, or the first that leaves the picture (then none is written).

    Parameters
    ----------
    pixels
        uint8 [H, W, 3].
    x0, y0
        int64 [k], top-left corners.
    rows
        int64 [k], places in `out`.
    out
        uint8 [n, size, size, 3], contiguous.

    Raises
    ------
    IndexError
        A place is not in `out`.
    ValueError
        `out` is not contiguous, and could not be written in place.
    """
    if not out.flags.c_contiguous:
        raise ValueError("boxes are written to contiguous arrays alone")
    height, width = pixels.shape[:2]
    return _boxes(pixels.reshape(-1), height, width, x0, y0, rows, out.shape[1], out.reshape(-1))
