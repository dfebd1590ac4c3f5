"""Where files come from, as a data set's YAML says it: origins, placeholders, gates, what nobody can get, the list."""

import copy
import json

import pytest
import yaml
from pydantic import ValidationError
from study import DATASET, study, write_config

from stmorph.config.dataset_schema import DatasetConfig, FileEntry
from stmorph.config.downloads import human
from stmorph.config.workflow import open_study
from stmorph.fetch.source import Gate, HubFile

SHA = "a" * 64
HUB = {"repo": "owner/tissue", "revision": "v1"}
GATE = {"page": "https://example.org/terms", "variable": "TOY_TOKEN"}


def dataset(**changes):
    """Return the toy data set, from disk or the network instead of drawn."""
    return {**copy.deepcopy(DATASET), "simulate": None, "gene_sets": {}, **changes}


def files(**roles):
    """Return the toy's files with a url each, some replaced."""
    return {role: {"path": path, "url": f"https://x/{path}"} for role, path in DATASET["files"].items()} | roles


@pytest.fixture
def workflow_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(content, **changes):
        if not (tmp_path / "config").exists():
            write_config(tmp_path, content)
        return open_study(study(**changes), tmp_path)

    return make


@pytest.fixture
def problems_of(workflow_of):
    def find(content, **changes):
        with pytest.raises(SystemExit) as left:
            opened = workflow_of(content, **changes)
            opened.at_hand(list(opened.missing))
        return [line.removeprefix("  - ") for line in str(left.value.code).splitlines()[1:]]

    return find


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"url": "https://x/y", "hub": "y"}, "url and hub both"),
        ({"url": "https://x/y", "archive": "a"}, "archive and url both"),
        ({"hub": "y", "archive": "a", "member": "y"}, "archive and hub both"),
        ({"mirrors": ["https://x/y"]}, "mirrors stand in for url"),
        ({"hub": "y", "mirrors": ["https://x/y"]}, "mirrors stand in for url"),
        ({"member": "y"}, "member is a path in an archive"),
        ({"archive": "a", "member": "../y"}, "stays below its folder"),
        ({"archive": "a", "member": "/y"}, "stays below its folder"),
        ({"hub": "../y"}, "stays below its folder"),
        ({"url": "ftp://x/y"}, "url"),
        ({"url": "https://x/y", "size_bytes": 0}, "size_bytes"),
        ({"url": "https://x/y", "sha256": "A" * 64}, "sha256"),
        ({"url": "https://x/y", "md5": "a" * 64}, "md5"),
        ({"url": "https://x/y", "url2": "https://x/y"}, "url2"),
    ],
)
def test_contradictions_of_a_file(entry, named):
    with pytest.raises(ValidationError, match=named):
        FileEntry(path="x", **entry)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x"])
def test_a_fetched_file_stays_below_downloads(path):
    with pytest.raises(ValidationError, match="stays below its folder"):
        FileEntry(path=path, url="https://x/y")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"files": files(image={"path": "x", "hub": "y"})}, "files.image.hub is a path in a repository"),
        ({"archives": {"a": {"path": "x", "hub": "y"}}}, "archives.a.hub is a path in a repository"),
        ({"archives": {"a": {"path": "x"}}}, "archives.a has neither url nor hub"),
        ({"files": files(), "unavailable": "private"}, "unavailable says .* files.counts says where from"),
        (
            {"slides": {"s1": {"patient": "P1", "unavailable": "private", "files": files()}}},
            "slides.s1.unavailable says .* slides.s1.files.counts says where from",
        ),
        (
            {"files": files(image={"path": "{slide}.tif", "url": "https://x/{slide}", "sha256": SHA})},
            "files.image.sha256 cannot be that of every slide",
        ),
        (
            {"files": files(image={"path": "{slide}.tif", "url": "https://x/{slide}", "md5": SHA[:32]})},
            "files.image.md5 cannot be that of every slide",
        ),
        (
            {"archives": {"a": {"path": "{slide}.zip", "url": "https://x/{slide}", "sha256": SHA}}},
            "archives.a.sha256 cannot be that of every slide",
        ),
        ({"gate": {"page": "example.org"}}, "page"),
        ({"gate": {**GATE, "variable": "my token"}}, "variable"),
        ({"hub": {"repo": "tissue"}}, "repo"),
        ({"hub": {**HUB, "kind": "space"}}, "kind"),
    ],
)
def test_contradictions_of_a_dataset(changes, named):
    with pytest.raises(ValidationError, match=named):
        DatasetConfig.model_validate(dataset(**changes))


def test_contradictions_are_told_with_their_place(problems_of):
    found = problems_of(dataset(files=files(image={"path": "x", "url": "https://x/y", "hub": "y"})))
    assert any(line.startswith("config/datasets/toy.yaml: files.image: url and hub both say") for line in found)


def test_an_unknown_archive_is_told(problems_of):
    content = dataset(
        files=files(image={"path": "x", "archive": "ots", "member": "y"}),
        archives={"outs": {"path": "o.zip", "url": "https://x/o.zip"}},
    )
    assert any("archive 'ots' is unknown; did you mean 'outs'?" in line for line in problems_of(content))


# --- sources ----------------------------------------------------------------------------------------------------------


def test_placeholders_are_filled_in_everywhere(workflow_of):
    content = dataset(
        hub=HUB,
        files={
            "counts": {"path": "{slide}/c.h5", "archive": "outs", "member": "{slide}/outs/c.h5", "size_bytes": 7},
            "positions": {"path": "{slide}.csv", "url": "https://x/{patient}", "mirrors": ["https://y/{slide}"]},
            "scalefactors": {"path": "{slide}.json", "archive": "of_{slide}", "member": "s.json"},
            "image": {"path": "{slide}.tif", "hub": "wsis/{slide}.tif", "size_bytes": 5},
        },
        archives={"outs": {"path": "{slide}.tar.gz", "url": "https://x/{slide}.tar.gz", "size_bytes": 9}}
        | {f"of_s{i}": {"path": f"s{i}.zip", "hub": f"s{i}.zip"} for i in (1, 2, 3)},
    )
    workflow = workflow_of(content)
    found = workflow.sources("toy", "s3")
    assert found["counts"].path == "downloads/toy/s3/c.h5" and found["counts"].member == "s3/outs/c.h5"
    assert found["counts"].archive.path == "downloads/toy/s3.tar.gz" and found["counts"].size_bytes == 7
    assert found["counts"].archive.url == "https://x/s3.tar.gz" and found["counts"].archive.size_bytes == 9
    assert found["positions"].url == "https://x/P2" and found["positions"].mirrors == ("https://y/s3",)
    assert found["scalefactors"].archive.hub == HubFile("owner/tissue", "v1", "dataset", "s3.zip")
    assert found["image"].hub == HubFile("owner/tissue", "v1", "dataset", "wsis/s3.tif")
    slides = ("s1", "s2", "s3")
    transferred = [f"downloads/toy/{slide}.{kind}" for slide in slides for kind in ("tar.gz", "csv", "zip", "tif")]
    assert sorted(workflow.fetched) == sorted(transferred)
    assert [(one.path, [member.path for member in one.members]) for one in workflow.archived] == [
        (f"downloads/toy/{slide}.{kind}", [f"downloads/toy/{slide}{member}"])
        for slide in slides
        for kind, member in (("tar.gz", "/c.h5"), ("zip", ".json"))
    ]


def test_below_data_root_nothing_is_fetched(workflow_of, tmp_path):
    content = dataset(files=files(counts={"path": "{slide}/counts.h5", "archive": "a", "member": "c"}), gate=GATE)
    content["archives"] = {"a": {"path": "a.zip", "url": "https://x/a.zip"}}
    for slide in ("s1", "s2", "s3"):
        (tmp_path / "data/toy" / slide).mkdir(parents=True)
        for path in DATASET["files"].values():
            (tmp_path / "data/toy" / path.format(slide=slide)).write_text("")
    workflow = workflow_of(content, data_root="data")
    assert workflow.fetched == {} and workflow.archived == []
    assert workflow.sources("toy", "s1")["counts"].path == "data/toy/s1/counts.h5"
    assert "data_root is data" in workflow.download_list(ask=False)


@pytest.mark.parametrize("hub", [None, HUB])
def test_the_token_of_the_hub_is_for_the_hub_alone(workflow_of, hub):
    content = dataset(gate=GATE, files=files())
    if hub:
        content |= {"hub": hub, "files": files(image={"path": "{slide}.tif", "hub": "{slide}.tif"})}
    found = workflow_of(content).sources("toy", "s1")
    gate = Gate(GATE["page"], GATE["variable"])
    assert found["image"].gate == gate
    assert found["counts"].gate == (None if hub else gate)


def test_two_files_in_one_place_are_told(problems_of):
    found = problems_of(dataset(files=files(image={"path": "same.tif", "url": "https://x/{slide}.tif"})))
    assert any(
        "downloads/toy/same.tif is fetched from https://x/s2.tif and from https://x/s1.tif" in one for one in found
    )


def test_one_file_of_several_slides_is_one(workflow_of):
    workflow = workflow_of(dataset(files=files(scalefactors={"path": "shared.json", "url": "https://x/shared.json"})))
    assert "downloads/toy/shared.json" in workflow.fetched and len(workflow.fetched) == 3 * 3 + 1


# --- what nobody can get ----------------------------------------------------------------------------------------------


def test_an_unavailable_dataset_tells_why_once_a_slide(problems_of):
    found = problems_of(dataset(unavailable="clinical data, not released"))
    assert found == [
        f"config/datasets/toy.yaml: slides.{slide}: not available: clinical data, not released; leave it out, or set "
        "data_root if you have the files"
        for slide in ("s1", "s2", "s3")
    ]


def test_an_unavailable_slide_goes_before_the_templates(problems_of):
    content = dataset(files=files())
    content["slides"]["s2"]["unavailable"] = "withdrawn"
    (line,) = problems_of(content)
    assert line.startswith("config/datasets/toy.yaml: slides.s2: not available: withdrawn")


def test_who_has_the_files_may_use_them(workflow_of, tmp_path):
    for slide in ("s1", "s2", "s3"):
        (tmp_path / "data/toy" / slide).mkdir(parents=True)
        for path in DATASET["files"].values():
            (tmp_path / "data/toy" / path.format(slide=slide)).write_text("")
    assert workflow_of(dataset(unavailable="private"), data_root="data").missing == {}


def test_what_is_missing_stops_the_job_that_needs_it_alone(workflow_of):
    workflow = workflow_of(dataset(unavailable="private", files=DATASET["files"]))
    made = {"scores": ["results/scores.parquet"], "one": "results/slide.h5ad"}
    assert workflow.at_hand(made) is made and workflow.at_hand([]) == []
    with pytest.raises(SystemExit, match=r"(?s)3 problems.*slides\.s1: not available: private.*slides\.s3: not"):
        workflow.at_hand({**made, "images": [workflow.source_paths("toy", "s2")["image"]]})
    # The scores themselves ask for no image and no counts.
    run = next(run for run in workflow.plan.runs if run.method == "ridge")
    assert workflow.at_hand(workflow.score_inputs(run))


# --- tiles without expression -----------------------------------------------------------------------------------------

SHARDS = {"reader": "spider", "files": {"image": "{slide}.tar", "part_01": "{slide}.tar.01"}, "gene_sets": {}}


@pytest.fixture
def shards(tmp_path):
    """A data set of tiles without expression beside the toy."""
    write_config(tmp_path, DATASET)
    (tmp_path / "config/datasets/shards.yaml").write_text(yaml.safe_dump(dataset(**SHARDS)))
    (tmp_path / "data/shards").mkdir(parents=True)
    for slide in ("s1", "s2", "s3"):
        for part in ("tar", "tar.01"):
            (tmp_path / f"data/shards/{slide}.{part}").write_text("")


def test_tiles_without_expression_make_stores_and_no_slides(shards, workflow_of):
    workflow = workflow_of(None, datasets=["toy", "shards"], data_root="data")
    _, files = workflow.targets["unpaired"]
    assert files[:2] == ["results/unpaired/shards/s1/tiles.npy", "results/unpaired/shards/s1/tiles.parquet"]
    assert len(files) == 6 and not any("shards" in file for file in workflow.targets["quality"][1])
    alone = {"splits": {}, "panels": {}, "tables": {}, "figures": {}, "papers": []}
    workflow = workflow_of(None, datasets=["shards"], data_root="data", **alone)
    assert list(workflow.targets) == ["unpaired"]


def test_no_split_can_be_of_tiles_without_expression(shards, problems_of):
    splits = {"of": {"dataset": "shards", "kind": "slides", "test": ["s1"]}, **study()["splits"]}
    (line,) = problems_of(None, datasets=["toy", "shards"], data_root="data", splits=splits)
    assert line.startswith("splits.of: dataset: 'shards' has tiles without expression") and "`unpaired`" in line


# --- digests of earlier downloads -------------------------------------------------------------------------------------


def lock(tmp_path, sha256):
    (tmp_path / "downloads/toy/s1").mkdir(parents=True)
    entry = {"path": "downloads/toy/s1/image.tif", "sha256": sha256, "size_bytes": 1}
    (tmp_path / "downloads/sources.lock.json").write_text(json.dumps({"https://x/s1/image.tif": entry}))


@pytest.mark.parametrize("present", [True, False])
def test_a_digest_that_is_published_later_is_held_against_what_was_fetched(workflow_of, problems_of, tmp_path, present):
    content = dataset(files=files())
    image = {"path": "{slide}/image.tif", "url": "https://x/{slide}/image.tif", "sha256": SHA}
    content["slides"]["s1"]["files"] = {"image": image}
    lock(tmp_path, "b" * 64)
    if not present:  # then the next transfer checks it
        workflow_of(content)
        return
    (tmp_path / "downloads/toy/s1/image.tif").write_text("x")
    (line,) = problems_of(content)
    assert SHA in line and "b" * 64 in line and "slides.s1.files.image" in line
    lock_file = tmp_path / "downloads/sources.lock.json"
    lock_file.write_text(lock_file.read_text().replace("b" * 64, SHA))
    workflow_of(content)


def test_a_damaged_lock_file_is_told(problems_of, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/sources.lock.json").write_text("{")
    (line,) = problems_of(dataset(files=files()))
    assert "sources.lock.json" in line


# --- the list ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "state"), [("x", "is set"), ("", "is not set")])
def test_the_list_tells_sizes_licence_gate_and_totals(workflow_of, tmp_path, monkeypatch, token, state):
    monkeypatch.setenv("TOY_TOKEN", token)
    content = dataset(
        gate=GATE,
        files=files(
            counts={"path": "{slide}/c.h5", "archive": "outs", "member": "{slide}/c.h5"},
            scalefactors={"path": "{slide}/s.json", "archive": "outs", "member": "{slide}/s.json"},
            image={"path": "{slide}.tif", "url": "https://x/{slide}.tif", "size_bytes": 2_500_000_000},
        ),
        archives={"outs": {"path": "outs.zip", "url": "https://x/o.zip", "size_bytes": 500_000}},
    )
    (tmp_path / "downloads/toy").mkdir(parents=True)
    (tmp_path / "downloads/toy/s1.tif").write_text("")
    told = workflow_of(content).download_list(ask=False)
    lines = {line.split("<-")[0].split()[-1]: line for line in told.splitlines() if "<-" in line}
    assert len(lines) == 3 + 3 + 1
    assert "2.5 GB" in lines["downloads/toy/s1.tif"] and "[there, no digest" in lines["downloads/toy/s1.tif"]
    assert "there" not in lines["downloads/toy/s2.tif"]
    assert "500 kB" in lines["downloads/toy/outs.zip"] and "6 files taken out" in lines["downloads/toy/outs.zip"]
    assert "size unknown" in lines["downloads/toy/s1/positions.csv"]
    assert "no digest published" in lines["downloads/toy/s1/positions.csv"]
    assert "licence: MIT (nobody)" in told
    assert f"https://example.org/terms; the token is looked for in TOY_TOKEN, which {state}" in told
    assert told.endswith("To fetch: 6 files, 5.0 GB and 3 of unknown size. Already there: 1.")


def test_the_list_of_drawn_tissue_is_empty(workflow_of):
    assert "Nothing is fetched" in workflow_of(DATASET).download_list(ask=False)


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_400, "99.4 kB"),
        (1_234_567, "1.2 MB"),
        (999_600_000, "1.0 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_in_words(size_bytes, said):
    assert human(size_bytes) == said
