"""10x Genomics Visium outs, Space Ranger 1 to 4.

Positions: Space Ranger 1 wrote `tissue_positions_list.csv` without a header, Space Ranger 2 `tissue_positions.csv` with
one, Visium HD `tissue_positions.parquet`; the columns are the same. Counts: `filtered_feature_bc_matrix.h5`, or the
folder of that name with `matrix.mtx.gz`, `barcodes.tsv.gz` and `features.tsv.gz`. What a file holds decides, not its
name.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import DataError
from .base import Reader, ReaderOptions, SlideInfo
from .counts import Counts, checked_counts
from .join import join
from .tables import check_columns, first_line, flags, numbers, reading

if TYPE_CHECKING:
    import anndata

_COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
_SCALE_FACTORS = ("tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres", "fiducial_diameter_fullres")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def _read(files: dict[str, Path], info: SlideInfo, options: ReaderOptions) -> "anndata.AnnData":
    if "scalefactors" in files:
        scale_factors(files["scalefactors"])
    positions = tissue_positions(files["positions"])
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

    Columns: in_tissue (bool), array_row, array_col (int64), x_px, y_px (float64, pixels of the full-resolution image).

    Raises
    ------
    DataError
        The file is damaged, lacks a column or a number, or in_tissue is not 0 or 1.
    """
    with reading(path, "a table of tissue positions (csv or parquet)"):
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            header = first_line(path).split(",")[0].strip('"') == "barcode"
            table = pd.read_csv(path, header=0 if header else None, float_precision="round_trip")
            if not header and table.shape[1] == len(_COLUMNS):
                table.columns = list(_COLUMNS)
    if "barcode" not in table.columns and table.index.name == "barcode":
        table = table.reset_index()
    check_columns(table, _COLUMNS, path)
    barcode = table["barcode"].astype(str)
    values = numbers(table, _COLUMNS[1:], path, barcode)
    return pd.DataFrame(
        {
            "in_tissue": flags(values["in_tissue"], "in_tissue", path),
            "array_row": values["array_row"].to_numpy().astype(np.int64),
            "array_col": values["array_col"].to_numpy().astype(np.int64),
            "x_px": values["pxl_col_in_fullres"].to_numpy(),
            "y_px": values["pxl_row_in_fullres"].to_numpy(),
        },
        index=pd.Index(barcode.to_numpy(dtype=object), name="barcode"),
    )


def scale_factors(path: Path) -> dict[str, float]:
    """Return the factors of `scalefactors_json.json`.

    Raises
    ------
    DataError
        The file is damaged, or a factor is no number above 0.
    """
    with reading(path, "Space Ranger's scalefactors_json.json"):
        factors = json.loads(path.read_text())
        if not isinstance(factors, dict):
            raise ValueError(f"it holds a {type(factors).__name__}, not an object")
    for name in _SCALE_FACTORS:
        if name not in factors:
            continue
        value = factors[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise DataError(f"{path}: {name} is {value}; expected a number above 0: take the file from the run's outs")
    return {name: float(factors[name]) for name in _SCALE_FACTORS if name in factors}


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
        path = _beside(path / "matrix.mtx", ("matrix.mtx",))
    with reading(path, "a feature-barcode matrix (h5 or mtx)"), path.open("rb") as file:
        magic = file.read(len(_HDF5_MAGIC))
    if magic == _HDF5_MAGIC or path.suffix in (".h5", ".hdf5"):
        return _from_h5(path)
    return _from_mtx(
        path,
        barcodes or _beside(path, ("barcodes.tsv",)),
        features or _beside(path, ("features.tsv", "genes.tsv")),
    )


def _from_h5(path: Path) -> Counts:
    import h5py

    with reading(path, "10x Genomics' HDF5 feature-barcode matrix"), h5py.File(path) as file:
        if "matrix" not in file:
            raise DataError(
                f"{path} has no group 'matrix' (it has {', '.join(sorted(file)) or 'nothing'}); expected a "
                "feature-barcode matrix: give filtered_feature_bc_matrix.h5"
            )
        group = file["matrix"]
        features = group["features"]
        n_genes, n_barcodes = (int(n) for n in group["shape"][:])
        # The file stores genes x barcodes by columns, which is barcodes x genes by rows.
        matrix = scipy.sparse.csr_matrix(
            (group["data"][:], group["indices"][:], group["indptr"][:]), shape=(n_barcodes, n_genes)
        )
        matrix.check_format(full_check=True)
        barcode = group["barcodes"].asstr()[:]
        gene_id = features["id" if "id" in features else "name"].asstr()[:]
        symbol = features["name" if "name" in features else "id"].asstr()[:]
        feature_type, genome = (features[k].asstr()[:] if k in features else None for k in ("feature_type", "genome"))
    return checked_counts(path, matrix, barcode, gene_id, symbol, feature_type, genome)


def _from_mtx(path: Path, barcodes: Path, features: Path) -> Counts:
    import scipy.io

    with reading(path, "a Matrix Market file"):
        matrix = scipy.io.mmread(path).T.tocsr()
    with reading(barcodes, "a table of barcodes"):
        barcode = _text_table(barcodes)[0].to_numpy(dtype=object)
    with reading(features, "a table of features (id, symbol, type)"):
        table = _text_table(features)
    gene_id = table[0].to_numpy(dtype=object)
    symbol = table[1].to_numpy(dtype=object) if table.shape[1] > 1 else gene_id
    feature_type = table[2].to_numpy(dtype=object) if table.shape[1] > 2 else None
    return checked_counts(path, matrix, barcode, gene_id, symbol, feature_type)


def _text_table(path: Path) -> pd.DataFrame:
    # NA is a gene's name here, and quotes are characters.
    return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3, comment=None)


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
