"""Optical density and stain amounts of tiles, and their statistics (Beer-Lambert; Ruifrok and Johnston 2001)."""

import numpy as np
from skimage.color import rgb_from_hed

#: Optical density of every 8-bit value, -log10((value + 1) / 256): white is 0, black 2.41.
OD_OF_VALUE = (-np.log10((np.arange(256) + 1) / 256)).astype(np.float32)

#: Hematoxylin and eosin as scikit-image has them (Ruifrok and Johnston), rows: stain, columns: OD of R, G, B.
DEFAULT_STAINS = tuple(tuple(float(v) for v in row) for row in rgb_from_hed[:2])


def optical_density(tiles: np.ndarray) -> np.ndarray:
    """Return the optical density (base 10) of uint8 tiles [n, H, W, 3], float32 of the same shape."""
    return OD_OF_VALUE[tiles]


def unmixing_matrix(stains: np.ndarray) -> np.ndarray:
    """Return the matrix U [3, 2] for which `od @ U` are the amounts of hematoxylin and eosin.

    Parameters
    ----------
    stains
        float [2, 3], the OD of red, green and blue of one unit of each stain; rows are scaled to length 1. The third
        direction, perpendicular to both, takes what neither stain explains.
    """
    rows = np.asarray(stains, dtype=np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    third = np.cross(rows[0], rows[1])
    return np.linalg.inv(np.vstack([rows, third / np.linalg.norm(third)]))[:, :2]


def stain_amounts(od: np.ndarray, unmix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the amounts of hematoxylin and eosin, float32 [n, H, W] each, in OD of the unit stain vector.

    Amounts below 0 (a colour outside the two stains) stay: cutting them off would hide a stain that does not fit.
    """
    # Written out instead of a matrix product: a BLAS may round a row differently beside other rows.
    r, g, b = od[..., 0], od[..., 1], od[..., 2]
    u = unmix.astype(np.float32)
    return tuple(r * u[0, s] + g * u[1, s] + b * u[2, s] for s in (0, 1))


def centre(planes: np.ndarray) -> np.ndarray:
    """Return the middle half (by side) of planes [n, H, W, ...]; the same margin on all sides, so all views agree."""
    h, w = planes.shape[1:3]
    return planes[:, h // 4 : h - h // 4, w // 4 : w - w // 4]


def by_tile(planes: np.ndarray) -> np.ndarray:
    """Return planes [n, H, W] as contiguous rows [n, H * W]."""
    return np.ascontiguousarray(planes).reshape(len(planes), -1)


def stain_features(od: np.ndarray, hematoxylin: np.ndarray, eosin: np.ndarray) -> dict[str, np.ndarray]:
    """Return statistics of colour and stain, each float [n], in OD, for the whole tile and its middle."""
    result: dict[str, np.ndarray] = {}
    for i, colour in enumerate(("red", "green", "blue")):
        for where, planes in (("", od), ("_centre", centre(od))):
            values = by_tile(planes[..., i])
            result[f"od_{colour}_mean{where}"] = values.mean(1)
            result[f"od_{colour}_sd{where}"] = values.std(1)
    for name, plane in (("hematoxylin", hematoxylin), ("eosin", eosin)):
        values, middle = by_tile(plane), by_tile(centre(plane))
        result[f"{name}_mean"], result[f"{name}_sd"] = values.mean(1), values.std(1)
        for q, quantile in zip((10, 50, 90), np.quantile(values, (0.1, 0.5, 0.9), axis=1)):
            result[f"{name}_q{q}"] = quantile
        result[f"{name}_mean_centre"], result[f"{name}_sd_centre"] = middle.mean(1), middle.std(1)
    h, e = by_tile(hematoxylin), by_tile(eosin)
    covariance = (h * e).mean(1) - h.mean(1) * e.mean(1)
    spread = h.std(1) * e.std(1)
    result["hematoxylin_eosin_correlation"] = np.where(spread > 1e-6, covariance / np.maximum(spread, 1e-6), 0)
    return result
