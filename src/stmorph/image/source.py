"""Whole-slide images of any format behind one interface: their size at once, their pixels at the scale asked for."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError

# Slides are large by nature: Pillow's guard against decompression bombs (89 megapixels) would stop HER2ST's images.
Image.MAX_IMAGE_PIXELS = 8_000_000_000

OPENSLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms")
OVERVIEW_PX = 1024
"""Longer side of an overview."""
_BLANK_STD = 2.0
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn every library's failure to decode `path` into one sentence."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # each codec has its own
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"{path} was decoded only in part or not at all ({reason}); expected a whole TIFF, JPEG, PNG, SVS or NDPI "
            "image: download it again"
        ) from error


class ImageSource(ABC):
    """An image on disk.

    path; width_px, height_px: of the full resolution; um_per_px_embedded: what the file says of its scale, or None.
    """

    path: Path
    width_px: int
    height_px: int
    um_per_px_embedded: float | None = None

    def read(self, scale: float = 1.0) -> np.ndarray:
        """Return the image at `scale` (pixels given per pixel stored), uint8 [H, W, 3], RGB.

        H and W are the scaled size, rounded; reduction averages over the area it covers (Lanczos kernel, antialiased).
        The whole image is decoded at the nearest stored resolution that is not coarser.

        Raises
        ------
        DataError
            The file is truncated or damaged, or not an 8-bit colour image.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale is {scale}; expected a number above 0")
        with _decoding(self.path):
            return self._scaled(*self._size(scale))

    def overview(self) -> np.ndarray:
        """Return the image reduced to at most `OVERVIEW_PX` on its longer side, uint8 [h, w, 3]; decoded once."""
        return self._overview

    @cached_property
    def _overview(self) -> np.ndarray:
        with _decoding(self.path):
            return self._scaled(*self._size(min(1.0, OVERVIEW_PX / max(self.width_px, self.height_px))), draft=True)

    def _size(self, scale: float) -> tuple[int, int]:
        return max(1, round(self.width_px * scale)), max(1, round(self.height_px * scale))

    @abstractmethod
    def _scaled(self, width: int, height: int, draft: bool = False) -> np.ndarray:
        """Return the image resampled to a size; `draft` allows a coarser kernel where that is much faster."""


class _PillowSource(ImageSource):
    """JPEG, PNG and whatever else Pillow opens."""

    def __init__(self, path: Path):
        self.path = path
        with _decoding(path), Image.open(path) as image:
            self.width_px, self.height_px = image.size
            dpi = image.info.get("dpi", (0, 0))[0]
            _check_mode(path, image.mode)
        self.um_per_px_embedded = _plausible(25_400 / float(dpi)) if dpi else None

    def _scaled(self, width: int, height: int, draft: bool = False) -> np.ndarray:
        with Image.open(self.path) as image:
            if draft:
                image.draft("RGB", (width, height))  # JPEG alone: decodes at 1/2, 1/4 or 1/8
            return np.asarray(_resized(_rgb(image), width, height))


class _TiffSource(ImageSource):
    """TIFF, BigTIFF and OME-TIFF, with or without a pyramid."""

    def __init__(self, path: Path):
        import tifffile

        self.path = path
        with _decoding(path), tifffile.TiffFile(path) as tif:
            if not tif.series:
                raise DataError(f"{path} holds no image; expected a whole-slide image: download it again")
            self._series = max(range(len(tif.series)), key=lambda k: tif.series[k].size)
            series = tif.series[self._series]
            page = series.keyframe
            _check_complete(path, series.levels)
            self.height_px, self.width_px, samples = _yxs_shape(path, series.axes, series.shape)
            if samples not in (3, 4) or series.dtype != np.uint8:
                raise DataError(
                    f"{path} holds {samples} channel(s) of {series.dtype}; expected H&E in colour, 3 channels of "
                    "uint8: give the H&E image"
                )
            self.um_per_px_embedded = _ome_um_per_px(tif.ome_metadata) or _tag_um_per_px(page)

    def _scaled(self, width: int, height: int, draft: bool = False) -> np.ndarray:
        import tifffile

        with tifffile.TiffFile(self.path) as tif:
            series = tif.series[self._series]
            for level in reversed(series.levels):  # the coarsest level that is still fine enough
                rows, columns, _ = _yxs_shape(self.path, level.axes, level.shape)
                if columns >= width and rows >= height:
                    break
            else:
                level = series.levels[0]
            pixels = _to_yxs(level.asarray(), level.axes)
        return np.asarray(_resized(_rgb(Image.fromarray(pixels)), width, height))


class _OpenSlideSource(ImageSource):
    """Scanner vendors' formats, through OpenSlide."""

    def __init__(self, path: Path):
        import openslide

        self.path = path
        with _decoding(path), openslide.OpenSlide(path) as slide:
            self.width_px, self.height_px = slide.dimensions
            mpp = slide.properties.get(openslide.PROPERTY_NAME_MPP_X)
        self.um_per_px_embedded = _plausible(float(mpp)) if mpp else None

    def _scaled(self, width: int, height: int, draft: bool = False) -> np.ndarray:
        import openslide

        with openslide.OpenSlide(self.path) as slide:
            fine = [
                level
                for level, (columns, rows) in enumerate(slide.level_dimensions)
                if columns >= width and rows >= height
            ]
            level = max(fine, default=0)
            region = slide.read_region((0, 0), level, slide.level_dimensions[level])
        return np.asarray(_resized(_rgb(region), width, height))


def open_image(path: str | Path) -> ImageSource:
    """Open an image; its size is known at once, no pixel is decoded.

    What the file holds decides, not its name, except for scanners' formats (`OPENSLIDE_SUFFIXES`), which are TIFF to
    the eye and need OpenSlide.

    Raises
    ------
    DataError
        The file is missing, is no image, is not in colour, or (TIFF) ends before its last tile.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}, an image, does not exist; correct the path or download it")
    if path.suffix.lower() in OPENSLIDE_SUFFIXES:
        return _OpenSlideSource(path)
    with path.open("rb") as file:
        magic = file.read(4)
    return _TiffSource(path) if magic in _TIFF_MAGIC else _PillowSource(path)


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


def _check_mode(path: Path, mode: str) -> None:
    if mode not in ("RGB", "RGBA", "RGBX", "P", "CMYK", "YCbCr"):
        raise DataError(f"{path} is not in colour (Pillow's mode {mode}); expected H&E in RGB: give the H&E image")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "P"):
        image = image.convert("RGBA")
        # Where nothing was scanned is as white as glass.
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _yxs_shape(path: Path, axes: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    size = dict(zip(axes, shape))
    if len(axes) != len(size) or not {"Y", "X"} <= set(size):
        raise DataError(f"{path} has the axes {axes}; expected one picture with the axes YXS: give the H&E image")
    others = {axis: n for axis, n in size.items() if axis not in "YXSC" and n > 1}
    if others or (size.get("S", 1) > 1 and size.get("C", 1) > 1):
        raise DataError(
            f"{path} is a stack of pictures (axes {axes}, {shape}); expected one picture: give the H&E image"
        )
    return size["Y"], size["X"], size.get("S", 1) * size.get("C", 1)


def _to_yxs(pixels: np.ndarray, axes: str) -> np.ndarray:
    channel = "S" if "S" in axes and pixels.shape[axes.index("S")] > 1 else "C"
    order = [axes.index(axis) for axis in ("Y", "X", channel)]
    others = [k for k in range(pixels.ndim) if k not in order]
    return np.ascontiguousarray(pixels.transpose(*order, *others).reshape([pixels.shape[k] for k in order]))


def _check_complete(path: Path, levels: list) -> None:
    size = path.stat().st_size
    for level in levels:
        for page in level.pages:
            if page is None:
                continue
            ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts)]
            if not ends or max(ends) > size or 0 in page.databytecounts:
                raise DataError(
                    f"{path} has {size} bytes, but its pixels end at byte {max(ends, default=0)} or are partly "
                    "missing; expected a whole TIFF: download it again"
                )


def _plausible(um_per_px: float) -> float | None:
    # 72, 96 or 300 dots per inch is a printer's default, not a microscope's scale.
    return um_per_px if 0.02 < um_per_px < 20 else None


def _tag_um_per_px(page) -> float | None:
    resolution, unit = page.tags.valueof("XResolution"), page.tags.valueof("ResolutionUnit")
    um = {2: 25_400.0, 3: 10_000.0}.get(unit)
    if not resolution or um is None or not resolution[0] or not resolution[1]:
        return None
    return _plausible(um * resolution[1] / resolution[0])


def _ome_um_per_px(ome: str | None) -> float | None:
    if not ome:
        return None
    size = re.search(r'PhysicalSizeX="([0-9.eE+-]+)"', ome)
    unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', ome)
    um = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3}.get(unit.group(1) if unit else "µm")
    return _plausible(float(size.group(1)) * um) if size and um else None
