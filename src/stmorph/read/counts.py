"""Raw counts as every reader gives them on: whole, non-negative, with unique genes."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import DataError
from .tables import reading

# Features that measure the chemistry, not the tissue: probes without a target, spike-ins, reads between genes.
_CONTROL = re.compile(
    r"^(NegControl|NegPrb|Negative|BLANK|antisense_|UnassignedCodeword|DeprecatedCodeword|DEPRECATED_|Intergenic|"
    r"SystemControl|FalseCode|ERCC-|__)",
    re.IGNORECASE,
)
_GENE_EXPRESSION = "Gene Expression"
# What stands in the place of a genome's name where there is none: control features, genes of a custom panel.
_NO_GENOME = ("", "unknown", "na", "n/a", "nan", "none", "null")
# The genomes of two-species references, as Cell Ranger puts them before ids and symbols; Seurat writes - for _.
_PREFIX = re.compile(r"(hg19|hg38|GRCh37|GRCh38|mm9|mm10|mm39|GRCm38|GRCm39)[_-]+(?=\w)")


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
        Counts [n, G], of any numeric type, dense or sparse.
    barcode, gene_id, symbol
        Names [n], [G], [G]; `symbol` may hold empty strings.
    feature_type, genome
        10x Genomics' columns [G]; None where the format has none.

    Raises
    ------
    DataError
        The matrix is damaged, empty, holds NaN, negative or non-integer values, names a barcode or gene id twice, or
        holds genes of two species or none that measure expression.
    """
    barcode, gene_id, symbol = (np.asarray(names, dtype=object) for names in (barcode, gene_id, symbol))
    _check_lengths(path, {"symbols": symbol, "feature types": feature_type, "genomes": genome}, len(gene_id))
    matrix = _as_csr(path, matrix)
    if matrix.shape != (len(barcode), len(gene_id)):
        advice = "the files belong to different runs"
        if matrix.shape == (len(gene_id), len(barcode)):
            advice = "it looks transposed: exchange rows and columns, or give the vendor's own file"
        raise DataError(
            f"{path} holds {matrix.shape[0]} x {matrix.shape[1]} values for {len(barcode)} barcodes and {len(gene_id)} "
            f"genes; expected one row a barcode and one column a gene: {advice}"
        )
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
    expression = _of_expression(path, feature_type, len(gene_id))
    names = None if genome is None else np.asarray(genome, dtype=object)[expression]
    _check_one_species(path, gene_id[expression], symbol[expression], names)

    unnamed = symbol == ""
    names = pd.Index(np.where(unnamed, gene_id, symbol).astype(object))
    control = ~expression | np.array([_CONTROL.match(name) is not None for name in names], dtype=bool)
    var = pd.DataFrame({"gene_id": gene_id.astype(object), "control": control}, index=_unique_names(names))
    return Counts(path, matrix.astype(np.int32), barcode, var, int(names.duplicated().sum()), int(unnamed.sum()))


def _check_lengths(path: Path, columns: dict[str, np.ndarray | None], genes: int) -> None:
    for what, values in columns.items():
        if values is not None and len(values) != genes:
            raise DataError(
                f"{path} holds {len(values)} {what} for {genes} genes; expected one a gene: the file was put together "
                "wrongly, write it again or give the vendor's own"
            )


def _as_csr(path: Path, matrix) -> scipy.sparse.csr_matrix:
    with reading(path, "a matrix of counts"):
        if scipy.sparse.issparse(matrix) and matrix.format in ("csr", "csc"):
            # Before any arithmetic: SciPy trusts indices, and one beyond the matrix ends the process.
            matrix.check_format(full_check=True)
        matrix = scipy.sparse.csr_matrix(matrix)
    return matrix


def _of_expression(path: Path, feature_type: np.ndarray | None, genes: int) -> np.ndarray:
    """Return which features are genes, bool [G]: `Gene Expression`, also as R's names have it (`Gene.Expression`)."""
    kinds = np.array([""] * genes if feature_type is None else [str(kind) for kind in feature_type], dtype=object)
    distinct = sorted(set(kinds))
    if not any(kind.strip() for kind in distinct):  # the file tells no types
        return np.full(genes, True)
    expression = np.isin(kinds, [kind for kind in distinct if kind.replace(".", " ").strip() == _GENE_EXPRESSION])
    if not expression.any():
        raise DataError(
            f"{path} has no feature of the type {_GENE_EXPRESSION!r} (its types: {', '.join(distinct[:12])}); expected "
            "counts of genes: give the file of the gene expression library, or name the type so"
        )
    return expression


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


def _check_one_species(path: Path, gene_id: np.ndarray, symbol: np.ndarray, genome: np.ndarray | None) -> None:
    stated = set() if genome is None else {str(name) for name in genome if str(name).lower() not in _NO_GENOME}
    prefixes = {found[1] for name in (*gene_id, *symbol) if (found := _PREFIX.match(name))}
    for genomes in (stated, prefixes):
        if len(genomes) > 1:
            raise DataError(
                f"{path} holds genes of the genomes {' and '.join(sorted(genomes))}; expected one species a slide: "
                "keep one genome's features"
            )
    species = species_of(gene_id)
    if len(species) > 1:
        examples = ", ".join(f"{count} {name}" for name, count in species.items())
        raise DataError(
            f"{path} holds genes of several species by their ids ({examples}); expected one species a slide: keep one "
            "species' genes"
        )


def species_of(gene_id: np.ndarray) -> dict[str, int]:
    """Return {species: number of genes} by Ensembl's prefixes, also behind a genome's name (`mm10___ENSMUSG...`)."""
    ids = pd.Series(gene_id, dtype=str)
    counted = {
        "human": int(ids.str.contains(r"(?:^|[_-])ENSG\d").sum()),
        "mouse": int(ids.str.contains(r"(?:^|[_-])ENSMUSG\d").sum()),
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
