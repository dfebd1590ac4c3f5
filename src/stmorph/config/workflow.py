"""What the Snakefile asks for: the plan, the paths, the sources, and what each target is called."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..digests import code_digest
from ..errors import StmorphError
from ..fetch.source import Archived, Source
from ..figures import load_figure
from .check import Problems
from .checked import MethodFacts, method_facts, remember, remembered, study_key
from .downloads import download_list
from .load import Study, load_study
from .options import check_options
from .plan import Paths, Plan, Run, fold_names
from .sources import archived_sources, check_sources, fetched_sources, gene_set_source, slide_sources


@dataclass(frozen=True)
class Workflow:
    """A study as the rules see it."""

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
        """Return role -> path of a slide's files, without the simulator's truth."""
        return {role: source.path for role, source in self.sources(dataset, slide).items() if role not in TRUTH_ROLES}

    def gene_sets(self, dataset: str, name: str) -> str:
        """Return the path of a dataset's GMT file."""
        return gene_set_source(dataset, self.study.datasets[dataset], name, self.config).path

    @cached_property
    def fetched(self) -> dict[str, Source]:
        """Return path -> source of every file that comes over the network, archives included."""
        return fetched_sources(self.study.datasets, self.config)

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
        return frozenset(self.facts[run.method].needs)

    def data_inputs(self, run: Run, needs: frozenset[str] | None = None) -> dict[str, list[str]]:
        """Return the inputs of a training, sampling or scoring job; per-slide lists in the order of the slides."""
        slides = self.slides(run.dataset)
        needs = self.needs(run) if needs is None else needs
        inputs = {
            "slides": [self.paths.slide("slide.h5ad", run.dataset, slide) for slide in slides],
            "tiles": [self.paths.tiling("tiles.parquet", run.dataset, slide, run.tiles) for slide in slides],
            "split": [self.paths.split("split.parquet", run.dataset, run.split)],
            "panel": [self.paths.split(f"panels/{run.panel}.txt", run.dataset, run.split)],
        }
        if "tiles" in needs:
            inputs["images"] = [self.paths.tiling("image.npy", run.dataset, slide, run.tiles) for slide in slides]
        if "embedding" in needs:
            inputs["embeddings"] = [self.embedding(run.dataset, slide, run.tiles, run.encoder) for slide in slides]
        return inputs

    def sample_inputs(self, run: Run) -> dict[str, list[str]]:
        """Return the inputs of a sampling job: the data and the model, which shuffled conditions share with paired."""
        model = {
            "model": [self.paths.run("model.safetensors", run.trained)],
            "record": [self.paths.run("model.json", run.trained)],
        }
        return self.data_inputs(run) | model

    def score_inputs(self, run: Run) -> dict[str, list[str]]:
        """Return the inputs of a scoring job: the draws and the truth; for pictures also the real tiles."""
        needs = frozenset({"tiles"}) if run.family == "generator" else frozenset()
        inputs = self.data_inputs(run, needs) | {"samples": [self.paths.run("samples.zarr.zip", run)]}
        if run.family == "generator" and (programmes := self.config.scores.programmes) is not None:
            inputs["programmes"] = [self.gene_sets(run.dataset, programmes)]
        return inputs

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
        """Return the tilings whose kept tiles make up a dataset's units."""
        used = {run.tiles for run in self.plan.runs if run.dataset == dataset}
        return sorted(used)

    def split_tiles(self, dataset: str) -> list[str]:
        """Return the tile lists of a dataset, tiling by tiling."""
        return [
            self.paths.tiling("tiles.parquet", dataset, slide, tiles)
            for tiles in self.split_tilings(dataset)
            for slide in self.slides(dataset)
        ]

    def widest_fov_um(self, dataset: str) -> float:
        """Return the side of the widest tile of a dataset, which decides whether two tiles share pixels."""
        return max(float(self.config.tiles[tiles]["fov_um"]) for tiles in self.split_tilings(dataset))

    def panel_file(self, panel: str) -> list[str]:
        """Return the published list behind a panel, if it is one."""
        file = self.config.panels[panel].file
        return [file] if file else []

    def resources(self, wildcards: Any):
        """Return the resources of a run's training and sampling."""
        return self.plan.resources(self.run(wildcards))

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

    def code_of(self, run: Run, step: str) -> str:
        """Return the digest of the code that trains or samples a run: the frame's and the method's own."""
        return code_digest("methods.base", f"methods.{run.method}", f"runs.{step}")

    # --- tables, figures, importance ---

    def table_cells(self, table: str) -> list[dict[str, Any]]:
        """Return the cells of a table with their runs and score files, as plain values."""
        return [
            {
                "row": cell.row,
                "group": cell.group,
                "runs": [{**run.as_dict(), "label": run.label} for run in cell.runs],
                "scores": [self.paths.run("scores.parquet", run) for run in cell.runs],
                "replication": any(self.split_config(run.split)[0]["replication"] for run in cell.runs),
            }
            for cell in self.plan.cells[table]
        ]

    def paper_of(self, table: str) -> dict[str, Any] | None:
        """Return the paper a table is from, without its tables."""
        name = self.study.paper_of.get(table)
        return None if name is None else {"name": name, **self.study.papers[name].model_dump(exclude={"tables"})}

    def datasets_of(self, table: str) -> dict[str, str]:
        """Return name -> title of the datasets that a table is measured on."""
        return {run.dataset: self.study.datasets[run.dataset].title for run in self.plan.table_runs(table)}

    def figure_runs(self, figure: str) -> list[dict[str, Any]]:
        """Return the runs that a figure shows, with their files, as plain values, in the table's order."""
        entry = self.config.figures[figure]
        kind = load_figure(entry.kind)
        labels = {run.key: (cell.row, cell.group) for cell in self.plan.cells[entry.table] for run in cell.runs}
        shown = []
        for run in self.plan.table_runs(entry.table):
            if run.family not in kind.FAMILIES or (kind.TRAINED_BY_STEPS and not self.trains_by_steps(run)):
                continue
            row, group = labels[run.key]
            files = {
                name: self.paths.run(file, run.trained if name == "losses" else run)
                for name, file in kind.FILES.items()
            }
            shown.append({**run.as_dict(), "label": run.label, "row": row, "group": group, "files": files})
        return shown

    def figure_inputs(self, figure: str) -> dict[str, list[str]]:
        """Return the inputs of a figure: its runs' files and, where the kind asks for them, the units' data."""
        kind = load_figure(self.config.figures[figure].kind)
        runs = self.figure_runs(figure)
        inputs = {name: [run["files"][name] for run in runs] for name in kind.FILES}
        if kind.DATA is not None and runs:
            shown = self.plan.run(*(runs[0][key] for key in ("dataset", "split", "panel", "label", "seed")))
            inputs |= self.data_inputs(shown, frozenset(kind.DATA))
        return inputs

    def trains_by_steps(self, run: Run) -> bool:
        """Return whether a run has a loss curve."""
        return self.facts[run.method].steps and run.condition == "paired"

    def importance_inputs(self, importance: str) -> dict[str, list[str]]:
        """Return the inputs of a gene importance: the data and the models of its runs."""
        runs = self.plan.importance_runs[importance]
        models = {
            "models": [self.paths.run("model.safetensors", run.trained) for run in runs],
            "records": [self.paths.run("model.json", run.trained) for run in runs],
        }
        return self.data_inputs(runs[0], self.needs(runs[0]) | {"tiles"}) | models

    def importance_code(self, importance: str) -> str:
        """Return the digest of the code of an importance: its own and the methods' of its runs."""
        methods = sorted({f"methods.{run.method}" for run in self.plan.importance_runs[importance]})
        return code_digest("runs.importance", *methods)

    def importance_gene_sets(self, importance: str) -> str:
        """Return the GMT file of an importance."""
        entry = self.config.importance[importance]
        return self.gene_sets(self.plan.importance_runs[importance][0].dataset, entry.gene_sets)

    # --- quality ---

    def tilings_of(self, dataset: str) -> list[str]:
        """Return the tilings that a dataset's quality pages tell of: those in use, else the study's first."""
        return self.split_tilings(dataset) or [next(iter(self.config.tiles))]

    def quality_tilings(self, file: str, dataset: str, slide: str) -> list[str]:
        """Return a file of each of a slide's tilings, in the order of `tilings_of`."""
        return [self.paths.tiling(file, dataset, slide, tiles) for tiles in self.tilings_of(dataset)]

    def quality_files(self, kind: str) -> list[str]:
        """Return the pages (`png`) or the records (`json`) of all slides."""
        return [
            self.paths(f"quality/{name}/{slide}.{kind}")
            for name in sorted(self.study.datasets)
            for slide in self.slides(name)
        ]

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
        tables = [self.paths(f"quality/quality.{kind}") for kind in ("csv", "md", "html")]
        found["quality"] = ("Quality control: a page a slide, and a table of all", self.quality_files("png") + tables)
        return found

    def target_list(self) -> str:
        """Return the study's title and its targets, a line each with what it is."""
        width = max(map(len, self.targets), default=0)
        lines = [f"  {name:<{width}}  {text}" for name, (text, _) in self.targets.items()]
        return "\n".join([self.config.title, "", *lines])

    def download_list(self, ask: bool = True) -> str:
        """Return what the study would fetch, with sizes (servers are asked for unknown ones), licences and gates."""
        return download_list(self.study.datasets, self.config, ask)


TRUTH_ROLES = frozenset({"truth", "truth_json"})
"""Roles of the simulator's answers: known to scores and tests, never to a reader or a method."""


def open_study(raw: Mapping[str, Any], root: Path) -> Workflow:
    """Return the checked workflow, or leave with every mistake listed and no traceback."""
    config_dir = root / "config"
    try:
        study = load_study(raw, config_dir)
        problems = Problems()
        check_sources(study.datasets, study.config, problems)
        plan = Plan(study, problems)
        key = study_key(study)
        # With a mistake found already, the others are looked for too: all are told at once.
        methods = [run.method for run in plan.runs]
        facts = None if problems.found else remembered(key, methods)
        if facts is None:
            check_options(study, plan, problems)
            problems.stop_if_any()
            facts = method_facts(methods)
            remember(key, facts)
        return Workflow(study, plan, Paths(study.config.results), facts)
    except StmorphError as error:
        sys.exit(f"stmorph: {error}")
