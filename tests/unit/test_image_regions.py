"""Parts of an image are the image's own pixels: regions, strips and tiles of every format, at any scale."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from stmorph.errors import DataError
from stmorph.image import tile_reader
from stmorph.image.array_source import ArraySource
from stmorph.image.resample import resample_columns, resample_rows, windows
from stmorph.image.source import ImageSource, open_image
from stmorph.image.tile_reader import iterate_tiles, read_tiles


def picture(height=264, width=304, seed=0):
    """Smooth colours with a fine texture, so that a displaced pixel is seen."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([120 + x / 6, 60 + y / 4, 180 - x / 8], axis=-1)
    return (smooth + np.random.default_rng(seed).uniform(-40, 40, smooth.shape)).clip(0, 255).astype(np.uint8)


def ycbcr(image):
    """Return full-range YCbCr as Aperio's scanners store it."""
    return np.asarray(Image.fromarray(image).convert("YCbCr"))


def write_aperio(path, image, compression, photometric="rgb"):
    about = f"Aperio Image Library v11.2.1\n{image.shape[1]}x{image.shape[0]} (128x128) |AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as tif:
        options = {"tile": (128, 128), "photometric": photometric, "compression": compression, "metadata": None}
        tif.write(image, description=about, **options)
        tif.write(image[::4, ::4].copy(), description=about, **options)


def write_pages(path, image, **options):
    """Write a BigTIFF pyramid as pages in a row."""
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for level in range(3):
            small = np.ascontiguousarray(image[:: 2**level, :: 2**level])
            tif.write(small, photometric="rgb", subfiletype=int(level > 0), **options)


def write_ome(path, image, levels=2):
    """Write OME-TIFF: large fluorescence first, then the picture with a pyramid in SubIFDs."""
    options = {"tile": (96, 80)}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(np.zeros((600, 700), np.uint16), metadata={"axes": "YX", "PhysicalSizeX": 9.0})
        metadata = {"axes": "YXS", "PhysicalSizeX": 273.8, "PhysicalSizeXUnit": "nm"}
        tif.write(image, photometric="rgb", subifds=levels - 1, metadata=metadata, **options)
        for level in range(1, levels):
            small = np.ascontiguousarray(image[:: 2**level, :: 2**level])
            tif.write(small, photometric="rgb", subfiletype=1, metadata=None, **options)


LOSSLESS = {
    "array": None,
    "picture.png": lambda path, image: Image.fromarray(image).save(path),
    "picture.jp2": lambda path, image: Image.fromarray(image).save(path),
    "raw.tif": lambda path, image: tifffile.imwrite(path, image, photometric="rgb"),
    "strips.tif": lambda path, image: write_pages(path, image, compression="zlib", rowsperstrip=7),
    "lzw.btf": lambda path, image: write_pages(path, image, compression="lzw", tile=(64, 64), predictor=True),
    "tall.tif": lambda path, image: write_pages(path, image, compression="zstd", tile=(272, 48)),
    "planar.tif": lambda path, image: tifffile.imwrite(
        path, image.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression="zlib", tile=(64, 64)
    ),
    "channels.ome.tif": lambda path, image: tifffile.imwrite(
        path, image.transpose(2, 0, 1), photometric="minisblack", metadata={"axes": "CYX"}, compression="zlib"
    ),
    "many.ome.tif": write_ome,
    "jpeg2000.svs": lambda path, image: write_aperio(path, image, 33005),
}
LOSSY = {
    "picture.jpg": lambda path, image: Image.fromarray(image).save(path, quality=95, subsampling=0),
    "jpeg.tif": lambda path, image: write_pages(path, image, compression="jpeg", tile=(128, 128)),
    "jpeg.svs": lambda path, image: write_aperio(path, image, "jpeg"),
    "ycbcr.svs": lambda path, image: write_aperio(path, ycbcr(image), 33003, "ycbcr"),
}


def opened(folder, name, image) -> ImageSource:
    if name == "array":
        return ArraySource(image)
    (LOSSLESS | LOSSY)[name](folder / name, image)
    return open_image(folder / name)


@pytest.mark.parametrize("name", LOSSLESS)
def test_every_format_gives_the_picture(tmp_path, name):
    image = picture()
    source = opened(tmp_path, name, image)
    assert (source.width_px, source.height_px) == (304, 264)
    np.testing.assert_array_equal(source.read(), image)


@pytest.mark.parametrize("name", LOSSLESS | LOSSY)
def test_regions_and_strips_are_parts_of_the_whole(tmp_path, name):
    source = opened(tmp_path, name, picture())
    for scale in (1.0, 0.63, 0.21, 1.4):
        whole = source.read(scale)
        width, height = source.size(scale)
        assert whole.shape == (height, width, 3)
        done = 0
        for top, pixels in source.strips(scale):
            assert top == done
            np.testing.assert_array_equal(pixels, whole[top : top + len(pixels)])
            done += len(pixels)
        assert done == height
        for x, y, w, h in ((0, 0, width, 5), (width // 3, height // 2, 21, 13), (width - 1, height - 9, 1, 9)):
            np.testing.assert_array_equal(source.region(x, y, w, h, scale), whole[y : y + h, x : x + w])


def test_colours_of_every_jpeg_are_near(tmp_path):
    image = np.repeat(np.repeat(picture(33, 38), 8, axis=0), 8, axis=1)  # flat blocks, which survive JPEG
    for name in LOSSY:
        error = np.abs(opened(tmp_path, name, image).read()[4::8, 4::8].astype(int) - image[4::8, 4::8])
        assert error.mean() < 3, name


@pytest.mark.parametrize(("x", "y", "w", "h"), [(-1, 0, 5, 5), (0, 0, 305, 5), (294, 259, 10, 6), (3, 3, 0, 4)])
def test_a_region_outside_is_refused(x, y, w, h):
    with pytest.raises(DataError, match=r"304 x 264 px at scale 1.*box inside"):
        ArraySource(picture()).region(x, y, w, h)


@pytest.mark.parametrize("scale", [0.9, 0.5, 0.37, 0.11, 1.7])
def test_reduction_is_pillows_to_the_last_bit(scale):
    image = picture(420, 390)
    image[100:200] = (image[100:200] > 120) * np.uint8(255)  # overshoots on both sides
    source = ArraySource(image)
    expected = Image.fromarray(image).resize(source.size(scale), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(source.read(scale), np.asarray(expected))


@pytest.mark.parametrize("size_out", [1, 7, 99, 301])
def test_windows_weigh_one_and_keep_a_flat_picture_flat(size_out):
    got = windows(100, size_out)
    assert np.abs(got.weights.sum(axis=1) - 2**22).max() <= got.weights.shape[1]
    assert got.needed == (0, 100)
    flat = np.full((100, 100, 3), 201, np.uint8)
    assert (resample_rows(resample_columns(flat, got), got) == 201).all()


def test_memory_follows_the_width_not_the_area(tmp_path):
    import tracemalloc

    tile = picture(256, 256)
    tifffile.imwrite(
        tmp_path / "tall.tif",
        (tile for _ in range(128)),
        shape=(32 * 256, 4 * 256, 3),
        dtype=np.uint8,
        tile=(256, 256),
        photometric="rgb",
        compression="zlib",
    )
    source = open_image(tmp_path / "tall.tif")
    source.read(0.5)  # compiles
    tracemalloc.start()
    for _ in source.strips(0.5):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 * tile.nbytes / 4


def boxes(n, width, height, size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, width - size + 1, n), rng.integers(0, height - size + 1, n)


@pytest.mark.parametrize(
    "name", ["array", "picture.jpg", "raw.tif", "strips.tif", "lzw.btf", "planar.tif", "ycbcr.svs"]
)
@pytest.mark.parametrize("size", [17, 90])
def test_tiles_are_the_pictures_boxes_in_the_order_asked_for(tmp_path, name, size):
    source = opened(tmp_path, name, picture())
    whole, (x0, y0) = source.read(), boxes(60, 304, 264, size)
    x0[1], y0[1] = x0[0], y0[0]  # the same tile twice
    x0[2], y0[2] = 304 - size, 264 - size
    got = read_tiles(source, x0, y0, size)
    for tile, x, y in zip(got, x0, y0):
        np.testing.assert_array_equal(tile, whole[y : y + size, x : x + size])
    seen = {row: tile.copy() for row, tile in iterate_tiles(source, x0, y0, size)}
    np.testing.assert_array_equal(np.stack([seen[row] for row in range(60)]), got)


def test_tiles_go_where_they_are_wanted_and_from_the_level_wanted(tmp_path):
    source = opened(tmp_path, "lzw.btf", picture())
    out = np.zeros((2, 40, 40, 3), np.uint8)
    assert read_tiles(source, [9, 100], [50, 3], 40, out, level=1) is out
    np.testing.assert_array_equal(out[0], picture()[::2, ::2][50:90, 9:49])
    assert read_tiles(source, [], [], 40).shape == (0, 40, 40, 3)


def test_each_of_the_files_tiles_is_decoded_once(tmp_path, monkeypatch):
    source = opened(tmp_path, "lzw.btf", picture())
    asked = []
    real = tile_reader.TiffLevel.piece
    monkeypatch.setattr(tile_reader.TiffLevel, "piece", lambda self, *where: asked.append(where) or real(self, *where))
    read_tiles(source, *boxes(300, 304, 264, 100), 100)
    assert len(asked) == len(set(asked)) <= 25


def test_unfinished_tiles_never_take_more_than_their_share(tmp_path, monkeypatch):
    source = opened(tmp_path, "lzw.btf", picture())
    x0, y0 = boxes(400, 304, 264, 100)
    monkeypatch.setattr(tile_reader, "UNFINISHED_BYTES", 40 * 100 * 100 * 3)
    kept, real = [], np.empty
    monkeypatch.setattr(
        tile_reader.np, "empty", lambda shape, dtype=float: kept.append(shape) or real(shape, dtype), raising=False
    )
    seen = sorted(row for row, _ in iterate_tiles(source, x0, y0, 100))
    pools = [shape[0] for shape in kept if isinstance(shape, tuple) and shape[1:] == (100, 100, 3)]
    assert seen == list(range(400))
    assert len(pools) > 1 and max(pools) <= 40


def test_a_tile_outside_is_named():
    with pytest.raises(DataError, match=r"304 x 264 px.*100 px at \(205, 7\)"):
        read_tiles(ArraySource(picture()), [3, 205], [3, 7], 100)


def test_a_damaged_tile_is_told_in_one_sentence(tmp_path):
    source = opened(tmp_path, "lzw.btf", picture())
    with tifffile.TiffFile(tmp_path / "lzw.btf") as tif:
        offset, count = tif.pages[0].dataoffsets[7], tif.pages[0].databytecounts[7]
    content = bytearray((tmp_path / "lzw.btf").read_bytes())
    content[offset : offset + count] = b"\xff" * count
    (tmp_path / "lzw.btf").write_bytes(content)
    with pytest.raises(DataError, match=r"lzw\.btf was decoded only in part.*download it again"):
        read_tiles(source, *boxes(200, 304, 264, 100), 100)


def test_a_tiff_that_lacks_tiles_is_told(tmp_path):
    write_pages(tmp_path / "a.tif", picture(), compression="lzw", tile=(64, 64))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tag = tif.pages[0].tags["TileByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    with pytest.raises(DataError, match=r"a\.tif lacks 1 of its 25 tiles"):
        open_image(tmp_path / "a.tif")
