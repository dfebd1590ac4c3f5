"""Fetches one published file: streamed, checked, whole or not at all."""

import hashlib
import sys
from pathlib import Path

from .errors import DataError
from .files import whole

_AS_IT_LIES = {"Accept-Encoding": "identity"}
"""Bytes as published, not packed for the way: the digest is of the file, and the length is the file's."""


def fetch(path: str | Path, url: str, sha256: str | None = None) -> None:
    """Fetch `url` to `path` with a progress bar.

    Raises
    ------
    DataError
        The server cannot be reached or refuses, the transfer breaks off or is empty, or the digest differs from
        `sha256`. What was at `path` before stays.
    """
    import httpx
    from tqdm import tqdm

    digest, received = hashlib.sha256(), 0
    try:
        with (
            whole(path) as partial,
            partial.open("wb") as file,
            httpx.stream("GET", url, headers=_AS_IT_LIES, follow_redirects=True, timeout=60) as response,
        ):
            response.raise_for_status()
            expected = int(response.headers.get("content-length", 0))
            with tqdm(total=expected or None, unit="B", unit_scale=True, desc=Path(path).name, file=sys.stderr) as bar:
                for block in response.iter_raw(1 << 20):
                    file.write(block)
                    digest.update(block)
                    received += len(block)
                    bar.update(len(block))
            if received == 0:
                raise DataError(f"{url} answered with an empty file; try again or put the file below data_root")
            if sha256 is not None and digest.hexdigest() != sha256:
                raise DataError(
                    f"{url} has sha256 {digest.hexdigest()}, expected {sha256}: the file was changed or damaged on the "
                    "way; try again or put a checked copy below data_root"
                )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason, _, _ = str(error).partition("\n")
        raise DataError(
            f"{url} could not be fetched ({type(error).__name__}: {reason}); "
            "look at the connection or put the file below data_root"
        ) from error
