"""A simulated slide's picture as Space Ranger's folders hold it: the full image and its two previews."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from ..files import whole

HIRES_PX, LOWRES_PX = 2000, 600
"""Longest sides of the two preview images."""


def previews(image: np.ndarray) -> dict[str, tuple[Image.Image, float]]:
    """Return `hires` and `lowres`: the smaller image and the factor that leads to it from the full one."""
    full, found = Image.fromarray(image), {}
    for role, longest in (("hires", HIRES_PX), ("lowres", LOWRES_PX)):
        factor = min(1.0, longest / max(full.size))
        size = tuple(max(1, round(length * factor)) for length in full.size)
        found[role] = full.resize(size, Image.Resampling.BOX), factor
    return found


def write_preview(picture: Image.Image, path: Path) -> None:
    """Write a preview as PNG."""
    with whole(path) as partial:
        picture.save(partial, compress_level=4)


def write_image(image: np.ndarray, um_per_px: float, path: Path, bigtiff: bool = False) -> None:
    """Write a tiled TIFF, JPEG-compressed, that states its resolution and no time."""
    per_cm = 1e4 / um_per_px
    with whole(path) as partial:
        tifffile.imwrite(
            partial,
            image,
            bigtiff=bigtiff,
            photometric="rgb",
            tile=(512, 512),
            compression="jpeg",
            compressionargs={"level": 92},
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            software="stmorph",
            metadata=None,
        )
