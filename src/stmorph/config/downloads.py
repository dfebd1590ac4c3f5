"""Tells what a study would fetch, before it does: sizes, licences, gates, totals."""

from pathlib import Path

from ..fetch.gates import token_at_hand
from ..fetch.sizes import sizes_of
from ..fetch.source import Gate, Source
from .dataset_schema import DatasetConfig
from .schema import StudyConfig
from .sources import archived_sources, fetched_sources

_UNITS = ("B", "kB", "MB", "GB", "TB")


def download_list(datasets: dict[str, DatasetConfig], config: StudyConfig, ask: bool = True) -> str:
    """Return the files that a study fetches, dataset by dataset, with what is there already and the totals.

    Parameters
    ----------
    ask
        Whether servers are asked for sizes that the YAML does not give.
    """
    if config.data_root is not None:
        return f"Nothing is fetched: data_root is {config.data_root}, and all files are looked for there."
    every = fetched_sources(datasets, config)
    unknown = {path: source for path, source in every.items() if source.size_bytes is None}
    sizes = {path: Path(path).stat().st_size for path in unknown if Path(path).is_file()}
    sizes |= sizes_of(source for path, source in unknown.items() if path not in sizes) if ask else {}
    sizes |= {path: source.size_bytes for path, source in every.items() if source.size_bytes is not None}
    lines: list[str] = []
    to_fetch: set[str] = set()
    there: set[str] = set()
    for name, dataset in datasets.items():
        sources = fetched_sources({name: dataset}, config)
        if not sources:
            continue
        taken = {one.path: len(one.members) for one in archived_sources({name: dataset}, config)}
        lines += [f"{name}: {dataset.title}", f"  licence: {dataset.licence} ({dataset.attribution})"]
        if dataset.gate is not None:
            lines.append(f"  gate: {_gate(Gate(dataset.gate.page, dataset.gate.variable))}")
        for path in sorted(sources):
            present = Path(path).is_file()
            if present:
                there.add(path)
            else:
                to_fetch.add(path)  # several data sets may share a file
            lines.append(_line(sources[path], sizes.get(path), present, taken.get(path, 0)))
        lines.append("")
    if not lines:
        return "Nothing is fetched: no data set of this study names a url, a hub path or an archive."
    return "\n".join([*lines, _total([sizes.get(path) for path in to_fetch], len(there))])


def _line(source: Source, size_bytes: int | None, present: bool, taken: int) -> str:
    size = "size unknown" if size_bytes is None else human(size_bytes)
    marks = ["there"] if present else []
    marks += [f"{taken} file{'s' * (taken != 1)} taken out"] if taken else []
    marks += [f"{len(source.mirrors)} mirror{'s' * (len(source.mirrors) != 1)}"] if source.mirrors else []
    marks += [] if source.sha256 else ["sha256 not published"]
    return f"  {size:>12}  {source.path}  <- {source.address}" + (f"  [{', '.join(marks)}]" if marks else "")


def _gate(gate: Gate) -> str:
    state = "is set" if token_at_hand(gate) else "is not set"
    return f"accept the terms at {gate.page}; the token is looked for in {gate.variable}, which {state}"


def _total(sizes: list[int | None], there: int) -> str:
    unknown = sizes.count(None)
    size = human(sum(size for size in sizes if size is not None))
    more = f" and {unknown} of unknown size" if unknown else ""
    return f"To fetch: {len(sizes)} files, {size}{more}. Already there: {there}."


def human(size_bytes: int) -> str:
    """Return a number of bytes as people say it, e.g. `1.2 GB`."""
    value = float(size_bytes)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")
