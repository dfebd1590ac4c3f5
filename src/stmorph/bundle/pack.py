"""Writes a bundle: the same files give the same bytes."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import DataError
from ..files import EARLIEST_ZIP_TIME, whole
from ..provenance import git_state
from .contents import MANIFEST, Manifest, Member

CHUNK = 2**20


def pack(about: Mapping[str, Any], results: str | Path, files: Iterable[str], path: str | Path) -> Manifest:
    """Write the archive, whole or not at all: the manifest first, then the files by name.

    Stored, not compressed: what lies in it is packed already, and the bytes do not hang on a version of zlib.

    Parameters
    ----------
    about
        `kind`, `study`, `title` and `digests` of the manifest.
    results
        The study's results folder.
    files
        Paths below it.
    path
        The archive, a zip file.

    Raises
    ------
    DataError
        A file is missing, or changed while it was read.
    """
    results, files = Path(results), sorted(set(files))
    missing = [file for file in files if not (results / file).is_file()]
    if missing:
        raise DataError(
            f"{results / missing[0]} is missing (and {len(missing) - 1} more of {len(files)} files); "
            "a bundle holds all of them: make the study first"
        )
    members = [_member(results, file) for file in files]
    git = git_state()
    manifest = Manifest(
        **about, stmorph=__version__, commit=git["commit"], changed_files=git["changed_files"], files=members
    )
    with whole(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        text = json.dumps(manifest.model_dump(), indent=1, sort_keys=True) + "\n"
        archive.writestr(_entry(MANIFEST, len(text.encode())), text)
        for member in members:
            sha256 = hashlib.sha256()
            with (
                (results / member.path).open("rb") as source,
                archive.open(_entry(member.path, member.size_bytes), "w") as target,
            ):
                shutil.copyfileobj(source, _Hashed(target, sha256), CHUNK)
            if sha256.hexdigest() != member.sha256:
                raise DataError(
                    f"{results / member.path} changed while it was packed; let the study end and pack again"
                )
    return manifest


class _Hashed:
    """Passes on what is written, and digests it."""

    def __init__(self, file: Any, digest: Any):
        self.file, self.digest = file, digest

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)


def _member(results: Path, file: str) -> Member:
    path = results / file
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    return Member(path=file, size_bytes=path.stat().st_size, sha256=digest)


def _entry(name: str, size_bytes: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=EARLIEST_ZIP_TIME)
    entry.create_system = 3  # Unix, on every system: the field is part of the bytes
    entry.external_attr = 0o644 << 16
    entry.file_size = size_bytes
    return entry
