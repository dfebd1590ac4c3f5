"""Texture of tiles: grey-level co-occurrence (Haralick et al. 1973) and the structure tensor, at physical scales."""

import numpy as np
from scipy import ndimage

from .stains import by_tile

LEVELS = 16
#: One of each pair of opposite directions; pairs are counted both ways, so the four stand for all eight.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


def co_occurrence(levels: np.ndarray, distance_px: int, count: int = LEVELS) -> np.ndarray:
    """Return how often grey level i lies at `distance_px` from level j, float [n, count, count], symmetric, sum 1.

    levels: integers [n, H, W] below `count`. The four directions weigh the same, so the eight views of a tile agree.
    """
    n, h, w = levels.shape
    total = np.zeros((n, count, count))
    offset = np.arange(n)[:, None, None] * count * count
    for dy, dx in DIRECTIONS:
        dy, dx = dy * distance_px, dx * distance_px
        a = levels[:, : h - dy, max(0, -dx) : w - max(0, dx)]
        b = levels[:, dy:, max(0, dx) : w + min(0, dx)]
        pairs = np.bincount((offset + a * count + b).ravel(), minlength=n * count * count).reshape(n, count, count)
        total += (pairs + pairs.transpose(0, 2, 1)) / (2 * len(DIRECTIONS) * a[0].size)
    return total


def haralick(table: np.ndarray) -> dict[str, np.ndarray]:
    """Return contrast, homogeneity, energy, correlation and entropy (nats) of tables [n, L, L], as `graycoprops`.

    The correlation of a tile with one grey level is 1.
    """
    level = np.arange(table.shape[1])
    difference = (level[:, None] - level[None]) ** 2
    side = table.sum(2)
    mean = (side * level).sum(1)
    variance = (side * (level - mean[:, None]) ** 2).sum(1)
    away = level - mean[:, None]
    covariance = (table * away[:, :, None] * away[:, None, :]).sum((1, 2))
    flat = variance < 1e-12
    return {
        "contrast": (table * difference).sum((1, 2)),
        "homogeneity": (table / (1 + difference)).sum((1, 2)),
        "energy": np.sqrt((table**2).sum((1, 2))),
        "correlation": np.where(flat, 1.0, covariance / np.where(flat, 1.0, variance)),
        "entropy": -(table * np.log(np.where(table > 0, table, 1.0))).sum((1, 2)),
    }


def texture_features(planes: dict[str, np.ndarray], um_per_px: float, distances_um: tuple[float, ...], top_od: float):
    """Return Haralick's measures of each plane [n, H, W] (OD, quantised to 16 levels below `top_od`) at each distance.

    A distance is at least one pixel and at most half the tile's side. Each measure is float [n].
    """
    result: dict[str, np.ndarray] = {}
    for name, plane in planes.items():
        levels = np.clip(plane * (LEVELS / top_od), 0, LEVELS - 1).astype(np.int64)
        for distance_um in distances_um:
            distance_px = int(np.clip(round(distance_um / um_per_px), 1, min(plane.shape[1:]) // 2))
            for measure, values in haralick(co_occurrence(levels, distance_px)).items():
                result[f"{name}_{measure}_{distance_um:g}um"] = values
    return result


def gradient_features(od: np.ndarray, um_per_px: float, scales_um: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Return the edge strength and the alignment of edges of planes [n, H, W], each float [n], at each scale.

    `gradient`: root mean square of the gradient of Gaussian-smoothed OD, in OD / um.
    `alignment`: (a - b) / (a + b) of the eigenvalues a >= b of the tile's mean structure tensor; 0 without direction or
    edges, 1 where all edges are parallel.
    """
    result: dict[str, np.ndarray] = {}
    for scale_um in scales_um:
        # Below 0.5 px a sampled Gaussian is no derivative filter any more.
        sigma = max(scale_um / um_per_px, 0.5)
        gy = by_tile(ndimage.gaussian_filter(od, (0, sigma, sigma), order=(0, 1, 0), mode="reflect"))
        gx = by_tile(ndimage.gaussian_filter(od, (0, sigma, sigma), order=(0, 0, 1), mode="reflect"))
        yy, xx, yx = (gy * gy).mean(1), (gx * gx).mean(1), (gy * gx).mean(1)
        energy = yy + xx
        result[f"gradient_{scale_um:g}um"] = np.sqrt(energy) / um_per_px
        spread = np.hypot(yy - xx, 2 * yx)
        result[f"alignment_{scale_um:g}um"] = np.where(energy > 1e-10, spread / np.maximum(energy, 1e-10), 0)
    return result
