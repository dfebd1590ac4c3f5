"""What a bundle holds, and what its files depend on."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..config.workflow import Workflow
from ..digests import digest_of, script_digest

Kind = Literal["scores", "models"]
KINDS: tuple[Kind, ...] = ("scores", "models")

MANIFEST = "stmorph-bundle.json"
"""The archive's first member."""

SCORE_FILES = ("scores.parquet", "genes.parquet")
MODEL_FILES = ("model.safetensors", "model.json", "losses.csv", "provenance.json")
STEPS = {
    "models": ("slide", "tiles", "channels", "embedding", "split", "panel", "train"),
    "scores": ("sample", "score"),
}
"""Scripts on which the files depend; the scores also on those of the models."""
SIMULATION = ("simulate", "gene_sets")
"""The same, where a study draws its data."""

LOCAL_KEYS = frozenset({"weights"})
"""Options that say where a file lies on one machine, not what it is."""


class Member(BaseModel):
    """One file of a bundle; the path is below the study's results folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, Field(min_length=1)]
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What stands in the archive: where it came from, what it depends on, and every file with its checksum."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Kind
    study: str
    title: str
    stmorph: str
    commit: str | None
    changed_files: int | None
    digests: dict[str, str]
    files: list[Member]


def bundle_files(study: Workflow, kind: Kind) -> list[str]:
    """Return the files of a bundle, sorted, as paths below the results folder.

    scores: of every run in a table. models: of every trained run, with its losses and its record.
    """
    runs = [run for table in study.plan.cells for run in study.plan.table_runs(table)]
    names = SCORE_FILES
    if kind == "models":
        runs, names = [run.trained for run in study.plan.runs], MODEL_FILES
    return sorted({str(PurePosixPath("runs", run.folder, name)) for run in runs for name in names})


def study_digests(study: Workflow, kind: Kind) -> dict[str, str]:
    """Return what the files of a bundle depend on, as a digest a part of the config, and of the code.

    Where data and weights lie on a machine, titles and published numbers are no part of it: they change no score.
    """
    config, runs = study.config, study.plan.runs
    scored = kind == "scores"
    parts: dict[str, Any] = {
        "datasets": {name: _data(study, name) for name in sorted(study.study.datasets)},
        "tiles": config.tiles,
        "encoders": {name: _portable(entry.model_dump()) for name, entry in config.encoders.items()},
        "splits": {name: entry.model_dump() for name, entry in config.splits.items()},
        "panels": {name: entry.model_dump() for name, entry in config.panels.items()},
        "runs": [run.as_dict() if scored else run.as_trained() for run in runs if scored or run.condition == "paired"],
    }
    if scored:
        parts["scores"] = {key: v for key, v in config.scores.model_dump().items() if key != "inception_weights"}
    simulated = any(dataset.simulate is not None for dataset in study.study.datasets.values())
    steps = (*STEPS["models"], *(STEPS["scores"] if scored else ()), *(SIMULATION if simulated else ()))
    # Each method is in the digest of its own training, which follows from its name and not from an import.
    parts["code"] = [
        {step: script_digest(step) for step in steps},
        {run.method: study.code_of(run, "train") for run in runs},
    ]
    return {name: digest_of(part) for name, part in parts.items()}


def bundle_about(study: Workflow, kind: Kind) -> dict[str, Any]:
    """Return what a manifest says of the study."""
    digests = study_digests(study, kind)
    return {"kind": kind, "study": study.config.name, "title": study.config.title, "digests": digests}


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Return the parts whose digests differ or that only one of the two has, sorted."""
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def _data(study: Workflow, name: str) -> dict[str, Any]:
    dataset = study.study.datasets[name]
    slides = {
        slide: {
            "info": {k: v for k, v in study.slide_info(name, slide).items() if k not in ("licence", "attribution")},
            "options": study.reader_options(name, slide),
            "simulate": None if dataset.simulate is None else {**dataset.simulate, **dataset.slides[slide].simulate},
            "sha256": {role: source.sha256 for role, source in study.sources(name, slide).items()},
        }
        for slide in study.slides(name)
    }
    # The first seed also draws simulated tissue.
    return {"reader": dataset.reader, "slides": slides, "seed": study.config.seeds[0] if dataset.simulate else None}


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _portable(one) for key, one in value.items() if key not in LOCAL_KEYS}
    return value
