"""HEST-1k (Jaume et al. 2024): `st/<id>.h5ad`, `wsis/<id>.tif`, `patches/<id>.h5`, `HEST_v<a>_<b>_<c>.csv`.

obsm['spatial'] holds the centres, x and y in pixels of the image. What goes by the name of Visium HD or Xenium was
pooled by its makers into square pseudo-spots (Xenium 100 um, Visium HD 128 um) named by row and column: they are
neither bins nor cells. Their array coordinates were numbered after empty ones were left out of Visium HD, so the scale
then comes from the distance between neighbours. obs['in_tissue'] is not kept up to date by HEST ("doesn't represent
anything at the moment", mahmoodlab/HEST issue 47) and is ignored unless asked for: tiles are judged by the tissue under
them.
"""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import scipy.spatial
from pydantic import Field

from ..errors import ConfigError, DataError
from ..image.windows import WindowOptions
from .base import Reader, ReaderOptions, SlideInfo
from .h5ad import AnnDataParts, anndata_parts, counts_of
from .hest_cells import placed_cells
from .hest_metadata import SPECIES, read_metadata, sample_row
from .hest_patches import patch_barcodes
from .join import join, suffix_hint
from .polygons import padded
from .tables import flags

if TYPE_CHECKING:
    import anndata

_POOLED_NAME = re.compile(r"(\d{3,}x\d{3,}|\d+)$")
_POOLED_TECHNOLOGY = ("visium hd", "xenium")
MAX_SCALE_ERROR = 0.10
"""Largest relative difference between the table's um per px and the declared or measured one."""


class Options(ReaderOptions):
    """What the reader may be told.

    id: the sample's id in the table of samples; None: the slide's name.
    matrix: `X`, `raw` or a layer's name: where the raw counts are.
    in_tissue: `ignore` or `use` the file's flag.
    unit: what a row is; `auto`: by the table of samples, else by the units' names; `cell`: the cells of a Xenium
    sample, counted from its transcripts.
    least_qv: of cells: least quality of a transcript that counts.
    windows: of cells: None, or windows that slide over them (`WindowOptions`).
    """

    id: str | None = None
    matrix: str = "X"
    in_tissue: Literal["ignore", "use"] = "ignore"
    unit: Literal["auto", "spot", "pseudo-spot", "cell"] = "auto"
    least_qv: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    windows: WindowOptions | None = None


def _read(files: dict[str, Path], info: SlideInfo, options: Options) -> "anndata.AnnData":
    path = files["counts"]
    row = None
    if "metadata" in files:
        row = sample_row(read_metadata(files["metadata"]), options.id or info.slide, files["metadata"])
        _check_declared(row, info, files["metadata"])
    if options.unit == "cell":
        return _cells(files, row, info, options)
    parts = anndata_parts(path, options.matrix)
    positions = _positions(parts, options)
    adata = join(counts_of(parts), positions, path, positions[["array_col", "array_row"]].to_numpy())
    adata.uns["unit"] = _unit(positions.index, row, options)
    if row is not None:
        _note_scale(adata, row, info, files["metadata"])
    if "patches" in files:
        adata.obs["has_patch"] = _joined_patches(adata, patch_barcodes(files["patches"]), path)
    return adata


HEST = Reader(
    roles={
        "counts": True,
        "image": True,
        "metadata": False,
        "patches": False,
        "transcripts": False,
        "cells": False,
        "nuclei": False,
    },
    read=_read,
    channels={"cell_mask": ("cells", "nuclei")},
    Options=Options,
)


def _cells(files: dict[str, Path], row: pd.Series | None, info: SlideInfo, options: Options) -> "anndata.AnnData":
    if "transcripts" not in files:
        raise ConfigError(
            f"slide {info.slide} of {info.dataset} asks for cells (reader_options.unit), but has no file transcripts; "
            "expected transcripts/<id>_transcripts.parquet: name it, or leave unit out for pseudo-spots"
        )
    if {"cells", "nuclei"} <= files.keys():
        raise ConfigError(
            f"slide {info.slide} of {info.dataset} has the files cells and nuclei, which are two sets of cells; "
            "expected one of them: leave the other out"
        )
    counts, positions, placed, lost = placed_cells(files, options.least_qv)
    positions = positions.assign(in_tissue=True, array_row=0, array_col=0)
    adata = join(counts, positions, placed, np.zeros((len(positions), 2)))
    adata.uns["lost"] |= {reason: number for reason, number in lost.items() if number}
    adata.uns["unit"] = "cell"
    if row is not None and row["pixel_size_um_estimated"] > 0:
        adata.uns["um_per_px"] = float(row["pixel_size_um_estimated"])
        adata.uns["um_per_px_evidence"] = f"{adata.uns['um_per_px']:.4f} by {files['metadata'].name}"
    um_per_px = info.um_per_px or adata.uns.get("um_per_px", math.nan)
    adata.obs["cell_area_um2"] = math.nan
    kept = positions.loc[adata.obs_names]
    if "area_px2" in kept:
        adata.obs["cell_area_um2"] = kept["area_px2"].to_numpy() * um_per_px**2
    if "polygon" in kept:
        adata.obsm["boundary_px"] = padded(list(kept["polygon"]))
    return adata


def _positions(parts: AnnDataParts, options: Options) -> pd.DataFrame:
    path, xy = parts.path, parts.spatial
    if xy is None or xy.ndim != 2 or xy.shape[1] < 2:
        found = "no obsm['spatial']" if xy is None else f"obsm['spatial'] of the shape {xy.shape}"
        raise DataError(
            f"{path} has {found}; expected x and y in pixels of the image for each of {len(parts.obs)} units: give "
            "HEST-1k's st/<id>.h5ad"
        )
    xy = xy[:, :2]
    bad = ~np.isfinite(xy).all(axis=1)
    if bad.any():
        raise DataError(
            f"{path}: obsm['spatial'] of {parts.obs.index[bad][0]} is {xy[bad][0].tolist()}; expected numbers for each "
            f"of {len(xy)} units ({int(bad.sum())} have none): download the file again"
        )
    obs = parts.obs
    if {"array_row", "array_col"} <= set(obs.columns):
        values = obs[["array_row", "array_col"]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        array = np.where(np.isfinite(values), values, 0).round().astype(np.int64)
    else:
        array = _array_of(xy)
    in_tissue = np.full(len(obs), True)
    if options.in_tissue == "use":
        if "in_tissue" not in obs:
            raise DataError(f"{path} has no obs column in_tissue; expected it: set reader_options.in_tissue to ignore")
        in_tissue = flags(obs["in_tissue"], "in_tissue", path)
    return pd.DataFrame(
        {
            "in_tissue": in_tissue,
            "array_row": array[:, 0],
            "array_col": array[:, 1],
            "x_px": xy[:, 0],
            "y_px": xy[:, 1],
        },
        index=pd.Index(obs.index.astype(str), dtype=object, name="barcode"),
    )


def _array_of(xy: np.ndarray) -> np.ndarray:
    """Return rows and columns by which units without array coordinates can be named, int64 [n, 2]."""
    if len(xy) < 2:
        return np.zeros((len(xy), 2), np.int64)
    distance = scipy.spatial.cKDTree(xy).query(xy, k=2)[0][:, 1]
    pitch = max(float(np.median(distance)), 1.0)
    return np.rint((xy - xy.min(axis=0)) / pitch).astype(np.int64)[:, ::-1]


def _unit(names: pd.Index, row: pd.Series | None, options: Options) -> str:
    if options.unit != "auto":
        return options.unit
    if row is not None and row["st_technology"]:
        return "pseudo-spot" if row["st_technology"].lower() in _POOLED_TECHNOLOGY else "spot"
    # Real spots are named by nucleotides, or on the first arrays by columns x rows of at most two digits.
    pooled = np.mean([_POOLED_NAME.fullmatch(name) is not None for name in names])
    return "pseudo-spot" if pooled > 0.5 else "spot"


def _check_declared(row: pd.Series, info: SlideInfo, path: Path) -> None:
    species = SPECIES.get(row["species"], row["species"])
    if info.species != "simulated" and species and species != info.species:
        raise DataError(
            f"{path} says that {row.name} is {row['species']}; expected {info.species} as declared for slide "
            f"{info.slide}: correct the species or the id"
        )
    told = row["pixel_size_um_estimated"]
    if info.um_per_px is not None and told > 0 and abs(info.um_per_px / told - 1) > MAX_SCALE_ERROR:
        raise DataError(
            f"{path} gives {row.name} {told:.4f} um per px (pixel_size_um_estimated), but slide {info.slide} of "
            f"{info.dataset} declares {info.um_per_px:.4f}; expected a difference of at most {MAX_SCALE_ERROR:.0%}: "
            "correct um_per_px"
        )


def _note_scale(adata: "anndata.AnnData", row: pd.Series, info: SlideInfo, path: Path) -> None:
    """Give the table's scale on, and hold the scale against the units' distance."""
    told, pitch_px = row["pixel_size_um_estimated"], adata.uns["grid"].pitch_px
    if told > 0:
        adata.uns["um_per_px"] = float(told)
        how = f"{told:.4f} by {path.name} (pixel_size_um_estimated)"
        if math.isfinite(pitch_px) and pitch_px > 0:
            how += f", by which neighbours lie {told * pitch_px:.1f} um apart"
            measured = info.spot_pitch_um / pitch_px if info.spot_pitch_um else told
            if abs(told / measured - 1) > MAX_SCALE_ERROR:
                raise DataError(
                    f"{path} gives {row.name} {told:.4f} um per px, by which its {adata.uns['unit']}s lie "
                    f"{told * pitch_px:.1f} um apart; expected {info.spot_pitch_um:g} um as declared for slide "
                    f"{info.slide}: correct spot_pitch_um (some samples were pooled at another size), or leave the "
                    "table out if it is wrong"
                )
        size = row[["fullres_px_width", "fullres_px_height"]].to_numpy(np.float64)
        if np.isfinite(size).all():
            how += f", in an image of {size[0]:.0f} x {size[1]:.0f} px"
        adata.uns["um_per_px_evidence"] = how


def _joined_patches(adata: "anndata.AnnData", patches: pd.DataFrame, path: Path) -> np.ndarray:
    """Return which units have a patch, bool [n]; raise DataError where patches are another slide's or scrambled."""
    found = patches.reindex(adata.obs_names)
    has = found["row"].notna().to_numpy()
    patch_path = patches.attrs["path"]
    if not has.any():
        raise DataError(
            f"{patch_path} and {path} have no barcode in common ({patches.index[0]!r} in the first, "
            f"{adata.obs_names[0]!r} in the second); expected the same sample's files: check the ids"
            f"{suffix_hint(patches.index, adata.obs_names)}"
        )
    if "x_px" in patches:
        offset = adata.obsm["spatial_px"][has] - found.loc[has, ["x_px", "y_px"]].to_numpy(np.float64)
        away = np.abs(offset - np.median(offset, axis=0)).max(axis=1)
        # Corners were cut to whole pixels. Some patches at the border may have been moved; not one in fifty.
        if (away > 2).mean() > 0.02:
            worst = int(away.argmax())
            raise DataError(
                f"{patch_path}: the patch of {adata.obs_names[has][worst]} was cut {away[worst]:.0f} px from where "
                f"{path} has the unit ({int((away > 2).sum())} of {int(has.sum())} patches); expected each patch "
                "around its unit: the files belong to different samples or versions, download both again"
            )
    return has
