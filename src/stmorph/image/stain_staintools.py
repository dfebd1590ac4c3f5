"""The staintools package as a backend: the reference that the compiled code is tested against.

The package is optional (its solver, spams, is GPL), so it is imported when it is asked for.
"""

from types import ModuleType

import numpy as np

from ..errors import ConfigError
from .stain import Stains
from .stain_options import RULES


def load_staintools() -> ModuleType:
    """Return the package.

    Raises
    ------
    ConfigError
        It, or its solver, is not installed.
    """
    try:
        import staintools
        import staintools.miscellaneous.get_concentrations
    except ImportError as error:
        raise ConfigError(
            f"stain backend staintools cannot be used ({error}); install staintools, spams-bin and "
            "opencv-python-headless, or set backend to stmorph with rule staintools, which agrees within one grey level"
        ) from error
    return staintools


def fit_staintools(pixels: np.ndarray) -> Stains:
    """Return the stains of uint8 [H, W, 3] as staintools estimates them; the input is not touched."""
    staintools = load_staintools()
    # The package writes ones over the zeros of its input.
    matrix = staintools.stain_extraction.macenko_stain_extractor.MacenkoStainExtractor.get_stain_matrix(pixels.copy())
    amounts = staintools.miscellaneous.get_concentrations.get_concentrations(pixels.copy(), matrix)
    return Stains(matrix, np.percentile(amounts, RULES["staintools"].strength_percentile, axis=0))


class StaintoolsTransform:
    """The map from one pair of stains to another with the package's own solver; same interface as `StainTransform`."""

    def __init__(self, source: Stains, target: Stains):
        self.source, self.target, self.rule = source, target, RULES["staintools"]
        self._concentrations = load_staintools().miscellaneous.get_concentrations.get_concentrations

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return `pixels` (uint8 [..., 3]) with the target's stains, a new array of the same shape."""
        amounts = self._concentrations(pixels.reshape(-1, 3).copy(), self.source.matrix)
        amounts *= self.target.strength / self.source.strength
        return (255 * np.exp(-amounts @ self.target.matrix)).reshape(pixels.shape).astype(np.uint8)
