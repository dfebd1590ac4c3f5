"""A score is one row of a tidy table: a number that never travels without the qualifiers that make it comparable."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from ..errors import DataError
from ..files import whole


@dataclass(frozen=True)
class Score:
    """One number and what it means. A qualifier that does not apply is None (missing in the file).

    metric: e.g. `pcc`, `rvd`, `fid`. value: NaN where undefined; `note` then says why.
    se, ci_low, ci_high: standard error and 95 % interval over units. n: number of units.
    k, gene_choice: how many genes, and chosen how: `oracle` (the k best on the test truth itself, as Stem does:
    biased), `train` (fixed on training units) or `all`.
    estimator: `mean`, `median`, `mode` of the draws, or `draw`: the first draw alone.
    features: the extractor whose features were compared. reference: what the value is compared with.
    slide: a slide, `all` (the mean of the test slides' own values) or `pooled` (their units as one set).
    """

    metric: str
    value: float
    se: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    n: int = 0
    k: int | None = None
    gene_choice: str | None = None
    estimator: str | None = None
    features: str | None = None
    reference: str | None = None
    target_space: str | None = None
    slide: str = "all"
    note: str = ""


COLUMNS = tuple(field.name for field in fields(Score))
MEASURED = ("value", "se", "ci_low", "ci_high", "n")
_TYPES = {name: "float64" for name in ("value", "se", "ci_low", "ci_high")} | {"n": "int64", "k": "Int64"}


def to_frame(rows: Iterable[Score]) -> pd.DataFrame:
    """Return scores as a table with the columns `COLUMNS`, in the order given; missing qualifiers are NA."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS))
    return frame.astype({name: _TYPES.get(name, "string") for name in COLUMNS})


def write_scores(rows: Iterable[Score], path: str | Path, run: Mapping[str, str | int | float | bool]) -> None:
    """Write scores as parquet, with the columns of `run` (dataset, split, method, seed...) first.

    Same rows, same bytes. A run's key may not be the name of a score's column.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    clash = sorted(set(run) & set(COLUMNS))
    if clash:
        raise ValueError(f"a run may not be identified by {', '.join(clash)}: these are columns of a score")
    frame = to_frame(rows)
    for position, (name, value) in enumerate(run.items()):
        kind = "string" if isinstance(value, str) else None
        frame.insert(position, name, pd.Series([value] * len(frame), dtype=kind, index=frame.index))
    with whole(path) as partial:
        frame.to_parquet(partial, engine="pyarrow", index=False, compression="zstd")


def read_scores(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Return the rows of several scores files as one table, in the order of `paths`.

    Raises
    ------
    DataError
        A file is absent, unreadable or no scores file.
    """
    frames = []
    for path in paths:
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a scores file ({error}); delete it and run again") from error
        lacking = [name for name in COLUMNS if name not in frame.columns]
        if lacking:
            raise DataError(f"{path} lacks the columns {', '.join(lacking)} of a scores file; delete it and run again")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else to_frame([])
