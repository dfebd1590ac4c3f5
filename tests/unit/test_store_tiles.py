"""Slide stores, tissue masks and tile lists: positions, losses that add up, and crops that are the store's pixels."""

import json
import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from test_stain import SLIDE, amounts_of, light, strength_in

from stmorph.errors import DataError
from stmorph.image.blocks import BlockedImage, write_blocks, write_header
from stmorph.image.crop_kernel import blocks_of
from stmorph.image.stain import PUBLISHED_TARGET, Stains, fit_stains
from stmorph.image.stain_options import StainOptions
from stmorph.image.store import build_store, open_store
from stmorph.image.tiles import COLUMNS, SlideTiles, TilingOptions, losses, tile_table
from stmorph.image.tissue_mask import tissue_mask, tissue_pixels_of

NONE = StainOptions(fit="none")


def slide_image(height=400, width=600, seed=0, strength=1.0):
    """Stained tissue in the left two thirds, glass with a little noise in the right."""
    rng = np.random.default_rng(seed)
    image = light(strength * amounts_of(height * width, seed), SLIDE).reshape(height, width, 3)
    image[:, 2 * width // 3 :] = rng.integers(236, 246, (height, width - 2 * width // 3, 3))
    return image


def store_of(folder, image, stain=NONE, um_per_px=1.0, um_per_px_source=1.0, **more):
    build_store(image, um_per_px_source, um_per_px, stain, folder / "image.npy", folder / "image.json", **more)
    return open_store(folder / "image.npy")


def pixels_of(image):
    """All of a picture in blocks."""
    strips = list(image.strips())
    assert [top for top, _ in strips] == list(range(0, image.height_px, 64))
    return np.concatenate([pixels for _, pixels in strips])


def test_store_without_normalisation_is_the_image(tmp_path):
    image = slide_image()
    store = store_of(tmp_path, image)
    np.testing.assert_array_equal(pixels_of(store.image), image)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.json", "image.npy"]


def test_positions_survive_resizing_within_half_a_pixel(tmp_path):
    image = np.full((403, 611, 3), 240, np.uint8)
    centres = np.array([[50.5, 60.5], [560.5, 380.5], [300.5, 30.5]])
    for x, y in centres.astype(int):
        image[y - 6 : y + 7, x - 6 : x + 7] = 30
    store = store_of(tmp_path, image, um_per_px=1.3, um_per_px_source=0.7)
    assert store.shape == (217, 329)
    expected = store.to_px(centres * 0.7)
    dark = 240.0 - pixels_of(store.image)[..., 0]
    for x, y in expected:
        window = np.s_[max(0, int(y) - 8) : int(y) + 9, max(0, int(x) - 8) : int(x) + 9]
        rows, columns = np.mgrid[window]
        weight = np.maximum(dark[window], 0)
        assert (columns * weight).sum() / weight.sum() + 0.5 == pytest.approx(x, abs=0.1)
        assert (rows * weight).sum() / weight.sum() + 0.5 == pytest.approx(y, abs=0.1)


def test_reduction_is_antialiased(tmp_path):
    stripes = np.zeros((240, 240, 3), np.uint8)
    stripes[:, ::2] = 200
    store = store_of(tmp_path, stripes, um_per_px=3.0)
    assert np.abs(pixels_of(store.image)[5:-5, 5:-5].astype(int) - 100).max() <= 15


def test_slide_fit_reaches_the_target_and_is_recorded(tmp_path):
    image = slide_image(strength=0.7)
    before = image.copy()
    store = store_of(tmp_path, image, StainOptions())
    np.testing.assert_array_equal(image, before)
    pixels = pixels_of(store.image)
    got = fit_stains(tissue_pixels_of([(0, pixels)], tissue_mask(pixels)))
    assert (got.matrix * PUBLISHED_TARGET.matrix).sum(axis=1).min() > 0.998
    tissue = pixels[:, :400]
    assert strength_in(tissue, PUBLISHED_TARGET) == pytest.approx(PUBLISHED_TARGET.strength, rel=0.02)
    record = json.loads((tmp_path / "image.json").read_text())
    stain = record["stain"]
    assert (stain["backend"], stain["fit"], stain["rule"]) == ("stmorph", "slide", "macenko")
    assert (stain["constants"]["intensity"], stain["constants"]["beta"], stain["constants"]["alpha"]) == (240, 0.15, 1)
    source = Stains.from_record(stain["source"])
    assert (source.matrix * SLIDE).sum(axis=1).min() > 0.998
    np.testing.assert_allclose(Stains.from_record(stain["target"]).strength, PUBLISHED_TARGET.strength)


def test_reference_fit_takes_the_reference_slides_stains(tmp_path):
    from PIL import Image

    Image.fromarray(slide_image(seed=9, strength=1.5)).save(tmp_path / "reference.png")
    options = StainOptions(fit="reference", reference=str(tmp_path / "reference.png"))
    store = store_of(tmp_path, slide_image(strength=0.6), options)
    assert strength_in(pixels_of(store.image)[:, :400], store.target) == pytest.approx(store.target.strength, rel=0.05)
    assert (store.target.matrix * SLIDE).sum(axis=1).min() > 0.998
    assert store.record["stain"]["reference"] == options.reference


def test_the_same_store_every_time(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        store_of(tmp_path / name, slide_image(), StainOptions())
    assert (tmp_path / "a/image.npy").read_bytes() == (tmp_path / "b/image.npy").read_bytes()


@pytest.mark.parametrize("level", [0, 130, 250])
def test_a_blank_slide_is_an_error_and_leaves_nothing(tmp_path, level):
    with pytest.raises(DataError, match=r"blank_slide.*no two stains"):
        store_of(tmp_path, np.full((300, 300, 3), level, np.uint8), StainOptions(), name="blank_slide.jpg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("um_per_px", [0.0, -1.0, float("nan")])
def test_an_impossible_scale_is_an_error(tmp_path, um_per_px):
    with pytest.raises(DataError, match="um per px"):
        store_of(tmp_path, slide_image(), um_per_px_source=um_per_px)


def test_a_damaged_store_says_so(tmp_path):
    store_of(tmp_path, slide_image())
    whole = (tmp_path / "image.npy").read_bytes()
    (tmp_path / "image.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="make them again"):
        open_store(tmp_path / "image.npy")
    with pytest.raises(DataError, match=r"absent\.npy"):
        open_store(tmp_path / "absent.npy")


def test_mask_separates_tissue_from_glass():
    blocks = tissue_mask(slide_image()).blocks
    assert blocks[:, :49].mean() > 0.99
    assert blocks[:, 51:].mean() < 0.01


def test_mask_guards_blank_and_full_slides():
    rng = np.random.default_rng(0)
    assert tissue_mask(rng.integers(236, 252, (200, 200, 3)).astype(np.uint8)).tissue_fraction == 0
    assert tissue_mask(np.full((200, 200, 3), 255, np.uint8)).tissue_fraction == 0
    full = light(0.5 + amounts_of(200 * 200), SLIDE).reshape(200, 200, 3)
    full[:100] = light(1.0 + 2 * amounts_of(100 * 200), SLIDE).reshape(100, 200, 3)
    assert tissue_mask(full).tissue_fraction == 1


def test_fraction_in_boxes_is_the_masks_mean():
    mask = tissue_mask(slide_image(seed=3)[:397, :595])
    noise = np.random.default_rng(1).random(mask.blocks.shape) < 0.5
    mask = type(mask)(noise, mask.block_px, mask.width_px, mask.height_px, mask.threshold)
    pixels = np.kron(noise, np.ones((8, 8)))[:397, :595]
    x0, y0 = np.array([0, 3, 100, 545, -10]), np.array([0, 5, 201, 347, 20])
    padded = np.pad(pixels, 64)
    expected = [padded[y + 64 : y + 114, x + 64 : x + 114].mean() for x, y in zip(x0, y0)]
    np.testing.assert_allclose(mask.fraction(x0, y0, 50), expected, atol=1e-12)
    assert mask.tissue_fraction == pytest.approx(pixels.mean())


def units():
    """Nine units with known fates on a 600 x 400 slide whose right third is glass."""
    barcode = np.array(["I", "C", "H", "A", "B", "G", "D", "E", "F"])
    where = {
        "A": (100.4, 100.4, True),
        "B": (250.5, 250.5, True),
        "C": (32.0, 200.0, True),
        "D": (31.4, 200.0, True),
        "E": (200.0, 380.0, True),
        "F": (520.0, 200.0, True),
        "G": (200.0, 200.0, False),
        "H": (599.0, 10.0, False),
        "I": (599.0, 10.0, True),
    }
    rows = [where[b] for b in barcode]
    return barcode, np.array([r[:2] for r in rows]), np.array([r[2] for r in rows])


def test_tile_list_gives_each_unit_one_fate(tmp_path):
    store = store_of(tmp_path, slide_image())
    table = tile_table("S", *units(), store, TilingOptions(fov_um=64, size_px=64, min_tissue=0.5))
    assert tuple(table.columns) == COLUMNS
    assert table["barcode"].tolist() == list("ABCDEFGHI")
    fates = ["", "", "", "border", "border", "no tissue", "not in tissue", "not in tissue", "border"]
    assert table["lost"].tolist() == fates
    assert table["kept"].tolist() == [fate == "" for fate in fates]
    assert losses(table) == {"not in tissue": 2, "border": 3, "no tissue": 1}
    assert table["kept"].sum() + sum(losses(table).values()) == 9
    centre = table[["x0_px", "y0_px"]].to_numpy() + 32
    assert np.abs(centre - table[["x_um", "y_um"]].to_numpy()).max() <= 0.5
    assert table["tissue_fraction"].between(0, 1).all()
    table.to_parquet(tmp_path / "tiles.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "tiles.parquet"), table)


def test_order_of_units_does_not_matter(tmp_path):
    store, options = store_of(tmp_path, slide_image()), TilingOptions(fov_um=64, size_px=64)
    barcode, position, inside = units()
    shuffled = np.random.default_rng(0).permutation(9)
    one = tile_table("S", barcode, position, inside, store, options)
    two = tile_table("S", barcode[shuffled], position[shuffled], inside[shuffled], store, options)
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b, p, t: (np.where(b == "A", "B", b), p, t), "barcode B 2 times"),
        (lambda b, p, t: (b, np.where(p == 520.0, np.nan, p), t), "no finite position for F"),
        (lambda b, p, t: (b, p * 10, t), "outside its image"),
        (lambda b, p, t: (b, p, t & False), "keeps none"),
    ],
)
def test_bad_units_are_named(tmp_path, change, message):
    store = store_of(tmp_path, slide_image())
    with pytest.raises(DataError, match=message):
        tile_table("S", *change(*units()), store, TilingOptions(fov_um=64, size_px=64))


def test_a_store_of_another_scale_is_refused(tmp_path):
    store = store_of(tmp_path, slide_image())
    with pytest.raises(DataError, match="fov_um / size_px"):
        tile_table("S", *units(), store, TilingOptions(fov_um=64, size_px=32))


def test_crops_are_the_stores_pixels_and_never_leave_it(tmp_path):
    store = store_of(tmp_path, slide_image())
    crops = store.crops(np.array([536, 0, 17]), np.array([336, 0, 93]), 64)
    np.testing.assert_array_equal(crops[0], pixels_of(store.image)[336:, 536:])
    np.testing.assert_array_equal(crops[2], pixels_of(store.image)[93:157, 17:81])
    for x0 in (-1, 537):
        with pytest.raises(DataError, match="600 x 400 px"):
            store.crops(np.array([x0]), np.array([0]), 64)


def blocks_in(folder, pixels):
    """A picture written in strips of uneven height, and opened."""
    height, width, channels = pixels.shape
    cuts = [0, *sorted({1, height // 3, height // 2}), height]
    with (folder / "blocks.npy").open("wb") as file:
        write_header(file, width, height, channels)
        write_blocks(file, ((top, pixels[top:end]) for top, end in pairwise(cuts)))
    return BlockedImage(folder / "blocks.npy", width, height, channels)


@pytest.mark.parametrize("height, width, channels", [(1, 1, 3), (64, 64, 3), (65, 43, 3), (200, 331, 3), (130, 90, 2)])
def test_blocks_hold_the_picture(tmp_path, monkeypatch, height, width, channels):
    monkeypatch.setattr("stmorph.image.blocks._WRITTEN", 5000)  # several writes, which end within blocks
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    image = blocks_in(tmp_path, pixels)
    np.testing.assert_array_equal(pixels_of(image), pixels)
    assert (tmp_path / "blocks.npy").stat().st_size == 128 + np.prod(blocks_of(width, height, channels))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 21, 42, 43, 64, 65, 170])
def test_boxes_anywhere_are_copied_to_their_places_and_nowhere_else(tmp_path, size, channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (190, 170, channels), dtype=np.uint8)
    image = blocks_in(tmp_path, pixels)
    x0, y0 = rng.integers(0, [[171 - size], [191 - size]], (2, 40))
    x0[:2], y0[:2] = [0, 170 - size], [0, 190 - size]  # two corners of the picture
    places = rng.permutation(50)[:40]
    out = np.full((50, size, size, channels), 7, np.uint8)
    image.boxes_into(out, x0, y0, places)
    for place, x, y in zip(places, x0, y0):
        np.testing.assert_array_equal(out[place], pixels[y : y + size, x : x + size])
    assert (out[np.setdiff1d(np.arange(50), places)] == 7).all()


@pytest.mark.parametrize("x0, y0", [(-1, 0), (0, -1), (61, 0), (0, 81), (2**63 - 1, 0), (0, -(2**63))])
def test_one_box_outside_and_none_is_copied(tmp_path, x0, y0):
    image = blocks_in(tmp_path, np.zeros((90, 70, 3), np.uint8))
    out = np.full((2, 10, 10, 3), 7, np.uint8)
    with pytest.raises(DataError, match=f"70 x 90 px.*tile of 10 px at .{x0}, {y0}"):
        image.boxes_into(out, np.array([0, x0]), np.array([0, y0]))
    assert (out == 7).all()


@pytest.mark.parametrize("place", [-1, 2, 2**62])
def test_a_place_outside_of_the_output_is_refused(tmp_path, place):
    image, corner = blocks_in(tmp_path, np.zeros((90, 70, 3), np.uint8)), np.zeros(1, np.int64)
    with pytest.raises(IndexError, match="place"):
        image.boxes_into(np.zeros((2, 10, 10, 3), np.uint8), corner, corner, np.array([place]))
    with pytest.raises(ValueError, match="contiguous"):
        image.boxes_into(np.zeros((2, 10, 10, 6), np.uint8)[..., ::2], corner, corner)


def test_blocks_of_another_picture_are_refused(tmp_path):
    blocks_in(tmp_path, np.zeros((90, 70, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        BlockedImage(tmp_path / "blocks.npy", 70, 30, 3)
    np.save(tmp_path / "plain.npy", np.zeros((90, 70, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        BlockedImage(tmp_path / "plain.npy", 70, 90, 3)


def reader(folder, stain=NONE, strengths=(1.0, 0.6)):
    paths, tables = [], []
    for number, strength in enumerate(strengths):
        (folder / str(number)).mkdir()
        store = store_of(folder / str(number), slide_image(seed=number, strength=strength), stain)
        table = tile_table(str(number), *units(), store, TilingOptions(fov_um=64, size_px=64, min_tissue=0.5))
        tables.append(table[table["kept"]].assign(store=number))
        paths.append(folder / str(number) / "image.npy")
    return SlideTiles.of(paths, pd.concat(tables)), paths


def test_reader_gives_tiles_of_several_slides_in_the_order_asked_for(tmp_path):
    tiles, paths = reader(tmp_path)
    assert len(tiles) == 6
    index = np.array([5, 0, 3, 3])
    got = tiles.read(index)
    assert got.dtype == np.uint8 and got.shape == (4, 64, 64, 3)
    for row, i in zip(got, index):
        image, x, y = pixels_of(open_store(paths[tiles.store_of_unit[i]]).image), tiles.x0_px[i], tiles.y0_px[i]
        np.testing.assert_array_equal(row, image[y : y + 64, x : x + 64])
    np.testing.assert_array_equal(got, np.concatenate([tiles.read(index[k : k + 1]) for k in range(4)]))
    assert tiles.read(np.zeros(0, int)).shape == (0, 64, 64, 3)


def test_reader_travels_to_workers_as_paths(tmp_path):
    tiles, _ = reader(tmp_path)
    message = pickle.dumps(tiles)
    assert len(message) < 10_000
    np.testing.assert_array_equal(pickle.loads(message).read(np.arange(6)), tiles.read(np.arange(6)))


def test_with_a_fit_per_tile_the_store_is_raw_and_tiles_are_normalised_when_cut(tmp_path):
    (tmp_path / "raw").mkdir(), (tmp_path / "tile").mkdir()
    raw, _ = reader(tmp_path / "raw")
    tiles, paths = reader(tmp_path / "tile", StainOptions(fit="tile"))
    np.testing.assert_array_equal(pixels_of(open_store(paths[1]).image), slide_image(seed=1, strength=0.6))
    assert open_store(paths[0]).record["stain"]["fit"] == "tile"
    for one in tiles.read(np.arange(6)):
        assert strength_in(one, PUBLISHED_TARGET) == pytest.approx(PUBLISHED_TARGET.strength, rel=0.02)
    assert np.abs(tiles.read(np.arange(6)).astype(int) - raw.read(np.arange(6))).max() > 5
    assert tiles.unfitted() == 0
    blank = SlideTiles(tiles.stores, [0, 0], [520, 100], [200, 100], 64)
    assert blank.unfitted() == 1
    np.testing.assert_array_equal(blank.read(np.array([0]))[0], pixels_of(open_store(paths[0]).image)[200:264, 520:584])


def test_reader_refuses_lost_tiles_and_mixed_sizes(tmp_path):
    store = store_of(tmp_path, slide_image())
    table = tile_table("S", *units(), store, TilingOptions(fov_um=64, size_px=64, min_tissue=0.5))
    with pytest.raises(DataError, match=r"S/D was asked for, but is lost \(border\)"):
        SlideTiles.of([store.path], table)
    kept = table[table["kept"]]
    with pytest.raises(DataError, match="one size"):
        SlideTiles.of([store.path], pd.concat([kept, kept.assign(size_px=32)]))


@pytest.mark.parametrize(
    "options", [{"fov_um": 0}, {"size_px": 0}, {"min_tissue": 2}, {"fov": 1}, {"stain": {"fi": 1}}]
)
def test_tiling_options_are_closed(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TilingOptions(**({"fov_um": 64, "size_px": 64} | options))
