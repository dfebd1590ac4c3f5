"""A tiny study in both directions: what a run leaves, and what a second run does when something has changed."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import Place, copy_of, leftovers

pytestmark = pytest.mark.pipeline

RUNS = ("stem", "training_mean", "geneflow")
AT = "results/runs/tiny/new_patient/few"


# --- what is there ----------------------------------------------------------------------------------------------------


def test_every_target_is_made(finished: Place):
    for table in ("expression", "pictures"):
        for kind in ("csv", "md", "html"):
            assert (finished.folder / f"results/tables/{table}.{kind}").stat().st_size > 100
    for figure in ("figures/maps", "figures/samples", "importance/genes/importance"):
        assert (finished.folder / f"results/{figure}.png").read_bytes().startswith(b"\x89PNG")
    for name in ("importance", "enrichment", "prerank"):
        assert len(pd.read_csv(finished.folder / f"results/importance/genes/{name}.csv"))


def test_tables_hold_what_was_measured(finished: Place):
    expression = pd.read_csv(finished.folder / "results/tables/expression.csv").set_index("row")
    assert list(expression.index) == ["stem", "training_mean"]
    assert (expression["measured"] > 0).all() and expression["measured"].nunique() == 2
    split = pd.read_parquet(finished.folder / "results/splits/tiny/new_patient/split.parquet")
    assert (expression["n"] == (split["role"] == "test").sum()).all()
    pictures = pd.read_csv(finished.folder / "results/tables/pictures.csv").set_index("row")
    assert -1 <= pictures.loc["geneflow", "measured"] < 1
    assert (
        "A caption about ssim that nobody else has." in (finished.folder / "results/tables/pictures.html").read_text()
    )


@pytest.mark.parametrize("method", RUNS)
def test_a_run_is_a_folder(finished: Place, method: str):
    run = finished.folder / AT / method / "seed0"
    files = {path.name for path in run.iterdir() if path.is_file()}
    expected = {"model.safetensors", "model.json", "samples.zarr.zip", "scores.parquet", "losses.csv"}
    assert expected | {"genes.parquet", "provenance.json"} == files
    record, provenance = (json.loads((run / name).read_text()) for name in ("model.json", "provenance.json"))
    assert record["method"] == method and record["spec"]["genes"] == _panel(finished)
    assert provenance["digests"] == record["digests"]
    scores = pd.read_parquet(run / "scores.parquet")
    assert len(scores) and set(scores["method"]) == {method}


def test_only_the_held_out_patient_is_tested(finished: Place):
    split = pd.read_parquet(finished.folder / "results/splits/tiny/new_patient/split.parquet")
    assert set(map(tuple, split[["patient", "role"]].drop_duplicates().to_numpy())) == {("P1", "train"), ("P2", "test")}
    report = json.loads((finished.folder / "results/splits/tiny/new_patient/leakage.json").read_text())
    assert report["leaks"] == [] and report["patients"] == {"train": ["P1"], "test": ["P2"]}


def test_every_job_leaves_a_log_and_a_benchmark(finished: Place):
    results = finished.folder / "results"
    logs = {path.relative_to(results / "logs").with_suffix("") for path in results.glob("logs/**/*.log")}
    benchmarks = {
        path.relative_to(results / "benchmarks").with_suffix("") for path in results.glob("benchmarks/**/*.tsv")
    }
    assert logs == benchmarks and len(logs) == 29
    assert [path for path in results.glob("logs/**/*.log") if not path.stat().st_size] == []


def test_nothing_half_written_is_left(finished: Place):
    assert leftovers(finished.folder) == []
    models = {path.parent.parent.name for path in finished.folder.glob("results/work/*/finished/files.json")}
    assert models == {path.name for path in finished.folder.glob("results/work/*")} and models


def test_the_truth_is_no_input_of_a_reader_or_a_method(finished: Place):
    """Only the simulator's own jobs may name its answers."""
    output = (finished.folder.parent / "output.txt").read_text()
    inputs = re.findall(r"^(?:local)?rule (\w+):\n +input: (.+)$", output, flags=re.MULTILINE)
    assert {"slide", "tiles", "train", "sample"} <= {rule for rule, _ in inputs}
    assert [rule for rule, files in inputs if "truth" in files] == []


# --- what is made again -----------------------------------------------------------------------------------------------


def test_a_second_run_has_nothing_to_do(finished: Place):
    assert finished.plan() == {}


def test_touched_sources_comments_and_copied_results_rerun_nothing(finished: Place, tmp_path: Path):
    copied = copy_of(finished, tmp_path)
    root = tmp_path / "repository"
    shutil.copytree(finished.root, root)
    for path in [*root.glob("src/stmorph/**/*.py"), *root.glob("workflow/scripts/*.py")]:
        path.write_text(path.read_text() + "\n# A comment that was not there before.\n")
    assert replace(copied, root=root).plan() == {}


@pytest.mark.parametrize(
    ("part", "change", "trained"), [("training", {"steps": 7}, {"train": 1}), ("sampling", {"draws": 3}, {})]
)
def test_a_changed_option_reruns_its_method_alone(
    finished: Place, tmp_path: Path, part: str, change: dict, trained: dict
):
    study = finished.study()
    study["methods"]["stem"][part] |= change
    planned = replace(finished, config=tmp_path / "study.yaml").write(study).plan()
    assert planned == {**trained, "sample": 1, "score": 1, "table": 1, "figure": 1}


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["tables/render.py", "figures/prediction_maps.py"], {"table": 2, "figure": 1}),
        (["methods/stem/__init__.py"], {"train": 1, "sample": 1, "score": 1, "table": 1, "figure": 1}),
        (
            ["panels.py"],
            {
                **{"panel": 1, "train": 3, "sample": 3, "score": 3, "table": 2, "figure": 2},
                **{"importance": 1, "enrichment": 1},
            },
        ),
    ],
)
def test_a_changed_module_reruns_its_users(finished: Place, tmp_path: Path, modules: list[str], expected: dict):
    root = tmp_path / "repository"
    shutil.copytree(finished.root, root)
    for module in modules:
        path = root / "src/stmorph" / module
        path.write_text(path.read_text() + "\nCHANGED = 1\n")
    assert replace(finished, root=root).plan() == expected


def _panel(place: Place) -> list[str]:
    lines = (place.folder / "results/splits/tiny/new_patient/panels/few.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]
