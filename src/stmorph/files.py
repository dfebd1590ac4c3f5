"""Outputs appear whole or not at all."""

import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DataError, reason_of

EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
PARTIAL = ".partial-"
"""How the name of a file or folder begins that is being written."""
_FOLDER = ".folder"


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it replaces `path`, on failure nothing is left.

    The temporary name keeps the suffix, because libraries choose a format by it.

    Raises
    ------
    DataError
        The disk is full or the folder cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        named = isinstance(error.filename, str | bytes | os.PathLike)
        name = Path(os.fsdecode(error.filename)) if named else partial
        if name not in (path, *path.parents) and PARTIAL not in str(name):
            raise  # about another file, which the caller was reading
        raise DataError(
            f"{path} could not be written ({_reason(error)}); free space or mend the folder's rights and run again"
        ) from error
    finally:
        with suppress(OSError):  # where the folder is missing or closed to us there is nothing to remove
            partial.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    hdf5 = re.search(r"error message = '([^']*)'", str(error))  # among its own numbers, over several lines
    return error.strerror or (hdf5[1] if hdf5 else reason_of(error))


@contextmanager
def scratch(path: str | Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, on its disk; afterwards it is gone."""
    path = Path(path)
    folder = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}{_FOLDER}")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove what killed processes left of writing `path`; only where no other process can be writing it."""
    path = Path(path)
    # Not by a pattern with a star alone: another job may be writing `my-S1.png` beside `S1.png`.
    of_path = re.compile(rf"{re.escape(PARTIAL)}\d+-{re.escape(path.name)}({re.escape(_FOLDER)})?")
    for leftover in path.parent.glob(f"{PARTIAL}*"):
        if of_path.fullmatch(leftover.name):
            _remove(leftover)


def remove_leftovers_below(folder: str | Path) -> None:
    """Remove whatever killed processes left in a folder and those in it; only where no other process writes there."""
    for leftover in list(Path(folder).rglob(f"{PARTIAL}*")):
        _remove(leftover)


def _remove(leftover: Path) -> None:
    shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def zip_folder(folder: Path, path: Path) -> None:
    """Store a folder's files in a zip: by name, as they are, without times, so that equal content is equal bytes.

    For Zarr, which can write a folder but stamps the time on the entries of a zip store; its chunks are packed already.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(found for found in folder.rglob("*") if found.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), date_time=EARLIEST_ZIP_TIME)
            entry.external_attr = 0o644 << 16
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 2**20)
