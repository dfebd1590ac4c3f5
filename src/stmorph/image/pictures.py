"""Tiles that arrive as pictures (HEST's patches, SPIDER), behind the interface of tiles that are views of a slide.

They are read by barcode: a file's order is its own. Another size or field of view is cut from the centre and resized
with an antialiasing kernel; a picture that fits already is given as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import DataError
from ..read.hest_patches import check_pictures, patch_barcodes
from ..read.tables import reading


class _Pictures:
    """A `units.TileReader` over stored pictures; subclasses say how one row is fetched."""

    path: Path

    def __init__(self, rows: np.ndarray, side_px: int, size_px: int, crop: float):
        self.rows, self.side_px, self.size_px, self.crop = np.asarray(rows, np.int64), side_px, int(size_px), crop

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: np.ndarray) -> np.ndarray:
        """Return the tiles of units `index` (int64 [k]) as uint8 [k, size_px, size_px, 3], in that order."""
        index = np.asarray(index, dtype=np.int64)
        out = np.empty((len(index), self.size_px, self.size_px, 3), np.uint8)
        source = self._open()
        rows = self.rows[index]
        with reading(self.path, "pictures of tiles"):
            for place in np.argsort(rows, kind="stable"):  # in the file's order: disks like it
                out[place] = fitted(source[rows[place]], self.size_px, self.crop)
        return out

    def _open(self) -> Any:
        raise NotImplementedError


class PatchTiles(_Pictures):
    """Tiles of a HEST-1k `patches/<id>.h5`, by barcode.

    A reader is pickled as its path and opened once in each process.
    """

    def __init__(
        self,
        path: str | Path,
        barcode: Sequence[str],
        size_px: int | None = None,
        fov_um: float | None = None,
        um_per_px: float | None = None,
    ):
        """Find the patches of some units.

        Parameters
        ----------
        path
            Datasets `img` uint8 [n, S, S, 3], `barcode` [n, 1] and, from HEST 1.0.2 on, `coords` [n, 2].
        barcode
            Of the units, str [k]; each must have a patch.
        size_px
            Side of the tiles; None: as stored.
        fov_um
            Field of view; None: as stored. A smaller one is cut from the centre.
        um_per_px
            Of the patches; None: what the file tells.

        Raises
        ------
        DataError
            The file is damaged, a unit has no patch, or the field of view is larger than the patches' or their scale
            is not told.
        """
        self.path = Path(path)
        self._file: Any = None
        table = patch_barcodes(self.path)
        side = int(table.attrs["side_px"])
        crop = _crop(self.path, side, fov_um, um_per_px or table.attrs["um_per_px"])
        super().__init__(_rows_of(table["row"], barcode, self.path), side, size_px or side, crop)

    def _open(self) -> Any:
        import h5py

        if self._file is None:
            with reading(self.path, "HEST-1k's patches (h5)"):
                self._file = h5py.File(self.path)
        return self._file["img"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


class ArrayTiles(_Pictures):
    """Tiles of one uint8 `.npy` store [n, S, S, 3], memory-mapped."""

    def __init__(
        self,
        path: str | Path,
        rows: np.ndarray | None = None,
        size_px: int | None = None,
        fov_um: float | None = None,
        um_per_px: float | None = None,
    ):
        """Open a store.

        Parameters
        ----------
        path
            The store.
        rows
            The rows that are units, int64 [k]; None: all.
        size_px, fov_um
            As of `PatchTiles`.
        um_per_px
            Of the stored pictures; needed for `fov_um`.

        Raises
        ------
        DataError
            The file is damaged or holds something else, or a row does not exist.
        """
        self.path = Path(path)
        self._array: Any = None
        shape = self._open().shape
        rows = np.arange(shape[0]) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= shape[0]):
            raise DataError(
                f"{self.path} holds {shape[0]} tiles, but row {rows.max()} was asked for; expected its own list: make "
                "both again"
            )
        super().__init__(rows, shape[1], size_px or shape[1], _crop(self.path, shape[1], fov_um, um_per_px))

    def _open(self) -> Any:
        if self._array is None:
            with reading(self.path, "a store of tiles (npy)"):
                array = np.load(self.path, mmap_mode="r")
                check_pictures(self.path, array.shape, array.dtype)
                self._array = np.asarray(array)
        return self._array

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}


def fitted(picture: np.ndarray, size_px: int, crop: float = 1.0) -> np.ndarray:
    """Return the central part of a picture at another size, uint8 [size_px, size_px, 3].

    Parameters
    ----------
    picture
        uint8 [S, S, 3].
    size_px
        Side wanted.
    crop
        Share of the side that is kept, above 0 and at most 1; its border may fall between pixels.
    """
    side = picture.shape[0]
    if crop == 1.0 and side == size_px:
        return picture
    margin = side * (1 - crop) / 2
    box = (margin, margin, side - margin, side - margin)
    return np.asarray(Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.LANCZOS, box))


def _crop(path: Path, side_px: int, fov_um: float | None, um_per_px: float | None) -> float:
    if fov_um is None:
        return 1.0
    if um_per_px is None:
        raise DataError(
            f"{path} does not tell the scale of its pictures, so {fov_um:g} um cannot be cut from them; expected um "
            "per px: give it, or take the pictures whole"
        )
    whole_um = side_px * um_per_px
    if not 0 < fov_um <= whole_um * (1 + 1e-6):
        raise DataError(
            f"{path} holds pictures of {whole_um:.1f} um, but a field of view of {fov_um:g} um was asked for; expected "
            "at most as much: lower fov_um, or cut the tiles from the slide's image"
        )
    return min(1.0, fov_um / whole_um)


def _rows_of(row_of: pd.Series, barcode: Sequence[str], path: Path) -> np.ndarray:
    found = row_of.reindex(list(barcode))
    missing = found.isna().to_numpy()
    if missing.any():
        first = found.index[missing][0]
        raise DataError(
            f"{path} has no picture of {int(missing.sum())} of {len(found)} units, first {first!r} (its own are named "
            f"like {row_of.index[0]!r}); expected one for each: leave them out, or cut tiles from the slide's image"
        )
    return found.to_numpy(np.int64)
