"""TIFF, BigTIFF, OME-TIFF and Aperio SVS, with or without a pyramid: any part is decoded alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import DataError
from .pillow_source import check_orientation, rgb
from .scale_record import tiff_scale
from .source import ImageSource, decoding

if TYPE_CHECKING:
    import tifffile

APERIO_YCBCR = 33003
"""Aperio's JPEG2000 in YCbCr, whose colours tifffile leaves as they are stored."""
_ASIDE = ("label", "macro", "thumbnail", "overview")
"""Pictures of the glass that scanners store beside the scan."""
_BAND_PX = 256
# Photometric interpretations, and packings that leave colours as they are stored.
_RGB, _MINISBLACK, _CMYK, _YCBCR = 2, 1, 5, 6
_PLAIN = (1, 5, 8, 32773, 32946, 34925, 50000)
_ASSOCIATED, _UNSPECIFIED = 1, 0
_JPEG2000_LOSSY = 33004


class SparseTiffError(DataError):
    """A TIFF lacks some of its tiles, on purpose or not."""


class TiffSource(ImageSource):
    """The largest colour picture of a TIFF file, with its pyramid (SubIFDs or pages in a row)."""

    def __init__(self, path: Path):
        import tifffile

        self.path = path
        with decoding(path), tifffile.TiffFile(path) as tif:
            if not tif.series:
                raise DataError(f"{path} holds no image; expected a whole-slide image: download it again")
            # A file may hold the H&E image beside larger fluorescence, and a crop beside the larger photograph of all.
            by_size = sorted(
                range(len(tif.series)),
                key=lambda k: (tif.series[k].name.lower() in _ASIDE, -tif.series[k].size),
            )
            self._series = next((k for k in by_size if _in_colour(path, tif.series[k])), by_size[0])
            series = tif.series[self._series]
            _check_complete(path, series.levels)
            sizes = [_yxs_shape(path, level.axes, level.shape) for level in series.levels]
            if not _in_colour(path, series):
                bits = int(np.max(series.keyframe.bitspersample))
                odd = f" with {bits} bits" if series.dtype == np.uint8 and bits != 8 else ""
                raise DataError(
                    f"{path} holds {sizes[0][2]} channel(s) of {series.dtype}{odd} "
                    f"({series.keyframe.photometric.name}); expected H&E in colour, 3 channels of uint8: give the H&E "
                    "image, with 8 bits a channel"
                )
            check_orientation(path, series.keyframe.tags.valueof("Orientation"))
            _check_colours(path, series.keyframe)
            self.levels = tuple((width, height) for height, width, _ in sizes)
            self.compression = int(series.keyframe.compression)
            self.scale_record = tiff_scale(series.keyframe, tif.ome_metadata)

    @contextmanager
    def opened(self, level: int = 0) -> Iterator["TiffLevel"]:
        """Open one stored resolution."""
        import tifffile

        with tifffile.TiffFile(self.path) as tif:
            yield TiffLevel(self.path, tif.series[self._series].levels[level])


class TiffLevel:
    """One resolution of an open TIFF as the pieces (tiles, or strips of rows) that it is stored in.

    width_px, height_px: of the level. piece_width_px, piece_height_px: of a piece. columns, rows: of the pieces' grid.
    band_px: rows that are best decoded together.
    """

    def __init__(self, path: Path, level: "tifffile.TiffPageSeries"):
        pages, page = list(level.pages), level.keyframe
        if None in pages:
            raise DataError(f"{path} is one of several files of a picture; expected one file: give a single OME-TIFF")
        self._page = page
        self._file, self._decode = page.parent.filehandle, page.decode
        self.height_px, self.width_px, _ = _yxs_shape(path, level.axes, level.shape)
        self._mapped = None
        if page.is_tiled:
            self.piece_width_px, self.piece_height_px = page.tilewidth, page.tilelength
        elif len(pages) == 1 and page.planarconfig == 1 and page.is_memmappable:
            # Not compressed: a single strip may hold all, so the rows are taken where they lie.
            self.piece_width_px, self.piece_height_px = self.width_px, _BAND_PX
            self._mapped = _mapped(path, page, self.height_px, self.width_px)
        else:
            self.piece_width_px, self.piece_height_px = self.width_px, min(page.rowsperstrip, self.height_px)
        self.columns = -(-self.width_px // self.piece_width_px)
        self.rows = -(-self.height_px // self.piece_height_px)
        self._segments = [segments for page in pages for segments in _planes(page, self.rows * self.columns)]
        self.band_px = self.piece_height_px * max(1, _BAND_PX // self.piece_height_px)

    def piece(self, row: int, column: int) -> np.ndarray:
        """Return one piece, uint8 [h, w, 3], cut where the picture ends."""
        height = min(self.piece_height_px, self.height_px - row * self.piece_height_px)
        width = min(self.piece_width_px, self.width_px - column * self.piece_width_px)
        if self._mapped is not None:
            top = row * self.piece_height_px
            pixels = self._mapped[top : top + height]
        else:
            planes = [self._decoded(segments, row * self.columns + column) for segments in self._segments]
            pixels = (planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2))[:height, :width]
        return self._in_rgb(pixels)

    def _in_rgb(self, pixels: np.ndarray) -> np.ndarray:
        page = self._page
        if page.photometric == _CMYK or (page.photometric == _YCBCR and page.compression in _PLAIN):
            mode = "CMYK" if page.photometric == _CMYK else "YCbCr"
            size = pixels.shape[1], pixels.shape[0]
            return np.asarray(Image.frombytes(mode, size, np.ascontiguousarray(pixels).tobytes()).convert("RGB"))
        if pixels.shape[2] == 3:
            return pixels
        kind = int(page.extrasamples[0]) if page.extrasamples else None
        if kind == _UNSPECIFIED:  # a channel of something else
            return pixels[..., :3]
        if kind == _ASSOCIATED:  # colours are multiplied already: what is transparent is as white as glass
            return np.minimum(pixels[..., :3].astype(np.int16) + (255 - pixels[..., 3:]), 255).astype(np.uint8)
        return np.asarray(rgb(Image.fromarray(np.ascontiguousarray(pixels))))

    def read(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """Return the pixels of a box, uint8 [y1 - y0, x1 - x0, 3]."""
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        high, wide = self.piece_height_px, self.piece_width_px
        for row in range(y0 // high, -(-y1 // high)):
            for column in range(x0 // wide, -(-x1 // wide)):
                top, left = row * high, column * wide
                piece = self.piece(row, column)
                a, b = max(y0, top), min(y1, top + len(piece))
                c, d = max(x0, left), min(x1, left + piece.shape[1])
                out[a - y0 : b - y0, c - x0 : d - x0] = piece[a - top : b - top, c - left : d - left]
        return out

    def _decoded(self, segments: "_Segments", number: int) -> np.ndarray:
        self._file.seek(segments.offsets[number])
        data = self._file.read(segments.counts[number])
        return self._decode(data, segments.first + number, **segments.tables)[0][0]


@dataclass(frozen=True)
class _Segments:
    """Where a page holds one plane's pieces; `first`: the number of the first, `tables`: what JPEG needs for all."""

    first: int
    offsets: list[int]
    counts: list[int]
    tables: dict[str, bytes | None]


def _planes(page: "tifffile.TiffPage | tifffile.TiffFrame", pieces: int) -> Iterator[_Segments]:
    planes = page.keyframe.samplesperpixel if page.keyframe.planarconfig == 2 else 1
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.keyframe.jpegheader}
    for first in range(0, planes * pieces, pieces):
        part = slice(first, first + pieces)
        yield _Segments(first, list(page.dataoffsets[part]), list(page.databytecounts[part]), tables)


def _mapped(path: Path, page: "tifffile.TiffPage", height: int, width: int) -> np.ndarray:
    shape = (height, width, page.samplesperpixel)
    return np.asarray(np.memmap(path, np.uint8, "r", page.dataoffsets[0], shape))


def _in_colour(path: Path, series: "tifffile.TiffPageSeries") -> bool:
    """Return whether a picture has colours that can be told; three channels of fluorescence cannot be told from RGB."""
    try:
        samples = _yxs_shape(path, series.axes, series.shape)[2]
    except DataError:
        return False
    allowed = {_RGB: (3, 4), _CMYK: (4,), _YCBCR: (3,), _MINISBLACK: (3,)}
    page = series.keyframe
    # Seven bits are uint8 to the library, and half as bright.
    whole_bytes = series.dtype == np.uint8 and np.all(np.equal(page.bitspersample, 8))
    return samples in allowed.get(int(page.photometric), ()) and bool(whole_bytes)


def _check_colours(path: Path, page: "tifffile.TiffPage") -> None:
    """Refuse the one packing of which nothing in the file tells whether its colours are RGB or YCbCr.

    libvips (8.14) stores YCbCr in JPEG2000 and calls it RGB; other programs' files with this packing hold RGB. Both may
    use OpenJPEG, which leaves its name in each tile.
    """
    if page.compression != _JPEG2000_LOSSY or page.photometric != _RGB or page.software.startswith("tifffile"):
        return
    with path.open("rb") as file:
        file.seek(page.dataoffsets[0])
        if b"Created by OpenJPEG" in file.read(min(page.databytecounts[0], 1024)):
            raise DataError(
                f"{path} is packed as JPEG2000 (33004) by libvips or a like program, which stores YCbCr or RGB without "
                "saying so; expected colours that can be told: save it again with another compression, e.g. vips "
                "tiffsave --tile --pyramid --compression jpeg"
            )


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


def _check_complete(path: Path, levels: list) -> None:
    size = path.stat().st_size
    for level in levels:
        for page in level.pages:
            if page is None:
                continue
            ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts)]
            if not ends or max(ends) > size:
                raise DataError(
                    f"{path} has {size} bytes, but its pixels end at byte {max(ends, default=0)}; expected a whole "
                    "TIFF: download it again"
                )
            if 0 in page.databytecounts:
                raise SparseTiffError(
                    f"{path} lacks {list(page.databytecounts).count(0)} of its {len(ends)} tiles; expected a whole "
                    "TIFF: download it again"
                )
