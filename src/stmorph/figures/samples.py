"""Real test tiles in the first row, below them what each generator drew for the same units: red, green and blue."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

FAMILIES = frozenset({"generator"})
TRAINED_BY_STEPS = False
FILES = {"samples": "samples.zarr.zip"}
DATA = ("tiles",)


class Options(BaseModel):
    """units: how many columns; they span the range of brightness of the real tiles, so that differences can be seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    units: int = Field(10, ge=2, le=24)


def draw(runs: Sequence[Mapping[str, Any]], options: Options, files: Mapping[str, Sequence[str]], path: str) -> None:
    """Draw the grid; columns are test units that every run sampled."""
    from ..image.extra_channels import RGB
    from ..runs.inputs import units_of
    from ..samples.store import read_samples
    from .style import plt, save

    seed = runs[0]["seed"]
    shown = [run for run in runs if run["seed"] == seed and run["split"] == runs[0]["split"]]
    drawn = [read_samples(run["files"]["samples"]) for run in shown]
    names = [[f"{slide}/{barcode}" for slide, barcode in zip(s.slide, s.barcode)] for s in drawn]
    test = units_of(shown[0], files, ["test"])
    common = sorted(set(names[0]).intersection(*names[1:]))
    where = {name: i for i, name in enumerate(test.names())}
    real = test.tiles.read(np.array([where[name] for name in common]))
    by_brightness = np.argsort(real.mean(axis=(1, 2, 3)), kind="stable")
    columns = by_brightness[np.linspace(0, len(common) - 1, min(options.units, len(common))).round().astype(int)]
    rows = [("real tile", real[columns])]
    for run, samples, mine in zip(shown, drawn, names):
        position = {name: i for i, name in enumerate(mine)}
        drawn_here = samples.draws[[position[common[c]] for c in columns], 0]
        rows.append((run["group"].removeprefix("floor: "), drawn_here[..., :RGB]))
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(0.95 * len(columns) + 1.5, 0.98 * len(rows)), squeeze=False
    )
    for (label, pictures), line in zip(rows, axes):
        for ax, picture in zip(line, pictures):
            ax.imshow(picture, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            for side in ax.spines.values():
                side.set_visible(False)
        line[0].set_ylabel(label.replace(" ", "\n", 1), rotation=0, ha="right", va="center", fontsize=8)
    save(figure, path)
