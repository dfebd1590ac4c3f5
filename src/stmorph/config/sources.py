"""Where a slide's files come from: drawn by the simulator, already on disk below `data_root`, or fetched."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, DataError
from ..fetch.lock import LOCK_NAME, read_lock
from ..fetch.source import Archived, Gate, HubFile, Source
from .check import Problems, nearest, noted
from .dataset_schema import ArchiveEntry, DatasetConfig, FileEntry
from .plan import Paths
from .schema import StudyConfig

REPOSITORY = "resources/"
"""Paths that begin so are small inputs that belong to the repository."""


def slide_sources(name: str, dataset: DatasetConfig, slide: str, config: StudyConfig) -> dict[str, Source]:
    """Return role -> source of a slide's files.

    Paths, URLs, hub paths, archives and members in the dataset's YAML may hold `{slide}` and `{patient}`; paths of
    files on disk may hold a `*` that matches one file.
    """
    entry = dataset.slides[slide]
    files = {**dataset.files, **entry.files}
    fill = {"slide": slide, "patient": entry.patient}
    reason = entry.unavailable or dataset.unavailable
    return {role: _source(name, dataset, file, fill, config, reason) for role, file in files.items()}


def gene_set_source(name: str, dataset: DatasetConfig, gene_sets: str, config: StudyConfig) -> Source:
    """Return the source of one of a dataset's GMT files."""
    return _source(name, dataset, dataset.gene_sets[gene_sets], {}, config, dataset.unavailable)


def every_source(name: str, dataset: DatasetConfig, config: StudyConfig) -> Iterator[tuple[str, Source]]:
    """Give where a source stands in the dataset's YAML, and the source, of all slides and gene sets."""
    for slide in dataset.slides:
        for role, source in slide_sources(name, dataset, slide, config).items():
            yield f"slides.{slide}.files.{role}", source
    for sets in dataset.gene_sets:
        yield f"gene_sets.{sets}", gene_set_source(name, dataset, sets, config)


def fetched_sources(datasets: dict[str, DatasetConfig], config: StudyConfig) -> dict[str, Source]:
    """Return path -> source of every file that comes over the network, archives included."""
    found = {}
    for name, dataset in datasets.items():
        for _, source in every_source(name, dataset, config):
            one = source.archive or source
            if one.transferred:
                found[one.path] = one
    return found


def archived_sources(datasets: dict[str, DatasetConfig], config: StudyConfig) -> list[Archived]:
    """Return the archives, by path, with the sources that are taken out of each."""
    found: dict[str, dict[str, Source]] = {}
    for name, dataset in datasets.items():
        for _, source in every_source(name, dataset, config):
            if source.archive is not None:
                found.setdefault(source.archive.path, {})[source.path] = source
    return [
        Archived(archive, tuple(members[path] for path in sorted(members)))
        for archive, members in sorted(found.items())
    ]


def check_sources(
    study_datasets: dict[str, DatasetConfig], config: StudyConfig, problems: Problems | None = None
) -> None:
    """Stop (or note in `problems`) where the YAML contradicts itself, or what was fetched is another file.

    Files that are not there are no fault of the study: `missing.py` tells them to the jobs that need them.

    Raises
    ------
    ConfigError
        Lists every such file.
    """
    with noted(problems) as found:
        lock = Path(config.downloads) / LOCK_NAME
        try:
            digests = read_lock(lock)
        except DataError as error:
            found.add("downloads", str(error))
            digests = {}
        taken: dict[str, Source] = {}
        for name, dataset in study_datasets.items():
            file = config.dataset_file(name)
            try:
                sources = list(every_source(name, dataset, config))
            except ConfigError as error:
                found.add(file, str(error))
                continue
            for key, source in sources:
                for one in filter(None, (source, source.archive)):
                    if one.address is not None and taken.setdefault(one.path, one).address != one.address:
                        found.add(
                            f"{file}: {key}",
                            f"{one.path} is fetched from {one.address} and from {taken[one.path].address}; "
                            "give each file its own path",
                        )
                    _check_digest(f"{file}: {key}", one, digests, lock, found)


def _check_digest(where: str, source: Source, digests: dict[str, dict], lock: Path, found: Problems) -> None:
    """Note a file that was fetched before its digest was published, and is another one."""
    noted_digest = digests.get(source.address, {}).get("sha256")
    if source.sha256 not in (None, noted_digest) and noted_digest is not None and Path(source.path).is_file():
        found.add(
            where,
            f"sha256 {source.sha256} is expected of {source.path}, but what was fetched has {noted_digest} ({lock}); "
            "remove the file, so that it is fetched again, or correct sha256",
        )


def _source(
    name: str,
    dataset: DatasetConfig,
    file: FileEntry,
    fill: dict[str, str],
    config: StudyConfig,
    unavailable: str | None,
) -> Source:
    entry = _filled(file, fill)
    path = entry.path
    if path.startswith(REPOSITORY):
        return Source(path)
    if dataset.simulate is not None:
        return Source(Paths(config.results)("simulated", name, path))
    root = dataset.root or name
    archive = None
    if entry.archive is not None:
        if entry.archive not in dataset.archives:
            raise ConfigError(f"archive {entry.archive!r} is unknown; {nearest(entry.archive, dataset.archives)}")
        archive = _published(_filled(dataset.archives[entry.archive], fill), dataset, Path(config.downloads, root))
    if config.data_root is None:
        folder = Path(config.downloads, root)
        if unavailable is not None:
            return Source(str(folder / path), unavailable=unavailable)
        return _published(entry, dataset, folder, archive)
    found = Path(config.data_root, root, path)
    if "*" in path:
        matches = sorted(Path(config.data_root, root).glob(path))
        found = matches[0] if len(matches) == 1 else found
    return Source(str(found), unavailable=unavailable)


def _published(entry: ArchiveEntry, dataset: DatasetConfig, folder: Path, archive: Source | None = None) -> Source:
    hub = dataset.hub
    # Of a data set on the hub the hub is gated: its token is none of the business of another server.
    gated = archive is None and (hub is None or entry.hub is not None)
    gate = dataset.gate if gated else None
    return Source(
        str(folder / entry.path),
        url=entry.url,
        mirrors=tuple(entry.mirrors),
        size_bytes=entry.size_bytes,
        sha256=entry.sha256,
        md5=entry.md5,
        hub=None if entry.hub is None else HubFile(hub.repo, hub.revision, hub.kind, entry.hub),
        archive=archive,
        member=entry.member if isinstance(entry, FileEntry) else None,
        gate=None if gate is None else Gate(gate.page, gate.variable),
    )


def _filled(entry: ArchiveEntry, fill: dict[str, str]) -> ArchiveEntry:
    """Return the entry with its placeholders filled in."""
    texts = {key: getattr(entry, key, None) for key in ("path", "url", "hub", "archive", "member")}
    try:
        filled = {key: text.format(**fill) for key, text in texts.items() if text is not None}
        mirrors = [mirror.format(**fill) for mirror in entry.mirrors]
    except (KeyError, IndexError, ValueError) as error:
        allowed = ", ".join(f"{{{key}}}" for key in fill) or "none here"
        raise ConfigError(
            f"{entry.path!r} or its url holds an unknown placeholder ({error}); allowed: {allowed}"
        ) from error
    return entry.model_copy(update={**filled, "mirrors": mirrors})
