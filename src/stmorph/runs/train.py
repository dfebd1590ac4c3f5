"""Trains or fits the model of a run and writes it, with its losses and where it came from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..digests import digest_of, file_digest
from ..methods.base import DataSpec
from ..methods.registry import load_method
from ..model_file import ModelRecord, save_model
from ..provenance import write_provenance
from ..training.checkpoints import Checkpoints
from ..training.finished import Finished
from ..training.fit import fit_or_train, new_method
from ..training.logs import TrainingLogs
from ..training.nodes import by_srun, is_helper, train_on_nodes
from ..training.options import HARMLESS, TrainingOptions
from ..training.ownership import owned
from .inputs import picture_channels, tile_scale, units_of


def train_run(
    run: Mapping[str, Any],
    files: Mapping[str, Sequence[str]],
    out: Mapping[str, str],
    work: str,
    code: str,
    cpus: int = 1,
) -> None:
    """Train the model of a run on its training units, or take what another copy of this job has finished.

    Parameters
    ----------
    run
        A `Run.as_trained()`.
    files
        Named lists of paths: slides, tiles, split, panel and, where the method needs them, images, embeddings,
        channels.
    out
        Paths: model, record, losses, provenance.
    work
        Folder for what a resume needs and for finished models; the run's own part of it is named by the digests of
        config, panel, split, data and code.
    code
        Digest of the code that trains.
    cpus
        CPU cores of each process, of a training on several nodes.
    """
    digests = {
        "config": digest_of({**run, "training": {k: v for k, v in run["training"].items() if k not in HARMLESS}}),
        "panel": file_digest(files["panel"][0]),
        "split": file_digest(files["split"][0]),
        "data": digest_of(
            [
                file_digest(path)
                for name in ("slides", "tiles", "embeddings", "channels")
                for path in files.get(name, [])
            ]
        ),
        "code": code,
    }
    place = "-".join([run["dataset"], run["split"], run["panel"], run["method"], digest_of(digests)])
    folder = Path(work) / place
    if is_helper():  # one of several processes that train together; the first of them has the files
        _train(run, files, None, folder, None, digests)
        return
    finished = Finished(folder)
    kept = {name: finished.path(name, path) for name, path in out.items()}
    tensorboard = Path(out["model"]).parent / "tensorboard"
    if by_srun():  # the first of those; what it writes is kept by the process that started them
        _train(run, files, kept, folder, tensorboard, digests)
        return
    with owned(folder):
        if finished.place(out):
            print(f"{run['method']} has finished before; taken from {finished.folder}, delete it to train anew")
            return
        if (nodes := run["training"].get("nodes", 1)) > 1:
            train_on_nodes(nodes, run["training"].get("devices", 1), cpus)
        else:
            _train(run, files, kept, folder, tensorboard, digests)
        finished.keep(out)
        finished.place(out)
        Checkpoints(folder, {}).remove()


def _train(
    run: Mapping[str, Any],
    files: Mapping[str, Sequence[str]],
    out: Mapping[str, Path] | None,
    folder: Path,
    tensorboard: Path | None,
    digests: dict[str, str],
) -> None:
    kind = load_method(run["method"])
    units = units_of(run, files, ["train"])
    tile_px, um_per_px = tile_scale(files)
    spec = DataSpec(
        genes=units.genes,
        target_space=run["target_space"],
        embedding_dim=0 if units.embedding is None else units.embedding.shape[2],
        tile_px=tile_px,
        channels=picture_channels(files),
        um_per_px=um_per_px,
    )
    method = new_method(kind, kind.Options(**run["options"]), spec, run["seed"])
    options = TrainingOptions(**run["training"])
    print(f"{run['method']}: {len(units)} training units, {len(units.genes)} genes", flush=True)
    logs = TrainingLogs(csv=out and out["losses"], tensorboard=tensorboard)
    trained = fit_or_train(method, units, options, run["seed"], folder, logs, digests)
    if out is None:
        return
    record = ModelRecord(run["method"], run["seed"], dict(run), digests, __version__, trained.record)
    save_model(trained.method, record, out["model"], out["record"])
    write_provenance(out["provenance"], digests, run, trained.circumstances)
