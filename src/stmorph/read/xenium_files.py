"""The files of a Xenium output: cells, boundaries, transcripts and the experiment's record.

Onboard Analysis 1 numbers cells (1, 2, ...), later versions name them (`aaaabbbb-1`); parquet may hold either as bytes.
In `cells.zarr.zip` a name is two numbers, a prefix whose hexadecimal digits 0 to f are written a to p, and a suffix.
"""

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError
from .tables import check_columns, numbers, reading

_AREAS = ("cell_area", "nucleus_area")
_ROWS = 2_000_000  # transcripts read at a time
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
        table = _cells_of_zarr(path) if zipfile.is_zipfile(path) or path.suffix == ".zip" else _table(path)
    check_columns(table, ("cell_id", "x_centroid", "y_centroid"), path)
    if table.empty:
        raise DataError(f"{path} holds no cell; expected one row a cell: give the file of the finished run")
    names = cell_ids(table["cell_id"], path)
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


def cell_ids(values: pd.Series, path: Path) -> np.ndarray:
    """Return cell ids as text, object [n], from numbers, text or bytes.

    Raises
    ------
    DataError
        An id is missing or is a number with a fraction.
    """
    if pd.api.types.is_numeric_dtype(values):
        numeric = values.to_numpy(dtype=np.float64)
        if not (np.isfinite(numeric) & (numeric == np.floor(numeric))).all():
            raise DataError(f"{path}: a cell_id is missing or no whole number; expected one id a row: mend the rows")
        return values.astype(np.int64).astype(str).to_numpy(dtype=object)
    if values.isna().any() or (values == "").any():
        raise DataError(f"{path}: a cell_id is missing; expected one id a row: mend or remove the rows")
    # The distinct ids are few beside a table of vertices or molecules.
    codes, distinct = pd.factorize(values)
    text = [one.decode() if isinstance(one, bytes) else str(one) for one in distinct]
    return np.array(text, dtype=object)[codes]


def pixel_size(path: Path) -> float:
    """Return the width in micrometres of a pixel of the morphology image, as `experiment.xenium` says.

    Raises
    ------
    DataError
        The file is damaged or says no width above 0.
    """
    with reading(path, "experiment.xenium, a JSON object with pixel_size"):
        value = json.loads(path.read_text("utf-8"))["pixel_size"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise DataError(f"{path}: pixel_size is {value!r}; expected micrometres above 0: give the run's own file")
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
        table = _table(path)
    check_columns(table, ("cell_id", "vertex_x", "vertex_y"), path)
    names = cell_ids(table["cell_id"], path)
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
        for part in _transcripts(path):
            name = part["feature_name"]
            codes, distinct = pd.factorize(name)
            distinct = [one.decode() if isinstance(one, bytes) else str(one) for one in distinct]
            # A missing name has the code -1, which takes the last entry: no feature.
            wanted = np.append(known.get_indexer(distinct) >= 0, False)[codes]
            wanted &= (pd.to_numeric(part["qv"]).to_numpy() >= least_qv) & part["cell_id"].notna().to_numpy()
            row = cells.get_indexer(cell_ids(part["cell_id"][wanted], path))
            total += np.bincount(row[row >= 0], minlength=len(cells))
    return total


def _transcripts(path: Path) -> Iterator[pd.DataFrame]:
    columns = ["cell_id", "feature_name", "qv"]
    if path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise ValueError(f"it has no column {', '.join(missing)}")
            for batch in file.iter_batches(_ROWS, columns=columns):
                yield batch.to_pandas()
    else:
        yield from pd.read_csv(path, usecols=columns, chunksize=_ROWS)


def _table(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, float_precision="round_trip")


def _cells_of_zarr(path: Path) -> pd.DataFrame:
    import zarr

    try:
        with zarr.storage.ZipStore(path, mode="r") as store:
            root = zarr.open_group(store, mode="r")
            ids, summary = np.asarray(root["cell_id"]), np.asarray(root["cell_summary"])
            columns = [str(name) for name in root["cell_summary"].attrs["column_names"]]
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    if ids.ndim == 2 and ids.shape[1] == 2:
        names = [f"{f'{prefix:08x}'.translate(_LETTERS)}-{suffix}" for prefix, suffix in ids.tolist()]
    else:
        names = [str(one) for one in ids.ravel().tolist()]
    found = pd.DataFrame(summary, columns=columns)
    centroid = {"cell_centroid_x": "x_centroid", "cell_centroid_y": "y_centroid"}
    return found.rename(columns=centroid).assign(cell_id=names)
