import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from stmorph.errors import DataError
from stmorph.image.windows import (
    CELL_COLUMNS,
    WindowOptions,
    area_inside,
    cells_in_tiles,
    window_grid,
)

SQUARE = np.array([(2.0, 2.0), (6.0, 2.0), (6.0, 6.0), (2.0, 6.0)])


def ring(centre, radius, corners=13, seed=0):
    """A closed outline that is not convex."""
    angle = np.linspace(0, 2 * np.pi, corners)
    reach = radius * np.random.default_rng(seed).uniform(0.5, 1.0, corners)
    reach[-1] = reach[0]
    return np.asarray(centre) + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def listed(border, box=(0, 0, 4, 8), outline=SQUARE[None], area=np.nan, centre=(4, 4)):
    n = 1 if outline is None else len(outline)
    table = cells_in_tiles(
        np.array(["t"]),
        np.array([box], float),
        np.array([f"c{k}" for k in range(n)]),
        np.broadcast_to(np.asarray(centre, float), (n, 2)),
        np.full(n, area),
        outline,
        border,
    )
    assert tuple(table.columns) == CELL_COLUMNS
    return table["weight"].tolist()


# --- areas ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 8, 8), 1.0),
        ((0, 0, 4, 8), 0.5),
        ((0, 0, 4, 4), 0.25),
        ((3, 3, 5, 5), 0.25),  # the box lies inside
        ((3, 0, 4, 100), 0.25),  # a strip through the middle
        ((6, 0, 8, 8), 0.0),  # touches
        ((-50, -50, -40, -40), 0.0),
    ],
)
@pytest.mark.parametrize("turn", [1, -1])
def test_known_areas_whatever_the_sense_of_the_outline(box, expected, turn):
    assert area_inside(SQUARE[None, ::turn], np.array([box], float))[0] == pytest.approx(expected, abs=1e-12)


def test_a_slanted_edge_and_a_notch():
    triangle = np.array([[(0.0, 0.0), (4.0, 0.0), (0.0, 4.0)]])
    assert area_inside(triangle, np.array([(0, 0, 2, 2.0)]))[0] == pytest.approx(4 / 8)
    assert area_inside(triangle, np.array([(1, 1, 9, 9.0)]))[0] == pytest.approx(2 / 8)
    # A U: the box lies over both arms and the gap between them.
    arms = np.array([[(0, 0), (1, 0), (1, 3), (3, 3), (3, 0), (4, 0), (4, 4), (0, 4.0)]])
    assert area_inside(arms, np.array([(0, 0, 4, 2.0)]))[0] == pytest.approx(4 / 10)
    assert area_inside(arms, np.array([(1, 0, 3, 3.0)]))[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_areas_agree_with_counting_pixels(seed):
    rng = np.random.default_rng(seed)
    outline = ring((200, 200), 150, seed=seed)
    left, top = rng.integers(20, 250, 2)
    right, bottom = left + rng.integers(20, 150), top + rng.integers(20, 150)
    mask = polygon2mask((400, 400), outline[:, ::-1] - 0.5)  # row, column; pixel centres lie at +0.5
    expected = mask[top:bottom, left:right].sum() / mask.sum()
    found = area_inside(outline[None], np.array([(left, top, right, bottom)], float))[0]
    assert found == pytest.approx(expected, abs=0.004)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    far=st.sampled_from([0.0, 1e4, 1e6]),
    cuts=st.lists(st.floats(1, 99, allow_nan=False), min_size=0, max_size=5),
    kind=st.sampled_from(["outline", "disc", "point"]),
)
def test_over_a_partition_of_the_plane_the_fractions_of_a_cell_sum_to_one(seed, far, cuts, kind):
    edges = np.unique(np.r_[0, cuts, 100.0]) + far
    left, top = np.meshgrid(edges[:-1], edges[:-1])
    right, bottom = np.meshgrid(edges[1:], edges[1:])
    box = np.stack([left, top, right, bottom], axis=-1).reshape(-1, 4)
    rng = np.random.default_rng(seed)
    centre = rng.uniform(20, 80, (7, 2)) + far
    outline = np.stack([ring(at, 18, seed=seed + k) for k, at in enumerate(centre)]) if kind == "outline" else None
    area = np.full(7, np.nan if kind == "point" else 900.0)
    names = np.array([f"c{k}" for k in range(7)])
    table = cells_in_tiles(
        np.array([f"t{k:03d}" for k in range(len(box))]), box, names, centre, area, outline, "fraction"
    )
    np.testing.assert_allclose(table.groupby("cell")["weight"].sum().loc[names], 1, atol=1e-9)


# --- the three ways ---------------------------------------------------------------------------------------------------


def test_a_cut_cell_counts_fully_not_at_all_or_by_its_fraction():
    assert listed("whole") == [1.0]
    assert listed("none") == []
    assert listed("fraction") == [0.5]
    for border in ("whole", "none", "fraction"):
        assert listed(border, box=(0, 0, 8, 8)) == [1.0]
        assert listed(border, box=(2, 2, 6, 6)) == [1.0]  # enclosed to its very edge
        assert listed(border, box=(6, 0, 9, 9)) == []  # touched is not cut


def test_a_corner_that_only_the_bounding_boxes_share_is_no_overlap():
    diamond = np.array([[(4.0, 0.0), (8.0, 4.0), (4.0, 8.0), (0.0, 4.0)]])
    for border in ("whole", "fraction"):
        assert listed(border, box=(-2, -2, 1.5, 1.5), outline=diamond) == []
    assert listed("whole", box=(-2, -2, 2.5, 2.5), outline=diamond) == [1.0]


def test_without_an_outline_a_cell_is_a_disc_of_its_area_and_without_an_area_a_point():
    area = np.pi * 2.0**2
    missing = np.full((1, 4, 2), np.nan)
    for outline in (None, missing):
        (half,) = listed("fraction", outline=outline, area=area)
        assert half == pytest.approx(0.5, abs=1e-9)
        # A quarter of a disc in the corner box; less than the square of its extent.
        (corner,) = listed("fraction", outline=outline, area=area, box=(0, 0, 3, 3))
        exact = _corner_of_disc(2.0, 1.0, 1.0) / area
        assert corner == pytest.approx(exact, abs=2e-3)
        assert listed("fraction", outline=outline, box=(0, 0, 4, 8)) == []  # the point lies on the open side
        assert listed("none", outline=outline, box=(4, 4, 9, 9)) == [1.0]


def _corner_of_disc(radius, x, y):
    """The area of a disc round 0 beyond x and y, both above 0, by summing strips."""
    at = np.linspace(x, radius, 200_001)
    height = np.clip(np.sqrt(np.maximum(radius**2 - at**2, 0)) - y, 0, None)
    return float(((height[1:] + height[:-1]) / 2 * np.diff(at)).sum())


def test_the_list_is_sorted_and_does_not_depend_on_the_order_of_cells_and_tiles():
    rng = np.random.default_rng(1)
    centre = rng.uniform(0, 100, (60, 2))
    outline = np.stack([ring(at, 6, seed=k) for k, at in enumerate(centre)])
    corner = rng.uniform(0, 70, (9, 2))
    box, tile = np.concatenate([corner, corner + 30], axis=1), np.array([f"t{k}" for k in range(9)])
    cell, area = np.array([f"c{k:02d}" for k in range(60)]), np.full(60, np.nan)
    one = cells_in_tiles(tile, box, cell, centre, area, outline, "fraction")
    i, j = rng.permutation(9), rng.permutation(60)
    other = cells_in_tiles(tile[i], box[i], cell[j], centre[j], area[j], outline[j], "fraction")
    pd.testing.assert_frame_equal(one, other)
    assert one.equals(one.sort_values(["tile", "cell"], ignore_index=True))
    everything = {(t, c): area_inside(outline[[c]], box[[t]])[0] for t in range(9) for c in range(60)}
    found = {(int(t[1:]), int(c[1:])): w for t, c, w in one.itertuples(index=False)}
    for pair, expected in everything.items():
        assert found.get(pair, 0.0) == pytest.approx(expected, abs=1e-9)


def test_no_cells_and_no_tiles():
    nothing = cells_in_tiles(
        np.array([]), np.zeros((0, 4)), np.array(["c"]), np.ones((1, 2)), np.ones(1), None, "whole"
    )
    assert len(nothing) == 0 and tuple(nothing.columns) == CELL_COLUMNS
    nobody = cells_in_tiles(
        np.array(["t"]), np.array([(0, 0, 1, 1.0)]), np.array([]), np.zeros((0, 2)), np.zeros(0), None, "fraction"
    )
    assert len(nobody) == 0


# --- windows over an image --------------------------------------------------------------------------------------------


def test_the_papers_windows_overlap_by_a_hundred_pixels_and_fit_into_the_image():
    um_per_px = 0.25
    options = WindowOptions(fov_um=256 * um_per_px, step_um=(256 - 100) * um_per_px)
    name, centre = window_grid(500.0, 300.0, options)
    assert len(set(name)) == len(name) == 12 * 7
    low, high = centre - options.fov_um / 2, centre + options.fov_um / 2
    assert low.min() == 0 and (high <= [500, 300]).all() and (high.max(axis=0) + options.step_um > [500, 300]).all()
    neighbour = centre[name == "c00003r00002"][0] - centre[name == "c00002r00002"][0]
    assert (high[0] - low[0] - neighbour)[0] / um_per_px == 100 and neighbour[1] == 0


def test_windows_one_side_apart_hold_every_cell_once():
    name, centre = window_grid(250.0, 250.0, WindowOptions(fov_um=25, step_um=25))
    assert len(name) == 100  # an exact fit loses no window to rounding
    rng = np.random.default_rng(0)
    place = rng.uniform(15, 235, (80, 2))
    outline = np.stack([ring(at, 12, seed=k) for k, at in enumerate(place)])
    box = np.concatenate([centre - 12.5, centre + 12.5], axis=1)
    cell = np.array([f"c{k:02d}" for k in range(80)])
    table = cells_in_tiles(name, box, cell, place, np.full(80, np.nan), outline, "fraction")
    np.testing.assert_allclose(table.groupby("cell")["weight"].sum(), 1, atol=1e-9)


def test_windows_that_cannot_be_are_refused():
    with pytest.raises(DataError, match=r"windows of 64 um every 39 um .* 60 x 300 um, which makes 0 x 7"):
        window_grid(60.0, 300.0, WindowOptions(fov_um=64, step_um=39))
    with pytest.raises(DataError, match="mend fov_um, step_um"):
        window_grid(1e4, 1e4, WindowOptions(fov_um=64, step_um=0.1))
    for wrong in ({"step_um": 0}, {"fov_um": -1}, {"min_cells": 0}, {"border": "half"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            WindowOptions(**{"fov_um": 64, "step_um": 39, **wrong})
