"""How many molecules HEST-1k's pseudo-spots have kept, held against a pooling that keeps all of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import DataError
from .h5ad import anndata_parts, counts_of

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class PooledTotals:
    """HEST's counts against a pooling that keeps them, over the genes that both have.

    genes: how many are in both; only_hest, only_repooled: in one alone. hest, repooled: molecules in all.
    kept: hest / repooled. genes_with_less: genes of which HEST has fewer.
    """

    genes: int
    only_hest: int
    only_repooled: int
    hest: int
    repooled: int
    genes_with_less: int

    @property
    def kept(self) -> float:
        """The share of the molecules that HEST's file has."""
        return self.hest / self.repooled

    def sentence(self) -> str:
        """Return what was found in one sentence."""
        return (
            f"HEST's pseudo-spots hold {self.hest} of {self.repooled} molecules ({self.kept:.1%}) of {self.genes} "
            f"genes; {self.genes_with_less} genes have fewer"
        )


def compare_totals(hest_h5ad: Path, repooled: "anndata.AnnData", matrix: str = "X") -> PooledTotals:
    """Compare the totals of HEST's `.h5ad` with those of the same sample pooled anew, gene by gene.

    HEST's Visium HD files were pooled by adding to repeated indices at once, which keeps one of the 16 um bins that
    fall into a pseudo-spot (within a chunk of rows) and loses the rest; the totals tell.

    Parameters
    ----------
    hest_h5ad
        `st/<id>.h5ad`.
    repooled
        A slide of the same sample with raw counts, named by the same symbols; its size of pooling does not matter.
    matrix
        As `Options.matrix`.

    Raises
    ------
    DataError
        The file is damaged, or the two have no gene in common.
    """
    counts = counts_of(anndata_parts(hest_h5ad, matrix))

    def totals(values, names: pd.Index) -> pd.Series:
        return pd.Series(np.asarray(values.sum(axis=0), dtype=np.float64).ravel(), index=names)

    ours, theirs = totals(repooled.X, repooled.var_names), totals(counts.matrix, counts.var.index)
    both = theirs.index.intersection(ours.index)
    if len(both) == 0 or ours[both].sum() == 0:
        raise DataError(
            f"{hest_h5ad} and the re-pooled slide have no gene with counts in common ({theirs.index[0]!r} in the "
            f"first, {ours.index[0]!r} in the second); expected one sample named by the same symbols: check both"
        )
    return PooledTotals(
        genes=len(both),
        only_hest=len(theirs) - len(both),
        only_repooled=len(ours) - len(both),
        hest=int(theirs[both].sum()),
        repooled=int(ours[both].sum()),
        genes_with_less=int((theirs[both] < ours[both]).sum()),
    )
