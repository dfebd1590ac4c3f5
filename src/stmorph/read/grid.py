"""The scale of an image, measured by the regular grid on which spots were printed."""

from dataclasses import dataclass

import numpy as np
import scipy.spatial

# Steps to possible nearest neighbours, in array coordinates. On a staggered grid row + column is even (or odd)
# throughout: Visium, and the Spatial Transcriptomics array of 2,000 spots.
_STRAIGHT = np.array([[1.0, 0.0], [0.0, 1.0]])
_STAGGERED = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0], [1.0, -1.0]])


@dataclass(frozen=True)
class Grid:
    """A spot array as it lies in the image.

    pitch_px: distance between nearest neighbours, NaN where there are too few spots. mirrored: whether the array's
    columns and rows run the other way round in the image than x and y do; None where it cannot be said.
    evidence: how the pitch was found, for the record.
    """

    pitch_px: float
    mirrored: bool | None
    evidence: str


def measure_grid(array_xy: np.ndarray, pixel_xy: np.ndarray) -> Grid:
    """Return the distance in pixels between nearest neighbours of a spot array, and its orientation.

    The pixel positions are regressed on the array coordinates (an affine map), and the grid's shortest steps are
    measured on the map: this needs no two spots to be neighbours, so it holds on subsets and scattered tissue.
    Where the array coordinates do not explain the positions (all equal, or unrelated), it is the median distance to
    the nearest spot.

    Parameters
    ----------
    array_xy
        Whole-number array coordinates [n, 2], column and row.
    pixel_xy
        Positions [n, 2], x and y in pixels.
    """
    array_xy, pixel_xy = np.asarray(array_xy, dtype=np.float64), np.asarray(pixel_xy, dtype=np.float64)
    if len(pixel_xy) < 2:
        return Grid(float("nan"), None, "fewer than two spots")
    centred = array_xy - array_xy.mean(axis=0)
    if len(pixel_xy) >= 6 and np.linalg.matrix_rank(centred) == 2:
        target = pixel_xy - pixel_xy.mean(axis=0)
        axes = np.linalg.lstsq(centred, target, rcond=None)[0]  # row k: pixels per step along array axis k
        residual = float(np.sqrt(((centred @ axes - target) ** 2).sum(axis=1).mean()))
        odd = np.rint(array_xy).astype(np.int64) % 2
        staggered = len(np.unique(odd.sum(axis=1) % 2)) == 1 and len(np.unique(odd[:, 0])) == 2
        lengths = np.linalg.norm((_STAGGERED if staggered else _STRAIGHT) @ axes, axis=1)
        # Steps that are equal but for the printing and the registration count alike: six on Visium's hexagons.
        pitch = float(lengths[lengths <= 1.1 * lengths.min()].mean())
        if pitch > 0 and residual < 0.3 * pitch:
            kind = "staggered" if staggered else "square"
            mirrored = bool(np.linalg.det(axes) < 0)
            return Grid(pitch, mirrored, f"regression of positions on the {kind} array, residual {residual:.2f} px")
    distance = scipy.spatial.cKDTree(pixel_xy).query(pixel_xy, k=2)[0][:, 1]
    return Grid(float(np.median(distance)), None, "median distance to the nearest spot")
