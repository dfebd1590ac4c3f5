"""The most important genes, and the gene sets they stand for."""

import numpy as np
import pandas as pd


def draw_importance(
    genes: pd.DataFrame, over: pd.DataFrame, ranked: pd.DataFrame, fdr: float, top: int, path: str
) -> None:
    """Draw a bar a gene (the 25 most important), and the sets by over-representation and by the preranked test."""
    from .style import COLOURS, plt, save

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 4.6), width_ratios=[1.1, 1, 1])
    best = genes.sort_values("rank").head(25).iloc[::-1]
    colours = np.where(best["signed"] >= 0, COLOURS[1], COLOURS[0])
    left.barh(best["gene"], best["importance"], xerr=1.96 * best["se"].fillna(0), color=colours, error_kw={"lw": 0.7})
    left.set(xlabel="importance (mean of all genes = 1)", title="genes; red: more expression, more energy")
    left.tick_params(axis="y", labelsize=7)
    for axes, table, value, title in (
        (middle, over, -np.log10(over["fdr"].clip(lower=1e-12)), f"over-representation, top {top} genes"),
        (right, ranked, ranked["nes"], "preranked test, all genes"),
    ):
        shown = table.assign(value=value).head(12).iloc[::-1]
        significant = shown["fdr"] <= fdr
        axes.barh(shown["term"], shown["value"], color=np.where(significant, COLOURS[2], "#cccccc"))
        axes.set_title(f"{title}\ngreen: FDR ≤ {fdr:g}")
        axes.tick_params(axis="y", labelsize=7)
    middle.set_xlabel("-log10 FDR")
    middle.axvline(-np.log10(fdr), color="#555555", lw=0.8, ls="--")
    right.set_xlabel("normalised enrichment score")
    save(figure, path)
