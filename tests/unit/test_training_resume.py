"""A training that is interrupted in any way ends as if it had not been."""

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import time

import pytest
import torch
from training_toys import train_to_files

from stmorph.errors import CheckpointError, DataError
from stmorph.training.checkpoints import Checkpoints
from stmorph.training.options import SOONEST_S, TrainingOptions, checkpoint_pause_s

SOON = 0.02 / 60  # minutes between checkpoints


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning.fabric", "stmorph.training.fit", "stmorph.training.loop"])
    return context


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train_to_files(folder)
    return folder


def results(folder):
    return torch.load(folder / "weights.pt"), (folder / "losses.csv").read_bytes()


def assert_same(folder, other):
    (weights, table), (other_weights, other_table) = results(folder), results(other)
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[key], other_weights[key]) for key in weights)
    assert table == other_table


def lines(folder):
    table = folder / "work" / "losses.csv"
    return table.read_text().count("\n") if table.exists() else 0


def wait_until(condition, process):
    while not condition() and process.is_alive():
        time.sleep(0.002)


def start(processes, folder, **how):
    process = processes.Process(target=train_to_files, args=(folder,), kwargs=how)
    process.start()
    return process


def test_kill_9_at_random_moments_changes_no_bit(processes, undisturbed, tmp_path):
    chance = random.Random(7)
    killed = 0
    for _ in range(4):
        process = start(processes, tmp_path, pause=0.01, checkpoint_minutes=SOON)
        wait_until(lambda: any((tmp_path / "work").glob("step-*.json")), process)
        target = lines(tmp_path) + chance.randrange(1, 4)
        wait_until(lambda target=target: lines(tmp_path) >= target, process)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "losses.csv").exists() or process.exitcode == 0
    assert killed >= 2
    process = start(processes, tmp_path, checkpoint_minutes=SOON)
    process.join()
    assert process.exitcode == 0
    assert json.loads((tmp_path / "circumstances.json").read_text())["resumed_at_step"] > 0
    assert_same(tmp_path, undisturbed)
    assert not list((tmp_path / "work").glob(".partial-*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_saves_and_leaves_with_a_status(processes, undisturbed, tmp_path, number, status):
    process = start(processes, tmp_path, pause=0.01, checkpoint_minutes=60)
    wait_until(lambda: lines(tmp_path) > 2, process)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == status
    assert not (tmp_path / "weights.pt").exists()
    saved = [json.loads(path.read_text())["step"] for path in (tmp_path / "work").glob("step-*.json")]
    assert len(saved) == 1 and 6 <= saved[0] < 60
    train_to_files(tmp_path)
    assert json.loads((tmp_path / "circumstances.json").read_text())["resumed_at_step"] == saved[0]
    assert_same(tmp_path, undisturbed)


class Enough(Exception):
    pass


def interrupted(folder, monkeypatch, after=31, **how):
    """Train until step `after` with a checkpoint after every step, then break off."""
    with monkeypatch.context() as patch:
        save = Checkpoints.save

        def save_and_stop(self, step, state):
            save(self, step, state)
            if step == after:
                raise Enough

        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(Enough):
            train_to_files(folder, checkpoint_minutes=0, **how)


def resumed_at(folder):
    return json.loads((folder / "circumstances.json").read_text())["resumed_at_step"]


def test_the_last_two_checkpoints_are_kept(tmp_path, monkeypatch):
    interrupted(tmp_path, monkeypatch)
    assert sorted(path.name for path in (tmp_path / "work").glob("step-*")) == [
        "step-000000030.json",
        "step-000000030.pt",
        "step-000000031.json",
        "step-000000031.pt",
    ]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.unlink()])
@pytest.mark.parametrize("suffix", [".pt", ".json"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    undisturbed, tmp_path, monkeypatch, caplog, damage, suffix
):
    interrupted(tmp_path, monkeypatch)
    damage(tmp_path / "work" / f"step-000000031{suffix}")
    train_to_files(tmp_path)
    if suffix == ".pt":
        assert "step-000000031.pt is damaged" in caplog.text
        assert resumed_at(tmp_path) == 30
    else:  # a record may be damaged in a place that does not matter
        assert resumed_at(tmp_path) in (30, 31)
    assert_same(tmp_path, undisturbed)


def test_if_no_checkpoint_can_be_read_the_folder_to_delete_is_named(undisturbed, tmp_path, monkeypatch):
    interrupted(tmp_path, monkeypatch)
    for path in (tmp_path / "work").glob("*.pt"):
        truncate(path)
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'work'} can be read.*delete the folder"):
        train_to_files(tmp_path)
    shutil.rmtree(tmp_path / "work")
    train_to_files(tmp_path)
    assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"identity": {"config": "c", "split": "other"}}, "split"), ({"batch_size": 7}, "training")],
)
def test_a_checkpoint_of_another_run_is_not_used(tmp_path, monkeypatch, caplog, changes, said):
    interrupted(tmp_path, monkeypatch)
    train_to_files(tmp_path, **changes)
    assert resumed_at(tmp_path) == 0
    assert f"belongs to another run ({said} changed)" in caplog.text
    (tmp_path / "fresh").mkdir()
    train_to_files(tmp_path / "fresh", **changes)
    assert_same(tmp_path, tmp_path / "fresh")


def test_the_log_tells_from_where_a_training_goes_on_or_why_it_does_not(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="stmorph")
    study = tmp_path / "study-0a"
    interrupted(study, monkeypatch)
    assert f"begins anew because there is no checkpoint in {study / 'work'}" in caplog.text
    caplog.clear()
    train_to_files(study)
    assert f"goes on after step 31 of 60, from {study / 'work/step-000000031.pt'}" in caplog.text
    caplog.clear()
    interrupted(study, monkeypatch, identity={"config": "c", "split": "new"})
    assert f"begins anew because {study / 'work/step-000000060.json'} belongs to another run (split" in caplog.text


def test_a_state_of_the_run_before_a_change_is_named(tmp_path):
    """A run's folder is named by the digests of what it depends on; a change leads to another folder."""
    before = {"config": "a", "code": "x", "seed": 1}
    Checkpoints(tmp_path / "toy-stem-0a", before).save(40, {})
    for changes, why in (
        ({"code": "y"}, r"toy-stem-0a/step-000000040.json belongs to another run \(code changed\)"),
        ({"seed": 2}, "there is no checkpoint in .*toy-stem-0b"),
    ):
        checkpoints = Checkpoints(tmp_path / "toy-stem-0b", before | changes)
        assert checkpoints.latest() is None and re.search(why, checkpoints.why_anew)
    (tmp_path / "toy-stem-0a/owner.json").write_text("{}")
    checkpoints = Checkpoints(tmp_path / "toy-stem-0b", before | {"code": "y"})
    assert checkpoints.latest() is None and "there is no checkpoint" in checkpoints.why_anew, "that one is at work"


def test_checkpoints_take_no_more_than_their_share_of_the_time():
    options = TrainingOptions(checkpoint_share=0.01, checkpoint_minutes=10)
    assert checkpoint_pause_s(options, 0) == SOONEST_S, "a short training is not without any"
    assert checkpoint_pause_s(options, 0.01) == SOONEST_S
    assert checkpoint_pause_s(options, 2) == 200
    assert checkpoint_pause_s(options, 60) == 600, "the longest time goes before the share"
    assert checkpoint_pause_s(TrainingOptions(checkpoint_minutes=0), 60) == 0, "after every step"


def test_a_finished_training_is_not_done_again(undisturbed, tmp_path):
    train_to_files(tmp_path)
    (tmp_path / "losses.csv").unlink()
    train_to_files(tmp_path)
    assert resumed_at(tmp_path) == 60
    assert_same(tmp_path, undisturbed)


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    checkpoints = Checkpoints(tmp_path / "work", {"a": 1})
    checkpoints.save(1, {"x": torch.ones(3)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(DataError, match=r"could not be written.*free space"):
            checkpoints.save(2, {"x": torch.ones(2**20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["step-000000001.json", "step-000000001.pt"]
    step, state = checkpoints.latest()
    assert step == 1 and torch.equal(state["x"], torch.ones(3))
