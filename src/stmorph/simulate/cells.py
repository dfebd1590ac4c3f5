"""Simulated cells for methods that read the expression of each cell in a tile."""

from dataclasses import dataclass

import numpy as np
import scipy.spatial

from ..randomness import numpy_generator
from .counts import draw_counts, expected_counts, own_fields
from .fields import grid_index
from .programmes import PROGRAMMES, catalogue
from .tissue import INFLAMMATION, LYMPHOCYTE, TYPE_NAMES, Section

CELL_MOLECULES = 400.0
"""Expected molecules of a cell, about what an imaging platform counts with a panel of some hundred genes."""


@dataclass(frozen=True)
class SimulatedCells:
    """Tiles of a section with the cells that lie in each.

    centre_um: float64 [n, 2] x, y. tiles: uint8 [n, S, S, 3]. cells: n arrays float32 [n_cells_i, G] of counts, cells
    from the top left to the bottom right; a tile may have none. activity: float64 [n, 6], mean over the tile's cells
    (NaN without cells). nuclear_radius_um: float64 [n], mean of the cells that are no lymphocytes (NaN without).
    """

    genes: tuple[str, ...]
    centre_um: np.ndarray
    tiles: np.ndarray
    cells: list[np.ndarray]
    activity: np.ndarray
    nuclear_radius_um: np.ndarray


def cell_counts(section: Section, molecules: float = CELL_MOLECULES) -> np.ndarray:
    """Return counts of every cell of a section, float32 [cells, G], from the activities at the cell.

    A lymphocyte has INFLAMMATION at 1 and a quarter of the other programmes.
    """
    options, cells = section.options, section.cells
    genes = catalogue(options.noise_genes)
    activity = cell_activity(section)
    rng = numpy_generator(section.seed, section.slide, section.patient, "cell counts")
    total = molecules * np.exp(0.3 * rng.standard_normal(len(cells)))
    own = own_fields(genes, cells.xy_um, section.slide, section.patient, section.seed)
    expected = expected_counts(genes, activity, own, total)
    return draw_counts(expected, options.overdispersion, options.dropout, rng).astype(np.float32)


def cell_activity(section: Section) -> np.ndarray:
    """Return the activities that a cell's own expression follows, float64 [cells, 6]."""
    activity = section.cells.activity.copy()
    lymphocyte = section.cells.type == TYPE_NAMES.index(LYMPHOCYTE)
    activity[lymphocyte] *= 0.25
    activity[lymphocyte, INFLAMMATION] = 1.0
    return activity


def tile_centres(section: Section, tile_um: float, step_um: float) -> np.ndarray:
    """Return centres x, y [n, 2] of square windows on a grid of `step_um` that lie inside the image and on tissue."""
    layout = section.layout
    x = np.arange(tile_um / 2, layout.width_um - tile_um / 2, step_um)
    y = np.arange(tile_um / 2, layout.height_um - tile_um / 2, step_um)
    centre = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    corners = centre[:, None] + np.array([(0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]) * tile_um / 2
    row, column = grid_index(layout.tissue.shape, corners)
    return centre[layout.tissue[row, column].all(axis=1)]


def simulated_cells(
    section: Section,
    image: np.ndarray,
    centre_um: np.ndarray,
    tile_um: float = 64.0,
    tile_px: int = 32,
    molecules: float = CELL_MOLECULES,
) -> SimulatedCells:
    """Return tiles of a rendered section and the counts of the cells whose centre lies in each.

    Parameters
    ----------
    section, image
        A section and its picture, uint8 [H, W, 3], from `render`.
    centre_um
        Centres x, y [n, 2] of the windows, each wholly inside the image (`tile_centres`).
    tile_um, tile_px
        Side of a window and of its tile; the side of a window must be a whole multiple of the tile's in image pixels,
        because tiles are made by averaging whole pixels.
    molecules
        Expected molecules of a cell.

    Raises
    ------
    ValueError
        A window leaves the image, or `tile_px` does not divide a window.
    """
    um_per_px = section.options.um_per_px
    side = round(tile_um / um_per_px)
    if side % tile_px:
        raise ValueError(f"a window of {side} px is no whole multiple of tile_px {tile_px}; choose another tile_px")
    corner = np.rint(centre_um / um_per_px - side / 2).astype(np.int64)
    if (corner < 0).any() or (corner + side > np.array(image.shape[1::-1])).any():
        raise ValueError("a window leaves the image; choose centres with tile_centres")
    factor = side // tile_px
    tiles = np.stack([image[y : y + side, x : x + side] for x, y in corner]).astype(np.float32)
    tiles = tiles.reshape(len(corner), tile_px, factor, tile_px, factor, 3).mean(axis=(2, 4))

    cells, counts, activity = section.cells, cell_counts(section, molecules), cell_activity(section)
    resident = cells.type != TYPE_NAMES.index(LYMPHOCYTE)
    centre = (corner + side / 2) * um_per_px
    near = scipy.spatial.cKDTree(cells.xy_um).query_ball_point(centre, tile_um / 2, p=np.inf)
    near = [np.array(sorted(i, key=lambda c: tuple(cells.xy_um[c, ::-1])), dtype=np.int64) for i in near]
    return SimulatedCells(
        genes=catalogue(section.options.noise_genes).name,
        centre_um=centre,
        tiles=np.clip(np.rint(tiles), 0, 255).astype(np.uint8),
        cells=[counts[i] for i in near],
        activity=np.stack([activity[i].mean(axis=0) if len(i) else np.full(len(PROGRAMMES), np.nan) for i in near]),
        nuclear_radius_um=np.array(
            [cells.radius_um[i[resident[i]]].mean() if resident[i].any() else np.nan for i in near]
        ),
    )
