"""The affine map between a stained image and the frame in which an instrument measured.

Xenium Explorer writes it as a 3 x 3 matrix without header (`*_he_imagealignment.csv`). It maps pixels of the H&E image
to pixels of the morphology image: (x', y', 1) = M (x, y, 1), as columns; 10x Genomics' files and the readers that use
them agree on that. A pixel of the morphology image is 0.2125 um wide (`pixel_size` in `experiment.xenium`), and the
instrument's positions are micrometres in its frame. Positions are continuous and count from the image's top-left
corner: the centre of the first pixel is (0.5, 0.5).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError

MORPHOLOGY_UM_PER_PX = 0.2125
"""Width of a pixel of a Xenium morphology image."""
MAX_STRETCH = 0.10
"""Largest relative difference between the scales along two axes: beyond it the image has no one um per px."""

_MOST = 1e9
"""Beyond any image: a matrix with such a number is damaged."""


@dataclass(frozen=True)
class Alignment:
    """matrix: float64 [3, 3], pixels of the image to pixels of the frame. frame_um_per_px: width of the latter."""

    matrix: np.ndarray
    frame_um_per_px: float = MORPHOLOGY_UM_PER_PX

    @classmethod
    def none(cls, frame_um_per_px: float = MORPHOLOGY_UM_PER_PX) -> "Alignment":
        """Return the alignment of an image that has the frame's own pixels."""
        return cls(np.eye(3), frame_um_per_px)

    @property
    def um_per_px(self) -> float:
        """Micrometres an image pixel: the root of the area that a pixel covers in the frame."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:2, :2])))) * self.frame_um_per_px

    def to_image_px(self, frame_um: np.ndarray) -> np.ndarray:
        """Return positions in image pixels, float64 [..., 2], of positions in micrometres of the frame [..., 2]."""
        inverse = np.linalg.inv(self.matrix)
        frame_px = np.asarray(frame_um, dtype=np.float64) / self.frame_um_per_px
        return frame_px @ inverse[:2, :2].T + inverse[:2, 2]

    def to_frame_um(self, image_px: np.ndarray) -> np.ndarray:
        """Return positions in micrometres of the frame, float64 [..., 2], of positions in image pixels [..., 2]."""
        frame_px = np.asarray(image_px, dtype=np.float64) @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        return frame_px * self.frame_um_per_px


def read_alignment(path: Path, frame_um_per_px: float = MORPHOLOGY_UM_PER_PX) -> Alignment:
    """Return the alignment that a 3 x 3 table of numbers says.

    Raises
    ------
    DataError
        The file is damaged, is no 3 x 3 table of finite numbers with the last row 0, 0, 1, or the matrix is singular
        or stretches one axis more than 10 % beyond the other.
    """
    from ..read.tables import reading  # readers import this module

    with reading(path, "a 3 x 3 alignment matrix, comma-separated without header"):
        matrix = np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=2, encoding="utf-8-sig")
    matrix = matrix if matrix.size else np.zeros((1, 0))
    if matrix.shape != (3, 3) or not (np.abs(matrix) < _MOST).all() or not np.allclose(matrix[2], [0, 0, 1]):
        raise DataError(
            f"{path} holds {matrix.shape[0]} x {matrix.shape[1]} values with the last row {matrix[-1].tolist()}; "
            "expected 3 x 3 finite numbers, the last row 0, 0, 1: export the alignment from Xenium Explorer again"
        )
    large, small = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    if not small > 1e-6 * large:
        raise DataError(
            f"{path} holds a singular matrix {matrix[:2, :2].tolist()}; expected one that maps the image's plane to "
            "the morphology image's: export the alignment again"
        )
    if large > (1 + MAX_STRETCH) * small:
        raise DataError(
            f"{path} scales one axis by {large:.4f} and another by {small:.4f}; expected scales within "
            f"{MAX_STRETCH:.0%}, because an image has one um per px: align the image again without shear"
        )
    return Alignment(matrix, frame_um_per_px)
