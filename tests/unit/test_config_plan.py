"""What a study amounts to: runs, folds, shuffled twins, the cells of tables, paths."""

import pytest
import yaml
from study import ROOT, study, write_config

from stmorph.config.load import load_study, merge
from stmorph.config.plan import Paths, Plan
from stmorph.config.workflow import open_study
from stmorph.errors import ConfigError


@pytest.fixture
def plan_of(tmp_path):
    config = write_config(tmp_path)
    return lambda **changes: Plan(load_study(study(**changes), config))


def table(**run):
    """Return a table of one cell."""
    return {
        "description": "One",
        "groups": [{"label": "all"}],
        "columns": [{"label": "MSE", "metric": "mse"}],
        "rows": [{"label": "row", "run": {"dataset": "toy", "split": "new_patient", "panel": "few", **run}}],
    }


def test_runs_of_a_papers_table(plan_of):
    plan = plan_of()
    folders = [run.folder for run in plan.runs]
    assert len(set(folders)) == len(folders)
    assert folders == [
        f"toy/new_patient/{panel}/{label}/seed{seed}"
        for panel, labels in (("few", ("ridge", "stem", "stem-shuffled")), ("many", ("ridge", "stem")))
        for label in labels
        for seed in (0, 1)
    ]


def test_cells_have_their_seeds_and_rows_without_run_have_none(plan_of):
    cells = plan_of().cells["paper_table"]
    assert [(cell.row, cell.group) for cell in cells] == [
        ("Stem", "few"),
        ("Stem", "many"),
        ("shuffled", "few"),
        ("Ridge", "few"),
        ("Ridge", "many"),
    ]
    assert all([run.seed for run in cell.runs] == [0, 1] for cell in cells)
    assert {run.panel for run in cells[1].runs} == {"many"}


def test_folds_are_runs(plan_of):
    plan = plan_of(tables={"paper_table": {"run": {"dataset": "toy", "split": "cv", "seeds": [7]}}})
    cell = plan.cells["paper_table"][0]
    assert [(run.split, run.seed) for run in cell.runs] == [("cv.fold0", 7), ("cv.fold1", 7), ("cv.fold2", 7)]


def test_a_shuffled_run_draws_from_its_paired_twin(plan_of):
    plan = plan_of(tables={"alone": table(method="stem", condition="shuffled")}, figures={})
    shuffled = plan.cells["alone"][0].runs[0]
    assert shuffled.label == "stem-shuffled" and shuffled.trained.label == "stem"
    assert shuffled.trained in plan.runs
    assert {k for k, v in shuffled.as_dict().items() if shuffled.trained.as_dict()[k] != v} == {"condition"}
    assert shuffled.trained.trained == shuffled.trained


def test_the_twin_of_a_shuffled_run_may_not_replace_another(plan_of):
    tables = {"one": table(method="stem"), "two": table(method="stem", condition="shuffled", sampling={"draws": 3})}
    with pytest.raises(
        ConfigError, match=r"tables\.two.* differs in sampling from another run .*stem/seed0; give it a variant"
    ):
        plan_of(tables=tables, figures={})
    tables["two"] = table(method="stem", condition="shuffled", sampling={"draws": 3}, variant="few_draws")
    labels = {run.label for run in plan_of(tables=tables, figures={}).runs}
    assert labels == {"stem", "stem-few_draws", "stem-few_draws-shuffled"}


def test_a_run_in_two_tables_is_one(plan_of):
    plan = plan_of(tables={"one": table(method="ridge"), "two": table(method="ridge")}, figures={})
    assert len(plan.runs) == 2
    assert plan.table_runs("one") == plan.table_runs("two") == plan.runs


def test_a_run_is_the_tables_then_the_rows_then_the_groups(plan_of):
    entry = table(method="ridge", options={"penalty": 2})
    entry["run"] = {"options": {"penalty": 1, "standardise": "slide"}, "target_space": "log2_counts", "seeds": [3]}
    entry["groups"] = [{"label": "all", "run": {"options": {"penalty": 3}}}]
    (run,) = plan_of(tables={"one": entry}, figures={}).runs
    assert run.options == {"penalty": 3, "standardise": "slide"}
    assert (run.target_space, run.seed, run.tiles, run.encoder) == ("log2_counts", 3, "spot", "morphometric")
    file = yaml.safe_load((ROOT / "config/methods/ridge.yaml").read_text())
    assert run.sampling["chunk"] == file["sampling"]["chunk"]


def test_presets_of_the_scale_and_overlays_of_the_study(tmp_path):
    config = write_config(tmp_path)
    file = yaml.safe_load((config / "methods/stem.yaml").read_text())
    for scale in ("full", "small", "smoke"):
        loaded = load_study(study(scale=scale, methods={"stem": {"training": {"steps": 7}}}), config).methods["stem"]
        preset = file["scales"][scale]
        assert loaded.options == {**file["options"], **preset.get("options", {})}
        assert loaded.training == {**file["training"], **preset.get("training", {}), "steps": 7}
        assert loaded.resources.gpu == preset.get("resources", file["resources"]).get("gpu")


def test_merge():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge(base, {"a": {"c": [3]}}, None, {"d": {"e": 1}}) == {"a": {"b": 1, "c": [3]}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_run_of_wildcards_and_its_paths(plan_of):
    plan, paths = plan_of(), Paths("results/toy")
    run = plan.run("toy", "new_patient", "few", "stem-shuffled", "1")
    assert run.condition == "shuffled" and run.seed == 1
    assert paths.run("scores.parquet", run) == "results/toy/runs/toy/new_patient/few/stem-shuffled/seed1/scores.parquet"
    assert paths.run("x") == "results/toy/runs/{dataset}/{split}/{panel}/{label}/seed{seed}/x"


def test_tested_slides(plan_of):
    splits = {
        "new_patient": {"dataset": "toy", "kind": "patients", "test": ["P1"]},
        "one": {"dataset": "toy", "kind": "slides", "test": ["s2"]},
        "cv": {"dataset": "toy", "kind": "folds", "of": "patients", "k": 2},
        "inside": {"dataset": "toy", "kind": "blocks", "test_fraction": 0.2, "block_um": 500, "buffer_um": 100},
    }
    tables = {name: table(method="ridge", split=name, seeds=[0]) for name in splits}
    plan = plan_of(splits=splits, tables=tables, figures={})
    found = {name: plan.tested_slides(plan.table_runs(name)[0]) for name in splits}
    assert found == {"new_patient": {"s1", "s2"}, "one": {"s2"}, "cv": {"s1", "s2", "s3"}, "inside": set()}


def test_the_workflow_of_a_study(tmp_path):
    write_config(tmp_path)
    workflow = open_study(study(), tmp_path)
    assert list(workflow.targets) == ["paper_table", "losses", "quality"]
    assert workflow.targets["losses"] == ("Losses", ["results/figures/losses.png"])
    cells = workflow.table_cells("paper_table")
    assert len(cells) == 5 and all(len(cell["scores"]) == len(cell["runs"]) == 2 for cell in cells)
    shuffled = workflow.plan.run("toy", "new_patient", "few", "stem-shuffled", 0)
    assert workflow.sample_inputs(shuffled)["model"] == [
        "results/runs/toy/new_patient/few/stem/seed0/model.safetensors"
    ]
    assert workflow.data_inputs(shuffled)["slides"] == [
        f"results/slides/toy/{slide}/slide.h5ad" for slide in ("s1", "s2", "s3")
    ]
    assert {run["label"] for run in workflow.figure_runs("losses")} == {"stem"}
    assert workflow.split_config("new_patient")[1] is None and workflow.split_config("cv.fold2")[1] == 2
    with pytest.raises(KeyError):
        workflow.split_config("cv")


def test_a_figure_gets_the_data_of_the_runs_it_shows(tmp_path):
    write_config(tmp_path)
    entry = table()
    entry["rows"] = [
        {"label": "predictor", "run": {"dataset": "toy", "split": "new_patient", "panel": "few", "method": "ridge"}},
        {
            "label": "generator",
            "run": {"dataset": "toy", "split": "new_patient", "panel": "many", "method": "geneflow"},
        },
    ]
    figures = {"samples": {"kind": "samples", "table": "one", "description": "Pictures"}}
    workflow = open_study(study(tables={"one": entry}, figures=figures), tmp_path)
    assert workflow.figure_inputs("samples")["panel"] == ["results/splits/toy/new_patient/panels/many.txt"]


@pytest.mark.parametrize("name", ["demo", "her2st"])
def test_the_repositorys_own_studies_are_sound(name):
    raw = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    loaded = load_study(raw, ROOT / "config")
    plan = Plan(loaded)
    assert {run.family for run in plan.runs} == {"generator", "predictor"}
    assert set(plan.cells) == set(raw["tables"])
