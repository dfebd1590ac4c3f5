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


def tiff(path, **options):
    tifffile.imwrite(path, np.zeros((20, 30, 3), np.uint8), photometric="rgb", **options)
    return open_image(path).scale_record


def test_the_scale_of_the_picture_not_of_its_neighbour(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(np.zeros((90, 80), np.uint16), metadata={"axes": "YX", "PhysicalSizeX": 9.0, "PhysicalSizeY": 9.0})
        metadata = {"axes": "YXS", "PhysicalSizeX": 273.8, "PhysicalSizeXUnit": "nm"}
        tif.write(np.zeros((20, 30, 3), np.uint8), photometric="rgb", metadata=metadata)
    record = open_image(tmp_path / "a.ome.tif").scale_record
    assert record.um_per_px == pytest.approx(0.2738) and record.evidence == "OME record"


def test_aperio_scale_is_read_whatever_the_name(tmp_path):
    record = tiff(tmp_path / "a.tif", description="Aperio Image Library v11\n30x20|MPP = 0.4990", metadata=None)
    assert (record.um_per_px, record.evidence) == (0.499, "Aperio record")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, "72 dots per inch, a printer's default"),
        ({"resolution": (1, 1), "resolutionunit": "CENTIMETER"}, "no microscope's"),
        ({"resolution": (20_000, 10_000), "resolutionunit": "CENTIMETER"}, "0.5 um per px along x but 1 along y"),
        ({}, "no scale in the file"),
    ],
)
def test_a_scale_that_cannot_be_believed_says_why(tmp_path, options, reason):
    record = tiff(tmp_path / "a.tif", **options)
    assert record.um_per_px is None
    assert reason in record.evidence
    assert "says nothing" in record.against(0.5)


def test_a_record_that_contradicts_the_scale_in_use_says_so(tmp_path):
    record = tiff(tmp_path / "a.tif", resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    assert record.against(0.501).endswith("(TIFF resolution) says 0.5000 and agrees")
    assert "says 0.5000, a difference of +100%" in record.against(0.25)
