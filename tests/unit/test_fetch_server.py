"""Transfers from a server with the faults of real ones: the right bytes arrive, or one sentence says why not."""

import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from fetch_server import BODY, serving

from stmorph.errors import DataError
from stmorph.fetch import Patience, fetch
from stmorph.fetch.lock import LOCK_NAME, read_lock, record
from stmorph.fetch.sizes import sizes_of
from stmorph.fetch.source import Gate, Source

SHA, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()
BRISK = Patience(attempts=3, pause_s=0.01, longest_pause_s=0.02, stall_s=0.5, connect_s=0.5, slow_s=0.2)


@pytest.fixture
def site():
    with serving() as site:
        yield site


def get(tmp_path, site, page="good", patience=BRISK, **more):
    """Fetch a page to `tmp_path/data/file.bin`; return the path."""
    url = page if "://" in page else f"{site.url}/{page}"
    path = tmp_path / "data" / "file.bin"
    fetch(Source(str(path), url=url, **more), tmp_path, patience=patience)
    return path


def beside(tmp_path):
    """Return what lies beside the fetched file."""
    folder = tmp_path / "data"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def refused(tmp_path, site, page, **more):
    with pytest.raises(DataError) as error:
        get(tmp_path, site, page, **more)
    assert not (tmp_path / "data/file.bin").exists()
    sentence = str(error.value)
    assert "\n" not in sentence and "file.bin" in sentence
    return sentence


# --- good ones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["good", "moved", "chunked", "packed.gz"])
@pytest.mark.parametrize("more", [{}, {"sha256": SHA, "size_bytes": len(BODY)}])
def test_good(site, tmp_path, page, more):
    assert get(tmp_path, site, page, **more).read_bytes() == BODY
    assert beside(tmp_path) == ["file.bin"]


def test_a_published_md5_is_checked_and_the_sha256_noted_all_the_same(site, tmp_path):
    assert get(tmp_path, site, md5=MD5).read_bytes() == BODY
    assert read_lock(tmp_path / LOCK_NAME)[f"{site.url}/good"]["sha256"] == SHA
    sentence = refused(tmp_path / "other", site, "good", md5="0" * 32)
    assert MD5 in sentence and "0" * 32 in sentence and "md5" in sentence
    assert not (tmp_path / "other" / LOCK_NAME).exists() and beside(tmp_path / "other") == []


def test_a_published_md5_does_not_free_from_the_lock(site, tmp_path):
    record(tmp_path / LOCK_NAME, f"{site.url}/good", "x", "1" * 64, 1)
    sentence = refused(tmp_path, site, "good", md5=MD5)
    assert SHA in sentence and "1" * 64 in sentence and "at the first download" in sentence


def test_an_md5_allows_to_go_on_where_the_server_names_no_state(site, tmp_path):
    assert get(tmp_path, site, "cut_no_names", md5=MD5).read_bytes() == BODY
    assert site.ranges("/cut_no_names") == [None, "bytes=1200000-"]


def test_a_mirror_takes_over(site, tmp_path):
    mirrors = (f"{site.url}/down", f"{site.url}/wrong", f"{site.url}/good")
    assert get(tmp_path, site, "absent", mirrors=mirrors, sha256=SHA).read_bytes() == BODY
    assert [path for path, *_ in site.asked] == ["/absent", *["/down"] * BRISK.attempts, "/wrong", "/good"]


def test_the_lock_goes_by_the_first_address_also_when_a_mirror_gave_the_file(site, tmp_path):
    get(tmp_path, site, "absent", mirrors=(f"{site.url}/good",))
    assert read_lock(tmp_path / LOCK_NAME)[f"{site.url}/absent"]["sha256"] == SHA


def test_servers_are_asked_for_sizes_and_nothing_is_transferred(site):
    pages = {"good": None, "absent": None, "slow": 7}
    sources = [Source(page, url=f"{site.url}/{page}", size_bytes=size) for page, size in pages.items()]
    sources += [Source("nobody", url="http://127.0.0.1:1/x"), Source("odd", url="http://x:port/x"), Source("on disk")]
    assert sizes_of(sources) == {"good": len(BODY), "slow": 7}
    assert site.asked == []


# --- broken connections -----------------------------------------------------------------------------------------------


def test_a_cut_transfer_goes_on(site, tmp_path):
    assert get(tmp_path, site, "cut", sha256=SHA).read_bytes() == BODY
    asked = [entry[1:3] for entry in site.asked]
    assert asked == [(None, None), ("bytes=1200000-", '"v1"'), ("bytes=2400000-", '"v1"')]
    assert beside(tmp_path) == ["file.bin"]


def test_a_server_without_ranges_starts_anew(site, tmp_path):
    assert get(tmp_path, site, "cut_no_ranges").read_bytes() == BODY
    assert len(site.asked) == 3


def test_without_a_name_for_the_state_only_a_digest_allows_to_go_on(site, tmp_path):
    assert get(tmp_path, site, "cut_no_names").read_bytes() == BODY
    assert site.ranges("/cut_no_names") == [None, None]
    (tmp_path / "data/file.bin").unlink()
    site.asked.clear()
    assert get(tmp_path, site, "cut_no_names", sha256=SHA).read_bytes() == BODY
    assert site.ranges("/cut_no_names") == [None, "bytes=1200000-"]


@pytest.mark.parametrize("page", ["changing", "changing_unheeded"])
def test_a_file_that_changes_on_the_way_is_not_mixed(site, tmp_path, page):
    assert get(tmp_path, site, page).read_bytes() == BODY[::-1]


def test_another_range_than_asked_for_is_not_appended(site, tmp_path):
    assert get(tmp_path, site, "wrong_range").read_bytes() == BODY


def test_a_stalled_stream_is_broken_off_and_goes_on(site, tmp_path):
    assert get(tmp_path, site, "silent").read_bytes() == BODY
    assert site.ranges("/silent") == [None, "bytes=1200000-"]


@pytest.mark.parametrize(
    ("page", "said"),
    [("mute", "ReadTimeout"), ("trickle", "bytes came in"), ("cut_chunked", "RemoteProtocolError"), ("down", "500")],
)
def test_attempts_without_progress_are_bounded(site, tmp_path, page, said):
    sentence = refused(tmp_path, site, page)
    assert f"broke off {BRISK.attempts} times in a row" in sentence and said in sentence
    assert len(site.asked) == BRISK.attempts


def test_a_server_that_never_gets_further_is_given_up(site, tmp_path):
    """It gives the same first part each time: progress once, none after it."""
    assert "in a row" in refused(tmp_path, site, "cut_always")
    assert len(site.asked) == 1 + BRISK.attempts
    assert beside(tmp_path) == [".file.bin.partial", ".file.bin.partial.json"]


def test_what_has_arrived_is_kept_for_the_next_run(site, tmp_path):
    once = Patience(attempts=1, stall_s=0.5)
    refused(tmp_path, site, "silent", patience=Patience(attempts=0, stall_s=0.2))
    assert (tmp_path / "data/.file.bin.partial").stat().st_size == 1_200_000
    assert get(tmp_path, site, "silent", patience=once).read_bytes() == BODY
    assert [entry[1:3] for entry in site.asked] == [(None, None), ("bytes=1200000-", '"v1"')]


def test_a_damaged_part_of_an_earlier_run_is_found_and_fetched_anew(site, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / ".file.bin.partial").write_bytes(b"?" * 5000)
    assert get(tmp_path, site, sha256=SHA).read_bytes() == BODY
    assert site.ranges("/good") == ["bytes=5000-", None]


@pytest.mark.parametrize("known", [{}, {"sha256": SHA}, {"size_bytes": len(BODY)}])
def test_a_kill_between_the_last_byte_and_the_check(site, tmp_path, known):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / ".file.bin.partial").write_bytes(BODY)
    (folder / ".file.bin.partial.json").write_text(f'{{"url": "{site.url}/good", "validator": "\\"v1\\""}}')
    assert get(tmp_path, site, **known).read_bytes() == BODY
    assert None not in site.ranges("/good"), "the whole file was sent again"


def test_busy_servers_are_asked_again(site, tmp_path):
    assert get(tmp_path, site, "busy").read_bytes() == BODY
    assert len(site.asked) == 3


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_a_random_moment_and_then_finished(site, tmp_path, seed):
    """SIGKILL while bytes come in; the next run asks for the rest only and ends with the same bytes."""
    path = tmp_path / "data/file.bin"
    command = (
        "import sys; from stmorph.fetch import fetch; from stmorph.fetch.source import Source; "
        "fetch(Source(sys.argv[1], url=sys.argv[2]), sys.argv[3])"
    )
    at = random.Random(seed).randrange(50_000, len(BODY) - 500_000)
    partial = path.with_name(".file.bin.partial")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(path), f"{site.url}/slow", str(tmp_path)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (partial.exists() and partial.stat().st_size >= at):
        time.sleep(0.001)
    assert process.poll() is None, "it was to be killed on the way"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists() and not (tmp_path / LOCK_NAME).exists()
    held = partial.stat().st_size
    assert get(tmp_path, site, "slow").read_bytes() == BODY
    assert site.ranges("/slow") == [None, f"bytes={held}-"]
    assert beside(tmp_path) == ["file.bin"]


def test_two_processes_do_not_write_one_file(site, tmp_path):
    from stmorph.fetch.partial import Partial

    (tmp_path / "data").mkdir()
    with Partial(tmp_path / "data/file.bin"):
        assert "another process" in refused(tmp_path, site, "good")
    assert get(tmp_path, site).read_bytes() == BODY


# --- lies -------------------------------------------------------------------------------------------------------------


def test_wrong_bytes_name_both_digests_and_are_not_kept(site, tmp_path):
    wrong = hashlib.sha256(b"x" * len(BODY)).hexdigest()
    sentence = refused(tmp_path, site, "wrong", sha256=SHA)
    assert wrong in sentence and SHA in sentence and "the data set's YAML" in sentence
    assert beside(tmp_path) == []


@pytest.mark.parametrize(
    ("page", "more", "said"),
    [
        ("good", {"size_bytes": 17}, f"has {len(BODY):,} bytes, expected 17"),
        ("chunked", {"size_bytes": 17}, f"has {len(BODY):,} bytes, expected 17"),
        ("too_short", {"size_bytes": len(BODY)}, f"has {len(BODY) - 1000:,} bytes, expected {len(BODY):,}"),
        ("too_short", {"sha256": SHA}, SHA),
        ("too_long", {}, "in a row"),
        ("unasked_part", {}, "unasked"),
        ("empty", {}, "empty file"),
    ],
)
def test_wrong_lengths(site, tmp_path, page, more, said):
    assert said in refused(tmp_path, site, page, **more)


def test_a_file_that_changed_on_the_server_names_both_digests(site, tmp_path):
    get(tmp_path, site).unlink()
    site.body, site.etag = BODY[::-1], '"v2"'
    sentence = refused(tmp_path, site, "good")
    assert SHA in sentence and hashlib.sha256(BODY[::-1]).hexdigest() in sentence
    assert "sources.lock.json at the first download" in sentence
    site.body = BODY
    assert get(tmp_path, site).read_bytes() == BODY


def test_a_published_digest_goes_before_the_noted_one(site, tmp_path):
    record(tmp_path / LOCK_NAME, f"{site.url}/good", "file.bin", "0" * 64, 5)
    assert get(tmp_path, site, sha256=SHA).read_bytes() == BODY
    assert read_lock(tmp_path / LOCK_NAME)[f"{site.url}/good"]["sha256"] == SHA


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("absent", "404 Not Found"),
        ("gated", "403 Forbidden"),
        ("loop", "TooManyRedirects"),
        ("gopher://example/x", "cannot be asked"),
        ("http://x:port/x", "cannot be followed"),
        ("http://127.0.0.1:1/x", "ConnectError"),
    ],
)
def test_refusals_name_the_address_and_leave_nothing(site, tmp_path, page, said):
    sentence = refused(tmp_path, site, page)
    assert said in sentence and (page if "://" in page else f"{site.url}/{page}") in sentence
    assert beside(tmp_path) == []


GATE = Gate("https://example.org/terms", "TOY_TOKEN")


def test_a_gate_without_a_token_asks_nobody(site, tmp_path, monkeypatch):
    monkeypatch.delenv("TOY_TOKEN", raising=False)
    sentence = refused(tmp_path, site, "gated", gate=GATE)
    assert "https://example.org/terms" in sentence and "TOY_TOKEN" in sentence and site.asked == []


def test_a_gate_with_a_token_that_does_not_open_it(site, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_TOKEN", "other-token")
    sentence = refused(tmp_path, site, "gated", gate=GATE)
    assert "https://example.org/terms" in sentence and "TOY_TOKEN" in sentence and "403" in sentence
    assert "other-token" not in sentence


def test_a_gate_with_its_token(site, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_TOKEN", "good-token")
    assert get(tmp_path, site, "gated", gate=GATE).read_bytes() == BODY


def test_the_token_goes_to_its_own_host_only(site, tmp_path, monkeypatch):
    """Neither the host that a redirect leads to nor a mirror sees it."""
    monkeypatch.setenv("TOY_TOKEN", "good-token")
    get(tmp_path, site, "gated_elsewhere", gate=GATE)
    mirror = site.url.replace("127.0.0.1", "localhost") + "/good/mirror"
    get(tmp_path, site, "absent", gate=GATE, mirrors=(mirror,))
    seen = {path: token for path, _, _, token in site.asked}
    assert seen["/gated_elsewhere"] == seen["/absent"] == "Bearer good-token"
    assert seen["/good/elsewhere"] is None and seen["/good/mirror"] is None


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_no_room_is_told_before_the_transfer(site, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    sentence = refused(tmp_path, site, "good")
    assert f"{len(BODY):,} more bytes" in sentence and "1,000 left" in sentence
    assert beside(tmp_path) == []


def test_a_disk_that_fills_keeps_what_has_arrived(site, tmp_path):
    """A limit on the size of a file stands for the full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        sentence = refused(tmp_path, site, "good")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "could not be written" in sentence and "are kept" in sentence
    assert get(tmp_path, site).read_bytes() == BODY
    assert site.ranges("/good") == [None, "bytes=1000000-"]


def test_a_folder_that_cannot_be_made(site, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match="could not be written"):
        get(tmp_path, site)
    assert site.asked == []
