"""Reading slide.h5ad in parts: its tables as they are asked for, its counts in blocks of rows.

The counts of a full Visium HD slide are some ten GiB, and no stage needs them all at once. Every stage after the slide
itself reads through this module, and none holds more than a block.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from .errors import DataError

if TYPE_CHECKING:
    import anndata
    import h5py
    import pandas as pd

BLOCK_ENTRIES = 2**24
"""Entries of a block, some 130 MB: most slides are one block."""


@dataclass(frozen=True, eq=False)
class SlideFile:
    """A slide on disk, or some units of it. Everything is read when it is asked for, once.

    rows: which rows of the file these units are, int64 [n], in the order of the units; None: all.

    Every property, and `blocks`, raises DataError where the file is damaged.
    """

    path: Path
    rows: np.ndarray | None = None

    @cached_property
    def about(self) -> dict[str, Any]:
        """What `read_slide` noted of the slide, its name among it."""
        return self._element("uns/stmorph")

    @cached_property
    def var(self) -> "pd.DataFrame":
        """One row a gene, indexed by its name; `control` says which are none."""
        return self._element("var")

    @cached_property
    def obs(self) -> "pd.DataFrame":
        """One row a unit, indexed by its barcode."""
        obs = self._element("obs")
        return obs if self.rows is None else obs.iloc[self.rows]

    @cached_property
    def obs_names(self) -> "pd.Index":
        """The units' barcodes."""
        return self.obs.index

    @cached_property
    def spatial_um(self) -> np.ndarray:
        """The units' x and y from the image's top-left corner, float64 [n, 2]."""
        spatial_um = np.asarray(self._element("obsm/spatial_um"), dtype=np.float64)
        return spatial_um if self.rows is None else spatial_um[self.rows]

    @cached_property
    def cells(self) -> dict[str, Any] | None:
        """The cells of the file's windows, as `read.window_units` gives them; None where units are no windows."""
        with self._opened() as file:
            windows = "cells" in file["uns"]
        return self._element("uns/cells") if windows else None

    def cells_of_windows(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return `start` and `cell` of the cells of the file's windows, without their counts; None without windows."""
        with self._opened() as file:
            windows = file["uns"].get("cells")
            return None if windows is None else (windows["start"][:], windows["cell"][:])

    @cached_property
    def outlines_um(self) -> np.ndarray | None:
        """Outlines of the units that are cells, or of the cells of windows, [m, V, 2]; NaN for a cell without."""
        with self._opened() as file:
            place = next((name for name in ("obsm/boundary_um", "uns/cell_outlines_um") if name in file), None)
        return None if place is None else np.asarray(self._element(place), dtype=np.float64)

    @cached_property
    def indptr(self) -> np.ndarray:
        """Where each row's counts begin in the file, int64 [rows of the file + 1]."""
        with self._opened() as file:
            return file["X/indptr"][:].astype(np.int64)

    @property
    def n_obs(self) -> int:
        """How many units these are."""
        return len(self.obs_names)

    @property
    def nnz(self) -> int:
        """How many counts above 0 these units have."""
        number = np.diff(self.indptr)
        return int((number if self.rows is None else number[self.rows]).sum())

    def take(self, index: np.ndarray) -> "SlideFile":
        """Return the units `index` (int64), in that order; no count is read."""
        index = np.asarray(index, dtype=np.int64)
        return replace(self, rows=index if self.rows is None else self.rows[index])

    def blocks(self) -> Iterator[tuple[np.ndarray, scipy.sparse.csr_matrix]]:
        """Yield every unit once, in the file's order: which of the units, int64 [m], and their counts, CSR [m, G].

        At most `BLOCK_ENTRIES` are read at a time; a row is read whole whatever it holds.
        """
        indptr, columns = self.indptr, len(self.var)
        rows = np.arange(len(indptr) - 1) if self.rows is None else self.rows
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        start = 0
        while start < len(rows):
            first = rows[start]
            reach = max(first + 1, np.searchsorted(indptr, indptr[first] + BLOCK_ENTRIES, side="right") - 1)
            stop = int(np.searchsorted(rows, reach))
            last = rows[stop - 1] + 1
            bounds = indptr[first : last + 1]
            with self._opened() as file:
                data, indices = (file[f"X/{name}"][bounds[0] : bounds[-1]] for name in ("data", "indices"))
            block = scipy.sparse.csr_matrix((data, indices, bounds - bounds[0]), shape=(last - first, columns))
            if stop - start < last - first or (np.diff(rows[start:stop]) == 0).any():
                block = block[rows[start:stop] - first]
            yield order[start:stop], block
            start = stop

    def _element(self, name: str) -> Any:
        import anndata

        with self._opened() as file:
            return anndata.io.read_elem(file[name])

    @contextmanager
    def _opened(self) -> Iterator["h5py.File"]:
        import h5py

        try:
            with h5py.File(self.path) as file:
                yield file
        except (OSError, KeyError) as error:
            raise DataError(f"{self.path} is no slide ({error}); delete it and make it again") from error


@dataclass(frozen=True, eq=False)
class HeldSlide:
    """A slide in memory, read like one on disk."""

    slide: "anndata.AnnData"

    @property
    def about(self) -> dict[str, Any]:
        """As `SlideFile`."""
        return self.slide.uns["stmorph"]

    @property
    def var(self) -> "pd.DataFrame":
        """As `SlideFile`."""
        return self.slide.var

    @property
    def obs(self) -> "pd.DataFrame":
        """As `SlideFile`."""
        return self.slide.obs

    @property
    def spatial_um(self) -> np.ndarray:
        """As `SlideFile`."""
        return np.asarray(self.slide.obsm["spatial_um"], dtype=np.float64)

    @property
    def n_obs(self) -> int:
        """As `SlideFile`."""
        return self.slide.n_obs

    @property
    def nnz(self) -> int:
        """As `SlideFile`."""
        return int(scipy.sparse.csr_matrix(self.slide.X).nnz)

    def blocks(self) -> Iterator[tuple[np.ndarray, scipy.sparse.csr_matrix]]:
        """Yield all units and their counts, which are there already."""
        yield np.arange(self.slide.n_obs), scipy.sparse.csr_matrix(self.slide.X)


SlideRows = SlideFile | HeldSlide
"""Units whose counts come in blocks of rows."""


def open_slide(path: str | Path) -> SlideFile:
    """Return the slide of a slide.h5ad; nothing is read yet."""
    return SlideFile(Path(path))


def slide_rows(slide: "anndata.AnnData | SlideRows") -> SlideRows:
    """Return a slide in memory as one that is read in blocks; one that is read so already as it is."""
    return slide if isinstance(slide, SlideFile | HeldSlide) else HeldSlide(slide)


def rows_of(names: Sequence[str], wanted: np.ndarray, path: str | Path) -> np.ndarray:
    """Return the place of each of the barcodes `wanted` among the `names` of a file, int64.

    Raises
    ------
    DataError
        The file, which a split was made after, lacks a barcode.
    """
    import pandas as pd

    rows = pd.Index(names).get_indexer(wanted)
    if (rows < 0).any():
        raise DataError(
            f"{path} lacks {int((rows < 0).sum())} of {len(wanted)} units that the split names, the first "
            f"{wanted[rows < 0][0]}; it is older than the split: delete it and run again"
        )
    return rows
