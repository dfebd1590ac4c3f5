"""The eight views of a square tile: its rotations and reflections, in one order used everywhere.

Stem pairs each unit's expression with them (paper, section 5.3, "Image Augmentation").
"""

import numpy as np

VIEWS = (
    "identity",
    "rotate_90",
    "rotate_180",
    "rotate_270",
    "flip_horizontal",
    "flip_vertical",
    "transpose",
    "transverse",
)


def view(tiles: np.ndarray, name: str) -> np.ndarray:
    """Return one view of tiles [..., H, W, C] (H == W), counter-clockwise rotations; no pixel is resampled.

    Raises
    ------
    KeyError
        `name` is not one of `VIEWS`.
    """
    return {
        "identity": lambda t: t,
        "rotate_90": lambda t: np.rot90(t, 1, axes=(-3, -2)),
        "rotate_180": lambda t: np.rot90(t, 2, axes=(-3, -2)),
        "rotate_270": lambda t: np.rot90(t, 3, axes=(-3, -2)),
        "flip_horizontal": lambda t: t[..., :, ::-1, :],
        "flip_vertical": lambda t: t[..., ::-1, :, :],
        "transpose": lambda t: np.swapaxes(t, -3, -2),
        "transverse": lambda t: np.swapaxes(np.rot90(t, 2, axes=(-3, -2)), -3, -2),
    }[name](tiles)
