"""Brings together what a table's cells measured and what was published; one tidy row a number."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import ConfigError
from ..scores.choose import select
from ..scores.rows import read_scores

QUALIFIERS = ("k", "gene_choice", "estimator", "features", "reference", "target_space")


def gather(table: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row for each row x group x column of a table that has a measured or a published number.

    Parameters
    ----------
    table
        A `TableConfig` as plain values.
    cells
        Each with `row`, `group`, `scores` (paths of the scores of its seeds and folds), `runs`, `replication`.

    Returns
    -------
    pandas.DataFrame
        row, group, column; measured (mean over seeds and folds), sd (between them; NaN for one), ci_low, ci_high (95 %
        bootstrap over units, for a single run), replicates, n (test units of all folds; seeds share them); the score's
        qualifiers and notes; published, difference (measured - published); dataset, split, method, panel, replication;
        why (a row is not computed).

    Raises
    ------
    ConfigError
        A column asks for a score that a run does not have.
    """
    by_place = {(cell["row"], cell["group"]): cell for cell in cells}
    scores = {path: read_scores([path]) for cell in cells for path in cell["scores"]}
    rows = []
    for row in table["rows"]:
        for group in table["groups"]:
            cell = by_place.get((row["label"], group["label"]))
            for column in table["columns"]:
                published = row["published"].get(group["label"], {}).get(column["label"], math.nan)
                if cell is None and isinstance(published, float) and math.isnan(published):
                    continue
                entry = {"row": row["label"], "group": group["label"], "column": column["label"]}
                entry |= _measured(cell, column, scores) if cell is not None else {"measured": math.nan}
                entry |= {"published": published, "why": row["why"] or ""}
                entry["difference"] = entry["measured"] - published if isinstance(published, int | float) else math.nan
                rows.append(entry)
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = [
    *("row", "group", "column", "measured", "sd", "ci_low", "ci_high", "replicates", "n"),
    *("metric", *QUALIFIERS, "published", "difference"),
    *("dataset", "split", "method", "panel", "replication", "note", "why"),
]


def _measured(cell: Mapping[str, Any], column: Mapping[str, Any], scores: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    asked = ("metric", "k", "gene_choice", "estimator", "features", "reference")
    selector = {key: column[key] for key in asked if column[key] is not None}
    if selector.get("k") == "panel":  # however many genes the panel has
        del selector["k"]
        selector["gene_choice"] = "all"
    chosen = []
    for path in cell["scores"]:
        try:
            chosen.append(select(scores[path], **selector, slide=column["slide"]))
        except ConfigError as error:
            raise ConfigError(f"{path}: column {column['label']!r}: {error}") from error
    values = np.array([float(one["value"]) for one in chosen])
    first, run = chosen[0], cell["runs"][0]
    single = len(values) == 1
    units = {one["split"]: int(score["n"]) for one, score in zip(cell["runs"], chosen, strict=True)}
    return {
        "measured": float(values.mean()),
        "sd": math.nan if single else float(values.std(ddof=1)),
        "ci_low": float(first["ci_low"]) if single else math.nan,
        "ci_high": float(first["ci_high"]) if single else math.nan,
        "replicates": len(values),
        "n": sum(units.values()),
        "metric": column["metric"],
        **{name: first[name] for name in QUALIFIERS},
        "note": "; ".join(dict.fromkeys(str(one["note"]) for one in chosen if one["note"])),
        "dataset": run["dataset"],
        "split": run["split"] if single else run["split"].split(".fold")[0],
        "method": run["label"],
        "panel": run["panel"],
        "replication": cell["replication"],
    }
