"""The files of a study's data: where each comes from, and what every slide becomes before a method sees it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..fetch.source import Archived, Source
from ..read.base import PICTURE_ROLES
from .checked import MethodFacts
from .load import Study
from .missing import leave_if_missing, missing_sources, missing_weights
from .plan import Paths, Plan, Run
from .sources import archived_sources, fetched_sources, gene_set_source, slide_sources
from .weights import fetched_weights, weight_sources

TRUTH_ROLES = frozenset({"truth", "truth_json"})
"""Roles of the simulator's answers: known to scores and tests, never to a reader or a method."""


@dataclass(frozen=True)
class DataFiles:
    """A study's data as the rules see them; `Workflow` adds the runs on them."""

    study: Study
    plan: Plan
    paths: Paths
    facts: Mapping[str, MethodFacts]

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
        """Return role -> path of the files that make a slide: without the simulator's truth and extra pictures."""
        others = TRUTH_ROLES | PICTURE_ROLES
        return {role: source.path for role, source in self.sources(dataset, slide).items() if role not in others}

    def channels(self, tiles: str) -> list[str]:
        """Return the extra channels of a tiling's pictures."""
        return list(self.config.tiles[tiles].get("channels", ()))

    def channel_paths(self, dataset: str, slide: str, tiles: str) -> dict[str, str]:
        """Return role -> path of the files that a slide's extra channels are made of, its outlines apart."""
        channels = self.channels(tiles)
        wanted = {"dapi", "alignment", "experiment"} if "dapi" in channels else set()
        wanted |= {"nuclei"} if "cell_mask" in channels else set()
        return {role: one.path for role, one in self.sources(dataset, slide).items() if role in wanted}

    def gene_sets(self, dataset: str, name: str) -> str:
        """Return the path of a dataset's GMT file."""
        return gene_set_source(dataset, self.study.datasets[dataset], name, self.config).path

    @cached_property
    def fetched(self) -> dict[str, Source]:
        """Return path -> source of every file that comes over the network, archives and weights included."""
        weights = fetched_weights(self.encoders_in_use, self.config)
        return fetched_sources(self.study.datasets, self.config) | weights

    @cached_property
    def archived(self) -> list[Archived]:
        """Return the archives of which the study takes files."""
        return archived_sources(self.study.datasets, self.config)

    @property
    def downloads(self) -> str:
        """Return where fetched files lie, as their paths begin."""
        return str(Path(self.config.downloads))

    @property
    def fetched_pattern(self) -> str:
        """Return what matches the paths of fetched files below `downloads`, and nothing else."""
        return "|".join(re.escape(str(Path(path).relative_to(self.downloads))) for path in sorted(self.fetched))

    @cached_property
    def missing(self) -> dict[str, str]:
        """Return path -> what is wrong, of inputs of the study that are neither there nor drawn nor to be fetched."""
        weights = missing_weights(self.encoders_in_use, self.config)
        return missing_sources(self.study.datasets, self.config) | weights

    def at_hand(self, inputs: Any) -> Any:
        """Return a job's inputs (paths, lists or mappings of them), or leave with all that is missing and no traceback.

        Asked where a job is planned, so that a study whose data nobody has can still make tables from given scores.
        """
        leave_if_missing(inputs, self.missing)
        return inputs

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

    def reader_options(self, dataset: str, slide: str) -> dict[str, Any]:
        """Return what a slide's reader is told; a slide's own options go before its dataset's."""
        parent = self.study.datasets[dataset]
        return {**parent.reader_options, **parent.slides[slide].reader_options}

    def slide_environment(self, dataset: str) -> str:
        """Return the environment in which a dataset's slides are read: SpatialData's library has its own."""
        reader = self.study.datasets[dataset].reader
        return "../envs/spatialdata.yaml" if reader == "spatialdata" else "../envs/stmorph.yaml"

    # --- tilings ---

    def embedding(self, dataset: str, slide: str, tiles: str, encoder: str) -> str:
        """Return the path of a slide's embedding."""
        return self.paths.tiling(f"{encoder}.zarr.zip", dataset, slide, tiles)

    def stain_reference(self, tiles: str) -> list[str]:
        """Return the image of the reference slide of a tiling, if it maps to one."""
        reference = self.config.tiles[tiles].get("stain", {}).get("reference")
        if reference is None:
            return []
        for name, dataset in self.study.datasets.items():
            if reference in dataset.slides:
                return [self.source_paths(name, reference)["image"]]
        return [reference]

    def tiles_environment(self, tiles: str) -> str:
        """Return the environment of a tiling: staintools (GPL) has its own."""
        backend = self.config.tiles[tiles].get("stain", {}).get("backend")
        return "../envs/staintools.yaml" if backend == "staintools" else "../envs/stmorph.yaml"

    def split_tilings(self, dataset: str) -> list[str]:
        """Return the tilings whose kept tiles make up a dataset's units; without runs, the study's first."""
        used = {run.tiles for run in self.plan.runs if run.dataset == dataset}
        return sorted(used) or [next(iter(self.config.tiles))]

    # --- what methods and scores look at ---

    def needs(self, run: Run) -> frozenset[str]:
        """Return what the run's method needs of the data: tiles, embedding, cells, and channels of the tiles."""
        needs = frozenset(self.facts[run.method].needs)
        return needs | {"channels"} if "tiles" in needs and self.channels(run.tiles) else needs

    @cached_property
    def encoders_in_use(self) -> list[str]:
        """Return the encoders that some run embeds with or compares pictures by, sorted."""
        used = {run.encoder for run in self.plan.runs if "embedding" in self.needs(run)}
        used |= {encoder["name"] for run in self.plan.runs if (encoder := self.image_encoder(run)) is not None}
        return sorted(used)

    def weights(self, encoder: str) -> list[str]:
        """Return the weights files of an encoder's networks, in their order; none of an encoder that has none."""
        return [source.path for source in weight_sources(encoder, self.config).values()]

    def encoder_gpu(self, encoder: str) -> int:
        """Return how many GPUs an embedding job asks for: one for a network at full scale, none for statistics."""
        from ..encoders.joined import is_network

        return int(self.config.scale == "full" and is_network(self.config.encoders[encoder].model))

    def image_encoder(self, run: Run) -> dict[str, Any] | None:
        """Return the encoder whose features compare pictures: the one that scores name, or the run's."""
        if run.family != "generator":
            return None
        name = self.config.scores.image_encoder or run.encoder
        return {"name": name, **self.config.encoders[name].model_dump()}

    # --- slides and tiles without expression ---

    def every_slide(self, unpaired: bool = False) -> list[tuple[str, str]]:
        """Return data set and slide of all that have expression, sorted; or of those that have tiles alone."""
        datasets = self.study.datasets.items()
        return [
            (name, slide) for name, one in sorted(datasets) if one.unpaired == unpaired for slide in self.slides(name)
        ]

    def unpaired_files(self) -> list[str]:
        """Return the stores of the tiles without expression, and their lists."""
        every = self.every_slide(unpaired=True)
        return [self.paths.unpaired(file, *one) for one in every for file in ("tiles.npy", "tiles.parquet")]

    # --- quality ---

    def tilings_of(self, dataset: str) -> list[str]:
        """Return the tilings that a dataset's quality pages tell of: those in use, else the study's first."""
        return self.split_tilings(dataset) or [next(iter(self.config.tiles))]

    def quality_tilings(self, file: str, dataset: str, slide: str) -> list[str]:
        """Return a file of each of a slide's tilings, in the order of `tilings_of`."""
        return [self.paths.tiling(file, dataset, slide, tiles) for tiles in self.tilings_of(dataset)]

    def quality_files(self, kind: str) -> list[str]:
        """Return the pages (`png`) or the records (`json`) of all slides."""
        return [self.paths(f"quality/{name}/{slide}.{kind}") for name, slide in self.every_slide()]
