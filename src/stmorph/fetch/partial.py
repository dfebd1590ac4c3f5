"""What has arrived of a file so far: kept beside it under a stable name, so that a killed transfer goes on."""

import fcntl
import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..errors import DataError


class Partial:
    """The bytes that have arrived, their digest, and which state of which URL they belong to.

    Raises
    ------
    DataError
        Another process is fetching the same file, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_path = path.with_name(f".{path.name}.partial")
        self.note_path = path.with_name(f".{path.name}.partial.json")

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._locked()
            self._digest, self._md5 = _digests_of(self._file)
        except OSError as error:
            raise self.unwritable(error) from error
        self.size = self._file.seek(0, os.SEEK_END)
        self.inherited = self.size > 0
        """Whether bytes of an earlier process are in it."""
        try:
            note = json.loads(self.note_path.read_text("utf-8"))
            self.url, self.validator = note["url"], note["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            self.url, self.validator = None, None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk: what is written so far stays
            self._file.close()
        if self.size == 0:
            self.remove()

    def _locked(self):
        while True:
            file = self.file_path.open("ab+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise DataError(
                    f"{self.path} is being fetched by another process; wait for it and run again"
                ) from error
            # The other one may have finished, and moved its file away, between our opening and our locking.
            with suppress(FileNotFoundError):
                if self.file_path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    file.seek(0)
                    return file
            file.close()

    def write(self, block: bytes) -> None:
        """Append a block."""
        self._file.write(block)
        self._digest.update(block)
        self._md5.update(block)
        self.size += len(block)

    def flush(self) -> None:
        """Hand what was written to the system, so that a kill loses none of it."""
        self._file.flush()

    def restart(self) -> None:
        """Forget all that has arrived."""
        self._file.flush()
        self._file.truncate(0)
        self._digest, self._md5, self.size = hashlib.sha256(), _md5(), 0
        self.inherited, self.url, self.validator = False, None, None

    def belongs_to(self, url: str, validator: str | None) -> None:
        """Note the URL and the server's name (ETag or date) for the state that the bytes belong to."""
        if (url, validator) != (self.url, self.validator):
            self.url, self.validator = url, validator
            self.note_path.write_text(json.dumps({"url": url, "validator": validator}), "utf-8")

    def sha256(self) -> str:
        """Return the digest of what has arrived."""
        return self._digest.hexdigest()

    def md5(self) -> str:
        """Return the md5 of what has arrived; some publishers state no other digest."""
        return self._md5.hexdigest()

    def finish(self) -> None:
        """Put the whole file in its place."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.file_path.replace(self.path)
        self.note_path.unlink(missing_ok=True)

    def take(self, file: Path) -> None:
        """Let a whole file of another name, on the same disk, be what has arrived."""
        with file.open("rb") as found:
            while block := found.read(1 << 20):
                self.write(block)
        self.flush()

    def remove(self) -> None:
        """Leave nothing behind."""
        self.file_path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)

    def need_room(self, missing_bytes: int) -> None:
        """Stop before the disk is full."""
        free = shutil.disk_usage(self.path.parent).free
        if missing_bytes > free:
            raise DataError(
                f"{self.path} needs {missing_bytes:,} more bytes and the disk has {free:,} left; free space or set "
                "downloads to another disk and run again"
            )

    def unwritable(self, error: OSError) -> DataError:
        """Return the sentence for a disk that refuses."""
        kept = f"; the {self.size:,} bytes that have arrived are kept" if getattr(self, "size", 0) else ""
        return DataError(
            f"{self.path} could not be written ({error.strerror or error}){kept}; free space or mend the folder's "
            "rights and run again"
        )


def _md5():
    return hashlib.md5(usedforsecurity=False)


def _digests_of(file) -> tuple:
    """Return the sha256 and the md5 of an open file, which is read once."""
    sha256, md5 = hashlib.sha256(), _md5()
    while block := file.read(1 << 20):
        sha256.update(block)
        md5.update(block)
    return sha256, md5
