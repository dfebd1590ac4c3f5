"""What the README and its neighbours say is there, is there; what can be configured, is told; the examples work."""

import importlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import BaseModel
from training_toys import toy_spec, toy_units

import stmorph.config.closed
import stmorph.config.dataset_schema
import stmorph.config.method_schema
import stmorph.config.schema
import stmorph.encoders.facts
import stmorph.methods
from stmorph.config.dataset_schema import DatasetConfig
from stmorph.config.load import load_study
from stmorph.config.options import check_options
from stmorph.config.plan import Plan
from stmorph.encoders.load import ENCODERS, options_class
from stmorph.figures import figure_kinds, load_figure
from stmorph.methods import registry
from stmorph.methods.base import MethodOptions
from stmorph.read import READERS
from stmorph.samples.draw import draw_samples
from stmorph.training.fit import fit_or_train, new_method
from stmorph.training.options import TrainingOptions

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
KEYS = (ROOT / "config" / "README.md").read_text("utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "config/README.md", "CHANGELOG.md", "docs/own_slides.md")
MADE_BY_RUNS = ("results/", "downloads/")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def named_blocks() -> dict[str, str]:
    """Return path -> text of the README's examples whose first line names their file."""
    found = {}
    for text in blocks(README, "(?:yaml|python)"):
        if match := re.search(r"# ((?:config|src)/\S+)$", text.partition("\n")[0]):
            found[match[1]] = text
    return found


# --- config/README.md -------------------------------------------------------------------------------------------------


def configurable() -> dict[str, type[BaseModel]]:
    """Return every model that a user can configure, by module and name."""
    closed = stmorph.config.closed.Closed
    models = {
        f"{schema.__name__.removeprefix('stmorph.')}.{k}": v
        for schema in (stmorph.config.schema, stmorph.config.method_schema, stmorph.config.dataset_schema)
        for k, v in vars(schema).items()
        if _of(v, closed, schema)
    }
    others = [
        "image.tiles.TilingOptions",
        "image.stain_options.StainOptions",
        "image.windows.WindowOptions",
        "training.options.TrainingOptions",
        "simulate.options.SimulationOptions",
        "read.visium_hd.PoolOptions",
        "importance.options.ImportanceOptions",
    ]
    classes = [_load(name) for name in others]
    classes += [options_class(name) for name in ENCODERS]
    classes += [reader.Options for reader in READERS.values()]
    classes += [load_figure(kind).Options for kind in figure_kinds()]
    classes += [registry.load_method(name).Options for name in registry.method_names()]
    models |= {f"{kind.__module__.removeprefix('stmorph.')}.{kind.__name__}": kind for kind in classes}
    return {name: kind for name, kind in models.items() if kind is not MethodOptions and kind.model_fields}


def _of(value, base, module) -> bool:
    own = isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    return own and value is not base


def _load(name: str) -> type[BaseModel]:
    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(f"stmorph.{module}"), kind)


def documented() -> dict[str, dict[str, str]]:
    """Return model -> key -> default, as the tables of config/README.md say."""
    found = {}
    for name, rest in re.findall(r"<!-- (\S+) -->\n\n\|.*\n\|-.*\n((?:\|.*\n)+)", KEYS):
        cells = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in rest.splitlines()]
        assert all(len(row) == 4 and row[3].rstrip(" |") for row in cells), f"{name} has a row that is not four cells"
        found[name] = {row[0].strip("`"): row[2] for row in cells}
    return found


def test_every_configurable_object_has_a_table_and_no_table_is_of_nothing():
    assert sorted(documented()) == sorted(configurable())


@pytest.mark.parametrize("name", sorted(documented()))
def test_a_table_holds_every_key_with_its_default(name):
    fields = _load(name).model_fields
    table = documented()[name]
    assert list(table) == list(fields)
    for key, field in fields.items():
        assert table[key] == _shown(field), key


def _shown(field) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    return f"`{json.dumps(value)}`"


def test_names_that_can_be_chosen_are_all_told():
    for name in ENCODERS:
        assert f"`{name}`" in KEYS and f"`{name}`" in README
    for name in (*READERS, *figure_kinds(), *registry.method_names()):
        assert f"`{name}`" in KEYS, name
    for reader in READERS.values():
        numbered = [role for role in reader.roles if role.startswith("part_")]  # told by the first and the last
        assert all(f"`{role}`" in KEYS for role in {*reader.roles} - {*numbered[1:-1]})


def test_the_encoders_of_the_readme_are_as_the_facts_say():
    rows = {row[0]: row for row in re.findall(r"^\| `(\S+)` \| (\S+) \| (\d+) \| (.+?) \| (yes|no) \|$", README, re.M)}
    facts = stmorph.encoders.facts.FACTS
    assert set(rows) == set(facts)
    for name, fact in facts.items():
        told = rows[name]
        assert told[1:] == (fact.hub_id, str(fact.dim), fact.licence, "yes" if fact.gated else "no")


# --- files, folders and targets that are named ------------------------------------------------------------------------


def paths_named(page: str) -> set[str]:
    text = re.sub(r"^```python\n.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)  # code is run below
    found = {target.partition("#")[0] for target in re.findall(r'(?:\]\(|src=")([^)"\s]+)', text)}
    for span in [*re.findall(r"`([^`\n]+)`", text), *(part for b in blocks(text, "sh") for part in b.split())]:
        if re.fullmatch(r"(\.?[A-Za-z_][\w.-]*/)+[\w.-]*|[A-Za-z]+\.(md|cff|toml)|Snakefile|LICENSE|Makefile", span):
            found.add(span)
    return {path for path in found if path and "://" not in path and not path.startswith(MADE_BY_RUNS)}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_folder_that_a_page_names_exists(page):
    text = (ROOT / page).read_text("utf-8")
    named = paths_named(text)
    assert page in ("CHANGELOG.md", "docs/own_slides.md") or len(named) > 5
    hub_ids = {fact.hub_id for fact in stmorph.encoders.facts.FACTS.values()}
    examples = set(named_blocks())
    # `her2st/` and the like are below the user's data_root, `config/datasets/her2st.yaml` lists them.
    data_roots = {f"{path.stem}/" for path in (ROOT / "config" / "datasets").glob("*.yaml")}
    missing = sorted(
        path
        for path in named - hub_ids - examples - data_roots - {"data_root/mine"}
        if not (ROOT / path).exists() and not ((ROOT / page).parent / path).exists()
    )
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_links_within_a_page_have_their_heading(page):
    text = (ROOT / page).read_text("utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_every_make_target_that_a_page_names_exists():
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        commands = [line for block in blocks(text, "sh") for line in block.splitlines()]
        commands += re.findall(r"`([^`\n]+)`", text)
        named = {match[1] for line in commands if (match := re.match(r"make ([a-z-]+)", line))}
        assert named <= there, page


def test_the_first_screen_shows_a_picture_and_the_two_commands():
    first = README.partition("\n## ")[0]
    assert first.count("<img ") == 1 and "make demo" in first and "make test" in first


def test_targets_come_before_the_options_that_swallow_words():
    commands = [line.partition("#")[0].split() for text in PAGES for line in _shell((ROOT / text).read_text("utf-8"))]
    snakemake = [words for words in commands if words and words[0] == "snakemake"]
    assert len(snakemake) >= 5
    for words in snakemake:
        for option in ("--config", "--configfile"):
            if option in words:
                after = words[words.index(option) + 1 :]
                values = after[: next((i for i, word in enumerate(after) if word.startswith("-")), len(after))]
                assert len(values) == 1, words


def _shell(page: str) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines()]


# --- examples ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def examples(tmp_path, monkeypatch) -> Path:
    """A copy of config/ with the README's files in it, and its method among the methods; returns the copy's root."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for name, text in named_blocks().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists() and not (ROOT / name).exists(), f"{name} of the README is a file already"
        path.write_text(text)
    methods = tmp_path / "src" / "stmorph" / "methods"
    for found in (ROOT / "src" / "stmorph" / "methods").iterdir():
        if found.name != "__pycache__":
            (methods / found.name).symlink_to(found)
    monkeypatch.setattr(registry, "_FOLDER", methods)
    monkeypatch.setattr(stmorph.methods, "__path__", [*stmorph.methods.__path__, str(methods)])
    return tmp_path


def test_the_data_set_and_the_study_of_the_readme_are_valid(examples):
    DatasetConfig.model_validate(yaml.safe_load((examples / "config/datasets/mine.yaml").read_text()))
    raw = yaml.safe_load((examples / "config" / "mine.yaml").read_text())
    study = load_study(raw, examples / "config")
    plan = Plan(study)
    check_options(study, plan)
    tested = [slide for slide in study.datasets["mine"].slides if slide in plan.tested_slides(plan.runs[0])]
    assert tested == ["S3"]
    assert {run.method for run in plan.runs} >= {"stem", "geneflow", "ridge", "training_mean"}


def test_the_encoders_of_the_readme_are_valid(examples):
    (text,) = [text for text in blocks(README, "yaml") if text.startswith("encoders:")]
    raw = yaml.safe_load((examples / "config" / "demo.yaml").read_text()) | yaml.safe_load(text)
    study = load_study(raw, examples / "config")
    check_options(study, Plan(study))
    assert list(study.config.encoders) == ["uni_conch", "phikon"]


def test_the_table_of_the_readme_is_a_target_with_the_new_method(examples):
    raw = yaml.safe_load((examples / "config" / "demo.yaml").read_text())
    (text,) = [text for text in blocks(README, "yaml") if "below `tables`" in text]
    raw["tables"] |= yaml.safe_load(text)
    study = load_study(raw, examples / "config")
    plan = Plan(study)
    check_options(study, plan)
    labels = [run.label for run in plan.table_runs("perceptron_and_ridge")]
    assert labels == ["perceptron", "perceptron-wide", "ridge"]


def test_the_method_of_the_readme_learns_and_draws(examples, tmp_path):
    kind = registry.load_method("perceptron")
    train, test = toy_units(n=200, seed=0), toy_units(n=50, seed=1)
    method = new_method(kind, kind.Options(width=32), toy_spec(train), seed=0)
    options = TrainingOptions(steps=150, batch_size=50, learning_rate=0.01, ema_decay=0.9, accelerator="cpu")
    trained = fit_or_train(method, train, options, 0, tmp_path / "work").method
    drawn = draw_samples(trained, test, 2, 0)
    assert drawn.shape == (50, 2, len(test.genes))
    error = np.square(drawn[:, 0] - test.expression).mean()
    by_mean = np.square(train.expression.mean(0) - test.expression).mean()
    assert error < 0.1 * by_mean
