"""The compiled code against the staintools package, where that is installed."""

import sys

import numpy as np
import pytest
from test_stain import empty_tiles, tile

from stmorph.errors import ConfigError
from stmorph.image.stain import PUBLISHED_TARGET, StainTransform, fit_stains, normalize_tiles
from stmorph.image.stain_options import RULES, StainOptions

RULE = RULES["staintools"]


def test_without_the_package_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "staintools", None)
    with pytest.raises(ConfigError, match="install staintools"):
        normalize_tiles(tile(0)[None], options=StainOptions(fit="tile", backend="staintools"))


class TestAgainstThePackage:
    @pytest.fixture(autouse=True)
    def _package(self):
        pytest.importorskip("staintools", exc_type=ImportError)

    def test_glass_is_the_same_pixels(self):
        from staintools.tissue_masks.luminosity_threshold_tissue_locator import LuminosityThresholdTissueLocator

        levels = np.arange(0, 256, 3).astype(np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
        gate, limit = RULE.gate
        ours = sum(gate[c][colours[..., c]] for c in range(3)) < limit
        theirs = LuminosityThresholdTissueLocator.get_tissue_mask(colours.copy())
        assert (ours != theirs).mean() < 2e-3  # OpenCV rounds in fixed point

    def test_fit(self):
        from stmorph.image.stain_staintools import fit_staintools

        image = tile(1)
        ours, theirs = fit_stains(image, RULE), fit_staintools(image)
        np.testing.assert_allclose(ours.matrix, theirs.matrix, atol=1e-3)
        np.testing.assert_allclose(ours.strength, theirs.strength, rtol=1e-3)

    def test_each_tile_is_within_one_grey_level(self):
        tiles = np.stack([tile(i, strength=s) for i, s in enumerate((0.4, 0.8, 1.2, 2.5))])
        tiles[0, :20] = 250
        tiles[1, 0, :5] = 0  # the package writes ones over zeros, in place
        before = tiles.copy()
        ours, _ = normalize_tiles(tiles, options=StainOptions(fit="tile", rule="staintools"))
        theirs, fitted = normalize_tiles(tiles, options=StainOptions(fit="tile", backend="staintools"))
        assert fitted.all()
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        assert np.abs(theirs.astype(int) - tiles).max() > 5
        np.testing.assert_array_equal(tiles, before)

    def test_one_fit_for_all_tiles_is_within_one_grey_level(self):
        from stmorph.image.stain_staintools import StaintoolsTransform, fit_staintools

        tiles = np.stack([tile(i, strength=s) for i, s in enumerate((0.5, 1.0, 1.5))])
        source = fit_staintools(tiles.reshape(-1, 96, 3))
        ours = StainTransform(source, PUBLISHED_TARGET, RULE).apply(tiles)
        theirs = StaintoolsTransform(source, PUBLISHED_TARGET).apply(tiles)
        assert np.abs(ours.astype(int) - theirs).max() <= 1

    def test_tiles_without_stains_pass_unchanged(self):
        tiles = empty_tiles()
        out, fitted = normalize_tiles(tiles, options=StainOptions(fit="tile", backend="staintools"))
        assert not fitted.any()
        np.testing.assert_array_equal(out, tiles)
