"""The numbers of one slide's page, from the files that the pipeline has made of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..image.source import open_image
from ..slide_file import open_slide
from .registration import register
from .under import read_scale, under_units
from .units import units_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Measured:
    """What a page shows.

    record: the numbers, plain values. picture: uint8 [H, W, 3], the image as it came, reduced; um_per_px: of it.
    spatial_um, counts, genes: of each unit, [n, 2], [n], [n]. lost: why each unit has no tile in the first tiling
    ('' where it has one), str [n].
    """

    record: dict[str, Any]
    picture: np.ndarray
    um_per_px: float
    spatial_um: np.ndarray
    counts: np.ndarray
    genes: np.ndarray
    lost: np.ndarray


def measure(
    slide: str | Path, image: str | Path, tilings: Mapping[str, tuple[str | Path, str | Path]], seed: int = 0
) -> Measured:
    """Measure a slide.

    Parameters
    ----------
    slide, image
        `slide.h5ad`, and the image that it lies on.
    tilings
        Tiling -> (`tiles.parquet`, `image.json`), at least one.
    seed
        Of the registration's resampling.

    Raises
    ------
    DataError
        The image cannot be read, or a tile list is not this slide's.
    """
    import pandas as pd

    data = open_slide(slide)
    about = data.about
    tables = {name: pd.read_parquet(tiles) for name, (tiles, _) in tilings.items()}
    for name, table in tables.items():
        if set(table["barcode"]) != set(data.obs_names):
            raise DataError(
                f"{tilings[name][0]} lists {len(table)} units, but {slide} has {data.n_obs} and they are not the same; "
                "expected one row a unit: make the tiles again"
            )
    control = data.var["control"].to_numpy(dtype=bool)
    counts, genes = (np.zeros(data.n_obs, dtype=kind) for kind in (np.float64, np.int64))
    detected = np.zeros(int((~control).sum()), dtype=bool)
    for index, block in data.blocks():
        counted = block[:, ~control] if control.any() else block
        counts[index] = np.asarray(counted.sum(axis=1)).ravel()
        genes[index] = counted.getnnz(axis=1)
        detected[counted.indices] = True

    um_per_px = float(about["um_per_px"])
    units = units_of(data)
    source = open_image(image)
    picture = source.read(read_scale(source.width_px, source.height_px, um_per_px, units.unit_um))
    image_um = np.array([source.width_px, source.height_px]) * um_per_px
    picture_um = float(image_um[0] / picture.shape[1])
    found = register(units, under_units(picture, picture_um, units.unit_um), image_um, seed)

    record = {
        "dataset": str(about["dataset"]),
        "slide": str(about["slide"]),
        "patient": str(about["patient"]),
        "platform": str(about["platform"]),
        "unit": str(about["unit"]),
        "units": int(data.n_obs),
        "genes": int((~control).sum()),
        "genes_detected": int(detected.sum()),
        "controls": int(control.sum()),
        "counts_total": int(counts.sum()),
        "counts_per_unit": _spread(counts),
        "genes_per_unit": _spread(genes),
        "lost": json.loads(about["lost"]),
        "tilings": {name: _tiling(table, Path(tilings[name][1])) for name, table in tables.items()},
        "image": {"width_px": source.width_px, "height_px": source.height_px},
        "um_per_px": um_per_px,
        "um_per_px_measured": _or_none(about["um_per_px_measured"]),
        "um_per_px_evidence": str(about["um_per_px_evidence"]),
        "on_tissue_fraction": float(about["on_tissue_fraction"]),
        "registration": found.record(),
    }
    first = next(iter(tables.values())).set_index("barcode")["lost"].reindex(data.obs_names)
    return Measured(record, picture, picture_um, data.spatial_um, counts, genes, first.to_numpy(dtype=str))


def _tiling(table: "pd.DataFrame", image_json: Path) -> dict[str, Any]:
    lost = table.loc[~table["kept"], "lost"].value_counts()
    image = json.loads(image_json.read_text("utf-8"))
    stain = image["stain"]
    return {
        "kept": int(table["kept"].sum()),
        "lost": {str(reason): int(lost[reason]) for reason in sorted(lost.index)},
        "um_per_px": float(image["um_per_px"]),
        "tile_px": int(table["size_px"].iloc[0]),
        "stain": {key: stain[key] for key in ("fit", "rule", "source", "target")},
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    names = ("lowest", "q25", "median", "q75", "highest")
    return dict(zip(names, np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()))


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
