"""After a killed main process: its jobs are found and waited for, strangers' are not, and Snakemake starts again."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stmorph.cluster.lock import resume_command
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


def test_commands_of_slurm_without_a_cluster_are_no_slurm_unless_it_was_used_here(path, place):
    command_on_path(path, "squeue", "echo 'squeue: fatal: Could not establish a configuration source' >&2; exit 1")
    assert slurm_jobs(place) == []
    (place / ".snakemake" / "slurm_logs").mkdir()
    with pytest.raises(StmorphError, match=r"squeue does not answer .*configuration source"):
        slurm_jobs(place)


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


SNAKEFILE = """\
from snakemake.logging import logger
from stmorph.cluster.lock import tell_to_resume

tell_to_resume(logger, lambda: "make resume TARGET=made")

rule all:
    output: "made"
    shell: "touch {output}"
"""


def test_a_lock_that_was_left_is_told_of_lifted_and_snakemake_goes_on(path, tmp_path):
    place = tmp_path / "study"
    (place / ".snakemake" / "locks").mkdir(parents=True)
    (place / "Snakefile").write_text(SNAKEFILE)
    (place / ".snakemake" / "locks" / "0.output.lock").write_text("made\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "snakemake", "made", "--cores", "1"]
    stopped = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert stopped.returncode != 0 and not (place / "made").exists()
    assert f"stmorph: {place} is locked; expected no other Snakemake there" in stopped.stderr
    assert "run `make resume TARGET=made`, which waits for the jobs it left, lifts the lock" in stopped.stderr
    assert "can be removed with" not in stopped.stderr, "Snakemake's own advice would start jobs twice"
    words = [sys.executable, "-m", "stmorph.cluster.resume", "--poll", "0.1", "--", "made", "--cores", "1"]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no job of an earlier start is left" in done.stdout
    assert (place / "made").exists()


@pytest.mark.parametrize(
    ("targets", "file", "config", "profiles", "submits", "expected"),
    [
        (
            {"a"},
            "config/a.yaml",
            {"k": 1},
            ["slurm", "own"],
            True,
            "TARGET='a --config k=1' CONFIG=config/a.yaml SITE=own",
        ),
        ((), "/elsewhere/a.yaml", {}, ["slurm"], True, "CONFIG=/elsewhere/a.yaml"),
        ({"b", "a"}, "a.yaml", {}, ["local"], False, "TARGET='a b' CONFIG=a.yaml PROFILE=profiles/local"),
        ({"a"}, "a.yaml", {}, [], False, "TARGET=a CONFIG=a.yaml PROFILE=profiles/local"),
    ],
)
def test_the_command_that_goes_on_is_that_of_the_killed_one(targets, file, config, profiles, submits, expected):
    words = ["snakemake", *targets, *(word for name in profiles for word in ("--profile", name))]
    found = resume_command(targets, [Path(file).absolute()], config, words, submits)
    assert found == f"make resume {expected}"
