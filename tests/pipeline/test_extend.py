"""A method is one Python file and one YAML, a dataset one YAML, a table one entry; no rule knows any of them."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from conftest import Place, copy_of, jobs_of, leftovers, tiny_dataset

pytestmark = pytest.mark.pipeline

METHOD = '''
"""A floor below the floors: nothing is expressed anywhere."""

import torch

from .base import Batch, Method


class Nothing(Method):
    """Predicts 0."""

    family = "predictor"
    needs = frozenset()
    trains = "never"

    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return zeros, float32 [B, draws, G]."""
        return torch.zeros(*seeds.shape, len(self.spec.genes))


METHOD = Nothing
'''
METHOD_YAML = {"title": "Nothing", "family": "predictor", "description": "Nothing is expressed."}


@pytest.fixture(scope="module")
def extended(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A finished study to which a method, a dataset and a table are added."""
    base = tmp_path_factory.mktemp("extended")
    root = base / "repository"
    shutil.copytree(finished.root, root)
    (root / "src/stmorph/methods/nothing.py").write_text(METHOD)
    (root / "config/methods/nothing.yaml").write_text(yaml.safe_dump(METHOD_YAML))
    other = tiny_dataset([("C", "P3"), ("D", "P4")], spots=40)
    (root / "config/datasets/other.yaml").write_text(yaml.safe_dump(other))
    study = finished.study()
    study["datasets"].append("other")
    study["splits"]["other_patient"] = {"dataset": "other", "kind": "slides", "test": ["D"]}
    study["tables"]["added"] = {
        "description": "A table that was added",
        "run": {"panel": "few"},
        "groups": [
            {"label": "tiny", "run": {"dataset": "tiny", "split": "new_patient"}},
            {"label": "other", "run": {"dataset": "other", "split": "other_patient"}},
        ],
        "rows": [
            {"label": "nothing", "run": {"method": "nothing"}, "published": {"tiny": {"MAE": 1.0}}},
            {"label": "mean", "run": {"method": "training_mean"}, "only": ["tiny"]},
        ],
        "columns": [{"label": "MAE", "metric": "mae", "estimator": "mean", "better": "lower"}],
    }
    place = replace(copy_of(finished, base, study), root=root)
    return place, place.make()


def test_only_what_was_added_is_made(extended: tuple[Place, str]):
    expected = {"simulate_other": 2, "slide": 2, "tiles": 2, "split": 1, "panel": 1}
    made = {"train": 2, "sample": 2, "score": 2, "table": 1, "quality_page": 2, "quality_table": 1}
    assert jobs_of(extended[1]) == expected | made


def test_what_was_added_appears_in_the_table(extended: tuple[Place, str]):
    place, _ = extended
    table = pd.read_csv(place.folder / "results/tables/added.csv").set_index(["row", "group"])["measured"]
    assert set(table.index) == {("nothing", "tiny"), ("nothing", "other"), ("mean", "tiny")}
    assert table["nothing", "tiny"] > table["mean", "tiny"] > 0
    assert table["nothing", "tiny"] != table["nothing", "other"]
    ours = pd.read_csv(place.folder / "results/tables/expression.csv").set_index("row")["measured"]
    assert table["mean", "tiny"] == ours["training_mean"]


def test_an_added_dataset_is_read_like_any_other(extended: tuple[Place, str]):
    place, _ = extended
    split = pd.read_parquet(place.folder / "results/splits/other/other_patient/split.parquet")
    assert split.groupby("slide")["role"].unique().map(list).to_dict() == {"C": ["train"], "D": ["test"]}
    assert leftovers(place.folder) == []


def test_no_rule_was_touched(extended: tuple[Place, str], finished: Place):
    def workflow_of(place: Place) -> dict[str, bytes]:
        files = [path for path in sorted((place.root / "workflow").rglob("*")) if path.is_file()]
        return {path.relative_to(place.root).as_posix(): path.read_bytes() for path in files}

    assert workflow_of(extended[0]) == workflow_of(finished)
    for name, text in workflow_of(finished).items():
        for word in (b"geneflow", b"her2st", b"stem_table"):
            assert word not in text.lower(), f"{name} knows {word.decode()}"
