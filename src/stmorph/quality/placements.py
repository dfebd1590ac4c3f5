"""Other ways in which an array could lie on an image: displaced, mirrored, turned."""

from dataclasses import dataclass

import numpy as np

STEPS = (1, 2, 5)
"""Displacements that are tried, in distances between units, in eight directions each."""
REFINED = (1, 2, 3)
"""Displacements tried on top of every mirrored or turned placement when the given one does not hold."""

_TURNS: dict[str, tuple[str, list[list[int]]]] = {
    "mirrored left to right": ("mirrored", [[-1, 0], [0, 1]]),
    "mirrored top to bottom": ("mirrored", [[1, 0], [0, -1]]),
    "mirrored, x and y exchanged": ("mirrored", [[0, 1], [1, 0]]),
    "mirrored, x and y exchanged and reversed": ("mirrored", [[0, -1], [-1, 0]]),
    "rotated by 90 degrees": ("rotated", [[0, -1], [1, 0]]),
    "rotated by 180 degrees": ("rotated", [[-1, 0], [0, -1]]),
    "rotated by 270 degrees": ("rotated", [[0, 1], [-1, 0]]),
}
_DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")


@dataclass(frozen=True)
class Placement:
    """Where the units would lie, float64 [n, 2] in micrometres; kind: given, displaced, mirrored or rotated."""

    kind: str
    name: str
    spatial_um: np.ndarray


def placements(spatial_um: np.ndarray, unit_um: float, image_um: np.ndarray) -> list[Placement]:
    """Return the given placement first, then displaced, mirrored and rotated ones.

    Mirrors and turns are taken about the middle of the units (halfway between the outermost), about their mean, and,
    for a picture that was turned as a whole, about the middle of the image (whose sides have then changed places);
    angles are clockwise as one looks at the picture.

    Parameters
    ----------
    spatial_um
        float64 [n, 2], x and y of the units, y downwards.
    unit_um
        Distance between neighbouring units.
    image_um
        Width and height of the image.
    """
    return [
        Placement("given", "as given", spatial_um),
        *displaced(spatial_um, unit_um, STEPS),
        *_turned(spatial_um, image_um),
    ]


def displaced(spatial_um: np.ndarray, unit_um: float, steps: tuple[int, ...]) -> list[Placement]:
    """Return the units moved by `steps` distances in each of eight directions."""
    found = []
    for step in steps:
        for index, direction in enumerate(_DIRECTIONS):
            angle = index * np.pi / 4
            move = step * unit_um * np.array([np.cos(angle), np.sin(angle)])
            name = f"displaced by {step} unit{'s' if step > 1 else ''} {direction}"
            found.append(Placement("displaced", name, spatial_um + move))
    return found


def refined(spatial_um: np.ndarray, unit_um: float, image_um: np.ndarray) -> list[Placement]:
    """Return every mirrored or rotated placement moved a little, for an array that was turned about another point."""
    return [
        Placement(turned.kind, f"{turned.name}, {moved.name}", moved.spatial_um)
        for turned in _turned(spatial_um, image_um)
        for moved in displaced(turned.spatial_um, unit_um, REFINED)
    ]


def _turned(spatial_um: np.ndarray, image_um: np.ndarray) -> list[Placement]:
    points = {"middle": (spatial_um.min(axis=0) + spatial_um.max(axis=0)) / 2, "mean": spatial_um.mean(axis=0)}
    image_um = np.asarray(image_um, dtype=np.float64)
    found = []
    for name, (kind, rows) in _TURNS.items():
        turn = np.array(rows, dtype=np.float64)
        for point, place in points.items():
            found.append(Placement(kind, f"{name} about the units' {point}", (spatial_um - place) @ turn.T + place))
        before = np.abs(turn).T @ image_um  # the sides that the image had when the units were placed on it
        about = (spatial_um - before / 2) @ turn.T + image_um / 2
        found.append(Placement(kind, f"{name} about the image's middle", about))
    return found
