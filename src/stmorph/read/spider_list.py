"""SPIDER's list of pictures, `metadata.json`: which are central ones, and which of these a study takes.

Each record names a central picture (`image_name`) of 224 px at 20x (0.5 um per px), its `class`, `slide_id`, `split`
(train or test, by slide) and in `context_info` the 24 pictures around it ("row_column": name).
"""

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import ConfigError, DataError
from .tables import check_columns, reading

_FIELDS = {"image_name": "barcode", "slide_id": "slide", "class": "label", "split": "split"}


def central_tiles(text: str | bytes, path: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the central pictures that a `metadata.json` names, sorted by slide and name, and what was left out.

    Parameters
    ----------
    text
        The file's content.
    path
        Where it is from, for error sentences.

    Returns
    -------
    pandas.DataFrame
        barcode (the picture's name), slide, label, split.
    dict
        {reason: number}: records that stand there twice.

    Raises
    ------
    DataError
        The text is no list of records, a record lacks a field, or one picture has two classes.
    """
    with reading(path, "SPIDER's metadata.json"):
        records = json.loads(text)
        if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
            raise ValueError("it is no list of records")
        table = pd.DataFrame([{name: one.get(name) for name in _FIELDS} for one in records], columns=list(_FIELDS))
    if not len(table):
        raise DataError(f"{path} names no picture; expected SPIDER's records: download it again")
    check_columns(table.dropna(axis=1, how="all"), tuple(_FIELDS), path)
    empty = table.isna().any(axis=1)
    if empty.any():
        number = int(np.flatnonzero(empty)[0])
        lacks = ", ".join(name for name in _FIELDS if pd.isna(table[name].iloc[number]))
        raise DataError(
            f"{path}: record {number} has no {lacks}; expected {', '.join(_FIELDS)} in each of {len(table)} records: "
            "download it again"
        )
    table = table.astype(str).rename(columns=_FIELDS)
    distinct = table.drop_duplicates()
    twice = distinct["barcode"].duplicated()
    if twice.any():
        name = distinct["barcode"][twice].iloc[0]
        labels = ", ".join(sorted(set(distinct.loc[distinct["barcode"] == name, "label"])))
        raise DataError(
            f"{path} names {int(twice.sum())} pictures more than once with different records, first {name!r} (classes "
            f"{labels}); expected one class a picture: download it again"
        )
    lost = {"named twice": len(table) - len(distinct)} if len(distinct) < len(table) else {}
    return distinct.sort_values(["slide", "barcode"], kind="stable", ignore_index=True), lost


def chosen_tiles(table: pd.DataFrame, split: str | None = None, labels: str | Sequence[str] = "*") -> pd.DataFrame:
    """Return the pictures of a split whose class matches a pattern, in the table's order.

    Raises
    ------
    ConfigError
        Nothing is left, or a pattern matches no class: the sentence says what there is.
    """
    patterns = [labels] if isinstance(labels, str) else list(labels)
    there = sorted(set(table["label"]))
    for pattern in patterns:
        if not any(fnmatchcase(one.lower(), pattern.lower()) for one in there):
            raise ConfigError(
                f"no class of SPIDER matches {pattern!r}; expected some of {', '.join(there)}: correct labels"
            )
    low = [pattern.lower() for pattern in patterns]
    keep = np.array([any(fnmatchcase(one.lower(), pattern) for pattern in low) for one in table["label"]], bool)
    if split is not None:
        keep &= (table["split"] == split).to_numpy()
    if not keep.any():
        splits = ", ".join(sorted(set(table["split"])))
        raise ConfigError(
            f"no picture of split {split!r} has a class of {', '.join(patterns)}; expected a split among {splits}: "
            "correct split or labels"
        )
    return table[keep].reset_index(drop=True)
