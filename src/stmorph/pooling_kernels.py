"""Compiled loops of pooling: sums of square windows of bins, from sparse rows, in whole numbers.

All loops are serial and go in a given order, so results depend on nothing but their arguments. All release the GIL.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def count_entries(data, indices, indptr, column_of, counted):
    """Return how many entries `select` writes."""
    n = 0
    for row in range(len(indptr) - 1):
        total = 0
        for e in range(indptr[row], indptr[row + 1]):
            n += column_of[indices[e]] >= 0
            total += counted[indices[e]] * data[e]
        n += total > 0
    return n


@njit(cache=True, nogil=True)
def select(data, indices, indptr, column_of, counted, n_columns, out_indptr, out_indices, out_data):
    """Copy some columns of a CSR matrix, renumbered, and each row's total as one more column, `n_columns`.

    column_of: int32 [G], the new column, or -1 for one that is left out. counted: int32 [G], 1 for the columns that
    the total is of, else 0. The arrays for entries hold one more than `count_entries`: without a branch, an entry that
    is left out is written and then written over.
    """
    n = 0
    for row in range(len(indptr) - 1):
        out_indptr[row] = n
        total = 0
        for e in range(indptr[row], indptr[row + 1]):
            column = column_of[indices[e]]
            out_indices[n] = column
            out_data[n] = data[e]
            n += column >= 0
            total += counted[indices[e]] * data[e]
        out_indices[n] = n_columns
        out_data[n] = total
        n += total > 0
    out_indptr[len(indptr) - 1] = n


@njit(cache=True, nogil=True)
def gather_rows(data, indices, indptr, order, out_indptr, out_indices, out_data):
    """Copy rows `order` of a CSR matrix; out_indptr is given."""
    for i in range(len(order)):
        first, n = indptr[order[i]], out_indptr[i]
        for e in range(out_indptr[i + 1] - n):
            out_indices[n + e] = indices[first + e]
            out_data[n + e] = data[first + e]


@njit(cache=True, nogil=True)
def _add(sums, sign, slot, top, bottom, left, right, data, indices, indptr):
    for row in range(top, bottom):
        for column in range(left, right):
            bin_ = slot[row, column]
            if bin_ >= 0:
                for e in range(indptr[bin_], indptr[bin_ + 1]):
                    sums[indices[e]] += sign * data[e]


@njit(cache=True, nogil=True)
def pool_windows(
    slot, top, left, side, data, indices, indptr, n_columns, has_total, library, out_indptr, out_indices, out_data
):
    """Sum the bins of each window; returns the number of entries written, columns ascending in each row.

    slot: int32 [R, C], the CSR row of the bin at an array position, or -1. top, left: int64 [n], first row and column
    of the windows. has_total: whether column n_columns of the bins holds their totals; then library [n] is its sum,
    else the sum of all columns. The arrays for entries must hold n_columns per window and one more.

    A window beside the one before it takes the columns of bins that enter and gives back those that leave: whole
    numbers come out the same as from a sum begun anew.
    """
    sums = np.zeros(n_columns + 1, dtype=np.int32)
    n = 0
    for w in range(len(top)):
        step = side
        if w > 0 and top[w] == top[w - 1]:
            step = left[w] - left[w - 1]
        first, last = left[w], left[w] + side
        if step > 0 and 2 * step < side:
            _add(sums, -1, slot, top[w], top[w] + side, first - step, first, data, indices, indptr)
            _add(sums, 1, slot, top[w], top[w] + side, last - step, last, data, indices, indptr)
        else:
            sums[:] = 0
            _add(sums, 1, slot, top[w], top[w] + side, first, last, data, indices, indptr)
        out_indptr[w] = n
        total = np.int64(0)
        # Without a branch: a processor guesses wrong at every other gene.
        for column in range(n_columns):
            value = sums[column]
            out_indices[n] = column
            out_data[n] = value
            n += value != 0
            total += value
        library[w] = sums[n_columns] if has_total else total
    out_indptr[len(top)] = n
    return n


@njit(cache=True, nogil=True)
def label_bins(labels, xy, inverse, reach_x, reach_y):
    """Return the label under each bin's centre, int64 [n]: 0 outside, -1 where the bin touches two nuclei.

    labels: integers [H, W]. xy: float64 [n, 2], centres in pixels (a pixel's own centre lies at +0.5). inverse: float64
    [2, 2], from an offset in pixels to one in bins, so that a bin is |u| <= .5, |v| <= .5. reach_x, reach_y: half the
    sides of the upright box round a bin, in pixels. A bin touches a nucleus when the centre of one of the nucleus's
    pixels lies in its square, or its own centre lies on the border of one.
    """
    height, width = labels.shape
    found = np.zeros(len(xy), dtype=np.int64)
    for i in range(len(xy)):
        x, y = xy[i]
        column, row = int(np.floor(x)), int(np.floor(y))
        if column < 0 or row < 0 or column >= width or row >= height:
            continue
        # One that lies on a pixel's border belongs to no side more than to the other.
        low_x, low_y = int(np.ceil(x)) - 1, int(np.ceil(y)) - 1
        # A centre on a nucleus's rim is in it from either side.
        own = 0
        for r in range(max(low_y, 0), row + 1):
            for c in range(max(low_x, 0), column + 1):
                if labels[r, c] != 0:
                    own = labels[r, c]
        if own == 0:
            continue
        found[i] = own
        for r in range(max(int(np.floor(y - reach_y)), 0), min(int(np.floor(y + reach_y)), height - 1) + 1):
            for c in range(max(int(np.floor(x - reach_x)), 0), min(int(np.floor(x + reach_x)), width - 1) + 1):
                other = labels[r, c]
                if other == 0 or other == own:
                    continue
                dx, dy = c + 0.5 - x, r + 0.5 - y
                u = inverse[0, 0] * dx + inverse[0, 1] * dy
                v = inverse[1, 0] * dx + inverse[1, 1] * dy
                on_border = low_x <= c <= column and low_y <= r <= row
                if on_border or (abs(u) <= 0.5 and abs(v) <= 0.5):
                    found[i] = -1
    return found


@njit(cache=True, nogil=True)
def label_sums(labels, first_row, area, sum_x, sum_y):
    """Add the pixels of a strip of a label image to each label's area and sums of pixel centres."""
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            label = labels[r, c]
            if label > 0:
                area[label] += 1
                sum_x[label] += c + 0.5
                sum_y[label] += first_row + r + 0.5
