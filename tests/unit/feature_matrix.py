"""10x Genomics' feature-barcode matrix as h5, for the tests of its readers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse


def write_feature_matrix(
    path: Path, counts: Any, barcode: Sequence[str], features: Mapping[str, Sequence[str]], **attributes: str
) -> Path:
    """Write counts [barcodes, features] in the vendor's layout, with the feature columns given; return the path."""
    matrix = scipy.sparse.csr_matrix(counts)
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        group = file.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(matrix, key)
        group["shape"] = matrix.shape[::-1]
        group["barcodes"] = np.array(barcode, dtype="S")
        columns = group.create_group("features")
        for name, values in features.items():
            columns[name] = np.array(values, dtype="S")
    return path
