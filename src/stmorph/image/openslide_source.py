"""Scanner vendors' formats, through OpenSlide."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .pillow_source import rgb
from .scale_record import openslide_scale
from .source import ImageSource, decoding

_BAND_PX = 256


class OpenSlideSource(ImageSource):
    """A slide that OpenSlide opens.

    OpenSlide takes places in whole pixels of the full resolution, so that a part of a coarser level whose downsampling
    is no whole number may lie up to half such a pixel beside the place where the whole level has it.
    """

    def __init__(self, path: Path):
        import openslide

        self.path = path
        with decoding(path), openslide.OpenSlide(path) as slide:
            self.levels = slide.level_dimensions
            self.scale_record = openslide_scale(slide.properties)

    @contextmanager
    def opened(self, level: int = 0) -> Iterator["_OpenLevel"]:
        """Open one stored resolution."""
        import openslide

        with openslide.OpenSlide(self.path) as slide:
            yield _OpenLevel(slide, level)


class _OpenLevel:
    def __init__(self, slide, level: int):
        self._slide, self._level = slide, level
        self._downsample = slide.level_downsamples[level]
        stored = int(slide.properties.get(f"openslide.level[{level}].tile-height", _BAND_PX))
        self.band_px = stored * max(1, _BAND_PX // stored)

    def read(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        place = round(x0 * self._downsample), round(y0 * self._downsample)
        return np.asarray(rgb(self._slide.read_region(place, self._level, (x1 - x0, y1 - y0))))


def opens(path: Path) -> bool:
    """Return whether OpenSlide opens the file, as a scanner's or as a plain tiled TIFF."""
    import openslide

    return openslide.OpenSlide.detect_format(path) is not None


def is_slide(path: Path) -> bool:
    """Return whether OpenSlide knows the scanner that made the file."""
    import openslide

    return openslide.OpenSlide.detect_format(path) not in (None, "generic-tiff")
