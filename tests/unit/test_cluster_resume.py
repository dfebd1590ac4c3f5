"""After a killed main process: its jobs are found and waited for, strangers' are not, and Snakemake starts again."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stmorph.cluster.resume import local_jobs, main_processes, slurm_jobs, wait_for_orphans
from stmorph.errors import StmorphError

ROOT = Path(__file__).parents[2]
SLEEP = "import time; time.sleep(600)"


def command_on_path(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    command_on_path(folder, "squeue", "exit 0")
    return folder


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "work"
    (folder / ".snakemake" / "scripts").mkdir(parents=True)
    return folder


@pytest.fixture
def step(place):
    """A step of the workflow whose main process is gone."""
    script = place / ".snakemake" / "scripts" / "tmp1.train.py"
    script.write_text(SLEEP)
    process = subprocess.Popen([sys.executable, script])
    yield process
    process.kill()
    process.wait()


def test_only_the_jobs_of_this_folder_count(path, place, tmp_path):
    lines = [f"7|RUNNING|{place}|rule_train", f"8|PENDING|{place}|rule_score", f"9|RUNNING|{tmp_path}|rule_train"]
    command_on_path(path, "squeue", f"cat <<'X'\n{chr(10).join(lines)}\nX")
    assert [(job.name, job.state, job.doing) for job in slurm_jobs(place)] == [
        ("SLURM job 7", "RUNNING", "rule_train"),
        ("SLURM job 8", "PENDING", "rule_score"),
    ]


def test_where_slurm_is_silent_nothing_is_started(path, place):
    command_on_path(path, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(StmorphError, match=r"squeue does not answer .*Unable to contact.*run this again"):
        wait_for_orphans(place)


def test_without_slurm_there_are_only_processes(place, step, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_jobs(place) == []
    (job,) = local_jobs(place)
    assert (job.name, job.doing) == (f"process {step.pid}", "train.py")
    assert local_jobs(tmp_path) == []


def test_the_end_of_a_step_is_waited_for(path, place, step, capsys):
    threading.Timer(1.0, step.kill).start()
    threading.Timer(1.1, step.wait).start()
    began = time.monotonic()
    assert wait_for_orphans(place, poll_s=0.1) == 1
    assert time.monotonic() - began > 0.9
    said = capsys.readouterr().out
    assert f"process {step.pid}" in said and said.count("waiting for 1") <= 3, "told when something changes"


def test_a_living_main_process_is_not_run_over(path, place):
    tool = place / "snakemake"
    tool.write_text(SLEEP)
    process = subprocess.Popen([sys.executable, tool, "all"], cwd=place)
    try:
        end = time.monotonic() + 30
        while main_processes(place) != [process.pid]:
            assert time.monotonic() < end
        with pytest.raises(StmorphError, match=rf"at work in .*process {process.pid}"):
            wait_for_orphans(place)
    finally:
        process.kill()
        process.wait()
    assert main_processes(place) == []


def test_a_lock_that_was_left_is_lifted_and_snakemake_goes_on(path, tmp_path):
    place = tmp_path / "study"
    (place / ".snakemake" / "locks").mkdir(parents=True)
    (place / "Snakefile").write_text('rule all:\n    output: "made"\n    shell: "touch {output}"\n')
    (place / ".snakemake" / "locks" / "0.output.lock").write_text(f"{place / 'made'}\n")
    words = [sys.executable, "-m", "stmorph.cluster.resume", "--poll", "0.1", "--", "made", "--cores", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no job of an earlier start is left" in done.stdout
    assert (place / "made").exists()
