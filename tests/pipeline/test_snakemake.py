"""What Snakemake itself says of the workflow: linter, targets, report, profiles, dry runs of the configs that ship."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import REPO, Place, copy_of

pytestmark = pytest.mark.pipeline

# What a browser would load from elsewhere; links to click on are no such thing.
OUTSIDE = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)\s*=\s*["']?(?:https?:)?//[^"'>]+""")


def drawn(config: Path) -> bool:
    """Return whether a study needs no data: all its tissue is simulated."""
    names = yaml.safe_load(config.read_text())["datasets"]
    datasets = [yaml.safe_load((REPO / f"config/datasets/{name}.yaml").read_text()) for name in names]
    return all(dataset.get("simulate") is not None for dataset in datasets)


DRAWN = [config.name for config in sorted((REPO / "config").glob("*.yaml")) if drawn(config)]


@pytest.fixture
def shipped(finished: Place, tmp_path: Path) -> Place:
    """The repository in an empty folder."""
    return replace(finished, folder=tmp_path)


@pytest.mark.parametrize("name", DRAWN)
def test_a_shipped_config_can_be_planned_at_once(shipped: Place, name: str):
    place = replace(shipped, config=shipped.root / "config" / name)
    planned = place.plan()
    tables = place.study()["tables"]
    assert planned["table"] == len(tables) and planned["train"] and planned["score"] >= planned["train"]
    assert not (place.folder / "results").exists()


def test_the_demo_is_lint_free(shipped: Place):
    place = replace(shipped, config=shipped.root / "config/demo.yaml")
    assert "Congratulations" in place.make(flags=["--lint"], profile=None)


def test_tables_and_figures_are_targets_with_a_description(shipped: Place):
    place = replace(shipped, config=shipped.root / "config/demo.yaml")
    named = place.make(flags=["--list-target-rules"], profile=None).split()
    study = place.study()
    assert {*study["tables"], *study["figures"], *study["importance"], "all", "demo", "targets"} <= set(named)


def test_the_slurm_profile_plans_every_job(shipped: Place):
    place = replace(shipped, config=shipped.root / "config/demo.yaml")
    planned = place.plan(profile="slurm")
    assert planned == place.plan(profile=None)


def test_the_report_is_one_page_with_tables_and_captions(finished: Place, tmp_path: Path):
    place = copy_of(finished, tmp_path)
    place.make(flags=["--report", str(tmp_path / "report.html")], profile=None)
    page = (tmp_path / "report.html").read_text()
    assert OUTSIDE.findall(page) == []
    for target in ("MAE of stem, training_mean", "SSIM of geneflow", "Maps of genes", "Genes that move the pictures"):
        assert target in page
    assert "Tiny study" in page
