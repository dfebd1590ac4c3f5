"""A picture in memory behind the same interface as one on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .scale_record import NOTHING
from .source import ImageSource


class ArraySource(ImageSource):
    """uint8 [H, W, 3]; it is not copied and not changed."""

    def __init__(self, pixels: np.ndarray, name: str = "the image"):
        self.path, self.scale_record = Path(name), NOTHING
        self.levels = ((pixels.shape[1], pixels.shape[0]),)
        self._pixels = pixels

    @contextmanager
    def opened(self, level: int = 0) -> Iterator["_Array"]:
        """Give the picture; it has one level."""
        yield _Array(self._pixels)


class _Array:
    band_px = 256

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels

    def read(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        return self._pixels[y0:y1, x0:x1]
