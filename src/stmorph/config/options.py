"""Checks what the config hands on to the library: the options of tilings, methods, encoders, figures, the simulator."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..digests import digest_of
from ..errors import ConfigError
from .check import Problems, noted
from .load import Study
from .plan import Plan, Run

if TYPE_CHECKING:
    from ..training.options import TrainingOptions


def check_options(study: Study, plan: Plan, problems: Problems | None = None) -> None:
    """Check every option that the rules will pass on, before anything runs; faults are raised or noted in `problems`.

    Raises
    ------
    ConfigError
        Lists every problem with its path, the value and the nearest allowed one.
    """
    with noted(problems) as found:
        _check_tiles(study, plan, found)
        _check_channels(study, plan, found)
        _check_datasets(study, found)
        _check_encoders(study, found)
        _check_runs(study, plan, found)
        _check_figures(study, found)
        _check_gene_sets(study, plan, found)
        _check_importance(study, found)


def _check_tiles(study: Study, plan: Plan, problems: Problems) -> None:
    from ..image.tiles import TilingOptions

    for name, options in study.config.tiles.items():
        tiling = problems.validate(TilingOptions, options, f"tiles.{name}")
        if tiling is None or tiling.stain.reference is None:
            continue
        slides = {slide for dataset in study.datasets.values() for slide in dataset.slides}
        if not Path(tiling.stain.reference).is_file():
            problems.known(f"tiles.{name}: stain.reference", tiling.stain.reference, slides, "slide or image file")
        for run in plan.runs:
            if run.tiles == name and tiling.stain.reference in plan.tested_slides(run):
                problems.add(
                    f"tiles.{name}: stain.reference",
                    f"slide {tiling.stain.reference!r} is tested in split {run.split!r}; "
                    "map stains to a training slide, for nothing that looks at test slides may choose",
                )


def _check_channels(study: Study, plan: Plan, problems: Problems) -> None:
    """Note an extra channel that a slide with such tiles has no file for."""
    from ..read import READERS

    for dataset, tiles in sorted({(run.dataset, run.tiles) for run in plan.runs}):
        entry = study.datasets[dataset]
        reader = READERS.get(entry.reader)
        channels = study.config.tiles.get(tiles, {}).get("channels") or ()  # an unknown tiling is told already
        for channel in [one for one in channels if reader is not None and isinstance(one, str)]:
            roles = reader.channels.get(channel, ())
            without = [slide for slide, one in entry.slides.items() if not {*roles} & {*entry.files, *one.files}]
            if not roles:
                problems.add(
                    f"tiles.{tiles}: channels",
                    f"{channel!r} is not to be had of dataset {dataset!r}, whose reader {entry.reader!r} gives "
                    f"{', '.join(reader.channels) or 'none'}; leave it out, or name another tiling for these runs",
                )
            elif without:
                named = " or ".join(map(repr, roles))
                problems.add(
                    f"{study.config.dataset_file(dataset)}: slides.{without[0]}.files",
                    f"role {named}, of which channel {channel!r} of tiles.{tiles} is made, is missing; name the file, "
                    "or leave the channel out",
                )


def _check_datasets(study: Study, problems: Problems) -> None:
    from ..read import READERS
    from ..simulate.options import SimulationOptions

    splits = study.config.splits.items()
    for name, dataset in study.datasets.items():
        path = study.config.dataset_file(name)
        if not problems.known(f"{path}: reader", dataset.reader, READERS, "reader"):
            continue
        if dataset.unpaired and (used := next((split for split in splits if split[1].dataset == name), None)):
            problems.add(
                f"splits.{used[0]}: dataset",
                f"{name!r} has tiles without expression, so no run can be of it; split another dataset (the target "
                "`unpaired` makes a store of its tiles)",
            )
        roles = READERS[dataset.reader].roles
        for slide, entry in dataset.slides.items():
            files = {**dataset.files, **entry.files}
            for role in sorted(
                set(files) - set(roles) - ({"truth", "truth_json"} if dataset.simulate is not None else set())
            ):
                problems.known(f"{path}: files", role, roles, f"file role of reader {dataset.reader!r}")
            for role in sorted(role for role, required in roles.items() if required and role not in files):
                problems.add(
                    f"{path}: slides.{slide}.files",
                    f"role {role!r} is required by reader {dataset.reader!r} and missing",
                )
            either = READERS[dataset.reader].either
            if either and len(files.keys() & set(either)) != 1:
                problems.add(
                    f"{path}: slides.{slide}.files",
                    f"reader {dataset.reader!r} needs one of the roles {' and '.join(map(repr, either))}, not "
                    f"{'both' if files.keys() >= set(either) else 'none of them'}",
                )
            options = {**dataset.reader_options, **entry.reader_options}
            problems.validate(READERS[dataset.reader].Options, options, f"{path}: slides.{slide}: reader_options")
            if dataset.simulate is not None:
                options = {**dataset.simulate, **entry.simulate}
                problems.validate(SimulationOptions, options, f"{path}: slides.{slide}.simulate")


def _check_encoders(study: Study, problems: Problems) -> None:
    from ..encoders.joined import JOIN
    from ..encoders.load import ENCODERS, options_class

    for name, encoder in study.config.encoders.items():
        models = encoder.model.split(JOIN)
        if len(models) > 1:
            for model in encoder.options:
                problems.known(f"encoders.{name}: options", model, models, "encoder of the joined ones")
        for model in models:
            if problems.known(f"encoders.{name}: model", model, ENCODERS, "encoder"):
                options = encoder.options if len(models) == 1 else encoder.options.get(model, {})
                problems.validate(options_class(model), options, f"encoders.{name}: options")
    image_encoder = study.config.scores.image_encoder
    if image_encoder is not None:
        problems.known("scores: image_encoder", image_encoder, study.config.encoders, "encoder")


def _check_runs(study: Study, plan: Plan, problems: Problems) -> None:
    from ..methods.registry import load_method
    from ..training.options import TrainingOptions
    from .method_schema import SamplingConfig

    seen = set()
    for run in plan.runs:
        path = f"methods.{run.method}" + (f" (variant {run.variant})" if run.variant else "")
        said = (path, digest_of([run.options, run.training, run.sampling]))
        if said in seen:
            continue
        seen.add(said)
        try:
            method = load_method(run.method)
        except ConfigError as error:
            problems.add(path, str(error))
            continue
        if method.family != run.family:
            problems.add(f"{path}: family", f"the YAML says {run.family!r}, the code {method.family!r}; mend the YAML")
        options = problems.validate(method.Options, run.options, f"{path}: options")
        if method.trains == "steps":
            training = problems.validate(TrainingOptions, run.training, f"{path}: training")
            if training is not None:
                _check_gpus(training, plan.asked("train", run).gpu, path, problems)
        problems.validate(SamplingConfig, run.sampling, f"{path}: sampling")
        if options is not None and "cells" in method.needs_with(options):
            _check_cells(study, run, path, problems)


def _check_gpus(training: "TrainingOptions", gpu: int, path: str, problems: Problems) -> None:
    """Note a training that shares its batch among more GPUs than its job has; without GPUs it may train on a CPU."""
    if training.accelerator == "cpu" or gpu >= training.devices or (gpu == 0 and training.accelerator == "auto"):
        return
    problems.add(
        f"{path}: training: devices",
        f"found {training.devices}, but its resources ask for {gpu} GPUs; give both the same number",
    )


def _check_cells(study: Study, run: Run, path: str, problems: Problems) -> None:
    """Note a run that reads cells where its data set gives none, or gives windows of another size than the tiles."""
    dataset, tiling = study.datasets[run.dataset], study.config.tiles[run.tiles]
    for slide, entry in dataset.slides.items():
        windows = {**dataset.reader_options, **entry.reader_options}.get("windows")
        if not windows:
            problems.add(
                path,
                f"the method needs cells, which slide {slide!r} of dataset {run.dataset!r} does not give; set windows "
                "in its reader_options (readers 'xenium', 'hest' and 'visium_hd' with nuclei or cells), or use a "
                "single-unit method",
            )
            return
        if windows.get("fov_um") != tiling.get("fov_um"):
            problems.add(
                f"{study.config.dataset_file(run.dataset)}: slides.{slide}: reader_options: windows.fov_um",
                f"{windows.get('fov_um')} is not the fov_um of tiles.{run.tiles} ({tiling.get('fov_um')}); a window's "
                "cells must be those in its picture: give both the same",
            )
            return


def _check_figures(study: Study, problems: Problems) -> None:
    from ..figures import figure_kinds, load_figure

    for name, figure in study.config.figures.items():
        if problems.known(f"figures.{name}: kind", figure.kind, figure_kinds(), "figure kind"):
            problems.validate(load_figure(figure.kind).Options, figure.options, f"figures.{name}: options")


def _check_gene_sets(study: Study, plan: Plan, problems: Problems) -> None:
    asked = [
        (f"importance.{name}: gene_sets", entry.gene_sets, run.dataset)
        for name, entry in study.config.importance.items()
        for run in plan.importance_runs[name]
    ]
    if (programmes := study.config.scores.programmes) is not None:
        asked += [("scores: programmes", programmes, run.dataset) for run in plan.runs if run.family == "generator"]
    for path, name, dataset in asked:
        problems.known(path, name, study.datasets[dataset].gene_sets, f"gene set file of dataset {dataset!r}")


def _check_importance(study: Study, problems: Problems) -> None:
    from ..importance.options import ImportanceOptions

    for name, entry in study.config.importance.items():
        problems.validate(ImportanceOptions, entry.options, f"importance.{name}: options")
