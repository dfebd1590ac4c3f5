"""Where a slide shows tissue: a mask on blocks of pixels, and the tissue fraction of any box in constant time."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

BLOCK_PX = 8
GLASS_DENSITY = 0.10  # an evenly lit, empty field is lighter than this optical density, its noise included
_ROWS = 256  # of blocks at a time
TISSUE_DENSITY = 0.22  # a block denser than this is tissue, whatever else the slide shows


@dataclass(frozen=True)
class TissueMask:
    """blocks: bool [ceil(H / block_px), ceil(W / block_px)], True on tissue; threshold: its optical density."""

    blocks: np.ndarray
    block_px: int
    width_px: int
    height_px: int
    threshold: float

    def fraction(self, x0_px: np.ndarray, y0_px: np.ndarray, size_px: int) -> np.ndarray:
        """Return the share of tissue in square boxes, float64 [k], 0 to 1; what lies outside the image is glass.

        Parameters
        ----------
        x0_px, y0_px
            int [k], the boxes' top-left corners.
        size_px
            The boxes' side.
        """
        x0, x1 = (np.clip(np.asarray(x0_px) + side, 0, self.width_px) for side in (0, size_px))
        y0, y1 = (np.clip(np.asarray(y0_px) + side, 0, self.height_px) for side in (0, size_px))
        area = self._area(x1, y1) - self._area(x0, y1) - self._area(x1, y0) + self._area(x0, y0)
        return np.clip(area / size_px**2, 0.0, 1.0)

    @property
    def tissue_fraction(self) -> float:
        """The share of tissue in the whole image."""
        return float(self._area(self.width_px, self.height_px) / (self.width_px * self.height_px))

    @cached_property
    def _integral(self) -> np.ndarray:
        return np.pad(self.blocks, ((1, 0), (1, 0))).astype(np.float64).cumsum(axis=0).cumsum(axis=1)

    def _area(self, x_px: np.ndarray, y_px: np.ndarray) -> np.ndarray:
        """Return the tissue area, in square pixels, left of and above a point: exact for a mask constant on blocks."""
        x, y = np.asarray(x_px) / self.block_px, np.asarray(y_px) / self.block_px
        i = np.minimum(y.astype(int), self.blocks.shape[0] - 1)
        j = np.minimum(x.astype(int), self.blocks.shape[1] - 1)
        u, v, total = x - j, y - i, self._integral
        upper = total[i, j] * (1 - u) + total[i, j + 1] * u
        lower = total[i + 1, j] * (1 - u) + total[i + 1, j + 1] * u
        return (upper * (1 - v) + lower * v) * self.block_px**2


class TissueFinder:
    """Finds the tissue of an image that is seen in strips, by Otsu's threshold on the blocks' optical density.

    A block's density is its densest channel's. Otsu always splits, so the threshold is held between what empty glass
    reaches and what is tissue beyond doubt: a blank image then has no tissue, and one filled with tissue is not split
    into nuclei and stroma.
    """

    def __init__(self, width_px: int, height_px: int, block_px: int = BLOCK_PX):
        self.width_px, self.height_px, self.block_px = width_px, height_px, block_px
        shape = (-(-height_px // block_px), -(-width_px // block_px), 3)
        # As narrow as sums allow: there are many blocks in a large slide.
        self._sums = np.zeros(shape, np.uint16 if block_px <= 16 else np.uint32)

    def add(self, top: int, pixels: np.ndarray) -> None:
        """See the rows from `top` on: uint8 [h, width_px, 3]. Every row is seen once, in any order."""
        _add_blocks(np.ascontiguousarray(pixels), top, self.block_px, self._sums)

    def mask(self) -> TissueMask:
        """Return the mask, once all rows were seen."""
        block = self.block_px
        high, wide = (
            np.minimum(block, size - block * np.arange(n))
            for size, n in zip((self.height_px, self.width_px), self._sums.shape)
        )
        density = np.empty(self._sums.shape[:2], np.float32)
        for start in range(0, len(density), _ROWS):
            part = slice(start, start + _ROWS)
            mean = (self._sums[part] / (high[part, None] * wide)[..., None]).astype(np.float32)
            density[part] = -np.log(np.maximum(mean.min(axis=2), 1.0) / 255)
        threshold = float(np.clip(_otsu(density), GLASS_DENSITY, TISSUE_DENSITY))
        return TissueMask(density > threshold, block, self.width_px, self.height_px, threshold)


def tissue_mask(image: np.ndarray, block_px: int = BLOCK_PX) -> TissueMask:
    """Find the tissue of an image, as `TissueFinder` says.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    block_px
        Side of a block.
    """
    return tissue_mask_of(iter([(0, image)]), image.shape[1], image.shape[0], block_px)


def tissue_mask_of(
    strips: Iterable[tuple[int, np.ndarray]], width_px: int, height_px: int, block_px: int = BLOCK_PX
) -> TissueMask:
    """Find the same in strips, (first row, uint8 [h, width_px, 3])."""
    finder = TissueFinder(width_px, height_px, block_px)
    for top, pixels in strips:
        finder.add(top, pixels)
    return finder.mask()


def tissue_pixels_of(
    strips: Iterable[tuple[int, np.ndarray]], mask: TissueMask, at_most: int = 1_000_000
) -> np.ndarray:
    """Return pixels of tissue on a regular grid, about `at_most` of them, uint8 [n, 3]; nothing is random.

    Parameters
    ----------
    strips
        The image from top to bottom, (first row, uint8 [h, W, 3]).
    """
    stride = max(1, int(np.sqrt(mask.blocks.sum() * mask.block_px**2 / at_most)))
    x = np.arange(stride // 2, mask.width_px, stride)
    found = []
    for top, pixels in strips:
        y = np.arange(top + (stride // 2 - top) % stride, top + len(pixels), stride)
        inside = mask.blocks[np.ix_(y // mask.block_px, x // mask.block_px)]
        found.append(pixels[(stride // 2 - top) % stride :: stride, stride // 2 :: stride][inside])
    return np.concatenate(found)


def _otsu(density: np.ndarray) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(density)) if np.ptp(density) > 0 else 0.0


@njit(cache=True, nogil=True)
def _add_blocks(pixels, top, block, sums):
    width = pixels.shape[1]
    for y in range(len(pixels)):
        i = (top + y) // block
        for j in range(sums.shape[1]):
            red = green = blue = 0
            for x in range(j * block, min(width, (j + 1) * block)):
                red += pixels[y, x, 0]
                green += pixels[y, x, 1]
                blue += pixels[y, x, 2]
            sums[i, j, 0] += red
            sums[i, j, 1] += green
            sums[i, j, 2] += blue
