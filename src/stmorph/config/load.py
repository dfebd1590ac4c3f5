"""Reads a study and everything it names, merges it, and tells every mistake at once before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from .check import Problems
from .schema import DatasetConfig, MethodConfig, PaperConfig, StudyConfig, TableConfig


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


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML file's mapping.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML or does not hold a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; give the path of a config file") from error
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
    if config is None:
        problems.stop_if_any()
        raise AssertionError
    available = {kind: _names(config_dir / kind) for kind in ("datasets", "methods", "papers")}

    datasets: dict[str, DatasetConfig] = {}
    for name in config.datasets:
        if problems.known(f"{source}: datasets", name, available["datasets"], "dataset"):
            file = config_dir / "datasets" / f"{name}.yaml"
            if (dataset := problems.validate(DatasetConfig, read_yaml(file), _short(file))) is not None:
                datasets[name] = dataset

    methods: dict[str, MethodConfig] = {}
    for name in config.methods:
        problems.known(f"{source}: methods", name, available["methods"], "method")
    for name in available["methods"]:
        file = config_dir / "methods" / f"{name}.yaml"
        content = read_yaml(file)
        scales = content.get("scales", {})
        merged = merge({**content, "scales": {}}, scales.get(config.scale), config.methods.get(name))
        if (method := problems.validate(MethodConfig, merged, _short(file))) is not None:
            methods[name] = method

    papers: dict[str, PaperConfig] = {}
    tables: dict[str, Any] = {}
    paper_of: dict[str, str] = {}
    for name in config.papers:
        if not problems.known(f"{source}: papers", name, available["papers"], "paper"):
            continue
        file = config_dir / "papers" / f"{name}.yaml"
        content = read_yaml(file)
        if (paper := problems.validate(PaperConfig, content, _short(file))) is not None:
            papers[name] = paper
            for table, entry in content["tables"].items():
                tables[table] = entry
                paper_of[table] = name
    checked: dict[str, TableConfig] = {}
    # A paper's table runs where the study says on what: an entry of the same name under `tables`.
    for name, entry in config.tables.items():
        table = problems.validate(TableConfig, merge(tables.get(name, {}), entry), f"{source}: tables.{name}")
        if table is not None:
            checked[name] = table
    problems.stop_if_any()
    used_papers = {name: paper_of[name] for name in checked if name in paper_of}
    return Study(config, datasets, methods, checked, papers, used_papers)


def _names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def _short(file: Path) -> str:
    return "/".join(file.parts[-3:])
