"""A study on a real SLURM of one machine, through profiles/slurm and a site's small profile, with much going wrong.

The cluster is tests/cluster/cluster.py. What comes before training is taken from a finished study; training, sampling
and scoring run as cluster jobs. Two runs, because every cluster job starts Snakemake twice. In the first
a training runs out of time, another one's node is lost, a third is cancelled, all sampling is out of memory at first.
In the second the main process is killed while two trainings are at work, one of them on two nodes.
"""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import REPO, Place, copy_of, environment, leftovers

sys.path.insert(0, str(REPO / "tests/cluster"))
from cluster import Cluster, missing_programs

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"SLURM is not installed (apt-get install slurm-wlm munge): {', '.join(missing_programs())} not found",
    ),
]

RUNS = "results/runs/tiny/new_patient/few"
TARGETS = ("expression", "pictures")
PATIENCE_S = 600  # for one thing to happen on a slow machine
STEPS = 60  # of the training that runs out of time


@dataclass
class Ended:
    """What the disturbed run left to look at."""

    place: Place
    status: int
    output: str
    jobs: list[dict[str, str]]
    noticed_s: float


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def disturbed(cluster: Cluster, finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    study = finished.study()
    study["methods"]["stem"]["training"]["steps"] = STEPS
    for method in ("stem", "geneflow"):
        study["methods"][method]["resources"] = {"gpu": 1, "mem_mb": 3500, "runtime": 30}
    # It asks for no GPU and would go to the other partition.
    study["methods"]["training_mean"] = {"resources": {"sampling": {"partition": "gpu"}}}
    place = copy_of(finished, tmp_path_factory.mktemp("disturbed"), study)
    for made in (RUNS, "results/tables", "results/logs/train"):
        shutil.rmtree(place.folder / made)
    output = place.folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            command(place, *TOO_LITTLE), cwd=place.folder, env=variables(cluster), stdout=file, stderr=file
        )
        try:
            noticed_s = disturb(cluster, place, output, process)
            status = process.wait(timeout=2 * PATIENCE_S)
        finally:
            if process.poll() is None:
                process.kill()  # asked politely it would wait for jobs of a cluster that is no more
                print(output.read_text())
    return Ended(place, status, output.read_text(), cluster.jobs(), noticed_s)


TOO_LITTLE = ("--set-resources", "sample:mem_mb=100 if attempt == 1 else 3500")
"""The first attempt at a sampling asks for too little memory."""


def command(place: Place, *flags: str, targets: tuple[str, ...] = TARGETS) -> list[str]:
    """Return the command line of a user on the cluster."""
    site = ["--profile", str(REPO / "tests/cluster/site")]
    words = place.command(*targets, profile="slurm", flags=[*site, *flags])
    cores = words.index("--cores")
    return words[:cores] + words[cores + 2 :]


def variables(cluster: Cluster) -> dict[str, str]:
    return {**environment(), "PATH": cluster.environment["PATH"]}


def disturb(cluster: Cluster, place: Place, output: Path, process: subprocess.Popen) -> float:
    """Do what clusters do to jobs. Return after how long the cancelled one was noticed."""

    def alive() -> bool:
        return process.poll() is None

    def job(method: str) -> dict[str, str]:
        return until(lambda: running(cluster, "train", method), alive)

    cancelled = job("training_mean")
    cluster.command("scancel", cancelled["id"])
    since = time.monotonic()
    lost = job("geneflow")["node"]
    cluster.lose(lost)
    until(lambda: f"'{cancelled['id']}' failed, SLURM status is: 'CANCELLED'" in output.read_text(), alive)
    noticed_s = time.monotonic() - since
    stem = job("stem")["id"]
    until(lambda: list(place.folder.glob("results/work/*stem*/step-*.json")), alive)
    # It must still be at work when its time is over: it stands still until SLURM says so.
    for pid in cluster.processes(SLURM_JOB_ID=stem):
        if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGSTOP)
    cluster.command("scontrol", "update", f"JobId={stem}", "EndTime=now")
    until(lambda: cluster.node_states()[lost].startswith("down"), alive)
    cluster.bring_back(lost)
    return noticed_s


def running(cluster: Cluster, rule: str, method: str) -> dict[str, str] | None:
    return next((job for job in jobs_of(cluster.jobs(), rule, method) if job["state"] == "RUNNING"), None)


def jobs_of(jobs: list[dict[str, str]], rule: str, method: str) -> list[dict[str, str]]:
    return [job for job in jobs if job["comment"] == f"rule_{rule}_wildcards_tiny_new_patient_few_{method}_0"]


def until(condition: Callable[[], Any], alive: Callable[[], bool]) -> Any:
    """Return what the condition gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert alive(), "snakemake has ended too early"
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.5)
    return value


# --- what a study is like after all this ------------------------------------------------------------------------------


def test_the_run_ends_well_and_leaves_nothing_half_done(disturbed: Ended):
    assert disturbed.status == 0, disturbed.output
    assert leftovers(disturbed.place.folder) == []


def test_the_tables_equal_those_of_an_undisturbed_run(disturbed: Ended, finished: Place):
    """All but the row of the method that trains longer here."""
    table = "results/tables/pictures.csv"
    assert disturbed.place.files(table)[table] == finished.files(table)[table]
    expression = [pd.read_csv(place.folder / "results/tables/expression.csv") for place in (disturbed.place, finished)]
    rows = [table[table["row"] == "training_mean"].reset_index(drop=True) for table in expression]
    pd.testing.assert_frame_equal(*rows, check_exact=True)


def test_a_second_run_has_nothing_to_do(disturbed: Ended, cluster: Cluster):
    done = subprocess.run(
        command(disturbed.place, *TOO_LITTLE, "-n"),
        cwd=disturbed.place.folder,
        env=variables(cluster),
        capture_output=True,
        text=True,
    )
    assert "Nothing to be done" in done.stdout + done.stderr


# --- where jobs ran ---------------------------------------------------------------------------------------------------


def test_jobs_land_in_the_partition_that_has_what_they_ask_for(disturbed: Ended):
    gpu = {job["comment"].rpartition("few_")[2] for job in disturbed.jobs if job["partition"] == "gpu" and job["gpus"]}
    cpu = {job["comment"].rpartition("few_")[2] for job in disturbed.jobs if job["partition"] == "cpu"}
    assert gpu == {"stem_0", "geneflow_0"}
    scored = {job["comment"].partition("_wildcards_")[0] for job in disturbed.jobs if job["partition"] == "cpu"}
    assert "training_mean_0" in cpu and scored == {"rule_train", "rule_score"}


def test_a_job_lands_in_the_partition_that_its_method_names(disturbed: Ended):
    jobs = jobs_of(disturbed.jobs, "sample", "training_mean")
    assert {(job["partition"], job["gpus"]) for job in jobs} == {("gpu", "")}


def test_no_node_runs_more_jobs_than_it_has_gpus(disturbed: Ended):
    for node in ("gpu1", "gpu2"):
        jobs = (job for job in disturbed.jobs if job["node"] == node and job["gpus"])
        times = sorted((job["start"], job["end"]) for job in jobs)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times)), times


# --- what the user is told --------------------------------------------------------------------------------------------


def test_a_job_out_of_time_goes_on_from_its_checkpoint(disturbed: Ended):
    assert "SLURM status is: 'TIMEOUT'" in disturbed.output
    run = disturbed.place.folder / RUNS / "stem/seed0"
    assert 0 < json.loads((run / "provenance.json").read_text())["resumed_at_step"] < STEPS
    log = (disturbed.place.folder / "results/logs/train/tiny/new_patient/few/stem/seed0.log").read_text()
    assert re.search(rf"goes on after step \d+ of {STEPS}, from .*step-\d+\.pt", log)
    losses = pd.read_csv(run / "losses.csv")
    assert losses["step"].is_monotonic_increasing and losses["step"].is_unique and losses["step"].max() == STEPS


def test_a_cancelled_job_is_noticed_within_a_minute(disturbed: Ended):
    assert "SLURM status is: 'CANCELLED'" in disturbed.output
    assert disturbed.noticed_s < 60


def test_a_job_out_of_memory_says_so_and_gets_more(disturbed: Ended):
    """Without cgroups SLURM calls it FAILED; its own log, which is shown, has the reason."""
    assert disturbed.output.count("Exceeded job memory limit") >= 3
    asked = {
        re.search(r"mem_mb=(\d+)", text)[1]
        for text in re.findall(r"rule sample:.*?resources:[^\n]+", disturbed.output, re.S)
    }
    assert asked == {"100", "3500"}


def test_logs_of_successful_jobs_are_kept(disturbed: Ended):
    logs = {path.stem for path in disturbed.place.folder.glob(".snakemake/slurm_logs/**/*.log")}
    assert {job["id"] for job in disturbed.jobs} <= logs


# --- the main process is killed ---------------------------------------------------------------------------------------


STEM_LOSSES = f"{RUNS}/stem/seed0/losses.csv"


@pytest.fixture(scope="module")
def orphaned(cluster: Cluster, finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run whose main process was killed with two trainings at work, and what `make resume` made of it."""
    study = finished.study()
    study["methods"]["stem"]["training"] |= {"nodes": 2}
    study["methods"]["stem"]["resources"] = {"gpu": 1, "mem_mb": 3500, "runtime": 30, "partition": "gpu"}
    study["methods"]["geneflow"]["resources"] = {"gpu": 0, "mem_mb": 3500, "runtime": 30}
    place = copy_of(finished, tmp_path_factory.mktemp("orphaned"), study)
    for made in (f"{RUNS}/stem", f"{RUNS}/geneflow", "results/work", "results/tables", "results/logs/train"):
        shutil.rmtree(place.folder / made)
    known = {job["id"] for job in cluster.jobs()}
    targets = ("pictures", STEM_LOSSES)
    first, second = place.folder / "first.txt", place.folder / "second.txt"
    words = command(place, targets=targets)
    with first.open("w") as file:
        process = subprocess.Popen(words, cwd=place.folder, env=variables(cluster), stdout=file, stderr=file)
    try:
        # Both stand still until they are orphans.
        for method in ("stem", "geneflow"):
            until(lambda method=method: halted(cluster, method), lambda: process.poll() is None)
    finally:
        process.kill()
        process.wait()
    again = subprocess.run(
        words, cwd=place.folder, env=variables(cluster), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    (place.folder / "again.txt").write_text(again.stderr)
    resume = [sys.executable, "-m", "stmorph.cluster.resume", "--poll", "0.5", "--", *words[3:]]
    where = {**variables(cluster), "PYTHONPATH": str(REPO / "src")}
    with second.open("w") as file:
        process = subprocess.Popen(resume, cwd=place.folder, env=where, stdout=file, stderr=file)
    try:
        # SLURM's jobs and, for the nodes are this machine, their processes.
        until(lambda: second.read_text().count("SLURM job") >= 2, lambda: process.poll() is None)
        for pid in trainings(cluster):
            os.kill(pid, signal.SIGCONT)
        status = process.wait(timeout=PATIENCE_S)
    finally:
        process.kill()
    jobs = [job for job in cluster.jobs() if job["id"] not in known]
    return Ended(place, status, second.read_text(), jobs, 0.0)


def halted(cluster: Cluster, method: str) -> bool:
    """Stop a method's training as soon as it is at work; return whether it is."""
    job = running(cluster, "train", method)
    found = trainings(cluster, job["id"]) if job else []
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return bool(found)


def trainings(cluster: Cluster, job: str = "") -> list[int]:
    found = []
    for pid in cluster.processes(SLURM_JOB_ID=job):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found += [pid] if any(word.endswith(b".train.py") for word in words[:2]) else []
    return found


def test_after_a_killed_main_process_resume_waits_and_finishes(orphaned: Ended, finished: Place):
    assert orphaned.status == 0, orphaned.output
    assert re.search(r"\d+ of an earlier start have ended; going on", orphaned.output)
    for table in ("results/tables/pictures.csv", "results/tables/pictures.md"):
        assert orphaned.place.files(table)[table] == finished.files(table)[table]
    assert leftovers(orphaned.place.folder) == []


def test_the_same_command_again_names_the_one_that_goes_on(orphaned: Ended):
    site = re.escape(str(REPO / "tests/cluster/site"))
    said = (orphaned.place.folder / "again.txt").read_text()
    assert re.search(rf"is locked; .* `make resume TARGET='\S+ \S+' CONFIG=\S+ SITE={site}`, which waits", said), said


def test_nothing_is_trained_twice(orphaned: Ended):
    for method in ("stem", "geneflow"):
        log = orphaned.place.folder / f"results/logs/train/tiny/new_patient/few/{method}/seed0.log"
        # Where the killed process could not note the end of the first job, Snakemake submits it again.
        again = len(jobs_of(orphaned.jobs, "train", method)) > 1
        assert ("has finished before; taken from" in log.read_text()) == again
        assert (" training units" in log.read_text()) == (not again)


def test_two_nodes_train_together_as_one_process_does(orphaned: Ended, finished: Place):
    assert {job["node"] for job in jobs_of(orphaned.jobs, "train", "stem")} == {"gpu[1-2]"}
    losses = [pd.read_csv(place.folder / STEM_LOSSES) for place in (orphaned.place, finished)]
    pd.testing.assert_frame_equal(*losses, rtol=1e-3, atol=1e-5)


# --- before anything is run -------------------------------------------------------------------------------------------


def test_the_preflight_finds_this_cluster_fit(cluster: Cluster, tmp_path: Path):
    done = preflight(cluster, tmp_path, REPO / "tests/cluster/site")
    assert done.returncode == 0, done.stdout
    for line in ("squeue works", "partition gpu: takes GPU jobs", "(cpu1): shares the folder"):
        assert line in done.stdout


def test_the_preflight_says_what_to_change(cluster: Cluster, tmp_path: Path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "config.yaml").write_text("slurm-status-command: sacct\nslurm-partition-config: partitions.yaml\n")
    (site / "partitions.yaml").write_text(
        "partitions: {cpu: {max_runtime: 99999, max_gpu: 1}, big: {max_runtime: 60}}\n"
    )
    done = preflight(cluster, tmp_path, site)
    assert done.returncode == 1
    for line in (
        "sacct does not work here (Slurm accounting storage is disabled); set slurm-status-command: squeue",
        "big does not exist; there are cpu, gpu",
        "cpu ends jobs after 1440 min; set its max_runtime to that",
        "cpu has no GPUs; remove its max_gpu",
    ):
        assert line in done.stdout, done.stdout


def preflight(cluster: Cluster, folder: Path, site: Path) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "stmorph.cluster", "--profile", str(REPO / "profiles/slurm"), "--profile", str(site)]
    where = {**variables(cluster), "PYTHONPATH": str(REPO / "src")}
    return subprocess.run(words, cwd=folder, env=where, capture_output=True, text=True, timeout=300)
