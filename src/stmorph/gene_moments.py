"""Means and variances of genes over units whose counts come in blocks, and the genes that vary most.

The variable genes are those of scanpy's `highly_variable_genes` with its defaults, the dispersion rule of Satija et al.
2015: counts scaled to the median library, the log of variance over mean standardised among genes of like mean. scanpy
needs the whole matrix for it; here two passes over blocks give the same numbers, added up in the order of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .slide_file import SlideRows

MEAN_BINS = 20
"""Groups of genes of like mean."""


@dataclass(frozen=True)
class Moments:
    """Of some genes over a slide's units.

    total, squares: float64 [G], sums of the counts and of their squares. library: float64 [n], each unit's counts in
    these genes.
    """

    total: np.ndarray
    squares: np.ndarray
    library: np.ndarray


def raw_moments(slide: SlideRows, genes: Sequence[str] | np.ndarray) -> Moments:
    """Return the sums of raw counts of `genes`, names in any order."""
    column = _columns(slide, genes)
    total, squares = np.zeros((2, len(genes)))
    library = np.zeros(slide.n_obs)
    for index, counts in slide.blocks():
        values, gene, unit = _entries(counts, column)
        np.add.at(total, gene, values)
        np.add.at(squares, gene, values * values)
        library[index] = np.bincount(unit, values, minlength=len(index))
    return Moments(total, squares, library)


def highly_variable(slide: SlideRows, genes: Sequence[str] | np.ndarray, library: np.ndarray, most: int) -> np.ndarray:
    """Return bool [G]: which of `genes` are the `most` most variable ones; all that have counts where they are fewer.

    Parameters
    ----------
    slide
        Units and their raw counts.
    genes
        Names, in any order.
    library
        Each unit's counts in these genes, float64 [n], as `raw_moments` gives it.
    most
        From 1. Genes that tie with the last one are taken too.
    """
    column = _columns(slide, genes)
    total, squares = np.zeros((2, len(genes)))
    scale = library / np.median(library)
    scale[scale == 0] = 1
    for index, counts in slide.blocks():
        values, gene, unit = _entries(counts, column)
        # Through the logarithm and back, as scanpy's steps go: the same numbers to the last bit.
        values = np.expm1(np.log1p(values / scale[index][unit]))
        np.add.at(total, gene, values)
        np.add.at(squares, gene, values * values)
    seen = np.flatnonzero(total > 0)
    chosen = np.zeros(len(genes), dtype=bool)
    if len(seen) > most:
        mean = total[seen] / slide.n_obs
        variance = (squares[seen] / slide.n_obs - mean**2) * (slide.n_obs / max(slide.n_obs - 1, 1))
        seen = seen[most_dispersed(mean, variance, most)]
    chosen[seen] = True
    return chosen


def most_dispersed(mean: np.ndarray, variance: np.ndarray, most: int) -> np.ndarray:
    """Return bool [G]: the `most` genes of the highest standardised dispersion, by means and variances [G], means > 0.

    Dispersion is ln(variance / mean); it is standardised among the genes of one of `MEAN_BINS` equal steps of
    ln(1 + mean). A gene alone in its step has 1; one without variance has none.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        dispersion = np.log(variance / mean)
    dispersion[~np.isfinite(dispersion)] = np.nan
    step = pd.cut(np.log1p(mean), MEAN_BINS, labels=False)
    groups = pd.Series(dispersion).groupby(step)
    centre, width = groups.transform("mean").to_numpy(), groups.transform("std").to_numpy()
    alone = np.isnan(width)
    score = (dispersion - np.where(alone, 0, centre)) / np.where(alone, centre, width)
    ranked = np.sort(score[~np.isnan(score)])[::-1]
    if not len(ranked):
        return np.zeros(len(mean), dtype=bool)
    return np.nan_to_num(score, nan=-np.inf) >= ranked[min(most, len(ranked)) - 1]


def _columns(slide: SlideRows, genes: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return the place among `genes` of each of the slide's columns, -1 for none."""
    column = np.full(len(slide.var), -1, dtype=np.int64)
    column[slide.var.index.get_indexer(list(genes))] = np.arange(len(genes))
    return column


def _entries(counts, column: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values (float64), genes and units of the entries of the wanted columns, row by row."""
    gene = column[counts.indices]
    unit = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    wanted = gene >= 0
    if wanted.all():
        return counts.data.astype(np.float64), gene, unit
    return counts.data[wanted].astype(np.float64), gene[wanted], unit[wanted]
