"""What a reviewer is given: tables from scores, scores from models, in an empty folder; and what `cost` counts."""

import shutil
import subprocess
import sys

import pytest
from conftest import Place, both_directions, copy_of, environment, new_place, tiny_study

pytestmark = pytest.mark.pipeline


def put(place: Place, *words: str) -> str:
    """Run the restore command in the working folder; it must succeed."""
    script = place.root / "workflow" / "scripts" / "restore.py"
    command = [sys.executable, str(script), *words, "--config", place.config.name]
    done = subprocess.run(
        command, cwd=place.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def archived(finished, tmp_path_factory) -> Place:
    """The finished study with its two bundles."""
    place = copy_of(finished, tmp_path_factory.mktemp("archived"))
    place.make("archive")
    return place


def empty(archived: Place, folder) -> Place:
    place = archived.elsewhere(folder)
    assert not (place.folder / "results").exists()
    return place


def test_tables_come_from_scores_alone_and_then_nothing_is_to_be_done(archived, tmp_path):
    place = empty(archived, tmp_path / "reviewer")
    put(place, "put", str(archived.folder / "results/bundles/tiny_scores.zip"))
    assert place.plan("tables") == {"table": 2, "tables": 1}
    place.make("tables")
    assert place.files("results/tables/*") == archived.files("results/tables/*")
    assert place.plan("tables") == {}
    assert not (place.folder / "results/slides").exists() and not (place.folder / "results/simulated").exists()


def test_scores_come_from_models_without_training(archived, tmp_path):
    place = empty(archived, tmp_path / "reviewer")
    put(place, "put", str(archived.folder / "results/bundles/tiny_models.zip"))
    plan = place.plan("scores", "tables")
    assert "train" not in plan and plan["sample"] == plan["score"] == 3
    place.make("scores", "tables")
    for pattern in ("results/tables/*", "results/runs/**/*.zip", "results/runs/**/*.parquet"):
        assert place.files(pattern) == archived.files(pattern)
    assert place.plan("scores", "tables") == {}


def test_what_was_forgotten_is_made_as_ever(archived, tmp_path):
    place = empty(archived, tmp_path / "reviewer")
    put(place, "put", str(archived.folder / "results/bundles/tiny_scores.zip"))
    assert "6 restored files removed" in put(place, "forget", "scores")
    assert {"train", "sample", "score"} <= set(place.plan("tables"))


def test_a_restore_where_the_study_had_run_leaves_nothing_to_do(archived, tmp_path):
    """Snakemake remembers how the files of these names were made; a restore must not look like a change of inputs."""
    place = copy_of(archived, tmp_path)
    shutil.rmtree(place.folder / "results")
    put(place, "put", str(archived.folder / "results/bundles/tiny_scores.zip"))
    assert place.plan("tables") == {"table": 2, "tables": 1}


def test_the_cost_list_counts_the_jobs_that_snakemake_would_run(tmp_path):
    place = new_place(tmp_path, both_directions(tiny_study()))
    output = place.make("cost", profile=None, flags=["--quiet", "all"])
    table = [line.split("|")[1:3] for line in output.splitlines() if line.startswith("| ")]
    (end,) = [i for i, (rule, _) in enumerate(table) if rule.strip() == "all rules"]
    counted = {rule.strip(): int(jobs) for rule, jobs in table[1:end]}
    assert counted == place.plan("all")
