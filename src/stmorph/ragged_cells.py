"""The cells of multi-cell tiles: kept sparse, made dense a tile at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse

from .expression import TargetSpace, to_target_space


@dataclass(frozen=True)
class RaggedCells(Sequence):
    """The cells of n units; item i is float32 [n_cells_i, G] in the target space.

    A cell of weight w shows w times its counts (per its own whole library), so that half a cell counts half.

    counts: CSR [m, G] of the panel, one row a cell. library: float64 [m], each cell's own total.
    start: int64 [n'], stop: int64 [n'], cell: int64 [p], weight: float64 [p]: unit u of the slides holds
    cell[start[u] : stop[u]]. chosen: int64 [n], which of the units these are.
    """

    counts: scipy.sparse.csr_matrix
    library: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    cell: np.ndarray
    weight: np.ndarray
    chosen: np.ndarray
    target_space: TargetSpace

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, unit: int) -> np.ndarray:
        """Return the cells of one unit."""
        place = self.chosen[unit]
        held = slice(self.start[place], self.stop[place])
        cell = self.cell[held]
        shown = self.counts[cell].toarray() * self.weight[held, None]
        return to_target_space(shown, self.library[cell], self.target_space)

    def most(self) -> int:
        """Return the largest number of cells of a unit, 0 without units."""
        return int((self.stop[self.chosen] - self.start[self.chosen]).max(initial=0))

    def take(self, index: np.ndarray) -> "RaggedCells":
        """Return the units `index` (int64), in that order; nothing is copied."""
        return replace(self, chosen=self.chosen[index])

    @classmethod
    def of(
        cls, record: Mapping[str, Any], genes: np.ndarray, measured: np.ndarray, target_space: TargetSpace
    ) -> "RaggedCells":
        """Return the cells that a slide's uns['cells'] holds.

        Parameters
        ----------
        record
            As `read.window_units` writes it.
        genes
            Columns of the panel's genes, int64 [G].
        measured
            Which columns are no controls, bool: they make up a cell's library.
        target_space
            Of the items.
        """
        counts = scipy.sparse.csr_matrix(record["counts"])
        start = np.asarray(record["start"], dtype=np.int64)
        return cls(
            counts=scipy.sparse.csr_matrix(counts[:, genes]),
            library=np.asarray(counts[:, np.flatnonzero(measured)].sum(axis=1), dtype=np.float64).ravel(),
            start=start[:-1],
            stop=start[1:],
            cell=np.asarray(record["cell"], dtype=np.int64),
            weight=np.asarray(record["weight"], dtype=np.float64),
            chosen=np.arange(len(start) - 1),
            target_space=target_space,
        )

    @staticmethod
    def joined(parts: Sequence["RaggedCells"]) -> "RaggedCells":
        """Return the units of several slides, one after the other."""
        pairs = np.cumsum([0, *(len(part.cell) for part in parts)])
        cells = np.cumsum([0, *(part.counts.shape[0] for part in parts)])
        units = np.cumsum([0, *(len(part.start) for part in parts)])
        return RaggedCells(
            counts=scipy.sparse.vstack([part.counts for part in parts], format="csr"),
            library=np.concatenate([part.library for part in parts]),
            start=np.concatenate([part.start + offset for part, offset in zip(parts, pairs)]),
            stop=np.concatenate([part.stop + offset for part, offset in zip(parts, pairs)]),
            cell=np.concatenate([part.cell + offset for part, offset in zip(parts, cells)]),
            weight=np.concatenate([part.weight for part in parts]),
            chosen=np.concatenate([part.chosen + offset for part, offset in zip(parts, units)]),
            target_space=parts[0].target_space,
        )
