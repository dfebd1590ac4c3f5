"""10x Genomics Visium outs, Space Ranger 1 to 4.

Positions: Space Ranger 1 wrote `tissue_positions_list.csv` without a header, Space Ranger 2 `tissue_positions.csv` with
one, Visium HD `tissue_positions.parquet`; the columns are the same. Counts: `filtered_feature_bc_matrix.h5`, or the
folder of that name with `matrix.mtx.gz`, `barcodes.tsv.gz` and `features.tsv.gz`. What a file holds decides, not its
name.
"""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import DataError
from ..file_kind import foreign_kind
from .base import Reader, ReaderOptions, SlideInfo
from .counts import Counts, checked_counts
from .grid import check_on_grid
from .join import join
from .matrix_h5 import read_matrix_h5
from .tables import (
    above_zero,
    check_columns,
    fields,
    first_line,
    flags,
    is_packed,
    is_parquet,
    json_object,
    names_of,
    numbers,
    read_table,
    reading,
    whole_numbers,
    with_ids,
)

if TYPE_CHECKING:
    import anndata

_COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
_SCALE_FACTORS = ("tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres", "fiducial_diameter_fullres")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def _read(files: dict[str, Path], info: SlideInfo, options: ReaderOptions) -> "anndata.AnnData":
    if "scalefactors" in files:
        scale_factors(files["scalefactors"])
    positions = tissue_positions(files["positions"])
    check_on_grid(positions, files["positions"])
    counts = feature_matrix(files["counts"], files.get("barcodes"), files.get("features"))
    return join(counts, positions, files["positions"], positions[["array_col", "array_row"]].to_numpy())


VISIUM = Reader(
    roles={
        "counts": True,
        "positions": True,
        "image": True,
        "scalefactors": False,
        "barcodes": False,  # both lie beside matrix.mtx where they are not named
        "features": False,
    },
    read=_read,
)


def tissue_positions(path: Path) -> pd.DataFrame:
    """Return a positions file of any Space Ranger, indexed by barcode.

    Other programs' copies of it count as well: another separator, order or type of the columns, a saved index.

    Columns: in_tissue (bool), array_row, array_col (int64), x_px, y_px (float64, pixels of the full-resolution image).

    Raises
    ------
    DataError
        The file is damaged, lacks a column or a number, or in_tissue is not 0 or 1.
    """
    with reading(path, "a table of tissue positions (csv or parquet)"):
        table = _positions_table(path)
    check_columns(table, _COLUMNS, path)
    barcode = pd.Series(names_of(table["barcode"], path), name="barcode")
    values = numbers(table, _COLUMNS[1:], path, barcode)
    return pd.DataFrame(
        {
            "in_tissue": flags(values["in_tissue"], "in_tissue", path),
            "array_row": whole_numbers(values["array_row"], path, barcode),
            "array_col": whole_numbers(values["array_col"], path, barcode),
            "x_px": values["pxl_col_in_fullres"].to_numpy(),
            "y_px": values["pxl_row_in_fullres"].to_numpy(),
        },
        index=pd.Index(barcode.to_numpy(dtype=object), name="barcode"),
    )


def _positions_table(path: Path) -> pd.DataFrame:
    if is_parquet(path):
        return with_ids(read_table(path), "barcode")
    names = fields(first_line(path))
    if not set(_COLUMNS[1:]) & set(names):
        if len(names) != len(_COLUMNS):
            raise ValueError(
                f"its first line has {len(names)} field(s) between commas, semicolons or tabs and names no column; "
                f"Space Ranger's has {len(_COLUMNS)}"
            )
        # A line of words is a header with names of its own, which the check of the columns will tell.
        header = not any(letter.isdigit() for name in names[1:] for letter in name)
        return read_table(path) if header else read_table(path, "barcode", list(_COLUMNS))
    if "barcode" in names:
        return read_table(path, "barcode")
    if names[0] in _COLUMNS:
        # R's write.table leaves the column of row names out of its header.
        return with_ids(read_table(path), "barcode")
    index = names[0] or "Unnamed: 0"
    return read_table(path, index).rename(columns={index: "barcode"})


def scale_factors(path: Path, names: tuple[str, ...] = _SCALE_FACTORS) -> dict[str, float]:
    """Return the factors of `scalefactors_json.json`, those of `names` that it has.

    Raises
    ------
    DataError
        The file is damaged, or a factor is no number above 0.
    """
    factors = json_object(path, "Space Ranger's scalefactors_json.json")
    for name in names:
        if name in factors and not above_zero(factors[name]):
            raise DataError(
                f"{path}: {name} is {str(factors[name])[:40]}; expected a number above 0: take the file from the run's "
                "outs"
            )
    return {name: float(factors[name]) for name in names if name in factors}


def feature_matrix(path: Path, barcodes: Path | None = None, features: Path | None = None) -> Counts:
    """Return a feature-barcode matrix from h5 or Matrix Market (a file, or the folder that holds it).

    Parameters
    ----------
    path
        `*.h5`, `matrix.mtx`, `matrix.mtx.gz`, or their folder.
    barcodes, features
        The names that go with Matrix Market; None: files beside the matrix with its prefix.

    Raises
    ------
    DataError
        A file is missing or damaged, or the counts fail `checked_counts`.
    """
    if path.is_dir():
        packed = [path / name for name in ("matrix.mtx.gz", "matrix.mtx") if (path / name).is_file()]
        if not packed:
            raise DataError(
                f"{path} is a folder without matrix.mtx; expected a feature-barcode matrix: give "
                "filtered_feature_bc_matrix.h5, or the folder of that name"
            )
        path = packed[0]
    with reading(path, "a feature-barcode matrix (h5 or mtx)"):
        with path.open("rb") as file:
            magic = file.read(len(_HDF5_MAGIC))
        if magic == _HDF5_MAGIC or path.suffix in (".h5", ".hdf5"):
            return read_matrix_h5(path)
        with (gzip.open if is_packed(path) else open)(path, "rb") as file:
            head = file.read(80).split(b"\n")[0]
        if not head.startswith(b"%%MatrixMarket"):
            raise ValueError("it is neither HDF5 nor Matrix Market")
        if b"pattern" in head:
            raise ValueError("it is a pattern, which says where counts are and not how many")
    return _from_mtx(
        path,
        barcodes or _beside(path, ("barcodes.tsv",)),
        features or _beside(path, ("features.tsv", "genes.tsv")),
    )


def _from_mtx(path: Path, barcodes: Path, features: Path) -> Counts:
    from scipy.io import mmread

    with reading(path, "a Matrix Market file"):
        matrix = mmread(path).T
    with reading(barcodes, "a table of barcodes"):
        barcode = _text_table(barcodes)[0].to_numpy(dtype=object)
    with reading(features, "a table of features (id, symbol, type)"):
        table = _text_table(features)
    for names, found, number in ((barcodes, barcode, matrix.shape[0]), (features, table[0], matrix.shape[1])):
        if len(found) == number + 1:
            raise DataError(
                f"{names} has {len(found)} lines, the first {found[0]!r}, but {path} {number} of such; expected one "
                "line each and no header: remove the header, or give both of one run"
            )
    gene_id = table[0].to_numpy(dtype=object)
    symbol = table[1].to_numpy(dtype=object) if table.shape[1] > 1 else gene_id
    feature_type = table[2].to_numpy(dtype=object) if table.shape[1] > 2 else None
    return checked_counts(path, matrix, barcode, gene_id, symbol, feature_type)


def _text_table(path: Path) -> pd.DataFrame:
    if foreign_kind(path) is not None:  # text like any other, a web page among them
        raise ValueError("it is no table")
    with (gzip.open if is_packed(path) else open)(path, "rt", encoding="utf-8-sig") as file:
        first, second = (len(line.split("\t")) for line in (file.readline(), file.readline()))
    # NA is a gene's name here. Quotes are characters, except round a whole field, as R writes it.
    table = pd.read_csv(
        path,
        sep="\t",
        header=None,
        skiprows=int(second == first + 1),  # R's write.table leaves the column of row names out of its header
        dtype=str,
        keep_default_na=False,
        quoting=3,
        comment=None,
        compression="gzip" if is_packed(path) else None,
        encoding="utf-8-sig",
    )
    table = table.apply(lambda column: column.str.replace(r'^"(.*)"$', r"\1", regex=True))
    numbered = table.shape[1] > 1 and (table[0] == [str(k + 1) for k in range(len(table))]).all()
    return table.iloc[:, 1:].set_axis(range(table.shape[1] - 1), axis=1) if numbered else table


def _beside(path: Path, names: tuple[str, ...]) -> Path:
    prefix = path.name.removesuffix(".gz").removesuffix("matrix.mtx")
    candidates = [path.with_name(f"{prefix}{name}{packed}") for name in names for packed in (".gz", "")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{path.parent} holds none of {', '.join(c.name for c in candidates)}; expected it beside {path.name}: copy it "
        "there or name it in the dataset's files"
    )
