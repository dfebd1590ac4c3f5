"""Multi-cell tiles: windows that slide over the image, and which cells lie in each, wholly or in part.

GeneFlow (section 4.1) cuts windows of 256 x 256 px that overlap by 100 px and counts only the cells that a window
encloses completely; its section 6 names the lack of partial contributions as a limitation. Here both are options, in
micrometres: at 0.25 um per px the paper's windows are fov_um 64 and step_um 39.
"""

from typing import Literal

import numpy as np
import pandas as pd
import scipy.spatial
from pydantic import BaseModel, ConfigDict, Field

from ..errors import DataError

Border = Literal["whole", "none", "fraction"]
CELL_COLUMNS = ("tile", "cell", "weight")
_PAIRS = 200_000  # clipped at a time
_LEAST = 1e-12  # smaller fractions are rounding of an outline that only touches
_CORNERS = 64  # of the polygon that stands for a disc
_RING = np.exp(2j * np.pi * np.arange(_CORNERS) / _CORNERS).view(np.float64).reshape(-1, 2)


class WindowOptions(BaseModel):
    """How windows slide: a closed object.

    fov_um: side of a window; the tiling's `fov_um` must be the same. step_um: from one window to the next, right and
    down; below `fov_um` they overlap.
    border: what a cell that a window cuts counts: all of it (`whole`), nothing (`none`, the paper's) or the fraction of
    its area that lies inside (`fraction`).
    min_cells: windows with fewer cells are lost, with the reason `too few cells`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fov_um: float = Field(gt=0, allow_inf_nan=False)
    step_um: float = Field(gt=0, allow_inf_nan=False)
    border: Border = "none"
    min_cells: int = Field(default=1, ge=1)


def window_grid(width_um: float, height_um: float, options: WindowOptions) -> tuple[np.ndarray, np.ndarray]:
    """Return names, str [n], and centres, float64 [n, 2], of the windows that fit into an image, from its top left.

    A name is a window's place in the grid, `c<column>r<row>`.

    Raises
    ------
    DataError
        No window fits, or there would be more than 10^7.
    """
    number = [int(np.floor((extent - options.fov_um) / options.step_um + 1e-9)) + 1 for extent in (width_um, height_um)]
    if min(number) < 1 or number[0] * number[1] > 10**7:
        raise DataError(
            f"windows of {options.fov_um:g} um every {options.step_um:g} um were asked for in an image of "
            f"{width_um:.0f} x {height_um:.0f} um, which makes {max(number[0], 0)} x {max(number[1], 0)}; expected 1 "
            "to 10,000,000: mend fov_um, step_um or the slide's um_per_px"
        )
    row, column = (place.ravel() for place in np.mgrid[: number[1], : number[0]])
    name = np.array([f"c{x:05d}r{y:05d}" for x, y in zip(column.tolist(), row.tolist())])
    return name, np.stack([column, row], axis=1) * options.step_um + options.fov_um / 2


def cells_in_tiles(
    tile: np.ndarray,
    box: np.ndarray,
    cell: np.ndarray,
    centre: np.ndarray,
    area: np.ndarray,
    outline: np.ndarray | None,
    border: Border,
) -> pd.DataFrame:
    """List the cells of every tile, each with its weight.

    Lengths may have any unit, the same throughout. A cell without an outline is a disc of its area; without an area
    too it is a point, which lies in the half-open box.

    Parameters
    ----------
    tile
        Names, str [n].
    box
        float64 [n, 4]: left, top, right, bottom.
    cell
        Names, str [m].
    centre
        float64 [m, 2].
    area
        float64 [m]; NaN: not known.
    outline
        float64 [m, V, 2] (the last vertex may repeat); NaN: not known. None: of no cell.
    border
        What a cell that is cut counts.

    Returns
    -------
    pandas.DataFrame
        `CELL_COLUMNS`, sorted by tile and cell; weights float64, above 0 to 1.
    """
    box, centre = np.asarray(box, dtype=np.float64), np.asarray(centre, dtype=np.float64)
    outlined, radius = _known(centre, np.asarray(area, dtype=np.float64), outline)
    low, high = centre - radius[:, None], centre + radius[:, None]
    if outline is not None:
        low[outlined], high[outlined] = outline[outlined].min(axis=1), outline[outlined].max(axis=1)
    point = ~outlined & (radius == 0)

    pair_tile, pair_cell = _near(box, (low + high) / 2, float((high - low).max(initial=0.0)) / 2)
    left_top, right_bottom = box[pair_tile, :2], box[pair_tile, 2:]
    below = np.where(point[pair_cell, None], high[pair_cell] < right_bottom, high[pair_cell] <= right_bottom)
    inside = ((low[pair_cell] >= left_top) & below).all(axis=1)
    cut = ~inside & ~point[pair_cell] & ((low[pair_cell] < right_bottom) & (high[pair_cell] > left_top)).all(axis=1)
    weight = inside.astype(np.float64)
    if border != "none":
        for of_outline in (True, False):
            chosen = np.flatnonzero(cut & (outlined[pair_cell] == of_outline))
            for start in range(0, len(chosen), _PAIRS):
                part = chosen[start : start + _PAIRS]
                cells = pair_cell[part]
                shape = outline[cells] if of_outline else centre[cells, None] + radius[cells, None, None] * _RING
                weight[part] = area_inside(shape, box[pair_tile[part]])
        weight[weight < _LEAST] = 0.0
        if border == "whole":
            weight = (weight > 0).astype(np.float64)
    kept = weight > 0
    table = pd.DataFrame(
        {
            "tile": np.asarray(tile, dtype=object)[pair_tile[kept]],
            "cell": np.asarray(cell, dtype=object)[pair_cell[kept]],
            "weight": weight[kept],
        }
    )
    return table.sort_values(["tile", "cell"], kind="stable", ignore_index=True)


def area_inside(polygon: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return which fraction of each polygon's area lies in its box, float64 [n], 0 to 1; exact for any simple polygon.

    An area is the sum over the edges of the signed area between the edge and a horizontal line. Where the ordinate is
    held within top and bottom, and the edge within left and right, the sum is the area of the part inside: no vertex
    need be made, and the edges of all polygons are done at once.

    Parameters
    ----------
    polygon
        float64 [n, V, 2], each of an area above 0.
    box
        float64 [n, 4]: left, top, right, bottom.
    """
    left, top, right, bottom = (side[:, None] for side in np.asarray(box, dtype=np.float64).T)
    # From the box's corner: large coordinates would cost digits.
    x, y = polygon[..., 0] - left, polygon[..., 1] - top
    width, height = right - left, bottom - top
    x2, y2 = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    whole_area = ((x2 - x) * (y + y2) / 2).sum(axis=1)
    run = x2 - x
    start, end = np.clip(x, 0, width), np.clip(x2, 0, width)
    slope = np.divide(y2 - y, run, out=np.zeros_like(run), where=run != 0)
    y_start, y_end = y + (start - x) * slope, y + (end - x) * slope
    rise = y_end - y_start
    flat = np.abs(rise) < 1e-7 * height
    mean = np.where(
        flat,
        np.clip((y_start + y_end) / 2, 0, height),
        (_held_integral(y_end, height) - _held_integral(y_start, height)) / np.where(flat, 1, rise),
    )
    return np.clip(((end - start) * mean).sum(axis=1) / whole_area, 0, 1)


def _known(centre: np.ndarray, area: np.ndarray, outline: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells have an outline, bool [m], and the radius of the polygon that stands for the others' discs."""
    outlined = np.zeros(len(centre), dtype=bool)
    if outline is not None:
        x, y = (outline[..., k] - outline[:, :1, k] for k in (0, 1))
        outlined = np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) > 0  # NaN is not
    disc = ~outlined & (area > 0)
    # A polygon of n corners has the area n / 2 sin(2 pi / n) of its squared radius.
    return outlined, np.sqrt(np.where(disc, area, 0.0) / (_CORNERS / 2 * np.sin(2 * np.pi / _CORNERS)))


def _near(box: np.ndarray, centre: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of a tile and a cell, int64 [p] each, that hold all whose boxes may touch."""
    if not len(box) or not len(centre):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    half = (box[:, 2:] - box[:, :2]).max(axis=1) / 2
    radius = (half + reach) * (1 + 1e-9)
    found = scipy.spatial.cKDTree(centre).query_ball_point((box[:, :2] + box[:, 2:]) / 2, radius, p=np.inf)
    number = np.array([len(one) for one in found])
    return np.repeat(np.arange(len(box)), number), np.concatenate([np.asarray(one, dtype=np.int64) for one in found])


def _held_integral(y: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the integral from 0 to y of the ordinate held within 0 and `height`."""
    held = np.clip(y, 0, height)
    return held**2 / 2 + height * np.maximum(y - height, 0)
