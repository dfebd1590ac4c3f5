"""Several processes that share a batch learn what one does with the whole of it, up to the order of sums."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stmorph.randomness import BatchRandom
from stmorph.training.options import TrainingOptions

HERE = Path(__file__).parent
SCRIPT = """
import json, sys
from pathlib import Path
from training_toys import train_to_files
if __name__ == "__main__":
    train_to_files(Path(sys.argv[1]), **json.loads(sys.argv[2]))
"""


def trained(folder: Path, **changes) -> tuple[pd.DataFrame, dict]:
    """Train the toy as a script of its own.

    Without dropout, which draws by itself in each process, and batch norm, whose statistics are each process's own.
    """
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src")])
    how = {"method_options": {"dropout": 0.0, "batch_norm": False}, "precision": "32", **changes}
    subprocess.run(
        [sys.executable, script, folder, json.dumps(how)],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    return pd.read_csv(folder / "losses.csv"), torch.load(folder / "weights.pt")


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
