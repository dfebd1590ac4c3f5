"""Registration of a slide: simulated tissue at its place, displaced, mirrored, turned; and what cannot be told."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from stmorph.quality.placements import displaced, placements, refined
from stmorph.quality.registration import register, spatial_components
from stmorph.quality.under import read_scale, under_units
from stmorph.quality.units import pitch_um, units_of
from stmorph.simulate import SimulationOptions, draw_slide

UM_PER_PX = 2.0


class Drawn:
    """A simulated slide in memory, as registration takes it."""

    def __init__(self, organ_layout, seed=0):
        options = SimulationOptions(organ_layout=organ_layout, spots=170, um_per_px=UM_PER_PX)
        slide = draw_slide(options, "A", "P1", seed).visium
        self.slide = as_slide(slide.counts, slide.spot_um[slide.in_tissue])
        self.pixels = slide.image
        self.units = units_of(self.slide)
        self.under = under_units(self.pixels, UM_PER_PX, self.units.unit_um)

    def verdict(self, units=None, pixels=None):
        units, under = units or self.units, self.under
        if pixels is not None or units.unit_um != self.units.unit_um:
            under = under_units(
                np.ascontiguousarray(self.pixels if pixels is None else pixels), UM_PER_PX, units.unit_um
            )
        image_um = np.array((self.pixels if pixels is None else pixels).shape[1::-1]) * UM_PER_PX
        return register(units, under, image_um)


def as_slide(counts, spatial_um):
    var = pd.DataFrame({"control": np.zeros(counts.shape[1], bool)}, index=[f"G{i}" for i in range(counts.shape[1])])
    obs = pd.DataFrame(index=[f"B{i:05d}" for i in range(counts.shape[0])])
    return anndata.AnnData(counts.tocsr(), obs=obs, var=var, obsm={"spatial_um": np.asarray(spatial_um, float)})


@pytest.fixture(scope="module", params=["lobules", "layers"])
def drawn(request):
    return Drawn(request.param)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_slide_at_its_place_passes(drawn):
    found = drawn.verdict()
    assert found.verdict == "pass" and found.best == "as given"
    assert found.score > 0.2 and found.margin > 0.1 and found.confidence > 0.95
    assert found.score == found.scores["as given"] == max(found.scores.values())
    assert "agrees with the image" in found.sentence


@pytest.mark.parametrize(("x", "y", "back"), [(2, 0, "left"), (0, -2, "down"), (-5, 0, "right")])
def test_a_displaced_slide_is_flagged_with_the_way_back(drawn, x, y, back):
    units = replace(drawn.units, spatial_um=drawn.units.spatial_um + drawn.units.unit_um * np.array([x, y]))
    found = drawn.verdict(units)
    assert found.verdict == "displaced"
    assert found.best == f"displaced by {max(abs(x), abs(y))} units {back}" and found.best in found.sentence
    assert found.score < found.best_score - 0.1


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        (lambda pixels: pixels[:, ::-1], "mirrored"),
        (lambda pixels: pixels[::-1], "mirrored"),
        (lambda pixels: np.swapaxes(pixels, 0, 1), "mirrored"),
        (lambda pixels: np.rot90(pixels), "rotated"),
        (lambda pixels: np.rot90(pixels, 2), "rotated"),
        (lambda pixels: np.rot90(pixels, 3), "rotated"),
    ],
)
def test_a_turned_picture_is_flagged(drawn, turn, kind):
    found = drawn.verdict(pixels=turn(drawn.pixels))
    assert found.verdict == found.best_kind == kind
    assert found.best in found.sentence


def test_an_array_turned_about_another_point_is_flagged(drawn):
    units = drawn.units
    turned = (units.spatial_um * [-1, 1]) + [2 * units.spatial_um[:, 0].mean() + 1.7 * units.unit_um, 0]
    assert drawn.verdict(replace(units, spatial_um=turned)).verdict == "mirrored"


def test_expression_that_the_image_knows_nothing_of_is_undecided(drawn):
    order = np.random.default_rng(0).permutation(len(drawn.units.expression))
    found = drawn.verdict(replace(drawn.units, expression=drawn.units.expression[order]))
    assert found.verdict == "undecided" and found.score < 0.1
    assert "no placement is clearly best" in found.sentence


def test_too_little_to_tell_is_undecided_and_says_so(drawn):
    few = replace(drawn.units, spatial_um=drawn.units.spatial_um[:30], expression=drawn.units.expression[:30])
    found = drawn.verdict(few)
    assert found.verdict == "undecided" and "30 units" in found.sentence
    assert found.record()["score"] is None and found.scores == {}
    flat = replace(drawn.units, expression=np.ones_like(drawn.units.expression))
    assert "no spatial structure" in drawn.verdict(flat).sentence


def test_the_same_slide_gives_the_same_numbers_in_any_order(drawn):
    first = drawn.verdict()
    assert drawn.verdict() == first
    order = np.random.default_rng(1).permutation(len(drawn.units.expression))
    other = drawn.verdict(
        replace(drawn.units, spatial_um=drawn.units.spatial_um[order], expression=drawn.units.expression[order])
    )
    assert other.verdict == first.verdict
    assert other.scores == pytest.approx(first.scores, abs=1e-6)


# --- what it is made of -----------------------------------------------------------------------------------------------


def test_placements_keep_distances_and_go_where_they_say():
    rng = np.random.default_rng(0)
    spatial_um, image_um = rng.uniform(100, 900, (30, 2)), np.array([1200.0, 1000.0])
    given, *others = placements(spatial_um, 100.0, image_um)
    assert given.kind == "given" and (given.spatial_um == spatial_um).all()
    assert (
        len({other.name for other in (given, *others, *refined(spatial_um, 100.0, image_um))}) == 1 + 24 + 21 + 21 * 24
    )

    def distances(xy):
        return np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))

    for other in others:
        np.testing.assert_allclose(distances(other.spatial_um), distances(spatial_um), atol=1e-9)
    by_name = {other.name: other.spatial_um for other in others}
    np.testing.assert_allclose(by_name["displaced by 2 units right"] - spatial_um, np.tile([200, 0], (30, 1)))
    np.testing.assert_allclose(by_name["displaced by 1 unit down"] - spatial_um, np.tile([0, 100], (30, 1)), atol=1e-9)
    left_right = by_name["mirrored left to right about the image's middle"]
    np.testing.assert_allclose(left_right, np.column_stack([1200 - spatial_um[:, 0], spatial_um[:, 1]]))
    # A picture of 1000 x 1200 um turned clockwise by 90 degrees is this one: its left side is now the top.
    clockwise = by_name["rotated by 90 degrees about the image's middle"]
    np.testing.assert_allclose(clockwise, np.column_stack([1200 - spatial_um[:, 1], spatial_um[:, 0]]))
    about = by_name["rotated by 180 degrees about the units' middle"]
    np.testing.assert_allclose((about.min(axis=0), about.max(axis=0)), (spatial_um.min(axis=0), spatial_um.max(axis=0)))
    assert {move.kind for move in displaced(spatial_um, 100.0, (1,))} == {"displaced"}


def test_statistics_of_a_known_picture():
    pixels = np.full((120, 160, 3), 255, np.uint8)
    pixels[:, 80:] = (99, 49, 149)
    under = under_units(pixels, 2.0, unit_um=48.0)
    assert under.um_per_px == 4.0 and under.maps.shape == (14, 60, 80)
    glass, tissue, beyond = under.at(np.array([[20.0, 120.0], [300.0, 120.0], [400.0, 120.0]]))
    density = -np.log(np.array([100, 50, 150]) / 256)
    np.testing.assert_allclose(np.expm1(tissue[[0, 1, 2, 7, 8, 9]]) / 5, np.tile(density, 2), rtol=1e-3)
    assert np.abs(tissue[[3, 4, 5, 6]]).max() < 5e-3  # no spread and no edges within a colour
    assert np.abs(glass).max() < 5e-3 and (beyond == 0).all()
    rim = under.at(np.array([[160.0, 120.0]]))[0]
    assert (rim[[3, 4, 5, 6]] > 0.3).all()


def test_statistics_turn_with_the_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    xy = np.random.default_rng(1).uniform(10, 150, (40, 2))
    here = under_units(pixels, 2.0, 40.0).at(xy)
    turned = under_units(np.ascontiguousarray(np.rot90(pixels, -1)), 2.0, 40.0)  # clockwise
    np.testing.assert_allclose(turned.at(np.column_stack([160 - xy[:, 1], xy[:, 0]])), here, atol=1e-5)


def test_the_image_is_read_no_finer_than_needed():
    assert read_scale(1000, 1000, 0.5, unit_um=100.0) == pytest.approx(0.12)
    assert read_scale(1000, 1000, 5.0, unit_um=100.0) == 1.0
    assert read_scale(100_000, 60_000, 0.2, unit_um=1.0) == pytest.approx(np.sqrt(1e-3))


def test_components_count_by_spatial_structure(drawn):
    values, weights = spatial_components(drawn.units)
    np.testing.assert_allclose(values.std(axis=0), 1)
    order = np.random.default_rng(0).permutation(len(values))
    shuffled = replace(drawn.units, expression=drawn.units.expression[order])
    assert spatial_components(shuffled)[1].sum() < 0.3 * weights.sum()


def test_small_units_are_pooled_and_the_verdict_holds(drawn):
    """Every spot is dealt out to nine cells around its place."""
    rng = np.random.default_rng(0)
    counts, place = drawn.slide.X.toarray(), drawn.slide.obsm["spatial_um"]
    dealt = rng.multinomial(counts.ravel(), np.full(9, 1 / 9)).reshape(*counts.shape, 9).transpose(0, 2, 1)
    steps = np.stack(np.meshgrid([-30, 0, 30], [-30, 0, 30]), -1).reshape(-1, 2)
    cells = as_slide(
        scipy.sparse.csr_matrix(dealt.reshape(-1, counts.shape[1])), (place[:, None] + steps).reshape(-1, 2)
    )
    assert pitch_um(cells.obsm["spatial_um"]) < 40
    units = units_of(cells)
    assert units.pooled and units.unit_um >= 50 and len(units.spatial_um) < 0.5 * cells.n_obs
    assert not drawn.units.pooled
    assert drawn.verdict(units).verdict == "pass"
    away = replace(units, spatial_um=units.spatial_um + units.unit_um * np.array([3, 0]))
    assert drawn.verdict(away).verdict == "displaced"


def test_control_probes_and_rare_genes_do_not_take_part(drawn):
    slide = drawn.slide.copy()
    slide.var["control"] = np.arange(slide.n_vars) % 2 == 0
    detected = (slide.X[:, 1::2] > 0).sum(axis=0) >= max(5, 0.05 * slide.n_obs)
    assert units_of(slide).expression.shape[1] == detected.sum() < drawn.units.expression.shape[1]
