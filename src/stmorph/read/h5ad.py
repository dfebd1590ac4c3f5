"""AnnData files of other programs: the parts a reader needs, taken one by one, so that an odd rest does no harm."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .counts import Counts, checked_counts
from .tables import reading

# What programs call the column of gene ids, of symbols, of feature types.
_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensemblID", "feature_id")
_SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol")
_ENSEMBL = r"^ENS[A-Z]*G\d"


@dataclass(frozen=True)
class AnnDataParts:
    """The parts of an AnnData file.

    matrix: as stored, [n, G]. obs, var: tables indexed by name. spatial: float64 [n, 2], x and y in pixels, or None.
    others: the names of the file's further matrices. scalefactors: of the first library in uns['spatial'].
    """

    path: Path
    matrix: Any
    obs: pd.DataFrame
    var: pd.DataFrame
    spatial: np.ndarray | None = None
    others: tuple[str, ...] = ()
    scalefactors: Mapping[str, float] = field(default_factory=dict)


def anndata_parts(path: Path, matrix: str = "X") -> AnnDataParts:
    """Read the parts of an `.h5ad` file that a slide is made of.

    Parameters
    ----------
    path
        The file.
    matrix
        `X`, `raw`, or the name of a layer.

    Raises
    ------
    DataError
        The file is truncated or no AnnData, or lacks the matrix.
    """
    import h5py
    from anndata.io import read_elem

    with reading(path, "an AnnData file (h5ad)"), h5py.File(path) as file:
        missing = [name for name in ("obs", "var") if name not in file]
        if missing:
            raise DataError(
                f"{path} has no {' and no '.join(missing)} (it has {', '.join(sorted(file)) or 'nothing'}); expected "
                "an AnnData file: give the sample's .h5ad"
            )
        layers = tuple(sorted(file["layers"])) if "layers" in file else ()
        present = (*(("X",) if "X" in file else ()), *(("raw",) if "raw/X" in file else ()), *layers)
        if matrix not in present:
            raise DataError(
                f"{path} has no matrix {matrix!r}; expected one of {', '.join(present) or 'X'}: correct "
                "reader_options.matrix"
            )
        where = {"X": "X", "raw": "raw/X"}.get(matrix, f"layers/{matrix}")
        parts = AnnDataParts(
            path=path,
            matrix=read_elem(file[where]),
            obs=_table(file, "obs"),
            var=_table(file, "raw/var" if matrix == "raw" else "var"),
            spatial=np.asarray(read_elem(file["obsm/spatial"]), np.float64) if "obsm/spatial" in file else None,
            others=tuple(name for name in present if name != matrix),
            scalefactors=_scalefactors(file),
        )
        if not hasattr(parts.matrix, "shape"):
            raise ValueError(f"{where} is no matrix")
        if parts.spatial is not None and len(parts.spatial) != len(parts.obs):
            raise ValueError(f"obsm/spatial has {len(parts.spatial)} rows for {len(parts.obs)} of obs")
    return parts


def _table(file: Any, name: str) -> pd.DataFrame:
    from anndata.io import read_elem

    table = read_elem(file[name])
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"{name} is no table as AnnData since 0.7 writes it: save the file again with a later version")
    return table


def counts_of(parts: AnnDataParts) -> Counts:
    """Return the checked raw counts of an AnnData's parts, its genes named by symbol and id as far as it has both.

    Raises
    ------
    DataError
        As `checked_counts`; where values are no counts, the sentence names the file's other matrices.
    """
    gene_id, symbol = gene_names(parts.var)
    columns = {name: _text(parts.var[name]) for name in ("feature_types", "genome") if name in parts.var}
    try:
        return checked_counts(
            parts.path,
            parts.matrix,
            _text(parts.obs.index),
            gene_id,
            symbol,
            columns.get("feature_types"),
            columns.get("genome"),
        )
    except DataError as error:
        if parts.others and "raw counts" in str(error):
            raise DataError(
                f"{error}; the file also holds {', '.join(parts.others)}: name the raw one in reader_options.matrix"
            ) from error
        raise


def gene_names(var: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return gene ids and symbols, str [G] each; where a table has only one of them, both are it."""
    index = _text(var.index)
    found_id = next((_text(var[name]) for name in _ID_COLUMNS if name in var), None)
    if len(index) and pd.Series(index).str.match(_ENSEMBL).mean() > 0.5:
        symbol = next((_text(var[name]) for name in _SYMBOL_COLUMNS if name in var), index)
        return index, symbol
    return (index if found_id is None else found_id), index


def _text(values: Any) -> np.ndarray:
    values = pd.Series(np.asarray(values, dtype=object))
    return values.where(values.notna(), "").astype(str).to_numpy(dtype=object)


def _scalefactors(file: Any) -> dict[str, float]:
    libraries = file.get("uns/spatial", {})
    for name in sorted(libraries):
        if "scalefactors" in libraries[name]:
            factors = libraries[name]["scalefactors"]
            return {key: float(factors[key][()]) for key in sorted(factors) if factors[key].shape == ()}
    return {}
