"""Two copies of a run: one works, the other waits and takes over only when the first is gone."""

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from stmorph.training.ownership import owned

PROCESSES = multiprocessing.get_context("spawn")
STRANGER = {"token": "t", "host": "node7", "machine": "node7 another boot", "pid": 1, "started": 0.0, "job": "4711"}


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def work(folder: Path, seconds: float, beat_s: float = 0.1, gone_s: float = 60.0) -> None:
    """Own the folder for a while, alone: two at once would meet in `busy`."""
    with owned(folder, beat_s, gone_s):
        with (folder / "busy").open("x"):
            time.sleep(seconds)
        (folder / "busy").unlink()
        with (folder / "done").open("a") as file:
            file.write(f"{os.getpid()}\n")


def started(folder: Path, seconds: float, **how) -> multiprocessing.Process:
    process = PROCESSES.Process(target=work, args=(folder, seconds), kwargs=how)
    process.start()
    return process


def test_of_many_copies_one_works_at_a_time(tmp_path):
    copies = [started(tmp_path, 0.2) for _ in range(4)]
    for copy in copies:
        copy.join(120)
    assert [copy.exitcode for copy in copies] == [0] * 4
    assert sorted((tmp_path / "done").read_text().split()) == sorted(str(copy.pid) for copy in copies)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done"], "nothing is left behind"


def test_a_killed_owner_is_succeeded_at_once_and_cleared_up_after(tmp_path, caplog):
    owner = started(tmp_path, 600)
    wait_until((tmp_path / "busy").exists)
    (tmp_path / ".partial-1-model.pt").touch()
    os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: not owner.is_alive())
    with caplog.at_level(logging.WARNING), owned(tmp_path, gone_s=3600):
        assert not (tmp_path / ".partial-1-model.pt").exists()
    assert f"process {owner.pid}" in caplog.text and "its process has ended" in caplog.text


def test_a_process_number_that_was_given_again_is_not_the_owner(tmp_path):
    with owned(tmp_path):
        claim = json.loads((tmp_path / "owner.json").read_text())
    (tmp_path / "owner.json").write_text(json.dumps({**claim, "started": claim["started"] - 1000}))
    with owned(tmp_path, gone_s=3600):
        assert json.loads((tmp_path / "owner.json").read_text())["token"] != claim["token"]


def test_an_owner_elsewhere_is_waited_for_while_its_heart_beats_and_then_succeeded(tmp_path, caplog):
    claim = tmp_path / "owner.json"
    claim.write_text(json.dumps(STRANGER))
    entered, waited = threading.Event(), True

    def wait_for_it():
        with owned(tmp_path, beat_s=0.05, gone_s=1.5):
            entered.set()

    waiter = threading.Thread(target=wait_for_it)
    with caplog.at_level(logging.WARNING):
        waiter.start()
        for _ in range(30):  # 3 seconds, twice as long as a silent owner would be waited for
            os.utime(claim)
            time.sleep(0.1)
            waited = waited and not entered.is_set()
        assert waited, "a living owner was pushed aside"
        waiter.join(60)
    assert entered.is_set()
    assert "job 4711, process 1 on node7 is at work" in caplog.text
    assert "no sign of life" in caplog.text


def test_an_owner_that_was_taken_for_gone_stops_itself(tmp_path):
    owner = started(tmp_path, 600)
    wait_until((tmp_path / "busy").exists)
    (tmp_path / "owner.json").write_text(json.dumps(STRANGER))  # as a successor would
    owner.join(60)
    assert owner.exitcode == -signal.SIGTERM
    assert json.loads((tmp_path / "owner.json").read_text()) == STRANGER, "the successor's claim stays"


def test_a_claim_that_was_cut_off_while_written_ages_like_any_other(tmp_path):
    claim = tmp_path / "owner.json"
    claim.write_text("")
    os.utime(claim, (time.time() - 1000, time.time() - 1000))
    with owned(tmp_path, gone_s=500):
        assert json.loads(claim.read_text())["pid"] == os.getpid()


def test_an_error_ends_the_ownership(tmp_path):
    with pytest.raises(RuntimeError, match="no luck"), owned(tmp_path):
        raise RuntimeError("no luck")
    assert not list(tmp_path.iterdir())
