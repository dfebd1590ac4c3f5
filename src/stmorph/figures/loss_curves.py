"""Training loss of each trained run against the step."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

FAMILIES = frozenset({"generator", "predictor"})
TRAINED_BY_STEPS = True
FILES = {"losses": "losses.csv"}
DATA = None


class Options(BaseModel):
    """column: which column of losses.csv is drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = "loss"


def draw(runs: Sequence[Mapping[str, Any]], options: Options, files: Mapping[str, Sequence[str]], path: str) -> None:
    """Draw one curve a run, on logarithmic axes of loss."""
    from ..errors import ConfigError
    from .style import COLOURS, plt, save

    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    for position, run in enumerate(runs):
        losses = pd.read_csv(run["files"]["losses"])
        if options.column not in losses:
            raise ConfigError(
                f"{run['files']['losses']} has no column {options.column!r}; it has {', '.join(losses.columns)}"
            )
        label = f"{run['label']}, {run['panel']}" + (
            f", seed {run['seed']}" if len({r["seed"] for r in runs}) > 1 else ""
        )
        axes.plot(losses["step"], losses[options.column], color=COLOURS[position % len(COLOURS)], label=label, lw=1.2)
    axes.set(xlabel="training step", ylabel=f"{options.column} (mean since the line before)", yscale="log")
    axes.legend(loc="upper right")
    del files
    save(figure, path)
