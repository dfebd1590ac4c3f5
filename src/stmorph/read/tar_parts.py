"""A tar in parts (as `split` cuts one), read where the parts lie: they are neither joined nor unpacked on disk."""

import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError, reason_of


@contextmanager
def opened_tar(parts: Path | Sequence[Path]) -> Iterator[Iterator[tuple[str, BinaryIO]]]:
    """Open a tar in parts; its files are given one by one as (name without folder, content), none is kept.

    What is not read is passed over without reading it, unless the tar is packed.

    Raises
    ------
    DataError
        A part is missing, or the tar is truncated or of another kind.
    """
    paths = [parts] if isinstance(parts, Path) else [Path(part) for part in parts]
    with ExitStack() as stack:
        try:
            joined = stack.enter_context(io.BufferedReader(_Joined(paths), 2**20))
            archive = stack.enter_context(tarfile.open(fileobj=joined, mode="r:*"))
            yield _members(archive)
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename} does not exist; expected a part of the archive: download it or correct the path"
            ) from error
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise DataError(
                f"{paths[0]} and what follows it cannot be read ({reason_of(error).rstrip(':')}); expected a tar, all "
                "parts in order: one is missing or truncated, download it again"
            ) from error


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, BinaryIO]]:
    while (member := archive.next()) is not None:
        archive.members = []  # tarfile remembers each file; there are millions
        if not member.isfile():
            continue
        file = archive.extractfile(member)
        yield Path(member.name).name, file


class _Joined(io.RawIOBase):
    """Some files as one, read-only, without copying them."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = list(paths)
        self._ends = np.cumsum([path.stat().st_size for path in self._paths])
        self._at, self._open, self._file = 0, -1, None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: int(self._ends[-1])}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer) -> int:
        part = int(np.searchsorted(self._ends, self._at, side="right"))
        if part == len(self._paths):
            return 0
        if part != self._open:
            if self._file is not None:
                self._file.close()
            self._file, self._open = self._paths[part].open("rb", buffering=0), part
        self._file.seek(self._at - (int(self._ends[part - 1]) if part else 0))
        count = self._file.readinto(buffer) or 0
        self._at += count
        return count

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
