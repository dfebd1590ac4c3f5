"""The jobs behind a target, each once: from the plan and the inputs that the rules themselves ask for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..bundle.contents import bundle_files
from ..bundle.given import Given
from ..config.plan import Run
from ..config.workflow import Workflow


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    patterns: its outputs with Snakemake's wildcards. sizes: bytes of outputs that are known beforehand, by path.
    """

    rule: str
    wildcards: Mapping[str, str]
    patterns: tuple[str, ...]
    inputs: tuple[str, ...]
    run: Run | None = None
    gpu: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files that the job writes."""
        return tuple(filled(pattern, self.wildcards) for pattern in self.patterns)


def filled(pattern: str, wildcards: Mapping[str, Any]) -> str:
    """Return a path with its wildcards filled in."""
    for name, value in wildcards.items():
        pattern = pattern.replace("{" + name + "}", str(value))
    return pattern


def jobs_of(files: Iterable[str], makers: Mapping[str, Job]) -> list[Job]:
    """Return the jobs behind some files, each once; files that nothing makes are there already."""
    found: dict[int, Job] = {}
    todo = list(files)
    while todo:
        job = makers.get(todo.pop())
        if job is not None and id(job) not in found:
            found[id(job)] = job
            todo += job.inputs
    return list(found.values())


def study_jobs(study: Workflow, given: Given | None = None) -> dict[str, Job]:
    """Return path -> job that makes it, for every file that the study can make."""
    given = given or Given()
    jobs = [*_sources(study), *_slides(study), *_splits(study), *_runs(study, given), *_ends(study), *_quality(study)]
    return {output: job for job in jobs for output in job.outputs}


def _flat(inputs: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    return tuple(path for paths in inputs.values() for path in paths)


def _sources(study: Workflow) -> Iterable[Job]:
    for path, source in study.fetched.items():
        sizes = {} if source.size_bytes is None else {path: source.size_bytes}
        file = path.removeprefix(f"{study.downloads}/")
        yield Job("fetch", {"file": file}, (f"{study.downloads}/{{file}}",), (), sizes=sizes)
    for number, archived in enumerate(study.archived):
        sizes = {one.path: one.size_bytes for one in archived.members if one.size_bytes is not None}
        members = tuple(one.path for one in archived.members)
        yield Job(f"unpack_{number}", {}, members, (archived.path,), sizes=sizes)
    for name, dataset in study.study.datasets.items():
        if dataset.simulate is None:
            continue
        for slide in study.slides(name):
            files = tuple(source.path.replace(slide, "{slide}") for source in study.sources(name, slide).values())
            yield Job(f"simulate_{name}", {"slide": slide}, files, ())
        yield Job(f"simulate_{name}_gene_sets", {}, (study.gene_sets(name, "programmes"),), ())


def _slides(study: Workflow) -> Iterable[Job]:
    paths = study.paths
    encoders = sorted({(run.dataset, run.tiles, run.encoder) for run in study.plan.runs})
    for name, slide in study.every_slide():
        at = {"dataset": name, "slide": slide}
        sources = study.source_paths(name, slide)
        yield Job("slide", at, (paths.slide("slide.h5ad"),), tuple(sources.values()))
        for tiles in study.tilings_of(name):
            inputs = (paths.slide("slide.h5ad", name, slide), sources["image"], *study.stain_reference(tiles))
            made = tuple(paths.tiling(file) for file in ("image.npy", "image.json", "tiles.parquet"))
            yield Job("tiles", {**at, "tiles": tiles}, made, inputs)
            if study.channels(tiles):
                extra = tuple(study.channel_paths(name, slide, tiles).values())
                stored = tuple(paths.tiling(file, name, slide, tiles) for file in ("image.npy", "image.json"))
                files = tuple(paths.tiling(file) for file in ("channels.npy", "channels.json"))
                yield Job("channels", {**at, "tiles": tiles}, files, (inputs[0], *stored, *extra))
            inputs = tuple(filled(path, {**at, "tiles": tiles}) for path in made)
            for dataset, tiling, encoder in encoders:
                if (dataset, tiling) == (name, tiles):
                    where = {**at, "tiles": tiles, "encoder": encoder}
                    gpu = study.encoder_gpu(encoder)
                    needed = (*inputs, *study.weights(encoder))
                    yield Job("embedding", where, (paths.tiling("{encoder}.zarr.zip"),), needed, gpu=gpu)


def _splits(study: Workflow) -> Iterable[Job]:
    paths = study.paths
    for dataset, split in sorted({(run.dataset, run.split) for run in study.plan.runs}):
        at = {"dataset": dataset, "split": split}
        slides = tuple(paths.slide("slide.h5ad", dataset, slide) for slide in study.slides(dataset))
        made = (paths.split("split.parquet"), paths.split("leakage.json"))
        yield Job("split", at, made, (*slides, *study.split_tiles(dataset)))
        for panel in sorted({run.panel for run in study.plan.runs if (run.dataset, run.split) == (dataset, split)}):
            inputs = (*slides, paths.split("split.parquet", dataset, split), *study.panel_file(panel))
            yield Job("panel", {**at, "panel": panel}, (paths.split("panels/{panel}.txt"),), inputs)


def _runs(study: Workflow, given: Given) -> Iterable[Job]:
    paths = study.paths
    for run in study.plan.runs:
        at = dict(zip(("dataset", "split", "panel", "label", "seed"), map(str, run.key)))
        if run.condition == "paired":
            files = ("model.safetensors", "model.json", "losses.csv", "provenance.json")
            inputs = given.inputs(paths.run("model.safetensors", run), study.data_inputs(run))
            gpu = study.plan.asked("train", run).gpu * run.training.get("nodes", 1)
            yield Job("train", at, tuple(map(paths.run, files)), _flat(inputs), run, gpu)
        gpu = study.plan.asked("sample", run).gpu
        yield Job("sample", at, (paths.run("samples.zarr.zip"),), _flat(study.sample_inputs(run)), run, gpu)
        inputs = given.inputs(paths.run("scores.parquet", run), study.score_inputs(run))
        yield Job("score", at, (paths.run("scores.parquet"), paths.run("genes.parquet")), _flat(inputs), run)


def _ends(study: Workflow) -> Iterable[Job]:
    paths, plan = study.paths, study.plan
    for table in study.study.tables:
        made = tuple(paths(f"tables/{{table}}.{kind}") for kind in ("csv", "md", "html"))
        inputs = tuple(paths.run("scores.parquet", run) for run in plan.table_runs(table))
        yield Job("table", {"table": table}, made, inputs)
    for figure in study.config.figures:
        inputs = _flat(study.figure_inputs(figure))
        yield Job("figure", {"figure": figure}, (paths("figures/{figure}.png"),), inputs)
    for name in study.config.importance:
        at = {"importance": name}
        gpu = study.importance_gpu(name)
        scores = "importance/{importance}/importance.csv"
        yield Job("importance", at, (paths(scores),), _flat(study.importance_inputs(name)), gpu=gpu)
        files = ("enrichment.csv", "prerank.csv", "importance.png")
        made = tuple(paths(f"importance/{{importance}}/{file}") for file in files)
        yield Job("enrichment", at, made, (paths(filled(scores, at)), study.importance_gene_sets(name)))
    for kind in ("scores", "models"):
        inputs = tuple(paths(file) for file in bundle_files(study, kind))
        yield Job(f"archive_{kind}", {}, (paths(f"bundles/{study.config.name}_{kind}.zip"),), inputs)


def _quality(study: Workflow) -> Iterable[Job]:
    paths = study.paths
    for name, slide in study.every_slide():
        tilings = [study.quality_tilings(file, name, slide) for file in ("tiles.parquet", "image.json")]
        source = (paths.slide("slide.h5ad", name, slide), study.source_paths(name, slide)["image"])
        made = tuple(paths(f"quality/{{dataset}}/{{slide}}.{kind}") for kind in ("png", "json"))
        inputs = (*source, *tilings[0], *tilings[1])
        yield Job("quality_page", {"dataset": name, "slide": slide}, made, inputs)
    made = tuple(paths(f"quality/quality.{kind}") for kind in ("csv", "md", "html"))
    yield Job("quality_table", {}, made, tuple(study.quality_files("json")))
    for name, slide in study.every_slide(unpaired=True):
        made = tuple(paths.unpaired(file) for file in ("tiles.npy", "tiles.parquet"))
        inputs = tuple(study.source_paths(name, slide).values())
        yield Job("unpaired_tiles", {"dataset": name, "slide": slide}, made, inputs)
