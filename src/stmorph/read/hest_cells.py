"""Cells of HEST-1k's Xenium samples: counted from `transcripts/<id>_transcripts.parquet`, outlined by `xenium_seg/`.

`st/<id>.h5ad` holds pseudo-spots alone. The transcripts are Xenium's own table with he_x and he_y, pixels of the image;
`xenium_seg/<id>_xenium_cell_seg.parquet` is a GeoParquet of polygons in the same pixels, indexed by cell_id. Nuclei
that CellViT found in the image (`cellvit_seg/`) are other cells: a transcript is in the one that it lies in.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import DataError
from .counts import Counts, checked_counts
from .nuclei import Nuclei
from .polygons import centroid, read_polygons
from .tables import check_columns, names_of, reading

_COLUMNS = ("cell_id", "feature_name", "qv", "he_x", "he_y")
_ROWS = 2_000_000  # transcripts read at a time
NO_CELL = ("UNASSIGNED", "-1", "0", "")
"""What Onboard Analysis calls a transcript's cell where it has none; cells are numbered from 1."""


def count_cells(path: Path, least_qv: float, nuclei: Nuclei | None = None) -> tuple[Counts, pd.DataFrame]:
    """Count the transcripts of each cell.

    Parameters
    ----------
    path
        `transcripts/<id>_transcripts.parquet`.
    least_qv
        Least quality of a transcript that counts.
    nuclei
        Cells to count in instead of the table's own; they are named by their labels.

    Returns
    -------
    Counts
        Cells with at least one transcript, in the order of their names; control features among the genes are flagged.
    pandas.DataFrame
        Indexed by cell: x_px, y_px, the mean place of its transcripts.

    Raises
    ------
    DataError
        The file is damaged, lacks a column, or no transcript lies in a cell; or as `checked_counts`.
    """
    import pyarrow.parquet

    cells, genes = _Numbered(), _Numbered()
    total, place = scipy.sparse.csr_matrix((0, 0), dtype=np.int64), np.zeros((0, 2))
    with reading(path, "a table of transcripts (parquet)"):
        table = pyarrow.parquet.ParquetFile(path)
        check_columns(pd.DataFrame(columns=table.schema_arrow.names), _COLUMNS, path)
        for batch in table.iter_batches(_ROWS, columns=list(_COLUMNS)):
            part = batch.to_pandas()
            part = part[part["qv"] >= least_qv]
            if nuclei is None:
                part = part[part["cell_id"].notna()]
                name = names_of(part["cell_id"], path)
                inside = ~np.isin(name, NO_CELL)
            else:
                label = nuclei.at(part[["he_x", "he_y"]].to_numpy(np.float64))
                codes, distinct = pd.factorize(label)
                name, inside = nuclei.names(distinct)[codes], label > 0
            row, column = cells.of(name[inside]), genes.of(part["feature_name"].to_numpy()[inside])
            shape = len(cells.number), len(genes.number)
            total.resize(shape)
            total = total + scipy.sparse.csr_matrix((np.ones(len(row), np.int64), (row, column)), shape=shape)
            there = part.loc[inside, ["he_x", "he_y"]].to_numpy(np.float64)
            sums = [np.bincount(row, axis, minlength=shape[0]) for axis in there.T]
            place = np.pad(place, ((0, shape[0] - len(place)), (0, 0))) + np.stack(sums, axis=1)
    if not total.nnz:
        raise DataError(
            f"{path} has no transcript of quality {least_qv:g} or more in a cell; expected some: lower least_qv, or "
            "give another file"
        )
    row, column = cells.sorted(), genes.sorted()
    total, place = total[row][:, column], place[row]
    index = pd.Index(np.array(list(cells.number), dtype=object)[row], dtype=object, name="barcode")
    names = np.array(list(genes.number), dtype=object)[column]
    centre = place / np.asarray(total.sum(axis=1)).reshape(-1, 1)
    positions = pd.DataFrame({"x_px": centre[:, 0], "y_px": centre[:, 1]}, index=index)
    return checked_counts(path, total, index.to_numpy(), names, names), positions


class _Numbered:
    """Names in the order in which they were met."""

    def __init__(self):
        self.number: dict[str, int] = {}

    def of(self, names: np.ndarray) -> np.ndarray:
        codes, distinct = pd.factorize(names)
        number = [self.number.setdefault(_text(one), len(self.number)) for one in distinct]
        return np.array(number, dtype=np.int64)[codes]

    def sorted(self) -> np.ndarray:
        names = list(self.number)
        return np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)


def cell_outlines(path: Path) -> pd.DataFrame:
    """Return the cells of a file of polygons (as `read_polygons`), indexed by id.

    Columns: x_px, y_px (centroid), area_px2, polygon (float64 [V, 2], the outer ring).

    Raises
    ------
    DataError
        The file is damaged, has no geometry or a geometry that is no polygon, or names a cell twice.
    """
    names, rings = read_polygons(path)
    index = pd.Index(names, dtype=object, name="barcode")
    twice = index.duplicated()
    if twice.any():
        raise DataError(
            f"{path} names {int(twice.sum())} cells more than once, first {index[twice][0]!r}; expected one polygon a "
            "cell: download it again"
        )
    measured = np.array([centroid(ring) for ring in rings]).reshape(-1, 3)
    outlines = pd.DataFrame(measured, columns=["x_px", "y_px", "area_px2"], index=index)
    outlines["polygon"] = pd.Series(rings, index=index, dtype=object)
    return outlines


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
