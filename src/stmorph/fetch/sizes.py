"""Asks servers how large files are that the YAML gives no size of. What does not answer stays unknown."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from .gates import token_at_hand
from .source import Source

_PATIENCE_S = 10.0
_AT_ONCE = 8


def sizes_of(sources: Iterable[Source]) -> dict[str, int]:
    """Return path -> size in bytes, of the files whose size is known or told by their server.

    Nothing is transferred. A host that cannot be reached is asked once, so that the list comes soon without a network.
    """
    sources = list(sources)
    known = {source.path: source.size_bytes for source in sources if source.size_bytes is not None}
    asked = [source for source in sources if source.path not in known and source.transferred]
    silent: set[str] = set()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told = list(pool.map(lambda source: _ask(source, silent), asked))
    return known | {source.path: size for source, size in zip(asked, told) if size is not None}


def _ask(source: Source, silent: set[str]) -> int | None:
    import httpx
    import huggingface_hub as hub

    token = None if source.gate is None else token_at_hand(source.gate)
    if source.hub is not None:
        wanted, endpoint = source.hub, os.environ.get("HF_ENDPOINT") or None
        url = hub.hf_hub_url(
            wanted.repo, wanted.file, repo_type=wanted.kind, revision=wanted.revision, endpoint=endpoint
        )
    else:
        url = source.url
    try:
        host = httpx.URL(url).host
        if host in silent:
            return None
        if source.hub is not None:
            return hub.get_hf_file_metadata(url, token=token, endpoint=endpoint, timeout=_PATIENCE_S).size
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
        answer = httpx.head(url, headers=headers, follow_redirects=True, timeout=_PATIENCE_S)
    except Exception as error:  # the list is told all the same; a transfer would say what is wrong
        if "Connect" in type(error).__name__:
            silent.add(host)
        return None
    length = answer.headers.get("content-length", "")
    return int(length) if answer.status_code == 200 and length.isdecimal() and int(length) > 0 else None
