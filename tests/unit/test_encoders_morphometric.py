"""The measuring encoder against drawn tissue of known size, scikit-image, and its own invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2hed
from skimage.feature import graycomatrix, graycoprops
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops

from stmorph.encoders.load import load_encoder
from stmorph.encoders.objects import fill_holes, find_objects, otsu_thresholds
from stmorph.encoders.stains import DEFAULT_STAINS, optical_density, stain_amounts, unmixing_matrix
from stmorph.encoders.texture import co_occurrence, haralick
from stmorph.errors import ConfigError, DataError
from stmorph.image.views import VIEWS, view

STAINS = np.array(DEFAULT_STAINS) / np.linalg.norm(DEFAULT_STAINS, axis=1, keepdims=True)
ENCODER = load_encoder("morphometric")


def picture(hematoxylin, eosin):
    """Beer-Lambert, the other way round: amounts [H, W] -> uint8 [H, W, 3]."""
    od = np.stack([hematoxylin, eosin], -1) @ STAINS
    return np.clip(np.round(256 * 10**-od - 1), 0, 255).astype(np.uint8)


def discs(size, centres, radius, nuclear=0.8, eosin=0.25):
    """Return a tile with nuclei as discs, and how many pixels they cover."""
    y, x = np.mgrid[:size, :size]
    inside = np.zeros((size, size), dtype=bool)
    for cy, cx in centres:
        inside |= (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    return picture(np.where(inside, nuclear, 0.02), np.full((size, size), eosin)), inside.sum()


def measure(tile, um_per_px=0.5):
    row = ENCODER.encode(tile[None], um_per_px)[0]
    return dict(zip(ENCODER.features, row.tolist()))


def noise_tiles(seed, n=4, size=32):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    return np.clip(gaussian_filter(rng.normal(170, 350, (n, size, size, 3)), (0, 2, 2, 0)), 0, 255).astype(np.uint8)


def test_features_are_named_once_and_counted():
    assert ENCODER.dim == len(ENCODER.features) == len(set(ENCODER.features))
    assert 50 <= ENCODER.dim <= 80
    assert len(ENCODER.weights_sha256) == 64


def test_separate_nuclei_have_their_count_area_and_density():
    centres = [(30, 30), (30, 90), (90, 30), (90, 90), (60, 60)]
    tile, covered = discs(128, centres, radius=8)
    found = measure(tile, um_per_px=0.5)
    assert found["nucleus_count"] == 5
    assert found["nucleus_area_um2_mean"] == pytest.approx(np.pi * 4**2, rel=0.12)
    assert found["nucleus_density_per_mm2"] == pytest.approx(5 / 64**2 * 1e6, rel=1e-4)
    assert found["nuclear_fraction"] == pytest.approx(covered / 128**2, rel=0.12)
    assert found["nucleus_eccentricity_mean"] < 0.2
    assert found["nucleus_ellipse_fill_mean"] == pytest.approx(1, abs=0.05)
    assert found["nucleus_distance_um"] == pytest.approx(np.hypot(30, 30) * 0.5, rel=0.02)
    assert found["nucleus_hematoxylin_mean"] == pytest.approx(0.8, abs=0.15)
    assert found["stroma_eosin_mean"] == pytest.approx(0.25, abs=0.03)


def test_touching_nuclei_are_counted_one_by_one():
    tile, _ = discs(96, [(48, 30), (48, 46), (48, 62)], radius=9)
    found = measure(tile, um_per_px=0.5)
    assert found["nucleus_count"] == 3
    assert found["nucleus_area_um2_mean"] == pytest.approx(np.pi * 4.5**2, rel=0.2)
    assert found["nucleus_distance_um"] == pytest.approx(8, rel=0.15)


def test_areas_are_physical_and_not_of_pixels():
    centres = np.array([(30, 30), (90, 90)])
    coarse, _ = discs(64, centres / 2, radius=4)
    fine, _ = discs(128, centres, radius=8)
    a, b = measure(coarse, um_per_px=1.0), measure(fine, um_per_px=0.5)
    for name in ("nucleus_area_um2_mean", "nucleus_density_per_mm2", "nuclear_fraction", "nucleus_long_axis_um_mean"):
        assert a[name] == pytest.approx(b[name], rel=0.12), name


def test_larger_and_darker_nuclei_are_measured_as_such():
    centres = [(30, 30), (90, 90), (30, 90)]
    small, large = (measure(discs(128, centres, r)[0]) for r in (6, 10))
    assert large["nucleus_area_um2_mean"] / small["nucleus_area_um2_mean"] == pytest.approx((10 / 6) ** 2, rel=0.15)
    pale, dark = (measure(discs(128, centres, 8, nuclear=a)[0]) for a in (0.5, 1.0))
    assert dark["nucleus_hematoxylin_mean"] / pale["nucleus_hematoxylin_mean"] == pytest.approx(2, rel=0.1)
    assert dark["od_red_mean"] > pale["od_red_mean"]


def test_elongated_parallel_nuclei_are_eccentric_and_aligned():
    y, x = np.mgrid[:96, :96]
    inside = np.zeros((96, 96), dtype=bool)
    for cy, cx in [(24, 24), (24, 72), (72, 24), (72, 72)]:
        inside |= ((y - cy) / 4) ** 2 + ((x - cx) / 12) ** 2 <= 1
    found = measure(picture(np.where(inside, 0.8, 0.02), np.full((96, 96), 0.2)), um_per_px=0.5)
    assert found["nucleus_count"] == 4
    assert found["nucleus_eccentricity_mean"] == pytest.approx(np.sqrt(1 - (4 / 12) ** 2), abs=0.03)
    assert found["nucleus_alignment"] > 0.99
    round_ones = measure(discs(96, [(24, 24), (24, 72), (72, 24), (72, 72)], 7)[0])
    assert round_ones["nucleus_eccentricity_mean"] < 0.3


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("size", [8, 16, 33, 256])
def test_a_tile_without_anything_has_defined_numbers(size, value):
    found = measure(np.full((size, size, 3), value, dtype=np.uint8), um_per_px=2.0)
    assert np.isfinite(list(found.values())).all()
    assert found["nucleus_count"] == found["nucleus_area_um2_mean"] == found["nuclear_fraction"] == 0
    assert found["nucleus_distance_um"] == size * 2.0
    assert found["white_fraction"] == (1 if value == 255 else 0)
    assert found["gradient_2um"] == pytest.approx(0, abs=1e-6)


def test_eosin_noise_alone_holds_no_nuclei():
    rng = np.random.default_rng(0)
    tile = picture(np.full((64, 64), 0.05), 0.4 + 0.03 * rng.normal(size=(64, 64)))
    assert measure(tile)["nucleus_count"] == 0


def test_white_holes_have_their_number_and_area():
    y, x = np.mgrid[:96, :96]
    hole = np.zeros((96, 96), dtype=bool)
    for cy, cx, r in [(24, 24, 10), (70, 70, 16)]:
        hole |= (y - cy) ** 2 + (x - cx) ** 2 <= r**2
    found = measure(picture(np.zeros((96, 96)), np.where(hole, 0, 0.6)), um_per_px=0.5)
    assert found["white_count"] == 2
    assert found["white_area_um2_largest"] == pytest.approx(np.pi * 8**2, rel=0.02)
    assert found["white_area_um2_mean"] == pytest.approx(np.pi * (5**2 + 8**2) / 2, rel=0.02)
    assert found["white_fraction"] == pytest.approx(hole.mean(), rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([16, 31, 32]), um_per_px=st.sampled_from([0.5, 2.0]))
def test_all_eight_views_of_a_tile_have_one_vector(seed, size, um_per_px):
    tiles = noise_tiles(seed, n=2, size=size)
    expected = ENCODER.encode(tiles, um_per_px)
    assert np.isfinite(expected).all()
    for name in VIEWS[1:]:
        found = ENCODER.encode(np.ascontiguousarray(view(tiles, name)), um_per_px)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_tile_does_not_depend_on_its_neighbours_in_the_stack(monkeypatch):
    tiles = np.concatenate(
        [noise_tiles(1, 5), np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32, 3), 255, np.uint8)]
    )
    together = ENCODER.encode(tiles, 0.7)
    alone = np.concatenate([ENCODER.encode(tile[None], 0.7) for tile in tiles])
    np.testing.assert_array_equal(together, alone)
    monkeypatch.setattr("stmorph.encoders.morphometric.PIXELS", 2 * 32 * 32)
    np.testing.assert_array_equal(ENCODER.encode(tiles, 0.7), together)


def test_shapes_are_those_of_regionprops():
    rng = np.random.default_rng(3)
    from scipy.ndimage import gaussian_filter

    mask = gaussian_filter(rng.normal(size=(3, 48, 48)), (0, 2, 2)) > 0.05
    found = find_objects(mask, least_px=5)
    expected = [(t, p) for t in range(3) for p in regionprops(label(mask[t], connectivity=2)) if p.area >= 5]
    assert len(found.tile) == len(expected)
    for i, (t, p) in enumerate(expected):
        assert (found.tile[i], found.area_px[i]) == (t, p.area)
        assert (found.y_px[i], found.x_px[i]) == pytest.approx(p.centroid)
        # We add a pixel's own second moment of 1/12 to both axes.
        long, short = p.axis_major_length**2 + 16 / 12, p.axis_minor_length**2 + 16 / 12
        assert found.major_px[i] ** 2 == pytest.approx(long)
        assert found.minor_px[i] ** 2 == pytest.approx(short)
        assert found.eccentricity[i] == pytest.approx(np.sqrt(1 - short / long), abs=1e-6)


def test_holes_are_filled_up_to_a_size_and_never_at_the_border():
    mask = np.ones((2, 12, 12), dtype=bool)
    mask[0, 5:7, 5:7] = mask[0, 0:2, 3] = mask[1, 2:8, 2:8] = False
    filled = fill_holes(mask, most_px=4)
    assert filled[0, 5:7, 5:7].all()
    assert not filled[0, 0:2, 3].any()
    np.testing.assert_array_equal(filled[1], mask[1])


def test_threshold_is_otsus():
    rng = np.random.default_rng(5)
    planes = np.where(rng.random((4, 40, 40)) < 0.3, 1.2, 0.3) + 0.1 * rng.normal(size=(4, 40, 40))
    found, contrast = otsu_thresholds(planes, top=2.0)
    for plane, threshold in zip(planes, found):
        below = plane <= threshold
        assert (below == (plane <= threshold_otsu(plane))).mean() > 0.995
    np.testing.assert_allclose(contrast, 0.9, atol=0.05)


def test_texture_is_that_of_graycomatrix():
    levels = np.random.default_rng(2).integers(0, 16, (3, 20, 24))
    levels[1] = np.arange(24) // 2 % 16
    for distance in (1, 3):
        found = haralick(co_occurrence(levels, distance))
        for t in range(3):
            # skimage sets pairs by angle; the offsets of its diagonals are rounded to the same pixels at 45 degrees.
            tables = []
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                angle = np.arctan2(dy, dx)
                reach = distance * np.hypot(dy, dx)
                table = graycomatrix(levels[t].astype(np.uint8), [reach], [angle], 16, symmetric=True, normed=True)
                tables.append(table[:, :, 0, 0])
            mean = np.mean(tables, 0)[:, :, None, None]
            for measure_name in ("contrast", "homogeneity", "energy", "correlation"):
                expected = graycoprops(mean, measure_name)[0, 0]
                assert found[measure_name][t] == pytest.approx(expected, rel=1e-9), measure_name


def test_stain_amounts_return_what_was_mixed():
    rng = np.random.default_rng(4)
    h, e = rng.uniform(0.05, 0.6, (2, 1, 16, 16))
    tiles = picture(h[0], e[0])[None]
    found = stain_amounts(optical_density(tiles), unmixing_matrix(np.array(DEFAULT_STAINS)))
    np.testing.assert_allclose(found[0], h, atol=0.03)
    np.testing.assert_allclose(found[1], e, atol=0.03)
    order = np.corrcoef(found[0].ravel(), rgb2hed(tiles[0])[..., 0].ravel())[0, 1]
    assert order > 0.98


def test_given_stains_replace_the_default():
    swapped = load_encoder("morphometric", {"stains": DEFAULT_STAINS[::-1]})
    tiles = noise_tiles(9)
    a, b = ENCODER.encode(tiles, 1.0), swapped.encode(tiles, 1.0)
    names = ENCODER.features
    np.testing.assert_allclose(
        a[:, names.index("hematoxylin_mean")], b[:, names.index("eosin_mean")], rtol=1e-4, atol=1e-5
    )
    assert swapped.weights_sha256 != ENCODER.weights_sha256


@pytest.mark.parametrize(
    ("tiles", "um_per_px", "words"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), 1.0, "uint8"),
        (np.zeros((2, 32, 32, 4), np.uint8), 1.0, r"\[2, 32, 32, 4\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), 1.0, "8 px or more"),
        (np.zeros((2, 32, 32, 3), np.uint8), 0.0, "um_per_px is 0.0"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.nan, "um_per_px is nan"),
    ],
)
def test_what_is_no_tile_is_refused(tiles, um_per_px, words):
    with pytest.raises(DataError, match=words):
        ENCODER.encode(tiles, um_per_px)


def test_unknown_encoder_and_option_are_named_with_the_allowed_ones():
    with pytest.raises(ConfigError, match=r"'UNI2h' does not exist.*did you mean uni2-h"):
        load_encoder("UNI2h")
    with pytest.raises(ConfigError, match=r"nucleus_size.*allowed keys are stains"):
        load_encoder("morphometric", {"nucleus_size": 3})
    with pytest.raises(ConfigError, match=r"white_most_od.*found -1"):
        load_encoder("morphometric", {"white_most_od": -1})
