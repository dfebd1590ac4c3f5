"""Gets published files: checked, whole or not at all, and never twice."""

from pathlib import Path
from typing import TextIO

from ..errors import DataError
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

    A file whose sha256 is not published must be, ever after, what it was at the first download.

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
    commit = None
    with Partial(path) as partial:
        if source.hub is None:
            urls = [source.url, *source.mirrors]
            transfer(partial, urls, expected, token=token, gate=source.gate, patience=patience, progress=progress)
        else:
            commit = download(partial, source.hub, source.gate, token)
            if (wrong := expected.mismatch(partial.size, partial.sha256(), partial.md5())) is not None:
                partial.restart()  # whole, but of another state: nothing to go on from
                raise DataError(
                    f"{source.address} (commit {commit}) {wrong}: it was changed on the hub; name the revision that is "
                    "meant, or put a checked copy below data_root"
                )
        # Noted before it is in its place: a kill in between must not leave a file that is not checked.
        record(lock, source.address, str(path), partial.sha256(), partial.size, commit)
        try:
            partial.finish()
        except OSError as error:
            raise partial.unwritable(error) from error


def _expected(source: Source, lock: Path) -> Expected:
    published = Expected(source.size_bytes, source.sha256, md5=source.md5)
    known = read_lock(lock).get(source.address)
    if source.sha256 is not None or known is None:
        return published
    commit = f" of commit {known['commit']}" if known.get("commit") else ""
    return Expected(
        source.size_bytes,
        known["sha256"],
        f"noted in {lock} at the first download{commit}; remove that entry to accept the change",
        source.md5,
    )
