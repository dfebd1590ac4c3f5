"""Leaks between training and test are found, counted and refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmorph.errors import LeakError
from stmorph.leakage import WindowCells, leakage_report, refuse_leaks, window_cells
from stmorph.splits import split_units


def split_of(*rows):
    """Return a split of (slide, patient, barcode, x, y, role)."""
    return pd.DataFrame(rows, columns=["slide", "patient", "barcode", "x_um", "y_um", "role"])


CLEAN = [("s1", "p1", "a", 0.0, 0.0, "train"), ("s2", "p2", "a", 0.0, 0.0, "test")]


def test_a_clean_split():
    report = leakage_report(split_of(*CLEAN), 64, False)
    assert report == {
        "replication": False,
        "leaks": [],
        "notes": [],
        "roles": {"test": 1, "train": 1},
        "slides": {"s1": {"train": 1}, "s2": {"test": 1}},
        "patients": {"train": ["p1"], "test": ["p2"]},
    }
    refuse_leaks(report, "x")


def test_a_unit_on_both_sides():
    report = leakage_report(split_of(*CLEAN, ("s1", "p1", "a", 900.0, 0.0, "test")), 64, False)
    assert any("1 units are in training and in test, the first s1/a" in leak for leak in report["leaks"])
    with pytest.raises(LeakError, match="'mine' leaks"):
        refuse_leaks(report, "mine")


@pytest.mark.parametrize(
    ("dx", "dy", "leaks"),
    [(63.9, 0, True), (63, 63, True), (0, -10, True), (64, 0, False), (64, 64, False), (10, 64, False)],
)
def test_tiles_overlap_where_both_axes_are_nearer_than_a_tile(dx, dy, leaks):
    report = leakage_report(
        split_of(("s", "p", "a", 500.0, 500.0, "train"), ("s", "p", "b", 500.0 + dx, 500.0 + dy, "test")), 64, False
    )
    assert bool(report["leaks"]) == leaks
    if leaks:
        with pytest.raises(LeakError, match="1 of 1 test tiles share pixels"):
            refuse_leaks(report, "x")


def test_tiles_of_different_slides_and_of_the_buffer_do_not_overlap():
    near = [("s", "p", "a", 0.0, 0.0, "buffer"), ("s", "p", "c", 0.0, 0.0, "unused"), ("s", "p", "b", 1.0, 0.0, "test")]
    assert leakage_report(split_of(*CLEAN, *near), 64, False)["leaks"] == []


def test_only_the_overlapping_test_tiles_are_counted():
    rows = [("s", "p", f"t{i}", 100.0 * i, 0.0, "test") for i in range(5)] + [("s", "p", "a", 40.0, 0.0, "train")]
    assert leakage_report(split_of(*rows), 64, False)["leaks"][0].startswith("2 of 5 test tiles")


def test_replication_is_reported_and_let_pass():
    report = leakage_report(split_of(("s", "p", "a", 0.0, 0.0, "train"), ("s", "p", "b", 1.0, 0.0, "test")), 64, True)
    assert report["leaks"] and report["replication"]
    refuse_leaks(report, "papers_own")


def test_shared_slides_and_patients_are_notes():
    rows = [
        ("s1", "p1", "a", 0.0, 0.0, "train"),
        ("s2", "p1", "b", 0.0, 0.0, "test"),
        ("s1", "p1", "c", 900.0, 0.0, "test"),
    ]
    report = leakage_report(split_of(*rows), 64, False)
    assert report["leaks"] == []
    assert [note.split(":")[0] for note in report["notes"]] == ["s1", "p1"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.floats(20, 120), st.floats(60, 400))
def test_a_buffer_of_a_tiles_diagonal_suffices(seed, split_seed, fov_um, block_um):
    rng = np.random.default_rng(seed)
    units = pd.DataFrame({"dataset": "d", "slide": "s", "patient": "p", "barcode": [f"b{i:03d}" for i in range(200)]})
    units[["x_um", "y_um"]] = rng.uniform(0, 3000, (200, 2))
    split = {"kind": "blocks", "seed": split_seed, "test_fraction": 0.2, "block_um": block_um}
    wide = split_units(units, {**split, "buffer_um": fov_um * 2**0.5}, "x")
    assert leakage_report(wide, fov_um, False)["leaks"] == []


def test_without_a_buffer_dense_tiles_leak():
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(30)), -1).reshape(-1, 2) * 20.0
    units = pd.DataFrame({"dataset": "d", "slide": "s", "patient": "p", "barcode": [f"b{i:03d}" for i in range(900)]})
    units[["x_um", "y_um"]] = grid
    split = {"kind": "blocks", "seed": 0, "test_fraction": 0.2, "block_um": 200.0, "buffer_um": 0.0}
    assert leakage_report(split_units(units, split, "x"), 64, False)["leaks"]


# --- cells of windows -------------------------------------------------------------------------------------------------


def windows(*cells):
    """Return the cells of windows w0, w1, ..."""
    barcode = np.array([f"w{i}" for i in range(len(cells))], dtype=object)
    return WindowCells(
        barcode, np.cumsum([0, *map(len, cells)]), np.array([one for held in cells for one in held], np.int64)
    )


def test_cells_in_windows_of_both_sides_are_counted_and_refused():
    # Far apart as tiles; cell 2 lies in w0, w1 and w2, cell 7 in w1 and w3, cell 4 in two training windows.
    cells = {"s": windows([1, 2, 4], [2, 7], [2], [7, 4], []), "other": windows([1], [1])}
    role = ["train", "test", "test", "train", "test"]
    rows = [("s", "p", f"w{i}", 500.0 * i, 0.0, role[i]) for i in range(5)]
    report = leakage_report(split_of(*rows), 64, False, cells)
    assert report["shared"] == {
        "test_tiles": 0, "training_tiles": 0, "cells": 2, "test_windows": 2, "training_windows": 2
    }  # fmt: skip
    with pytest.raises(LeakError, match=r"2 cells lie in a training and in a test window .*a cell's width more"):
        refuse_leaks(report, "mine")
    refuse_leaks(leakage_report(split_of(*rows), 64, True, cells), "papers_own")


def test_windows_without_a_cell_in_common_and_those_set_aside_do_not_leak():
    cells = {"s": windows([1, 2], [2, 3], [3, 4])}
    rows = [("s", "p", f"w{i}", 500.0 * i, 0.0, role) for i, role in enumerate(("train", "buffer", "test"))]
    report = leakage_report(split_of(*rows), 64, False, cells)
    assert report["leaks"] == [] and report["shared"]["cells"] == 0


def test_tiles_of_either_side_that_overlap_are_counted():
    rows = [("s", "p", f"t{i}", 10.0 * i, 0.0, "train") for i in range(4)] + [("s", "p", "u", 60.0, 0.0, "test")]
    report = leakage_report(split_of(*rows), 45, True)
    assert report["shared"] == {"test_tiles": 1, "training_tiles": 2}


def test_cells_are_read_of_the_slides_whose_units_are_windows(tmp_path):
    import anndata
    import scipy.sparse

    for name, cells in (("w", {"start": np.array([0, 2, 3]), "cell": np.array([5, 1, 5])}), ("plain", None)):
        uns = {"stmorph": {"slide": name}} | ({"cells": cells} if cells else {})
        one = anndata.AnnData(X=scipy.sparse.csr_matrix(np.ones((2, 1))), uns=uns)
        one.obs_names = ["a", "b"]
        one.write_h5ad(tmp_path / f"{name}.h5ad")
    found = window_cells([tmp_path / "w.h5ad", tmp_path / "plain.h5ad"])
    assert list(found) == ["w"] and list(found["w"].barcode) == ["a", "b"]
    assert found["w"].start.tolist() == [0, 2, 3] and found["w"].cell.tolist() == [5, 1, 5]
