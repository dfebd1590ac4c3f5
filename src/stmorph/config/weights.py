"""Where the weights of a study's networks come from: named in the config, below `data_root`, or fetched."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..encoders.facts import FACTS, Facts
from ..encoders.joined import parts_of
from ..encoders.weights import locate
from ..errors import WeightsError
from ..fetch.source import Gate, HubFile, Source
from .schema import StudyConfig

FOLDER = "weights"
"""Below `downloads` and below `data_root`."""


def weight_sources(encoder: str, config: StudyConfig) -> dict[str, Source]:
    """Return network -> source of its weights, for the networks of one of the study's encoders, in their order.

    Weights that are neither on disk nor to be fetched have the sentence about it as `unavailable`.
    """
    entry = config.encoders[encoder]
    parts = parts_of(entry.model, entry.options)
    return {model: _source(model, options, config) for model, options in parts if model in FACTS}


def fetched_weights(encoders: Iterable[str], config: StudyConfig) -> dict[str, Source]:
    """Return path -> source of the weights of some encoders that come over the network."""
    found = (source for encoder in encoders for source in weight_sources(encoder, config).values())
    return {source.path: source for source in found if source.transferred}


def _source(model: str, options: Mapping[str, Any], config: StudyConfig) -> Source:
    facts, own = FACTS[model], options.get("weights")
    if own is not None:
        return _on_disk(model, facts, Path(own).expanduser())
    if config.data_root is not None:
        return _below(model, facts, Path(config.data_root, FOLDER))
    # In the hub's folders, and by revision: another revision is another file.
    revision, file = options.get("revision", "main"), options.get("file") or facts.files[0]
    return Source(
        str(Path(config.downloads, FOLDER, facts.hub_id, revision.replace("/", "--"), file)),
        hub=HubFile(facts.hub_id, revision, "model", file),
        gate=Gate(facts.page, "HF_TOKEN") if facts.gated else None,
    )


def _on_disk(model: str, facts: Facts, place: Path) -> Source:
    try:
        return Source(str(locate(model, facts, place)))
    except WeightsError as error:
        return Source(str(place / facts.files[0]), unavailable=str(error))


def _below(model: str, facts: Facts, folder: Path) -> Source:
    """Return the weights in a folder that mirrors the hub's names, or that is a cache of the hub's client."""
    for place in (folder / facts.hub_id, folder):
        if (found := _on_disk(model, facts, place)).unavailable is None:
            return found
    expected = folder / facts.hub_id / facts.files[0]
    terms = " after accepting the terms" if facts.gated else ""
    return Source(
        str(expected),
        unavailable=f"weights of encoder {model} are not at {expected} although data_root is given; get them from "
        f"{facts.page}{terms} and put them there, or say by the encoder's option `weights` where they are",
    )
