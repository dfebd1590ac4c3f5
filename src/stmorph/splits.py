"""Gives every unit of a dataset its role. Only units with a kept tile take part: both directions use the same ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import DataError
from .randomness import numpy_generator
from .slide_file import open_slide


def split_units(units: pd.DataFrame, split: Mapping[str, Any], name: str, fold: int | None = None) -> pd.DataFrame:
    """Return `units` with a `role` for each.

    Parameters
    ----------
    units
        One row a unit: dataset, slide, patient, barcode (str), x_um, y_um (float).
    split
        A `SplitConfig` as plain values.
    name
        What to call the split in messages.
    fold
        Which of the `k` folds is tested, for kind `folds`.

    Returns
    -------
    pandas.DataFrame
        dataset, slide, patient, barcode, x_um, y_um, role; sorted by slide and barcode.
        Roles: `train`, `test`, `buffer` (too near a tested block), `unused` (named in neither list).

    Raises
    ------
    DataError
        No unit would be tested, or none would train.
    """
    units = units.sort_values(["slide", "barcode"], kind="stable").reset_index(drop=True)
    kind, seed = split["kind"], split["seed"]
    if kind in ("slides", "patients"):
        role = _by_group(units["slide" if kind == "slides" else "patient"], split["test"], split["train"])
    elif kind == "blocks":
        blocks = _blocks(units, split["block_um"])
        tested = _choose(blocks.unique(), split["test_fraction"], seed)
        role = _with_buffer(units, blocks.isin(tested).to_numpy(), split["buffer_um"])
    elif kind == "fraction":
        tested = _choose(units.index.to_numpy(), split["test_fraction"], seed)
        role = np.where(units.index.isin(tested), "test", "train")
    else:
        role = _fold(units, split, fold)
    result = units.assign(role=role)
    for needed in ("train", "test"):
        if not (result["role"] == needed).any():
            counts = ", ".join(f"{count} {value}" for value, count in result["role"].value_counts().items())
            raise DataError(
                f"split {name!r} leaves no {needed} units ({counts or 'no units at all'}); change splits in the "
                "config or look at why the tiles of those slides were lost (tiles.parquet, column lost)"
            )
    return result


def _by_group(groups: pd.Series, test: list[str], train: list[str]) -> np.ndarray:
    trains = groups.isin(train) if train else ~groups.isin(test)
    return np.select([groups.isin(test), trains], ["test", "train"], "unused")


def _blocks(units: pd.DataFrame, block_um: float) -> pd.Series:
    column, row = (units["x_um"] // block_um).astype(int), (units["y_um"] // block_um).astype(int)
    return units["slide"].astype(str) + "/" + column.astype(str) + "," + row.astype(str)


def _choose(of: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return a seeded `fraction` of `of`, at least one and never all."""
    of = np.sort(np.asarray(of))
    count = min(max(1, round(fraction * len(of))), max(1, len(of) - 1))
    return numpy_generator("split", seed).permutation(of)[:count]


def _with_buffer(units: pd.DataFrame, tested: np.ndarray, buffer_um: float) -> np.ndarray:
    """Return roles where training units within `buffer_um` (Euclidean) of a tested unit of the slide are set aside."""
    from scipy.spatial import cKDTree

    role = np.where(tested, "test", "train").astype(object)
    for slide in units["slide"].unique():
        here = (units["slide"] == slide).to_numpy()
        inside, outside = here & tested, np.flatnonzero(here & ~tested)
        if inside.any() and len(outside):
            tree = cKDTree(units.loc[inside, ["x_um", "y_um"]])
            distance, _ = tree.query(units.loc[outside, ["x_um", "y_um"]].to_numpy())
            role[outside[distance < buffer_um]] = "buffer"
    return role


def _fold(units: pd.DataFrame, split: Mapping[str, Any], fold: int) -> np.ndarray:
    of = split["of"]
    groups = {
        "slides": lambda: units["slide"],
        "patients": lambda: units["patient"],
        "blocks": lambda: _blocks(units, split["block_um"]),
        "units": lambda: units["slide"].astype(str) + "/" + units["barcode"],
    }[of]()
    names = np.sort(groups.unique())
    if len(names) < split["k"]:
        raise DataError(
            f"{split['k']} folds of {of} were asked for but there are only {len(names)}; lower k or fold over units"
        )
    shuffled = numpy_generator("folds", split["seed"]).permutation(names)
    tested = groups.isin(shuffled[fold :: split["k"]]).to_numpy()
    if of == "blocks":
        return _with_buffer(units, tested, split["buffer_um"])
    return np.where(tested, "test", "train")


def kept_units(slides: Sequence[str | Path], tiles: Sequence[str | Path]) -> pd.DataFrame:
    """Return the units that can take part: those with a kept tile in every tiling that the study uses.

    Parameters
    ----------
    slides
        Paths of slide.h5ad files.
    tiles
        Paths of tiles.parquet files of these slides, for one tiling or more.

    Returns
    -------
    pandas.DataFrame
        dataset, slide, patient, barcode, x_um, y_um.
    """
    listed = pd.concat([pd.read_parquet(path) for path in tiles], ignore_index=True)
    kept = listed.groupby(["slide", "barcode"], observed=True, sort=True)["kept"].all()
    frames = []
    for path in slides:
        slide = open_slide(path)
        about = slide.about
        frame = pd.DataFrame(
            {
                "dataset": str(about["dataset"]),
                "slide": str(about["slide"]),
                "patient": str(about["patient"]),
                "barcode": slide.obs_names.to_numpy(dtype=str),
                "x_um": slide.spatial_um[:, 0],
                "y_um": slide.spatial_um[:, 1],
            }
        )
        index = pd.MultiIndex.from_frame(frame[["slide", "barcode"]])
        frames.append(frame[kept.reindex(index, fill_value=False).to_numpy(dtype=bool)])
    return pd.concat(frames, ignore_index=True)
