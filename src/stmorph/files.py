"""Outputs appear whole or not at all."""

import glob
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DataError

EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


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
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        named = isinstance(error.filename, str | bytes | os.PathLike)
        if named and Path(os.fsdecode(error.filename)) not in (partial, path, *path.parents):
            raise  # about another file, which the caller was reading
        raise DataError(
            f"{path} could not be written ({error.strerror or error}); "
            "free space or mend the folder's rights and run again"
        ) from error
    finally:
        with suppress(OSError):  # where the folder is missing or closed to us there is nothing to remove
            partial.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove what killed processes left beside `path`; only where no other process can be writing it."""
    path = Path(path)
    for leftover in path.parent.glob(f".partial-*-{glob.escape(path.name)}"):
        leftover.unlink(missing_ok=True)


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
