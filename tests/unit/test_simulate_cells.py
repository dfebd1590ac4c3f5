import numpy as np
import pytest
from scipy.stats import spearmanr

from stmorph.simulate import (
    PROGRAMMES,
    SimulationOptions,
    catalogue,
    causal_genes,
    draw_section,
    draw_stain,
    render,
    simulated_cells,
    tile_centres,
)
from stmorph.simulate.cells import cell_counts
from stmorph.simulate.tissue import keep_apart


@pytest.fixture(scope="module")
def drawn():
    options = SimulationOptions(spots=100, um_per_px=1.0)
    section = draw_section(options, "A1", "P1", 2)
    return section, render(section, draw_stain(options, "A1", "P1", 2))


def test_windows_that_tile_the_section_hold_each_cell_once(drawn):
    section, image = drawn
    centres = tile_centres(section, 64.0, 64.0)
    made = simulated_cells(section, image, centres)
    counts, xy = cell_counts(section), section.cells.xy_um
    total = 0.0
    for centre, inside in zip(made.centre_um, made.cells):
        chosen = (np.abs(xy - centre) <= 32).all(axis=1)
        assert len(inside) == chosen.sum()
        assert inside.sum() == counts[chosen].sum()
        total += inside.sum()
    assert 0 < total <= counts.sum()
    assert made.cells[0].dtype == np.float32
    assert all(c.shape[1] == len(made.genes) for c in made.cells)


def test_a_tile_is_the_mean_of_the_images_pixels(drawn):
    section, image = drawn
    made = simulated_cells(section, image, tile_centres(section, 64.0, 100.0))
    x, y = (made.centre_um[3] - 32).astype(int)
    window = image[y : y + 64, x : x + 64].astype(float)
    assert made.tiles.shape[1:] == (32, 32, 3)
    assert np.abs(made.tiles[3, 5, 7] - window[10:12, 14:16].mean(axis=(0, 1))).max() <= 0.5


def test_cells_expression_follows_their_tiles_activity_and_nuclei(drawn):
    section, image = drawn
    made = simulated_cells(section, image, tile_centres(section, 64.0, 50.0))
    names = catalogue().name
    chosen = [names.index(g) for g in causal_genes()["PROLIFERATION"]]
    full = np.array([len(c) >= 3 for c in made.cells]) & np.isfinite(made.nuclear_radius_um)
    score = np.array([np.log1p(c[:, chosen]).mean() if len(c) else 0 for c in made.cells])
    column = list(PROGRAMMES).index("PROLIFERATION")
    assert spearmanr(score[full], made.activity[full, column])[0] > 0.8
    assert spearmanr(score[full], made.nuclear_radius_um[full])[0] > 0.5


def test_windows_outside_the_image_and_uneven_tiles_are_refused(drawn):
    section, image = drawn
    with pytest.raises(ValueError, match="leaves the image"):
        simulated_cells(section, image, np.array([[5.0, 5.0]]))
    with pytest.raises(ValueError, match="whole multiple"):
        simulated_cells(section, image, tile_centres(section, 64.0, 200.0), tile_px=30)


def test_keeping_points_apart_equals_adding_them_one_by_one():
    rng = np.random.default_rng(0)
    xy, kind = rng.uniform(0, 60, (400, 2)), rng.integers(0, 2, 400)
    reach, cross = rng.uniform(1, 3, 400), rng.uniform(0.5, 2, 400)
    kept = []
    for i in range(400):
        near = lambda j: (reach[i] + reach[j]) if kind[i] == kind[j] else (cross[i] + cross[j])  # noqa: B023, E731
        if all(np.hypot(*(xy[i] - xy[j])) >= near(j) for j in kept):
            kept.append(i)
    assert np.flatnonzero(keep_apart(xy, reach, kind, cross)).tolist() == kept
