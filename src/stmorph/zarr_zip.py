"""Zarr in one file: arrays packed as a zip, whose bytes follow from their content alone."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError, reason_of
from .files import scratch, whole, zip_folder

if TYPE_CHECKING:
    import zarr


@contextmanager
def written(path: str | Path, attributes: Mapping[str, Any]) -> Iterator["zarr.Group"]:
    """Give an empty group with some attributes; what is put into it becomes the file, whole or not at all.

    Raises
    ------
    DataError
        The disk is full or the folder cannot be written.
    """
    import zarr

    path = Path(path)
    # A folder first: a zip store cannot rewrite a chunk, and keeps the time of writing.
    with whole(path) as partial, scratch(path) as folder:
        yield zarr.open_group(folder, mode="w", zarr_format=3, attributes=dict(attributes))
        zip_folder(folder, partial)


@contextmanager
def opened(path: str | Path, what: str, again: str, lazy: bool = False) -> Iterator["zarr.Group"]:
    """Open a file that `written` made.

    Parameters
    ----------
    what
        What it holds, for the error sentence.
    again
        How it is made.
    lazy
        Leave the file open, for arrays that are read later.

    Raises
    ------
    DataError
        The file is missing or damaged.
    """
    import zarr

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected {what}: {again}")
    try:
        if not zipfile.is_zipfile(path):  # asked before, because ZipStore stumbles over its own closing
            raise ValueError("it is no zip")
        store = zarr.storage.ZipStore(path, mode="r")
        yield zarr.open_group(store, mode="r")
        if not lazy:
            store.close()
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RuntimeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {reason_of(error)}); expected {what}: delete it and "
            f"{again}"
        ) from error
