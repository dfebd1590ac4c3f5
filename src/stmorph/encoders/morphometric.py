"""The encoder that measures: stain, nuclei, holes and texture in physical units. Offline, deterministic, interpretable.

Nothing is standardised here, for that would look at other tiles; the methods standardise on their training units.
"""

import hashlib
import json

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .base import Encoder, check_tiles
from .objects import nucleus_features, white_features
from .stains import DEFAULT_STAINS, optical_density, stain_amounts, stain_features, unmixing_matrix
from .texture import gradient_features, texture_features

LEAST_PX = 8
#: Pixels measured at a time, which bounds the memory (some 100 bytes a pixel).
PIXELS = 2**20


class MorphometricOptions(BaseModel):
    """Constants of the measurement.

    stains: OD of R, G, B of hematoxylin and of eosin; the slides' common reference when they are normalised to one.
    nucleus_*: smoothing, least threshold (OD), least contrast between nuclei and the rest (OD), least area, and least
        distance between two nuclei of a clump.
    white_*: greatest mean OD of white, least area.
    texture_um, texture_top_od: distances of co-occurrence, the OD of the highest grey level.
    gradient_um: scales of edges.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    stains: tuple[tuple[float, float, float], tuple[float, float, float]] = DEFAULT_STAINS
    nucleus_smooth_um: float = Field(default=0.75, ge=0)
    nucleus_least_od: float = Field(default=0.15, ge=0)
    nucleus_least_contrast_od: float = Field(default=0.12, ge=0)
    nucleus_least_area_um2: float = Field(default=8.0, ge=0)
    nucleus_apart_um: float = Field(default=2.5, gt=0)
    white_most_od: float = Field(default=0.08, gt=0)
    white_least_area_um2: float = Field(default=8.0, ge=0)
    texture_um: tuple[float, ...] = (1.0, 4.0)
    texture_top_od: float = Field(default=1.5, gt=0)
    gradient_um: tuple[float, ...] = (1.0, 2.0, 4.0)


class MorphometricEncoder(Encoder):
    """Measures tiles of 8 px and more; `features` names the numbers with their units."""

    name = "morphometric"
    view_invariant = True

    def __init__(self, options: MorphometricOptions | None = None):
        self.options = options or MorphometricOptions()
        self._unmix = unmixing_matrix(np.array(self.options.stains))
        self.features = tuple(self._measure(np.full((1, 16, 16, 3), 255, dtype=np.uint8), 1.0))
        self.dim = len(self.features)
        # No weights decide the numbers, but the constants do.
        constants = json.dumps([self.options.model_dump(), self.features], sort_keys=True)
        self.weights_sha256 = hashlib.sha256(constants.encode()).hexdigest()

    def encode(self, tiles: np.ndarray, um_per_px: float) -> np.ndarray:
        """Return float32 [n, dim]; never NaN, a tile without nuclei has defined numbers (see `objects`)."""
        check_tiles(tiles, um_per_px, LEAST_PX)
        result = np.empty((len(tiles), self.dim), dtype=np.float32)
        step = max(1, PIXELS // (tiles.shape[1] * tiles.shape[2]))
        for start in range(0, len(tiles), step):
            measured = self._measure(tiles[start : start + step], um_per_px)
            result[start : start + step] = np.column_stack([measured[name] for name in self.features])
        return result

    def _measure(self, tiles: np.ndarray, um_per_px: float) -> dict[str, np.ndarray]:
        o = self.options
        colours = optical_density(tiles)
        hematoxylin, eosin = stain_amounts(colours, self._unmix)
        od = (colours[..., 0] + colours[..., 1] + colours[..., 2]) / 3
        return {
            **stain_features(colours, hematoxylin, eosin),
            **nucleus_features(
                hematoxylin,
                eosin,
                um_per_px,
                smooth_um=o.nucleus_smooth_um,
                least_od=o.nucleus_least_od,
                least_contrast_od=o.nucleus_least_contrast_od,
                least_area_um2=o.nucleus_least_area_um2,
                apart_um=o.nucleus_apart_um,
            ),
            **white_features(od, um_per_px, most_od=o.white_most_od, least_area_um2=o.white_least_area_um2),
            **texture_features({"hematoxylin": hematoxylin, "eosin": eosin}, um_per_px, o.texture_um, o.texture_top_od),
            **gradient_features(od, um_per_px, o.gradient_um),
        }
