"""A section of simulated tissue: programme activities, cells and pools, all of it kept as the truth."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import scipy.spatial
import scipy.special

from ..randomness import numpy_generator
from .fields import GRID_UM, at, smooth_field
from .layout import REGIONS, Layout, draw_layout
from .options import SimulationOptions
from .programmes import PROGRAMMES

FIELD_SCALE_UM = 130.0
"""Standard deviation of the Gaussian filter behind a programme's field: larger than a spot, smaller than a section."""

PROLIFERATION, MATRIX, LIPID, INFLAMMATION, SECRETION, KERATIN = range(len(PROGRAMMES))
LYMPHOCYTE = "lymphocyte"


@dataclass(frozen=True)
class CellType:
    """How a type's cells look when no programme is active.

    size, density: factors on nuclear radius and on cells per area. elongation: long by short axis of the nucleus.
    hematoxylin, eosin: factors on the uptake of nucleus and cytoplasm.
    """

    size: float
    elongation: float
    density: float
    hematoxylin: float
    eosin: float


CELL_TYPES = {
    "glandular": CellType(1.0, 1.10, 1.0, 1.0, 1.0),
    "fibroblast": CellType(0.92, 1.7, 0.8, 1.05, 0.85),
    "ductal": CellType(1.03, 1.25, 1.1, 1.0, 1.1),
    "cortical": CellType(1.0, 1.15, 1.05, 1.0, 1.0),
    "follicular": CellType(1.05, 1.05, 1.15, 0.9, 0.9),
    "medullary": CellType(0.97, 1.2, 0.9, 1.0, 1.05),
    LYMPHOCYTE: CellType(1.0, 1.05, 1.0, 1.45, 0.5),
}
TYPE_NAMES = tuple(CELL_TYPES)


@dataclass(frozen=True)
class Cells:
    """The cells of a section, n of them.

    xy_um: float64 [n, 2]. type: int64 [n], into `TYPE_NAMES`. radius_um: float64 [n], of the circle of the nucleus's
    area. elongation: float64 [n], long by short axis. angle: float64 [n], of the long axis in radians.
    activity: float64 [n, 6], of the programmes at the cell.
    """

    xy_um: np.ndarray
    type: np.ndarray
    radius_um: np.ndarray
    elongation: np.ndarray
    angle: np.ndarray
    activity: np.ndarray

    def __len__(self) -> int:
        return len(self.type)


@dataclass(frozen=True)
class Section:
    """A section and all that is true of it.

    activity: float32 [6, rows, columns] on the grid, 0 to 1. pools_um: [n, 3] x, y, radius of what is no cytoplasm;
    pool_kind: int64 [n], 0 vacuole, 1 mucin, 2 lumen. across_um: float32
    [rows, columns], a coordinate that grows across the fibres, whose lines of equal value the fibres are.
    """

    options: SimulationOptions
    slide: str
    patient: str
    seed: int
    layout: Layout
    activity: np.ndarray
    across_um: np.ndarray
    cells: Cells
    pools_um: np.ndarray
    pool_kind: np.ndarray


def draw_section(options: SimulationOptions, slide: str, patient: str, seed: int) -> Section:
    """Draw a section: the layout, the activity of each programme, then pools and cells that follow them.

    The patient moves programme levels on all of the patient's slides alike; everything else is the slide's own.
    """
    layout = draw_layout(options.organ_layout, options.spots, numpy_generator(seed, slide, patient, "layout"))
    activity = _activity(options, layout, slide, patient, seed)
    rng = numpy_generator(seed, slide, patient, "cells")
    across_um, angle = _fibres(layout, rng)
    pools_um, pool_kind = _pools(layout, activity, rng)
    cells = _cells(layout, activity, angle, pools_um, rng)
    return Section(options, slide, patient, seed, layout, activity, across_um, cells, pools_um, pool_kind)


def _fibres(layout: Layout, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a coordinate across the fibres in micrometres, and the fibres' angle in radians, float32 on the grid.

    A coordinate that grows steadily in one direction, bent by a smooth field, gives locally parallel wavy lines.
    """
    y, x = np.mgrid[: layout.tissue.shape[0], : layout.tissue.shape[1]].astype(np.float32) * np.float32(GRID_UM)
    turn = rng.uniform(0, 2 * np.pi)
    across = x * np.cos(turn) + y * np.sin(turn) + 95 * smooth_field(rng, x.shape, 110 / GRID_UM)
    slope_y, slope_x = np.gradient(across)
    return across.astype(np.float32), np.arctan2(slope_x, -slope_y).astype(np.float32)


def _activity(options: SimulationOptions, layout: Layout, slide: str, patient: str, seed: int) -> np.ndarray:
    """Return Phi(region's shift + patient's + slide's + own field), which is spread evenly over 0 to 1."""
    table = REGIONS[options.organ_layout]
    activity = []
    for index, name in enumerate(PROGRAMMES):
        shift = np.array([table[region].shift[index] for region in layout.names], dtype=np.float32)
        mean = scipy.ndimage.gaussian_filter(shift[layout.region], 20 / GRID_UM)
        mean += options.patient_sd * numpy_generator(seed, "patient", patient, name).standard_normal()
        rng = numpy_generator(seed, slide, patient, "activity", name)
        mean += options.slide_sd * rng.standard_normal()
        field = smooth_field(rng, layout.tissue.shape, FIELD_SCALE_UM / GRID_UM)
        activity.append(scipy.special.ndtr(mean + field).astype(np.float32))
    return np.stack(activity)


def _candidates(intensity_um2: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return points x, y [n, 2] of a Poisson process with an intensity (per square micrometre) given on the grid."""
    number = rng.poisson(intensity_um2 * GRID_UM**2)
    row, column = np.nonzero(number)
    repeat = number[row, column]
    corner = np.repeat(np.stack([column, row], axis=1), repeat, axis=0)
    return (corner + rng.random(corner.shape)) * GRID_UM


def keep_apart(xy_um: np.ndarray, reach_um: np.ndarray, kind: np.ndarray, cross_um: np.ndarray) -> np.ndarray:
    """Return which points stay, bool [n], when earlier points push later ones away.

    Two points of one kind stay at least reach_i + reach_j apart, two of different kinds cross_i + cross_j. Rounds in
    which every point that has no undecided earlier neighbour is decided at once give the sequential process.
    """
    state = np.zeros(len(xy_um), dtype=np.int8)  # 0 undecided, 1 stays, -1 goes
    largest = 2 * max(reach_um.max(initial=0), cross_um.max(initial=0))
    early, late = scipy.spatial.cKDTree(xy_um).query_pairs(largest, output_type="ndarray").reshape(-1, 2).T
    needed = np.where(kind[early] == kind[late], reach_um[early] + reach_um[late], cross_um[early] + cross_um[late])
    close = np.hypot(*(xy_um[early] - xy_um[late]).T) < needed
    early, late = early[close], late[close]
    while (state == 0).any():
        blocked = np.zeros(len(state), dtype=bool)
        blocked[late] = True
        state[(state == 0) & ~blocked] = 1
        state[late[state[early] == 1]] = -1
        waiting = (state[early] == 0) & (state[late] == 0)
        early, late = early[waiting], late[waiting]
    return state == 1


def _pools(layout: Layout, activity: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the vacuoles (more and larger with LIPID), mucin pools (with SECRETION) and duct lumina."""
    lumen = layout.lumen_um
    xy, radius, kind = [lumen[:, :2]], [lumen[:, 2]], [np.full(len(lumen), 2)]
    for number, (programme, dense, small, large) in enumerate(
        [(LIPID, 0.0080, 2.5, 8.5), (SECRETION, 0.0060, 3.5, 11.0)]
    ):
        level = activity[programme]
        points = _candidates(np.where(layout.tissue, dense * level**1.6, 0), rng)
        own = at(level, points)
        xy.append(points)
        radius.append((small + (large - small) * own) * np.exp(0.15 * rng.standard_normal(len(points))))
        kind.append(np.full(len(points), number))
    xy, radius, kind = np.concatenate(xy), np.concatenate(radius), np.concatenate(kind)
    order = np.r_[: len(lumen), len(lumen) + rng.permutation(len(xy) - len(lumen))]
    xy, radius, kind = xy[order], radius[order], kind[order]
    stay = keep_apart(xy, radius + 0.4, kind, radius + 1.2)
    return np.column_stack([xy, radius])[stay], kind[stay].astype(np.int64)


def _cells(
    layout: Layout, activity: np.ndarray, fibre_angle: np.ndarray, pools_um: np.ndarray, rng: np.random.Generator
) -> Cells:
    """Draw cells: denser and with larger nuclei with PROLIFERATION, longer with MATRIX; lymphocytes by INFLAMMATION."""
    names = REGIONS["lobules"] | REGIONS["layers"]
    of_region = np.array([TYPE_NAMES.index(names[region].cell_type) for region in layout.names])
    types = of_region[layout.region]
    factor = {f: np.array([getattr(t, f) for t in CELL_TYPES.values()]) for f in ("size", "elongation", "density")}

    grow = activity[PROLIFERATION]
    density = (0.0018 + 0.0032 * grow) * (1 - 0.35 * activity[MATRIX]) * factor["density"][types]
    resident = _candidates(np.where(layout.tissue, 3.0 * density, 0), rng)
    visiting = _candidates(np.where(layout.tissue, 0.0060 * activity[INFLAMMATION] ** 3, 0), rng)
    xy = np.concatenate([resident, visiting])
    kind = np.r_[np.zeros(len(resident), dtype=np.int64), np.ones(len(visiting), dtype=np.int64)]
    order = rng.permutation(len(xy))
    xy, kind = xy[order], kind[order]

    local = np.stack([at(a, xy) for a in activity], axis=1).astype(np.float64)
    type_ = np.where(kind == 1, TYPE_NAMES.index(LYMPHOCYTE), at(types, xy))
    spread = np.exp(0.08 * rng.standard_normal(len(xy)))
    radius = np.where(kind == 1, 2.5, (2.5 + 3.5 * local[:, PROLIFERATION]) * factor["size"][type_]) * spread
    elongation = factor["elongation"][type_] * np.where(kind == 1, 1, 1 + 0.8 * local[:, MATRIX])
    elongation = elongation * np.exp(0.08 * np.abs(rng.standard_normal(len(xy))))
    # Random sequential packing saturates at .70 / distance^2 points per area; the candidates reach most of that.
    reach = np.where(kind == 1, 2.9, 0.5 * np.sqrt(0.60 / at(density, xy)))
    stay = _clear_of(pools_um, xy, 0.55 * radius) & (at(layout.level, xy) > 3)
    index = np.flatnonzero(stay)
    index = index[keep_apart(xy[index], reach[index], kind[index], radius[index] * 0.95)]
    # Elongated nuclei follow the fibres; round ones lie anyhow.
    order_along = np.clip((elongation[index] - 1.1) * 2, 0.05, 1)
    angle = at(fibre_angle, xy[index]) + rng.normal(0, 0.35 / order_along)
    return Cells(xy[index], type_[index], radius[index], elongation[index], angle, local[index])


def _clear_of(pools_um: np.ndarray, xy_um: np.ndarray, margin_um: np.ndarray) -> np.ndarray:
    """Return which points, bool [n], lie outside every pool by at least `margin_um` [n]."""
    if len(pools_um) == 0 or len(xy_um) == 0:
        return np.ones(len(xy_um), dtype=bool)
    # Neighbouring pools do not overlap, so the pool that holds a point is among its few nearest.
    k = min(4, len(pools_um))
    distance, index = scipy.spatial.cKDTree(pools_um[:, :2]).query(xy_um, k=k)
    distance, index = distance.reshape(-1, k), index.reshape(-1, k)
    clear = (distance - pools_um[index, 2] > margin_um[:, None]).all(axis=1)
    wide = pools_um[pools_um[:, 2] > 13]  # lumina are wider than the distance between small pools
    for x, y, radius in wide:
        clear &= np.hypot(xy_um[:, 0] - x, xy_um[:, 1] - y) > radius + margin_um
    return clear
