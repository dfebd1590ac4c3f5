"""Cells of HEST-1k's Xenium samples: counted from `transcripts/<id>_transcripts.parquet`, outlined by `xenium_seg/`.

`st/<id>.h5ad` holds pseudo-spots alone. The transcripts are Xenium's own table with he_x and he_y, pixels of the image.
`xenium_seg/<id>_xenium_cell_seg` and `..._nucleus_seg` hold polygons in the same pixels: as parquet with the ids of
cells, as `.geojson` or `.geojson.zip` without (`outline_names`). Nuclei that CellViT found in the image, in
`cellvit_seg/`, are other cells: a transcript is in the one that it lies in.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import DataError
from .counts import Counts, checked_counts
from .nuclei import Nuclei, read_nuclei
from .outline_names import check_places, name_outlines
from .polygons import read_polygons
from .tables import names_of, reading
from .xenium_files import transcript_parts

_COLUMNS = ("cell_id", "feature_name", "qv", "he_x", "he_y")
NO_CELL = ("UNASSIGNED", "-1", "0", "")
"""What Onboard Analysis calls a transcript's cell where it has none; cells are numbered from 1."""


def placed_cells(files: dict[str, Path], least_qv: float) -> tuple[Counts, pd.DataFrame, Path, dict[str, int]]:
    """Return a sample's cells: counts; positions; the file that places them; and what was lost, by reason.

    Parameters
    ----------
    files
        `transcripts`; `cells` (outlines of the table's own cells) or `nuclei` (other cells), or neither: then a cell
        lies where its transcripts lie on average.
    least_qv
        Least quality of a transcript that counts.

    Returns
    -------
    Counts, pandas.DataFrame, Path, dict
        Positions are indexed by cell: x_px, y_px and, where there are outlines or a label image, area_px2 and polygon.

    Raises
    ------
    DataError
        A file is damaged, outlines name a cell twice or lie elsewhere than the transcripts, or as `count_cells`.
    """
    path = files["transcripts"]
    if "nuclei" in files:
        nuclei = read_nuclei(files["nuclei"])
        counts, _, lost = count_cells(path, least_qv, nuclei)
        positions = nuclei.outlines()
        covered = nuclei.number - len(positions)
        return counts, positions, files["nuclei"], lost | nuclei.odd | {"nuclei without a pixel of their own": covered}
    counts, places, lost = count_cells(path, least_qv)
    if "cells" not in files:
        return counts, places[places.notna().all(axis=1)], path, lost
    polygons = read_polygons(files["cells"])
    names = None if polygons.named else name_outlines(polygons, path, NO_CELL)
    outlines = polygons.table(names)
    unnamed = 0 if names is None else sum(ring is not None for ring in polygons.ring) - len(outlines)
    check_places(outlines, places, files["cells"], path)
    return counts, outlines, files["cells"], lost | polygons.odd | {"outlines of no cell": unnamed}


def count_cells(
    path: Path, least_qv: float, nuclei: Nuclei | None = None
) -> tuple[Counts, pd.DataFrame, dict[str, int]]:
    """Count the transcripts of each cell.

    Parameters
    ----------
    path
        `transcripts/<id>_transcripts.parquet`, or the same columns as text.
    least_qv
        Least quality of a transcript that counts.
    nuclei
        Cells to count in instead of the table's own; they are named by their labels.

    Returns
    -------
    Counts
        Cells with at least one transcript, in the order of their names; of every gene that the table names; control
        features are flagged.
    pandas.DataFrame
        Indexed by cell: x_px, y_px, the mean place of its transcripts; NaN where none has a place.
    dict
        How many transcripts count in no cell, by reason.

    Raises
    ------
    DataError
        The file is damaged, lacks a column, or no transcript lies in a cell; or as `checked_counts`.
    """
    cells, genes = _Numbered(), _Numbered()
    total, place = scipy.sparse.csr_matrix((0, 0), dtype=np.int64), np.zeros((0, 3))
    rows = good = counted = 0
    with reading(path, "a table of transcripts (parquet or text)"):
        for part in transcript_parts(path, _COLUMNS):
            rows += len(part)
            genes.of(part["feature_name"].to_numpy())  # also those of which no transcript counts
            part = part[pd.to_numeric(part["qv"]) >= least_qv]
            good += len(part)
            if nuclei is None:
                part = part[part["cell_id"].notna()]
                name = names_of(part["cell_id"], path)
                inside = ~np.isin(name, NO_CELL)
            else:
                label = nuclei.at(part[["he_x", "he_y"]].to_numpy(np.float64))
                codes, distinct = pd.factorize(label)
                name, inside = nuclei.names(distinct)[codes], label > 0
            row, column = cells.of(name[inside]), genes.of(part["feature_name"].to_numpy()[inside])
            counted += len(row)
            shape = len(cells.number), len(genes.number)
            total.resize(shape)
            total = total + scipy.sparse.csr_matrix((np.ones(len(row), np.int64), (row, column)), shape=shape)
            there = part.loc[inside, ["he_x", "he_y"]].to_numpy(np.float64)
            known = np.isfinite(there).all(axis=1)
            sums = [np.bincount(row[known], axis, minlength=shape[0]) for axis in (*there[known].T, None)]
            place = np.pad(place, ((0, shape[0] - len(place)), (0, 0))) + np.stack(sums, axis=1)
    if not total.nnz:
        raise DataError(
            f"{path} has no transcript of quality {least_qv:g} or more in a cell ({rows} transcripts, {good} of that "
            "quality); expected some: lower least_qv, or give another file"
        )
    row, column = cells.sorted(), genes.sorted()
    total, place = total[row][:, column], place[row]
    index = pd.Index(np.array(list(cells.number), dtype=object)[row], dtype=object, name="barcode")
    names = np.array(list(genes.number), dtype=object)[column]
    with np.errstate(invalid="ignore"):
        centre = place[:, :2] / place[:, 2:]
    positions = pd.DataFrame({"x_px": centre[:, 0], "y_px": centre[:, 1]}, index=index)
    lost = {"transcripts of poor quality": rows - good, "transcripts in no cell": good - counted}
    return checked_counts(path, total, index.to_numpy(), names, names), positions, lost


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


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
