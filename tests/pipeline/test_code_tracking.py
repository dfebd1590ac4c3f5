"""Code is tracked by content, not by time or place: what a clone, a move, a touch and a change rerun."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Place, copy_of

pytestmark = pytest.mark.pipeline


def clone(root: Path, to: Path) -> Path:
    """Return a fresh clone of the repository as it is, through git."""
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false"]
    shutil.copytree(root, to.with_name("origin"))
    for words in (
        ["init", "--quiet"],
        ["add", "--all", "--force"],
        [*who, "commit", "--quiet", "--message", "as it is"],
    ):
        subprocess.run(["git", *words], cwd=to.with_name("origin"), check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["git", "clone", "--quiet", to.with_name("origin"), to], check=True)
    shutil.rmtree(to.with_name("origin"))
    return to


@pytest.fixture(scope="module")
def moved(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The finished study in a fresh clone elsewhere, all of whose files are newer than the results."""
    base = tmp_path_factory.mktemp("moved")
    return replace(copy_of(finished, base), root=clone(finished.root, base / "clone"))


def test_a_fresh_clone_elsewhere_whose_files_are_all_newer_reruns_nothing(moved: Place):
    newest = max(path.stat().st_mtime for path in moved.folder.rglob("*") if path.is_file())
    assert min(path.stat().st_mtime for path in moved.root.rglob("*.py")) > newest
    assert moved.plan() == {}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # Imported by modules that scripts import, never by a script itself.
        (
            ["src/stmorph/figures/style.py"],
            {"figure": 2, "importance": 1, "enrichment": 1, "quality_page": 2, "quality_table": 1},
        ),
        # The frame of all scripts, a method of no run, one deep module, and one script.
        (
            [
                *("src/stmorph/job.py", "src/stmorph/methods/ridge.py", "src/stmorph/scores/estimators.py"),
                "workflow/scripts/quality_table.py",
            ],
            {"score": 3, "table": 2, "figure": 1, "quality_table": 1},
        ),
    ],
    ids=["an indirect import", "used by few and by none"],
)
def test_a_change_reruns_exactly_the_rules_that_use_it(moved: Place, files: list[str], expected: dict[str, int]):
    before = {moved.root / file: (moved.root / file).read_text() for file in files}
    for path, text in before.items():
        path.write_text(text + "\nCHANGED = 1\n")
    try:
        assert moved.plan() == expected
    finally:
        for path, text in before.items():
            path.write_text(text)
