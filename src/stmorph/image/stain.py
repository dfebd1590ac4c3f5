"""Macenko stain normalisation: bring slides to one pair of stain vectors and one staining strength.

Macenko et al. 2009, "A method for normalizing histology slides for quantitative analysis": optical density
OD = -log(I / I0) is linear in the amounts of stain (section 2, Beer-Lambert), the two stains span a plane, and the
extreme angles in that plane are the stain vectors. A pixel's amounts are divided by the slide's 99th percentile,
multiplied by the target's, and recomposed with the target's vectors. The constants are in `stain_options`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from . import stain_kernels as kernels
from . import stain_tables as tables
from .stain_options import RULES, Rule, StainOptions

MIN_STAINED = 0.01  # share of stained pixels below which an image is left as it is
MIN_PIXELS = 50


@dataclass(frozen=True)
class Stains:
    """Two stain vectors and their strength.

    matrix: float64 [2, 3], unit rows haematoxylin and eosin, columns red, green and blue optical density.
    strength: float64 [2], 99th percentile of the amount of each stain.
    """

    matrix: np.ndarray
    strength: np.ndarray

    def record(self) -> dict[str, list]:
        """Return both as plain lists for JSON."""
        return {"stain_matrix": self.matrix.tolist(), "max_concentration": self.strength.tolist()}

    @classmethod
    def from_record(cls, record: dict[str, list]) -> "Stains":
        """Return the stains that `record` gave."""
        return cls(np.array(record["stain_matrix"], float), np.array(record["max_concentration"], float))


# The target of the authors' code, derived from their reference image: what all slides become by default.
PUBLISHED_TARGET = Stains(np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]]), np.array([1.9705, 1.0308]))


def fit_stains(pixels: np.ndarray, rule: Rule = RULES["macenko"]) -> Stains | None:
    """Estimate the stains of an image (Macenko et al. 2009, sections 2 and 3).

    Parameters
    ----------
    pixels
        uint8 [..., 3]. Glass among them is left out of the angles but counts in the 99th percentile, as in the
        published programs.
    rule
        The constants.

    Returns
    -------
    Stains or None
        None where there are no two stains to find: fewer than 1 % (or 50) stained pixels, or all of one colour.
    """
    pixels = _flat(pixels)
    stained = kernels.stained(pixels, *rule.gate)
    count = len(stained)
    if count < max(MIN_PIXELS, MIN_STAINED * len(pixels)):
        return None
    total, products = kernels.moments(stained, rule.density)
    mean = total / count
    values, vectors = np.linalg.eigh((products - count * np.outer(mean, mean)) / (count - 1))
    if values[1] < 1e-7:  # one colour, or shades of one stain: no plane
        return None
    plane = vectors[:, [2, 1]]
    plane = plane * np.where([mean @ plane[:, 0] < 0, plane[0, 1] < 0], -1, 1)

    ranks = np.array([rule.alpha, 100 - rule.alpha]) / 100 * (count - 1)
    around = kernels.angle_of(kernels.angle_neighbours(stained, _sums(rule.density, plane), ranks))
    extremes = _between(around, ranks)
    found = (plane @ np.array([np.cos(extremes), np.sin(extremes)])).T
    matrix = found[np.argsort(-found[:, 0], kind="stable")]  # haematoxylin absorbs more red
    matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    if 1 - min(_overlap(matrix), 1.0) ** 2 < 1e-6:  # the square of the sine between unit vectors
        return None
    free, overlap = _free(matrix, rule), _overlap(matrix)
    low, high = free.min(axis=1).sum(axis=0), free.max(axis=1).sum(axis=0)
    if rule.positive:
        low, high = np.zeros(2), np.maximum(high, high + overlap * high[::-1])
    rank = rule.strength_percentile / 100 * (len(pixels) - 1)
    around = kernels.amount_neighbours(pixels, free, overlap, rule.positive, low, np.maximum(high, low + 1e-9), rank)
    strength = _between(around, rank)
    return Stains(matrix, strength) if strength.min() > 1e-6 else None


class StainTransform:
    """The fixed map from one pair of stains to another: a pure function of a pixel's colour."""

    def __init__(self, source: Stains, target: Stains = PUBLISHED_TARGET, rule: Rule = RULES["macenko"]):
        self.source, self.target, self.rule = source, target, rule
        self._recompose = (target.strength / source.strength)[:, None] * target.matrix  # [2, 3]
        # The whole map is one linear map of optical density, or, with non-negative amounts, one for each pair of signs.
        self._signs = None
        if rule.positive:
            self._packed = self._positive_maps()
        else:
            self._packed = tables.packed_tables(rule.density, self._recompose.T @ np.linalg.pinv(source.matrix.T))

    def _positive_maps(self) -> np.ndarray | None:
        rule, matrix, recompose = self.rule, self.source.matrix, self._recompose
        if recompose.min() < 0:
            return None  # a negative amount alone would not become white, as no amount does
        self._signs = tables.packed_signs(_free(matrix, rule))
        both = np.linalg.inv(matrix @ matrix.T)
        linear = [np.outer(recompose[k], matrix[k]) for k in (0, 1)] + [recompose.T @ both @ matrix]
        constant = [recompose[0], recompose[1], both.sum(axis=1) @ recompose]
        packed = tables.packed_tables(rule.density, np.stack(linear), -rule.penalty * np.stack(constant))
        # Where both are negative the first alone is so too: brighter than light, which is white.
        return None if self._signs is None or packed is None else packed[[0, 0, 1, 2]]

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return `pixels` (uint8 [..., 3]) with the target's stains, a new array of the same shape.

        Within one grey level of the same rule in float64.
        """
        flat = _flat(pixels)
        out = np.empty_like(flat)
        grey = tables.exponential_table(self.rule.intensity, self.rule.truncate)
        if self._packed is not None and self.rule.positive:
            kernels.apply_packed_positive(flat, self._signs, self._packed, grey, out)
        elif self._packed is not None:
            kernels.apply_packed(flat, self._packed, grey, out)
        else:
            free, overlap = _free(self.source.matrix, self.rule), _overlap(self.source.matrix)
            kernels.apply_stains(flat, free, overlap, self.rule.positive, self._recompose, grey, out)
        return out.reshape(pixels.shape)


def normalize_tiles(
    tiles: np.ndarray, target: Stains = PUBLISHED_TARGET, options: StainOptions | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Normalise each tile by its own fit.

    This removes differences of darkness between tiles, which follow cellularity; prefer one fit a slide.

    Parameters
    ----------
    tiles
        uint8 [k, H, W, 3].
    target
        The stains that every tile gets.
    options
        Names backend and rule.

    Returns
    -------
    tiles, fitted
        uint8 [k, H, W, 3] and bool [k]: False where a tile had no stains to fit (blank, black, of one colour or nearly
        empty) and is returned unchanged.
    """
    options = options or StainOptions(fit="tile")
    out = np.empty_like(tiles)
    fitted = np.zeros(len(tiles), bool)
    for i, tile in enumerate(tiles):
        source = fit_stains(tile, options.rule_used)  # also decides for the package, which would crash or give NaN
        fitted[i] = source is not None
        if source is None:
            out[i] = tile
            continue
        if options.backend == "staintools":
            from .stain_staintools import fit_staintools

            source = fit_staintools(tile)
        out[i] = transform_of(source, target, options).apply(tile)
    return out, fitted


def fit_sample(sample: np.ndarray, options: StainOptions, name: str) -> Stains:
    """Return the stains of one slide, fitted on a sample of its tissue pixels (uint8 [n, 3]).

    Raises
    ------
    DataError
        There are no two stains in the sample: a blank, black or single-coloured image.
    """
    source = fit_stains(sample, options.rule_used)
    if source is None:
        raise DataError(
            f"{name} shows no two stains to normalise (found {len(sample)} tissue pixels of too few colours, expected "
            "tissue stained with haematoxylin and eosin); check the image, or set stain fit to none"
        )
    if options.backend == "staintools":
        from .stain_staintools import fit_staintools

        return fit_staintools(sample[None])
    return source


def transform_of(source: Stains, target: Stains, options: StainOptions) -> Any:
    """Return the map from `source` to `target` of the chosen backend: an object with `apply`."""
    if options.backend == "staintools":
        from .stain_staintools import StaintoolsTransform

        return StaintoolsTransform(source, target)
    return StainTransform(source, target, options.rule_used)


def stain_record(options: StainOptions, source: Stains | None, target: Stains) -> dict[str, Any]:
    """Return what `image.json` says of the stain: backend, fit, constants, source and target."""
    rule = options.rule_used
    used = options.fit != "none"
    return {
        "backend": options.backend,
        "fit": options.fit,
        "rule": rule.name,
        "options": options.model_dump(),
        "constants": asdict(rule),
        "luminosity_standardised": False,
        "source": source.record() if source is not None else None,
        "target": target.record() if used else None,
        "reference": options.reference or ("published target of Macenko et al.'s code" if used else None),
    }


def _flat(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.shape[-1] != 3:
        raise DataError(
            f"stain normalisation found pixels of type {pixels.dtype} and shape {pixels.shape}, "
            "expected 8-bit RGB; convert the image"
        )
    return np.ascontiguousarray(pixels).reshape(-1, 3)


def _sums(density: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the table [3, 256, 2] whose three looked-up entries sum to OD @ weights (float64 [3, 2])."""
    return np.ascontiguousarray(density[None, :, None] * weights[:, None, :])


def _free(matrix: np.ndarray, rule: Rule) -> np.ndarray:
    """Return the table [3, 256, 2] whose three looked-up entries sum to both stains' amounts, without constraint."""
    inverse = np.linalg.inv(matrix @ matrix.T)
    free = _sums(rule.density, matrix.T @ inverse)
    free[0] -= rule.penalty * inverse.sum(axis=1)
    return free


def _overlap(matrix: np.ndarray) -> float:
    return float(matrix[0] @ matrix[1])


def _between(neighbours: np.ndarray, rank: np.ndarray | float) -> np.ndarray:
    """Return percentiles as `numpy.percentile` interpolates them, of order statistics [k, 2] around `rank` ([k])."""
    return neighbours[:, 0] + (rank - np.floor(rank)) * (neighbours[:, 1] - neighbours[:, 0])
