"""Fetches one file of a Hugging Face repository through the hub's own client."""

import os
import re
import shutil
from pathlib import Path

from ..digests import file_digest
from ..errors import DataError
from .gates import cure
from .source import Gate, HubFile

_HUB = "https://huggingface.co"


def download(folder: Path, wanted: HubFile, gate: Gate | None, token: str | None) -> tuple[Path, str, int]:
    """Download a hub's file into an empty `folder`; return its path, sha256 and size in bytes.

    The client retries and goes on after a break by itself. Large files carry their sha256 on the hub; what arrived is
    compared with it. HF_ENDPOINT names another hub, HF_HUB_DOWNLOAD_TIMEOUT the seconds without a byte.

    Raises
    ------
    DataError
        The file is gated for this token, is not there, arrived damaged, or the hub cannot be reached.
    """
    import huggingface_hub as hub

    endpoint = os.environ.get("HF_ENDPOINT") or None
    what = f"{wanted.file} of {page_of(wanted)} at revision {wanted.revision}"
    try:
        address = hub.hf_hub_url(
            wanted.repo, wanted.file, repo_type=wanted.kind, revision=wanted.revision, endpoint=endpoint
        )
        facts = hub.get_hf_file_metadata(address, token=token, endpoint=endpoint, retry_on_errors=True)
        # At the commit that was just seen: a branch that moves meanwhile must not mix two states.
        found = hub.hf_hub_download(
            wanted.repo,
            wanted.file,
            repo_type=wanted.kind,
            revision=facts.commit_hash or wanted.revision,
            local_dir=folder,
            token=token,
            endpoint=endpoint,
        )
    except Exception as error:
        if (sentence := _sentence(what, wanted, error, gate)) is None:
            raise
        raise DataError(sentence) from error
    path = Path(found)
    sha256, size_bytes = file_digest(path), path.stat().st_size
    if facts.etag and re.fullmatch(r"[0-9a-f]{64}", facts.etag) and facts.etag != sha256:
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(
            f"{what} has sha256 {sha256}, expected {facts.etag} (the hub): it was damaged on the way; run again"
        )
    return path, sha256, size_bytes


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
        return f"{what} is not there; correct the hub path in the data set's YAML, {elsewhere}"
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
