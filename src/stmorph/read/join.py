"""Counts and positions of the same units, joined by barcode; what is lost is counted by reason."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import DataError
from .counts import Counts
from .grid import measure_grid

if TYPE_CHECKING:
    import anndata


def join(counts: Counts, positions: pd.DataFrame, path: Path, grid_xy: np.ndarray) -> "anndata.AnnData":
    """Return the units that lie in tissue and have both counts and a position, as `Reader.read` promises.

    Every barcode of either file is kept or counted in uns['lost'] once: `not in tissue` (by the positions file),
    `no counts` (not in the counts file, or no count in any gene), `no position`.

    Parameters
    ----------
    counts
        Checked counts.
    positions
        Indexed by barcode: in_tissue (bool), array_row, array_col, x_px, y_px.
    path
        The positions file, for error sentences.
    grid_xy
        Whole-number array coordinates [rows of positions, 2], by which the image's scale is measured.

    Raises
    ------
    DataError
        A barcode stands twice in the positions, no barcode is in both files, or no unit is left.
    """
    import anndata

    twice = positions.index.duplicated()
    if twice.any():
        raise DataError(
            f"{path} names {int(twice.sum())} barcodes more than once, first {positions.index[twice][0]!r}; expected "
            "each once: give one slide's file"
        )
    row_of = pd.Series(np.arange(len(counts.barcode)), index=counts.barcode)
    both = positions.index.isin(row_of.index)
    if not both.any():
        raise DataError(
            f"{path} and {counts.path} have no barcode in common ({_example(positions.index)} in the first, "
            f"{_example(row_of.index)} in the second); expected the same slide's files: check that both are of one run"
            f"{suffix_hint(positions.index, row_of.index)}"
        )
    in_tissue = positions["in_tissue"].to_numpy(dtype=bool)
    total = np.asarray(counts.matrix[:, ~counts.var["control"].to_numpy()].sum(axis=1)).ravel()
    counted = both.copy()
    counted[both] = total[row_of[positions.index[both]].to_numpy()] > 0
    keep = in_tissue & counted
    lost = {
        "not in tissue": int((~in_tissue).sum()),
        "no counts": int((in_tissue & ~counted).sum()),
        "no position": int((~row_of.index.isin(positions.index)).sum()),
    }
    if not keep.any():
        raise DataError(
            f"{path} and {counts.path} leave no unit to work on ({lost['not in tissue']} not in tissue, "
            f"{lost['no counts']} without counts, {lost['no position']} without position); expected units in tissue "
            "with counts: check that both are of one slide"
        )
    kept = positions[keep].sort_index()
    grid = measure_grid(grid_xy, positions[["x_px", "y_px"]].to_numpy())
    obs = kept[["array_row", "array_col", "in_tissue"]].copy()
    obs.index = obs.index.astype(object)
    obs.index.name = None
    return anndata.AnnData(
        X=counts.matrix[row_of[kept.index].to_numpy()],
        obs=obs,
        var=counts.var,
        obsm={"spatial_px": kept[["x_px", "y_px"]].to_numpy(dtype=np.float64)},
        uns={
            "lost": {reason: count for reason, count in lost.items() if count},
            "grid": grid,
            "duplicate_symbols": counts.duplicate_symbols,
            "genes_without_symbol": counts.genes_without_symbol,
        },
    )


def suffix_hint(one: Iterable[str], other: Iterable[str]) -> str:
    """Return the end of a sentence about names that differ: whether the suffix (`-1`) is all; some programs drop it."""
    bare = {name.split("-")[0] for name in one} & {name.split("-")[0] for name in other}
    return f"; without what follows a hyphen {len(bare)} would agree: rename one side" if bare else ""


def _example(names: pd.Index) -> str:
    return f"{names[0]!r}" if len(names) else "none"
