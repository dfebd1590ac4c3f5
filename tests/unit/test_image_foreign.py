"""Images of other programs: read with their own colours, upright and whole, or refused in one sentence."""

import struct
import zlib
from binascii import crc32
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from test_image_regions import picture, ycbcr

from stmorph.errors import DataError
from stmorph.image.openslide_source import OpenSlideSource
from stmorph.image.scale_record import openslide_scale
from stmorph.image.source import check_image, open_image
from stmorph.image.tiff_source import TiffSource

IMAGE = picture()
HEIGHT, WIDTH = IMAGE.shape[:2]
ALPHA = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
APERIO = "Aperio Image Library v12.0.15 \n{w}x{h} [0,100 {w}x{h}] (128x128) J2K/KDU Q=70|AppMag = 40|MPP = {mpp}"


def refused(path, says):
    with pytest.raises(DataError, match=says) as caught:
        check_image(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value) and "expected" in str(caught.value)


def tiff(pixels=IMAGE, **options):
    return lambda path: tifffile.imwrite(path, pixels, **{"photometric": "rgb", "metadata": None} | options)


def pillow(mode=None, **options):
    return lambda path: (Image.fromarray(IMAGE).convert(mode) if mode else Image.fromarray(IMAGE)).save(path, **options)


def aperio(path, compression=33005, pixels=IMAGE, mpp="0.2520"):
    """Write a small slide as Aperio's scanners do, beside it a larger photograph of the glass (the macro image)."""
    about = APERIO.format(w=WIDTH, h=HEIGHT, mpp=mpp)
    scan = {"tile": (128, 128), "photometric": "ycbcr" if compression == 33003 else "rgb", "compression": compression}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, description=about, metadata=None, **scan)
        aside = {"photometric": "rgb", "metadata": None, "rowsperstrip": 16}
        thumbnail = np.ascontiguousarray(IMAGE[::3, ::3])
        file.write(thumbnail, description=f"{about.split('|')[0]} -> 102x88", compression="jpeg", **aside)
        file.write(np.ascontiguousarray(pixels[::4, ::4]), description=about, metadata=None, **scan)
        for name, size, kind in (("label", (120, 130), 1), ("macro", (431, 1280), 9)):
            about = f"Aperio Image Library v12.0.15 \n{name} {size[1]}x{size[0]}"
            glass = np.full((*size, 3), 200, np.uint8)
            file.write(glass, description=about, compression="lzw", subfiletype=kind, **aside)


# --- colours ----------------------------------------------------------------------------------------------------------

COLOURS = {
    "rgba.tif": (tiff(np.dstack([IMAGE, ALPHA]), extrasamples=["unassalpha"]), 0),
    "a channel of something else.tif": (tiff(np.dstack([IMAGE, 0 * ALPHA]), extrasamples=["unspecified"]), 0),
    "cmyk.tif": (pillow("CMYK"), 0),
    "cmyk tiles.tif": (
        lambda path: tiff(
            np.asarray(Image.fromarray(IMAGE).convert("CMYK")),
            photometric="separated",
            tile=(64, 64),
            compression="lzw",
        )(path),
        0,
    ),
    "ycbcr.tif": (tiff(ycbcr(IMAGE), photometric="ycbcr"), 2),
    "ycbcr tiles.tif": (tiff(ycbcr(IMAGE), photometric="ycbcr", tile=(64, 64), compression="zlib"), 2),
    "big-endian.tif": (tiff(byteorder=">"), 0),
    "one tile.tif": (tiff(tile=(512, 512)), 0),
    "one strip.btf": (tiff(bigtiff=True, rowsperstrip=HEIGHT), 0),
    "jpeg strips.tif": (pillow(compression="jpeg", quality=95), 4),
    "plain.ndpi": (tiff(tile=(64, 64)), 0),
    "plain.scn": (tiff(), 0),
    "plain.svs": (tiff(), 0),
    "picture.mrxs": (pillow(format="PNG"), 0),
    "16 bit.png": (lambda path: path.write_bytes(png(IMAGE.astype(">u2") * 257, 16)), 0),
    "interlaced.png": (lambda path: path.write_bytes(png(IMAGE, 8, interlaced=True)), 0),
    "cmyk.jpg": (pillow("CMYK", quality=95), 4),
    "palette.png": (lambda path: Image.fromarray(IMAGE).quantize(256).save(path), 8),
    "lossless.webp": (pillow(lossless=True), 0),
}


def png(pixels, bits, interlaced=False):
    """Return a PNG; Pillow writes neither 16 bits a channel nor Adam7's seven passes."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels[y::down, x::across] for x, y, across, down in (passes if interlaced else [(0, 0, 1, 1)])]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 2, 0, 0, int(interlaced))
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))
        for name, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_the_pictures(tmp_path, name):
    write, error = COLOURS[name]
    write(tmp_path / name)
    source = check_image(tmp_path / name)
    assert np.abs(source.read().astype(int) - IMAGE).mean() <= error
    assert (source.region(10, 20, 100, 90) == source.read()[20:110, 10:110]).all()


def test_colours_that_were_multiplied_by_their_alpha_lie_on_white(tmp_path):
    half = np.dstack([IMAGE // 2, np.full((HEIGHT, WIDTH), 128, np.uint8)])
    tiff(half, extrasamples=["assocalpha"])(tmp_path / "a.tif")
    assert (open_image(tmp_path / "a.tif").read() == IMAGE // 2 + 127).all()


GREY = IMAGE[..., 0]
NOT_COLOUR = {
    "deep.tif": (tiff(IMAGE.astype(np.uint16)), r"3 channel\(s\) of uint16 \(RGB\)"),
    "float.tif": (tiff(IMAGE.astype(np.float32)), r"of float32 \(RGB\)"),
    "palette.tif": (pillow("P", palette=Image.Palette.ADAPTIVE), r"1 channel\(s\) of uint8 \(PALETTE\)"),
    "fluorescence.ome.tif": (
        tiff(np.stack([GREY] * 4), photometric="minisblack", metadata={"axes": "CYX"}),
        r"4 channel\(s\) of uint8 \(MINISBLACK\)",
    ),
    "lab.tif": (tiff(photometric="cielab"), r"\(CIELAB\); expected H&E in colour"),
    "more.tif": (tiff(np.dstack([IMAGE, IMAGE[..., :2]]), extrasamples=[0, 0]), r"5 channel\(s\)"),
    "transparent grey.png": (pillow("LA"), "mode LA"),
    "grey.jpg": (pillow("L"), "mode L"),
}


@pytest.mark.parametrize("name", NOT_COLOUR)
def test_what_has_no_colours_that_can_be_told_is_refused(tmp_path, name):
    write, says = NOT_COLOUR[name]
    write(tmp_path / name)
    refused(tmp_path / name, says)


@pytest.mark.parametrize("software", ["vips", "tifffile"])
def test_jpeg2000_of_which_nobody_can_tell_the_colours(tmp_path, software):
    # libvips 8.14, tiffsave --compression jp2k: YCbCr in OpenJPEG's tiles, and the page says RGB and 33004.
    pixels = ycbcr(IMAGE) if software == "vips" else IMAGE
    tiff(pixels, tile=(128, 128), compression=33004, software=software)(tmp_path / "a.tif")
    if software == "vips":
        refused(tmp_path / "a.tif", r"packed as JPEG2000 \(33004\) by libvips .*save it again with another compression")
    else:
        assert (open_image(tmp_path / "a.tif").read() == IMAGE).all()


def test_seven_bits_are_not_half_as_bright(tmp_path):
    # GDAL 3.6, -co NBITS=7.
    retagged(258, (7, 7, 7))(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", r"3 channel\(s\) of uint8 with 7 bits \(RGB\).*with 8 bits a channel")


def test_scanners_formats_that_are_no_tiff_are_openslides_whatever_their_name(tmp_path, monkeypatch):
    # DICOM of wsidicomizer 0.26.1: a file a resolution, of which any stands for the slide.
    import openslide

    (tmp_path / "1.2.840.dcm").write_bytes(bytes(128) + b"DICM")
    refused(tmp_path / "1.2.840.dcm", "cannot identify image file .*save it as a tiled TIFF")
    monkeypatch.setattr(openslide.OpenSlide, "detect_format", lambda path: "dicom")
    monkeypatch.setattr(OpenSlideSource, "__init__", lambda self, path: None)
    assert isinstance(open_image(tmp_path / "1.2.840.dcm"), OpenSlideSource)


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 6, 8, 9])
@pytest.mark.parametrize("kind", ["tif", "jpg"])
def test_a_picture_that_is_to_be_turned_is_refused(tmp_path, kind, orientation):
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        tiff(extratags=[(274, "H", 1, orientation, True)])(path)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        pillow(exif=exif)(path)
    if 2 <= orientation <= 8:
        refused(path, rf"turned or mirrored when shown \(orientation {orientation}\).* save it upright")
    else:  # 0 and 9 are no orientations: programs write 0 where they know none
        assert open_image(path).levels == ((WIDTH, HEIGHT),)


# --- which picture, and its scale -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.svs", "a.tif"])
@pytest.mark.parametrize("compression", [33005, 33003])
def test_the_scan_not_the_photograph_of_the_glass(tmp_path, name, compression):
    aperio(tmp_path / name, compression, ycbcr(IMAGE) if compression == 33003 else IMAGE)
    source = check_image(tmp_path / name)
    assert source.levels == ((WIDTH, HEIGHT), (WIDTH // 4, HEIGHT // 4))
    assert isinstance(source, TiffSource) == (compression == 33005)
    assert np.abs(source.read().astype(int) - IMAGE).mean() <= (0 if compression == 33005 else 2)
    assert source.um_per_px_embedded == pytest.approx(0.252)


@pytest.mark.parametrize(
    ("mpp", "um_per_px", "says"),
    [
        ("0,2520", 0.252, "Aperio record"),
        ("0", None, "0 um per px, which is no length"),
        ("-1", None, "-1 um per px, which is no length"),
        ("nan", None, "which is no length"),
        ("1.2.3", None, "which is no length"),
        ("1e6", None, "1e+06 um per px, which is no microscope's"),
        ("", None, "no scale in the file"),
    ],
)
def test_a_scanners_scale_that_cannot_be_is_told_and_the_picture_read(tmp_path, mpp, um_per_px, says):
    aperio(tmp_path / "a.svs", mpp=mpp)
    source = check_image(tmp_path / "a.svs")
    assert source.um_per_px_embedded == um_per_px and source.width_px == WIDTH
    assert says in source.scale_record.evidence


@pytest.mark.parametrize(
    ("unit", "per_unit", "um_per_px", "says"),
    [
        ("micron", 4, 0.25, "ImageJ record"),
        ("um", 4, 0.25, "ImageJ record"),
        ("\\u00B5m", 4, 0.25, "ImageJ record"),
        ("inch", 101_600, 0.25, "ImageJ record"),
        ("mm", 1, None, "1000 um per px, which is no microscope's"),
        ("pixel", 4, None, "no scale in the file"),
    ],
)
def test_the_unit_that_imagej_writes_beside_its_resolution(tmp_path, unit, per_unit, um_per_px, says):
    # ImageJ 1.54 and Fiji: no ResolutionUnit, the unit is a line of the description.
    tiff(description=f"ImageJ=1.54f\nunit={unit}\nmin=0.0\n", resolution=(per_unit, per_unit), resolutionunit=1)(
        tmp_path / "a.tif"
    )
    source = open_image(tmp_path / "a.tif")
    assert (
        source.um_per_px_embedded == (um_per_px and pytest.approx(um_per_px)) and says in source.scale_record.evidence
    )


def ome_zarr(folder, unit="micrometer", scale=0.25):
    """Write a picture as OME-Zarr 0.4, as ome-zarr-py 0.15 does."""
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    group.create_array("0", data=IMAGE.transpose(2, 0, 1), chunks=(3, 64, 64))
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space", "unit": unit} for name in "yx")]
    transform = {"type": "scale", "scale": [1, scale, scale]}
    datasets = [{"path": "0", "coordinateTransformations": [transform]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


@pytest.mark.parametrize(("unit", "scale"), [("micrometer", 0.25), ("nanometer", 250), ("millimeter", 0.00025)])
def test_units_of_ome_zarr(tmp_path, unit, scale):
    ome_zarr(tmp_path / "a.zarr", unit, scale)
    source = check_image(tmp_path / "a.zarr")
    assert source.um_per_px_embedded == pytest.approx(0.25) and (source.read() == IMAGE).all()


def test_the_folders_of_bioformats2raw(tmp_path):
    # bioformats2raw: a group for each picture of a slide, numbered, and OME/METADATA.ome.xml beside them.
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    (tmp_path / "a.zarr" / "OME").mkdir()
    ome_zarr(tmp_path / "a.zarr" / "0")
    assert (check_image(tmp_path / "a.zarr").read() == IMAGE).all()
    ome_zarr(tmp_path / "a.zarr" / "1")
    refused(tmp_path / "a.zarr", r"holds 2 images \(0, 1\); expected one: give .*a.zarr/<name>")


@pytest.mark.parametrize("value", ["0", "nan", "abc", "inf"])
def test_openslides_scale_that_cannot_be(value):
    assert openslide_scale({"openslide.mpp-x": value, "openslide.mpp-y": "0.25"}).um_per_px is None
    assert openslide_scale({"openslide.mpp-x": "0.25", "openslide.mpp-y": value}).um_per_px is None


# --- damage -----------------------------------------------------------------------------------------------------------


def retagged(code, value):
    def write(path):
        tiff(compression="zlib", rowsperstrip=20)(path)
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages[0].tags[code].overwrite(value)

    return write


def half(write):
    def cut(path):
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


DAMAGED = {
    "wider.tif": (retagged(256, 5000), "download it again"),
    "higher.tif": (retagged(257, 5000), "download it again"),
    "no width.tif": (retagged(256, 0), "download it again"),
    "unknown packing.tif": (retagged(259, 12345), "12345 is not a known"),
    "header.tif": (lambda path: path.write_bytes(b"II*\0"), "download it again"),
    "big header.btf": (lambda path: path.write_bytes(b"II+\0\x08\0\0\0"), "download it again"),
    "index beyond.tif": (lambda path: path.write_bytes(b"II*\0\xff\xff\xff\x7f"), "holds no image"),
    "cut.svs": (half(aperio), "download it again"),
    "cut.jp2": (half(pillow()), "download it again"),
    "cut.png": (half(lambda path: path.write_bytes(png(IMAGE, 8, interlaced=True))), "download it again"),
    "page.ndpi": (lambda path: path.write_text("<html>404</html>"), "download it again"),
    "strips.ndpi": (tiff(), "no NDPI scan .* call it .tif"),
    "folder.tif": (Path.mkdir, "is a folder; expected an image"),
    "picture.pdf": (lambda path: path.write_bytes(b"%PDF-1.7\n"), "is a PDF; .*export the picture from it"),
    "telephone.heic": (
        lambda path: path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0"),
        "is an HEIC picture; .*tiled TIFF",
    ),
    "pointer.tif": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"),
        "is a pointer of Git LFS, not the file; .*run git lfs pull",
    ),
    "vendor's own.czi": (lambda path: path.write_bytes(b"ZISRAWFILE" + bytes(99)), "save it as a tiled TIFF if it is"),
    "link.tif": (lambda path: path.symlink_to("nowhere.tif"), "does not exist"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_one_sentence(tmp_path, name):
    write, says = DAMAGED[name]
    write(tmp_path / name)
    refused(tmp_path / name, says)


def test_a_jpeg_tiff_whose_tables_are_gone(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.tile(IMAGE, (4, 4, 1))).save(path, compression="jpeg")
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["JPEGTables"].offset
    content = bytearray(path.read_bytes())
    content[place : place + 2] = struct.pack("<H", 65000)  # another tag
    path.write_bytes(content)
    refused(path, "Quantization table .* was not defined")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied"), "may not be read .* mend the rights"),
        (MemoryError("8 EiB"), "takes more memory than there is .* tiled TIFF"),
    ],
)
def test_rights_and_memory_are_no_damage(tmp_path, monkeypatch, error, says):
    pillow()(tmp_path / "a.png")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    refused(tmp_path / "a.png", says)
