"""What the Snakefile asks for: the plan, the paths, the sources, and what each target is called."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import StmorphError
from .load import Study, load_study
from .options import check_options
from .plan import Paths, Plan, Run, fold_names
from .sources import Source, check_sources, gene_set_source, slide_sources


@dataclass(frozen=True)
class Workflow:
    """A study as the rules see it."""

    study: Study
    plan: Plan
    paths: Paths
    config_dir: Path

    @property
    def config(self):
        """The study's config."""
        return self.study.config

    # --- slides ---

    def slides(self, dataset: str) -> list[str]:
        """Return a dataset's slides, sorted."""
        return sorted(self.study.datasets[dataset].slides)

    def sources(self, dataset: str, slide: str) -> dict[str, Source]:
        """Return role -> source of a slide's files."""
        return slide_sources(dataset, self.study.datasets[dataset], slide, self.config)

    def source_paths(self, dataset: str, slide: str) -> dict[str, str]:
        """Return role -> path of a slide's files, without the simulator's truth."""
        return {role: source.path for role, source in self.sources(dataset, slide).items() if role not in TRUTH_ROLES}

    def truth(self, dataset: str, slide: str) -> dict[str, str]:
        """Return the simulator's truth files of a slide; empty for measured tissue."""
        if self.study.datasets[dataset].simulate is None:
            return {}
        return {role: source.path for role, source in self.sources(dataset, slide).items() if role in TRUTH_ROLES}

    def gene_sets(self, dataset: str, name: str) -> str:
        """Return the path of a dataset's GMT file."""
        return gene_set_source(dataset, self.study.datasets[dataset], name, self.config).path

    @cached_property
    def fetched(self) -> dict[str, Source]:
        """Return path -> source of every file that the study fetches."""
        found = {}
        for name, dataset in self.study.datasets.items():
            every = [source for slide in dataset.slides for source in self.sources(name, slide).values()]
            every += [gene_set_source(name, dataset, sets, self.config) for sets in dataset.gene_sets]
            found |= {source.path: source for source in every if source.url}
        return found

    def slide_info(self, dataset: str, slide: str) -> dict[str, Any]:
        """Return what the reader must know of a slide beyond its files."""
        entry, parent = self.study.datasets[dataset].slides[slide], self.study.datasets[dataset]
        return {
            "dataset": dataset,
            "slide": slide,
            "platform": parent.platform,
            "organ": entry.organ or parent.organ,
            "species": parent.species,
            "patient": entry.patient,
            "um_per_px": entry.um_per_px,
            "spot_diameter_um": parent.spot_diameter_um,
            "spot_pitch_um": parent.spot_pitch_um,
            "licence": parent.licence,
            "attribution": parent.attribution,
        }

    # --- splits and runs ---

    def split_config(self, split: str) -> tuple[dict[str, Any], int | None]:
        """Return a concrete split's config and its fold, if it is one."""
        for name, entry in self.config.splits.items():
            names = fold_names(name, entry)
            if split in names:
                return entry.model_dump(), names.index(split) if entry.kind == "folds" else None
        raise KeyError(split)

    def run(self, wildcards: Any) -> Run:
        """Return the run behind a job's wildcards."""
        return self.plan.run(wildcards.dataset, wildcards.split, wildcards.panel, wildcards.label, wildcards.seed)

    def needs(self, run: Run) -> frozenset[str]:
        """Return what the run's method needs of the data: tiles, embedding, cells."""
        from ..methods.registry import load_method

        return load_method(run.method).needs

    def data_inputs(self, run: Run, tiles: bool | None = None) -> dict[str, list[str]]:
        """Return the per-slide inputs of a training, sampling or scoring job, lists in the order of the slides."""
        slides = self.slides(run.dataset)
        needs = self.needs(run)
        inputs = {
            "slides": [self.paths.slide("slide.h5ad", run.dataset, slide) for slide in slides],
            "tiles": [self.paths.tiling("tiles.parquet", run.dataset, slide, run.tiles) for slide in slides],
            "split": [self.paths.split("split.parquet", run.dataset, run.split)],
            "panel": [self.paths.split(f"panels/{run.panel}.txt", run.dataset, run.split)],
        }
        if "tiles" in needs if tiles is None else tiles:
            inputs["images"] = [self.paths.tiling("image.npy", run.dataset, slide, run.tiles) for slide in slides]
        if "embedding" in needs:
            inputs["embeddings"] = [self.embedding(run.dataset, slide, run.tiles, run.encoder) for slide in slides]
        return inputs

    def embedding(self, dataset: str, slide: str, tiles: str, encoder: str) -> str:
        """Return the path of a slide's embedding."""
        return self.paths.tiling(f"{encoder}.zarr.zip", dataset, slide, tiles)

    # --- targets ---

    @cached_property
    def targets(self) -> dict[str, tuple[str, list[str]]]:
        """Return name -> (one-line description, files) of every target a user can name."""
        found: dict[str, tuple[str, list[str]]] = {}
        for name, table in self.study.tables.items():
            found[name] = (table.description, [self.paths(f"tables/{name}.{kind}") for kind in ("csv", "md", "html")])
        for name, figure in self.config.figures.items():
            found[name] = (figure.description, [self.paths(f"figures/{name}.png")])
        for name, entry in self.config.importance.items():
            files = ["importance.csv", "enrichment.csv", "prerank.csv", "importance.png"]
            found[name] = (entry.description, [self.paths(f"importance/{name}/{file}") for file in files])
        return found


TRUTH_ROLES = frozenset({"truth", "truth_json"})
"""Roles of the simulator's answers: known to scores and tests, never to a reader or a method."""


def open_study(raw: Mapping[str, Any], root: Path) -> Workflow:
    """Return the checked workflow, or leave with every mistake listed and no traceback."""
    config_dir = root / "config"
    try:
        study = load_study(raw, config_dir)
        check_sources(study.datasets, study.config)
        plan = Plan(study)
        check_options(study, plan)
        return Workflow(study, plan, Paths(study.config.results), config_dir)
    except StmorphError as error:
        sys.exit(f"stmorph: {error}")
