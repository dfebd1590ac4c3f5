"""A study is checked once; later looks at it remember the outcome and import no method's libraries."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stmorph.config import checked
from stmorph.config.workflow import open_study

ROOT = Path(__file__).parents[2]
LOOK = """
import sys, yaml
from pathlib import Path
from stmorph.config.workflow import open_study
root = Path(sys.argv[1])
study = open_study(yaml.safe_load((root / "config/demo.yaml").read_text()), root)
needs = {run.method: sorted(study.needs(run)) for run in study.plan.runs}
print("torch" in sys.modules, needs["stem"], needs["geneflow"])
"""


@pytest.fixture
def demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())


def look(folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, ROOT], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def records(folder: Path) -> list[Path]:
    return sorted((folder / checked.FOLDER).glob("checked-*.json"))


def test_the_second_look_imports_no_torch_and_sees_the_same(tmp_path):
    first, second = look(tmp_path), look(tmp_path)
    assert first == "True ['embedding'] ['tiles']"
    assert second == first.replace("True", "False")


def test_another_option_is_checked_again(tmp_path, demo):
    open_study(demo, ROOT)
    assert len(records(tmp_path)) == 1
    open_study(demo, ROOT)
    assert len(records(tmp_path)) == 1
    changed = copy.deepcopy(demo)
    changed["methods"] = {"stem": {"options": {"blokcs": 3}}}
    with pytest.raises(SystemExit, match="did you mean 'blocks'"):
        open_study(changed, ROOT)
    with pytest.raises(SystemExit, match="did you mean 'blocks'"):  # a mistake is not remembered as none
        open_study(changed, ROOT)
    changed["methods"] = {"stem": {"options": {"blocks": 3}}}
    open_study(changed, ROOT)
    assert len(records(tmp_path)) == 2


def test_all_mistakes_are_told_at_once_though_the_study_was_checked(demo):
    open_study(demo, ROOT)
    demo["tables"]["stem_table1"]["run"]["split"] = "nowhere"
    demo["tiles"]["spot64"]["fov"] = 3
    with pytest.raises(SystemExit) as told:
        open_study(demo, ROOT)
    assert "nowhere" in str(told.value) and "fov" in str(told.value)


def test_a_damaged_record_is_not_believed(tmp_path, demo):
    first = open_study(demo, ROOT).facts
    (record,) = records(tmp_path)
    for damage in ("", "[]", "{}", '{"stem": {"needs": 3}}', record.read_text()[:40]):
        record.write_text(damage)
        assert open_study(demo, ROOT).facts == first


def test_old_records_are_cleared(tmp_path, demo, monkeypatch):
    monkeypatch.setattr(checked, "_KEPT", 2)
    for k in range(4):
        checked.remember(f"{k}", {})
        os.utime(records(tmp_path)[-1], (k, k))
    assert [path.stem for path in records(tmp_path)] == ["checked-2", "checked-3"]


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path, demo):
    (tmp_path / ".snakemake").write_text("a file where the folder would be")
    assert open_study(demo, ROOT).facts["ridge"].steps is False
