"""Inputs that are neither on disk nor drawn nor to be fetched: told to the jobs that need them, before anything runs.

They are no fault of a study: one whose data nobody has can still make its tables from given scores.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..fetch.source import Source
from .check import Problems
from .dataset_schema import DatasetConfig
from .schema import StudyConfig
from .sources import REPOSITORY, every_source
from .weights import weight_sources


def missing_sources(datasets: Mapping[str, DatasetConfig], config: StudyConfig) -> dict[str, str]:
    """Return path -> what is wrong, of the missing files of some datasets.

    Tells where it stands in the YAML, why the file is not there and where the dataset can be downloaded.
    """
    found = {}
    for name, dataset in datasets.items():
        with suppress(ConfigError):  # a faulty template is told by `check_sources`
            for key, source in every_source(name, dataset, config):
                if (line := _absence(f"{config.dataset_file(name)}: {key}", source, dataset, config)) is not None:
                    found[source.path] = line
    return found


def missing_weights(encoders: Iterable[str], config: StudyConfig) -> dict[str, str]:
    """Return path -> what is wrong, of the missing weights of some of the study's encoders."""
    return {
        source.path: f"encoders.{encoder}: {source.unavailable}"
        for encoder in encoders
        for source in weight_sources(encoder, config).values()
        if source.unavailable is not None
    }


def leave_if_missing(inputs: Any, missing: Mapping[str, str]) -> None:
    """Leave with all that is missing and no traceback where a job's inputs (paths, lists, mappings) are among it."""
    if missing.keys() & set(_paths_in(inputs)):
        problems = Problems()
        problems.found += dict.fromkeys(missing.values())
        try:
            problems.stop_if_any()
        except ConfigError as error:
            sys.exit(f"stmorph: {error}")


def _paths_in(inputs: Any) -> Iterator[str]:
    if isinstance(inputs, str):
        yield inputs
    else:
        for one in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from _paths_in(one)


def _absence(where: str, source: Source, dataset: DatasetConfig, config: StudyConfig) -> str | None:
    drawn = dataset.simulate is not None and not source.path.startswith(REPOSITORY)
    if drawn or source.address is not None or Path(source.path).is_file():
        return None
    if source.unavailable is not None:  # once a slide
        return (
            f"{where.partition('.files.')[0]}: not available: {source.unavailable}; leave it out, or set data_root if "
            "you have the files"
        )
    home = f" (published at {dataset.homepage})" if dataset.homepage else ""
    return f"{where}: {source.path} {_advice(source, config)}{home}"


def _advice(source: Source, config: StudyConfig) -> str:
    if source.path.startswith(REPOSITORY):
        return "is not in the repository; put it there or name another file"
    if config.data_root is None:
        return "has no url to fetch it from; set data_root to the folder that holds the dataset"
    if "*" in source.path:
        return f"does not stand for exactly one file below data_root {config.data_root}; name the one"
    return f"is not there although data_root is {config.data_root}; put it there"
