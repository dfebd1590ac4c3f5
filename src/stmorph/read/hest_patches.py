"""HEST-1k's `patches/<id>.h5`: what pictures it holds, by barcode.

Datasets `img` uint8 [n, S, S, 3], `barcode` [n, 1] and, from August 2024 on, `coords` [n, 2], the top-left corner in
the full-resolution image. The order is the file's own. First releases had 256 px, later ones 224 px: sizes are read.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .tables import reading

# What HEST writes beside its pictures: sides before and after resizing, and the scale of the slide.
_SCALE = ("patch_size_src", "patch_size_target", "pixel_size")


HEST_UM_PER_PX = 0.5
"""Scale of the published patches (224 px, 112 um)."""


def patch_barcodes(path: Path) -> pd.DataFrame:
    """Return what a `patches/<id>.h5` holds, indexed by barcode in the file's order.

    Columns: row; x_px, y_px (of the top-left corner in the full-resolution image) where the file has `coords`.
    attrs: path, side_px, um_per_px (of the patches; None where the file does not tell).

    Raises
    ------
    DataError
        The file is truncated, lacks a dataset, holds pictures of another kind, or names a barcode twice.
    """
    import h5py

    with reading(path, "HEST-1k's patches (h5)"), h5py.File(path) as file:
        missing = [name for name in ("img", "barcode") if name not in file]
        if missing:
            raise DataError(
                f"{path} has no {' and no '.join(missing)} (it has {', '.join(sorted(file)) or 'nothing'}); expected "
                "the datasets img and barcode: give HEST-1k's patches/<id>.h5"
            )
        image = file["img"]
        if not isinstance(image, h5py.Dataset):
            sizes = sorted({tuple(one.shape) for one in image.values()})
            raise DataError(
                f"{path} holds pictures one by one, of the sizes {', '.join(map(str, sizes))}; expected one array of "
                "pictures of one size: cut the patches again"
            )
        check_pictures(path, image.shape, image.dtype)
        barcode = np.array([_text(one) for one in file["barcode"][()].reshape(-1)], dtype=object)
        coords = file["coords"][()] if "coords" in file else None
        told = {name: float(np.ravel(image.attrs[name])[0]) for name in _SCALE if name in image.attrs}
        number, side = image.shape[:2]
    if len(barcode) != number:
        raise DataError(
            f"{path} holds {number} pictures and {len(barcode)} barcodes; expected one barcode a picture: download it "
            "again"
        )
    table = pd.DataFrame({"row": np.arange(number)}, index=pd.Index(barcode, name="barcode", dtype=object))
    if coords is not None and coords.shape == (number, 2):
        table["x_px"], table["y_px"] = coords[:, 0], coords[:, 1]
    twice = table.index.duplicated()
    if twice.any():
        raise DataError(
            f"{path} names {int(twice.sum())} barcodes more than once, first {table.index[twice][0]!r}; expected one "
            "picture a barcode: download it again"
        )
    table.attrs.update(path=str(path), side_px=int(side), um_per_px=_patch_scale(told))
    return table


def _patch_scale(told: dict[str, float]) -> float | None:
    """Return um per px of the patches, or None.

    Files in use differ in whether `pixel_size` is the slide's or the patches'; HEST publishes 0.5 um per px, so the
    reading that gives it is right.
    """
    if not set(_SCALE) <= set(told) or not all(told[name] > 0 for name in _SCALE):
        return None
    for value in (told["pixel_size"] * told["patch_size_src"] / told["patch_size_target"], told["pixel_size"]):
        if abs(value / HEST_UM_PER_PX - 1) < 0.02:
            return value
    return None


def check_pictures(path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise DataError where an array is not uint8 [n, S, S, 3] with n above 0."""
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or dtype != np.uint8 or not shape[0]:
        raise DataError(
            f"{path} holds {dtype} of the shape {tuple(shape)}; expected pictures, uint8 [n, S, S, 3] with n above 0: "
            "give another file, or make it again"
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
