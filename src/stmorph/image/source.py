"""Whole-slide images of any format behind one interface: their size at once, and any part of them at any scale.

Nothing here holds a whole slide: pixels come as a region, or as strips from top to bottom.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError, reason_of, unread
from ..file_kind import foreign_kind
from .resample import resample_columns, resample_rows, windows
from .scale_record import ScaleRecord

OPENSLIDE_SUFFIXES = (".ndpi", ".mrxs", ".scn", ".bif", ".vms")
OVERVIEW_PX = 1024
"""Longer side of an overview."""
_BLANK_STD = 2.0
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class OpenLevel(Protocol):
    """One stored resolution of an open image; `band_px`: rows that are best decoded together."""

    band_px: int

    def read(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """Return the pixels of a box, uint8 [y1 - y0, x1 - x0, 3]."""
        ...


class ImageSource(ABC):
    """An image on disk.

    path. levels: (width, height) in px of each stored resolution, the full one first. scale_record: what the file says
    of its scale.

    The image at a scale is defined once, by `read`; `region` and `strips` give the same pixels in parts.
    """

    path: Path
    levels: tuple[tuple[int, int], ...]
    scale_record: ScaleRecord

    @property
    def width_px(self) -> int:
        """Width of the full resolution."""
        return self.levels[0][0]

    @property
    def height_px(self) -> int:
        """Height of the full resolution."""
        return self.levels[0][1]

    @property
    def um_per_px_embedded(self) -> float | None:
        """What the file says of its scale, or None."""
        return self.scale_record.um_per_px

    def size(self, scale: float = 1.0) -> tuple[int, int]:
        """Return width and height of the image at `scale`: the scaled size, rounded."""
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale is {scale}; expected a number above 0")
        return max(1, round(self.width_px * scale)), max(1, round(self.height_px * scale))

    def read(self, scale: float = 1.0) -> np.ndarray:
        """Return the image at `scale` (pixels given per pixel stored), uint8 [H, W, 3], RGB.

        Reduction averages over the area it covers (Lanczos kernel, antialiased), from the nearest stored resolution
        that is not coarser.

        Raises
        ------
        DataError
            The file is truncated or damaged, or not an 8-bit colour image.
        """
        width, height = self.size(scale)
        out = np.empty((height, width, 3), np.uint8)
        for top, pixels in self.strips(scale):
            out[top : top + len(pixels)] = pixels
        return out

    def region(self, x_px: int, y_px: int, width_px: int, height_px: int, scale: float = 1.0) -> np.ndarray:
        """Return a box of the image at `scale`, uint8 [height_px, width_px, 3]; of a tiled file only it is decoded.

        Parameters
        ----------
        x_px, y_px, width_px, height_px
            The box, in pixels of the image at `scale`.
        scale
            As for `read`.

        Raises
        ------
        DataError
            The box leaves the image; or as `read`.
        """
        across, down = self.size(scale)
        if min(x_px, y_px) < 0 or min(width_px, height_px) < 1 or x_px + width_px > across or y_px + height_px > down:
            raise DataError(
                f"{self.path} has {across} x {down} px at scale {scale:g}, but {width_px} x {height_px} px at ({x_px}, "
                f"{y_px}) were asked for; expected a box inside the image: correct it"
            )
        level = self._level_for(across, down)
        columns, rows = (windows(*sizes) for sizes in zip(self.levels[level], (across, down)))
        columns = columns and columns.part(x_px, x_px + width_px)
        rows = rows and rows.part(y_px, y_px + height_px)
        x0, x1 = columns.needed if columns else (x_px, x_px + width_px)
        y0, y1 = rows.needed if rows else (y_px, y_px + height_px)
        with self.decoded(level) as source:
            return resample_rows(resample_columns(source.read(x0, y0, x1, y1), columns, x0), rows, y0)

    def strips(self, scale: float = 1.0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the image at `scale` from top to bottom as (first row, uint8 [h, W, 3]); each part is decoded once.

        Strips are as high as the file's own tiles make them. At a time a band of the image's width is held.

        Raises
        ------
        DataError
            As `read`.
        """
        across, down = self.size(scale)
        level = self._level_for(across, down)
        wide, high = self.levels[level]
        columns, rows = windows(wide, across), windows(high, down)
        waiting, first, done = np.empty((0, across, 3), np.uint8), 0, 0
        with self.decoded(level) as source:
            for top in range(0, high, source.band_px):
                bottom = min(high, top + source.band_px)
                band = resample_columns(source.read(0, top, wide, bottom), columns)
                if rows is None:
                    yield top, band
                    continue
                waiting = np.concatenate([waiting, band]) if len(waiting) else band
                ready = done + int(np.searchsorted((rows.first + rows.count)[done:], bottom, side="right"))
                if ready > done:
                    yield done, resample_rows(waiting, rows.part(done, ready), first)
                    done = ready
                    kept = int(rows.first[done]) if done < down else bottom
                    waiting, first = waiting[kept - first :], kept

    def overview(self) -> np.ndarray:
        """Return the image reduced to at most `OVERVIEW_PX` on its longer side, uint8 [h, w, 3]; decoded once."""
        return self._overview

    @cached_property
    def _overview(self) -> np.ndarray:
        with decoding(self.path):
            return self._overview_of(*self.size(min(1.0, OVERVIEW_PX / max(self.width_px, self.height_px))))

    def _overview_of(self, width: int, height: int) -> np.ndarray:
        return self.read(min(1.0, OVERVIEW_PX / max(self.width_px, self.height_px)))

    def _level_for(self, width: int, height: int) -> int:
        """Return the coarsest stored resolution that is still as fine as asked for."""
        fine = [level for level, (across, down) in enumerate(self.levels) if across >= width and down >= height]
        return max(fine, default=0)

    @contextmanager
    def decoded(self, level: int = 0) -> Iterator[OpenLevel]:
        """Open one stored resolution for many reads; what goes wrong in them is one sentence, a `DataError`."""
        with decoding(self.path), self.opened(level) as source:
            yield source

    @abstractmethod
    def opened(self, level: int = 0) -> AbstractContextManager[OpenLevel]:
        """Open one stored resolution, for many reads."""


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn every library's failure to decode `path` into one sentence."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # each codec has its own
        if told := unread(path, error, "an image", "store it as a tiled TIFF"):
            raise told from error
        if (kind := foreign_kind(path)) is not None:
            raise DataError(f"{path} is {kind[0]}; expected a TIFF, JPEG, PNG, SVS or NDPI image: {kind[1]}") from error
        raise DataError(
            f"{path} was decoded only in part or not at all ({reason_of(error)}); expected a whole TIFF, JPEG, PNG, "
            "SVS or NDPI image: download it again, or save it as a tiled TIFF if it is of another kind"
        ) from error


def open_image(path: str | Path) -> ImageSource:
    """Open an image; its size is known at once, no pixel is decoded.

    What the file holds decides, not its name. Scanners' formats (`OPENSLIDE_SUFFIXES`) may be TIFF to the eye and need
    OpenSlide, where it knows them. SVS is read as the TIFF it is, by OpenSlide only where that is not enough.

    Raises
    ------
    DataError
        The file is missing, is no image, is not in colour, or (TIFF) ends before its last tile.
    """
    from .openslide_source import OpenSlideSource, is_slide, opens
    from .pillow_source import PillowSource
    from .tiff_source import APERIO_YCBCR, SparseTiffError, TiffSource
    from .zarr_source import ZarrSource, is_zarr

    path = Path(path)
    with decoding(path):
        if is_zarr(path):
            return ZarrSource(path)
        if path.is_dir():
            raise DataError(f"{path} is a folder; expected an image, or a folder of OME-Zarr: give the file")
        if not path.is_file():
            raise DataError(f"{path}, an image, does not exist; expected a file: correct the path or download it")
        with path.open("rb") as file:
            magic = file.read(4)
        suffix = path.suffix.lower()
        if suffix in OPENSLIDE_SUFFIXES and opens(path):
            return OpenSlideSource(path)
        if magic not in _TIFF_MAGIC:
            # DICOM among them, whose resolutions are files of one folder.
            return OpenSlideSource(path) if suffix == ".svs" or is_slide(path) else PillowSource(path)
    if suffix == ".ndpi":
        raise DataError(
            f"{path} is no NDPI scan that OpenSlide knows; expected one, or another name: download it again, or, if it "
            "is a plain TIFF, call it .tif"
        )
    try:
        source = TiffSource(path)
    except SparseTiffError:
        # Scanners leave out what they did not scan; OpenSlide knows what stands for it.
        if is_slide(path):
            return OpenSlideSource(path)
        raise
    return OpenSlideSource(path) if source.compression == APERIO_YCBCR else source


def check_image(path: str | Path) -> ImageSource:
    """Open an image and find truncation and blankness by decoding an overview (kept: `overview()` is free after it).

    Raises
    ------
    DataError
        As `open_image`; or the image cannot be decoded to its end, or shows nothing.
    """
    source = open_image(path)
    spread = float(source.overview().reshape(-1, 3).std(axis=0).max())
    if spread < _BLANK_STD:
        raise DataError(
            f"{path} is blank (standard deviation {spread:.2f} of 255 grey levels); expected stained tissue: give the "
            "H&E image, or download it again"
        )
    return source
