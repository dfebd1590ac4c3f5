"""Where a section has tissue, and which region each point of it belongs to."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import scipy.spatial

from .fields import GRID_UM, at, smooth_field
from .programmes import PROGRAMMES

PITCH_UM = 100.0
"""Centre-to-centre distance of Visium spots within a row."""

SPOT_DIAMETER_UM = 55.0
ARRAY_MARGIN_UM = 30.0
"""Distance of the outermost spots from the image's border: their discs fit, wider tiles round them do not."""


@dataclass(frozen=True)
class Region:
    """A compartment: its cell type, and how far it shifts each programme (standard deviations of the field)."""

    cell_type: str
    shift: tuple[float, float, float, float, float, float]

    def __post_init__(self):
        assert len(self.shift) == len(PROGRAMMES)


# Shifts in the order of PROGRAMMES: PROLIFERATION, MATRIX, LIPID, INFLAMMATION, SECRETION, KERATIN.
REGIONS: dict[str, dict[str, Region]] = {
    "lobules": {
        "lobule": Region("glandular", (0.6, -0.8, 0.0, -0.3, 0.4, 0.0)),
        "stroma": Region("fibroblast", (-0.6, 1.0, 0.2, 0.3, -0.7, -0.4)),
        "duct": Region("ductal", (0.2, -0.2, -0.5, 0.0, 0.6, 0.8)),
    },
    "layers": {
        "capsule": Region("fibroblast", (-0.6, 0.8, -0.2, -0.2, -0.5, 0.2)),
        "cortex": Region("cortical", (0.0, -0.4, -0.3, 0.0, -0.3, 0.4)),
        "follicle": Region("follicular", (0.8, -0.6, -0.5, 0.6, -0.3, -0.6)),
        "medulla": Region("medullary", (-0.4, 0.3, 0.6, -0.3, 0.6, 0.0)),
    },
}


@dataclass(frozen=True)
class Layout:
    """The plan of a section on the grid.

    width_um, height_um: of the whole image. tissue: bool [rows, columns]. level: float32, positive inside tissue,
    in micrometres near its outline. region: int8, index into `names`. lumen_um: [n, 3] x, y, radius of duct lumina.
    spot_row, spot_column: int64 [n] array coordinates as on a Visium slide; spot_um: float64 [n, 2] x, y.
    """

    width_um: float
    height_um: float
    tissue: np.ndarray
    level: np.ndarray
    region: np.ndarray
    names: tuple[str, ...]
    lumen_um: np.ndarray
    spot_row: np.ndarray
    spot_column: np.ndarray
    spot_um: np.ndarray


def draw_layout(organ_layout: str, spots: int, rng: np.random.Generator) -> Layout:
    """Draw an irregular piece of tissue with holes, on glass, that carries at least `spots` spots, and its regions."""
    # A spot stands for 100 x 86.6 um; the section covers some 70 % of the image.
    area_um2 = spots * PITCH_UM**2 * np.sqrt(0.75) / 0.70
    ratio = rng.uniform(0.85, 1.2)
    width_um, height_um = (float(PITCH_UM * np.ceil(np.sqrt(area_um2 * r) / PITCH_UM)) for r in (ratio, 1 / ratio))
    shape = (round(height_um / GRID_UM), round(width_um / GRID_UM))
    spot_row, spot_column, spot_um = _array(width_um, height_um)

    y, x = np.mgrid[: shape[0], : shape[1]]
    x, y = (x + 0.5) * GRID_UM / width_um * 2 - 1, (y + 0.5) * GRID_UM / height_um * 2 - 1
    # The section runs over the lower border, as sections do: spots there have no whole tile.
    outline = 1 - (np.abs(x) ** 2.6 + np.abs((y - 0.12) / 1.02) ** 2.6) + 0.13 * smooth_field(rng, shape, 60)
    outline += 0.012 * smooth_field(rng, shape, 5)
    for _ in range(max(1, round(spots / 220))):
        radius = rng.uniform(70, 150) * min(1.0, np.sqrt(spots / 400))
        away_x, away_y = (x - rng.uniform(-0.6, 0.6)) * width_um / 2, (y - rng.uniform(-0.5, 0.7)) * height_um / 2
        hole = np.hypot(away_x, away_y) < radius + 25 * smooth_field(rng, shape, 14)
        outline = np.where(hole, -9.0, outline)
    # 5 % more than asked, for spots that the ragged edge takes.
    wanted = min(round(spots * 1.05) + 2, len(spot_um))
    threshold = np.sort(at(outline, spot_um))[-wanted]
    tissue = outline > threshold
    inside = scipy.ndimage.distance_transform_edt(tissue) - scipy.ndimage.distance_transform_edt(~tissue)
    level = (scipy.ndimage.gaussian_filter(inside, 1.0) * GRID_UM).astype(np.float32)

    regions, lumen_um = (_lobules if organ_layout == "lobules" else _layers)(rng, shape, level)
    names = tuple(REGIONS[organ_layout])
    return Layout(width_um, height_um, tissue, level, regions, names, lumen_um, spot_row, spot_column, spot_um)


def _array(width_um: float, height_um: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the array of spots that fits the image: odd rows are shifted by one column (half a pitch)."""
    rows = int((height_um - 2 * ARRAY_MARGIN_UM) / (PITCH_UM * np.sqrt(0.75))) + 1
    columns = int((width_um - 2 * ARRAY_MARGIN_UM) / (PITCH_UM / 2)) + 1
    # Rows count from the border that the tissue crosses, so that it has spots near the edge of the image.
    row, column = np.divmod(np.arange(rows * columns), columns)
    row, column = row[(row + column) % 2 == 0], column[(row + column) % 2 == 0]
    top = height_um - ARRAY_MARGIN_UM - (rows - 1) * PITCH_UM * np.sqrt(0.75)
    um = np.stack([ARRAY_MARGIN_UM + column * PITCH_UM / 2, top + row * PITCH_UM * np.sqrt(0.75)], axis=1)
    return row, column, um


def _points(rng: np.random.Generator, shape: tuple[int, int], spacing_um: float) -> np.ndarray:
    """Return a jittered grid of points x, y [n, 2] in micrometres, a little beyond the section."""
    y, x = np.mgrid[-1 : shape[0] * GRID_UM / spacing_um + 1, -1 : shape[1] * GRID_UM / spacing_um + 1]
    points = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-0.4, 0.4, (x.size, 2))
    return points * spacing_um


def _lobules(rng: np.random.Generator, shape: tuple[int, int], level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygonal lobules in septa of stroma, a duct with a lumen in each."""
    seeds = _points(rng, shape, 480.0)
    y, x = (np.mgrid[: shape[0], : shape[1]] + 0.5) * GRID_UM
    x, y = x + 30 * smooth_field(rng, shape, 18), y + 30 * smooth_field(rng, shape, 18)
    near, _ = scipy.spatial.cKDTree(seeds).query(np.stack([x, y], axis=-1), k=2)
    septum = (near[..., 1] - near[..., 0]) < 90 + 45 * smooth_field(rng, shape, 40)
    region = np.where(septum, 1, 0).astype(np.int8)
    region[near[..., 0] < 62] = 2
    inside = ((seeds > 0) & (seeds < np.array(shape[::-1]) * GRID_UM)).all(axis=1)
    inside[inside] = at(level, seeds[inside]) > 40
    return region, np.column_stack([seeds[inside], rng.uniform(14, 26, inside.sum())])


def _layers(rng: np.random.Generator, shape: tuple[int, int], level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A thin capsule, a cortex with round follicles, and a medulla in the depth."""
    depth = level + 25 * smooth_field(rng, shape, 20)
    region = np.full(shape, 1, dtype=np.int8)
    seeds = _points(rng, shape, 360.0)
    y, x = (np.mgrid[: shape[0], : shape[1]] + 0.5) * GRID_UM
    near, _ = scipy.spatial.cKDTree(seeds).query(np.stack([x, y], axis=-1))
    region[near < 95 + 18 * smooth_field(rng, shape, 15)] = 2
    deep = min(480.0, 0.45 * float(level.max()))
    region[depth > deep + 60 * smooth_field(rng, shape, 50)] = 3
    region[depth < 70] = 0
    return region, np.zeros((0, 3))
