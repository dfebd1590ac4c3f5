"""Transfers one file over HTTP: goes on after a break, checks what arrived, falls back to mirrors."""

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from ..errors import DataError
from .gates import cure
from .partial import Partial
from .source import Gate

if TYPE_CHECKING:
    import httpx

_AS_IT_LIES = {"Accept-Encoding": "identity"}
"""Bytes as published, not packed for the way: digest and length are the file's, and ranges are of the file."""
_PASSING = (408, 425, 429, *range(500, 600))
"""Answers of a server that may do better in a moment."""
GAIN = 1 << 20
"""So many new bytes make an attempt count as progress."""


@dataclass(frozen=True)
class Patience:
    """How long a transfer is tried.

    attempts: in a row without progress, per URL. pause_s: before the second; it doubles up to longest_pause_s.
    stall_s: without a byte. connect_s: until there is a connection. least_bytes_per_s: over any slow_s; less is a
    stream that will not end.
    """

    attempts: int = 6
    pause_s: float = 1.0
    longest_pause_s: float = 60.0
    stall_s: float = 60.0
    connect_s: float = 20.0
    least_bytes_per_s: float = 1000.0
    slow_s: float = 60.0


@dataclass(frozen=True)
class Expected:
    """What the file must be, and who says so."""

    size_bytes: int | None = None
    sha256: str | None = None
    said_by: str = "the data set's YAML"
    md5: str | None = None

    @property
    def digest_known(self) -> bool:
        """Whether a digest can tell afterwards that the bytes are right."""
        return self.sha256 is not None or self.md5 is not None

    def mismatch(self, size_bytes: int, sha256: str, md5: str | None) -> str | None:
        """Return what is wrong with a file of this size and these digests, both told; None where it is right."""
        if self.size_bytes not in (None, size_bytes):
            return f"has {size_bytes:,} bytes, expected {self.size_bytes:,} ({self.said_by})"
        if self.sha256 not in (None, sha256):
            return f"has sha256 {sha256}, expected {self.sha256} ({self.said_by})"
        if self.md5 not in (None, md5):  # published beside a sha256 that may be the lock file's
            return f"has md5 {md5}, expected {self.md5} (the data set's YAML)"
        return None


class _Broken(Exception):
    """The transfer broke off; what has arrived is good, try again."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Refused(Exception):
    """The URL does not give the file; try the next one."""


def transfer(
    partial: Partial,
    urls: Sequence[str],
    expected: Expected,
    *,
    token: str | None = None,
    gate: Gate | None = None,
    patience: Patience | None = None,
    progress: TextIO | None = None,
) -> None:
    """Fill `partial` with the checked file from the first of `urls` that gives it.

    Parameters
    ----------
    token
        Sent to the host of the first URL only; a mirror never sees it.
    progress
        Where the progress bar is drawn. None: the standard error stream.

    Raises
    ------
    DataError
        No URL gives the file, or the disk is full. Names for each URL what was wrong: with a mismatch, both digests.
    """
    import httpx

    patience = patience or Patience()
    failures = []
    timeout = httpx.Timeout(patience.stall_s, connect=patience.connect_s)
    with httpx.Client(follow_redirects=True, timeout=timeout, headers=_AS_IT_LIES) as client:
        for url in urls:
            own = token is not None and _host(url) == _host(urls[0])
            headers = {"Authorization": f"Bearer {token}"} if own else {}
            try:
                _persist(client, url, headers, partial, expected, gate, patience, progress or sys.stderr)
                return
            except _Refused as refusal:
                failures.append(f"{url} {refusal}")
                print(f"{partial.path.name}: {failures[-1]}", file=sys.stderr)
            except OSError as error:
                raise partial.unwritable(error) from error
    raise DataError(
        f"{partial.path} could not be fetched: {'; '.join(failures)}; look at the connection and the address, or put a "
        "checked copy below data_root"
    )


def _persist(client, url, headers, partial, expected, gate, patience, progress) -> None:
    """Try one URL until the file is whole and right, it refuses, or attempts without progress are used up."""
    most, idle = partial.size, 0
    while True:
        try:
            _receive(client, url, headers, partial, expected, gate, patience, progress)
            stitched = partial.inherited
            if (wrong := expected.mismatch(partial.size, partial.sha256(), partial.md5())) is None:
                return
            wrong += ": the file was changed or damaged on the way"
            partial.restart()
            if not stitched:
                raise _Refused(wrong)
            print(f"{url} {wrong}; part of it is from an earlier transfer: fetched anew", file=sys.stderr)
        except _Broken as broken:
            gained = partial.size - most >= GAIN
            idle = 0 if gained else idle + 1
            most = partial.size if gained else most
            if idle >= patience.attempts:
                raise _Refused(f"broke off {idle} times in a row (last: {broken})") from broken
            pause = min(max(broken.wait_s, patience.pause_s * 2 ** max(idle - 1, 0)), patience.longest_pause_s)
            print(f"{url}: {broken}; goes on from byte {partial.size:,} in {pause:.1f} s", file=sys.stderr)
            time.sleep(pause)


def _receive(client, url, headers, partial, expected, gate, patience, progress) -> None:
    """Make one request and append its body."""
    import httpx

    if partial.size and partial.size == expected.size_bytes:
        return  # killed between the last byte and the check
    asked = {**headers, **_condition(partial, url, expected)}
    if "Range" not in asked:
        partial.restart()
    try:
        with client.stream("GET", url, headers=asked) as response:
            if _already_whole(response, partial):
                return
            _check_status(response, partial, gate)
            validator = _validator(response)
            if response.status_code != 206:
                partial.restart()  # the server knows no ranges, or has another state of the file
            elif _start(response) != partial.size or _another_state(partial, url, validator):
                partial.restart()
                raise _Broken("answered with another range than was asked for")
            total = _total(response, partial.size)
            if None not in (total, expected.size_bytes) and total != expected.size_bytes:
                raise _Refused(f"has {total:,} bytes, expected {expected.size_bytes:,} ({expected.said_by})")
            partial.need_room((total or expected.size_bytes or partial.size) - partial.size)
            partial.belongs_to(url, validator)
            _append(response, partial, total, patience, progress)
    except httpx.TransportError as error:
        if isinstance(error, httpx.UnsupportedProtocol):
            raise _Refused(f"cannot be asked ({error})") from error
        raise _Broken(f"{type(error).__name__}: {str(error).partition(chr(10))[0] or 'no bytes came'}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _Refused(f"cannot be followed ({type(error).__name__}: {error})") from error
    finally:
        partial.flush()
    if partial.size == 0:
        raise _Refused("answered with an empty file")


def _condition(partial: Partial, url: str, expected: Expected) -> dict[str, str]:
    """Return the headers that ask for the rest, where the rest can be told to fit.

    The server says whether it has the same state (If-Range); without such a sign, or on another server, only a known
    digest can tell afterwards.
    """
    if not partial.size:
        return {}
    rest = {"Range": f"bytes={partial.size}-"}
    if partial.url == url and partial.validator:
        return rest | {"If-Range": partial.validator}
    if not expected.digest_known:
        return {}
    partial.inherited = True  # a mismatch may come from the seam
    return rest


def _append(response: "httpx.Response", partial: Partial, total: int | None, patience: Patience, progress) -> None:
    from tqdm import tqdm

    since, before = time.monotonic(), partial.size
    bar = tqdm(
        total=total,
        initial=partial.size,
        unit="B",
        unit_scale=True,
        desc=partial.path.name,
        file=progress,
        mininterval=0.5 if progress.isatty() else 30.0,
    )
    with bar:
        for block in response.iter_raw():
            partial.write(block)
            bar.update(len(block))
            if (took := time.monotonic() - since) >= patience.slow_s:
                if partial.size - before < patience.least_bytes_per_s * took:
                    raise _Broken(f"only {partial.size - before:,} bytes came in {took:.0f} s")
                since, before = time.monotonic(), partial.size


def _already_whole(response: "httpx.Response", partial: Partial) -> bool:
    """Return whether the server says that nothing is missing, or forget the part where it does not fit."""
    if response.status_code != 416:
        return False
    if response.headers.get("content-range", "").strip() == f"bytes */{partial.size}":
        return True
    partial.restart()
    raise _Broken("the part that had arrived does not fit the file")


def _check_status(response: "httpx.Response", partial: Partial, gate: Gate | None) -> None:
    status, phrase = response.status_code, response.reason_phrase
    if status in (401, 403) and gate is not None:
        raise _Refused(f"answered {status} {phrase} to the token in {gate.variable}: {cure(gate)}")
    if status in _PASSING:
        after = response.headers.get("retry-after", "")
        raise _Broken(f"answered {status} {phrase}", float(after) if after.isdecimal() else 0.0)
    if status not in (200, 206):
        raise _Refused(f"answered {status} {phrase}".rstrip())
    if status == 206 and not partial.size:
        raise _Refused("answered with a part of the file, unasked")


def _validator(response: "httpx.Response") -> str | None:
    """Return the server's name for the state of the file; weak ones do not vouch for every byte."""
    etag = response.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("last-modified")


def _another_state(partial: Partial, url: str, validator: str | None) -> bool:
    return partial.url == url and partial.validator is not None and validator != partial.validator


def _start(response: "httpx.Response") -> int | None:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", "").strip())
    return int(found[1]) if found else None


def _total(response: "httpx.Response", held: int) -> int | None:
    """Return the length of the whole file, as far as the server tells."""
    length = response.headers.get("content-length", "")
    return held + int(length) if length.isdecimal() else None


def _host(url: str) -> str:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return url
    return f"{parsed.scheme}://{parsed.netloc.decode()}"
