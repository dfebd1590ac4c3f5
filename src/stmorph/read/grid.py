"""The scale of an image, measured by the regular grid on which spots were printed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.spatial

from ..errors import DataError

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
    if len(pixel_xy) >= 6 and np.linalg.matrix_rank(array_xy - array_xy.mean(axis=0)) == 2:
        axes, away = _affine(array_xy, pixel_xy)
        residual = float(np.sqrt((away**2).mean()))
        staggered, pitch = _steps(array_xy, axes)
        if pitch > 0 and residual < 0.3 * pitch:
            kind = "staggered" if staggered else "square"
            mirrored = bool(np.linalg.det(axes) < 0)
            return Grid(pitch, mirrored, f"regression of positions on the {kind} array, residual {residual:.2f} px")
    distance = scipy.spatial.cKDTree(pixel_xy).query(pixel_xy, k=2)[0][:, 1]
    return Grid(float(np.median(distance)), None, "median distance to the nearest spot")


def check_on_grid(positions: pd.DataFrame, path: Path) -> None:
    """Check that there are spots, and that each lies where its row and column put it: a lost digit moves one spot.

    Where most spots do not follow the array nothing is said.

    Parameters
    ----------
    positions
        Indexed by barcode: array_row, array_col, x_px, y_px.
    path
        The positions file, for error sentences.

    Raises
    ------
    DataError
        There is none, or one lies more than two spots' distance from its place.
    """
    if positions.empty:
        raise DataError(f"{path} lists no spot; expected the positions of a slide: take the file from the run's outs")
    array_xy = positions[["array_col", "array_row"]].to_numpy(dtype=np.float64)
    pixel_xy = positions[["x_px", "y_px"]].to_numpy(dtype=np.float64)
    if len(array_xy) < 6 or np.linalg.matrix_rank(array_xy - array_xy.mean(axis=0)) < 2:
        return
    axes, away = _affine(array_xy, pixel_xy)
    pitch_px = _steps(array_xy, axes)[1]
    # The median, because one spot that is far off moves the mean.
    far = np.flatnonzero(away > 2 * pitch_px) if np.median(away) < 0.3 * pitch_px else []
    if len(far):
        raise DataError(
            f"{path}: {positions.index[far[0]]} lies {away[far[0]]:.0f} px from where its row and column put it "
            f"({len(far)} such spots); expected the spots on their array, {pitch_px:.2f} px apart: mend the file, "
            "or take it from the run's outs"
        )


def _affine(array_xy: np.ndarray, pixel_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels per step along each array axis [2, 2], and how far each position lies from the map [n]."""
    centred, target = array_xy - array_xy.mean(axis=0), pixel_xy - pixel_xy.mean(axis=0)
    axes = np.linalg.lstsq(centred, target, rcond=None)[0]
    return axes, np.linalg.norm(centred @ axes - target, axis=1)


def _steps(array_xy: np.ndarray, axes: np.ndarray) -> tuple[bool, float]:
    """Return whether an array is staggered, and the distance of its nearest neighbours in pixels."""
    odd = np.rint(array_xy).astype(np.int64) % 2
    staggered = len(np.unique(odd.sum(axis=1) % 2)) == 1 and len(np.unique(odd[:, 0])) == 2
    lengths = np.linalg.norm((_STAGGERED if staggered else _STRAIGHT) @ axes, axis=1)
    # Steps that are equal but for the printing and the registration count alike: six on Visium's hexagons.
    return staggered, float(lengths[lengths <= 1.1 * lengths.min()].mean())
