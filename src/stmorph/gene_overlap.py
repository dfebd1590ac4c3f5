"""Which genes several slides have in common, and what each lacks: panels of imaging platforms differ by slide.

Of GeneFlow's three Xenium samples (section 4.1) only 126 genes are shared.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .slide_file import open_slide

NAMED = 5
"""Genes named in a sentence."""


@dataclass(frozen=True)
class GeneOverlap:
    """common: genes of every slide, sorted. lacking: slide -> genes that another slide has and it has not, sorted."""

    common: tuple[str, ...]
    lacking: dict[str, tuple[str, ...]]

    def sentence(self) -> str:
        """Return how many genes are common and what each slide lacks."""
        every = len(set(self.common).union(*self.lacking.values()))
        parts = [f"{len(self.common)} of {every} genes are measured on all {len(self.lacking)} slides"]
        for slide, genes in self.lacking.items():
            if genes:
                parts.append(f"{slide} lacks {len(genes)} ({', '.join(genes[:NAMED])}{', ...' * (len(genes) > NAMED)})")
        return "; ".join(parts)


def gene_overlap(measured: Mapping[str, Collection[str]]) -> GeneOverlap:
    """Return the overlap of the genes that each slide measures (slide -> genes, controls left out)."""
    sets = {slide: set(genes) for slide, genes in sorted(measured.items())}
    every = set().union(*sets.values())
    common = every.intersection(*sets.values())
    return GeneOverlap(tuple(sorted(common)), {slide: tuple(sorted(every - genes)) for slide, genes in sets.items()})


def measured_genes(slides: Sequence[str | Path]) -> dict[str, tuple[str, ...]]:
    """Return slide -> the genes that a slide.h5ad measures, without its controls; no count is read.

    Raises
    ------
    DataError
        A file is damaged.
    """
    found = {}
    for slide in map(open_slide, slides):
        found[str(slide.about["slide"])] = tuple(slide.var.index[~slide.var["control"].to_numpy(dtype=bool)])
    return found
