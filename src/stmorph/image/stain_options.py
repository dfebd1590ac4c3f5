"""What may be chosen of stain normalisation, and the constants of its two rules.

Two rules of Macenko's method are in use, which differ in constants; the record in `image.json` names the one a store
was made by.

macenko
    As in the authors' MATLAB code and its Python port: OD = -log((I + 1) / 240), pixels with any channel below
    beta = 0.15 are glass, least squares without constraint; results are rounded.
staintools
    As in the staintools package: OD = max(-log(max(I, 1) / 255), 1e-6), pixels with CIELAB lightness of 80 % or more
    are glass, non-negative lasso with penalty 0.01; results are truncated. With this rule the compiled code agrees with
    the package within one grey level.

Neither rule standardises luminosity (staintools offers that as a separate step before; it is not used here).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

RuleName = Literal["macenko", "staintools"]


class StainOptions(BaseModel):
    """How a slide's stain is normalised: a closed object.

    fit: `slide` (one map a slide, so that darker tiles stay darker), `tile` (one map a tile, the papers' variant),
    `reference` (one map a slide, onto the stains of the `reference` image) or `none`.
    backend: `stmorph` (compiled) or `staintools` (the package, if installed).
    rule: the constants; the backend's own where not given.
    reference: an image whose stains are the target; the published target where not given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fit: Literal["slide", "tile", "reference", "none"] = "slide"
    backend: Literal["stmorph", "staintools"] = "stmorph"
    rule: RuleName | None = None
    reference: str | None = None

    @model_validator(mode="after")
    def _agree(self) -> "StainOptions":
        if self.backend == "staintools" and self.rule == "macenko":
            raise ValueError("backend staintools has its own rule; found rule macenko, expected staintools or none")
        if self.fit == "reference" and not self.reference:
            raise ValueError("fit reference needs the key reference: the path of an image whose stains are the target")
        if self.fit in ("slide", "none") and self.reference:
            raise ValueError(f"reference is not used with fit {self.fit}; set fit to reference or tile, or remove it")
        return self

    @property
    def rule_used(self) -> "Rule":
        """The rule by name, or the backend's own."""
        return RULES[self.rule or ("staintools" if self.backend == "staintools" else "macenko")]


@dataclass(frozen=True)
class Rule:
    """Constants of one variant of the method; `beta` (optical density) or `lightness` (0 to 1) marks glass."""

    name: RuleName
    intensity: float  # I0, the grey level of light that met no stain
    added: float  # grey levels added before the logarithm
    beta: float | None
    lightness: float | None
    alpha: float = 1.0  # percentile of the extreme angles
    strength_percentile: float = 99.0
    penalty: float = 0.0
    positive: bool = False
    truncate: bool = False

    @cached_property
    def density(self) -> np.ndarray:
        """Optical density of each grey level, float64 [256]."""
        if self.added:
            return -np.log((np.arange(256) + self.added) / self.intensity)
        return np.maximum(-np.log(np.maximum(np.arange(256), 1) / self.intensity), 1e-6)

    @cached_property
    def gate(self) -> tuple[np.ndarray, float]:
        """A table, float64 [3, 256], and a limit: a pixel is stained where its three entries sum to less."""
        if self.beta is not None:
            return np.tile((self.density < self.beta).astype(np.float64), (3, 1)), 0.5
        value = np.arange(256) / 255
        light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)  # sRGB to linear light
        # Lightness is compared as the byte that 8-bit CIELAB images hold: below 204 of 255, so rounded below 203.5.
        limit = (100 * (round(self.lightness * 255) - 0.5) / 255 + 16) / 116
        return np.array([0.212671, 0.715160, 0.072169])[:, None] * light, limit**3


RULES: dict[str, Rule] = {
    "macenko": Rule("macenko", intensity=240.0, added=1.0, beta=0.15, lightness=None),
    "staintools": Rule(
        "staintools", 255.0, added=0.0, beta=None, lightness=0.8, penalty=0.01, positive=True, truncate=True
    ),
}
