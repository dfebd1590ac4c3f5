"""How much memory jobs ask for by the size of their input: little for a small slide, enough for a full Visium HD one.

Of a full slide (3,350 x 3,350 bins of 2 um, 300,000 pseudo-spots of 27 x 27) the tables are some 500 MB packed and
slide.h5ad 1.3 GB. Files that are not made yet count nothing: Snakemake asks again when a job can run.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

HELD_MB = 9000
"""Most that a panel by differential expression takes, which refuses to hold more."""

PICTURES = frozenset({"images", "labels"})
"""Folders of a SpatialData store that no reader loads whole."""


def slide_mb(sources: Mapping[str, str]) -> int:
    """Return MB for reading a slide, by role -> path: its tables take some 12 times their size, and pictures none."""
    return 4000 + round(10 * files_mb(path for role, path in sources.items() if role in ("counts", "positions")))


def panel_mb(kind: str, slides: Iterable[str]) -> int:
    """Return MB for choosing a panel: `deg` holds the counts, the other kinds read them in blocks."""
    return 3000 + (min(HELD_MB, round(35 * files_mb(slides))) if kind == "deg" else 0)


def quality_mb(slide: str) -> int:
    """Return MB for a slide's page: its picture, a block of counts, and the sums over squares."""
    return 3000 + round(2 * files_mb([slide]))


def units_mb(inputs: Mapping[str, Iterable[str]]) -> int:
    """Return the MB that the units of a training, sampling or scoring job add, by its named inputs.

    The panel's expression is small beside slide.h5ad; embeddings and draws are hardly packed, and are copied.
    """
    times = {"slides": 1, "embeddings": 3, "samples": 4}
    return round(sum(mb * files_mb(inputs.get(name, ())) for name, mb in times.items()))


def files_mb(paths: Iterable[str]) -> float:
    """Return the size of those of some files that are there; of a store (a folder), without its pictures."""
    return sum(_file_mb(Path(path)) for path in paths)


def _file_mb(path: Path) -> float:
    if not path.is_dir():
        return path.stat().st_size / 1e6 if path.is_file() else 0.0
    inside = [file for part in path.iterdir() if part.name not in PICTURES for file in (part, *part.rglob("*"))]
    return sum(file.stat().st_size for file in inside if file.is_file()) / 1e6
