"""10x Genomics Xenium: one unit a cell, placed in the H&E image by its alignment.

Counts: `cell_feature_matrix.h5`, or the folder of that name with Matrix Market. Cells: `cells.csv.gz`, `cells.parquet`
or `cells.zarr.zip`. The instrument's frame is the morphology image's (`experiment.xenium` says how wide its pixels
are); `alignment` maps the H&E image into it, and without one the H&E image has the morphology image's own pixels.
"""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ..errors import DataError
from ..image.alignment import MORPHOLOGY_UM_PER_PX, Alignment, read_alignment
from ..image.windows import WindowOptions
from .base import Reader, ReaderOptions, SlideInfo
from .counts import Counts
from .join import join
from .transcripts_zarr import recount_in_outlines
from .visium import feature_matrix
from .xenium_files import cell_polygons, cell_table, pixel_size, recount

if TYPE_CHECKING:
    import anndata


class XeniumOptions(ReaderOptions):
    """What a Xenium slide's reader may be told.

    least_qv: quality from which a transcript counts in a recount (Onboard Analysis counts from 20).
    max_recount_difference: largest share of the cells whose recounted total may differ from the matrix.
    max_outline_difference: with transcripts.zarr.zip, which names no cell, instead: largest share of the transcripts
        that may be in another cell by the outlines, which are simplified (1.2 % in one real run).
    windows: None: the units are cells; else windows that slide over them (`WindowOptions`).
    """

    least_qv: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    max_recount_difference: float = Field(default=0.01, ge=0, le=1)
    max_outline_difference: float = Field(default=0.05, ge=0, le=1)
    windows: WindowOptions | None = None


def _read(files: dict[str, Path], info: SlideInfo, options: XeniumOptions) -> "anndata.AnnData":
    frame_um_per_px = pixel_size(files["experiment"]) if "experiment" in files else MORPHOLOGY_UM_PER_PX
    aligned = "alignment" in files
    alignment = read_alignment(files["alignment"], frame_um_per_px) if aligned else Alignment.none(frame_um_per_px)
    cells = cell_table(files["cells"])
    counts = feature_matrix(files["counts"])
    place_px = alignment.to_image_px(cells[["x_um", "y_um"]].to_numpy())
    # Cells lie on no array: 0 throughout, so that no grid is sought.
    positions = cells.assign(in_tissue=True, array_row=0, array_col=0, x_px=place_px[:, 0], y_px=place_px[:, 1])
    adata = join(counts, positions, files["cells"], np.zeros((len(cells), 2)))
    if "transcripts" in files:
        check_recount(counts, files["transcripts"], options, files.get("boundaries"))

    for name in ("cell_area_um2", "nucleus_area_um2"):
        adata.obs[name] = cells.loc[adata.obs_names, name].to_numpy()
    if "boundaries" in files:
        polygons = cell_polygons(files["boundaries"], adata.obs_names.to_numpy(dtype=object))
        adata.obsm["boundary_px"] = alignment.to_image_px(polygons)
    adata.uns["unit"] = "cell"
    how = f"the alignment's scale {alignment.um_per_px / frame_um_per_px:.4f}" if aligned else "no alignment"
    adata.uns["um_per_px"] = alignment.um_per_px
    adata.uns["um_per_px_evidence"] = (
        f"{alignment.um_per_px:.4f} by {how} and the morphology image's pixels of {frame_um_per_px:g} um"
    )
    return adata


def check_recount(counts: Counts, transcripts: Path, options: XeniumOptions, boundaries: Path | None = None) -> None:
    """Compare the matrix with the transcripts it was counted from, cell by cell.

    Parameters
    ----------
    boundaries
        The cells' outlines, by which the transcripts of `transcripts.zarr.zip` are counted.

    Raises
    ------
    DataError
        More than `options.max_recount_difference` of the cells have another total, or by outlines the totals differ by
        more than `options.max_outline_difference` of the transcripts; or there are no outlines to count by.
    """
    zipped = zipfile.is_zipfile(transcripts) or transcripts.suffix == ".zip"
    names = counts.var.index.union(counts.var["gene_id"]).to_numpy()
    if not zipped:
        recounted = recount(transcripts, counts.barcode, names, options.least_qv)
    elif boundaries is None:
        raise DataError(
            f"{transcripts} names no cell, and no boundaries are given; expected cell_boundaries, to find each "
            "transcript's cell: name them, or give transcripts.parquet"
        )
    else:
        outline_um = cell_polygons(boundaries, counts.barcode)
        recounted = recount_in_outlines(transcripts, outline_um, names, options.least_qv)
    total = np.asarray(counts.matrix.sum(axis=1)).ravel()
    differ = np.flatnonzero(recounted != total)
    if zipped:
        share = np.abs(recounted - total).sum() / max(total.sum(), 1)
        refused, most = share > options.max_outline_difference, options.max_outline_difference
        expected = f"totals that differ by at most {most:.0%} of the transcripts, here {share:.1%}"
    else:
        refused, most = len(differ) > options.max_recount_difference * len(total), options.max_recount_difference
        expected = f"at most {most:.0%} of the cells"
    if refused:
        first = differ[0]
        raise DataError(
            f"{transcripts} gives {len(differ)} of {len(total)} cells another total than {counts.path} (cell "
            f"{counts.barcode[first]}: {recounted[first]} transcripts of quality {options.least_qv:g} or more, "
            f"{total[first]} in the matrix); expected {expected}: give both of one run, or leave transcripts out"
        )


XENIUM = Reader(
    roles={
        "counts": True,
        "cells": True,
        "image": True,
        "alignment": False,
        "experiment": False,
        "transcripts": False,
        "boundaries": False,
        "dapi": False,
    },
    read=_read,
    channels={"dapi": ("dapi",), "cell_mask": ("boundaries",)},
    Options=XeniumOptions,
)
