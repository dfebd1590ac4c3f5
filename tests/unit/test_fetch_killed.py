"""SIGKILL at every step of a transfer: the next run ends with the same bytes, a true lock file, and nothing beside."""

import hashlib
import io
import os
import signal
import tarfile
from pathlib import Path

import hub_server
import pytest
from fetch_server import BODY, serving

import stmorph.fetch
from stmorph.fetch import archives, fetch
from stmorph.fetch.archives import unpack
from stmorph.fetch.lock import LOCK_NAME, read_lock
from stmorph.fetch.partial import Partial
from stmorph.fetch.source import HubFile, Source

MOMENTS = [
    (Partial, "belongs_to", 1, "before"),
    (Partial, "write", 1, "before"),
    (Partial, "write", 20, "after"),
    (stmorph.fetch, "record", 1, "before"),
    (stmorph.fetch, "record", 1, "after"),
    (Partial, "finish", 1, "before"),
    (Path, "replace", 1, "before"),  # of the lock file
    (Path, "replace", 2, "before"),  # of the file itself
    (Path, "replace", 2, "after"),  # its note is still there
    (Partial, "finish", 1, "after"),
]


def killed(work, owner, name, count, when):
    """Do some work in a process that is killed before or after the `count`-th call of a function."""
    child = os.fork()
    if child == 0:
        inner, calls = getattr(owner, name), 0

        def outer(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == count and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = inner(*args, **kwargs)
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, outer)
        try:
            work()
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "it came to its end"


def beside(path):
    return sorted(one.name for one in path.parent.iterdir())


def check(path, content, lock, address):
    assert path.read_bytes() == content and beside(path) == [path.name]
    assert read_lock(lock)[address]["sha256"] == hashlib.sha256(content).hexdigest()
    assert [one.name for one in lock.parent.iterdir() if "partial" in one.name] == []


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda one: f"{one[3]} {one[1]} {one[2]}")
def test_a_plain_file(tmp_path, moment):
    path = tmp_path / "data/file.bin"
    with serving() as site:
        source = Source(str(path), url=f"{site.url}/good")
        killed(lambda: fetch(source, tmp_path), *moment)
        assert not path.exists() or path.read_bytes() == BODY
        fetch(source, tmp_path)
    check(path, BODY, tmp_path / LOCK_NAME, source.address)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda one: f"{one[3]} {one[1]} {one[2]}")
def test_a_file_of_the_hub(tmp_path, moment, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)
    path = tmp_path / "data/weights.bin"
    source = Source(str(path), hub=HubFile("owner/hest", "main", "dataset", "wsis/TENX1.tif"))
    with hub_server.serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        killed(lambda: fetch(source, tmp_path), *moment)
        assert not path.exists() or path.read_bytes() == hub_server.SLIDE
        fetch(source, tmp_path)
    check(path, hub_server.SLIDE, tmp_path / LOCK_NAME, source.address)


@pytest.mark.parametrize(
    "moment",
    [
        (archives._Wanted, "offer", 1, "before"),
        (hashlib, "md5", 2, "after"),  # the second member is being read
        (archives._Wanted, "offer", 2, "after"),
        (Path, "replace", 1, "before"),
        (Path, "replace", 1, "after"),  # the one is in its place, the other is not
        (Path, "replace", 2, "after"),
    ],
    ids=lambda one: f"{one[3]} {one[1]} {one[2]}",
)
def test_members_of_an_archive(tmp_path, moment):
    members = {"one.bin": BODY[:300_000], "two.bin": BODY[7:900_000]}
    with tarfile.open(tmp_path / "outs.tar.gz", "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    sources = [Source(str(tmp_path / "out" / name), member=name) for name in members]
    killed(lambda: unpack(tmp_path / "outs.tar.gz", sources), *moment)
    for name, content in members.items():
        found = tmp_path / "out" / name
        assert not found.exists() or found.read_bytes() == content
    unpack(tmp_path / "outs.tar.gz", sources)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == members
