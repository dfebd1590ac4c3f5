"""Macenko against simulated light with known stains, against itself in float64, and on tiles without stain."""

import numpy as np
import pytest

from stmorph.errors import DataError
from stmorph.image import stain_kernels
from stmorph.image.stain import (
    PUBLISHED_TARGET,
    Stains,
    StainTransform,
    fit_stains,
    normalize_tiles,
)
from stmorph.image.stain_options import RULES, StainOptions

MACENKO, STAINTOOLS = RULES["macenko"], RULES["staintools"]
SLIDE = np.array([[0.65, 0.70, 0.29], [0.10, 0.95, 0.28]])
SLIDE = SLIDE / np.linalg.norm(SLIDE, axis=1, keepdims=True)


def light(amounts, matrix, intensity=240.0, added=1.0):
    """Beer-Lambert: the picture, uint8, of `amounts` [..., 2] of the stains in the rows of `matrix`."""
    return np.clip(np.rint(intensity * np.exp(-amounts @ matrix) - added), 0, 255).astype(np.uint8)


def amounts_of(n, seed=0):
    """Pixels with mostly one stain or the other, so that the extreme angles are the stains themselves."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(3.0, 0.25, (n, 2))
    kind = rng.random(n)
    amounts[kind < 0.3, 1] = 0
    amounts[kind > 0.7, 0] = 0
    return amounts


def tile(seed=0, side=96, strength=1.0, matrix=SLIDE):
    return light(strength * amounts_of(side * side, seed), matrix).reshape(side, side, 3)


def float64_rule(pixels, source, target, rule):
    """The transform as the method states it, with logarithms, a solver for each case and exponentials."""
    value = pixels.reshape(-1, 3).astype(np.float64)
    if rule.name == "macenko":
        density = -np.log((value + 1) / 240)
        amounts = np.linalg.lstsq(source.matrix.T, density.T, rcond=None)[0].T
    else:
        density = np.maximum(-np.log(np.maximum(value, 1) / 255), 1e-6)
        gram, moment = source.matrix @ source.matrix.T, density @ source.matrix.T - 0.01
        options = [np.zeros_like(moment)]  # the lasso's optimum is the best of its four active sets
        for k in range(2):
            one = np.zeros_like(moment)
            one[:, k] = np.maximum(moment[:, k], 0)
            options.append(one)
        both = np.linalg.solve(gram, moment.T).T
        options.append(np.where((both >= 0).all(axis=1, keepdims=True), both, 0))
        cost = [0.5 * np.einsum("ni,ij,nj->n", o, gram, o) - (o * moment).sum(axis=1) for o in options]
        amounts = np.choose(np.argmin(cost, axis=0)[:, None], options)
    grey = rule.intensity * np.exp(-(amounts * (target.strength / source.strength)) @ target.matrix)
    grey = np.floor(grey) if rule.truncate else np.rint(grey)
    return np.clip(grey, 0, 255).astype(np.uint8).reshape(pixels.shape)


def strength_in(pixels, stains):
    """The 99th percentile of the amounts of `stains`' two stains in `pixels`."""
    density = -np.log((pixels.reshape(-1, 3) + 1.0) / 240)
    return np.percentile(np.linalg.lstsq(stains.matrix.T, density.T, rcond=None)[0], 99, axis=1)


def difference(a, b):
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_stains_of_simulated_light_are_recovered():
    amounts = amounts_of(200_000)
    found = fit_stains(light(amounts, SLIDE))
    angle = np.degrees(np.arccos(np.clip((found.matrix * SLIDE).sum(axis=1), -1, 1)))
    assert angle.max() < 1.5
    assert found.strength == pytest.approx(np.percentile(amounts, 99, axis=0), rel=0.03)


def test_haematoxylin_comes_first_whatever_the_mixture():
    for share in (0.6, 1.0, 1.6):
        found = fit_stains(light(amounts_of(50_000) * [share, 1 / share], SLIDE))
        assert found.matrix[0, 0] > found.matrix[1, 0]
        assert (found.matrix * SLIDE).sum(axis=1).min() > 0.98  # weak eosin absorbs too little red to pass beta


def test_fit_follows_numpy_step_by_step():
    pixels = tile(3).reshape(-1, 3)
    density = -np.log((pixels + 1.0) / 240)
    stained = density[(density >= 0.15).all(axis=1)]
    plane = np.linalg.eigh(np.cov(stained.T))[1][:, [2, 1]]
    plane = plane * np.sign([stained.mean(axis=0) @ plane[:, 0], plane[0, 1]])
    phi = np.arctan2(stained @ plane[:, 1], stained @ plane[:, 0])
    vectors = [plane @ [np.cos(p), np.sin(p)] for p in np.percentile(phi, [1, 99])]
    matrix = np.array(sorted(vectors, key=lambda v: -v[0]))
    amounts = np.linalg.lstsq(matrix.T, density.T, rcond=None)[0]
    found = fit_stains(pixels)
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-9)
    np.testing.assert_allclose(found.strength, np.percentile(amounts, 99, axis=1), rtol=1e-9)


def test_angle_measured_along_the_square_orders_like_arctan2_and_gives_it_back():
    phi = np.linspace(-np.pi + 1e-6, np.pi - 1e-6, 2001)
    t = np.stack([np.cos(phi), np.sin(phi)], axis=1)
    place = t[:, 1] / np.abs(t).sum(axis=1)
    place = np.where(t[:, 0] < 0, np.where(t[:, 1] >= 0, 2 - place, -2 - place), place)
    assert (np.diff(place) > 0).all()
    np.testing.assert_allclose(stain_kernels.angle_of(place), phi, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 7, 5000])
@pytest.mark.parametrize("colours", [1, 2, 256])
@pytest.mark.parametrize("positive", [False, True])
def test_order_statistics_are_exact(n, colours, positive):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, colours, (n, 3)).astype(np.uint8)
    tables = rng.normal(0, 1, (3, 256, 2))
    t0, t1 = np.sum([tables[c][pixels[:, c]] for c in range(3)], axis=0).T
    size = np.abs(t0) + np.abs(t1)
    angle = np.where(t0 >= 0, t1 / size, np.where(t1 >= 0, 2 - t1 / size, -2 - t1 / size))
    if positive:
        one, two = np.maximum(0, t0 + 0.6 * t1), np.maximum(0, t1 + 0.6 * t0)
        t0, t1 = np.where(t1 >= 0, np.maximum(0, t0), one), np.where(t0 >= 0, np.maximum(0, t1), two)
    ranks = np.array([0.0, 0.3, 0.99, 1.0]) * (n - 1)
    of_angles = stain_kernels.angle_neighbours(pixels, tables, ranks)
    low, high = np.full(2, -20.0), np.full(2, 20.0)
    for j, rank in enumerate(ranks):
        around = [int(rank), min(int(rank) + 1, n - 1)]
        np.testing.assert_allclose(of_angles[j], np.sort(angle)[around], rtol=1e-12)
        of_amounts = stain_kernels.amount_neighbours(pixels, tables, 0.6, positive, low, high, rank)
        np.testing.assert_allclose(of_amounts, [np.sort(t0)[around], np.sort(t1)[around]], rtol=1e-12)


@pytest.mark.parametrize("rule", [MACENKO, STAINTOOLS], ids=lambda r: r.name)
def test_every_colour_is_within_one_grey_level_of_float64(rule):
    source = fit_stains(tile(1), rule)
    levels = np.r_[0, 1, 2, np.arange(5, 256, 5)].astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    out = StainTransform(source, PUBLISHED_TARGET, rule).apply(colours)
    assert difference(out, float64_rule(colours, source, PUBLISHED_TARGET, rule)) <= 1


def test_a_map_too_steep_for_the_packed_sums_is_still_right():
    # Nearly parallel stains and a far stronger target: sums leave the range that packed integers hold.
    near = Stains(np.array([[0.58, 0.58, 0.5720], [0.58, 0.5801, 0.5719]]), np.array([0.05, 0.05]))
    colours = tile(2)
    transform = StainTransform(near, PUBLISHED_TARGET, MACENKO)
    assert transform._packed is None
    with np.errstate(over="ignore"):
        reference = float64_rule(colours, near, PUBLISHED_TARGET, MACENKO)
    assert (np.abs(transform.apply(colours).astype(int) - reference) <= 1).mean() > 0.99


@pytest.mark.parametrize("rule", [MACENKO, STAINTOOLS], ids=lambda r: r.name)
def test_the_short_cut_agrees_with_the_long_way(rule):
    source = fit_stains(tile(1), rule)
    colours = np.random.default_rng(0).integers(0, 256, (20_000, 3)).astype(np.uint8)
    transform = StainTransform(source, PUBLISHED_TARGET, rule)
    assert transform._packed is not None
    short = transform.apply(colours)
    transform._packed = None
    assert difference(short, transform.apply(colours)) <= 1


def test_a_target_with_a_negative_vector_takes_the_long_way():
    target = Stains(np.array([[0.9, 0.43, -0.05], [0.1, 0.9, 0.42]]), np.array([1.5, 1.0]))
    transform = StainTransform(fit_stains(tile(1), STAINTOOLS), target, STAINTOOLS)
    assert transform._packed is None
    colours = tile(2)
    assert difference(transform.apply(colours), float64_rule(colours, transform.source, target, STAINTOOLS)) <= 1


def test_identity_when_source_is_target():
    colours = tile(4)
    stains = Stains(SLIDE, np.array([1.3, 0.9]))
    # The published rule adds a grey level before the logarithm and does not take it off again; rounding is the other.
    assert difference(StainTransform(stains, stains).apply(colours), colours) <= 2


def test_two_slides_of_one_tissue_become_alike():
    amounts = amounts_of(100_000)
    other = np.array([[0.50, 0.76, 0.42], [0.24, 0.82, 0.52]])
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    first, second = light(amounts, SLIDE), light(0.7 * amounts, other)
    before = np.abs(first.astype(float) - second).mean()
    after = [StainTransform(fit_stains(p)).apply(p).astype(float) for p in (first, second)]
    assert np.abs(after[0] - after[1]).mean() < 0.1 * before


@pytest.mark.parametrize("rule", [MACENKO, STAINTOOLS], ids=lambda r: r.name)
def test_input_is_untouched_and_chunks_do_not_matter(rule):
    image = np.concatenate([tile(5), np.zeros((3, 96, 3), np.uint8)])
    before = image.copy()
    image.flags.writeable = False
    transform = StainTransform(fit_stains(tile(5), rule), rule=rule)
    whole = transform.apply(image)
    parts = np.concatenate([transform.apply(image[i : i + 7]) for i in range(0, len(image), 7)])
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(whole[:, ::2], transform.apply(image[:, ::2]))
    np.testing.assert_array_equal(image, before)


def empty_tiles(side=96):
    rng = np.random.default_rng(0)
    blank = np.full((side, side, 3), 243, np.uint8)
    nearly = blank.copy()
    nearly[:6, :6] = tile(0)[:6, :6]
    one_colour = np.full((side, side, 3), (150, 80, 160), np.uint8)
    noise = rng.integers(236, 250, (side, side, 3)).astype(np.uint8)
    return np.stack([blank, np.full_like(blank, 255), np.zeros_like(blank), one_colour, nearly, noise])


@pytest.mark.parametrize("rule", ["macenko", "staintools"])
def test_tiles_without_stains_pass_unchanged_and_are_counted(rule):
    tiles = np.concatenate([empty_tiles(), tile(6)[None]])
    out, fitted = normalize_tiles(tiles, options=StainOptions(fit="tile", rule=rule))
    assert fitted.tolist() == [False] * 6 + [True]
    np.testing.assert_array_equal(out[:6], tiles[:6])
    assert difference(out[6], tiles[6]) > 5


def test_one_fit_a_slide_keeps_darkness_between_tiles_and_one_a_tile_erases_it():
    rng = np.random.default_rng(1)
    tiles = np.stack([tile(i, side=48, strength=s) for i, s in enumerate(rng.uniform(0.4, 1.6, 40))])
    darkness = tiles.mean(axis=(1, 2, 3))
    by_slide = StainTransform(fit_stains(tiles)).apply(tiles).mean(axis=(1, 2, 3))
    by_tile = normalize_tiles(tiles)[0].mean(axis=(1, 2, 3))
    assert np.corrcoef(darkness, by_slide)[0, 1] > 0.99
    assert np.corrcoef(darkness, by_tile)[0, 1] < 0.9


def test_pixels_of_another_type_are_refused():
    with pytest.raises(DataError, match="8-bit RGB"):
        fit_stains(np.zeros((4, 4, 3), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "slides"}, "slide"),
        ({"fits": "slide"}, "extra"),
        ({"backend": "staintools", "rule": "macenko"}, "own rule"),
        ({"fit": "reference"}, "needs the key reference"),
        ({"fit": "slide", "reference": "a.png"}, "not used"),
    ],
)
def test_options_are_closed(options, message):
    with pytest.raises(ValueError, match=message):
        StainOptions(**options)
