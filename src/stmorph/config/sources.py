"""Where a slide's files come from: drawn by the simulator, already on disk below `data_root`, or fetched by URL."""

from dataclasses import dataclass
from pathlib import Path

from .check import Problems
from .plan import Paths
from .schema import DatasetConfig, FileEntry, StudyConfig


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


def check_sources(study_datasets: dict[str, DatasetConfig], config: StudyConfig) -> None:
    """Stop where a file is neither on disk nor drawn nor to be fetched.

    Raises
    ------
    ConfigError
        Lists every such file, with where the dataset can be downloaded.
    """
    problems = Problems()
    for name, dataset in study_datasets.items():
        if dataset.simulate is not None:
            continue
        sources = [
            (f"config/datasets/{name}.yaml: slides.{slide}.files.{role}", source)
            for slide in dataset.slides
            for role, source in slide_sources(name, dataset, slide, config).items()
        ]
        sources += [
            (f"config/datasets/{name}.yaml: gene_sets.{sets}", gene_set_source(name, dataset, sets, config))
            for sets in dataset.gene_sets
        ]
        for path, source in sources:
            if Path(source.path).is_file() or (config.data_root is None and source.url):
                continue
            if config.data_root is None:
                advice = "has no url to fetch it from; set data_root to the folder that holds the dataset"
            else:
                advice = f"is not there although data_root is {config.data_root}; put it there"
            home = f" (published at {dataset.homepage})" if dataset.homepage else ""
            problems.add(path, f"{source.path} {advice}{home}")
    problems.stop_if_any()


def _source(name: str, dataset: DatasetConfig, file: FileEntry | str, fill: dict[str, str], config: StudyConfig) -> Source:
    entry = FileEntry(path=file) if isinstance(file, str) else file
    path = entry.path.format(**fill)
    if dataset.simulate is not None:
        return Source(Paths(config.results)("simulated", name, path))
    if path.startswith("resources/"):  # small inputs that belong to the repository
        return Source(path)
    root = dataset.root or name
    if config.data_root is None:
        url = entry.url.format(**fill) if entry.url else None
        return Source(str(Path(config.downloads, root, path)), url, entry.sha256)
    found = Path(config.data_root, root, path)
    if "*" in path:
        matches = sorted(Path(config.data_root, root).glob(path))
        found = matches[0] if len(matches) == 1 else found
    return Source(str(found), None, entry.sha256)
