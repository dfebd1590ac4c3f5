"""Opening vendors' tables: whatever is wrong with a file becomes one sentence that names it."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn every failure to parse `path` as `expected` into a DataError that says so.

    Raises
    ------
    DataError
        The file is missing, truncated, or holds something else.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected {expected}: correct the path or download the file") from error
    # pyarrow's and pandas' parsing errors are ValueErrors; h5py's are OSError, KeyError or RuntimeError; an HDF5 file
    # of another layout meets a method that its objects lack.
    except (OSError, EOFError, zlib.error, ValueError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"{path} cannot be read ({reason}); expected {expected}: the file is truncated or of another kind, "
            "download it again or correct the path"
        ) from error


def first_line(path: Path) -> str:
    """Return the first line of a text file, gzip or plain, without its line end."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opener = gzip.open if packed or path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as file:
        return file.readline().rstrip("\r\n")


def check_columns(table: pd.DataFrame, needed: tuple[str, ...], path: Path) -> None:
    """Raise DataError when a table lacks columns."""
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)} (its columns: {', '.join(map(str, table.columns[:12]))}); "
            f"expected {', '.join(needed)}"
        )


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
        raise DataError(
            f"{path}: {columns[column]} of {labels.iloc[row]} is {found!r}; expected a number in each of "
            f"{len(table)} rows ({len(np.unique(bad[:, 0]))} rows have none): mend or remove the rows"
        )
    return values


def flags(values: pd.Series, column: str, path: Path) -> np.ndarray:
    """Return a column of 0 and 1 as bool, or raise DataError."""
    bad = ~values.isin((0, 1))
    if bad.any():
        raise DataError(f"{path}: column {column} holds {values[bad].iloc[0]:g}; expected 0 or 1")
    return values.to_numpy() == 1
