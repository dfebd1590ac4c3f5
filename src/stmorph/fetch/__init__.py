"""Gets published files: checked, whole or not at all, and never twice."""

import shutil
from pathlib import Path
from typing import TextIO

from ..errors import DataError
from ..files import whole
from .gates import token_of
from .hub import download
from .lock import LOCK_NAME, read_lock, record
from .partial import Partial
from .source import Source
from .transfer import Expected, Patience, transfer


def fetch(
    source: Source, downloads: str | Path, progress: TextIO | None = None, patience: Patience | None = None
) -> None:
    """Fetch one published file to `source.path`, and note its digest in the lock file of `downloads`.

    A file whose digest is not published must be, ever after, what it was at the first download.

    Raises
    ------
    DataError
        It cannot be had from the URL, its mirrors or the hub; it is gated and there is no token; size or digest are
        not the published ones or those of the lock file; the disk is full. What was at the path before stays, and what
        has arrived of a broken transfer is kept beside it for the next run.
    """
    lock, path = Path(downloads) / LOCK_NAME, Path(source.path)
    token = token_of(source.gate, str(path))
    expected = _expected(source, lock)
    if source.hub is not None:
        _fetch_from_hub(source, path, lock, expected, token)
        return
    with Partial(path) as partial:
        transfer(
            partial,
            [source.url, *source.mirrors],
            expected,
            token=token,
            gate=source.gate,
            patience=patience,
            progress=progress,
        )
        # Noted before it is in its place: a kill in between must not leave a file that is not checked.
        record(lock, source.address, str(path), partial.sha256(), partial.size)
        try:
            partial.finish()
        except OSError as error:
            raise partial.unwritable(error) from error


def _expected(source: Source, lock: Path) -> Expected:
    if source.sha256 is not None:
        return Expected(source.size_bytes, source.sha256)
    known = read_lock(lock).get(source.address)
    if known is None:
        return Expected(source.size_bytes)
    return Expected(
        source.size_bytes,
        known["sha256"],
        f"noted in {lock} at the first download; remove that entry to accept the change",
    )


def _fetch_from_hub(source: Source, path: Path, lock: Path, expected: Expected, token: str | None) -> None:
    folder = path.with_name(f".{path.name}.hub")
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process; the client cannot go on from it
    try:
        found, sha256, size_bytes = download(folder, source.hub, source.gate, token)
        if expected.size_bytes not in (None, size_bytes):
            raise DataError(
                f"{source.address} has {size_bytes:,} bytes, expected {expected.size_bytes:,} ({expected.said_by}); "
                "name the revision that the entry was written for"
            )
        if expected.sha256 not in (None, sha256):
            raise DataError(
                f"{source.address} has sha256 {sha256}, expected {expected.sha256} ({expected.said_by}): the file was "
                "changed on the hub or damaged; name the revision that it belongs to, or put a checked copy below "
                "data_root"
            )
        record(lock, source.address, str(path), sha256, size_bytes)
        with whole(path) as partial:
            found.replace(partial)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
