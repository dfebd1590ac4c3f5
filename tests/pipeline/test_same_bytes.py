"""The same config gives the same bytes: elsewhere, on other cores, after kills; what was stopped goes on."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import TIMEOUT_S, Place, copy_of, environment, leftovers

pytestmark = pytest.mark.pipeline

# Benchmarks, logs, tensorboard and provenance tell of times and machines.
SAME = (
    "results/simulated/**/*",
    "results/slides/**/*",
    "results/splits/**/*",
    "results/tables/*",
    "results/runs/**/model.*",
    "results/runs/**/samples.zarr.zip",
    "results/runs/**/*.parquet",
    "results/runs/**/losses.csv",
)
RUN = "results/runs/tiny/new_patient/few/stem/seed0"
STEPS = 600


def products(place: Place) -> dict[str, bytes]:
    """Return every file that must not depend on where, when and how often it was made."""
    return {path: data for pattern in SAME for path, data in place.files(pattern).items()}


def start(place: Place, *targets: str, flags=()) -> subprocess.Popen:
    """Start Snakemake with its jobs in a process group of its own, its output in a file."""
    with (place.folder / "output.txt").open("w") as output:
        return subprocess.Popen(
            place.command(*targets, flags=flags),
            cwd=place.folder,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Tests that a shell runs in the background hand down that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def wait_for(process: subprocess.Popen, happened) -> bool:
    """Wait until something has happened or the process has ended; return whether it still runs."""
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and not happened():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)
    return process.poll() is None


def test_another_folder_and_one_core_give_the_same_bytes(finished: Place, tmp_path: Path):
    other = finished.elsewhere(tmp_path / "deep" / "down")
    other.make("expression", "pictures", cores=1)
    ours, theirs = products(other), products(finished)
    assert ours.keys() <= theirs.keys()  # the finished study has more targets
    assert len(ours) > 40
    assert [path for path in ours if ours[path] != theirs[path]] == []


def test_killed_at_random_moments_and_started_again_the_tables_are_the_same(finished: Place, tmp_path: Path):
    place = finished.elsewhere(tmp_path / "work")
    chance = random.Random(20261121)
    kills = 0
    for _ in range(2):
        process = start(place, "expression")
        jobs, delay = chance.randint(1, 6), chance.uniform(0, 3)
        output = place.folder / "output.txt"
        if wait_for(process, lambda: output.read_text().count("Finished jobid") >= jobs):  # noqa: B023
            time.sleep(delay)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        place.make(flags=["--unlock"])
    assert kills >= 1
    place.make("expression")
    for pattern in ("results/tables/expression.*", f"{RUN}/model.*", f"{RUN}/samples.zarr.zip", "results/slides/**/*"):
        assert place.files(pattern) == finished.files(pattern)
    assert leftovers(place.folder) == []
    assert place.plan("expression") == {}


def in_training(finished: Place, base: Path, steps: int) -> tuple[Place, subprocess.Popen]:
    """Return a study whose first system, asked for more steps than before, is being trained."""
    study = finished.study()
    study["methods"]["stem"]["training"] |= {"steps": steps, "checkpoint_minutes": 10, "log_every": 1}
    place = copy_of(finished, base, study)
    process = start(place, "expression")
    losses = "results/work/*/losses.csv"  # grows by a line a step
    training = wait_for(process, lambda: any(len(data.splitlines()) > 2 for data in place.files(losses).values()))
    assert training, (place.folder / "output.txt").read_text()
    return place, process


@pytest.fixture(scope="module")
def stopped(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, int]:
    """A study whose training got SIGTERM with all of its group, as a time limit or a shutdown sends it."""
    place, process = in_training(finished, tmp_path_factory.mktemp("stopped"), STEPS)
    os.killpg(process.pid, signal.SIGTERM)
    return place, process.wait(TIMEOUT_S)


def checkpoints(place: Place) -> list[Path]:
    return sorted(place.folder.glob("results/work/*/step-*.pt"))


def test_sigterm_saves_and_leaves_with_a_status(stopped: tuple[Place, int]):
    place, status = stopped
    assert status != 0
    assert len(checkpoints(place)) == 1
    assert not (place.folder / RUN / "model.safetensors").exists()
    assert list(place.folder.rglob(".partial-*")) == []


def test_a_damaged_checkpoint_is_told_and_a_whole_one_continued(stopped: tuple[Place, int]):
    place, _ = stopped
    checkpoint = checkpoints(place)[0]
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    place.run(flags=["--unlock"])
    failed = place.run("expression")
    assert failed.returncode != 0
    assert f"{checkpoint.name}" in failed.stdout and "delete the folder to train from the beginning" in failed.stdout
    assert "Traceback" not in failed.stdout
    checkpoint.write_bytes(whole)
    place.make("expression")
    provenance = json.loads((place.folder / RUN / "provenance.json").read_text())
    assert 0 < int(checkpoint.stem.removeprefix("step-")) == provenance["resumed_at_step"] < STEPS
    assert json.loads((place.folder / RUN / "model.json").read_text())["training"]["steps"] == STEPS
    assert leftovers(place.folder) == []


def test_ctrl_c_leaves_nothing_half_written(finished: Place, tmp_path: Path):
    place, process = in_training(finished, tmp_path, 100 * STEPS)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(TIMEOUT_S) != 0
    assert not (place.folder / RUN / "model.safetensors").exists()
    assert list(place.folder.rglob(".partial-*")) == []
    assert place.plan("expression") == {"train": 1, "sample": 1, "score": 1, "table": 1, "expression": 1}
