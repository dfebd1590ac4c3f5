"""Several processes that share a batch learn what one does with the whole of it, up to the order of sums."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from stmorph.errors import CheckpointError, ConfigError, StmorphError
from stmorph.randomness import BatchRandom
from stmorph.training.checkpoints import Checkpoints
from stmorph.training.fabric import latest_of_all, new_fabric
from stmorph.training.nodes import STARTED, is_helper, train_on_nodes
from stmorph.training.options import TrainingOptions

HERE = Path(__file__).parent
SRUN = """#!{python}
# Starts what `srun` would, on one machine, with the variables that it sets; ends all when one fails.
import os, signal, subprocess, sys, time
words = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
first = next(i for i, word in enumerate(sys.argv[1:], 1) if not word.startswith("--"))
nodes, tasks, each = (int(words[f"--{{key}}"]) for key in ("nodes", "ntasks", "ntasks-per-node"))
assert tasks == nodes * each and "SLURM_STEP_ID" not in os.environ
shape = {{"SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": each, "SLURM_NNODES": nodes}}
ranks = []
for k in range(tasks):
    own = shape | {{"SLURM_PROCID": k, "SLURM_LOCALID": k % each, "SLURM_NODEID": k // each}}
    ranks.append(subprocess.Popen(sys.argv[first:], env=os.environ | {{key: str(value) for key, value in own.items()}}))
signal.signal(signal.SIGTERM, lambda number, frame: [rank.kill() for rank in ranks])
signal.signal(signal.SIGUSR1, lambda number, frame: [rank.send_signal(number) for rank in ranks])
while None in (ends := [rank.poll() for rank in ranks]):
    if any(ends):
        [rank.kill() for rank in ranks]
    time.sleep(0.05)
sys.exit(max(abs(end) for end in ends))
"""
SCRIPT = """
import json, sys
from pathlib import Path
from training_toys import train_to_files
if __name__ == "__main__":
    train_to_files(Path(sys.argv[1]), **json.loads(sys.argv[2]))
"""


def trained(folder: Path, **changes) -> tuple[pd.DataFrame, dict]:
    """Train the toy as a script of its own and return its losses and weights."""
    done = start(folder, **changes)
    assert done.wait(timeout=300) == 0, (folder / "output.txt").read_text()
    return pd.read_csv(folder / "losses.csv"), torch.load(folder / "weights.pt")


def start(folder: Path, **changes) -> subprocess.Popen:
    """Start the training of the toy; several nodes are processes here.

    Without dropout, which draws by itself in each process, and batch norm, whose statistics are each process's own.
    """
    folder.mkdir(exist_ok=True)
    srun = folder / "srun"
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(0o755)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src")])
    how = {"method_options": {"dropout": 0.0, "batch_norm": False}, "precision": "32", **changes}
    variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if "nodes" in changes:
        # Of the job's own step; its variables must not reach the processes.
        variables |= {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    with (folder / "output.txt").open("w") as output:
        words = [sys.executable, script, folder, json.dumps(how)]
        return subprocess.Popen(words, stdout=output, stderr=output, env=variables)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("alone") / "run")


def assert_alike(found, expected):
    columns = ["step", "learning_rate", "gradient_norm", "loss"]
    pd.testing.assert_frame_equal(found[0][columns], expected[0][columns], rtol=1e-3, atol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, weight in expected[1].items():
        np.testing.assert_allclose(found[1][name], weight, rtol=1e-3, atol=1e-4, err_msg=name)


def test_two_processes_have_the_loss_curve_and_weights_of_one(alone, tmp_path):
    assert_alike(trained(tmp_path / "two", devices=2), alone)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path, before, after):
    folder = tmp_path / "changed"
    trained(folder, devices=before, checkpoint_minutes=0)  # the last two checkpoints stay
    last = sorted((folder / "work").glob("step-*.json"))
    for path in last[1:]:  # as if it had stopped after the first of them
        path.unlink()
    step = json.loads(last[0].read_text())["step"]
    assert 0 < step < 60
    found = trained(folder, devices=after)
    assert json.loads((folder / "circumstances.json").read_text())["resumed_at_step"] == step
    assert_alike(found, alone)


def test_two_nodes_that_are_told_to_stop_go_on_and_have_the_loss_curve_and_weights_of_one_process(alone, tmp_path):
    folder = tmp_path / "nodes"
    process = start(folder, nodes=2, pause=0.05, checkpoint_minutes=60)
    end = time.monotonic() + 120
    while not (folder / "work/losses.csv").exists() or (folder / "work/losses.csv").read_text().count("\n") < 3:
        assert process.poll() is None and time.monotonic() < end, (folder / "output.txt").read_text()
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 143, (folder / "output.txt").read_text()
    (record,) = (folder / "work").glob("step-*.json")
    found = trained(folder, nodes=2)
    resumed = json.loads((folder / "circumstances.json").read_text())["resumed_at_step"]
    assert resumed == json.loads(record.read_text())["step"] > 0
    assert_alike(found, alone)


def test_several_nodes_are_refused_outside_slurm(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match=r"training.nodes is 2, which only a job of SLURM .*profiles/slurm"):
        train_on_nodes(2, 1, 1)
    with pytest.raises(ConfigError, match=r"training.nodes is 2"):
        new_fabric(TrainingOptions(nodes=2, accelerator="cpu"))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StmorphError, match=r"srun cannot be started .*training.nodes is 2"):
        train_on_nodes(2, 1, 1)
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "srun").chmod(0o755)
    with pytest.raises(StmorphError, match=r"on 2 nodes ended with status 3"):
        train_on_nodes(2, 1, 1)


@pytest.mark.parametrize(
    ("variables", "helps"),
    [
        ({}, False),
        ({"LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, True),
        ({"SLURM_PROCID": "1"}, False),  # a job's own; it trains alone
        ({STARTED: "1", "SLURM_PROCID": "0"}, False),
        ({STARTED: "1", "SLURM_PROCID": "2"}, True),
    ],
)
def test_one_process_has_the_files(monkeypatch, variables, helps):
    for name in ("LOCAL_RANK", "SLURM_PROCID", STARTED):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_helper() == helps


def test_processes_that_find_different_checkpoints_do_not_train_together(tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(4, {})
    other = SimpleNamespace(broadcast=lambda step: 8, global_rank=1)
    with pytest.raises(CheckpointError, match=r"process 1 finds the checkpoint of step 4 .* that of step 8"):
        latest_of_all(checkpoints, other, 9)


def test_every_process_draws_its_rows_of_the_whole_batch():
    def random(mine=slice(None)):
        rng = BatchRandom(torch.Generator().manual_seed(3), 6, mine)
        return rng.normal(2, 3), rng.uniform(), rng.integers(1000)

    whole, shares = random(), [random(slice(rank, None, 3)) for rank in range(3)]
    for k, values in enumerate(whole):
        together = torch.stack([share[k] for share in shares], 1).flatten(0, 1)
        assert torch.equal(together, values)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ValueError, match=r"batch_size is 9 over 2 devices; expected a multiple"):
        TrainingOptions(batch_size=9, devices=2)
    with pytest.raises(ValueError, match=r"batch_size is 6 over 2 devices on each of 2 nodes; expected a multiple"):
        TrainingOptions(batch_size=6, devices=2, nodes=2)
