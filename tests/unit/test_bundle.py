"""Bundles: deterministic, checked before anything is put in place, and never over one's own files unasked."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

from stmorph import digests
from stmorph.bundle import contents
from stmorph.bundle import restore as restoring
from stmorph.bundle.contents import KINDS, MANIFEST, bundle_about, bundle_files, study_digests
from stmorph.bundle.given import Given, mark_path, read_given, read_mark, stamp_of
from stmorph.bundle.pack import pack
from stmorph.bundle.restore import forget, restore
from stmorph.config import workflow
from stmorph.config.workflow import Workflow, open_study
from stmorph.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]


def demo(**changes) -> Workflow:
    """Return the demo, in a results folder below the working one."""
    raw = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    return open_study({**raw, "results": "results/demo", **changes}, ROOT)


def made(study: Workflow, kind: str, salt: str = "") -> Path:
    """Write files of some content in the places of a kind, pack them, and return the bundle."""
    results = Path(study.config.results)
    for file in bundle_files(study, kind):
        (results / file).parent.mkdir(parents=True, exist_ok=True)
        (results / file).write_text(f"{salt}{file}" * 10)
    bundle = Path(f"{kind}{salt}.zip")
    pack(bundle_about(study, kind), results, bundle_files(study, kind), bundle)
    return bundle


@pytest.fixture
def study(tmp_path, monkeypatch) -> Workflow:
    monkeypatch.chdir(tmp_path)
    return demo()


@pytest.fixture
def bundle(study) -> Path:
    """A bundle of scores, in a folder with no results."""
    path = made(study, "scores")
    shutil.rmtree("results")
    return path


def everything(folder: str = "results") -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def rewritten(bundle: Path, change) -> Path:
    """Return a copy of a bundle whose members went through `change` (name -> bytes, changed in place)."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    path = bundle.with_name("changed.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def manifest_change(change):
    def apply(members):
        manifest = json.loads(members[MANIFEST])
        change(manifest)
        members[MANIFEST] = json.dumps(manifest).encode()

    return apply


# --- packing ----------------------------------------------------------------------------------------------------------


def test_a_bundle_holds_every_scored_or_trained_run_and_no_draws(study):
    scores, models = bundle_files(study, "scores"), bundle_files(study, "models")
    in_tables = {run.folder for table in study.plan.cells for run in study.plan.table_runs(table)}
    assert {file.removeprefix("runs/").rpartition("/")[0] for file in scores} == in_tables
    trained = {run.folder for run in study.plan.runs if run.condition == "paired"}
    assert {file.removeprefix("runs/").rpartition("/")[0] for file in models} == trained
    assert not any("samples" in file for file in [*scores, *models])


def test_the_same_files_give_the_same_bytes_whatever_their_times(study):
    first = made(study, "scores").read_bytes()
    for file in bundle_files(study, "scores"):
        os.utime(Path(study.config.results, file), (1, 1))
    pack(bundle_about(study, "scores"), study.config.results, reversed(bundle_files(study, "scores")), "again.zip")
    assert Path("again.zip").read_bytes() == first
    assert zipfile.ZipFile("again.zip").namelist() == [MANIFEST, *bundle_files(study, "scores")]


def test_a_missing_file_is_named_and_no_archive_is_left(study):
    made(study, "scores").unlink()
    file = Path(study.config.results, bundle_files(study, "scores")[3])
    file.unlink()
    with pytest.raises(DataError, match=f"{file} is missing"):
        pack(bundle_about(study, "scores"), study.config.results, bundle_files(study, "scores"), "scores.zip")
    assert not list(Path().glob("*.zip")) and not list(Path().glob(".partial*"))


# --- what a bundle depends on -----------------------------------------------------------------------------------------


def test_digests_tell_which_part_of_the_config_changed(study):
    scores = {**study.config.scores.model_dump(exclude_unset=True), "bootstrap": 7}
    changed = demo(scores=scores)
    differ = {
        kind: {k for k, v in study_digests(study, kind).items() if study_digests(changed, kind)[k] != v}
        for kind in KINDS
    }
    assert differ == {"scores": {"scores"}, "models": set()}
    sampled = demo(methods={"stem": {"sampling": {"draws": 3}}})
    differ = {
        kind: {k for k, v in study_digests(study, kind).items() if study_digests(sampled, kind)[k] != v}
        for kind in KINDS
    }
    assert differ == {"scores": {"runs"}, "models": set()}


def test_the_code_is_that_of_the_steps_behind_the_files(study, monkeypatch):
    code_of, before = digests.script_digest, {kind: study_digests(study, kind)["code"] for kind in KINDS}
    differ = {}
    for asked in [("simulate",), ("embedding",), ("train", "methods.ridge"), ("score",), ("table",)]:
        for place in (contents, workflow):
            monkeypatch.setattr(place, "script_digest", lambda *step, new=asked: "0" if step == new else code_of(*step))
        differ[asked[0]] = [kind for kind in KINDS if study_digests(study, kind)["code"] != before[kind]]
    both = ["scores", "models"]
    assert differ == {"simulate": both, "embedding": both, "train": both, "score": ["scores"], "table": []}


def test_where_files_lie_and_what_tables_say_is_no_part_of_it(study):
    moved = demo(title="Another title", downloads="elsewhere", results="results/other")
    assert all(study_digests(moved, kind) == study_digests(study, kind) for kind in KINDS)


# --- restoring --------------------------------------------------------------------------------------------------------


def test_what_was_packed_is_back_and_a_second_time_nothing_changes(study, bundle):
    done = restore(bundle, study)
    files = bundle_files(study, "scores")
    assert done.placed == files and done.kept == []
    assert all(Path(study.config.results, file).read_text() == file * 10 for file in files)
    before = {file: stamp_of(Path(study.config.results, file)) for file in files}
    again = restore(bundle, study)
    assert again.placed == [] and again.kept == files
    assert {file: stamp_of(Path(study.config.results, file)) for file in files} == before
    assert read_given(study).files == {study.paths(file) for file in files}


def refused(bundle, study, error, match, **how):
    before = everything()
    with pytest.raises(error, match=match):
        restore(bundle, study, **how)
    assert everything() == before
    assert not list(Path().rglob(".partial*"))


def test_a_changed_byte_is_found_before_anything_is_in_place(study, bundle):
    last = bundle_files(study, "scores")[-1]

    def flip(members):
        members[last] = members[last][:-1] + b"?"

    refused(rewritten(bundle, flip), study, DataError, f"{last} is damaged")


@pytest.mark.parametrize("change", [lambda data: data + b"more", lambda data: data[:-1]])
def test_another_size_is_damage(study, bundle, change):
    first = bundle_files(study, "scores")[0]

    def grow(members):
        members[first] = change(members[first])

    refused(rewritten(bundle, grow), study, DataError, f"{first} is damaged")


@pytest.mark.parametrize("keep", [0.2, 0.98])
def test_half_a_download_is_no_bundle(study, bundle, keep):
    data = bundle.read_bytes()
    Path("half.zip").write_bytes(data[: int(keep * len(data))])
    refused("half.zip", study, DataError, "half.zip is not a whole bundle")


def test_a_flipped_bit_of_the_archive_itself_is_damage(study, bundle):
    data = bytearray(bundle.read_bytes())
    data[data.rindex(b"genes.parquet", 0, len(data) // 2)] ^= 1
    Path("flipped.zip").write_bytes(data)
    refused("flipped.zip", study, DataError, "flipped.zip")


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "runs/../../outside", "runs\\..\\outside", "./runs/x"])
def test_a_path_that_leaves_the_results_is_refused(study, bundle, name):
    def lead_astray(members):
        manifest_change(lambda manifest: manifest["files"][0].update(path=name))(members)
        members[name] = members.pop(bundle_files(study, "scores")[0])

    refused(rewritten(bundle, lead_astray), study, DataError, "outside the results")
    assert not list(Path().parent.rglob("outside"))


def test_a_file_that_is_none_of_the_study_is_refused(study, bundle):
    def add(members):
        manifest_change(lambda manifest: manifest["files"][0].update(path="runs/other/scores.parquet"))(members)
        members["runs/other/scores.parquet"] = members.pop(bundle_files(study, "scores")[0])

    refused(rewritten(bundle, add), study, DataError, "do not agree on")
    refused(rewritten(bundle, lambda members: members.update(more=b"")), study, DataError, "'more' is not in both")


def test_another_zip_and_another_format_are_told_apart(study, bundle):
    refused(rewritten(bundle, lambda m: m.pop(MANIFEST)), study, DataError, f"has no {MANIFEST}")
    future = rewritten(bundle, manifest_change(lambda manifest: manifest.update(format=2)))
    refused(future, study, DataError, "format: .*bundle of this version")
    refused(rewritten(bundle, lambda m: m.update({MANIFEST: b"{"})), study, DataError, MANIFEST)
    with pytest.raises(DataError, match=r"nowhere\.zip does not exist"):
        restore("nowhere.zip", study)


def test_a_bundle_of_another_config_is_refused_with_the_part_that_differs(study, bundle):
    other = demo(
        panels={**{k: v.model_dump() for k, v in study.config.panels.items()}, "HVG": {"kind": "hvg", "genes": 9}}
    )
    refused(bundle, other, ConfigError, r"another config, which differs in panels \(")
    refused(bundle, demo(name="demo2"), ConfigError, "is of study 'demo', this config is 'demo2'")


def test_a_bundle_of_other_code_is_refused_unless_told(study, bundle):
    old = rewritten(bundle, manifest_change(lambda m: m.update(commit="abc123", digests={**m["digests"], "code": "0"})))
    refused(old, study, ConfigError, r"other code \(commit abc123\).*ANY_CODE=1")
    restore(old, study, any_code=True)
    assert read_given(study).files  # taken as it is: the checkout's own digest counts from now on


def test_files_of_ones_own_are_named_and_stay_unless_told(study, bundle):
    mine = Path(study.config.results, bundle_files(study, "scores")[2])
    mine.parent.mkdir(parents=True)
    mine.write_text("my own")
    refused(bundle, study, DataError, rf"1 files are there .*{mine}.*OVERWRITE=1")
    restore(bundle, study, overwrite=True)
    assert mine.read_text() != "my own"


def test_a_restore_that_was_killed_is_finished_by_the_next(study, bundle, monkeypatch):
    files, left = bundle_files(study, "scores"), 3
    replace = Path.replace

    def dies(self, target):
        nonlocal left
        if ".partial-restore" in str(self):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", dies)
        restore(bundle, study)
    assert len(read_given(study).files) == 3
    done = restore(bundle, study)
    assert len(done.placed) == len(files) - 3
    assert read_given(study).files == {study.paths(file) for file in files}


def test_a_full_disk_is_one_sentence_and_leaves_nothing(study, bundle, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restoring.os, "utime", full)
    with pytest.raises(DataError, match="No space left on device"):
        restore(bundle, study)
    assert not read_given(study).files and not list(Path("results").rglob("*.parquet"))


# --- what is given ----------------------------------------------------------------------------------------------------


def test_a_given_file_asks_for_nothing_and_others_for_what_they_need():
    given = Given(frozenset({"results/a"}))
    assert given.inputs("results/a", {"slides": ["x"]}) == {}
    assert given.inputs("results/b", {"slides": ["x"]}) == {"slides": ["x"]}


def test_a_file_that_was_made_anew_is_no_longer_given(study, bundle):
    restore(bundle, study)
    file = Path(study.config.results, bundle_files(study, "scores")[0])
    file.write_bytes(file.read_bytes())
    assert study.paths(bundle_files(study, "scores")[0]) not in read_given(study).files
    assert len(read_given(study).files) == len(bundle_files(study, "scores")) - 1


def test_what_was_restored_for_another_config_stops_the_study_until_it_is_forgotten(study, bundle):
    restore(bundle, study)
    changed = demo(scores={**study.config.scores.model_dump(exclude_unset=True), "bootstrap": 7})
    with pytest.raises(ConfigError, match=r"differs in scores; .*make forget KIND=scores"):
        read_given(changed)
    mine = Path(study.config.results, bundle_files(study, "scores")[0])
    mine.write_text("made here")
    assert forget(changed, "scores") == bundle_files(study, "scores")[1:]
    assert mine.read_text() == "made here"
    assert not read_given(changed).files


def test_a_broken_record_is_named(study, bundle):
    restore(bundle, study)
    mark_path(Path(study.config.results), "scores").write_text("{")
    with pytest.raises(DataError, match=r"restored/scores\.json cannot be read"):
        read_mark(Path(study.config.results), "scores")
