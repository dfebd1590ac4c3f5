"""The units (spots, pseudo-spots, cells) of one role of a split, joined by barcode from every stage's file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from .ragged_cells import RaggedCells


class TileReader(Protocol):
    """Gives tiles as pictures; tiles are views into slide stores."""

    def read(self, index: np.ndarray) -> np.ndarray:
        """Return the tiles of units `index` (int64 [k]) as uint8 [k, H, W, C]."""
        ...


@dataclass(frozen=True)
class Units:
    """Joined data of n units, in the order of (slide, barcode).

    slide, barcode: str [n]. spatial_um: float64 [n, 2], x and y on the slide.
    genes: the panel. expression: float32 [n, G] in the target space.
    embedding: float32 [n, views, dim] or None; view 0 is the tile as it is.
    tiles: reader of the n tiles, or None.
    cells: n float32 [n_cells_i, G] arrays, or None (spots have no cells).
    """

    slide: np.ndarray
    barcode: np.ndarray
    spatial_um: np.ndarray
    genes: tuple[str, ...]
    expression: np.ndarray
    embedding: np.ndarray | None = None
    tiles: TileReader | None = None
    cells: Sequence[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.barcode)

    def names(self) -> np.ndarray:
        """Return `slide/barcode` of every unit: unique within a run."""
        return np.array([f"{s}/{b}" for s, b in zip(self.slide, self.barcode)])

    def take(self, index: np.ndarray) -> "Units":
        """Return the units `index` (int64 or bool), in that order."""
        index = np.flatnonzero(index) if np.asarray(index).dtype == bool else np.asarray(index, dtype=np.int64)
        return replace(
            self,
            slide=self.slide[index],
            barcode=self.barcode[index],
            spatial_um=self.spatial_um[index],
            expression=self.expression[index],
            embedding=None if self.embedding is None else self.embedding[index],
            tiles=None if self.tiles is None else ChosenTiles(self.tiles, index),
            cells=self._cells_of(index),
        )

    def _cells_of(self, index: np.ndarray) -> Sequence[np.ndarray] | None:
        if self.cells is None:
            return None
        if isinstance(self.cells, RaggedCells):
            return self.cells.take(index)
        return [self.cells[i] for i in index]


@dataclass(frozen=True)
class ChosenTiles:
    """Some tiles of another reader."""

    source: TileReader
    chosen: np.ndarray

    def read(self, index: np.ndarray) -> np.ndarray:
        """Return tiles `index` of the chosen ones as uint8 [k, H, W, C]."""
        return self.source.read(self.chosen[index])
