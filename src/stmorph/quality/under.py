"""What lies under a unit: colour, its spread and edges in the unit's surroundings, at any place of an image at once."""

from dataclasses import dataclass

import numpy as np

SCALES = (0.25, 0.6)
"""Standard deviations of the Gaussian windows, in distances between units: the unit itself, and its surroundings."""
MOST_PX = 6_000_000
"""The image is read at this many pixels or fewer, which bounds the memory."""
_BLOCK_PX = 2
_PX_PER_UNIT = 24


@dataclass(frozen=True)
class UnderUnits:
    """maps: float32 [k, h, w], one a statistic; um_per_px: of the maps."""

    maps: np.ndarray
    um_per_px: float

    def at(self, spatial_um: np.ndarray) -> np.ndarray:
        """Return the statistics at positions (float64 [n, 2], x and y), float64 [n, k]; beyond the image is glass."""
        column, row = np.floor(np.asarray(spatial_um) / self.um_per_px).astype(np.int64).T
        height, width = self.maps.shape[1:]
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = self.maps[:, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return np.where(inside, found, 0.0).T.astype(np.float64)


def read_scale(width_px: int, height_px: int, um_per_px: float, unit_um: float) -> float:
    """Return the scale (pixels given per pixel stored) at which an image is fine enough for units `unit_um` apart."""
    needed = um_per_px * _PX_PER_UNIT / unit_um
    return float(min(1.0, needed, np.sqrt(MOST_PX / (width_px * height_px))))


def under_units(pixels: np.ndarray, um_per_px: float, unit_um: float) -> UnderUnits:
    """Measure an image under Gaussian windows: they have no sides, so that turning the array changes nothing.

    Parameters
    ----------
    pixels
        uint8 [H, W, 3].
    um_per_px
        Of `pixels`.
    unit_um
        Distance between neighbouring units.

    Returns
    -------
    UnderUnits
        For each of `SCALES` the mean optical density of red, green and blue, its standard deviation in the window, and
        the mean strength of edges: 14 maps on blocks of 2 x 2 pixels, all log(1 + 5 x).
    """
    from scipy import ndimage

    density = (-np.log((np.arange(256) + 1) / 256)).astype(np.float32)[pixels]
    grey = ndimage.gaussian_filter(density.mean(axis=2), 1.0)
    edges = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    planes = [*np.moveaxis(density, 2, 0)]
    planes = [_blocks(plane) for plane in (*planes, *(plane * plane for plane in planes), edges)]
    block_um = um_per_px * _BLOCK_PX
    maps = []
    for scale in SCALES:
        smooth = [ndimage.gaussian_filter(plane, scale * unit_um / block_um, mode="nearest") for plane in planes]
        spread = [np.sqrt(np.maximum(square - mean * mean, 0)) for mean, square in zip(smooth[:3], smooth[3:6])]
        maps += [*smooth[:3], *spread, smooth[6]]
    return UnderUnits(np.log1p(5 * np.stack(maps)), block_um)


def _blocks(plane: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 2 x 2 pixels; an odd last row or column is doubled."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, height % _BLOCK_PX), (0, width % _BLOCK_PX)), mode="edge")
    return padded.reshape(-1, _BLOCK_PX, padded.shape[1] // _BLOCK_PX, _BLOCK_PX).mean(axis=(1, 3))
