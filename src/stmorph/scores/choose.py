"""One row out of a scores table, for one cell of a paper's table."""

import difflib
from typing import Any

import pandas as pd

from ..errors import ConfigError
from .rows import MEASURED


def select(scores: pd.DataFrame, **selector: Any) -> pd.Series:
    """Return the one row whose columns have the selector's values; None asks for a missing value.

    Raises
    ------
    ConfigError
        A column is unknown; no row fits (the nearest rows are listed); or several do (their differences are listed).
    """
    for name in selector:
        if name not in scores.columns:
            near = difflib.get_close_matches(name, scores.columns, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(scores.columns)}"
            raise ConfigError(f"a score is selected by {name!r}, which is no column of the scores table; {hint}")
    fits = pd.DataFrame({name: _equals(scores[name], value) for name, value in selector.items()}, index=scores.index)
    chosen = scores[fits.all(axis=1)]
    asked = ", ".join(f"{name}={value}" for name, value in selector.items())
    if len(chosen) == 1:
        return chosen.iloc[0]
    if len(chosen) > 1:
        differing = [c for c in chosen.columns if c not in selector and chosen[c].nunique(dropna=False) > 1]
        differing = [c for c in differing if c not in MEASURED]
        choices = "; ".join(f"{c}: {', '.join(map(str, chosen[c].unique()[:6]))}" for c in differing)
        raise ConfigError(
            f"{len(chosen)} scores fit {asked} where one was expected; "
            + (f"select also by {choices}" if choices else "they differ in no qualifier, so give each score once")
        )
    raise ConfigError(f"no score fits {asked}; {_nearest(scores, fits, selector)}")


def _equals(column: pd.Series, value: Any) -> pd.Series:
    if value is None or value is pd.NA:
        return column.isna()
    return (column == value).fillna(False).astype(bool)


def _nearest(scores: pd.DataFrame, fits: pd.DataFrame, selector: dict[str, Any]) -> str:
    if scores.empty:
        return "the scores table is empty"
    misses = (~fits).sum(axis=1)
    nearest = []
    for index in misses.index[misses == misses.min()]:
        wrong = [name for name in selector if not fits.at[index, name]]
        nearest.append(", ".join(f"{name}={scores.at[index, name]}" for name in wrong))
    distinct = list(dict.fromkeys(nearest))
    return f"the nearest scores have {' | '.join(distinct[:6])}{' | ...' if len(distinct) > 6 else ''} instead"
