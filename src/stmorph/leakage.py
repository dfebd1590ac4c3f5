"""Looks for ways in which a test unit could reach training; part of every run, and a leak stops it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from .errors import LeakError
from .slide_file import open_slide


@dataclass(frozen=True)
class WindowCells:
    """Which cells lie in a slide's windows: window barcode[i] holds cells cell[start[i] : start[i + 1]]."""

    barcode: np.ndarray
    start: np.ndarray
    cell: np.ndarray


def window_cells(slides: Sequence[str | Path]) -> dict[str, WindowCells]:
    """Return slide -> the cells of its windows, of those slide.h5ad files whose units are windows."""
    found = {}
    for slide in map(open_slide, slides):
        if (held := slide.cells_of_windows()) is not None:
            found[str(slide.about["slide"])] = WindowCells(slide.obs_names.to_numpy(dtype=object), *held)
    return found


def leakage_report(
    split: pd.DataFrame, fov_um: float, replication: bool, cells: Mapping[str, WindowCells] | None = None
) -> dict[str, Any]:
    """Return what the split shares between training and test.

    Parameters
    ----------
    split
        As `splits.split_units` gives it.
    fov_um
        Side of a tile: two tiles whose centres are nearer than this along both axes share pixels.
    replication
        Whether the split is a paper's own, whose leaks are reported but not refused.
    cells
        Slide -> the cells of its windows, where units are windows.

    Returns
    -------
    dict
        `leaks`: sentences, each a reason to stop (empty for a clean split); `notes`: what a reader should know but
        which does not stop a run (e.g. the same patient on both sides of a split by slides); counts by role, slide,
        patient; `replication`. Where a slide is on both sides `shared`: test and training tiles that share pixels with
        one of the other side, and of windows those that hold a cell in common, and how many such cells there are.
    """
    train, test = split[split["role"] == "train"], split[split["role"] == "test"]
    leaks, notes = [], []

    both = pd.merge(train[["slide", "barcode"]], test[["slide", "barcode"]])
    if len(both):
        leaks.append(f"{len(both)} units are in training and in test, the first {both.iloc[0, 0]}/{both.iloc[0, 1]}")
    slides = sorted(set(train["slide"]) & set(test["slide"]))
    shared = {
        "test_tiles": _overlapping(train, test, fov_um),
        "training_tiles": _overlapping(test, train, fov_um),
        **_shared_cells(train, test, {name: of for name, of in (cells or {}).items() if name in slides}),
    }
    if shared["test_tiles"]:
        leaks.append(
            f"{shared['test_tiles']} of {len(test)} test tiles share pixels with a training tile of the same slide "
            f"(tiles are {fov_um:g} um wide)"
        )
    if shared.get("cells"):
        leaks.append(
            f"{shared['cells']} cells lie in a training and in a test window ({shared['test_windows']} of {len(test)} "
            f"test windows, {shared['training_windows']} of {len(train)} training windows)"
        )
    if slides:
        notes.append(f"{', '.join(slides)}: one slide on both sides, so its stain and depth are known from training")
    patients = sorted(set(train["patient"]) & set(test["patient"]))
    if patients:
        notes.append(f"{', '.join(patients)}: one patient on both sides, so results do not speak of new patients")
    return {
        "replication": replication,
        **({"shared": shared} if slides else {}),
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
            "at least a tile's diagonal (and of windows a cell's width more), or mark a paper's own split with "
            "`replication: true`"
        )


def _overlapping(train: pd.DataFrame, test: pd.DataFrame, fov_um: float) -> int:
    """Return how many tiles of the second table share pixels with one of the first, of their slide."""
    count = 0
    for slide in sorted(set(train["slide"]) & set(test["slide"])):
        trained = train.loc[train["slide"] == slide, ["x_um", "y_um"]].to_numpy()
        tested = test.loc[test["slide"] == slide, ["x_um", "y_um"]].to_numpy()
        distance, _ = cKDTree(trained).query(tested, p=np.inf)
        count += int((distance < fov_um).sum())
    return count


def _shared_cells(train: pd.DataFrame, test: pd.DataFrame, cells: Mapping[str, WindowCells]) -> dict[str, int]:
    """Return how many cells lie in windows of both sides, and in how many windows; empty where units are no windows."""
    if not cells:
        return {}
    found = {"cells": 0, "test_windows": 0, "training_windows": 0}
    for slide, held in cells.items():
        window = np.repeat(np.arange(len(held.barcode)), np.diff(held.start))
        number = int(held.cell.max(initial=-1)) + 1
        sides = {}
        for side, units in (("training", train), ("test", test)):
            mine = np.isin(held.barcode, units.loc[units["slide"] == slide, "barcode"].to_numpy(dtype=object))
            sides[side] = mine, np.bincount(held.cell[mine[window]], minlength=number) > 0
        both = sides["training"][1] & sides["test"][1]
        found["cells"] += int(both.sum())
        touched = np.bincount(window[both[held.cell]], minlength=len(held.barcode)) > 0
        for side, (mine, _) in sides.items():
            found[f"{side}_windows"] += int((mine & touched).sum())
    return found
