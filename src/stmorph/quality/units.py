"""The units that registration is tested on: a slide's own, or squares of them where they are small or very many."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from ..expression import to_target_space
from ..slide_file import SlideRows, slide_rows

if TYPE_CHECKING:
    import anndata

SMALL_UM = 40.0
"""Units nearer to each other than this (cells, small bins) are pooled: one holds too few counts to be told by."""
MOST_UNITS = 10_000
SQUARES = 4_000  # about so many remain
LEAST_SQUARE_UM = 50.0
TOP_GENES = 500
DETECTED = 0.05  # a gene must have counts in this share of the units


@dataclass(frozen=True)
class Units:
    """spatial_um: float64 [n, 2]; expression: float64 [n, G], ln(1 + counts per 10^4), of the most variable genes.

    unit_um: distance between neighbours. pooled: whether these are squares of several units.
    """

    spatial_um: np.ndarray
    expression: np.ndarray
    unit_um: float
    pooled: bool


def units_of(slide: "anndata.AnnData | SlideRows") -> Units:
    """Return a slide's units, pooled over squares where they are closer than `SMALL_UM` or more than `MOST_UNITS`.

    Parameters
    ----------
    slide
        As `slide.h5ad` holds it, in memory or on disk.
    """
    slide = slide_rows(slide)
    spatial_um, unit_of = slide.spatial_um, np.arange(slide.n_obs)
    unit_um = pitch_um(spatial_um)
    pooled = unit_um < SMALL_UM or len(spatial_um) > MOST_UNITS
    if pooled:
        area_um2 = len(spatial_um) * unit_um**2
        unit_um = max(LEAST_SQUARE_UM, 2 * unit_um, float(np.sqrt(area_um2 / SQUARES)))
        spatial_um, unit_of = _squares(spatial_um, unit_um)
    counts = _sums(slide, unit_of, len(spatial_um))[:, ~slide.var["control"].to_numpy(dtype=bool)]
    total = np.asarray(counts.sum(axis=1)).ravel().astype(np.float64)
    spatial_um, counts, total = spatial_um[total > 0], counts[total > 0], total[total > 0]
    detected = counts.getnnz(axis=0) >= max(5, DETECTED * len(total))
    expression = _most_variable(counts[:, detected], total)
    return Units(spatial_um, expression, unit_um, pooled)


def pitch_um(spatial_um: np.ndarray) -> float:
    """Return the median distance to the nearest other unit, in micrometres; 1 where there is none."""
    from scipy.spatial import cKDTree

    if len(spatial_um) < 2:
        return 1.0
    sample = spatial_um[:: max(1, len(spatial_um) // 50_000)]
    return max(float(np.median(cKDTree(spatial_um).query(sample, k=2)[0][:, 1])), 1e-3)


def _squares(spatial_um: np.ndarray, side_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean position of the units in each square that has any, and each unit's square, -1 for none."""
    square = np.floor((spatial_um - spatial_um.min(axis=0)) / side_um).astype(np.int64)
    _, index = np.unique(square, axis=0, return_inverse=True)
    index = index.ravel()
    size = np.bincount(index)
    middle = np.column_stack([np.bincount(index, axis) / size for axis in spatial_um.T])
    # A square at the tissue's rim holds fewer units; one with very few says little.
    full = size >= 0.25 * np.median(size)
    return middle[full], np.where(full, np.cumsum(full) - 1, -1)[index]


def _sums(slide: SlideRows, unit_of: np.ndarray, n: int) -> scipy.sparse.csr_matrix:
    """Return the counts of n units, each the sum of the slide's units that `unit_of` gives it (-1: of none)."""
    sums = scipy.sparse.csr_matrix((n, len(slide.var)), dtype=np.int64)
    for index, counts in slide.blocks():
        to, of = unit_of[index], np.arange(len(index))
        ones = np.ones(int((to >= 0).sum()), dtype=np.int64)
        sums = sums + scipy.sparse.csr_matrix((ones, (to[to >= 0], of[to >= 0])), shape=(n, len(index))) @ counts
    return sums


def _most_variable(counts: scipy.sparse.csr_matrix, total: np.ndarray) -> np.ndarray:
    """Return the `TOP_GENES` genes of the highest variance, float64 [n, at most TOP_GENES]."""
    scaled = scipy.sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    scaled.data = np.log1p(scaled.data * (1e4 / np.repeat(total, np.diff(scaled.indptr))))
    mean = np.asarray(scaled.mean(axis=0)).ravel()
    variance = np.asarray(scaled.multiply(scaled).mean(axis=0)).ravel() - mean**2
    top = np.sort(np.argsort(-variance, kind="stable")[:TOP_GENES])
    return to_target_space(counts[:, top], total, "log1p_cp10k").astype(np.float64)
