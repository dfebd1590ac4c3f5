"""The slide store: one slide's image, decoded, resized and stain-normalised once, memory-mapped ever after."""

import json
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError
from ..files import whole
from .array_source import ArraySource
from .blocks import BlockedImage, from_blocks, to_blocks, write_blocks, write_header
from .crop_kernel import blocks_of
from .source import ImageSource, open_image
from .stain import PUBLISHED_TARGET, Stains, fit_sample, stain_record, transform_of
from .stain_options import StainOptions
from .tissue_mask import TissueFinder, tissue_mask_of, tissue_pixels_of


class SlideStore:
    """One slide's image at the working resolution.

    image: its pixels, memory-mapped. um_per_px: of the store, nominal. record: what `image.json` says.
    A store is pickled as its path, so that workers share the mapped file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        record = self.path.with_suffix(".json")
        try:
            self.record: dict[str, Any] = json.loads(record.read_text())
            self.image = BlockedImage(self.path, self.record["width_px"], self.record["height_px"], 3)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} and {record.name} are no slide store ({error}); delete both and make them again"
            ) from error

    def __reduce__(self):
        return SlideStore, (self.path,)

    @property
    def um_per_px(self) -> float:
        """Micrometres a store pixel."""
        return float(self.record["um_per_px"])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.height_px, self.image.width_px

    @cached_property
    def stain(self) -> StainOptions:
        """The options the store was made with."""
        return StainOptions(**self.record["stain"]["options"])

    @cached_property
    def target(self) -> Stains:
        """The stains that the store's tiles have, or get when they are cut (fit `tile`)."""
        return Stains.from_record(self.record["stain"]["target"])

    def to_px(self, spatial_um: np.ndarray) -> np.ndarray:
        """Return positions in store pixels (float64 [n, 2], x and y) of micrometres from the top-left corner.

        The store has whole pixels, so its true scale differs from `um_per_px` by less than a pixel over the slide; here
        the true scale is used.
        """
        source = self.record["source"]
        size_um = np.array([source["width_px"], source["height_px"]]) * source["um_per_px"]
        return np.asarray(spatial_um, dtype=np.float64) * (np.array(self.shape[::-1]) / size_um)

    def crops(self, x0_px: np.ndarray, y0_px: np.ndarray, size_px: int) -> np.ndarray:
        """Return boxes as uint8 [k, size_px, size_px, 3], as the store holds them.

        Raises
        ------
        DataError
            A box leaves the image.
        """
        out = np.empty((len(x0_px), size_px, size_px, 3), np.uint8)
        self.image.boxes_into(out, x0_px, y0_px)
        return out


def open_store(path: str | Path) -> SlideStore:
    """Open `image.npy` (with `image.json` beside it), memory-mapped.

    Raises
    ------
    DataError
        Either file is missing or damaged.
    """
    return SlideStore(path)


def build_store(
    image: np.ndarray | ImageSource,
    um_per_px_source: float,
    um_per_px: float,
    stain: StainOptions,
    out_npy: str | Path,
    out_json: str | Path,
    reference: np.ndarray | ImageSource | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Decode a slide once, resize it once with an antialiasing filter, normalise its stain once, and store it.

    The slide goes through in strips: to the file as it is, and, once all of it was seen and the stains are fitted, from
    the file and back, normalised. What is held is a band of its width, whatever its height. With fit `tile` the store
    holds the image as it was, and tiles are normalised when they are cut.

    Parameters
    ----------
    image
        uint8 [H, W, 3], or a source of one. It is not changed.
    um_per_px_source, um_per_px
        Scale of the image, and of the store.
    stain
        How to normalise.
    out_npy, out_json
        `image.npy` and `image.json`.
    reference
        The image that `stain.reference` names; it is opened here where not given.
    name
        What messages and the record call the image.

    Returns
    -------
    dict
        The content of `image.json`.

    Raises
    ------
    DataError
        The image shows no stained tissue, its scale is impossible, or the disk is full.
    """
    image = _source(image)
    name = name or str(image.path)
    if not (math.isfinite(um_per_px_source) and um_per_px_source > 0 and math.isfinite(um_per_px) and um_per_px > 0):
        raise DataError(
            f"{name} has {um_per_px_source} um per px and the store {um_per_px}; expected numbers above 0: correct the "
            "slide's um_per_px or the tiles' fov_um"
        )
    scale = um_per_px_source / um_per_px
    width, height = image.size(scale)
    target = _target(stain, reference)
    source = None
    with whole(out_npy) as npy:
        # Written, not mapped: a full disk then is an error that can be told, not a bus error.
        with npy.open("w+b") as file:
            start = write_header(file, width, height, 3)
            finder = TissueFinder(width, height) if stain.fit in ("slide", "reference") else None
            write_blocks(file, _seen(image.strips(scale), finder))
            if finder:
                file.flush()
                as_it_was = BlockedImage(npy, width, height, 3)
                source = fit_sample(tissue_pixels_of(as_it_was.strips(), finder.mask()), stain, name)
                del as_it_was
                _normalise(file, start, width, transform_of(source, target, stain))
        record = {
            "um_per_px": float(um_per_px),
            "width_px": width,
            "height_px": height,
            "source": {
                "path": name,
                "um_per_px": float(um_per_px_source),
                "width_px": int(image.width_px),
                "height_px": int(image.height_px),
            },
            "stain": stain_record(stain, source, target),
        }
        with whole(out_json) as text:
            text.write_text(json.dumps(record, indent=1) + "\n")
    return record


def _seen(strips: Iterator[tuple[int, np.ndarray]], finder: TissueFinder | None) -> Iterator[tuple[int, np.ndarray]]:
    for top, pixels in strips:
        if finder:
            finder.add(top, pixels)
        yield top, pixels


def _normalise(file: BinaryIO, start: int, width: int, transform: Any) -> None:
    """Replace the pixels of the blocks from byte `start` on by their transform, which treats each pixel alone."""
    blocks = np.empty(blocks_of(width, 1, 3)[1:], np.uint8)
    file.seek(start)
    while read := file.readinto(blocks.data.cast("B")):
        pixels = transform.apply(from_blocks(blocks, width, 3))
        file.seek(-read, 1)
        file.write(to_blocks(pixels).data)


def _source(image: np.ndarray | ImageSource) -> ImageSource:
    return ArraySource(image) if isinstance(image, np.ndarray) else image


def _target(stain: StainOptions, reference: np.ndarray | ImageSource | None) -> Stains:
    if stain.reference is None:
        return PUBLISHED_TARGET
    image = open_image(stain.reference) if reference is None else _source(reference)
    mask = tissue_mask_of(image.strips(), image.width_px, image.height_px)
    return fit_sample(tissue_pixels_of(image.strips(), mask), stain, stain.reference)
