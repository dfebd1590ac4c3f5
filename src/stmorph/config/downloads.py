"""Tells what a study would fetch, before it does: sizes, licences, gates, totals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..encoders.facts import FACTS
from ..fetch.gates import token_at_hand
from ..fetch.sizes import sizes_of
from ..fetch.source import Gate, Source
from .dataset_schema import DatasetConfig
from .schema import StudyConfig
from .sources import archived_sources, fetched_sources
from .weights import weight_sources

_UNITS = ("B", "kB", "MB", "GB", "TB")


def download_list(
    datasets: dict[str, DatasetConfig], config: StudyConfig, encoders: Sequence[str] = (), ask: bool = True
) -> str:
    """Return the files that a study fetches, with what is there already and the totals: dataset by dataset, weights.

    Parameters
    ----------
    encoders
        Those of the study whose networks' weights are needed.
    ask
        Whether servers are asked for sizes that the YAML does not give.
    """
    if config.data_root is not None:
        return f"Nothing is fetched: data_root is {config.data_root}, and all files are looked for there."
    parts = [_Part.of_dataset(name, dataset, config) for name, dataset in datasets.items()]
    models = {model: source for one in encoders for model, source in weight_sources(one, config).items()}
    parts += [_Part.of_weights(model, source) for model, source in models.items() if source.transferred]
    every = {path: source for part in parts for path, source in part.sources.items()}
    if not every:
        return "Nothing is fetched: no data set of this study names a url, a hub path or an archive."
    unknown = {path: source for path, source in every.items() if source.size_bytes is None}
    sizes = {path: Path(path).stat().st_size for path in unknown if Path(path).is_file()}
    sizes |= sizes_of(source for path, source in unknown.items() if path not in sizes) if ask else {}
    sizes |= {path: source.size_bytes for path, source in every.items() if source.size_bytes is not None}
    there = {path for path in every if Path(path).is_file()}  # several data sets may share a file
    lines: list[str] = []
    for part in parts:
        if part.sources:
            lines += part.head
            for path in sorted(part.sources):
                lines.append(_line(part.sources[path], sizes.get(path), path in there, part.taken.get(path, 0)))
            lines.append("")
    return "\n".join([*lines, _total([sizes.get(path) for path in every if path not in there], len(there))])


@dataclass(frozen=True)
class _Part:
    """Files with one owner. head: what is said of them. taken: archive -> number of files that are taken out of it."""

    head: list[str]
    sources: Mapping[str, Source]
    taken: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_dataset(cls, name: str, dataset: DatasetConfig, config: StudyConfig) -> "_Part":
        """Return a data set's files."""
        gate = None if dataset.gate is None else Gate(dataset.gate.page, dataset.gate.variable)
        head = _head(f"{name}: {dataset.title}", f"{dataset.licence} ({dataset.attribution})", gate)
        taken = {one.path: len(one.members) for one in archived_sources({name: dataset}, config)}
        return cls(head, fetched_sources({name: dataset}, config), taken)

    @classmethod
    def of_weights(cls, model: str, source: Source) -> "_Part":
        """Return a network's weights."""
        facts = FACTS[model]
        return cls(
            _head(f"weights of encoder {model}", f"{facts.licence} ({facts.hub_id})", source.gate),
            {source.path: source},
        )


def _head(title: str, licence: str, gate: Gate | None) -> list[str]:
    return [title, f"  licence: {licence}", *([] if gate is None else [f"  gate: {_gate(gate)}"])]


def _line(source: Source, size_bytes: int | None, present: bool, taken: int) -> str:
    size = "size unknown" if size_bytes is None else human(size_bytes)
    marks = ["there"] if present else []
    marks += [f"{taken} file{'s' * (taken != 1)} taken out"] if taken else []
    marks += [f"{len(source.mirrors)} mirror{'s' * (len(source.mirrors) != 1)}"] if source.mirrors else []
    marks += [] if source.sha256 or source.md5 else ["no digest published"]
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
