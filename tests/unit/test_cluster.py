"""What is looked at on a cluster, without one: the answers of SLURM's commands are given here."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from stmorph.cluster import patience, preflight
from stmorph.cluster.findings import Wanted, job_words
from stmorph.cluster.node_checks import node_findings
from stmorph.cluster.partition_checks import (
    check_partitions,
    check_requests,
    cpu_partitions,
    gpu_partitions,
    gpu_words,
)
from stmorph.cluster.preflight import (
    check_account,
    check_disk,
    check_ends_of_jobs,
    check_environment,
    check_status_command,
    check_tokens,
)
from stmorph.cluster.profiles import defaults, partition_limits, read_profiles
from stmorph.cluster.slurm import (
    COMMANDS,
    Answer,
    Partition,
    configuration,
    minutes_of,
    missing_commands,
    partitions,
    seconds_of,
)
from stmorph.errors import ConfigError

ROOT = Path(__file__).parents[2]
CPU = Partition("cpu", default=True, up=True, minutes=1440, gpus=0, fields={"State": "UP"})
GPU = Partition("gpu", default=False, up=True, minutes=720, gpus=4, fields={"State": "UP"})
BOTH = {"cpu": CPU, "gpu": GPU}
WORKS, DISABLED = Answer(0, "", ""), Answer(1, "", "Slurm accounting storage is disabled\n")


def site(folder: Path, partitions: str | None = None, **settings) -> dict:
    """Return a profile with a partition file."""
    if partitions is not None:
        (folder / "partitions.yaml").write_text(partitions)
        settings["slurm-partition-config"] = str(folder / "partitions.yaml")
    return settings


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Put commands of SLURM on the PATH that say what a test wants: name -> lines of a shell script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(**scripts: str) -> None:
        for name, text in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)

    return put


def errors(findings) -> list[str]:
    return [finding.text for finding in findings if finding.level == "error"]


# --- GPUs -------------------------------------------------------------------------------------------------------------


def test_the_preflight_asks_as_a_job_does():
    assert gpu_words({}, 2) == ["--gpus=2"]
    assert gpu_words({"default-resources": ["gpu_model=a100"]}, 1) == ["--gpus=a100:1"]
    assert gpu_words({"config": {"gres": "gpu:v100:{gpu}"}}, 3) == ["--gres=gpu:v100:3"]
    wanted = Wanted({"default-resources": {"slurm_account": "lab"}}, Path())
    assert {"--partition=cpu", "--account=lab"} <= set(job_words(wanted, "cpu"))


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_no_pause_between_two_looks_is_longer_than_asked(monkeypatch):
    monkeypatch.setattr(
        RemoteExecutor, "next_seconds_between_status_checks", RemoteExecutor.next_seconds_between_status_checks
    )
    patience.look_every(45)
    kind = type("Executor", (RemoteExecutor,), {})
    kind.__abstractmethods__ = frozenset()
    executor = object.__new__(kind)  # the real beginning starts a thread
    for value, expected in ((30, 30), (180, 45), (45, 45)):
        executor.next_seconds_between_status_checks = value
        assert executor.next_seconds_between_status_checks == expected


# --- profiles ---------------------------------------------------------------------------------------------------------


def test_a_later_profile_replaces_whole_keys_and_means_paths_beside_it(tmp_path):
    for name, text in (("one", "retries: 3\ndefault-resources: {mem_mb: 1, runtime: 2}\n"), ("two", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    (tmp_path / "two/config.yaml").write_text("default-resources: [mem_mb=5]\nslurm-partition-config: p.yaml\n")
    (tmp_path / "two/p.yaml").write_text("partitions: {long: {max_runtime: 60}}\n")
    merged = read_profiles([tmp_path / "one", tmp_path / "two"])
    assert merged["retries"] == 3 and defaults(merged, "default-resources") == {"mem_mb": "5"}
    assert partition_limits(merged) == {"long": {"max_runtime": 60}}


def test_a_profile_that_is_none_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"has no profile.yaml or config.yaml"):
        read_profiles([tmp_path])
    (tmp_path / "config.yaml").write_text("- executor\n")
    with pytest.raises(ConfigError, match=r"config.yaml is list; expected a mapping"):
        read_profiles([tmp_path])
    with pytest.raises(ConfigError, match=r"nowhere.yaml; there is no such file"):
        partition_limits({"slurm-partition-config": "nowhere.yaml"})
    with pytest.raises(ConfigError, match="has no mapping `partitions`"):
        partition_limits(site(tmp_path, "cpu: {}\n"))


@pytest.mark.parametrize("name", ["profiles/slurm", "profiles/local", "tests/cluster/site"])
def test_every_value_of_a_profile_has_its_reason(name):
    lines = (ROOT / name / "config.yaml").read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if line and not line.startswith(("#", " "))]
    assert len(keys) > 2
    # Behind the value, in the line before, in the lines below it, or (the executor) in the head.
    for i in keys:
        below = lines[i + 1] if i + 1 < len(lines) and lines[i].endswith(":") else ""
        assert "#" in lines[i] or lines[i - 1].startswith("#") or "#" in below, lines[i]


# --- what the cluster says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("UNLIMITED", float("inf")), ("1-00:00:00", 1440), ("2-12", 3600), ("04:30:00", 270), ("45:30", 45.5), ("90", 90)],
)
def test_time_limits_are_read(limit, minutes):
    assert minutes_of(limit) == minutes


def test_durations_and_complaints_are_read():
    assert (seconds_of("300 sec"), seconds_of("INFINITE")) == (300, None)
    refused = Answer(1, "", "sbatch: error: Batch job submission failed: Invalid partition name\n")
    assert refused.why == "Batch job submission failed: Invalid partition name"
    assert Answer(7, "", "").why == "status 7"


@pytest.mark.parametrize(
    ("command", "age", "sacct", "level", "text"),
    [
        ("squeue", 300, DISABLED, "ok", "squeue works"),
        ("squeue", 60, DISABLED, "error", "ask the site for MinJobAge=90"),
        ("squeue", 60, WORKS, "warning", "set slurm-status-command: sacct"),
        ("sacct", 300, DISABLED, "error", "storage is disabled); set slurm-status-command: squeue"),
        ("sacct", 60, WORKS, "ok", "sacct works"),
    ],
)
def test_the_status_command_must_see_the_end_of_jobs(command, age, sacct, level, text):
    profile = read_profiles([ROOT / "profiles/slurm"]) | {"slurm-status-command": command}
    (finding,) = check_status_command(profile, {"MinJobAge": f"{age} sec"}, sacct)
    assert finding.level == level and text in finding.text


def test_jobs_that_do_not_come_back_are_told():
    told = list(check_ends_of_jobs({"PreemptMode": "CANCEL", "KillWait": "5 sec"}))
    assert [finding.level for finding in told] == ["warning", "warning"]
    assert "does not come back" in told[0].text and "checkpoint_minutes" in told[1].text
    assert list(check_ends_of_jobs({"PreemptMode": "REQUEUE", "KillWait": "30 sec"})) == []


def test_partitions_that_fit_say_nothing(tmp_path):
    profile = site(tmp_path, "partitions: {cpu: {max_runtime: 1440}, gpu: {max_runtime: 720, max_gpu: 4}}\n")
    wanted = Wanted(profile, tmp_path, gpus=1, runtime=600)
    assert list(check_partitions(wanted, BOTH)) == []
    assert (cpu_partitions(profile, BOTH), gpu_partitions(profile, BOTH)) == (["cpu"], ["gpu"])


@pytest.mark.parametrize(
    ("partitions", "said"),
    [
        ("cpu: {}, night: {max_gpu: 1}", "night does not exist; there are cpu, gpu"),
        ("cpu: {max_runtime: 2000}, gpu: {max_gpu: 4}", "cpu ends jobs after 1440 min; set its max_runtime to that"),
        ("cpu: {max_gpu: 1}, gpu: {max_gpu: 4}", "cpu has no GPUs; remove its max_gpu"),
        ("cpu: {max_runtime: 60}", "no partition of the profile has any"),
    ],
)
def test_partitions_that_do_not_fit_are_told(tmp_path, partitions, said):
    wanted = Wanted(site(tmp_path, f"partitions: {{{partitions}}}\n"), tmp_path, gpus=1)
    assert any(said in text for text in errors(check_partitions(wanted, BOTH)))


def test_a_partition_that_only_the_study_names_must_exist_too(tmp_path):
    wanted = Wanted({}, tmp_path, requests={(1000, 0, "cpu"), (1000, 0, "night")})
    (said,) = errors(check_partitions(wanted, BOTH))
    assert said == "night does not exist; there are cpu, gpu: mend `resources` of the study or its methods"


def test_a_partition_that_is_down_is_told(tmp_path):
    down = replace(CPU, up=False, fields={"State": "DRAIN"})
    wanted = Wanted(site(tmp_path, "partitions: {cpu: {}}\n"), tmp_path)
    assert errors(check_partitions(wanted, {"cpu": down})) == ["cpu is DRAIN; take another"]


def test_a_request_that_no_node_can_meet_is_told(tmp_path, commands):
    node = "NodeName=n1 RealMemory=8000 Partitions=cpu"
    commands(scontrol=f"echo '{node}'")
    wanted = Wanted({}, tmp_path, requests={(9000, 0, "cpu"), (7000, 0, None)})
    (said,) = errors(check_partitions(wanted, BOTH))
    assert said.startswith("a job asks for 9000 MB and the largest node in cpu with 0 GPUs has 8000; set mem_mb")


def test_a_job_that_slurm_would_refuse_is_told(tmp_path, commands):
    commands(
        sbatch="""case "$*" in *--gpus=2*) echo 'sbatch: error: Requested node configuration' >&2; exit 1;; esac"""
    )
    profile = site(tmp_path, "partitions: {cpu: {}, gpu: {max_gpu: 4}}\n")
    cpu, gpu = check_requests(Wanted(profile, tmp_path, gpus=2), BOTH)
    assert (cpu.level, cpu.about, cpu.text) == ("ok", "partition cpu", "takes jobs")
    assert gpu.level == "error" and "refuses GPU jobs (--gpus=2): Requested node configuration" in gpu.text


def test_a_job_longer_than_any_partition_is_told(tmp_path):
    wanted = Wanted(site(tmp_path, "partitions: {gpu: {max_runtime: 720, max_gpu: 4}}\n"), tmp_path, 1, 2880)
    (finding,) = check_partitions(wanted, BOTH)
    assert finding.level == "warning" and "asks for 2880 min and the longest GPU partition gives 720" in finding.text


def test_without_a_partition_file_there_must_be_a_default(tmp_path):
    named = {"default-resources": {"slurm_partition": "gpu"}}
    assert list(check_partitions(Wanted(named, tmp_path, gpus=1), BOTH)) == []
    assert errors(check_partitions(Wanted({}, tmp_path), {"gpu": GPU})) == [
        "there is no default one; name yours in the site's profile (slurm-partition-config)"
    ]


@pytest.mark.parametrize(
    ("lines", "touched", "level", "text"),
    [
        ("write=yes python=yes cache=yes", True, "ok", "shares the folder"),
        ("write=yes python=yes cache=yes", False, "error", "does not share"),
        ("write=yes python=no cache=yes", True, "error", "cannot start"),
        ("write=yes python=yes cache=no", True, "warning", "XDG_CACHE_HOME"),
        ("write=yes python=yes cache=yes gpu=no", True, "warning", "nvidia-smi"),
    ],
)
def test_what_a_node_lacks_is_told(tmp_path, lines, touched, level, text):
    answer = Answer(0, "\n".join(["node=n1", *lines.split()]), "")
    (finding,) = node_findings("cpu", answer, touched, Wanted({}, tmp_path), conda=False)
    assert finding.level == level and text in finding.text and "n1" in finding.about


def test_a_node_without_conda_is_told_where_it_is_needed(tmp_path):
    answer = Answer(0, "node=n1\nwrite=yes\npython=no\ncache=yes\nconda=no", "")
    (finding,) = node_findings("cpu", answer, True, Wanted({}, tmp_path), conda=True)
    assert finding.level == "error" and "no conda on its PATH" in finding.text


def test_a_busy_cluster_is_no_error(tmp_path):
    (finding,) = node_findings("cpu", Answer(124, "", ""), False, Wanted({}, tmp_path, wait_s=7), conda=False)
    assert finding.level == "warning" and "none was free within 7 s" in finding.text
    (finding,) = node_findings("cpu", Answer(1, "", "srun: error: Invalid account"), False, Wanted({}, tmp_path), False)
    assert finding.level == "error" and "no job runs there (Invalid account)" in finding.text


def test_tokens_that_are_not_there_are_told(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "x")
    monkeypatch.delenv("B_TOKEN", raising=False)
    there, missing = check_tokens({"A_TOKEN": "one", "B_TOKEN": "two"})
    assert there.level == "ok" and missing.level == "error" and "two cannot be fetched; export B_TOKEN=" in missing.text


@pytest.mark.parametrize(("free_gb", "level"), [(0.5, "error"), (5, "warning"), (50, "ok")])
def test_free_disk_is_looked_at(monkeypatch, tmp_path, free_gb, level):
    stat = SimpleNamespace(f_bavail=free_gb * 2**30 / 4096, f_frsize=4096)
    monkeypatch.setattr(preflight.os, "statvfs", lambda folder: stat)
    (finding,) = check_disk(tmp_path)
    assert finding.level == level and str(tmp_path) in finding.text and ("free some" in finding.text) == (level != "ok")


def test_a_configuration_that_jobs_lose_is_told(commands):
    commands(scontrol='test -n "$SLURM_CONF"')
    (finding,) = check_environment({"SLURM_CONF": "/there/slurm.conf"})
    assert finding.level == "error" and "jobs lose before srun" in finding.text
    commands(scontrol="true")
    assert list(check_environment({"SLURM_CONF": "/there/slurm.conf"})) == []


def test_a_start_from_within_a_job_is_told(commands):
    (finding,) = check_environment({"SLURM_JOB_ID": "7"})
    assert finding.level == "warning" and "on the login node" in finding.text


def test_an_account_that_is_needed_is_told_with_those_there_are(commands):
    commands(sacctmgr="echo lab; echo other; echo lab")
    enforced = {"AccountingStorageEnforce": "associations,limits"}
    (finding,) = check_account({}, enforced)
    assert finding.level == "warning" and finding.text == "set default-resources: slurm_account (one of lab, other)"
    commands(sacctmgr="exit 1")
    (finding,) = check_account({}, enforced)
    assert "as the site tells you" in finding.text
    assert list(check_account({"default-resources": {"slurm_account": "lab"}}, enforced)) == []
    assert list(check_account({}, {"AccountingStorageEnforce": "none"})) == []


def test_a_controller_that_does_not_answer_ends_the_look(tmp_path, commands):
    commands(**dict.fromkeys(COMMANDS, "exit 1") | {"scontrol": "echo 'Slurmctld is DOWN' >&2; exit 1"})
    last = list(preflight.check_cluster(Wanted({}, tmp_path)))[-1]
    assert (last.level, last.about) == ("error", "controller") and "no answer (Slurmctld is DOWN)" in last.text


def test_partitions_and_configuration_are_read_as_slurm_prints_them(commands):
    one = "PartitionName=gpu Default=NO MaxTime=12:00:00 State=UP"
    two = "PartitionName=cpu Default=YES MaxTime=UNLIMITED State=DOWN"
    settings = "MinJobAge = 300 sec\\nClusterName = a"
    show = f"""case "$*" in *config*) printf '{settings}\\n';; *) printf '{one}\\n{two}\\n';; esac"""
    commands(scontrol=show, sinfo="printf 'gpu|gpu:a100:2(S:0)\\ngpu|gpu:4\\ncpu|(null)\\n'")
    found = partitions()
    assert found["gpu"] == Partition("gpu", default=False, up=True, minutes=720, gpus=4)
    assert found["cpu"] == Partition("cpu", default=True, up=False, minutes=float("inf"), gpus=0)
    assert configuration() == {"MinJobAge": "300 sec", "ClusterName": "a"}


def test_without_slurm_the_preflight_stops_there(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sbatch" in missing_commands()
    last = list(preflight.check_cluster(Wanted({}, tmp_path)))[-1]
    assert (last.level, last.about) == ("error", "commands") and "log in to the cluster" in last.text
