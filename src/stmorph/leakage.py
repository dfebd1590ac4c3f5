"""Looks for ways in which a test unit could reach training; part of every run, and a leak stops it."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from .errors import LeakError


def leakage_report(split: pd.DataFrame, fov_um: float, replication: bool) -> dict[str, Any]:
    """Return what the split shares between training and test.

    Parameters
    ----------
    split
        As `splits.split_units` gives it.
    fov_um
        Side of a tile: two tiles whose centres are nearer than this along both axes share pixels.
    replication
        Whether the split is a paper's own, whose leaks are reported but not refused.

    Returns
    -------
    dict
        `leaks`: sentences, each a reason to stop (empty for a clean split); `notes`: what a reader should know but
        which does not stop a run (e.g. the same patient on both sides of a split by slides); counts by role, slide,
        patient; `replication`.
    """
    train, test = split[split["role"] == "train"], split[split["role"] == "test"]
    leaks, notes = [], []

    both = pd.merge(train[["slide", "barcode"]], test[["slide", "barcode"]])
    if len(both):
        leaks.append(f"{len(both)} units are in training and in test, the first {both.iloc[0, 0]}/{both.iloc[0, 1]}")
    overlapping = _overlapping(train, test, fov_um)
    if overlapping:
        leaks.append(
            f"{overlapping} of {len(test)} test tiles share pixels with a training tile of the same slide "
            f"(tiles are {fov_um:g} um wide)"
        )
    slides = sorted(set(train["slide"]) & set(test["slide"]))
    if slides:
        notes.append(f"{', '.join(slides)}: one slide on both sides, so its stain and depth are known from training")
    patients = sorted(set(train["patient"]) & set(test["patient"]))
    if patients:
        notes.append(f"{', '.join(patients)}: one patient on both sides, so results do not speak of new patients")
    return {
        "replication": replication,
        "leaks": leaks,
        "notes": notes,
        "roles": {role: int(count) for role, count in sorted(split["role"].value_counts().items())},
        "slides": {
            slide: {role: int(n) for role, n in sorted(rows["role"].value_counts().items())}
            for slide, rows in sorted(split.groupby("slide", observed=True), key=lambda pair: pair[0])
        },
        "patients": {
            role: sorted(split.loc[split["role"] == role, "patient"].unique().tolist()) for role in ("train", "test")
        },
    }


def refuse_leaks(report: dict[str, Any], name: str) -> None:
    """Stop a leaky split, unless it is a paper's own.

    Raises
    ------
    LeakError
        The report lists leaks and the split is not marked `replication`.
    """
    if report["leaks"] and not report["replication"]:
        raise LeakError(
            f"split {name!r} leaks: {'; '.join(report['leaks'])}; use slides, patients or blocks with a buffer_um of "
            "at least a tile's diagonal, or mark a paper's own split with `replication: true`"
        )


def _overlapping(train: pd.DataFrame, test: pd.DataFrame, fov_um: float) -> int:
    """Return how many test tiles share pixels with a training tile of their slide."""
    count = 0
    for slide in sorted(set(train["slide"]) & set(test["slide"])):
        trained = train.loc[train["slide"] == slide, ["x_um", "y_um"]].to_numpy()
        tested = test.loc[test["slide"] == slide, ["x_um", "y_um"]].to_numpy()
        distance, _ = cKDTree(trained).query(tested, p=np.inf)
        count += int((distance < fov_um).sum())
    return count
