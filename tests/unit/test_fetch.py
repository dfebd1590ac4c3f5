"""The lock file of what was fetched, and files taken out of archives: whole or not at all, nowhere else."""

import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from stmorph.errors import DataError
from stmorph.fetch.archives import unpack
from stmorph.fetch.lock import read_lock, record
from stmorph.fetch.source import Source

# --- the lock file ----------------------------------------------------------------------------------------------------


def test_the_lock_holds_what_was_recorded_whatever_the_order(tmp_path):
    entries = [(f"https://x/{name}", f"downloads/{name}", name * 64, i) for i, name in enumerate("abc")]
    for lock, order in (("one.json", entries), ("two.json", entries[::-1])):
        for address, path, sha256, size_bytes in order:
            record(tmp_path / lock, address, path, sha256, size_bytes)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert read_lock(tmp_path / "one.json")["https://x/b"] == {
        "path": "downloads/b",
        "sha256": "b" * 64,
        "size_bytes": 1,
    }


def test_many_processes_record_at_once(tmp_path):
    lock = tmp_path / "lock.json"
    command = (
        "import sys; from pathlib import Path; from stmorph.fetch.lock import record\n"
        "for i in range(20): record(Path(sys.argv[1]), f'{sys.argv[2]}/{i}', 'p', 'd', i)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", command, str(lock), str(n)], env=environment) for n in range(3)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(read_lock(lock)) == 60


@pytest.mark.parametrize("content", ["{", "[]", '{"https://x": {"path": "y"}}', '{"https://x": "y"}'])
def test_a_damaged_lock_is_told(tmp_path, content):
    (tmp_path / "lock.json").write_text(content)
    with pytest.raises(DataError, match=r"lock\.json"):
        read_lock(tmp_path / "lock.json")


def test_a_lock_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "downloads").write_text("a file")
    with pytest.raises(DataError, match=r"downloads/lock\.json could not be written"):
        record(tmp_path / "downloads/lock.json", "https://x", "p", "d", 1)


def test_no_lock_is_an_empty_one(tmp_path):
    assert read_lock(tmp_path / "lock.json") == {}


# --- archives ---------------------------------------------------------------------------------------------------------

FILES = {
    "outs/counts.h5": random.Random(0).randbytes(200_000),
    "outs/empty.txt": b"",
    "outs/spatial/positions.csv": random.Random(1).randbytes(200_000),
}


def tar_of(path, mode="w", files=FILES, prefix=""):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def zip_of(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


KINDS = {
    "tar": lambda path: tar_of(path),
    "tar.gz": lambda path: tar_of(path, "w:gz"),
    "tar.bz2": lambda path: tar_of(path, "w:bz2"),
    "tar.xz": lambda path: tar_of(path, "w:xz"),
    "tar with ./": lambda path: tar_of(path, "w:gz", prefix="./"),
    "zip": zip_of,
}


def wanted(tmp_path, *names, **more):
    return [Source(str(tmp_path / "out" / name), member=name, **more) for name in names]


def out(tmp_path):
    return {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if not path.is_dir()
    }


def refused(tmp_path, archive, *names, **more):
    with pytest.raises(DataError) as error:
        unpack(archive, wanted(tmp_path, *names, **more))
    assert out(tmp_path) == set(), "something was left"
    sentence = str(error.value)
    assert str(archive) in sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("kind", KINDS)
def test_members_arrive_whatever_the_archive_is_called(tmp_path, kind):
    archive = KINDS[kind](tmp_path / "archive")
    unpack(archive, wanted(tmp_path, *FILES))
    assert out(tmp_path) == set(FILES)
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in FILES.items())


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_wanted_is_written(tmp_path, kind):
    archive = KINDS[kind](tmp_path / "archive")
    unpack(archive, [Source(str(tmp_path / "out/here.csv"), member="outs/spatial/positions.csv")])
    assert out(tmp_path) == {"here.csv"}


def test_one_member_for_two_files(tmp_path):
    archive = tar_of(tmp_path / "a.tar")
    unpack(archive, [Source(str(tmp_path / "out" / name), member="outs/counts.h5") for name in ("x", "y")])
    assert (tmp_path / "out/x").read_bytes() == (tmp_path / "out/y").read_bytes() == FILES["outs/counts.h5"]


@pytest.mark.parametrize("member", [None, "table.csv"])
def test_a_packed_file(tmp_path, member):
    archive = tmp_path / "table.csv.gz"
    archive.write_bytes(gzip.compress(b"a,b\n" * 1000))
    unpack(archive, [Source(str(tmp_path / "out/table.csv"), member=member)])
    assert (tmp_path / "out/table.csv").read_bytes() == b"a,b\n" * 1000


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_missing_member_names_near_ones_and_nothing_is_written(tmp_path, kind):
    archive = KINDS[kind](tmp_path / "archive")
    sentence = refused(tmp_path, archive, "outs/counts.h5", "out/spatial/positons.csv")
    assert "no member out/spatial/positons.csv" in sentence and "outs/spatial/positions.csv" in sentence
    assert "near names: outs/empty.txt" in refused(tmp_path, archive, "other/empty.txt")


def test_an_archive_of_several_files_needs_a_member(tmp_path):
    with pytest.raises(DataError, match="no member is named; it holds outs/counts"):
        unpack(tar_of(tmp_path / "a.tar"), [Source(str(tmp_path / "out/x"))])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"size_bytes": 3}, "expected 3"),
        ({"sha256": "0" * 64}, f"expected {'0' * 64}"),
        ({"md5": "0" * 32}, f"expected {'0' * 32}"),
    ],
)
def test_another_member_than_expected(tmp_path, more, said):
    sentence = refused(tmp_path, tar_of(tmp_path / "a.tar"), "outs/counts.h5", **more)
    assert said in sentence
    for kind in {"sha256", "md5"} & more.keys():
        assert hashlib.new(kind, FILES["outs/counts.h5"]).hexdigest() in sentence


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "./" not in kind])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_cut_archive_leaves_nothing(tmp_path, kind, share):
    content = KINDS[kind](tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(content[: int(share * len(content))])
    refused(tmp_path, tmp_path / "archive", *FILES)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_damaged_archive_leaves_nothing(tmp_path, kind):
    content = bytearray(KINDS[kind](tmp_path / "archive").read_bytes())
    for place in range(2000, 2040):
        content[place] ^= 0xFF
    (tmp_path / "archive").write_bytes(content)
    assert "damaged" in refused(tmp_path, tmp_path / "archive", *FILES)


def test_no_archive_at_all(tmp_path):
    (tmp_path / "page.zip").write_text("<html>please log in</html>")
    assert "no archive that can be read" in refused(tmp_path, tmp_path / "page.zip", "x")
    assert "cannot be read" in refused(tmp_path, tmp_path / "absent.zip", "x")


@pytest.mark.parametrize("name", ["../../escaped.txt", "/tmp/stmorph-escaped.txt", "outs/../../escaped.txt"])
@pytest.mark.parametrize("write", [tar_of, zip_of])
def test_names_that_lead_elsewhere_reach_nothing(tmp_path, name, write):
    """Such a member is as good as absent, and the others still arrive at their own places."""
    (tmp_path / "deep").mkdir()
    archive = write(tmp_path / "deep/archive", files={name: b"x", **FILES})
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    unpack(archive, wanted(tmp_path, "outs/counts.h5"))
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert after - before == {tmp_path / "out/outs/counts.h5"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_folders_are_no_files(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("outs/counts.h5")
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry)
    assert "folder or a link" in refused(tmp_path, tmp_path / "a.tar", "outs/counts.h5")


def test_a_link_in_a_zip_is_no_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("counts.h5")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    assert "folder or a link" in refused(tmp_path, tmp_path / "a.zip", "counts.h5")


@pytest.mark.parametrize("seed", range(2))
def test_killed_while_unpacking_and_then_finished(tmp_path, seed):
    """SIGKILL at a random moment; the next run ends with the same bytes and leaves nothing of the killed one."""
    archive = tar_of(tmp_path / "a.tar.gz", "w:gz", {**FILES, "outs/large.bin": random.Random(1).randbytes(4_000_000)})
    names = [*FILES, "outs/large.bin"]
    command = (
        "import sys, json; from stmorph.fetch import archives; from stmorph.fetch.source import Source\n"
        "archives._BLOCK = 2000\n"
        "archives.unpack(sys.argv[1], [Source(one[0], member=one[1]) for one in json.loads(sys.argv[2])])"
    )
    targets = [[source.path, source.member] for source in wanted(tmp_path, *names)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", command, str(archive), json.dumps(targets)], env=environment)
    while process.poll() is None and not list((tmp_path / "out").rglob(".partial-*-large.bin")):
        time.sleep(0.001)
    time.sleep(random.Random(seed).uniform(0, 0.01))
    process.send_signal(signal.SIGKILL)
    process.wait()
    unpack(archive, wanted(tmp_path, *names))
    assert out(tmp_path) == set(names)
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in FILES.items())
