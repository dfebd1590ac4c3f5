"""The files of a Xenium output: cells, boundaries, transcripts and the experiment's record.

Onboard Analysis 1 numbers cells (1, 2, ...), later versions name them (`aaaabbbb-1`); parquet may hold either as bytes.
In `cells.zarr.zip` a name is two numbers, a prefix whose hexadecimal digits 0 to f are written a to p, and a suffix.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError
from .tables import (
    above_zero,
    check_columns,
    fields,
    first_line,
    is_parquet,
    json_object,
    names_of,
    numbers,
    read_table,
    reading,
    text_options,
    with_ids,
)
from .transcripts_zarr import whole_array

_AREAS = ("cell_area", "nucleus_area")
TRANSCRIPT_ROWS = 2_000_000
"""Transcripts read at a time."""
_PIXEL_UM = (0.01, 100.0)
"""Between these lies the width of a pixel of any microscope."""
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


def cell_table(path: Path) -> pd.DataFrame:
    """Return the cells of csv, parquet or `cells.zarr.zip`, indexed by id (str).

    Columns, float64: x_um, y_um (centroid in the morphology image's frame), cell_area_um2, nucleus_area_um2 (NaN where
    the file has none).

    Raises
    ------
    DataError
        The file is damaged, lacks a column or a number, names a cell twice, holds no cell or a negative coordinate.
    """
    with reading(path, "a table of cells (csv, parquet or zarr.zip)"):
        table = _cells_of_zarr(path) if zipfile.is_zipfile(path) or path.suffix == ".zip" else _cells_of_table(path)
    check_columns(table, ("cell_id", "x_centroid", "y_centroid"), path)
    if table.empty:
        raise DataError(f"{path} holds no cell; expected one row a cell: give the file of the finished run")
    names = names_of(table["cell_id"], path)
    values = numbers(table, ("x_centroid", "y_centroid"), path, pd.Series(names))
    if (values < 0).any(axis=None):
        row = int(np.flatnonzero((values < 0).any(axis=1))[0])
        x, y = values.iloc[row]
        raise DataError(
            f"{path}: cell {names[row]} lies at ({x:g}, {y:g}) um; expected micrometres from the morphology image's "
            "top-left corner, none below 0: give the run's own file"
        )
    twice = pd.Index(names).duplicated()
    if twice.any():
        raise DataError(
            f"{path} names {int(twice.sum())} cells more than once, first {names[twice][0]!r}; expected each once: "
            "give one run's file"
        )
    areas = {name: pd.to_numeric(table[name], errors="coerce") if name in table else np.nan for name in _AREAS}
    return pd.DataFrame(
        {
            "x_um": values["x_centroid"].to_numpy(),
            "y_um": values["y_centroid"].to_numpy(),
            **{f"{name}_um2": np.asarray(area, dtype=np.float64) for name, area in areas.items()},
        },
        index=pd.Index(names, name="barcode"),
    )


def pixel_size(path: Path) -> float:
    """Return the width in micrometres of a pixel of the morphology image, as `experiment.xenium` says.

    Raises
    ------
    DataError
        The file is damaged or says no width above 0.
    """
    value = json_object(path, "experiment.xenium, a JSON object with pixel_size").get("pixel_size")
    if not above_zero(value) or not _PIXEL_UM[0] < value < _PIXEL_UM[1]:
        raise DataError(
            f"{path}: pixel_size is {repr(value)[:40]}; expected micrometres, {_PIXEL_UM[0]:g} to {_PIXEL_UM[1]:g}: "
            "give the run's own file"
        )
    return float(value)


def cell_polygons(path: Path, barcode: np.ndarray) -> np.ndarray:
    """Return each cell's outline, float64 [n, V, 2], x and y in micrometres of the morphology image's frame.

    V is the largest number of vertices; a shorter outline is filled up with its last vertex, which changes no area.
    Cells without an outline are NaN; outlines of cells that `barcode` does not name are passed over.

    Raises
    ------
    DataError
        The file is damaged, lacks a column or a number, gives a cell several outlines, or names none of the cells.
    """
    with reading(path, "a table of boundaries (csv or parquet)"):
        table = _cells_of_table(path)
    check_columns(table, ("cell_id", "vertex_x", "vertex_y"), path)
    names = names_of(table["cell_id"], path)
    vertices = numbers(table, ("vertex_x", "vertex_y"), path, pd.Series(names)).to_numpy()
    row = pd.Index(barcode).get_indexer(names)
    if not (row >= 0).any():
        raise DataError(
            f"{path} outlines none of the {len(barcode)} cells (first {barcode[0]!r}, here "
            f"{names[0] if len(names) else 'none'!r}); expected the same run's file: check that both are of one run"
        )
    if "label_id" in table.columns:
        outlines = pd.DataFrame({"row": row, "label": table["label_id"].to_numpy()}).drop_duplicates()
        several = outlines[outlines["row"] >= 0]["row"].duplicated()
        if several.any():
            raise DataError(
                f"{path} gives {int(several.sum())} cells several outlines; expected one a cell: give cell_boundaries, "
                "not nucleus_boundaries"
            )
    row, vertices = row[row >= 0], vertices[row >= 0]
    order = np.argsort(row, kind="stable")
    row, vertices = row[order], vertices[order]
    number = np.bincount(row, minlength=len(barcode))
    start = np.cumsum(number) - number
    polygons = np.full((len(barcode), int(number.max()), 2), np.nan)
    place = np.minimum(np.arange(polygons.shape[1]), np.maximum(number - 1, 0)[:, None])
    there = number > 0
    polygons[there] = vertices[(start[:, None] + place)[there]]
    return polygons


def recount(path: Path, barcode: np.ndarray, features: np.ndarray, least_qv: float) -> np.ndarray:
    """Return how many transcripts each cell has, int64 [n]: those of `features` with a quality of at least `least_qv`.

    Raises
    ------
    DataError
        The file is damaged or lacks a column.
    """
    total = np.zeros(len(barcode), dtype=np.int64)
    cells, known = pd.Index(barcode), pd.Index(features)
    with reading(path, "a table of transcripts (csv or parquet)"):
        for part in transcript_parts(path, ("cell_id", "feature_name", "qv")):
            name = part["feature_name"]
            codes, distinct = pd.factorize(name)
            distinct = [one.decode() if isinstance(one, bytes) else str(one) for one in distinct]
            # A missing name has the code -1, which takes the last entry: no feature.
            wanted = np.append(known.get_indexer(distinct) >= 0, False)[codes]
            wanted &= (pd.to_numeric(part["qv"]).to_numpy() >= least_qv) & part["cell_id"].notna().to_numpy()
            row = cells.get_indexer(names_of(part["cell_id"][wanted], path))
            total += np.bincount(row[row >= 0], minlength=len(cells))
    return total


def transcript_parts(path: Path, columns: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    """Give columns of a table of transcripts, parquet (a file, or a folder of parts) or text, some rows at a time.

    Raises
    ------
    DataError
        A column is missing.
    """
    if is_parquet(path):
        import pyarrow.dataset

        table = pyarrow.dataset.dataset(path, format="parquet")
        check_columns(pd.DataFrame(columns=table.schema.names), columns, path)
        for batch in table.to_batches(
            columns=list(columns), batch_size=TRANSCRIPT_ROWS, batch_readahead=0, fragment_readahead=0
        ):
            yield batch.to_pandas()
    else:
        check_columns(pd.DataFrame(columns=fields(first_line(path))), columns, path)
        yield from pd.read_csv(
            path, **text_options(path), usecols=columns, dtype={"cell_id": str}, chunksize=TRANSCRIPT_ROWS
        )


def _cells_of_table(path: Path) -> pd.DataFrame:
    return with_ids(read_table(path, "cell_id"), "cell_id")


def _cells_of_zarr(path: Path) -> pd.DataFrame:
    import zarr

    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
    with zarr.storage.ZipStore(path, mode="r") as store:
        root = zarr.open_group(store, mode="r")
        ids, summary = (whole_array(root, name, members) for name in ("cell_id", "cell_summary"))
        columns = [str(name) for name in root["cell_summary"].attrs["column_names"]]
    if ids.dtype.kind not in "iu" or ids.shape not in ((len(summary),), (len(summary), 1), (len(summary), 2)):
        raise ValueError(f"cell_id is {ids.dtype} {ids.shape} for {len(summary)} rows of cell_summary")
    if ids.shape[1:] == (2,):
        names = [f"{f'{prefix:08x}'.translate(_LETTERS)}-{suffix}" for prefix, suffix in ids.tolist()]
    else:
        names = [str(one) for one in ids.ravel().tolist()]
    found = pd.DataFrame(summary, columns=columns)
    centroid = {"cell_centroid_x": "x_centroid", "cell_centroid_y": "y_centroid"}
    return found.rename(columns=centroid).assign(cell_id=names)
