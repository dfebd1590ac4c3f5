"""Light through a stained section: dye concentrations, then Beer-Lambert with the slide's own stains."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from ..randomness import numpy_generator
from .fields import GRID_UM, enlarge, smooth_field
from .options import SimulationOptions
from .tissue import CELL_TYPES, KERATIN, MATRIX, SECRETION, Section

HEMATOXYLIN = np.array([0.62, 0.70, 0.35])
EOSIN = np.array([0.17, 0.88, 0.44])
"""Colours (optical density per unit of dye in red, green, blue) of an ordinary slide, unit length to 1 %."""

LIGHT = 243.0
"""Grey value of clear glass."""


@dataclass(frozen=True)
class Stain:
    """A slide's stains: unit vectors of optical density (natural logarithm) in rows, hematoxylin then eosin,
    float64 [2, 3]; and the amounts of the dyes, float64 [2], as factors.
    """

    matrix: np.ndarray
    amount: np.ndarray


def draw_stain(options: SimulationOptions, slide: str, patient: str, seed: int) -> Stain:
    """Draw a slide's stain: colours turn by some `stain_sd` radians, amounts by exp(1.5 stain_sd)."""
    rng = numpy_generator(seed, slide, patient, "stain")
    matrix = np.stack([HEMATOXYLIN, EOSIN])
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix = np.clip(matrix + rng.normal(0, options.stain_sd / np.sqrt(2), matrix.shape), 0.02, None)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return Stain(matrix, np.exp(rng.normal(0, 1.5 * options.stain_sd, 2)))


def render(section: Section, stain: Stain) -> np.ndarray:
    """Return the picture of a section, uint8 [H, W, 3], at the options' `um_per_px`."""
    um_per_px = section.options.um_per_px
    layout = section.layout
    shape = (round(layout.height_um / um_per_px), round(layout.width_um / um_per_px))
    rng = numpy_generator(section.seed, section.slide, section.patient, "render")
    hematoxylin, eosin = _dyes(section, shape, rng)

    image = np.empty((*shape, 3), dtype=np.uint8)
    light = enlarge(1 + 0.012 * smooth_field(rng, layout.tissue.shape, 600 / GRID_UM), shape, um_per_px) * LIGHT
    grain = rng.standard_normal(shape, dtype=np.float32)
    for channel in range(3):
        dye = stain.matrix[:, channel] * stain.amount
        density = hematoxylin * np.float32(dye[0]) + eosin * np.float32(dye[1])
        value = light * np.exp(-density) + (1.5 + 0.3 * channel) * np.roll(grain, 7 * channel, axis=1)
        image[..., channel] = np.clip(np.rint(value), 0, 255)
    return image


def _dyes(section: Section, shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the amounts of hematoxylin and eosin at each pixel, float32 [H, W] each."""
    um_per_px, grid = section.options.um_per_px, section.layout.tissue.shape
    px = 1.0 / um_per_px

    def big(field: np.ndarray) -> np.ndarray:
        return enlarge(np.asarray(field, dtype=np.float32), shape, um_per_px)

    fine = scipy.ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.1 * px, truncate=2.5)
    fine *= np.float32(2 * np.sqrt(np.pi) * 1.1 * px)
    cloud = big(smooth_field(rng, grid, 2.2))
    activity = section.activity
    tissue = np.clip((big(section.layout.level) + 2.5 * cloud) / 4 + 0.5, 0, 1)

    keratin = big(activity[KERATIN])
    eosin = (0.26 + 0.38 * keratin) * (1 + 0.14 * cloud + 0.08 * fine)
    eosin *= 1 - 0.45 * big(activity[SECRETION])
    hematoxylin = 0.075 + 0.02 * cloud + 0.02 * fine

    cells, types = section.cells, list(CELL_TYPES.values())
    uptake = np.array([t.eosin for t in types])[cells.type]
    body = np.maximum(1.75 * cells.radius_um, cells.radius_um + 3.0)
    cytoplasm = stamp(
        shape, cells.xy_um * px, body * px, 3.0 * px, 0.28 * uptake, 1 + (cells.elongation - 1) / 2, cells.angle
    )
    eosin += cytoplasm * (0.35 + 1.65 * keratin)
    del cytoplasm, keratin

    eosin += _fibres(section, shape, rng) * (1 + 0.15 * fine)

    pools, kind = section.pools_um, section.pool_kind
    oval, turn = 1 + 0.35 * rng.random(len(pools)), rng.uniform(0, np.pi, len(pools))
    empty, mucin = (
        stamp(shape, pools[of, :2] * px, pools[of, 2] * px, 1.3 * px, elongation=oval[of], angle=turn[of])
        for of in (kind != 1, kind == 1)
    )
    wisp = big(smooth_field(rng, grid, 1.3))
    eosin = eosin * (1 - empty) * (1 - 0.97 * mucin) + 0.03 * mucin
    hematoxylin = hematoxylin * (1 - empty) * (1 - mucin) + mucin * (0.26 + 0.06 * wisp)

    nuclei = _nuclei(section, shape, fine)
    eosin *= 1 - 0.55 * np.minimum(nuclei, 1)
    hematoxylin += nuclei
    return np.maximum(hematoxylin, 0) * tissue, np.maximum(eosin, 0) * tissue


def _fibres(section: Section, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return eosin of collagen: wavy bands along the fibre direction, whose width follows MATRIX."""
    um_per_px, grid = section.options.um_per_px, section.layout.tissue.shape
    matrix = enlarge(section.activity[MATRIX], shape, um_per_px)
    total = np.zeros(shape, dtype=np.float32)
    for period_um, weight in ((17.0, 0.75), (10.0, 0.35)):
        phase = section.across_um + 7 * smooth_field(rng, grid, 24 / GRID_UM)
        phase *= np.float32(2 * np.pi / period_um)
        wave = np.cos(enlarge(phase.astype(np.float32), shape, um_per_px))
        strand = enlarge(smooth_field(rng, grid, 3.0), shape, um_per_px)
        # The band is where the wave exceeds a height that falls from above its crest to below its middle.
        band = np.clip((wave + 0.6 * strand - (1.35 - 1.85 * matrix)) / 0.6, 0, 1)
        total += weight * band
    return total * (0.35 + 0.5 * matrix)


def _nuclei(section: Section, shape: tuple[int, int], texture: np.ndarray) -> np.ndarray:
    """Return hematoxylin of the nuclei: a darker rim and granular chromatin; larger nuclei are a little paler."""
    px, cells = 1.0 / section.options.um_per_px, section.cells
    uptake = np.array([t.hematoxylin for t in CELL_TYPES.values()])[cells.type]
    strength = 1.55 * uptake * (1 - 0.035 * (cells.radius_um - 3.5))
    xy, radius = cells.xy_um * px, cells.radius_um * px
    outer = stamp(shape, xy, radius, 1.0 * px, strength, cells.elongation, cells.angle)
    inner = stamp(
        shape, xy, np.maximum(radius - 1.6 * px, 0.1), 1.6 * px, 0.3 * strength, cells.elongation, cells.angle
    )
    return (outer - inner) * (1 + 0.16 * texture)


def stamp(
    shape: tuple[int, int],
    xy_px: np.ndarray,
    radius_px: np.ndarray,
    edge_px: float,
    height: np.ndarray | None = None,
    elongation: np.ndarray | None = None,
    angle: np.ndarray | None = None,
) -> np.ndarray:
    """Return the maximum of soft-edged ellipses, float32 [H, W], stamped in batches of one box size.

    radius_px: of the circle of equal area. edge_px: width over which an ellipse fades. height: 1 where not given.
    """
    canvas = np.zeros(shape, dtype=np.float32)
    number = len(xy_px)
    height = np.ones(number) if height is None else height
    root = np.sqrt(np.ones(number) if elongation is None else elongation)
    angle = np.zeros(number) if angle is None else angle
    edge_px = max(edge_px, 0.7)
    half = np.ceil(radius_px * root + edge_px).astype(np.int64) + 1
    for size in np.unique(half):
        chosen = np.flatnonzero(half == size)
        span = np.arange(-size, size + 1)
        per_batch = max(1, 2_000_000 // len(span) ** 2)
        for batch in np.split(chosen, range(per_batch, len(chosen), per_batch)):
            corner = np.floor(xy_px[batch]).astype(np.int64)
            column, row = corner[:, 0, None] + span, corner[:, 1, None] + span
            # Pixel centres lie at +0.5.
            dx = (column + 0.5 - xy_px[batch, 0, None]).astype(np.float32)[:, None, :]
            dy = (row + 0.5 - xy_px[batch, 1, None]).astype(np.float32)[:, :, None]
            cosine, sine = (f(angle[batch]).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
            stretch = root[batch].astype(np.float32)[:, None, None]
            along, across = (dx * cosine + dy * sine) / stretch, (dy * cosine - dx * sine) * stretch
            distance = radius_px[batch].astype(np.float32)[:, None, None] - np.sqrt(along**2 + across**2)
            value = np.clip(distance / np.float32(edge_px) + 0.5, 0, 1)
            value *= height[batch].astype(np.float32)[:, None, None]
            inside = (row >= 0)[:, :, None] & (row < shape[0])[:, :, None]
            inside = inside & ((column >= 0) & (column < shape[1]))[:, None, :] & (value > 0)
            index = row[:, :, None] * shape[1] + column[:, None, :]
            np.maximum.at(canvas.reshape(-1), index[inside], value[inside])
    return canvas
