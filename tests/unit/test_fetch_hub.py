"""Files of Hugging Face repositories, through the hub's own client against a local hub."""

import hashlib

import pytest
from hub_server import COMMIT, FILES, NEXT, SLIDE, serving

from stmorph.errors import DataError
from stmorph.fetch import fetch
from stmorph.fetch.lock import LOCK_NAME, read_lock
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


def test_damage_is_found_by_the_hubs_own_digest(hub, tmp_path):
    hub.damage = True
    sentence = refused(tmp_path, "wsis/TENX1.tif")
    right = hashlib.sha256(SLIDE).hexdigest()
    wrong = hashlib.sha256(SLIDE[:-1] + b"!").hexdigest()
    assert right in sentence and wrong in sentence and "damaged" in sentence


def test_leftovers_of_a_killed_run_are_removed(hub, tmp_path):
    folder = tmp_path / "data/wsis/.TENX1.tif.hub"
    folder.mkdir(parents=True)
    (folder / "x.incomplete").write_bytes(b"x" * 100)
    path = get(tmp_path, "wsis/TENX1.tif")
    assert path.read_bytes() == SLIDE and not folder.exists()


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
    assert "at the first download" in sentence and "revision" in sentence


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
        ({"file": "wsis/TENX9.tif"}, "is not there; correct the hub path"),
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
