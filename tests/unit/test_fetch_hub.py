"""Files of Hugging Face repositories, through the hub's own client against a local hub."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from hub_server import COMMIT, FILES, NEXT, SLIDE, serving

from stmorph.errors import DataError
from stmorph.fetch import fetch
from stmorph.fetch.lock import LOCK_NAME, read_lock
from stmorph.fetch.partial import Partial
from stmorph.fetch.sizes import sizes_of
from stmorph.fetch.source import Gate, HubFile, Source

PAGE = "https://example.org/owner/hest"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that the environment names, and a user without a login."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TOY_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-login"))
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def get(tmp_path, file, repo="owner/hest", kind="dataset", revision="main", **more):
    path = tmp_path / "data" / file
    fetch(Source(str(path), hub=HubFile(repo, revision, kind, file), **more), tmp_path)
    return path


def refused(tmp_path, file, **more):
    with pytest.raises(DataError) as error:
        get(tmp_path, file, **more)
    folder = (tmp_path / "data" / file).parent
    assert not folder.exists() or [path.name for path in folder.iterdir()] == []
    sentence = str(error.value)
    assert "\n" not in sentence and file in sentence
    return sentence


@pytest.mark.parametrize(
    ("kind", "repo", "file"), [(kind, repo, file) for (kind, repo), files in FILES.items() for file in files]
)
def test_every_file_of_a_data_set_and_of_weights(hub, tmp_path, kind, repo, file):
    path = get(tmp_path, file, repo, kind)
    content = FILES[kind, repo][file]
    assert path.read_bytes() == content
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    noted = read_lock(tmp_path / LOCK_NAME)[f"hub:{kind}:{repo}@main/{file}"]
    assert noted["sha256"] == hashlib.sha256(content).hexdigest() and noted["size_bytes"] == len(content)


@pytest.mark.parametrize(("kind", "repo"), list(FILES))
def test_the_client_takes_this_server_for_a_hub(hub, tmp_path, kind, repo):
    """Whole repositories come too, so the files above were served as a hub serves them."""
    from huggingface_hub import snapshot_download

    folder = snapshot_download(repo, repo_type=kind, local_dir=tmp_path / "snapshot", endpoint=hub.url)
    assert folder == str(tmp_path / "snapshot")
    for file, content in FILES[kind, repo].items():
        assert (tmp_path / "snapshot" / file).read_bytes() == content


def test_a_commit_is_asked_for_as_such(hub, tmp_path):
    assert get(tmp_path, "wsis/TENX1.tif", revision=COMMIT).read_bytes() == SLIDE
    assert all("main" not in path for _, path, *_ in hub.asked)


def test_the_hub_is_asked_for_sizes(hub, monkeypatch):
    def sizes(file):
        source = Source("x", hub=HubFile("owner/hest", "main", "dataset", file), gate=Gate(PAGE, "TOY_TOKEN"))
        return sizes_of([source])

    hub.token = "good-token"
    assert sizes("wsis/TENX1.tif") == {}
    monkeypatch.setenv("TOY_TOKEN", "good-token")
    assert sizes("wsis/TENX1.tif") == {"x": len(SLIDE)} and sizes("absent") == {}
    assert all(path.startswith("/datasets") for _, path, *_ in hub.asked), "it was transferred"


def test_a_cut_connection_goes_on(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)  # it goes on from whole chunks
    hub.cut = 1
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == SLIDE
    half = len(SLIDE) // 2
    assert [asked for _, path, asked, _ in hub.asked if path.startswith("/store/")] == [None, f"bytes={half}-"]


@pytest.mark.parametrize(("cut_at", "goes_on"), [(2, True), (10, False)])
def test_an_address_that_expires_on_the_way_is_asked_for_anew_while_something_comes(
    hub, tmp_path, monkeypatch, cut_at, goes_on
):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    content = SLIDE * 3
    hub.files["dataset", "owner/hest"]["wsis/TENX1.tif"] = content
    hub.cut, hub.share, hub.expired = 1, cut_at, [False, True]
    if not goes_on:
        assert "the hub answered 403" in refused_with_a_part(tmp_path)
        return
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == content
    part = len(content) // cut_at // 1024 * 1024
    asked = [asked for _, path, asked, _ in hub.asked if path.startswith("/store/")]
    assert asked == [None, f"bytes={part}-", f"bytes={part}-"]


def refused_with_a_part(tmp_path):
    with pytest.raises(DataError) as error:
        get(tmp_path, "wsis/TENX1.tif")
    assert (tmp_path / "data/wsis/.TENX1.tif.partial").exists()
    return str(error.value)


def test_damage_is_found_by_the_hubs_own_digest(hub, tmp_path):
    hub.damage = True
    sentence = refused(tmp_path, "wsis/TENX1.tif")
    right = hashlib.sha256(SLIDE).hexdigest()
    wrong = hashlib.sha256(SLIDE[:-1] + b"!").hexdigest()
    assert right in sentence and wrong in sentence and "damaged" in sentence


KILLED = """
import sys
from huggingface_hub import constants
from stmorph.fetch import fetch
from stmorph.fetch.source import HubFile, Source
constants.DOWNLOAD_CHUNK_SIZE = 10_000  # so much is lost at most
fetch(Source(sys.argv[1], hub=HubFile("owner/hest", "main", "dataset", "wsis/TENX1.tif")), sys.argv[2])
"""


def test_a_killed_transfer_goes_on_where_it_was(hub, tmp_path):
    path = tmp_path / "data/wsis/TENX1.tif"
    partial = path.with_name(".TENX1.tif.partial")
    hub.stop_at = len(SLIDE) // 2
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), str(tmp_path)], env=environment)
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > len(SLIDE) // 3):
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.stop_at = None
    held = partial.stat().st_size
    assert 0 < held < len(SLIDE) and not path.exists()
    hub.asked.clear()
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == SLIDE
    assert [asked for _, path, asked, _ in hub.asked if path.startswith("/store/")] == [f"bytes={held}-"]
    assert hub.served == len(SLIDE) - held
    assert [path.name for path in partial.parent.iterdir()] == ["TENX1.tif"]


@pytest.fixture
def half(hub, tmp_path):
    """Half of a file, as a killed process leaves it."""
    with Partial(tmp_path / "data/wsis/TENX1.tif") as partial:
        partial.write(SLIDE[: len(SLIDE) // 2])
        address = f"{hub.url}/datasets/owner/hest/resolve/main/wsis/TENX1.tif"
        partial.belongs_to(address, hub.etag("wsis/TENX1.tif", SLIDE))
    assert partial.file_path.stat().st_size == len(SLIDE) // 2
    return partial.file_path


def test_the_half_is_gone_on_from(hub, half, tmp_path):
    """What the tests below change is what makes the difference."""
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == SLIDE and hub.served == len(SLIDE) - len(SLIDE) // 2


def test_a_part_of_another_state_is_not_gone_on_from(hub, half, tmp_path):
    hub.files["dataset", "owner/hest"]["wsis/TENX1.tif"] = SLIDE[::-1]
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == SLIDE[::-1]
    assert hub.served == len(SLIDE) and not half.exists()


def test_a_part_that_was_damaged_on_disk_is_noticed_and_fetched_anew(hub, half, tmp_path):
    with half.open("r+b") as file:
        file.write(b"?")
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == SLIDE and hub.served == len(SLIDE)


def test_a_server_without_ranges_starts_anew(hub, half, tmp_path):
    hub.ranges = False
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == SLIDE and hub.served == len(SLIDE)


def test_what_the_hub_gives_by_its_own_protocol_only_is_left_to_its_client(hub, tmp_path, monkeypatch):
    """And what a killed process left of such a file goes."""
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 1_000)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", own_protocol)
    folder = tmp_path / "data/wsis/.TENX1.tif.hub"
    folder.mkdir(parents=True)
    (folder / "x.incomplete").write_bytes(b"x" * 100)
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == SLIDE
    assert [path.name for path in folder.parent.iterdir()] == ["TENX1.tif"]


def own_protocol(url, temp_file, *, headers, expected_size, **_):
    """Stand in for what the client does with a large file."""
    temp_file.write(SLIDE)


def test_a_full_disk_keeps_what_has_arrived(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(DataError, match=r"could not be written .* are kept"):
            get(tmp_path, "wsis/TENX1.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert get(tmp_path, "wsis/TENX1.tif").read_bytes() == SLIDE
    assert [asked for _, path, asked, _ in hub.asked if path.startswith("/store/")] == [None, "bytes=1000000-"]


@pytest.mark.parametrize(("more", "said"), [({"sha256": "0" * 64}, "0" * 64), ({"size_bytes": 7}, "expected 7")])
def test_another_file_than_published(hub, tmp_path, more, said):
    sentence = refused(tmp_path, "wsis/TENX1.tif", **more)
    assert said in sentence and "the data set's YAML" in sentence


def test_a_branch_that_moved_on_is_noticed(hub, tmp_path):
    get(tmp_path, "wsis/TENX1.tif").unlink()
    hub.files["dataset", "owner/hest"]["wsis/TENX1.tif"] = SLIDE[::-1]
    hub.commit = NEXT
    sentence = refused(tmp_path, "wsis/TENX1.tif")
    for content in (SLIDE, SLIDE[::-1]):
        assert hashlib.sha256(content).hexdigest() in sentence
    assert f"at the first download of commit {COMMIT}" in sentence and f"(commit {NEXT})" in sentence
    assert "name the revision" in sentence


def test_a_gate_without_a_token_asks_nobody(hub, tmp_path):
    hub.token = "good-token"
    sentence = refused(tmp_path, "wsis/TENX1.tif", gate=Gate(PAGE, "HF_TOKEN"))
    assert PAGE in sentence and "HF_TOKEN is not set" in sentence and hub.asked == []


@pytest.mark.parametrize("variable", ["HF_TOKEN", "TOY_TOKEN"])
def test_a_gate_opens_to_the_token_of_its_variable_and_the_store_never_sees_it(hub, tmp_path, monkeypatch, variable):
    hub.token = "good-token"
    monkeypatch.setenv(variable, "good-token")
    assert get(tmp_path, "wsis/TENX1.tif", gate=Gate(PAGE, variable)).read_bytes() == SLIDE
    assert {token for _, path, _, token in hub.asked if path.startswith("/store/")} == {None}


def test_a_login_of_the_client_counts(hub, tmp_path):
    hub.token = "good-token"
    (tmp_path / "no-login").write_text("good-token")
    assert get(tmp_path, "wsis/TENX1.tif", gate=Gate(PAGE, "HF_TOKEN")).read_bytes() == SLIDE


def test_a_token_whose_account_did_not_accept(hub, tmp_path, monkeypatch):
    hub.token = "good-token"
    monkeypatch.setenv("HF_TOKEN", "other-token")
    sentence = refused(tmp_path, "wsis/TENX1.tif", gate=Gate(PAGE, "HF_TOKEN"))
    assert PAGE in sentence and "HF_TOKEN" in sentence and "gated for this token" in sentence
    assert "other-token" not in sentence


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"file": "wsis/TENX9.tif"}, "is not there; correct its path or its revision"),
        ({"file": "model.bin", "repo": "owner/weights", "kind": "model"}, "correct the encoder's `file` or `revision`"),
        ({"file": "wsis/TENX1.tif", "repo": "owner/nest"}, "does not show this repository"),
        ({"file": "wsis/TENX1.tif", "revision": "v9"}, "no such revision"),
    ],
)
def test_what_is_not_there(hub, tmp_path, more, said):
    assert said in refused(tmp_path, **more)


def test_a_hub_that_cannot_be_reached(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert "could not be fetched" in refused(tmp_path, "wsis/TENX1.tif")


def test_a_hub_that_is_down(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.broken = 503
    assert "the hub answered 503" in refused(tmp_path, "wsis/TENX1.tif")
