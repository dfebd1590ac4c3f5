"""Where a slide shows tissue: a mask on blocks of pixels, and the tissue fraction of any box in constant time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

BLOCK_PX = 8
GLASS_DENSITY = 0.10  # an evenly lit, empty field is lighter than this optical density, its noise included
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


def tissue_mask(image: np.ndarray, block_px: int = BLOCK_PX) -> TissueMask:
    """Find tissue by Otsu's threshold on the densest channel's optical density of blocks of pixels.

    Otsu always splits, so the threshold is held between what empty glass reaches and what is tissue beyond doubt: a
    blank image then has no tissue, and one filled with tissue is not split into nuclei and stroma.

    Parameters
    ----------
    image
        uint8 [H, W, 3]; may be memory-mapped, it is read once in order.
    block_px
        Side of a block.

    Returns
    -------
    TissueMask
    """
    mean = _block_means(np.ascontiguousarray(image), block_px)
    density = -np.log(np.maximum(mean.min(axis=2), 1.0) / 255)
    threshold = float(np.clip(_otsu(density), GLASS_DENSITY, TISSUE_DENSITY))
    return TissueMask(density > threshold, block_px, image.shape[1], image.shape[0], threshold)


def tissue_pixels(image: np.ndarray, mask: TissueMask, at_most: int = 1_000_000) -> np.ndarray:
    """Return pixels of tissue on a regular grid, about `at_most` of them, uint8 [n, 3]; nothing is random."""
    stride = max(1, int(np.sqrt(mask.blocks.sum() * mask.block_px**2 / at_most)))
    y, x = (np.arange(stride // 2, side, stride) for side in image.shape[:2])
    inside = mask.blocks[np.ix_(y // mask.block_px, x // mask.block_px)]
    return np.ascontiguousarray(image[stride // 2 :: stride, stride // 2 :: stride][inside])


def _otsu(density: np.ndarray) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(density)) if np.ptp(density) > 0 else 0.0


@njit(cache=True, nogil=True)
def _block_means(image, block):
    height, width, _ = image.shape
    out = np.zeros(((height + block - 1) // block, (width + block - 1) // block, 3), np.float32)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                out[y // block, x // block, c] += image[y, x, c]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            area = min(block, height - i * block) * min(block, width - j * block)
            for c in range(3):
                out[i, j, c] /= area
    return out
