"""What a study consists of: its runs, and where every file of it lies. Rules and scripts ask here and know no names."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

from .check import Problems, noted
from .load import Study, merge
from .method_schema import JobConfig
from .schema import RunConfig, SplitConfig

OWN_TARGETS = ("quality", "scores", "tables", "archive", "cost", "targets", "downloads", "unpaired")
"""Targets that every study has; no table, figure or importance may be called so."""


@dataclass(frozen=True)
class Run:
    """One model on one split with one seed, fully resolved."""

    dataset: str
    split: str
    panel: str
    method: str
    family: str
    seed: int
    target_space: str
    tiles: str
    encoder: str | None
    condition: str = "paired"
    variant: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The folder name of the method as it was run."""
        parts = [self.method, self.variant, "shuffled" if self.condition == "shuffled" else None]
        return "-".join(part for part in parts if part)

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What tells runs apart, in the order of their folders."""
        return (self.dataset, self.split, self.panel, self.label, self.seed)

    @property
    def folder(self) -> str:
        """The run's folder below `results/runs`."""
        return f"{self.dataset}/{self.split}/{self.panel}/{self.label}/seed{self.seed}"

    @property
    def trained(self) -> "Run":
        """The run whose model this one draws from: itself, or for shuffled conditions its paired twin."""
        return self if self.condition == "paired" else Run(**{**asdict(self), "condition": "paired"})

    def as_trained(self) -> dict[str, Any]:
        """Return what the model depends on, as plain values: how it is sampled later is not part of it."""
        return {key: value for key, value in self.as_dict().items() if key not in ("sampling", "condition")}

    def as_dict(self) -> dict[str, Any]:
        """Return the run as plain values, for params and records."""
        return asdict(self)


@dataclass(frozen=True)
class Cell:
    """One cell group of a table: a row under a group of columns, and the runs (seeds, folds) it averages."""

    row: str
    group: str
    runs: tuple[Run, ...]


def fold_names(name: str, split: SplitConfig) -> list[str]:
    """Return the concrete splits behind a configured one: itself, or one per fold."""
    return [f"{name}.fold{fold}" for fold in range(split.k)] if split.kind == "folds" else [name]


class Plan:
    """Runs, tables and targets of a study.

    Raises
    ------
    ConfigError
        Something names what does not exist, or two different runs would share a folder; all at once (or noted in
        `problems`, where they are given).
    """

    def __init__(self, study: Study, problems: Problems | None = None):
        self.study = study
        self.config = study.config
        self._runs: dict[tuple, Run] = {}
        self.cells: dict[str, list[Cell]] = {}
        self.importance_runs: dict[str, tuple[Run, ...]] = {}
        with noted(problems) as self._problems:
            self._build(study)

    def _build(self, study: Study) -> None:
        for name, table in study.tables.items():
            self.cells[name] = []
            for row in table.rows:
                for group in table.groups:
                    if row.run is None or (row.only is not None and group.label not in row.only):
                        continue
                    path = f"tables.{name}: row {row.label!r}, group {group.label!r}"
                    self.cells[name].append(
                        Cell(row.label, group.label, tuple(self._resolve([table.run, row.run, group.run], path)))
                    )
        for name, entry in self.config.importance.items():
            runs = tuple(self._resolve([entry.run], f"importance.{name}"))
            if any(run.family != "generator" for run in runs):
                self._problems.add(
                    f"importance.{name}: run.method",
                    f"{runs[0].method!r} is a predictor; gene importance is of a generator's pictures",
                )
            self.importance_runs[name] = runs
        for name, figure in self.config.figures.items():
            self._problems.known(f"figures.{name}: table", figure.table, study.tables, "table")
        for name, split in self.config.splits.items():
            self._check_split(name, split)
        targets = [*study.tables, *self.config.figures, *self.config.importance, *OWN_TARGETS]
        for name in sorted({name for name in targets if targets.count(name) > 1}):
            self._problems.add(name, "names two targets; give each table, figure and importance its own name")

    # --- runs ---

    @cached_property
    def runs(self) -> list[Run]:
        """All runs, in the order of their folders; shuffled ones beside the paired ones they draw from."""
        return [self._runs[key] for key in sorted(self._runs)]

    def run(self, dataset: str, split: str, panel: str, label: str, seed: str | int) -> Run:
        """Return the run behind a rule's wildcards."""
        return self._by_key[(dataset, split, panel, label, int(seed))]

    @cached_property
    def _by_key(self) -> dict[tuple, Run]:
        return {run.key: run for run in self.runs}

    def table_runs(self, table: str) -> list[Run]:
        """Return the runs of a table, each once, in the table's order."""
        seen: dict[tuple, Run] = {}
        for cell in self.cells[table]:
            for run in cell.runs:
                seen.setdefault(run.key, run)
        return list(seen.values())

    def asked(self, rule: Literal["train", "sample", "score"], run: Run) -> JobConfig:
        """Return what a job of the run asks for; sampling takes one GPU of those that train."""
        own = self.study.methods[run.method].resources
        if rule == "score":
            return own.scoring.over(self.config.resources.get("score", JobConfig()))
        if rule == "train":
            return own.over(JobConfig())
        return own.sampling.over(JobConfig(gpu=min(own.gpu, 1))).over(own)

    def tested_slides(self, run: Run) -> set[str]:
        """Return the slides that a run tests as a whole: empty for splits within slides and for a paper's own."""
        split = next(s for name, s in self.config.splits.items() if run.split in fold_names(name, s))
        slides = self.study.datasets[run.dataset].slides
        if split.replication:
            return set()
        if split.kind == "folds":  # every slide is tested in some fold, and one tiling serves them all
            return set(slides) if split.of in ("slides", "patients") else set()
        if split.kind == "patients":
            return {slide for slide, entry in slides.items() if entry.patient in split.test}
        return set(split.test) if split.kind == "slides" else set()

    def _resolve(self, parts: list[RunConfig], path: str) -> list[Run]:
        merged = merge({}, *({k: v for k, v in part.model_dump().items() if v is not None} for part in parts))
        config, methods = self.config, self.study.methods
        names_known = [
            self._problems.known(f"{path}: dataset", merged.get("dataset"), self.study.datasets, "dataset"),
            self._problems.known(f"{path}: split", merged.get("split"), config.splits, "split"),
            self._problems.known(f"{path}: panel", merged.get("panel"), config.panels, "panel"),
            self._problems.known(f"{path}: method", merged.get("method"), methods, "method"),
        ]
        if not all(names_known):
            return []
        method = methods[merged["method"]]
        split = config.splits[merged["split"]]
        if split.dataset != merged["dataset"]:
            self._problems.add(
                f"{path}: split", f"{merged['split']!r} splits dataset {split.dataset!r}, not {merged['dataset']!r}"
            )
        tiles = merged.get("tiles") or next(iter(config.tiles))
        self._problems.known(f"{path}: tiles", tiles, config.tiles, "tiling")
        encoder = merged.get("encoder") or method.encoder or next(iter(config.encoders))
        self._problems.known(f"{path}: encoder", encoder, config.encoders, "encoder")
        sampling = merge(method.sampling.model_dump(), merged["sampling"])
        runs = []
        for concrete in fold_names(merged["split"], split):
            for seed in merged.get("seeds") or config.seeds:
                run = Run(
                    dataset=merged["dataset"],
                    split=concrete,
                    panel=merged["panel"],
                    method=merged["method"],
                    family=method.family,
                    seed=seed,
                    target_space=merged.get("target_space") or method.target_space,
                    tiles=tiles,
                    encoder=encoder,
                    condition=merged.get("condition") or "paired",
                    variant=merged.get("variant"),
                    options=merge(method.options, merged["options"]),
                    training=merge(method.training, merged["training"]),
                    sampling=sampling,
                )
                self._enter(run, path)
                self._enter(run.trained, path)
                runs.append(run)
        return runs

    def _enter(self, run: Run, path: str) -> None:
        other = self._runs.setdefault(run.key, run)
        if other != run:
            differ = [key for key, value in run.as_dict().items() if other.as_dict()[key] != value]
            self._problems.add(
                path, f"differs in {', '.join(differ)} from another run in folder {run.folder}; give it a variant name"
            )

    def _check_split(self, name: str, split: SplitConfig) -> None:
        path = f"splits.{name}"
        if not self._problems.known(f"{path}: dataset", split.dataset, self.study.datasets, "dataset"):
            return
        dataset = self.study.datasets[split.dataset]
        groups = {"slides": list(dataset.slides), "patients": sorted({s.patient for s in dataset.slides.values()})}
        if split.kind == "folds" and split.of in groups and split.k > len(groups[split.of]):
            self._problems.add(
                f"{path}: k",
                f"{split.k} folds of {len(groups[split.of])} {split.of} leave some without a test; lower k",
            )
        allowed = groups.get(split.kind)
        if allowed is None:
            return
        for role in ("test", "train"):
            for one in getattr(split, role):
                self._problems.known(f"{path}: {role}", one, allowed, split.kind[:-1])
        both = sorted(set(split.test) & set(split.train))
        if both:
            self._problems.add(
                f"{path}: train", f"{', '.join(both)} would be trained on and tested; name it in one of the two only"
            )
        if set(split.test) >= set(allowed):
            self._problems.add(f"{path}: test", f"all {split.kind} are tested, none is left for training")


class Paths:
    """Where every file of a study lies, relative to the working folder; without names, with Snakemake's wildcards."""

    def __init__(self, results: str):
        self.results = PurePosixPath(results)

    def __call__(self, *parts: str) -> str:
        """Return a path below the results folder."""
        return str(self.results.joinpath(*parts))

    def slide(self, file: str, dataset: str = "{dataset}", slide: str = "{slide}") -> str:
        """Return a file of a slide."""
        return self("slides", dataset, slide, file)

    def tiling(self, file: str, dataset: str = "{dataset}", slide: str = "{slide}", tiles: str = "{tiles}") -> str:
        """Return a file of a slide's tiling."""
        return self("slides", dataset, slide, tiles, file)

    def unpaired(self, file: str, dataset: str = "{dataset}", slide: str = "{slide}") -> str:
        """Return a file of a slide's tiles without expression."""
        return self("unpaired", dataset, slide, file)

    def split(self, file: str, dataset: str = "{dataset}", split: str = "{split}") -> str:
        """Return a file of a split."""
        return self("splits", dataset, split, file)

    def run(self, file: str, run: Run | None = None) -> str:
        """Return a file of a run."""
        return self("runs", run.folder if run else "{dataset}/{split}/{panel}/{label}/seed{seed}", file)
