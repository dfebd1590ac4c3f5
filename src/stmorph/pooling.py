"""Pseudo-spots: whole-number sums of square windows of bins, laid over the array with a stride.

A window of 27 x 27 bins every 5 bins shares its bins with 28 others, so the sums of a whole slide hold 29 times what
the bins hold. On 3,350 x 3,350 bins that is some 300,000 windows with thousands of genes each: 8 to 14 GB as a sparse
matrix, whatever the speed. Hence `PooledCounts`: it keeps the bins (about 1 GB) and sums windows when they are asked
for, some ten thousand a second with every gene, and some hundred thousand a second for a panel with the library size
(it copies the panel's entries first, once). A slide is written block by block of `blocks`, and nothing large is made;
`all` is for those who want the whole matrix and have the memory.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse

from .errors import DataError

CHUNK = 256
"""Windows summed at a time: the sums begin anew at each chunk, and their scratch space is CHUNK x genes."""
BLOCK = 16 * CHUNK
"""Windows of a block: some 100 MB with every gene."""
MOST_CELLS = 500_000_000
"""Largest array of bins (rows x columns) that is laid out; a Visium HD slide has 11 million."""


@dataclass(frozen=True)
class Windows:
    """Windows of `side` x `side` bins on an array, n of them, row by row.

    top, left: int64 [n], array row and column of the first bin. in_tissue: int64 [n], bins in tissue of each.
    lost: {reason: number} of the windows that were laid and not kept.
    """

    side: int
    stride: int
    top: np.ndarray
    left: np.ndarray
    in_tissue: np.ndarray
    lost: dict[str, int]

    def __len__(self) -> int:
        return len(self.top)

    def keep(self, chosen: np.ndarray, reason: str) -> "Windows":
        """Return the windows where `chosen`, bool [n]; the others are lost for `reason`."""
        lost = self.lost | {reason: int((~chosen).sum())}
        return replace(self, top=self.top[chosen], left=self.left[chosen], in_tissue=self.in_tissue[chosen], lost=lost)

    def cover(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Return which array positions [m] lie in a window, bool [m]."""
        # A window's corners count up and down; summed along both axes, a bin holds the number of windows over it.
        corners = np.zeros(tuple(n + 1 for n in _covering(rows, cols, self)), dtype=np.int32)
        for row, column, sign in ((0, 0, 1), (self.side, 0, -1), (0, self.side, -1), (self.side, self.side, 1)):
            np.add.at(corners, (self.top + row, self.left + column), sign)
        return np.cumsum(np.cumsum(corners, axis=0, out=corners), axis=1, out=corners)[rows, cols] > 0


def lay_windows(
    rows: np.ndarray, cols: np.ndarray, in_tissue: np.ndarray, side: int, stride: int, least: int
) -> Windows:
    """Return the windows with at least `least` bins in tissue.

    Windows begin at rows and columns 0, stride, 2 stride, ... whatever the tissue's shape, and none reaches beyond the
    last row and column of the array: the same bins are summed under the same name on every subset of a slide.

    Parameters
    ----------
    rows, cols
        Array position of each bin [n], from 0.
    in_tissue
        bool [n].
    side, stride
        In bins, from 1.
    least
        From 1 (any bin) to side x side (every bin).
    """
    shape = _shape(rows, cols)
    tissue = np.zeros((shape[0] + 1, shape[1] + 1), dtype=np.int32)
    tissue[rows[in_tissue] + 1, cols[in_tissue] + 1] = 1
    np.cumsum(tissue, axis=0, out=tissue)
    np.cumsum(tissue, axis=1, out=tissue)
    top, left = (np.arange(0, n - side + 1, stride) for n in shape)
    number = tissue[np.ix_(top + side, left + side)] - tissue[np.ix_(top, left + side)]
    number += tissue[np.ix_(top, left)] - tissue[np.ix_(top + side, left)]
    i, j = np.nonzero(number >= least)
    lost = {
        "not in tissue": int((number == 0).sum()),
        "partly in tissue": int(((number > 0) & (number < least)).sum()),
    }
    return Windows(side, stride, top[i], left[j], number[i, j].astype(np.int64), lost)


class PooledCounts:
    """Counts of windows, summed when they are asked for; whole numbers, the same in whatever order they are asked for.

    Bins off tissue add nothing, also where the counts file names them.

    Parameters
    ----------
    counts
        CSR integers [n, G], not negative.
    rows, cols, in_tissue
        Array position (from 0) and tissue flag of each row of `counts` [n].
    windows
        From `lay_windows`.
    genes
        Columns of `counts` to sum, in the order of the result; None: all.
    counted
        bool [G], the columns that make up the library size; None: all.

    Raises
    ------
    DataError
        Two bins lie at one array position, a position is negative, or a window could hold more than 2^31 molecules.
    """

    def __init__(
        self,
        counts: scipy.sparse.csr_matrix,
        rows: np.ndarray,
        cols: np.ndarray,
        in_tissue: np.ndarray,
        windows: Windows,
        genes: Sequence[int] | np.ndarray | None = None,
        counted: np.ndarray | None = None,
    ):
        from .pooling_kernels import count_entries, gather_rows, select

        self.windows = windows
        n_genes = counts.shape[1]
        genes = np.arange(n_genes) if genes is None else np.asarray(genes, dtype=np.int64)
        counted = np.ones(n_genes, dtype=bool) if counted is None else np.asarray(counted, dtype=bool)
        if len(np.unique(genes)) != len(genes):
            raise ValueError("genes holds a column twice; expected each once")
        self.shape = (len(windows), len(genes))
        kept = np.flatnonzero(in_tissue)
        shape = _covering(rows, cols, windows)
        slot = np.full(shape, -1, dtype=np.int32)
        slot[rows[kept], cols[kept]] = kept
        _check_apart(slot, rows[kept], cols[kept], kept)
        data, indices, indptr = counts.data, counts.indices, counts.indptr
        self._has_total = len(genes) < n_genes or not counted.all() or not np.array_equal(genes, np.arange(n_genes))
        if self._has_total:
            column_of = np.full(n_genes, -1, dtype=np.int32)
            column_of[genes] = np.arange(len(genes))
            counted = counted.astype(np.int32)
            entries = count_entries(data, indices, indptr, column_of, counted)
            reduced = (np.empty(len(indptr), np.int64), *(np.empty(entries + 1, np.int32) for _ in range(2)))
            select(data, indices, indptr, column_of, counted, len(genes), *reduced)
            indptr, indices, data = reduced
        # Row by row of the array: bins that are summed together lie together in memory, in whatever order they came.
        order = slot[slot >= 0]
        slot[slot >= 0] = np.arange(len(order), dtype=np.int32)
        self._slot = slot
        bounds = np.concatenate([[0], np.cumsum(np.diff(indptr)[order], dtype=np.int64)])
        gathered = [np.empty(bounds[-1], dtype=np.int32) for _ in range(2)]
        gather_rows(data, indices, indptr, order, bounds, *gathered)
        self._bins = (gathered[1], gathered[0], bounds)
        _check_size(gathered[1], bounds, windows.side)

    def take(self, index: np.ndarray) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
        """Return windows `index` (any order, repeats allowed): counts CSR int32 [m, genes], library size int64 [m]."""
        return self._sum(np.asarray(index, dtype=np.int64))

    def all(self) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
        """Return every window: counts CSR int32 [n, genes], library size int64 [n]; no second copy is made."""
        return self._sum(np.arange(len(self.windows)))

    def blocks(self) -> Iterator[scipy.sparse.csr_matrix]:
        """Yield the counts of every window in order, CSR int32 [m, genes], `BLOCK` windows at a time."""
        for first in range(0, len(self.windows), BLOCK):
            yield self.take(np.arange(first, min(first + BLOCK, len(self.windows))))[0]

    def keep(self, chosen: np.ndarray, reason: str) -> "PooledCounts":
        """Return the counts of the windows where `chosen`, bool [n]; the bins are shared, not copied."""
        kept = copy(self)
        kept.windows = self.windows.keep(chosen, reason)
        kept.shape = (len(kept.windows), self.shape[1])
        return kept

    def _sum(self, index: np.ndarray) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
        from .pooling_kernels import pool_windows

        genes = self.shape[1]
        scratch = [np.empty(CHUNK * genes + 1, dtype=np.int32) for _ in range(2)]
        indices, data = (np.empty(0, dtype=np.int32) for _ in range(2))
        indptr, library = np.zeros(len(index) + 1, dtype=np.int64), np.zeros(len(index), dtype=np.int64)
        filled = 0
        for start in range(0, len(index), CHUNK):
            part = index[start : start + CHUNK]
            bounds = np.empty(len(part) + 1, dtype=np.int64)
            n = pool_windows(
                self._slot,
                self.windows.top[part],
                self.windows.left[part],
                self.windows.side,
                *self._bins,
                genes,
                self._has_total,
                library[start : start + len(part)],
                bounds,
                *scratch,
            )
            # Grown in place: the system moves pages, not bytes, so at no time are there two copies.
            for array, new in zip((indices, data), scratch, strict=True):
                array.resize(filled + n, refcheck=False)
                array[filled:] = new[:n]
            indptr[start + 1 : start + len(part) + 1] = filled + bounds[1:]
            filled += n
        if filled < 2**31:
            indptr = indptr.astype(np.int32)
        matrix = scipy.sparse.csr_matrix((len(index), self.shape[1]), dtype=np.int32)
        # The constructor would look through all the indices again, and copy those of more than 2^31 entries.
        matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
        matrix.has_sorted_indices = matrix.has_canonical_format = True
        return matrix, library


def _shape(rows: np.ndarray, cols: np.ndarray) -> tuple[int, int]:
    if not len(rows):
        return 0, 0
    if min(rows.min(), cols.min()) < 0:
        raise DataError(
            f"a bin lies at row {rows.min()}, column {cols.min()} of the array; expected rows and columns from 0: "
            "take the positions from the run's outs"
        )
    shape = int(rows.max()) + 1, int(cols.max()) + 1
    if shape[0] * shape[1] > MOST_CELLS:
        raise DataError(
            f"bins reach row {shape[0] - 1}, column {shape[1] - 1} of the array; expected an array of at most "
            f"{MOST_CELLS:,} bins: take the positions from the run's outs"
        )
    return shape


def _covering(rows: np.ndarray, cols: np.ndarray, windows: Windows) -> tuple[int, int]:
    """Return the shape that holds all bins and all windows: bins without counts may have been left out of `rows`."""
    shape = _shape(rows, cols)
    if not len(windows):
        return shape
    return tuple(max(n, int(at.max()) + windows.side) for n, at in zip(shape, (windows.top, windows.left)))


def _check_apart(slot: np.ndarray, rows: np.ndarray, cols: np.ndarray, kept: np.ndarray) -> None:
    twice = np.flatnonzero(slot[rows, cols] != kept)
    if len(twice):
        raise DataError(
            f"{len(twice)} bins lie at an array position that another has, first row {rows[twice[0]]}, column "
            f"{cols[twice[0]]}; expected each once: give one slide's positions"
        )


def _check_size(data: np.ndarray, indptr: np.ndarray, side: int) -> None:
    """Raise DataError where a 32-bit sum could overflow; a real bin holds some hundred molecules."""
    if not len(data):
        return
    filled = np.diff(indptr) > 0
    largest = int(np.add.reduceat(data, indptr[:-1][filled], dtype=np.int64).max(initial=0))
    if largest * side**2 >= 2**31:
        raise DataError(
            f"a bin holds {largest:,} molecules, so that {side} x {side} of them could exceed 2^31; expected raw "
            "counts of small bins: give the matrix before any normalisation, or pool fewer bins"
        )
