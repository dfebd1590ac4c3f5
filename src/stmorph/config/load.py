"""Reads a study and everything it names, merges it, and tells every mistake at once before anything runs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from .check import Problems
from .dataset_schema import DatasetConfig
from .method_schema import MethodConfig
from .schema import PaperConfig, StudyConfig, TableConfig


@dataclass(frozen=True)
class Study:
    """A checked study: the config file and the dataset, method and paper files it names, merged."""

    config: StudyConfig
    datasets: dict[str, DatasetConfig]
    methods: dict[str, MethodConfig]
    tables: dict[str, TableConfig]
    papers: dict[str, PaperConfig]
    paper_of: dict[str, str]
    """Which paper a table is from; tables of the study's own are absent."""


def merge(base: Mapping[str, Any], *overlays: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `base` with overlays laid over it: mappings are merged key by key, everything else is replaced."""
    merged = dict(base)
    for overlay in overlays:
        for key, value in (overlay or {}).items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else value
    return merged


class _EachKeyOnce(yaml.SafeLoader):
    """YAML takes the last of two equal keys and says nothing: of two slides of one name, one would be gone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if lines.setdefault(key.value, line) != line and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(
                    f"the key {key.value!r} in line {line} stands in line {lines[key.value]} already; give each its "
                    "own name"
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML file's mapping.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, does not hold a mapping, or a key stands in it twice.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_EachKeyOnce)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; give the path of a config file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give the path of a YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}; expected keys and values")
    return content


def load_study(raw: Mapping[str, Any], config_dir: Path, source: str = "config") -> Study:
    """Return the checked study.

    Parameters
    ----------
    raw
        The content of a config file, with command-line overrides laid over it.
    config_dir
        The folder that holds `datasets/`, `methods/` and `papers/`.
    source
        What to call `raw` in messages.

    Raises
    ------
    ConfigError
        Lists every problem with its path, the value and the nearest allowed one.
    """
    problems = Problems()
    config = problems.validate(StudyConfig, dict(raw), source)
    if config is None:  # the files it names are still looked at, so that all is told at once
        config = StudyConfig.model_construct(**_readable(raw))

    datasets: dict[str, DatasetConfig] = {}
    for name, file, content in _named("datasets", config.datasets, config_dir, source, problems):
        if (dataset := problems.validate(DatasetConfig, content, _short(file))) is not None:
            datasets[name] = dataset

    _add_subsets(config, datasets, config_dir, source, problems)

    methods: dict[str, MethodConfig] = {}
    available = _names(config_dir / "methods")
    for name in config.methods:
        problems.known(f"{source}: methods", name, available, "method")
    for name, file, content in _named("methods", available, config_dir, source, problems):
        # What the file says at this scale is checked as the file's; what the study lays over it, as the study's.
        scales = content.get("scales")
        preset = scales.get(config.scale) if isinstance(scales, Mapping) else None
        at_scale = merge(content, preset if isinstance(preset, Mapping) else None)
        method = problems.validate(MethodConfig, at_scale, _short(file))
        if method is not None and (overlay := config.methods.get(name)):
            method = problems.validate(MethodConfig, merge(at_scale, overlay), f"{source}: methods.{name}")
        if method is not None:
            methods[name] = method

    papers: dict[str, PaperConfig] = {}
    tables: dict[str, Any] = {}
    paper_of: dict[str, str] = {}
    for name, file, content in _named("papers", config.papers, config_dir, source, problems):
        if (paper := problems.validate(PaperConfig, content, _short(file))) is not None:
            papers[name] = paper
            for table, entry in content["tables"].items():
                if table in paper_of:
                    problems.add(
                        f"{_short(file)}: tables.{table}", f"paper {paper_of[table]!r} has a table of this name"
                    )
                tables[table] = entry
                paper_of[table] = name
    checked: dict[str, TableConfig] = {}
    # A paper's table runs where the study says on what: an entry of the same name under `tables`.
    for name, entry in config.tables.items():
        if name not in tables and "rows" not in entry and len(papers) < len(config.papers):
            continue  # a table of a paper whose own faults are noted above
        table = problems.validate(TableConfig, merge(tables.get(name, {}), entry), f"{source}: tables.{name}")
        if table is not None:
            checked[name] = table
    problems.stop_if_any()
    used_papers = {name: paper_of[name] for name in checked if name in paper_of}
    return Study(config, datasets, methods, checked, papers, used_papers)


def _add_subsets(
    config: StudyConfig, datasets: dict[str, DatasetConfig], config_dir: Path, source: str, problems: Problems
) -> None:
    """Add the study's subsets to its data sets; a subset's files lie where those of its data set do."""
    for name, subset in config.subsets.items():
        where = f"{source}: subsets.{name}"
        if name in _names(config_dir / "datasets"):
            problems.add(where, "a data set has this name; give the subset its own")
            continue
        for parent, _, content in _named("datasets", [subset.of], config_dir, where, problems):
            whole = problems.validate(DatasetConfig, content, _short(config_dir / "datasets" / f"{parent}.yaml"))
            if whole is None:
                continue
            known = [problems.known(f"{where}: slides", one, whole.slides, "slide") for one in subset.slides]
            if whole.simulate is not None:
                problems.add(where, f"data set {parent!r} is drawn, for each study anew; name a data set with files")
            elif all(known):
                slides = {key: one for key, one in whole.slides.items() if key in (subset.slides or whole.slides)}
                told = {"reader_options": merge(whole.reader_options, subset.reader_options)}
                datasets[name] = whole.model_copy(update={"slides": slides, "root": whole.root or parent, **told})


def _readable(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a faulty study names, as far as it has the shape that was expected."""

    def texts(value: Any) -> list[str]:
        return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

    def mappings(value: Any) -> dict[str, Any]:
        items = value.items() if isinstance(value, Mapping) else ()
        return {key: one for key, one in items if isinstance(one, Mapping)}

    return {
        **{key: texts(raw.get(key)) for key in ("datasets", "papers")},
        **{key: mappings(raw.get(key)) for key in ("methods", "tables")},
        "subsets": {},
        "scale": raw["scale"] if isinstance(raw.get("scale"), str) else None,
    }


def _named(
    kind: str, names: Iterable[str], config_dir: Path, source: str, problems: Problems
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Give name, file and content of those files of `config/<kind>/` that exist and can be read; note the others."""
    available = _names(config_dir / kind)
    for name in names:
        if problems.known(f"{source}: {kind}", name, available, kind[:-1]):
            file = config_dir / kind / f"{name}.yaml"
            try:
                yield name, file, read_yaml(file)
            except ConfigError as error:
                problems.add(_short(file), str(error))


def _names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def _short(file: Path) -> str:
    return "/".join(file.parts[-3:])
