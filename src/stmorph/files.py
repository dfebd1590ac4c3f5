"""Outputs appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DataError


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
        if error.filename is not None and Path(os.fsdecode(error.filename)) not in (partial, path, *path.parents):
            raise  # about another file, which the caller was reading
        raise DataError(
            f"{path} could not be written ({error.strerror or error}); "
            "free space or mend the folder's rights and run again"
        ) from error
    finally:
        with suppress(OSError):  # where the folder is missing or closed to us there is nothing to remove
            partial.unlink(missing_ok=True)
