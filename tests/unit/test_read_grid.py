import numpy as np
import pytest

from stmorph.read.grid import measure_grid


def visium_array(rows=20, columns=20):
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.column_stack([2 * column + row % 2, row])  # array_col, array_row


def rotated(points, angle):
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2])
def test_visium_hexagons(angle):
    array = visium_array()
    pixels = rotated(array * [50.0, 50.0 * np.sqrt(3)], angle) + 700
    grid = measure_grid(array, pixels)
    assert grid.pitch_px == pytest.approx(100, rel=1e-9) and grid.mirrored is False
    assert measure_grid(array, pixels[:, ::-1]).mirrored is True


def test_scattered_spots_measure_the_same_pitch():
    # No two chosen spots need be neighbours: the distance between nearest ones would be far larger.
    array = visium_array(60, 60)[np.random.default_rng(1).permutation(3600)[:40]]
    pixels = array * [50.0, 50.0 * np.sqrt(3)]
    grid = measure_grid(array, pixels)
    assert grid.pitch_px == pytest.approx(100) and "staggered" in grid.evidence
    assert np.median([np.sort(np.hypot(*(pixels - p).T))[1] for p in pixels]) > 150


def test_square_array_with_jitter_and_mirrored():
    array = np.array([(x, y) for x in range(1, 20) for y in range(1, 20)])
    pixels = array[:, ::-1] * [-300.0, 300.0] + 9000 + np.random.default_rng(0).normal(0, 20, (len(array), 2))
    grid = measure_grid(array, pixels)
    assert grid.pitch_px == pytest.approx(300, rel=0.01) and "square" in grid.evidence and grid.mirrored is False


def test_array_of_2000_spots_is_measured_between_nearest_neighbours():
    array = np.array([(x, y) for x in range(1, 30) for y in range(1, 30) if x % 2 == y % 2])
    step = np.array([100.0, np.sqrt(150**2 - 100**2)]) / 4.0  # um per step at 4 um per px
    assert measure_grid(array, array * step).pitch_px == pytest.approx(150 / 4)


def test_unrelated_array_coordinates_fall_back_to_distances():
    pixels = np.array([(x, y) for x in range(10) for y in range(10)]) * 80.0
    for array in (np.zeros((100, 2)), np.random.default_rng(0).integers(0, 50, (100, 2))):
        grid = measure_grid(array, pixels)
        assert grid.pitch_px == pytest.approx(80) and grid.evidence == "median distance to the nearest spot"
    assert np.isnan(measure_grid(np.zeros((1, 2)), pixels[:1]).pitch_px)
