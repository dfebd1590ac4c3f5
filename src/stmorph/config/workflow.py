"""What the Snakefile asks for: the plan, the paths, the sources, and what each target is called."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..digests import script_digest
from ..errors import StmorphError
from ..figures import load_figure
from .check import Problems
from .checked import method_facts, remember, remembered, study_key
from .data_files import DataFiles
from .downloads import download_list
from .load import load_study, read_yaml
from .missing import missing_sources
from .options import check_options
from .plan import Paths, Plan, Run, fold_names
from .sources import check_sources


@dataclass(frozen=True)
class Workflow(DataFiles):
    """A study as the rules see it: its data, and the runs, tables and figures on them."""

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
        if "channels" in needs:
            inputs["channels"] = [self.paths.tiling("channels.npy", run.dataset, slide, run.tiles) for slide in slides]
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
        if (encoder := self.image_encoder(run)) is not None and (weights := self.weights(encoder["name"])):
            inputs["weights"] = weights
        return inputs

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

    def code_of(self, run: Run, step: str) -> str:
        """Return the digest of the code that trains or samples a run: the step's and the method's own."""
        return script_digest(step, f"methods.{run.method}")

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
        return script_digest("gene_importance", *methods)

    def importance_gpu(self, importance: str) -> int:
        """Return how many GPUs an importance asks for: as many as drawing from its models."""
        return max(self.plan.asked("sample", run).gpu or 0 for run in self.plan.importance_runs[importance])

    def importance_gene_sets(self, importance: str) -> str:
        """Return the GMT file of an importance."""
        entry = self.config.importance[importance]
        return self.gene_sets(self.plan.importance_runs[importance][0].dataset, entry.gene_sets)

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
        if pages := self.quality_files("png"):
            tables = [self.paths(f"quality/quality.{kind}") for kind in ("csv", "md", "html")]
            found["quality"] = ("Quality control: a page a slide, and a table of all", pages + tables)
        if stores := self.unpaired_files():
            found["unpaired"] = ("Tiles without expression, for training without it: one store a data set", stores)
        return found

    def target_list(self) -> str:
        """Return the study's title and its targets, a line each with what it is."""
        width = max(map(len, self.targets), default=0)
        lines = [f"  {name:<{width}}  {text}" for name, (text, _) in self.targets.items()]
        return "\n".join([self.config.title, "", *lines])

    def download_list(self, ask: bool = True) -> str:
        """Return what the study would fetch, with sizes (servers are asked for unknown ones), licences and gates."""
        return download_list(self.study.datasets, self.config, self.encoders_in_use, ask)


def open_study(raw: Mapping[str, Any], root: Path, files: Iterable[str | Path] = ()) -> Workflow:
    """Return the checked workflow, or leave with every mistake listed and no traceback.

    `files` are those that `raw` was read from: a key that stands in one of them twice can no longer be seen in `raw`.
    """
    config_dir = root / "config"
    try:
        for file in map(Path, files):
            read_yaml(file)
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
            if problems.found:
                problems.found += missing_sources(study.datasets, study.config).values()
            problems.stop_if_any()
            facts = method_facts(methods)
            remember(key, facts)
        return Workflow(study, plan, Paths(study.config.results), facts)
    except StmorphError as error:
        sys.exit(f"stmorph: {error}")
