"""Units to tensors: which units a step sees is a function of (seed, step) alone, so an interruption changes nothing."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from .errors import DataError
from .image.views import VIEWS, view
from .methods.base import Batch, Need
from .ragged_cells import RaggedCells
from .randomness import numpy_generator
from .units import Units


class Batcher:
    """Gives batches of some units with the parts that a method needs.

    Parameters
    ----------
    units
        The units; view v of a tile and view v of its embedding are both `VIEWS[v]`.
    needs
        Parts beyond expression: `tiles`, `embedding`, `cells`. Others are None in the batches and never read.
    max_cells
        Length to which cells are padded; None: the largest number of cells among the units. A unit with more cells
        gives a random choice of them that depends on its name alone.
    show_expression
        False fills the expression with NaN: the conditions of a predictor, which must not see it.

    Raises
    ------
    DataError
        The units lack a part that is needed.
    """

    def __init__(
        self, units: Units, needs: frozenset[Need], max_cells: int | None = None, show_expression: bool = True
    ):
        for need in sorted(needs):
            if getattr(units, need) is None:
                raise DataError(
                    f"the method needs {need}, but the {len(units)} units have none; give the run data with {need} "
                    "or choose a method that does without"
                )
        self.units, self.needs, self.show_expression = units, needs, show_expression
        if "cells" in needs:
            self.max_cells = max_cells or _most_cells(units.cells) or 1

    def __len__(self) -> int:
        return len(self.units)

    def batch(self, index: np.ndarray, view_index: np.ndarray | int = 0) -> Batch:
        """Return the units `index` (int64 [B]), each in its view (int64 [B], or one for all), on the CPU."""
        index = np.asarray(index, dtype=np.int64)
        views = np.broadcast_to(np.asarray(view_index, dtype=np.int64), index.shape)
        expression = np.asarray(self.units.expression[index], dtype=np.float32)
        if not self.show_expression:
            expression = np.full_like(expression, np.nan)
        cells, mask = self._cells(index) if "cells" in self.needs else (None, None)
        return Batch(
            expression=torch.from_numpy(expression),
            embedding=self._embedding(index, views) if "embedding" in self.needs else None,
            image=self._image(index, views) if "tiles" in self.needs else None,
            cells=cells,
            cell_mask=mask,
        )

    def _embedding(self, index: np.ndarray, views: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.units.embedding[index, views], dtype=np.float32))

    def _image(self, index: np.ndarray, views: np.ndarray) -> torch.Tensor:
        tiles = self.units.tiles.read(index)
        if views.any():
            tiles = np.stack([view(tile, VIEWS[v]) for tile, v in zip(tiles, views)])
        return torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1)

    def _cells(self, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        padded = torch.zeros(len(index), self.max_cells, self.units.expression.shape[1])
        mask = torch.zeros(len(index), self.max_cells, dtype=torch.bool)
        for row, i in enumerate(index):
            cells = self.units.cells[i]
            if len(cells) > self.max_cells:
                name = f"{self.units.slide[i]}/{self.units.barcode[i]}"
                chosen = numpy_generator("cells", name).choice(len(cells), self.max_cells, replace=False)
                cells = cells[np.sort(chosen)]
            padded[row, : len(cells)] = torch.from_numpy(np.asarray(cells, dtype=np.float32))
            mask[row, : len(cells)] = True
        return padded, mask


def _most_cells(cells: Sequence[np.ndarray]) -> int:
    if isinstance(cells, RaggedCells):  # asked one by one, each would be made dense
        return cells.most()
    return max((len(some) for some in cells), default=0)


def check_views(units: Units, needs: frozenset[Need], views: int) -> None:
    """Check that training may draw from the first `views` of `VIEWS`.

    Raises
    ------
    DataError
        The units' embedding holds fewer views.
    """
    if "embedding" in needs and units.embedding.shape[1] < views:
        raise DataError(
            f"training asks for {views} views of each tile, but the embedding holds {units.embedding.shape[1]}; "
            f"embed {views} views or set training.views to {units.embedding.shape[1]}"
        )


def rows_of_step(seed: int, step: int, n: int, batch_size: int, views: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the views of a training step, both int64 [batch_size].

    The epochs, each a permutation of all n units, form one endless row of units that the batches cut into pieces; so no
    unit is left out because n is not a multiple of the batch size. Each unit's view is drawn anew in every step.
    """
    position = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.array([_epoch(seed, int(epoch), n)[place] for epoch, place in zip(position // n, position % n)])
    if views == 1:
        return rows, np.zeros(batch_size, dtype=np.int64)
    return rows, numpy_generator(seed, "views", step).integers(views, size=batch_size)


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, n: int) -> np.ndarray:
    return numpy_generator(seed, "epoch", epoch).permutation(n)


def ahead(make: Callable[[int], Batch], steps: range, depth: int) -> Iterator[Batch]:
    """Yield `make(step)` for each step, up to `depth` of them made beforehand in another thread (0: none, no thread).

    Batches are functions of their step, so the depth changes no batch.
    """
    if depth == 0:
        yield from map(make, steps)
        return
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        waiting = [pool.submit(make, step) for step in steps[:depth]]
        for step in steps:
            if step + depth in steps:
                waiting.append(pool.submit(make, step + depth))
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
