"""Smooth random fields on a coarse grid, from which regions, activities and textures are made."""

import numpy as np
import scipy.fft

GRID_UM = 4.0
"""Pitch of the grid that holds every smooth property of a section; the image is interpolated from it."""


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> np.ndarray:
    """Return a stationary Gaussian field, float32 [rows, columns], of mean 0 and variance 1.

    White noise under a Gaussian filter of standard deviation `scale_px` (grid points), by FFT so that a large
    scale costs no more than a small one. The variance is the expected one: a slide keeps its own mean.
    """
    pad = int(3 * scale_px) + 1
    rows, columns = (scipy.fft.next_fast_len(n + pad, real=True) for n in shape)
    spectrum = scipy.fft.rfft2(rng.standard_normal((rows, columns), dtype=np.float32))
    ky, kx = scipy.fft.fftfreq(rows)[:, None], scipy.fft.rfftfreq(columns)[None, :]
    spectrum *= np.exp(-2 * (np.pi * scale_px) ** 2 * (ky**2 + kx**2)).astype(np.float32)
    field = scipy.fft.irfft2(spectrum, s=(rows, columns))[: shape[0], : shape[1]]
    return (field * (2 * np.sqrt(np.pi) * scale_px)).astype(np.float32)


def enlarge(field: np.ndarray, shape: tuple[int, int], um_per_px: float) -> np.ndarray:
    """Interpolate a grid field linearly to pixels, float32 [H, W]; both count from the section's top-left corner."""
    for axis, length in enumerate(shape):
        position = (np.arange(length) + 0.5) * (um_per_px / GRID_UM) - 0.5
        position = np.clip(position, 0, field.shape[axis] - 1)
        low = np.minimum(position.astype(np.int64), field.shape[axis] - 2)
        weight = (position - low).astype(np.float32)
        weight = weight[:, None] if axis == 0 else weight[None, :]
        lower, upper = np.take(field, low, axis=axis), np.take(field, low + 1, axis=axis)
        field = lower + (upper - lower) * weight
    return field


def at(field: np.ndarray, xy_um: np.ndarray) -> np.ndarray:
    """Return the field's values [n] at the grid points nearest to positions x, y [n, 2] in micrometres."""
    row, column = grid_index(field.shape, xy_um)
    return field[row, column]


def grid_index(shape: tuple[int, int], xy_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column, int64 [n] each, of the grid points nearest to x, y [n, 2], kept inside the grid."""
    cell = np.floor(xy_um / GRID_UM).astype(np.int64)
    return np.clip(cell[..., 1], 0, shape[0] - 1), np.clip(cell[..., 0], 0, shape[1] - 1)


def disc_mean(field: np.ndarray, xy_um: np.ndarray, diameter_um: float, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the (weighted) mean, float64 [n], of a grid field in discs round x, y [n, 2]; NaN where no weight lies."""
    reach = int(np.ceil(diameter_um / 2 / GRID_UM))
    step = np.arange(-reach, reach + 1) * GRID_UM
    offset = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)
    offset = offset[np.hypot(*offset.T) <= diameter_um / 2]
    row, column = grid_index(field.shape, xy_um[:, None, :] + offset[None])
    values = field[row, column].astype(np.float64)
    if weight is None:
        return values.mean(axis=1)
    weights = weight[row, column].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (values * weights).sum(axis=1) / weights.sum(axis=1)
