"""Measured beside predicted expression of marker genes, spot by spot on a test slide."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

FAMILIES = frozenset({"predictor"})
TRAINED_BY_STEPS = False
FILES = {"samples": "samples.zarr.zip", "genes": "genes.parquet"}
DATA = ()


class Options(BaseModel):
    """genes: markers; those not in the panel are named on the figure. slide: the first test slide if None.

    top: without markers, this many genes of the panel, those in which the training units vary most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    genes: list[str] = []
    top: int = Field(4, ge=1, le=12)
    slide: str | None = None


def draw(runs: Sequence[Mapping[str, Any]], options: Options, files: Mapping[str, Sequence[str]], path: str) -> None:
    """Draw a row a gene: measured, then each method; one colour scale a row, so that flat predictions look flat."""
    from ..errors import ConfigError
    from ..runs.inputs import units_of
    from ..samples.store import read_samples
    from .style import plt, save

    first = runs[0]
    shown = [run for run in runs if all(run[key] == first[key] for key in ("panel", "seed", "split"))]
    test, train = units_of(first, files, ["test"]), units_of(first, files, ["train"])
    slide = options.slide or str(test.slide[0])
    here = np.flatnonzero(test.slide == slide)
    if not len(here):
        raise ConfigError(
            f"prediction_maps: slide {slide!r} is not tested; the test slides are {', '.join(sorted(set(test.slide)))}"
        )
    absent = [gene for gene in options.genes if gene not in test.genes]
    by_variance = [test.genes[i] for i in np.argsort(-train.expression.var(axis=0), kind="stable")]
    genes = [gene for gene in options.genes if gene in test.genes] or by_variance[: options.top]
    columns = [("measured", test.expression[here])]
    for run in shown:
        samples = read_samples(run["files"]["samples"])
        position = {(s, b): i for i, (s, b) in enumerate(zip(samples.slide, samples.barcode))}
        rows = [position.get((slide, barcode), -1) for barcode in test.barcode[here]]
        predicted = samples.draws.mean(axis=1)[rows]
        predicted[np.array(rows) < 0] = np.nan
        columns.append((run["row"].removeprefix("floor: "), predicted))
    xy = test.spatial_um[here] / 1000
    figure, axes = plt.subplots(
        len(genes), len(columns), figsize=(2.05 * len(columns) + 0.8, 2.0 * len(genes) + 0.4), squeeze=False
    )
    size = 9000 / len(here)
    for row, gene in enumerate(genes):
        g = test.genes.index(gene)
        low, high = np.percentile(columns[0][1][:, g], [1, 99])
        for column, (label, values) in enumerate(columns):
            ax = axes[row, column]
            dots = ax.scatter(
                xy[:, 0],
                xy[:, 1],
                c=values[:, g],
                s=min(size, 30),
                cmap="viridis",
                vmin=low,
                vmax=max(high, low + 1e-6),
                lw=0,
            )
            ax.set(xticks=[], yticks=[], aspect="equal")
            ax.invert_yaxis()
            for side in ax.spines.values():
                side.set_visible(False)
            title = label if row == 0 else ""
            if column:
                r = _correlation(columns[0][1][:, g], values[:, g])
                title += ("\n" if title else "") + ("r undefined" if np.isnan(r) else f"r = {r:.2f}")
            ax.set_title(title, fontsize=8)
        axes[row, 0].set_ylabel(gene, fontsize=9)
        figure.colorbar(dots, ax=axes[row, :], shrink=0.7, aspect=12, pad=0.01)
    note = f"; not in the panel: {', '.join(absent)}" if absent else ""
    figure.suptitle(f"{slide}, {first['target_space']}, panel {first['panel']}{note}", fontsize=9)
    save(figure, path)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any() or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return float("nan")
    return float(np.corrcoef(a[both], b[both])[0, 1])
