import numpy as np
import pytest
import tifffile
from PIL import Image

from stmorph.errors import DataError
from stmorph.image.source import check_image, open_image


@pytest.fixture
def picture():
    """A smooth colour picture of 300 x 200 px, with a fine texture that a careless reduction would alias."""
    y, x = np.mgrid[0:200, 0:300]
    smooth = np.stack([120 + x / 3, 60 + y / 2, 180 - x / 4], axis=-1)
    return (smooth + np.random.default_rng(0).uniform(-20, 20, smooth.shape)).clip(0, 255).astype(np.uint8)


def write(path, picture):
    """Write `picture` in the format that the name says."""
    if path.suffix == ".jpg":
        Image.fromarray(picture).save(path, quality=100, subsampling=0)
    elif path.suffix == ".png":
        Image.fromarray(picture).save(path)
    elif path.suffix == ".svs":
        tifffile.imwrite(
            path,
            picture,
            tile=(64, 64),
            photometric="rgb",
            compression="jpeg",
            compressionargs={"level": 98},
            description="Aperio Image Library v11.2.1\n300x200 (64x64) JPEG/RGB Q=98|AppMag = 20|MPP = 0.5",
            metadata=None,
        )
    elif path.name == "planar.tif":
        tifffile.imwrite(path, picture.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    elif path.name == "pyramid.tif":
        with tifffile.TiffWriter(path) as tif:
            options = {"tile": (64, 64), "photometric": "rgb", "resolution": (20_000, 20_000)}
            tif.write(picture, subifds=1, resolutionunit="CENTIMETER", **options)
            tif.write(picture[::2, ::2], subfiletype=1, **options)
    else:
        tifffile.imwrite(path, picture, photometric="rgb", compression="zlib")
    return path


FORMATS = ["a.jpg", "a.png", "a.tif", "planar.tif", "pyramid.tif", "a.svs"]


@pytest.mark.parametrize("name", FORMATS)
def test_formats_agree(tmp_path, picture, name):
    source = check_image(write(tmp_path / name, picture))
    assert (source.width_px, source.height_px) == (300, 200)
    pixels = source.read()
    assert pixels.dtype == np.uint8 and pixels.shape == picture.shape
    # Chroma subsampling blurs colour noise: the lossy formats agree in the mean of small areas.
    lossy = name.endswith(("jpg", "svs"))
    error = np.abs(pixels.astype(float) - picture)
    assert error.mean() < (8 if lossy else 1e-9)
    assert source.read(0.25).shape == (50, 75, 3)


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_is_found_early(tmp_path, picture, name):
    path = write(tmp_path / name, picture)
    whole = path.read_bytes()
    for part in (0.1, 0.6, 0.97):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(DataError, match="download it again"):
            check_image(path)


def test_reduction_averages_instead_of_picking(tmp_path):
    # Single-pixel stripes: nearest-neighbour reduction gives 0 or 255, an antialiased one their mean.
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    reduced = open_image(tmp_path / "stripes.png").read(0.25)
    assert np.abs(reduced[2:-2, 2:-2].astype(float) - 127.5).max() < 3


def test_pyramid_level_is_chosen_not_coarser_than_asked(tmp_path):
    # The two levels have different colours, so that the level read is seen in the result.
    full, half = (
        np.full(shape, value, dtype=np.uint8) for shape, value in (((256, 256, 3), 100), ((128, 128, 3), 200))
    )
    with tifffile.TiffWriter(tmp_path / "p.tif") as tif:
        tif.write(full, subifds=1, tile=(64, 64), photometric="rgb")
        tif.write(half, subfiletype=1, tile=(64, 64), photometric="rgb")
    source = open_image(tmp_path / "p.tif")
    assert {scale: int(source.read(scale).mean()) for scale in (1.0, 0.6, 0.5, 0.1)} == {
        1.0: 100,
        0.6: 100,
        0.5: 200,
        0.1: 200,
    }


def test_embedded_scale(tmp_path, picture):
    assert open_image(write(tmp_path / "pyramid.tif", picture)).um_per_px_embedded == pytest.approx(0.5)
    assert open_image(write(tmp_path / "a.svs", picture)).um_per_px_embedded == pytest.approx(0.5)
    tifffile.imwrite(
        tmp_path / "b.ome.tif",
        picture,
        photometric="rgb",
        metadata={"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25},
    )
    assert open_image(tmp_path / "b.ome.tif").um_per_px_embedded == pytest.approx(0.25)
    Image.fromarray(picture).save(tmp_path / "c.png", dpi=(300, 300))  # a printer's default says nothing
    assert open_image(tmp_path / "c.png").um_per_px_embedded is None


def test_transparent_is_glass(tmp_path, picture):
    alpha = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    alpha[:, :100, 3] = 0
    Image.fromarray(alpha).save(tmp_path / "a.png")
    pixels = open_image(tmp_path / "a.png").read()
    assert (pixels[:, :100] == 255).all() and (pixels[:, 100:] == picture[:, 100:]).all()


def test_size_needs_no_decoding(tmp_path, picture):
    path = write(tmp_path / "a.jpg", picture)
    path.write_bytes(path.read_bytes()[:5000])
    assert open_image(path).width_px == 300  # opening reads the header alone; check_image finds the damage


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_blank(tmp_path, value, name):
    with pytest.raises(DataError, match="is blank"):
        check_image(write(tmp_path / name, np.full((50, 60, 3), value, np.uint8)))


def test_not_an_image(tmp_path, picture):
    with pytest.raises(DataError, match="does not exist"):
        open_image(tmp_path / "none.jpg")
    for name in ("page.jpg", "page.png", "page.tif", "page.svs"):
        (tmp_path / name).write_text("<html>404 not found</html>")
        with pytest.raises(DataError, match="download it again"):
            open_image(tmp_path / name)
    Image.fromarray(picture[..., 0]).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "grey.tif", picture[..., 0])
    tifffile.imwrite(tmp_path / "deep.tif", picture.astype(np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([picture] * 4), photometric="rgb")
    for name in ("grey.png", "grey.tif", "deep.tif", "stack.tif"):
        with pytest.raises(DataError, match="give the H&E image"):
            open_image(tmp_path / name)


def test_content_decides_not_the_name(tmp_path, picture):
    write(tmp_path / "a.png", picture).rename(tmp_path / "a.tif")
    assert (check_image(tmp_path / "a.tif").read() == picture).all()


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_scale_must_be_positive(tmp_path, picture, scale):
    with pytest.raises(ValueError, match="above 0"):
        open_image(write(tmp_path / "a.png", picture)).read(scale)
