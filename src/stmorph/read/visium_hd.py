"""10x Genomics Visium HD: square bins, as they are, summed to pseudo-spots, or summed to nuclei; or segmented cells.

Space Ranger 3 and later write `binned_outputs/square_002um`, `square_008um`, `square_016um`, each with
`filtered_feature_bc_matrix.h5`, `raw_feature_bc_matrix.h5` and `spatial/` (`tissue_positions.parquet`,
`scalefactors_json.json`). A bin's barcode says its size and place: `s_002um_00437_00602-1` is row 437, column 602 of
the array of 2 um bins. Positions list every bin of the array, in tissue or not, also those beyond the image. Files with
other barcodes are read by the positions' array_row and array_col. Space Ranger 4 also writes `segmented_outputs`, whose
cells have counts of their own (`segmented_cells`).
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import ConfigError, DataError
from ..image.windows import WindowOptions
from ..pooling import PooledCounts, lay_windows
from .base import Reader, ReaderOptions, SlideInfo
from .bin_scale import agreed_size_um, bin_scale, check_pitch, compare_scales
from .bins import ArrayMap, check_places, fit_array
from .counts import Counts
from .grid import Grid
from .join import join
from .nuclei import read_nuclei, sum_by_nucleus
from .polygons import padded
from .segmented_cells import segmented_cells
from .visium import feature_matrix, tissue_positions

if TYPE_CHECKING:
    import anndata


class PoolOptions(BaseModel):
    """Pseudo-spots: windows of bins x bins, every `stride` bins.

    bins, stride: in bins of the files. in_tissue: how many bins of a window must be in tissue: `all`, `any`, or at
    least this share; those off tissue add no counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bins: int = Field(27, ge=1, le=1000)
    stride: int = Field(5, ge=1)
    in_tissue: Literal["all", "any"] | Annotated[float, Field(gt=0, le=1)] = "all"

    def least_bins(self) -> int:
        """Return the number of bins in tissue that a window needs."""
        share = {"all": 1.0, "any": 0.0}.get(self.in_tissue, self.in_tissue)
        return max(1, math.ceil(share * self.bins**2 - 1e-9))


class VisiumHDOptions(ReaderOptions):
    """Which bins the files must hold, and what is made of them.

    bin_um: checked against barcodes and scale factors; None: as they say. pool: None: no pseudo-spots.
    windows: of nuclei or cells: None: the units are cells; else windows that slide over them (`WindowOptions`).
    """

    bin_um: Annotated[float, Field(gt=0)] | None = None
    pool: PoolOptions | None = None
    windows: WindowOptions | None = None

    @model_validator(mode="after")
    def _one_unit(self) -> "VisiumHDOptions":
        if self.pool is not None and self.windows is not None:
            raise ValueError("pool makes pseudo-spots and windows are of cells; give one of them")
        return self


@dataclass
class _Bins:
    """The files of one bin size, as read; path: of the positions."""

    path: Path
    positions: pd.DataFrame
    counts: Counts
    array: ArrayMap
    size_um: float | None

    def let_go(self) -> None:
        """Forget positions and counts but not the genes: on a full slide, sums need the memory."""
        nothing = np.zeros(0, dtype=object)
        self.positions = self.positions[:0].copy()
        self.counts = replace(self.counts, matrix=self.counts.matrix[:0].copy(), barcode=nothing)


def _read(files: dict[str, Path], info: SlideInfo, options: VisiumHDOptions) -> "anndata.AnnData":
    if options.pool is not None and "nuclei" in files:
        raise ConfigError(
            f"slide {info.slide} of {info.dataset}: reader_options asks for pseudo-spots, and files names nuclei; "
            "expected one of them: remove `pool`, or the file of nuclei"
        )
    if "cells" in files:
        _check_segmented(files, info, options)
        return segmented_cells(files, info)
    if options.windows is not None and "nuclei" not in files:
        raise ConfigError(
            f"slide {info.slide} of {info.dataset}: reader_options asks for windows of cells, and files names neither "
            "nuclei nor cells; expected the label image that makes cells of bins, or segmented cells: name one, or "
            "remove `windows`"
        )
    bins = _read_bins(files, info, options)
    if options.pool is not None:
        adata = _pseudo_spots(bins, options.pool)
    elif "nuclei" in files:
        adata = _cells(bins, files["nuclei"], info)
    else:
        adata = join(bins.counts, bins.positions, bins.path, bins.positions[["array_col", "array_row"]].to_numpy())
        adata.uns["unit"] = "bin"
    if bins.size_um is not None:
        check_pitch(info, bins.size_um * (options.pool.stride if options.pool else 1), adata.uns["unit"])
        pitch_px = bins.array.pitch_px
        adata.uns["um_per_px"] = bins.size_um / pitch_px
        adata.uns["um_per_px_evidence"] = (
            f"{bins.size_um / pitch_px:.4f} by the bins' pitch ({bins.size_um:g} um = {pitch_px:.3f} px, residual "
            f"{bins.array.residual_px:.3f} px)"
        )
    return adata


def _check_segmented(files: dict[str, Path], info: SlideInfo, options: VisiumHDOptions) -> None:
    of_bins = [name for name in ("pool", "bin_um") if getattr(options, name) is not None]
    if of_bins or "nuclei" in files:
        found = f"reader_options sets {' and '.join(of_bins)}" if of_bins else "files names nuclei"
        raise ConfigError(
            f"slide {info.slide} of {info.dataset}: files names segmented cells, which have their own counts, and "
            f"{found}, which is for bins; expected one of them: remove it, or `cells`"
        )


def _read_bins(files: dict[str, Path], info: SlideInfo, options: VisiumHDOptions) -> _Bins:
    import pyarrow

    path = files["positions"]
    positions = tissue_positions(path)
    # Arrow keeps what it has freed; of a full slide's table that is more than a GiB.
    pyarrow.default_memory_pool().release_unused()
    check_places(positions, path)
    stated = bin_scale(files["scalefactors"]) if "scalefactors" in files else {}
    size_um = agreed_size_um(positions, path, stated, files.get("scalefactors"), info, options.bin_um)
    array = fit_array(positions, path)
    if "microns_per_pixel" in stated and size_um is not None:
        compare_scales(size_um / array.pitch_px, stated["microns_per_pixel"], files["scalefactors"], path)
    return _Bins(path, positions, feature_matrix(files["counts"]), array, size_um)


VISIUM_HD = Reader(
    roles={
        "counts": True,
        "positions": False,
        "cells": False,
        "image": True,
        "scalefactors": False,
        "nuclei": False,
        "dapi": False,
    },
    either=("positions", "cells"),
    read=_read,
    channels={"dapi": ("dapi",), "cell_mask": ("cells", "nuclei")},
    Options=VisiumHDOptions,
)


def _rows(counts: Counts, positions: pd.DataFrame, path: Path) -> tuple[np.ndarray, int]:
    """Return each position's row of the counts, -1 without; and the number of barcodes without a position."""
    row = pd.Index(counts.barcode).get_indexer(positions.index)
    found = int((row >= 0).sum())
    if not found:
        raise DataError(
            f"{path} and {counts.path} have no barcode in common ({positions.index[0]!r} in the first, "
            f"{counts.barcode[0]!r} in the second); expected the same slide's files: check that both are of one run "
            "and one bin size"
        )
    return row, len(counts.barcode) - found


def _pseudo_spots(bins: _Bins, pool: PoolOptions) -> "anndata.AnnData":
    counts, positions, path, array = bins.counts, bins.positions, bins.path, bins.array
    row, without_position = _rows(counts, positions, path)
    rows, cols = positions["array_row"].to_numpy(), positions["array_col"].to_numpy()
    in_tissue = positions["in_tissue"].to_numpy()
    windows = lay_windows(rows, cols, in_tissue, pool.bins, pool.stride, pool.least_bins())
    if not len(windows):
        raise DataError(
            f"{path} leaves no pseudo-spot of {pool.bins} x {pool.bins} bins ({int(in_tissue.sum())} bins in tissue); "
            "expected tissue of that size: lower pool.bins or pool.in_tissue, or correct the file"
        )
    has = row >= 0
    bin_row, bin_col, tissue = (np.zeros(len(counts.barcode), kind) for kind in (np.int64, np.int64, bool))
    bin_row[row[has]], bin_col[row[has]], tissue[row[has]] = rows[has], cols[has], in_tissue[has]
    given = (counts.matrix, bin_row, bin_col, tissue)
    library = PooledCounts(*given, windows, genes=[], counted=~counts.var["control"].to_numpy()).all()[1]
    full = library > 0
    if not full.any():
        raise DataError(
            f"{path} and {counts.path} leave no pseudo-spot with counts ({len(windows)} in tissue); expected counts in "
            "tissue: check that both are of one slide"
        )
    windows = windows.keep(full, "no counts")
    pooled = PooledCounts(*given, windows)
    name = f"p{pool.bins:03d}x{'bins' if bins.size_um is None else f'{bins.size_um:03g}um'}"
    barcode = [f"{name}_{r:05d}_{c:05d}" for r, c in zip(windows.top, windows.left)]
    lost = windows.lost | {
        "bins in tissue that no pseudo-spot covers": int((in_tissue & ~windows.cover(rows, cols)).sum()),
        "bins without position": without_position,
    }
    obs = pd.DataFrame(
        {
            "array_row": windows.top // pool.stride,
            "array_col": windows.left // pool.stride,
            "in_tissue": True,
            "bins_in_tissue": windows.in_tissue,
        },
        index=pd.Index(barcode, dtype=object),
    )
    centre = array.centres(positions, windows.top, windows.left, pool.bins)
    grid = Grid(array.pitch_px * pool.stride, array.mirrored, f"regression of {len(positions)} bins on their array")
    del given, counts, positions, row, rows, cols, in_tissue, has, bin_row, bin_col, tissue
    bins.let_go()
    found = _slide(None, obs, centre, bins.counts, "pseudo-spot", lost, grid)
    found.uns["counts"] = pooled
    return found


def _cells(bins: _Bins, mask: Path, info: SlideInfo) -> "anndata.AnnData":
    counts, positions, path, array = bins.counts, bins.positions, bins.path, bins.array
    nuclei = read_nuclei(mask)
    row, without_position = _rows(counts, positions, path)
    in_tissue = positions["in_tissue"].to_numpy()
    use = in_tissue & (row >= 0)
    if not use.any():
        raise DataError(
            f"{path} and {counts.path} leave no bin in tissue with counts; expected some: check that both are of one "
            "slide"
        )
    xy = positions[["x_px", "y_px"]].to_numpy()[use]
    cells = sum_by_nucleus(counts.matrix[row[use]], xy, array.axes, nuclei, ~counts.var["control"].to_numpy())
    lost = (
        cells.lost
        | nuclei.odd
        | {
            "bins not in tissue": int((~in_tissue).sum()),
            "bins without counts": int((in_tissue & (row < 0)).sum()),
            "bins without position": without_position,
        }
    )
    centre = nuclei.centre_px[cells.label]
    place = np.rint(array.places(centre)).astype(np.int64)
    um_per_px = info.um_per_px or (math.nan if bins.size_um is None else bins.size_um / array.pitch_px)
    obs = pd.DataFrame(
        {
            "array_row": place[:, 1],
            "array_col": place[:, 0],
            "in_tissue": True,
            "bins": cells.bins,
            "cell_area_um2": nuclei.area_px[cells.label] * um_per_px**2,
        },
        index=pd.Index(nuclei.names(cells.label), dtype=object),
    )
    grid = Grid(float("nan"), array.mirrored, "nuclei lie on no grid")
    adata = _slide(cells.counts, obs, centre, counts, "cell", lost, grid)
    if nuclei.rings is not None:
        adata.obsm["boundary_px"] = padded([nuclei.rings[label - 1] for label in cells.label])
    return adata


def _slide(matrix, obs, centre, counts: Counts, unit: str, lost: dict, grid: Grid) -> "anndata.AnnData":
    import anndata

    return anndata.AnnData(
        X=matrix,
        obs=obs,
        var=counts.var,
        obsm={"spatial_px": centre},
        uns={
            "unit": unit,
            "lost": {reason: count for reason, count in lost.items() if count},
            "grid": grid,
            "duplicate_symbols": counts.duplicate_symbols,
            "genes_without_symbol": counts.genes_without_symbol,
        },
    )
