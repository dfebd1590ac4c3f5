"""Variance of each gene over test spots, measured and predicted (Stem, Appendix A)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

FAMILIES = frozenset({"predictor"})
TRAINED_BY_STEPS = False
FILES = {"genes": "genes.parquet"}
DATA = None


class Options(BaseModel):
    """estimator: which summary of the draws is shown; panel: which panel (the first if None)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    estimator: str = "mean"
    panel: str | None = None


def draw(runs: Sequence[Mapping[str, Any]], options: Options, files: Mapping[str, Sequence[str]], path: str) -> None:
    """Draw a panel a method: genes in the order of their measured variance, relative (top) and absolute (bottom)."""
    from .style import COLOURS, plt, save

    panel = options.panel or runs[0]["panel"]
    seed = runs[0]["seed"]
    shown = [run for run in runs if run["panel"] == panel and run["seed"] == seed]
    figure, axes = plt.subplots(2, len(shown), figsize=(2.4 * len(shown) + 0.6, 4.6), sharey="row", squeeze=False)
    for column, run in enumerate(shown):
        genes = pd.read_parquet(run["files"]["genes"])
        genes = (
            genes[genes["estimator"] == options.estimator].groupby("gene", sort=True)[["var_true", "var_pred"]].mean()
        )
        for row, relative in enumerate((True, False)):
            ax = axes[row, column]
            true, predicted = (genes[name].to_numpy() for name in ("var_true", "var_pred"))
            if relative:
                true, predicted = (values / max(values.sum(), 1e-12) for values in (true, predicted))
            order = np.argsort(true, kind="stable")
            ax.plot(predicted[order], ".", ms=3, color=COLOURS[1], label="predicted", alpha=0.7)
            ax.plot(true[order], "-", color=COLOURS[0], lw=1.4, label="measured")
            if row == 0:
                ax.set_title(run["row"].removeprefix("floor: "), fontsize=8)
            ax.set_xlabel("gene, by measured variance" if row else "")
    axes[0, 0].set_ylabel("share of all variance")
    axes[1, 0].set_ylabel("variance")
    axes[0, 0].legend(loc="upper left", fontsize=7)
    figure.suptitle(f"Gene variation, panel {panel}, draws summarised by their {options.estimator}", fontsize=9)
    del files
    save(figure, path)
