"""The same config gives the same bytes: elsewhere, on other cores, after kills; what was stopped goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import TIMEOUT_S, Place, copy_of, environment, leftovers, new_place, tiny_dataset, tiny_study

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


# --- steps of data, killed --------------------------------------------------------------------------------------------

KILLER = Path(__file__).with_name("killed_steps.py")


def killed_steps(place: Place, *steps: str) -> None:
    """Kill each of some steps before one of its files is in its place, run it again, and compare all bytes."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")  # as the Snakefile has it
    done = subprocess.run(
        [sys.executable, str(KILLER), str(place.folder), *steps],
        env={**environment(), **threads, "PYTHONPATH": str(place.root / "src")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.partition(": 1 kills, ")[0] for line in done.stdout.splitlines() if "kills" in line]
    assert told == list(steps), done.stdout
    assert leftovers(place.folder) == []


def test_steps_from_files_to_embeddings_and_panels_are_whole_after_a_kill(finished: Place, tmp_path: Path):
    steps = ("simulate", "slide", "tiles", "embedding", "split", "panel", "quality", "quality_table")
    killed_steps(copy_of(finished, tmp_path), *steps)


def test_channels_and_tiles_without_expression_are_whole_after_a_kill(finished: Place, tmp_path: Path):
    truth = {"truth": "{slide}/truth.parquet", "truth_json": "{slide}/truth.json"}
    outs = {"counts": "cell_feature_matrix.h5", "cells": "cells.parquet", "boundaries": "cell_boundaries.parquet"}
    outs |= {"experiment": "experiment.xenium", "dapi": "morphology.ome.tif"}
    cells = tiny_dataset([("A", "P1")], platform="xenium", spots=30, xenium_um_per_px=2.0)
    cells |= {"reader": "xenium", "platform": "Xenium", "spot_diameter_um": None, "spot_pitch_um": None}
    cells["files"] = {role: f"{{slide}}/outs/{name}" for role, name in outs.items()} | truth
    cells["files"] |= {"image": "{slide}/he_image.ome.tif", "alignment": "{slide}/he_imagealignment.csv"}
    shards = tiny_dataset([("T", "P1")], platform="spider", spots=30, spider_slides=1, spider_tile_px=24)
    shards |= {"reader": "spider", "platform": "H&E tiles"}
    shards["files"] = {"image": "{slide}/spider-simulated.tar"} | truth
    study = tiny_study(datasets=["cells", "shards"], splits={}, tables={})
    study["tiles"]["spot104"]["channels"] = ["dapi", "cell_mask"]
    for name, dataset in (("cells", cells), ("shards", shards)):  # beside `tiny`, whose repository is compiled already
        (finished.root / f"config/datasets/{name}.yaml").write_text(yaml.safe_dump(dataset))
    place = new_place(tmp_path, study, root=finished.root)
    place.make("unpaired", "results/slides/cells/A/spot104/channels.npy", flags=["--skip-script-cleanup"])
    killed_steps(place, "channels", "unpaired")


# --- trainings --------------------------------------------------------------------------------------------------------


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
