"""Pictures in Zarr (OME-Zarr 0.4 and 0.5): alone in a folder, or inside a SpatialData store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .scale_record import NOTHING, ScaleRecord
from .source import ImageSource, decoding

_UM = {"nanometer": 1e-3, "nm": 1e-3, "millimeter": 1e3, "mm": 1e3, "meter": 1e6} | dict.fromkeys(
    ("micrometer", "micrometre", "um", "µm", "μm"), 1.0
)
"""Micrometres of a unit's names."""
_NODE = ("zarr.json", ".zgroup", ".zattrs")
_BAND_PX = 256


def is_zarr(path: Path) -> bool:
    """Return whether a path is a folder that Zarr wrote."""
    return path.is_dir() and any((path / name).is_file() for name in _NODE)


class ZarrSource(ImageSource):
    """The colour picture of an OME-Zarr group with its pyramid; of a SpatialData store, its only image."""

    def __init__(self, path: Path):
        import zarr

        self.path = path
        with decoding(path):
            group = zarr.open_group(_picture_folder(path), mode="r")
            self._folder, (self._names, axes, scales) = Path(group.store.root), _multiscales(path, group)
            arrays = [group[name] for name in self._names]
        self._axes = [axis["name"] for axis in axes]
        self.levels = tuple(self._size(array) for array in arrays)
        self.scale_record = _scale(axes, scales)

    @contextmanager
    def opened(self, level: int = 0) -> Iterator["_ZarrLevel"]:
        """Open one stored resolution, for many reads."""
        import zarr

        group = zarr.open_group(self._folder, mode="r")
        yield _ZarrLevel(group[self._names[level]], self._axes)

    def _size(self, array: Any) -> tuple[int, int]:
        sides = dict(zip(self._axes, array.shape))
        others = {axis: n for axis, n in sides.items() if axis not in "cyx" and n > 1}
        if len(self._axes) != array.ndim or not {"y", "x"} <= set(sides) or others:
            raise DataError(
                f"{self.path} has the axes {self._axes} and the shape {array.shape}; expected one picture, cyx: give "
                "the H&E image"
            )
        if sides.get("c") not in (3, 4) or array.dtype != np.uint8:
            raise DataError(
                f"{self.path} holds {sides.get('c', 1)} channel(s) of {array.dtype}; expected H&E in colour, 3 "
                "channels of uint8: give the H&E image"
            )
        return sides["x"], sides["y"]


class _ZarrLevel:
    def __init__(self, array: Any, axes: list[str]):
        self._array, self._axes = array, axes
        rows = array.chunks[axes.index("y")]
        self.band_px = rows * max(1, _BAND_PX // rows)

    def read(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        # Zarr leaves out chunks that are one colour (the fill value), so a lost chunk cannot be told from such a one.
        box = {"y": slice(y0, y1), "x": slice(x0, x1), "c": slice(0, 3)}
        pixels = self._array[tuple(box.get(axis, 0) for axis in self._axes)]
        kept = [axis for axis in self._axes if axis in box]
        return np.ascontiguousarray(pixels.transpose([kept.index(axis) for axis in "yxc"]))


def _picture_folder(path: Path) -> Path:
    """Return the folder of the picture: the path, or the only image of a SpatialData store or of bioformats2raw's."""
    images = path / "images"
    if images.is_dir():
        found = sorted(one.name for one in images.iterdir() if is_zarr(one))
    elif (path / "OME").is_dir():
        images, found = path, sorted(one.name for one in path.iterdir() if one.name.isdigit() and is_zarr(one))
    else:
        return path
    if len(found) != 1:
        raise DataError(
            f"{path} holds {len(found)} images ({', '.join(found[:12]) or 'none'}); expected one: give {images}/<name>"
        )
    return images / found[0]


def _multiscales(path: Path, group: Any) -> tuple[list[str], list[dict], list[list[float]]]:
    attributes = dict(group.attrs)
    record = attributes.get("ome", attributes).get("multiscales") or []
    if not record or not record[0].get("datasets"):
        raise DataError(
            f"{path} describes no picture (its attributes: {', '.join(sorted(attributes)) or 'none'}); expected an "
            "OME-Zarr group with multiscales: give the folder of the image, e.g. store.zarr/images/<name>"
        )
    datasets = record[0]["datasets"]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in record[0].get("axes", list("tczyx"))]
    transforms = datasets[0].get("coordinateTransformations") or []
    scales = [one["scale"] for one in transforms if one.get("type") == "scale"]
    return [dataset["path"] for dataset in datasets], axes, scales


def _scale(axes: list[dict], scales: list[list[float]]) -> ScaleRecord:
    units = {axis["name"]: str(axis.get("unit", "")).lower() for axis in axes}
    if not scales or units.get("x") not in _UM or units.get("y") not in _UM:
        return NOTHING
    names = [axis["name"] for axis in axes]
    x_um, y_um = (float(scales[0][names.index(name)]) * _UM[units[name]] for name in "xy")
    if not 0.02 < x_um < 20 or abs(y_um / x_um - 1) > 0.01:
        return ScaleRecord(None, f"OME-Zarr record: {x_um:.4g} x {y_um:.4g} um per px, which is no microscope's")
    return ScaleRecord(x_um, "OME-Zarr record")
