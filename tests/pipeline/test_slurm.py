"""A study on a real SLURM of one machine, through profiles/slurm and a site's small profile, with much going wrong.

The cluster is tests/cluster/cluster.py. What comes before training is taken from a finished study; training, sampling
and scoring run as cluster jobs. Once, in one run, because every cluster job starts Snakemake twice:
a training runs out of time, another one's node is lost, a third is cancelled, all sampling is out of memory at first.
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
    place = copy_of(finished, tmp_path_factory.mktemp("disturbed"), study)
    for made in (RUNS, "results/tables", "results/logs/train"):
        shutil.rmtree(place.folder / made)
    output = place.folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(command(place), cwd=place.folder, env=variables(cluster), stdout=file, stderr=file)
        try:
            noticed_s = disturb(cluster, place, output, process)
            status = process.wait(timeout=2 * PATIENCE_S)
        finally:
            if process.poll() is None:
                process.kill()  # asked politely it would wait for jobs of a cluster that is no more
                print(output.read_text())
    return Ended(place, status, output.read_text(), cluster.jobs(), noticed_s)


def command(place: Place, *flags: str) -> list[str]:
    """Return the command line of a user on the cluster; the first attempt at a sampling asks for too little memory."""
    sets = ["--set-resources", "sample:mem_mb=100 if attempt == 1 else 3500"]
    site = ["--profile", str(REPO / "tests/cluster/site"), *sets]
    words = place.command(*TARGETS, profile="slurm", flags=[*site, *flags])
    cores = words.index("--cores")
    return words[:cores] + words[cores + 2 :]


def variables(cluster: Cluster) -> dict[str, str]:
    return {**environment(), "PATH": cluster.environment["PATH"]}


def disturb(cluster: Cluster, place: Place, output: Path, process: subprocess.Popen) -> float:
    """Do what clusters do to jobs. Return after how long the cancelled one was noticed."""

    def alive() -> bool:
        return process.poll() is None

    def job(name: str) -> dict[str, str]:
        return until(lambda: running(cluster, f"train_wildcards_tiny_new_patient_few_{name}_0"), alive)

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


def running(cluster: Cluster, comment: str) -> dict[str, str] | None:
    found = (job for job in cluster.jobs() if job["state"] == "RUNNING" and job["comment"].endswith(comment))
    return next(found, None)


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
        command(disturbed.place, "-n"),
        cwd=disturbed.place.folder,
        env=variables(cluster),
        capture_output=True,
        text=True,
    )
    assert "Nothing to be done" in done.stdout + done.stderr


# --- where jobs ran ---------------------------------------------------------------------------------------------------


def test_jobs_land_in_the_partition_that_has_what_they_ask_for(disturbed: Ended):
    gpu = {job["comment"].rpartition("few_")[2] for job in disturbed.jobs if job["partition"] == "gpu"}
    cpu = {job["comment"].rpartition("few_")[2] for job in disturbed.jobs if job["partition"] == "cpu"}
    assert gpu == {"stem_0", "geneflow_0"}
    scored = {job["comment"].partition("_wildcards_")[0] for job in disturbed.jobs if job["partition"] == "cpu"}
    assert "training_mean_0" in cpu and scored == {"rule_train", "rule_sample", "rule_score"}


def test_no_node_runs_more_jobs_than_it_has_gpus(disturbed: Ended):
    for node in ("gpu1", "gpu2"):
        times = sorted((job["start"], job["end"]) for job in disturbed.jobs if job["node"] == node)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times)), times


# --- what the user is told --------------------------------------------------------------------------------------------


def test_a_job_out_of_time_goes_on_from_its_checkpoint(disturbed: Ended):
    assert "SLURM status is: 'TIMEOUT'" in disturbed.output
    run = disturbed.place.folder / RUNS / "stem/seed0"
    assert 0 < json.loads((run / "provenance.json").read_text())["resumed_at_step"] < STEPS
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
