"""JPEG, PNG, JPEG2000 and whatever else Pillow opens: formats without regions, decoded whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from .scale_record import dpi_scale
from .source import ImageSource, decoding

# Slides are large by nature: Pillow's guard against decompression bombs (89 megapixels) would stop HER2ST's images.
Image.MAX_IMAGE_PIXELS = 8_000_000_000
_BAND_PX = 256
_ORIENTATION = 274
_MODES = ("RGB", "RGBA", "RGBX", "P", "CMYK", "YCbCr")


class PillowSource(ImageSource):
    """A picture without pyramid. It is decoded whole each time, 4 bytes a pixel, and let go; only JPEG's overview is
    decoded at a fraction.
    """

    def __init__(self, path: Path):
        self.path = path
        with decoding(path), Image.open(path) as image:
            self.levels = (image.size,)
            if image.mode not in _MODES:
                raise DataError(
                    f"{path} is not in colour (Pillow's mode {image.mode}); expected H&E in RGB: give the H&E image"
                )
            check_orientation(path, image.getexif().get(_ORIENTATION))
            self.scale_record = dpi_scale(image.info.get("dpi", (0, 0)))

    @contextmanager
    def opened(self, level: int = 0) -> Iterator["_Decoded"]:
        """Decode the picture; it has one level."""
        with Image.open(self.path) as image:
            image.load()
            yield _Decoded(image)

    def _overview_of(self, width: int, height: int) -> np.ndarray:
        with Image.open(self.path) as image:
            image.draft("RGB", (width, height))  # JPEG alone: decodes at 1/2, 1/4 or 1/8
            image = rgb(image)
            return np.asarray(
                image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
            )


class _Decoded:
    def __init__(self, image: Image.Image):
        self._image = image
        self.band_px = _BAND_PX

    def read(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        return np.asarray(rgb(self._image.crop((x0, y0, x1, y1))))


def check_orientation(path: Path, orientation: int | None) -> None:
    """Check that a picture is shown as it is stored.

    Programs differ in whether they turn a picture as its record asks, so nobody can tell in which of the two the
    positions were measured.

    Raises
    ------
    DataError
        Its EXIF or TIFF record (tag 274) asks to turn or mirror it.
    """
    if orientation in range(2, 9):
        raise DataError(
            f"{path} is to be turned or mirrored when shown (orientation {orientation}); expected an upright picture "
            "(orientation 1): save it upright, as the program that gave the positions showed it"
        )


def rgb(image: Image.Image) -> Image.Image:
    """Return `image` in RGB; where it is transparent it is as white as glass, for nothing was scanned there."""
    if image.mode == "P":
        image = image.convert("RGBA")
    if image.mode == "RGBA" and image.getextrema()[3][0] < 255:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
