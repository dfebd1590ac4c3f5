"""Nuclei and white holes of tiles: threshold, connected components and their shapes, for all tiles of a stack at once.

The moments are those of scikit-image's `regionprops`, but taken over all objects of all tiles by weighted counting, for
the speed.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from .stains import by_tile, centre

#: Neighbours within a tile only: pixels that share an edge (4) or a corner (8).
IN_PLANE_4 = np.zeros((3, 3, 3), dtype=bool)
IN_PLANE_4[1] = ndimage.generate_binary_structure(2, 1)
IN_PLANE_8 = np.zeros((3, 3, 3), dtype=bool)
IN_PLANE_8[1] = True


@dataclass(frozen=True)
class Objects:
    """Connected objects of n tiles; every array has one number per object.

    labels: int32 [n, H, W], 0 is background. tile: the object's tile. y_px, x_px: centroid. area_px, major_px, minor_px
    (axes of the ellipse with the same second moments), eccentricity, angle (of the long axis, radians).
    """

    labels: np.ndarray
    tile: np.ndarray
    y_px: np.ndarray
    x_px: np.ndarray
    area_px: np.ndarray
    major_px: np.ndarray
    minor_px: np.ndarray
    eccentricity: np.ndarray
    angle: np.ndarray


def otsu_thresholds(planes: np.ndarray, top: float, bins: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return each plane's threshold (Otsu 1979) and the difference of the means above and below it, float [n] each.

    planes: float [n, H, W]; values outside 0 .. `top` count as the nearer end.
    """
    n = len(planes)
    values = np.clip((by_tile(planes) * (bins / top)).astype(np.int64), 0, bins - 1)
    counts = np.bincount((values + np.arange(n)[:, None] * bins).ravel(), minlength=n * bins).reshape(n, bins)
    middles = (np.arange(bins) + 0.5) * top / bins
    below, mass = np.cumsum(counts, 1), np.cumsum(counts * middles, 1)
    above, rest = below[:, -1:] - below, mass[:, -1:] - mass
    contrast = rest / np.maximum(above, 1) - mass / np.maximum(below, 1)
    between = np.where((below > 0) & (above > 0), below * above * contrast**2, -1.0)
    best = between.argmax(1)
    rows = np.arange(n)
    return (best + 1) * top / bins, np.where(between[rows, best] > 0, contrast[rows, best], 0.0)


def fill_holes(mask: np.ndarray, most_px: float) -> np.ndarray:
    """Return masks [n, H, W] with holes filled that are at most `most_px` large and do not touch the tile's border."""
    labels, count = ndimage.label(~mask, IN_PLANE_4)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    fill = area <= most_px
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        fill[np.unique(edge)] = False
    fill[0] = False
    return mask | fill[labels]


def find_objects(mask: np.ndarray, least_px: float) -> Objects:
    """Return the objects of masks [n, H, W] (pixels joined by edge or corner) of at least `least_px` pixels."""
    labels, count = ndimage.label(mask, IN_PLANE_8)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    kept = area >= least_px
    kept[0] = False
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    labels = number[labels]
    tile, y, x = np.nonzero(labels)
    which = labels[tile, y, x] - 1
    k = int(kept.sum())
    area = np.bincount(which, minlength=k).astype(np.float64)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(which, weights=values, minlength=k) / area

    cy, cx = mean(y), mean(x)
    dy, dx = y - cy[which], x - cx[which]
    # A pixel is a square with a second moment of its own; regionprops leaves it out, and a thin line has no width then.
    yy, xx, yx = mean(dy * dy) + 1 / 12, mean(dx * dx) + 1 / 12, mean(dy * dx)
    half, root = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + yx**2)
    long, short = half + root, np.maximum(half - root, 0)
    first = np.zeros(k, dtype=np.int64)
    first[which] = tile
    return Objects(
        labels=labels,
        tile=first,
        y_px=cy,
        x_px=cx,
        area_px=area,
        major_px=4 * np.sqrt(long),
        minor_px=4 * np.sqrt(short),
        eccentricity=np.sqrt(np.maximum(1 - short / long, 0)),
        angle=0.5 * np.arctan2(2 * yx, yy - xx),
    )


def find_seeds(mask: np.ndarray, objects: Objects, radius_px: float) -> np.ndarray:
    """Return one point per nucleus of clumped objects, float [k, 4]: object, tile, y, x (px).

    Points are the peaks of the smoothed distance to the object's edge that are highest within `radius_px`: touching
    convex nuclei have one each. An object without a peak of its own has its centroid.
    """
    h, w = mask.shape[1:]
    # Planes are a thousand sides apart, so that a pixel's nearest background is in its own tile.
    depth = ndimage.distance_transform_edt(mask, sampling=(1000.0 * max(h, w), 1, 1))
    depth = np.minimum(depth, 4 * radius_px)
    depth = ndimage.gaussian_filter(depth, (0, radius_px / 3, radius_px / 3), mode="reflect")
    reach = max(1, round(radius_px))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = (y * y + x * x <= max(radius_px, 1) ** 2)[None]
    # The tolerance joins what differs by rounding alone: a plateau is one peak.
    peaks = (depth >= ndimage.maximum_filter(depth, footprint=disc, mode="nearest") - 1e-4) & (objects.labels > 0)
    labels, count = ndimage.label(peaks, IN_PLANE_8)
    tile, y, x = np.nonzero(labels)
    which = labels[tile, y, x] - 1
    size = np.bincount(which, minlength=count)
    seeds = np.column_stack(
        [np.bincount(which, v, minlength=count) / size for v in (objects.labels[tile, y, x] - 1, tile, y, x)]
    ).reshape(count, 4)
    alone = np.setdiff1d(np.arange(len(objects.tile)), seeds[:, 0].astype(np.int64))
    centroids = np.column_stack([alone, objects.tile[alone], objects.y_px[alone], objects.x_px[alone]])
    return np.vstack([seeds, centroids])


def tile_mean(tile: np.ndarray, values: np.ndarray, n: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted mean over each tile's objects, float [n], 0 where there are none."""
    weights = np.ones(len(tile)) if weights is None else weights
    total = np.bincount(tile, weights=weights, minlength=n)
    return np.bincount(tile, weights=values * weights, minlength=n) / np.where(total > 0, total, 1)


def tile_sd(tile: np.ndarray, values: np.ndarray, n: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted standard deviation over each tile's objects, float [n], 0 where there are fewer than two."""
    mean = tile_mean(tile, values, n, weights)
    return np.sqrt(tile_mean(tile, (values - mean[tile]) ** 2, n, weights))


def nearest_px(seeds: np.ndarray, side_px: int) -> np.ndarray:
    """Return each seed's distance to the nearest other one of its tile, at most `side_px` (also where it is alone)."""
    if not len(seeds):
        return np.empty(0)
    # Tiles lie farther apart than any answer, so one tree serves all of them.
    distance = cKDTree(seeds[:, 1:] * (4.0 * side_px, 1, 1)).query(seeds[:, 1:] * (4.0 * side_px, 1, 1), k=2)[0][:, 1]
    return np.minimum(distance, side_px)


def nucleus_features(
    hematoxylin: np.ndarray,
    eosin: np.ndarray,
    um_per_px: float,
    *,
    smooth_um: float,
    least_od: float,
    least_contrast_od: float,
    least_area_um2: float,
    apart_um: float,
) -> dict[str, np.ndarray]:
    """Return statistics of the nuclei of tiles [n, H, W], each float [n]; without nuclei all are 0.

    A nucleus is a connected region of smoothed hematoxylin above the tile's Otsu threshold. The threshold is never
    below `least_od`, and a tile whose two classes differ by less than `least_contrast_od` has none: Otsu splits noise,
    too. A clump counts as its number of seeds (`find_seeds`, at least `apart_um` from each other), each with an equal
    share of its area; shapes are those of single nuclei where a tile has any. `nucleus_distance_um` of a tile with
    fewer than two nuclei is the tile's side, and the `stroma` numbers are those of all that is no nucleus.
    """
    n, h, w = hematoxylin.shape
    sigma = smooth_um / um_per_px
    smooth = ndimage.gaussian_filter(hematoxylin, (0, sigma, sigma), mode="reflect")
    threshold, contrast = otsu_thresholds(smooth, top=2.0)
    mask = smooth > np.maximum(threshold, least_od)[:, None, None]
    mask[contrast < least_contrast_od] = False
    mask = fill_holes(mask, most_px=40 / um_per_px**2)
    found = find_objects(mask, least_px=max(least_area_um2 / um_per_px**2, 1.0))
    seeds = find_seeds(mask, found, apart_um / um_per_px)
    inside = found.labels > 0
    tile, px_um2 = found.tile, um_per_px**2
    seed_tile = seeds[:, 1].astype(np.int64)
    parts = np.bincount(seeds[:, 0].astype(np.int64), minlength=len(tile)).astype(np.float64)
    count = np.bincount(seed_tile, minlength=n)
    area_um2 = found.area_px * px_um2 / np.maximum(parts, 1)
    single = np.where(parts == 1, 1.0, 1e-6)
    ellipse_px = np.pi / 4 * found.major_px * found.minor_px
    stain = np.bincount(found.labels.ravel(), weights=hematoxylin.ravel(), minlength=len(tile) + 1)[1:] / found.area_px
    nuclear, nuclear_sd = _masked(hematoxylin, inside)
    outside, outside_sd = _masked(hematoxylin, ~inside)
    cytoplasm, cytoplasm_sd = _masked(eosin, ~inside)
    elongated = found.eccentricity**2
    along = np.hypot(*(np.bincount(tile, elongated * f(2 * found.angle), n) for f in (np.cos, np.sin)))
    side = min(h, w)
    some = count > 0
    distance = tile_mean(seed_tile, nearest_px(seeds, side), n)
    return {
        "nucleus_count": count,
        "nucleus_density_per_mm2": count / (h * w * px_um2) * 1e6,
        "nuclear_fraction": by_tile(inside).mean(1),
        "nuclear_fraction_centre": by_tile(centre(inside)).mean(1),
        "nucleus_area_um2_mean": tile_mean(tile, area_um2, n, parts),
        "nucleus_area_um2_sd": tile_sd(tile, area_um2, n, parts),
        "nucleus_long_axis_um_mean": tile_mean(tile, found.major_px * um_per_px, n, single),
        "nucleus_eccentricity_mean": tile_mean(tile, found.eccentricity, n, single),
        "nucleus_eccentricity_sd": tile_sd(tile, found.eccentricity, n, single),
        "nucleus_ellipse_fill_mean": tile_mean(tile, found.area_px / ellipse_px, n, single),
        "nucleus_alignment": along / np.maximum(np.bincount(tile, elongated, n), 1e-6),
        "nucleus_distance_um": np.where(some, distance, side) * um_per_px,
        "nucleus_hematoxylin_mean": nuclear,
        "nucleus_hematoxylin_sd_within": nuclear_sd,
        "nucleus_hematoxylin_sd_between": tile_sd(tile, stain, n, parts),
        "nucleus_hematoxylin_contrast": np.where(some, nuclear - outside, 0),
        "stroma_hematoxylin_sd": outside_sd,
        "stroma_eosin_mean": cytoplasm,
        "stroma_eosin_sd": cytoplasm_sd,
    }


def white_features(od: np.ndarray, um_per_px: float, *, most_od: float, least_area_um2: float) -> dict[str, np.ndarray]:
    """Return statistics of white holes (vacuoles, lumina, glass), each float [n], 0 where there are none.

    od: float [n, H, W], the mean optical density of the colours; white is below `most_od`.
    """
    n = len(od)
    found = find_objects(od < most_od, least_px=max(least_area_um2 / um_per_px**2, 1.0))
    area_um2 = found.area_px * um_per_px**2
    largest = np.zeros(n)
    np.maximum.at(largest, found.tile, area_um2)
    inside = found.labels > 0
    count = np.bincount(found.tile, minlength=n)
    return {
        "white_fraction": by_tile(inside).mean(1),
        "white_fraction_centre": by_tile(centre(inside)).mean(1),
        "white_count": count,
        "white_area_um2_mean": tile_mean(found.tile, area_um2, n),
        "white_area_um2_largest": largest,
        "white_eccentricity_mean": tile_mean(found.tile, found.eccentricity, n),
    }


def _masked(planes: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the masked pixels of each tile, 0 where there are none."""
    values, weight = by_tile(planes), by_tile(mask)
    count = np.maximum(weight.sum(1), 1)
    mean = np.where(weight, values, 0).sum(1) / count
    sd = np.sqrt(np.where(weight, (values - mean[:, None]) ** 2, 0).sum(1) / count)
    return mean, sd
