"""A finished training is kept beside its outputs, and taken from there instead of trained again."""

import os
from pathlib import Path

import pytest

from stmorph.training.finished import Finished


@pytest.fixture
def out(tmp_path):
    return {"model": str(tmp_path / "run" / "model.safetensors"), "record": str(tmp_path / "run" / "model.json")}


@pytest.fixture
def finished(tmp_path, out):
    store = Finished(tmp_path / "work")
    for name, path in out.items():
        store.path(name, path).write_text(f"the {name}")
    store.keep(out)
    return store


def test_before_the_end_there_is_nothing_to_take(tmp_path, out):
    store = Finished(tmp_path / "work")
    assert not store.place(out)
    store.path("model", out["model"]).write_text("written, but the record is not")
    assert not store.place(out)
    assert not (tmp_path / "run").exists()


def test_outputs_that_were_removed_come_back_newer_than_their_inputs(tmp_path, out, finished):
    model = Path(out["model"])
    assert finished.place(out)
    assert model.read_text() == "the model"
    model.unlink()
    later = tmp_path / "input"
    later.touch()
    assert finished.place(out)
    assert model.stat().st_mtime_ns >= later.stat().st_mtime_ns
    assert model.stat().st_nlink == 2, "two names, one file"


def test_a_damaged_file_is_told_and_not_taken(tmp_path, out, finished, caplog):
    path = finished.path("model", out["model"])
    path.write_text("the mo")
    assert not finished.place(out)
    assert f"{path} is missing or damaged" in caplog.text
    assert not (tmp_path / "run").exists()
    assert not finished.place(out), "still so when asked again"


def test_a_file_system_without_links_gets_copies(out, finished, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert finished.place(out)
    assert Path(out["record"]).read_text() == "the record"
    assert Path(out["record"]).stat().st_nlink == 1
