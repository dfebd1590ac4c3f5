"""Raw counts as every reader gives them on: whole, non-negative, with unique genes."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import DataError

# Features that measure the chemistry, not the tissue: probes without a target, spike-ins, reads between genes.
_CONTROL = re.compile(
    r"^(NegControl|NegPrb|Negative|BLANK|antisense_|UnassignedCodeword|DeprecatedCodeword|DEPRECATED_|Intergenic|"
    r"SystemControl|FalseCode|ERCC-|__)",
    re.IGNORECASE,
)
_GENE_EXPRESSION = "Gene Expression"


@dataclass(frozen=True)
class Counts:
    """Counts of one file: matrix CSR int32 [n, G]; barcode str [n]; var indexed by unique symbol: gene_id, control."""

    path: Path
    matrix: scipy.sparse.csr_matrix
    barcode: np.ndarray
    var: pd.DataFrame
    duplicate_symbols: int
    genes_without_symbol: int


def checked_counts(
    path: Path,
    matrix: scipy.sparse.spmatrix,
    barcode: np.ndarray,
    gene_id: np.ndarray,
    symbol: np.ndarray,
    feature_type: np.ndarray | None = None,
    genome: np.ndarray | None = None,
) -> Counts:
    """Check a matrix of counts and name its genes.

    A symbol that several genes share is kept for each of them, as SYMBOL, SYMBOL-1, ... in the file's order (their
    counts are different genes' and are not added up); a gene without symbol goes by its id.

    Parameters
    ----------
    path
        The file, for error sentences.
    matrix
        Counts [n, G], of any numeric type.
    barcode, gene_id, symbol
        Names [n], [G], [G]; `symbol` may hold empty strings.
    feature_type, genome
        10x Genomics' columns [G]; None where the format has none.

    Raises
    ------
    DataError
        The matrix is empty, holds NaN, negative or non-integer values, names a barcode or gene id twice, or holds
        genes of two species.
    """
    barcode, gene_id, symbol = (np.asarray(names, dtype=object) for names in (barcode, gene_id, symbol))
    if matrix.shape != (len(barcode), len(gene_id)):
        raise DataError(
            f"{path} holds {matrix.shape[0]} x {matrix.shape[1]} values for {len(barcode)} barcodes and {len(gene_id)} "
            "genes; expected one row a barcode and one column a gene: the files belong to different runs"
        )
    matrix = scipy.sparse.csr_matrix(matrix)
    matrix.sum_duplicates()
    matrix.sort_indices()
    _check_values(path, matrix, barcode, symbol)
    matrix.eliminate_zeros()
    if matrix.nnz == 0:
        raise DataError(
            f"{path} holds no counts ({matrix.shape[0]} barcodes, {matrix.shape[1]} genes, no value above 0); "
            "expected raw counts: give the file of the finished run"
        )
    _check_unique(path, barcode, "barcode")
    _check_unique(path, gene_id, "gene id" if (gene_id != symbol).any() else "gene")
    expression = np.full(len(gene_id), True) if feature_type is None else np.asarray(feature_type) == _GENE_EXPRESSION
    _check_one_species(path, gene_id[expression], None if genome is None else np.asarray(genome)[expression])

    unnamed = symbol == ""
    names = pd.Index(np.where(unnamed, gene_id, symbol).astype(object))
    control = ~expression | np.array([_CONTROL.match(name) is not None for name in names], dtype=bool)
    var = pd.DataFrame({"gene_id": gene_id.astype(object), "control": control}, index=_unique_names(names))
    return Counts(path, matrix.astype(np.int32), barcode, var, int(names.duplicated().sum()), int(unnamed.sum()))


def _check_values(path: Path, matrix: scipy.sparse.csr_matrix, barcode: np.ndarray, symbol: np.ndarray) -> None:
    values = matrix.data
    if values.dtype.kind not in "iufb":
        raise DataError(f"{path} holds values of type {values.dtype}; expected whole numbers, the raw counts")
    with np.errstate(invalid="ignore"):
        good = np.isfinite(values) & (values >= 0) & (values == np.floor(values)) & (values < 2**31)
    bad = np.flatnonzero(~good)
    if len(bad):
        row = int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
        raise DataError(
            f"{path}: gene {symbol[matrix.indices[bad[0]]]} of {barcode[row]} has the count {values[bad[0]]} "
            f"({len(bad)} such values); expected raw counts, whole and not negative: give the matrix before any "
            "normalisation"
        )


def _check_unique(path: Path, names: np.ndarray, kind: str) -> None:
    twice = pd.Index(names).duplicated()
    # Tables that know genes by symbol only may name one twice; `_unique_names` tells them apart.
    if kind != "gene" and twice.any():
        raise DataError(
            f"{path} names {int(twice.sum())} {kind}s more than once, first {names[twice][0]!r}; expected each once: "
            "give one run's files, or make the names unique"
        )


def _check_one_species(path: Path, gene_id: np.ndarray, genome: np.ndarray | None) -> None:
    if genome is not None:
        genomes = sorted({str(name) for name in genome if str(name)})
        if len(genomes) > 1:
            raise DataError(
                f"{path} holds genes of the genomes {' and '.join(genomes)}; expected one species a slide: keep one "
                "genome's features"
            )
    species = species_of(gene_id)
    if len(species) > 1:
        examples = ", ".join(f"{count} {name}" for name, count in species.items())
        raise DataError(
            f"{path} holds genes of several species by their ids ({examples}); expected one species a slide: keep one "
            "species' genes"
        )


def species_of(gene_id: np.ndarray) -> dict[str, int]:
    """Return {species: number of genes} by Ensembl's prefixes, also behind a genome's name (`mm10_ENSMUSG...`)."""
    ids = pd.Series(gene_id, dtype=str)
    counted = {
        "human": int(ids.str.contains(r"(?:^|_)ENSG\d").sum()),
        "mouse": int(ids.str.contains(r"(?:^|_)ENSMUSG\d").sum()),
    }
    return {name: count for name, count in counted.items() if count}


def _unique_names(names: pd.Index) -> pd.Index:
    taken, result = set(names), []
    seen: dict[str, int] = {}
    for name in names:
        unique = name
        if name in seen:
            # A suffix that is a gene of its own right is passed over.
            while unique in taken:
                unique = f"{name}-{seen[name]}"
                seen[name] += 1
            taken.add(unique)
        else:
            seen[name] = 1
        result.append(unique)
    return pd.Index(result, dtype=object)
