"""10x Genomics' HDF5 feature-barcode matrix, as its own programs write it and as others do.

Since Cell Ranger 3 the group is `matrix`, with `features/id`, `name`, `feature_type`, `genome`; Cell Ranger 2 and
DropletUtils by default name the group after the genome and keep `genes` and `gene_names` beside the counts. Files
written from R hold the same arrays in other types: numbers as doubles, names padded to one length or as a factor
(an HDF5 enumeration), one value for all, columns of a matrix. Where an array has another type but can only mean one
thing, it is read; where it cannot, the sentence names it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from ..errors import DataError
from .counts import Counts, checked_counts
from .tables import reading

_EXPECTED = "10x Genomics' HDF5 feature-barcode matrix"
_OLD = ("genes", "gene_names")


def read_matrix_h5(path: Path) -> Counts:
    """Return the counts of an HDF5 feature-barcode matrix.

    Raises
    ------
    DataError
        The file is damaged, of another kind, transposed or of several genomes, or the counts fail `checked_counts`.
    """
    import h5py

    with reading(path, _EXPECTED), h5py.File(path) as file:
        group = _group(path, file)
        features = group.get("features", group)
        barcode = _text(group["barcodes"])
        ids, names = (
            next((_text(features[key]) for key in keys if key in features), None)
            for keys in (("id", "genes"), ("name", "gene_names"))
        )
        if ids is None and names is None:
            raise ValueError("it names no genes")
        gene_id, symbol = names if ids is None else ids, ids if names is None else names
        of_gene = _text(features["gene_id"]) if "gene_id" in features else gene_id
        if list(of_gene) != list(gene_id):
            raise DataError(
                f"{path} holds counts of {len(gene_id)} probes (first {gene_id[0]!r}, a probe of {of_gene[0]!r}); "
                "expected counts of genes: give filtered_feature_bc_matrix.h5"
            )
        matrix = _matrix(path, group, len(barcode), len(gene_id))
        feature_type, genome = (
            _text(features[key], len(gene_id)) if key in features else None for key in ("feature_type", "genome")
        )
    return checked_counts(path, matrix, barcode, gene_id, symbol, feature_type, genome)


def _group(path: Path, file: Any) -> Any:
    if hasattr(file.get("matrix"), "keys"):  # in a loom file it is no group
        return file["matrix"]
    old = [name for name in sorted(file) if set(_OLD) & set(getattr(file[name], "keys", tuple)())]
    if len(old) == 1:
        return file[old[0]]
    if old:
        raise DataError(
            f"{path} holds genes of the genomes {' and '.join(old)}; expected one species a slide: keep one genome's "
            "group"
        )
    raise DataError(
        f"{path} has no group 'matrix' (it has {', '.join(sorted(file)[:12]) or 'nothing'}); expected a "
        "feature-barcode matrix: give filtered_feature_bc_matrix.h5"
    )


def _matrix(path: Path, group: Any, barcodes: int, genes: int) -> scipy.sparse.csr_matrix:
    data, indices, indptr = (np.ravel(group[key][()]) for key in ("data", "indices", "indptr"))
    stated = [int(n) for n in np.ravel(group["shape"][()])] if "shape" in group else [genes, barcodes]
    if stated == [barcodes, genes] != [genes, barcodes]:
        raise DataError(
            f"{path} states the shape {barcodes} x {genes} for {genes} genes and {barcodes} barcodes; expected genes x "
            "barcodes: it looks transposed, write it again or give the vendor's own file"
        )
    if len(stated) != 2:
        raise ValueError(f"it states the shape {stated}")
    # The file stores genes x barcodes by columns, which is barcodes x genes by rows.
    return scipy.sparse.csr_matrix((data, _whole(indices), _whole(indptr)), shape=stated[::-1])


def _whole(values: np.ndarray) -> np.ndarray:
    """Return indices as integers; R writes them as doubles."""
    if values.dtype.kind in "iu":
        return values
    if not (values == np.rint(values)).all() or not (np.abs(values) < 2**53).all():
        raise ValueError("its indices are no whole numbers")
    return values.astype(np.int64)


def _text(dataset: Any, number: int | None = None) -> np.ndarray:
    """Return names, object [n]; one value stands for `number` of them where that is given."""
    import h5py

    values, levels = np.ravel(dataset[()]), h5py.check_enum_dtype(dataset.dtype)
    if levels is not None:
        text = {code: level for level, code in levels.items()}
        names = [text[code] for code in values.tolist()]
    elif values.dtype.kind in "iu":
        names = [str(value) for value in values.tolist()]
    elif values.dtype.kind in "OS":
        names = [(value.decode() if isinstance(value, bytes) else str(value)).rstrip(" \0") for value in values]
    else:
        raise TypeError(f"{dataset.name} holds {values.dtype}, not names")
    if number is not None and len(names) == 1:
        names = names * number
    return np.array(names, dtype=object)
