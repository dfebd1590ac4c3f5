"""Takes single files out of an archive: streamed, in one pass, whole or not at all.

Members are written to paths of our own choice, so no name inside an archive can reach another place.
"""

import difflib
import functools
import gzip
import hashlib
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import DataError
from ..files import remove_leftovers, whole
from .source import Source
from .transfer import Expected

_BLOCK = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, RuntimeError)
"""What the readers raise; a RuntimeError stands for an encrypted zip or a packing that Python does not know."""


def unpack(archive: str | Path, sources: Sequence[Source]) -> None:
    """Write the members that `sources` name to their paths; either all of them appear or none.

    The kind is told by the archive's content: tar, packed or not (gz, bz2, xz), zip, or one packed file (gz), whose
    sources name no member.

    Raises
    ------
    DataError
        The archive is damaged or of another kind; a member is missing (near names are told), is no plain file, or
        has not the size or digest that is expected of it.
    """
    archive = Path(archive)
    read = _reader_of(archive)
    with ExitStack() as opened:
        for source in sources:
            remove_leftovers(source.path)  # members are large
        partials = [(source, opened.enter_context(whole(source.path))) for source in sources]
        try:
            read(archive, _Wanted(archive, partials))
        except _DAMAGE as error:
            raise DataError(
                f"{archive} is damaged ({type(error).__name__}: {error}); remove it, so that it is fetched again"
            ) from error


class _Wanted:
    """The members still to be found, and where each goes."""

    def __init__(self, archive: Path, partials: Sequence[tuple[Source, Path]]) -> None:
        self.archive = archive
        self.missing: dict[str, list[tuple[Source, Path]]] = {}
        for source, partial in partials:
            self.missing.setdefault(_plain(source.member or ""), []).append((source, partial))

    def offer(self, name: str, plain: bool, open_member: Callable[[], IO[bytes]]) -> None:
        """Take a member if it is wanted."""
        targets = self.missing.pop(_plain(name), None)
        if targets is None:
            return
        if not plain:
            raise DataError(f"{self.archive}: member {name} is a folder or a link, expected a file; name the file")
        with ExitStack() as opened:
            stream = opened.enter_context(open_member())
            files = [opened.enter_context(partial.open("wb")) for _, partial in targets]
            sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
            while block := stream.read(_BLOCK):
                sha256.update(block)
                md5.update(block)
                size += len(block)
                for file in files:
                    file.write(block)
        for source, _ in targets:
            expected = Expected(source.size_bytes, source.sha256, md5=source.md5)
            if (wrong := expected.mismatch(size, sha256.hexdigest(), md5.hexdigest())) is not None:
                raise DataError(f"{self.archive}: member {name} {wrong}; correct the data set's YAML")

    def all_found(self, names: Sequence[str]) -> None:
        """Stop if a member is missing."""
        for member in self.missing:
            near = difflib.get_close_matches(member, names, n=3, cutoff=0.5)
            last = PurePosixPath(member).name
            near = [*(name for name in names if PurePosixPath(name).name == last), *near][:3]
            like = f"near names: {', '.join(dict.fromkeys(near))}" if near else f"it holds {_some(names)}"
            asked = f"no member {member}" if member else "more than one packed file, and no member is named"
            raise DataError(f"{self.archive} has {asked}; {like}; correct `member` in the data set's YAML")


def _plain(name: str) -> str:
    """Return a member's name without a leading `./`, as tar writes it."""
    return "" if not name else str(PurePosixPath(name))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"


def _reader_of(archive: Path) -> Callable[[Path, _Wanted], None]:
    """Return the way to read an archive of this kind, by its content."""
    try:
        if zipfile.is_zipfile(archive) and not _is_tar(archive):
            return _from_zip
        if _is_tar(archive):
            return _from_tar
        with archive.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise DataError(f"{archive} cannot be read ({error.strerror or error}); fetch it again") from error
    if packed:
        return _from_gzip
    raise DataError(f"{archive} is no archive that can be read; expected tar, tar.gz, tar.bz2, tar.xz, zip or gz")


def _is_tar(archive: Path) -> bool:
    try:
        with tarfile.open(archive, "r|*") as tar:
            return tar.next() is not None
    except (tarfile.TarError, EOFError, zlib.error):
        return False


def _from_tar(archive: Path, wanted: _Wanted) -> None:
    names = []
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if member.isfile():
                names.append(member.name)
            wanted.offer(member.name, member.isfile(), lambda member=member: tar.extractfile(member))
            if not wanted.missing:
                return
    wanted.all_found(names)


def _from_zip(archive: Path, wanted: _Wanted) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        for member in members:
            plain = not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16)
            wanted.offer(member.filename, plain, lambda member=member: packed.open(member))
    wanted.all_found([member.filename for member in members if not member.is_dir()])


def _from_gzip(archive: Path, wanted: _Wanted) -> None:
    inner = "" if "" in wanted.missing else archive.name.removesuffix(".gz")
    wanted.offer(inner, True, functools.partial(gzip.open, archive, "rb"))
    wanted.all_found([inner])
