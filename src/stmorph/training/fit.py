"""One door to training, whichever way a method learns."""

import time
from pathlib import Path
from typing import Any

import torch

from ..files import whole
from ..methods.base import DataSpec, Method, MethodOptions
from ..randomness import seed_of
from ..units import Units
from .arithmetic import exact
from .logs import TrainingLogs
from .loop import Trained, train
from .options import TrainingOptions


def new_method(kind: type[Method], options: MethodOptions, spec: DataSpec, seed: int) -> Method:
    """Return a method whose initial weights depend on the seed alone; torch's global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "initial weights"))
        return kind(options, spec)


def fit_or_train(
    method: Method,
    units: Units,
    options: TrainingOptions,
    seed: int,
    workdir: str | Path,
    logs: TrainingLogs | None = None,
    identity: dict[str, Any] | None = None,
) -> Trained:
    """Let a method learn from the training units: by steps (`train`), once in closed form, or never.

    Parameters and errors are those of `train`. A method without steps leaves a table of losses without lines.
    """
    logs = logs or TrainingLogs()
    if method.trains == "steps":
        return train(method, units, options, seed, workdir, logs, identity)
    started = time.monotonic()
    with exact(options.cpu_threads):
        torch.manual_seed(seed_of(seed, "fit"))
        if method.trains == "once":
            method.fit(units)
    if logs.csv is not None:
        with whole(logs.csv) as path:
            path.write_text("step\n")
    record = {"steps": 0, "final_loss": None, "units": len(units) if method.trains == "once" else 0}
    circumstances = {"device": "cpu", "seconds": round(time.monotonic() - started, 1)}
    return Trained(method.eval(), record, circumstances)
