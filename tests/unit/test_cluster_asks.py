"""What jobs ask SLURM for: from the config, in the plugin's words, and how memory grows."""

import asyncio
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from snakemake.resources import Resources
from study import ROOT, study, write_config

from stmorph.cluster.asks import Asks
from stmorph.cluster.memory import Growth, grown_mb, most_mb, told_to_stop
from stmorph.cluster.slurm import gpus_of, largest_nodes
from stmorph.cluster.study import job_asks
from stmorph.config.load import load_study
from stmorph.config.method_schema import JobRule
from stmorph.config.plan import Plan
from stmorph.config.workflow import Workflow
from stmorph.errors import ConfigError
from stmorph.training.signals import STOPPED

NODES = """\
NodeName=c1 Gres=(null) OS=Linux 6.1 RealMemory=9000 MemSpecLimit=1000 State=IDLE Partitions=cpu,long
NodeName=g1 Gres=gpu:a100:4(S:0-1) RealMemory=16000 Partitions=gpu,mixed
NodeName=g2 Gres=gpu:2 RealMemory=64000 Partitions=gpu
NodeName=g3 RealMemory=99000 Partitions=mixed
"""


class Wildcards(SimpleNamespace):
    """As Snakemake gives them to a rule's functions."""

    def items(self):
        return vars(self).items()


def of_run(label: str) -> Wildcards:
    return Wildcards(dataset="toy", split="new_patient", panel="few", label=label, seed="0")


@pytest.fixture
def asks_of(tmp_path):
    """Return what a study asks for whose method `stem` has these resources and this training."""
    config = write_config(tmp_path)

    def make(resources=None, training=None, rules=None, site=None, **how) -> Asks:
        methods = {"stem": {"resources": resources or {}, "training": training or {}}}
        loaded = load_study(study(methods=methods, resources=rules or {}), config)
        site = Resources.parse(site, allow_expressions=True) if site else None
        return Asks(Workflow(loaded, Plan(loaded), None, {}), site=site, **how)

    return make


def asked(found: dict, wildcards: Wildcards, attempt: int = 1) -> dict:
    """Evaluate resources as Snakemake does; None is no resource."""
    at_hand = {"attempt": attempt, "threads": 1, "input": [], "rulename": "", "async_run": asyncio.run}
    values = {}
    for name, value in found.items():
        words = value.__code__.co_varnames[1 : value.__code__.co_argcount]
        values[name] = value(wildcards, **{word: at_hand[word] for word in words})
    return {name: value for name, value in values.items() if value is not None}


# --- what the config says ---------------------------------------------------------------------------------------------


def test_a_job_that_asks_for_nothing_has_the_rules_own_and_no_further_key(asks_of):
    asks = asks_of()
    assert asked(asks("slide", mem_mb=4000, runtime=30), Wildcards()) == {"mem_mb": 4000, "runtime": 30, "gpu": 0}
    assert set(asks("train")) == {"mem_mb", "runtime", "gpu"}
    assert asks.cpus("slide")(Wildcards()) == 1


def test_a_study_says_what_a_rules_jobs_ask_for(asks_of):
    asks = asks_of(rules={"tiles": {"mem_mb": 9000, "partition": "big", "cpus": 4, "constraint": "nvme"}})
    found = asked(asks("tiles", mem_mb=4000, runtime=60), Wildcards())
    assert found == {"mem_mb": 9000, "runtime": 60, "gpu": 0, "slurm_partition": "big", "constraint": "nvme"}
    assert asks.cpus("tiles")(Wildcards()) == 4
    assert "slurm_partition" not in asks("slide", mem_mb=4000, runtime=60)


def test_every_rule_that_runs_on_a_cluster_can_be_told_what_to_ask_for():
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    named = set(re.findall(r'asks\(\s*"(\w+)"', rules))
    assert named == {*get_args(JobRule), "train", "sample"}
    assert set(re.findall(r'asks\.cpus\("(\w+)"', rules)) == named
    each = re.split(r"^ *rule(?: \w+)?:", rules, flags=re.MULTILINE)[1:]
    assert len(each) > 20 and all("localrule: True" in text or "asks(" in text for text in each)


def test_a_method_says_what_its_jobs_ask_for_and_where_sampling_and_scoring_differ(asks_of):
    own = {"gpu": 2, "mem_mb": 8000, "runtime": 600, "partition": "gpu", "account": "lab", "gpu_model": "a100"}
    own |= {"qos": "high", "slurm_extra": "--exclude=n7"}
    own |= {"sampling": {"gpu": 0, "partition": "cpu"}, "scoring": {"runtime": 9}}
    asks = asks_of(own, {"devices": 2, "cpu_threads": 3}, rules={"score": {"qos": "low", "runtime": 8}})
    train = asked(asks("train"), of_run("stem"))
    assert train == {
        "mem_mb": 8000,
        "runtime": 600,
        "gpu": 2,
        "slurm_partition": "gpu",
        "slurm_account": "lab",
        "gpu_model": "a100",
        "qos": "high",
        "slurm_extra": "--exclude=n7",
    }
    # A model is one of GPUs: without, nothing is said of it.
    expected = {key: value for key, value in train.items() if key != "gpu_model"}
    assert asked(asks("sample"), of_run("stem")) == expected | {"gpu": 0, "slurm_partition": "cpu"}
    score = asked(asks("score", mem_mb=3000, runtime=60), of_run("stem"))
    assert score == {"mem_mb": 3000, "runtime": 9, "gpu": 0, "qos": "low"}
    # Two processes on one node, each with its threads; sampling and scoring are one process.
    assert [asks.cpus(rule)(of_run("stem")) for rule in ("train", "sample", "score")] == [6, 3, 1]
    # Another method of the same rule asks for none of that.
    assert asked(asks("train"), of_run("ridge")).keys() == {"mem_mb", "runtime", "gpu"}


def test_sampling_takes_one_gpu_of_those_that_train(asks_of):
    assert asked(asks_of({"gpu": 4})("sample"), of_run("stem"))["gpu"] == 1


def test_where_the_config_is_silent_the_sites_profile_holds(asks_of):
    site = ["slurm_partition='cheap' if attempt > 1 else 'fast'", "gpu_model=v100", "slurm_account=lab"]
    asks = asks_of({"partition": "own", "gpu": 1}, site=site)
    assert asked(asks("train"), of_run("stem"))["slurm_partition"] == "own"
    assert asked(asks("train"), of_run("ridge"))["slurm_partition"] == "fast"
    assert asked(asks("train"), of_run("ridge"), attempt=2)["slurm_partition"] == "cheap"
    assert "slurm_account" not in asks("train"), "what nobody asks for is left to Snakemake"
    assert asked(asks("train"), of_run("stem"))["gpu_model"] == "v100"
    assert "gpu_model" not in asked(asks("train"), of_run("ridge"))


def test_a_rule_asks_for_gpus_or_for_the_sites_gres(asks_of):
    found = asks_of({"gpu": 2}, gres="gpu:a100:{gpu}")("train")
    assert asked(found, of_run("stem"))["gres"] == "gpu:a100:2"
    assert asked(found, of_run("ridge")).keys() == {"mem_mb", "runtime"}


def test_several_nodes_are_refused_where_no_job_is_submitted(asks_of, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    asks = asks_of({"gpu": 1}, {"nodes": 2, "batch_size": 6})
    stem, ridge = (asks.study.run(of_run(label)) for label in ("stem", "ridge"))
    asks.leave_without_nodes([ridge])
    with pytest.raises(SystemExit) as left:
        asks.leave_without_nodes([ridge, stem, stem])
    head, line = str(left.value.code).splitlines()
    assert head == "stmorph: the configuration has 1 problem:"
    assert re.fullmatch(r"  - methods.stem: training.nodes is 2, .*expected 1 here: .* --profile profiles/slurm", line)
    asks_of(
        {"gpu": 1}, {"nodes": 2, "batch_size": 6}, executor=lambda: SimpleNamespace(partition_config=None)
    ).leave_without_nodes([stem])
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # inside a job, which has nodes
    asks.leave_without_nodes([stem])


@pytest.mark.parametrize("gres", ["gpu:1", 3])
def test_a_gres_without_a_number_is_refused(asks_of, gres):
    with pytest.raises(ConfigError, match=r"gres is .*\{gpu\}"):
        asks_of(gres=gres)


def test_a_training_on_several_nodes_asks_for_processes_spread_evenly(asks_of):
    training = {"nodes": 2, "devices": 3, "cpu_threads": 4, "batch_size": 6}
    asks = asks_of({"gpu": 3, "slurm_extra": "--exclusive"}, training)
    train = asked(asks("train"), of_run("stem"))
    extra = "--ntasks-per-node=3 --gpus-per-node=3 --exclusive"
    several = {"nodes": 2, "tasks": 6, "tasks_per_gpu": 0, "mpi": "srun", "gpu": 6, "slurm_extra": extra}
    assert several.items() <= train.items()
    assert asks.cpus("train")(of_run("stem")) == 4, "of each process"
    assert not {"nodes", "tasks", "mpi"} & asked(asks("train"), of_run("ridge")).keys()
    assert not {"nodes", "tasks", "mpi"} & asks("sample").keys()
    # GRES are counted on each node.
    assert asked(asks_of({"gpu": 3}, training, gres="gpu:{gpu}")("train"), of_run("stem"))["gres"] == "gpu:3"


def test_the_preflight_knows_what_a_study_asks_for(asks_of):
    own = {"gpu": 2, "mem_mb": 7000, "runtime": 5000, "partition": "gpu", "sampling": {"gpu": 0, "partition": "cpu"}}
    asks = job_asks(asks_of(own, rules={"tiles": {"mem_mb": 9000}}).study.plan)
    assert (asks["gpus"], asks["runtime"]) == (2, 5000)
    assert {(7000, 2, "gpu"), (7000, 0, "cpu"), (9000, 0, None)} <= asks["requests"]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_grows_with_attempts_but_not_for_ever():
    growth = Growth()
    assert [growth.times("job", attempt, lambda: False) for attempt in (1, 2, 3, 4, 5)] == [1, 2, 3, 3, 3]
    assert growth.times("another", 1, lambda: False) == 1


def test_memory_does_not_grow_after_an_attempt_that_was_told_to_stop():
    growth = Growth()
    ends = {2: True, 3: False, 4: True, 5: True}  # attempt -> how the one before it ended
    found = [growth.times("job", attempt, lambda attempt=attempt: ends[attempt]) for attempt in (1, 2, 2, 3, 4, 5)]
    assert found == [1, 1, 1, 2, 2, 2]


def test_a_log_tells_whether_the_training_was_told_to_stop(tmp_path):
    log = tmp_path / "a.log"
    assert not told_to_stop(log)
    log.write_text(f"{'x' * 9000}\n{STOPPED} 15: saved after step 3 of 9\n")
    assert told_to_stop(log)
    log.write_text(f"{STOPPED} 15\n{'x' * 9000}")
    assert not told_to_stop(log)


def test_no_request_grows_beyond_what_a_node_has():
    assert grown_mb(8000, 3, None) == 24000
    assert grown_mb(8000, 3, 20000) == 20000
    assert grown_mb(8000, 2, 4000) == 8000, "as the user wrote it; SLURM refuses it"


def test_nodes_are_read(monkeypatch, tmp_path):
    scontrol(monkeypatch, tmp_path)
    assert largest_nodes(0) == {"cpu": 8000, "long": 8000, "gpu": 64000, "mixed": 99000}
    assert largest_nodes(1) == {"gpu": 64000, "mixed": 16000}
    assert largest_nodes(3) == {"gpu": 16000, "mixed": 16000}
    assert gpus_of("gpu:2,gpu:a100:4(S:0-1)") == 4 and gpus_of("(null)") == 0


def test_the_largest_request_is_that_of_the_partitions_that_fit(monkeypatch, tmp_path):
    scontrol(monkeypatch, tmp_path)
    assert most_mb({}, 0, None) == 99000
    assert most_mb({"cpu": {}, "gpu": {"max_gpu": 4, "max_mem_mb": 50_000}}, 0, None) == 50_000
    assert most_mb({"cpu": {}, "gpu": {"max_gpu": 4}}, 4, None) == 16000, "the node with four GPUs"
    assert most_mb({"gpu": {"max_gpu": 4}}, 0, "cpu") == 8000
    assert most_mb({}, 0, "elsewhere") is None
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    assert most_mb({"cpu": {}}, 0, None) is None, "SLURM does not answer"


def test_a_training_that_fails_asks_for_more_up_to_the_largest_node_and_not_after_a_time_limit(
    asks_of, monkeypatch, tmp_path
):
    scontrol(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    partitions = tmp_path / "partitions.yaml"
    partitions.write_text("partitions: {cpu: {max_mem_mb: 7000}, gpu: {max_gpu: 4}}\n")
    asks = asks_of({"mem_mb": 3000}, executor=lambda: SimpleNamespace(partition_config=partitions))
    memory = asks("train", log="{label}-{seed}.log")["mem_mb"]
    assert [memory(of_run("stem"), attempt) for attempt in (1, 2, 3, 4)] == [3000, 6000, 9000, 9000]
    Path("ridge-0.log").write_text(f"{STOPPED} 15")
    first = asked(asks("train", log="{label}-{seed}.log"), of_run("ridge"))["mem_mb"]
    assert memory(of_run("ridge"), 2) == first
    # Only nodes with the GPUs count.
    gpu = asks_of({"mem_mb": 7000, "gpu": 4}, executor=lambda: SimpleNamespace(partition_config=partitions))("train")[
        "mem_mb"
    ]
    assert [gpu(of_run("stem"), attempt) for attempt in (1, 2, 3)] == [7000, 14000, 16000]
    # A job's own Snakemake asks nobody.
    monkeypatch.setenv("PATH", "")
    assert asks_of({"mem_mb": 7000})("train")["mem_mb"](of_run("stem"), 3) == 21000


def scontrol(monkeypatch, folder: Path) -> None:
    tool = folder / "scontrol"
    tool.write_text(f"#!/bin/sh\ncat <<'X'\n{NODES}X\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_what_large_input_adds_grows_with_the_attempts(asks_of):
    asks = asks_of(resources={"mem_mb": 5000})
    found = asks("train", more_mb=lambda wildcards: 700 if wildcards.dataset == "toy" else 0)
    assert [asked(found, of_run("stem"), attempt)["mem_mb"] for attempt in (1, 2)] == [5700, 11_400]
    assert asked(asks("train"), of_run("stem"))["mem_mb"] == 5000
