"""Where a slide's files come from: drawn by the simulator, already on disk below `data_root`, or fetched by URL."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .check import Problems, noted
from .plan import Paths
from .schema import DatasetConfig, FileEntry, StudyConfig

REPOSITORY = "resources/"
"""Paths that begin so are small inputs that belong to the repository."""


@dataclass(frozen=True)
class Source:
    """One input file: where it lies (or will lie) and, if it can be fetched, from where."""

    path: str
    url: str | None = None
    sha256: str | None = None


def slide_sources(name: str, dataset: DatasetConfig, slide: str, config: StudyConfig) -> dict[str, Source]:
    """Return role -> source of a slide's files.

    Paths in the dataset's YAML may hold `{slide}`, `{patient}` and, for files on disk, a `*` that matches one file.
    """
    entry = dataset.slides[slide]
    files = {**dataset.files, **entry.files}
    fill = {"slide": slide, "patient": entry.patient}
    return {role: _source(name, dataset, file, fill, config) for role, file in files.items()}


def gene_set_source(name: str, dataset: DatasetConfig, gene_sets: str, config: StudyConfig) -> Source:
    """Return the source of one of a dataset's GMT files."""
    return _source(name, dataset, dataset.gene_sets[gene_sets], {}, config)


def check_sources(
    study_datasets: dict[str, DatasetConfig], config: StudyConfig, problems: Problems | None = None
) -> None:
    """Stop (or note in `problems`) where a file is neither on disk nor drawn nor to be fetched.

    Raises
    ------
    ConfigError
        Lists every such file, with where the dataset can be downloaded.
    """
    with noted(problems) as found:
        for name, dataset in study_datasets.items():
            try:
                sources = [
                    (f"config/datasets/{name}.yaml: slides.{slide}.files.{role}", source)
                    for slide in dataset.slides
                    for role, source in slide_sources(name, dataset, slide, config).items()
                ]
                sources += [
                    (f"config/datasets/{name}.yaml: gene_sets.{sets}", gene_set_source(name, dataset, sets, config))
                    for sets in dataset.gene_sets
                ]
            except ConfigError as error:
                found.add(f"config/datasets/{name}.yaml", str(error))
                continue
            for path, source in sources:
                drawn = dataset.simulate is not None and not source.path.startswith(REPOSITORY)
                if not (drawn or source.url or Path(source.path).is_file()):
                    home = f" (published at {dataset.homepage})" if dataset.homepage else ""
                    found.add(path, f"{source.path} {_advice(source, config)}{home}")


def _advice(source: Source, config: StudyConfig) -> str:
    if source.path.startswith(REPOSITORY):
        return "is not in the repository; put it there or name another file"
    if config.data_root is None:
        return "has no url to fetch it from; set data_root to the folder that holds the dataset"
    if "*" in source.path:
        return f"does not stand for exactly one file below data_root {config.data_root}; name the one"
    return f"is not there although data_root is {config.data_root}; put it there"


def _source(
    name: str, dataset: DatasetConfig, file: FileEntry | str, fill: dict[str, str], config: StudyConfig
) -> Source:
    entry = FileEntry(path=file) if isinstance(file, str) else file
    try:
        path, url = entry.path.format(**fill), entry.url.format(**fill) if entry.url else None
    except (KeyError, IndexError, ValueError) as error:
        allowed = ", ".join(f"{{{key}}}" for key in fill) or "none here"
        raise ConfigError(
            f"{entry.path!r} or its url holds an unknown placeholder ({error}); allowed: {allowed}"
        ) from error
    if path.startswith(REPOSITORY):
        return Source(path)
    if dataset.simulate is not None:
        return Source(Paths(config.results)("simulated", name, path))
    root = dataset.root or name
    if config.data_root is None:
        return Source(str(Path(config.downloads, root, path)), url, entry.sha256)
    found = Path(config.data_root, root, path)
    if "*" in path:
        matches = sorted(Path(config.data_root, root).glob(path))
        found = matches[0] if len(matches) == 1 else found
    return Source(str(found), None, entry.sha256)
