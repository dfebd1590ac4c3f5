"""Inputs that are neither on disk nor drawn nor to be fetched: told to the jobs that need them, before anything runs.

They are no fault of a study: one whose data nobody has can still make its tables from given scores.
"""

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

MOST_NAMES = 8
"""Names told of the folder where a missing file was looked for."""


def missing_sources(datasets: Mapping[str, DatasetConfig], config: StudyConfig) -> dict[str, str]:
    """Return path -> what is wrong, of the missing files of some datasets.

    Tells where it stands in the YAML, why the file is not there and where the dataset can be downloaded.
    """
    found = {}
    for name, dataset in datasets.items():
        with suppress(ConfigError):  # a faulty template is told by `check_sources`
            for key, source in every_source(name, dataset, config):
                if (line := _absence(name, key, source, dataset, config)) is not None:
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
        problems.leave_if_any()


def _paths_in(inputs: Any) -> Iterator[str]:
    if isinstance(inputs, str):
        yield inputs
    else:
        for one in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from _paths_in(one)


def _absence(name: str, key: str, source: Source, dataset: DatasetConfig, config: StudyConfig) -> str | None:
    file = config.dataset_file(name)
    where = f"{file}: {key}"
    drawn = dataset.simulate is not None and not source.path.startswith(REPOSITORY)
    try:
        # Some are folders: Matrix Market, a SpatialData store, unpacked shards.
        if drawn or source.address is not None or Path(source.path).exists():
            return None
    except OSError as error:
        return f"{where}: {source.path} may not be looked at ({error.strerror}); mend the rights of its folders"
    if source.unavailable is not None:  # once a slide
        return (
            f"{where.partition('.files.')[0]}: not available: {source.unavailable}; leave it out, or set data_root if "
            "you have the files"
        )
    home = f" (published at {dataset.homepage})" if dataset.homepage else ""
    if source.path.startswith(REPOSITORY):
        return f"{where}: {source.path} is not in the repository; put it there or name another file"
    if config.data_root is None and not _fetches(dataset):  # once a data set
        return (
            f"{file}: no file has a url to fetch it from; set data_root to the folder that holds the folder "
            f"{dataset.root or name}{home}"
        )
    if config.data_root is None:
        return f"{where}: {source.path} has no url to fetch it from; set data_root to the folder that holds the dataset"
    root = Path(config.data_root, dataset.root or name)
    if not Path(config.data_root).exists():  # once a study
        return f"data_root: {config.data_root} is not there; correct it, or leave it out to fetch what has a url"
    if not root.exists():  # once a data set
        return f"{file}: {_not_there(root)}{home}, or say in `root` which of them it is"
    return f"{where}: {_not_there(Path(source.path))}{home}"


def _fetches(dataset: DatasetConfig) -> bool:
    """Return whether any file of a dataset says where it comes from."""
    files = [dataset.files, dataset.gene_sets, *(entry.files for entry in dataset.slides.values())]
    return any(file.url or file.hub or file.archive for some in files for file in some.values())


def _not_there(path: Path) -> str:
    """Return what is wrong with a path, and what lies where it leaves what is there."""
    near = next(folder for folder in path.parents if "*" not in str(folder) and folder.is_dir())
    if "*" in str(path):
        matches = len(list(near.glob(str(path.relative_to(near)))))
        return f"{path} stands for {matches} files, not for exactly one; {near} holds {_listing(near)}: name the one"
    return f"{path} is not there; {near} holds {_listing(near)}: put it there or correct the path"


def _listing(folder: Path) -> str:
    """Return what lies in a folder, as far as a line goes: what was meant is often a level off, or misspelt."""
    try:
        names = sorted(f"{item.name}/" if item.is_dir() else item.name for item in folder.iterdir())
    except OSError:
        return "what may not be listed"
    shown = ", ".join(names[:MOST_NAMES]) or "nothing"
    return f"{shown} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown
