"""Fetches one file of a Hugging Face repository through the hub's own client."""

import errno
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import DataError
from .gates import cure
from .partial import Partial
from .source import Gate, HubFile
from .transfer import GAIN, Expected

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

_HUB = "https://huggingface.co"


def download(partial: Partial, wanted: HubFile, gate: Gate | None, token: str | None) -> str | None:
    """Fill `partial` with a hub's file through the hub's own client; return the commit that it is of.

    The client's `hf_hub_download` begins anew after a kill (its partial files have random names), so its transfer is
    called by itself (plain HTTP): it goes on after a break, here also from what an earlier process left of the same
    state of the file. HF_ENDPOINT names another hub, HF_HUB_DOWNLOAD_TIMEOUT the seconds without a byte.

    Raises
    ------
    DataError
        The file is gated for this token, is not there, arrived damaged, the hub cannot be reached, or the disk is full.
    """

    what = f"{wanted.file} of {page_of(wanted)} at revision {wanted.revision}"
    while True:
        held = partial.size
        try:
            commit, wrong = _attempt(partial, wanted, token, what)
            break
        except DataError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise partial.unwritable(error) from error
            if (sentence := _sentence(what, wanted, error, gate)) is None:
                raise
            # Large files lie at addresses that expire: while something comes, a new one is asked for.
            if partial.size - held < GAIN:
                raise DataError(sentence) from error
            print(f"{sentence}: goes on from byte {partial.size:,}", file=sys.stderr)
    if wrong:
        partial.restart()
        raise DataError(f"{what} {wrong}: it was damaged on the way; run again")
    return commit


def _attempt(partial: Partial, wanted: HubFile, token: str | None, what: str) -> tuple[str | None, str | None]:
    """Ask for the file's state and get what is missing of it; return its commit and what is wrong with it, if it is."""
    import huggingface_hub as hub

    endpoint = os.environ.get("HF_ENDPOINT") or None
    address = hub.hf_hub_url(
        wanted.repo, wanted.file, repo_type=wanted.kind, revision=wanted.revision, endpoint=endpoint
    )
    facts = hub.get_hf_file_metadata(address, token=token, endpoint=endpoint, retry_on_errors=True)
    # The hub names a file's state by a digest of its content; without a name nothing tells that a part fits.
    if facts.etag is None or (partial.url, partial.validator) != (address, facts.etag):
        partial.restart()
    partial.need_room((facts.size or partial.size) - partial.size)
    partial.belongs_to(address, facts.etag)
    stitched = partial.size > 0
    _transfer(partial, wanted, facts, token, endpoint)
    wrong = _damage(partial, facts)
    if wrong and stitched:
        print(f"{what} {wrong}; part of it is from an earlier transfer: fetched anew", file=sys.stderr)
        partial.restart()
        _transfer(partial, wanted, facts, token, endpoint)
        wrong = _damage(partial, facts)
    return facts.commit_hash, wrong


def _transfer(partial: Partial, wanted: HubFile, facts: "HfFileMetadata", token: str | None, endpoint: str | None):
    import huggingface_hub as hub
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get

    folder = partial.path.with_name(f".{partial.path.name}.hub")
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process
    if (facts.size or 0) > constants.MAX_HTTP_DOWNLOAD_SIZE:
        # The hub gives such files by its own protocol only, and the client cannot go on from a part of them.
        partial.restart()
        try:
            found = hub.hf_hub_download(
                wanted.repo,
                wanted.file,
                repo_type=wanted.kind,
                revision=facts.commit_hash or wanted.revision,
                local_dir=folder,
                token=token,
                endpoint=endpoint,
            )
            partial.take(Path(found))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    headers = hub.utils.build_hf_headers(token=token if _same_host(facts.location, endpoint) else False)
    http_get(
        facts.location,
        _Appended(partial),
        resume_size=partial.size,
        headers=headers,
        expected_size=facts.size,
        displayed_filename=partial.path.name,
    )


class _Appended:
    """A partial file as the client's transfer wants it: appended to, or begun anew where the server knows no ranges."""

    def __init__(self, partial: Partial) -> None:
        self.partial = partial

    def tell(self) -> int:
        return self.partial.size

    def write(self, block: bytes) -> None:
        self.partial.write(block)
        self.partial.flush()

    def seek(self, position: int) -> None:
        if position != 0:
            raise ValueError(f"a part can be begun anew only, not cut at byte {position}")

    def truncate(self) -> None:
        url, validator = self.partial.url, self.partial.validator
        self.partial.restart()
        self.partial.belongs_to(url, validator)


def _damage(partial: Partial, facts: "HfFileMetadata") -> str | None:
    """Return what is wrong with the bytes; large files carry their sha256 on the hub."""
    published = facts.etag if facts.etag and re.fullmatch(r"[0-9a-f]{64}", facts.etag) else None
    return Expected(facts.size, published, "the hub").mismatch(partial.size, partial.sha256(), None)


def _same_host(location: str, endpoint: str | None) -> bool:
    """Return whether a file lies with the hub itself: another host must not see the token."""
    return urlsplit(location).netloc == urlsplit(endpoint or _HUB).netloc


def page_of(wanted: HubFile) -> str:
    """Return the repository's page."""
    kind = "datasets/" if wanted.kind == "dataset" else ""
    return f"{os.environ.get('HF_ENDPOINT', _HUB).rstrip('/')}/{kind}{wanted.repo}"


def _sentence(what: str, wanted: HubFile, error: Exception, gate: Gate | None) -> str | None:
    """Return the sentence for a failure of the hub's client; None where it is none of the hub or the network."""
    from huggingface_hub import errors

    elsewhere = "or put the file below data_root"
    if isinstance(error, errors.GatedRepoError):
        way = cure(gate) if gate else f"accept the terms at {page_of(wanted)}, set HF_TOKEN and run again, {elsewhere}"
        return f"{what} is gated for this token: {way}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        own = "the encoder's `file` or `revision`" if wanted.kind == "model" else "its path or its revision in the YAML"
        return f"{what} is not there; correct {own}, {elsewhere}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what}: there is no such revision; choose one of {page_of(wanted)}/commits, {elsewhere}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{what}: the hub does not show this repository to this user; check its name and the token, {elsewhere}"
    refusal = error if isinstance(error, errors.HfHubHTTPError) else error.__cause__
    answer = getattr(refusal, "response", None)
    if answer is not None:
        way = "check the token" if answer.status_code in (401, 403) else "try again later"
        return f"{what} could not be fetched (the hub answered {answer.status_code}); {way}, {elsewhere}"
    network = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "huggingface_hub", "hf_xet")
    if network or isinstance(error, OSError | RuntimeError):
        reason = str(error).partition("\n")[0] or "no answer"
        return (
            f"{what} could not be fetched ({type(error).__name__}: {reason}); look at the connection and the free "
            f"space and run again, {elsewhere}"
        )
    return None
