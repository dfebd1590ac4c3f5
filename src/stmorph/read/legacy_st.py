"""Legacy Spatial Transcriptomics: a table of counts, a table of spots, an image.

Counts: separated by tabs, one row a spot named `XxY`, one column a gene (symbols, or Ensembl ids with a table of
symbols).
Spots: x, y (array coordinates, x along the image's x), new_x, new_y (the same, corrected to where the spot was found),
pixel_x, pixel_y (pixels of the full image), selected (1: under tissue).

Two arrays are in use. The first (1,007 spots, HER2ST) is square: every whole (x, y) is a spot, 200 um apart. The second
("2k", the mouse olfactory bulb of STUtility) is staggered: x and y are both odd or both even, so that neighbours are a
diagonal step apart. Its measured steps (21.61 px along x, 24.06 px along y: 43.2 px between spots of a row, 32.3 px
between nearest neighbours) are in the ratio 4 : 2.99, as 200 um along a row and 150 um between nearest neighbours
are; the pitch of a staggered array is therefore that of nearest neighbours, 150 um, which gives 4.64 um per pixel.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import DataError
from .base import Reader, ReaderOptions, SlideInfo
from .counts import Counts, checked_counts
from .join import join
from .tables import (
    check_columns,
    fields,
    first_line,
    flags,
    numbers,
    read_table,
    reading,
    text_options,
    whole_numbers,
)

if TYPE_CHECKING:
    import anndata

_COLUMNS = ("x", "y", "pixel_x", "pixel_y")


def _read(files: dict[str, Path], info: SlideInfo, options: ReaderOptions) -> "anndata.AnnData":
    spots = spot_table(files["positions"])
    names = gene_symbols(files["gene_names"]) if "gene_names" in files else None
    counts = count_table(files["counts"], names)
    if spots.index.isin(counts.var["gene_id"]).any() and not spots.index.isin(counts.barcode).any():
        raise DataError(
            f"{files['counts']} has the spots in its columns (first {counts.var['gene_id'].iloc[0]!r}, rows like "
            f"{counts.barcode[0]!r}); expected one row a spot and one column a gene: transpose it"
        )
    return join(counts, spots, files["positions"], spots[["x", "y"]].to_numpy())


LEGACY_ST = Reader(roles={"counts": True, "positions": True, "image": True, "gene_names": False}, read=_read)


def spot_table(path: Path) -> pd.DataFrame:
    """Return a spot file indexed by `XxY`.

    Columns: in_tissue (bool; True throughout where the file has no `selected`), x, y (int64), array_row, array_col
    (float64: new_y, new_x, or y, x), x_px, y_px (float64).

    Raises
    ------
    DataError
        The file is damaged, lacks a column or a number, or `selected` is not 0 or 1.
    """
    with reading(path, "a tab-separated table of spots"):
        table = read_table(path)
    check_columns(table, _COLUMNS, path)
    labels = table["x"].astype(str) + "x" + table["y"].astype(str)
    corrected = ("new_x", "new_y") if {"new_x", "new_y"} <= set(table.columns) else ("x", "y")
    chosen = ("selected",) if "selected" in table.columns else ()
    values = numbers(table, tuple(dict.fromkeys((*_COLUMNS, *corrected, *chosen))), path, labels)
    x, y = (whole_numbers(values[name].round(), path, labels) for name in ("x", "y"))
    return pd.DataFrame(
        {
            "in_tissue": flags(values["selected"], "selected", path) if chosen else True,
            "x": x,
            "y": y,
            "array_row": values[corrected[1]].to_numpy(),
            "array_col": values[corrected[0]].to_numpy(),
            "x_px": values["pixel_x"].to_numpy(),
            "y_px": values["pixel_y"].to_numpy(),
        },
        index=pd.Index([f"{a}x{b}" for a, b in zip(x, y)], name="barcode", dtype=object),
    )


def gene_symbols(path: Path) -> dict[str, str]:
    """Return {gene id: symbol} of a table with the columns gene_id and gene_name.

    Raises
    ------
    DataError
        The file is damaged or lacks a column.
    """
    with reading(path, "a tab-separated table of gene_id and gene_name"):
        table = pd.read_csv(path, **text_options(path), dtype=str, keep_default_na=False)
    check_columns(table, ("gene_id", "gene_name"), path)
    return dict(zip(table["gene_id"], table["gene_name"]))


def count_table(path: Path, symbols: dict[str, str] | None = None) -> Counts:
    """Return a table of counts, spots x genes.

    Parameters
    ----------
    path
        Tab-separated, packed or not; the header may or may not have a cell above the row names.
    symbols
        {gene id: symbol}; where the id's version differs or is missing on one side, the id without version counts.
        None: the columns are symbols.

    Raises
    ------
    DataError
        The file is damaged, a value is no number, or the counts fail `checked_counts`.
    """
    with reading(path, "a tab-separated table of counts, spots x genes"):
        header = fields(first_line(path))
        # Without pandas' own header, which would rename a gene that stands twice and so hide it.
        table = pd.read_csv(path, **text_options(path), header=None, skiprows=1, index_col=0, low_memory=False)
        genes = np.array(header[-table.shape[1] :] if table.shape[1] else [], dtype=object)
        if not table.shape[1]:
            raise ValueError("its lines have one field between commas, semicolons or tabs")
        if len(header) not in (table.shape[1], table.shape[1] + 1):
            raise ValueError(f"{len(header)} names in the header, {table.shape[1]} values in a row")
    barcode = table.index.astype(str).to_numpy(dtype=object)
    if any(_is_text(dtype) for dtype in set(table.dtypes)):
        _raise_no_number(path, table, barcode, genes)
    matrix = scipy.sparse.csr_matrix(table.to_numpy())
    if symbols is None:
        return checked_counts(path, matrix, barcode, genes, genes)
    bare = {gene_id.split(".")[0]: symbol for gene_id, symbol in symbols.items()}
    named = np.array([symbols.get(g) or bare.get(g.split(".")[0], "") for g in genes], dtype=object)
    return checked_counts(path, matrix, barcode, genes, named)


def _raise_no_number(path: Path, table: pd.DataFrame, barcode: np.ndarray, genes: np.ndarray) -> None:
    for column in np.flatnonzero([_is_text(dtype) for dtype in table.dtypes]):
        wrong = np.flatnonzero(pd.to_numeric(table.iloc[:, column], errors="coerce").isna())
        if len(wrong):
            raise DataError(
                f"{path}: gene {genes[column]} of {barcode[wrong[0]]} has the count "
                f"{table.iloc[wrong[0], column]!r}; expected raw counts, whole and not negative"
            )
    raise DataError(f"{path} holds values that are no numbers; expected raw counts, whole and not negative")


def _is_text(dtype) -> bool:
    """Return whether a column holds text: `object` before pandas 3, a string type since."""
    return not pd.api.types.is_numeric_dtype(dtype)
