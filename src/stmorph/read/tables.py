"""Opening vendors' tables: whatever is wrong with a file becomes one sentence that names it.

What a file holds decides, not its name: parquet, or text (packed or not) whose fields a comma, a semicolon or a tab
separates, as programs and spreadsheets save it.
"""

import csv
import errno
import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError, StmorphError, reason_of, unread
from ..file_kind import foreign_kind

_SEPARATORS = ",;\t"
_MISSING = ("", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_FILTER = re.compile(r"required filter|lib/plugin|HDF5_PLUGIN")
_MOST = 1e12
"""Lengths and factors from here on are no one's."""


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn every failure to parse `path` as `expected` into a DataError that says so.

    Raises
    ------
    DataError
        The file is missing, closed to us, a folder, truncated, or holds something else.
    """
    try:
        yield
    except StmorphError:
        raise
    except Exception as error:  # each parser has its own
        if told := unread(path, error, expected, "download it again if the file is not that large"):
            raise told from error
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ENOENT:
            raise DataError(
                f"{path} does not exist; expected {expected}: correct the path or download the file"
            ) from error
        if number == errno.EISDIR or path.is_dir():
            raise DataError(
                f"{path} is a folder that cannot be read as one ({reason_of(error)}); expected {expected}: give "
                "the file"
            ) from error
        if _FILTER.search(str(error)):
            raise DataError(
                f"{path} is packed by an HDF5 filter that is not installed ({reason_of(error)}); expected {expected}, "
                "packed by gzip or not at all: write it again so"
            ) from error
        if (kind := foreign_kind(path)) is not None:
            raise DataError(f"{path} is {kind[0]}; expected {expected}: {kind[1]}") from error
        raise DataError(
            f"{path} cannot be read ({reason_of(error)}); expected {expected}: the file is truncated or of another "
            "kind, download it again or correct the path"
        ) from error


def is_parquet(path: Path) -> bool:
    """Return whether a file is parquet; of a folder of parquet files its name decides."""
    if path.is_dir():
        return path.suffix == ".parquet"
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def is_packed(path: Path) -> bool:
    """Return whether a file is gzip."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def first_line(path: Path) -> str:
    """Return the first line of a text file, gzip or plain, without its line end."""
    opener = gzip.open if is_packed(path) else open
    with opener(path, "rt", encoding="utf-8-sig") as file:
        return file.readline().rstrip("\r\n")


def fields(line: str) -> list[str]:
    """Return the fields of a line of a table, without quotes."""
    return next(csv.reader([line], delimiter=_separator(line)), [])


def text_options(path: Path) -> dict[str, Any]:
    """Return what `pandas.read_csv` must know of a text file: its separator and whether it is packed."""
    return {"sep": _separator(first_line(path)), "compression": "gzip" if is_packed(path) else None}


def _separator(line: str) -> str:
    return max(_SEPARATORS, key=line.count)


def read_table(path: Path, ids: str | None = None, names: list[str] | None = None) -> pd.DataFrame:
    """Return a table of parquet or text.

    Parameters
    ----------
    path
        The file.
    ids
        A column of text that is no number and no missing value whatever it looks like (`007`, `1e5`, `NA`).
    names
        The columns of a text file without header; None: its first line names them.
    """
    if is_parquet(path):
        return pd.read_parquet(path)
    if foreign_kind(path) is not None:  # some are text: `reading` says what it is
        raise ValueError("it is no table")
    columns = names or [name or f"Unnamed: {place}" for place, name in enumerate(fields(first_line(path)))]
    return pd.read_csv(
        path,
        **text_options(path),
        header=None if names else 0,
        names=names,
        dtype=None if ids is None else {ids: str},
        keep_default_na=False,
        na_values={name: _MISSING for name in columns if name != ids},
        float_precision="round_trip",
    )


def with_ids(table: pd.DataFrame, ids: str) -> pd.DataFrame:
    """Return a table with its column of ids, which to some programs is an index or a first column without a name.

    Row numbers are no ids: such a column counts only where it is text.
    """
    if ids in table.columns:
        return table
    if table.index.nlevels > 1 or table.index.name == ids:
        return table.reset_index()
    if not pd.api.types.is_numeric_dtype(table.index):
        return table.rename_axis(ids).reset_index()
    first = table.columns[0] if len(table.columns) else None
    unnamed = first in ("", "Unnamed: 0") and not pd.api.types.is_numeric_dtype(table[first])
    return table.rename(columns={first: ids}) if unnamed else table


def check_columns(table: pd.DataFrame, needed: tuple[str, ...], path: Path) -> None:
    """Raise DataError when a table lacks columns."""
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)} (its columns: {', '.join(map(str, table.columns[:12]))}); "
            f"expected {', '.join(needed)}"
        )


def names_of(values: pd.Series, path: Path) -> np.ndarray:
    """Return ids as text, object [n], from numbers, text or bytes.

    Raises
    ------
    DataError
        An id is missing or is a number with a fraction.
    """
    if pd.api.types.is_numeric_dtype(values):
        numeric = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
        if not (np.isfinite(numeric) & (numeric == np.floor(numeric))).all():
            raise DataError(
                f"{path}: a {values.name} is missing or no whole number; expected one id a row: mend the rows"
            )
        return values.astype(np.int64).astype(str).to_numpy(dtype=object)
    if values.isna().any() or (values == "").any():
        raise DataError(f"{path}: a {values.name} is missing; expected one id a row: mend or remove the rows")
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        return values.to_numpy(dtype=object)
    # The distinct ids are few beside a table of vertices or molecules.
    codes, distinct = pd.factorize(values)
    text = [one.decode() if isinstance(one, bytes) else str(one) for one in distinct]
    return np.array(text, dtype=object)[codes]


def numbers(table: pd.DataFrame, columns: tuple[str, ...], path: Path, labels: pd.Series) -> pd.DataFrame:
    """Return columns as float64, each a finite number.

    Raises
    ------
    DataError
        A value is missing or no number; the sentence names the row's label, the column and the value.
    """
    values = table[list(columns)].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    bad = np.argwhere(~np.isfinite(values.to_numpy()))
    if len(bad):
        row, column = bad[0]
        found = table[columns[column]].iloc[row]
        advice = "mend or remove the rows"
        if isinstance(found, str) and _DECIMAL_COMMA.fullmatch(found.strip()):
            advice = "save the table with decimal points, not commas"
        raise DataError(
            f"{path}: {columns[column]} of {labels.iloc[row]} is {repr(found) if isinstance(found, str) else found}; "
            f"expected a number in each of {len(table)} rows ({len(np.unique(bad[:, 0]))} rows have none): {advice}"
        )
    return values


def whole_numbers(values: pd.Series, path: Path, labels: pd.Series) -> np.ndarray:
    """Return a column as int64.

    Raises
    ------
    DataError
        A value has a fraction, or is beyond any array.
    """
    found = values.to_numpy(dtype=np.float64)
    bad = np.flatnonzero((found != np.rint(found)) | (np.abs(found) >= 2**31))
    if len(bad):
        raise DataError(
            f"{path}: {values.name} of {labels.iloc[bad[0]]} is {found[bad[0]]:g}; expected a whole number in each of "
            f"{len(found)} rows ({len(bad)} have none): take the file from the run's outs"
        )
    return found.astype(np.int64)


def flags(values: pd.Series, column: str, path: Path) -> np.ndarray:
    """Return a column of 0 and 1, or of true and false, as bool, or raise DataError."""
    number = pd.to_numeric(values, errors="coerce").astype(np.float64)
    if not pd.api.types.is_numeric_dtype(values):
        number = number.fillna(values.astype(str).str.lower().map({"true": 1.0, "false": 0.0}))
    bad = ~number.isin((0, 1))
    if bad.any():
        raise DataError(f"{path}: column {column} holds {values[bad].iloc[0]}; expected 0 or 1")
    return number.to_numpy() == 1


def json_object(path: Path, expected: str) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises
    ------
    DataError
        The file is damaged or holds something else.
    """
    with reading(path, expected):
        found = json.loads(path.read_text("utf-8-sig"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not an object")
    return found


def above_zero(value: Any) -> bool:
    """Return whether a value of a JSON file is a number above 0 that can be a length or a factor."""
    # A JSON number may be too long for a float: it is compared, not converted.
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < _MOST
