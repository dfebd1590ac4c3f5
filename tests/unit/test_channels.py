import pickle

import numpy as np
import pytest
import tifffile

from stmorph.errors import DataError
from stmorph.image.alignment import Alignment
from stmorph.image.channels import (
    Plane,
    cell_mask,
    into_store,
    label_mask,
    read_morphology,
    to_grey,
)
from stmorph.image.extra_channels import ExtraChannels, with_channels, write_channels
from stmorph.image.stain_options import StainOptions
from stmorph.image.store import build_store, open_store

IMAGE_UM, STORE_UM, FRAME_UM = 0.5, 0.8, 0.25


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    image = np.random.default_rng(0).integers(60, 200, (240, 320, 3)).astype(np.uint8)
    build_store(image, IMAGE_UM, STORE_UM, StainOptions(fit="none"), folder / "image.npy", folder / "image.json")
    return open_store(folder / "image.npy")


def turned(degrees, scale=IMAGE_UM / FRAME_UM, shift=(150.0, 90.0)):
    angle = np.deg2rad(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[:2, 2] = shift
    return Alignment(matrix, FRAME_UM)


def wave(x_um, y_um):
    """A picture that is known at every point."""
    return 1000 + 400 * np.sin(2 * np.pi * x_um / 23) + 300 * np.cos(2 * np.pi * (y_um + 0.4 * x_um) / 31)


def frame_picture(height=900, width=900):
    y, x = (np.mgrid[:height, :width] + 0.5) * FRAME_UM
    return wave(x, y)


@pytest.mark.parametrize("degrees", [0, 12, -90])
@pytest.mark.parametrize("reduction", [1, 2])
def test_a_channel_lies_where_the_alignment_says(store, degrees, reduction):
    alignment = turned(degrees, shift={0: (20, 30), 12: (140, 20), -90: (60, 700)}[degrees])
    picture = frame_picture()
    if reduction > 1:
        picture = picture.reshape(450, 2, 450, 2).mean(axis=(1, 3))
    found = into_store(Plane(picture, (reduction, reduction)), alignment, store)
    assert found.shape == store.shape and found.dtype == np.float32
    # In float64: store pixel's centre -> image -> frame -> the wave there.
    height, width = found.shape
    y, x = np.mgrid[:height, :width] + 0.5
    image_px = np.stack([x * 320 / width, y * 240 / height], axis=-1)
    frame_um = alignment.to_frame_um(image_px)
    truth = wave(frame_um[..., 0], frame_um[..., 1])
    inside = ((frame_um > 2) & (frame_um < 900 * FRAME_UM - 2)).all(axis=-1)
    assert inside.mean() > 0.6
    error = (found - truth)[inside]
    assert np.abs(error).max() < 25 and abs(error.mean()) < 1  # of waves of 400; means over a block blunt them
    # Half a store pixel to the side would be seen.
    beside = wave(frame_um[..., 0] + 0.4, frame_um[..., 1])
    assert np.abs((found - beside)[inside]).mean() > 3 * np.abs(error).mean()


def test_nothing_is_undersampled(store):
    # Lines one pixel wide are as bright as their mean, wherever they lie: dropping pixels would give 0 or 100.
    picture = np.zeros((900, 900))
    picture[:, ::4] = 100.0
    found = into_store(Plane(picture, (1.0, 1.0)), turned(0, scale=4 * 0.625, shift=(0, 0)), store)
    inside = found[5:-5, 5:-5]
    assert inside.mean() == pytest.approx(25, rel=0.02)
    assert inside.max() < 40


def test_outside_the_plane_there_is_nothing(store):
    found = into_store(Plane(np.full((100, 100), 500, np.uint16), (1.0, 1.0)), turned(0, shift=(0, 0)), store)
    assert found[5, 5] == 500 and (found[60:, 60:] == 0).all()


# --- files ------------------------------------------------------------------------------------------------------------


def write_pyramid(path, planes, levels=2):
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for plane in planes:
            file.write(
                plane, subifds=levels, tile=(64, 64), photometric="minisblack", compression="zlib", metadata=None
            )
            for k in range(1, levels + 1):
                file.write(
                    plane[:: 2**k, :: 2**k], subfiletype=1, tile=(64, 64), photometric="minisblack", metadata=None
                )
    return path


def test_a_pyramid_of_several_planes(tmp_path):
    planes = np.random.default_rng(1).integers(0, 60000, (3, 256, 192)).astype(np.uint16)
    path = write_pyramid(tmp_path / "morphology.ome.tif", planes)
    full = read_morphology(path)
    assert full.reduction == (1, 1) and (full.pixels == planes.max(axis=0)).all()
    for most, reduction in ((1.9, 1), (2.0, 2), (3.9, 2), (5, 4)):
        found = read_morphology(path, most)
        assert found.reduction == (reduction, reduction)
        assert (found.pixels == planes[:, ::reduction, ::reduction].max(axis=0)).all()


def test_a_folder_of_channels_whose_records_name_files_that_are_not_there(tmp_path):
    folder = tmp_path / "morphology_focus"
    folder.mkdir()
    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 9000, (2, 128, 128)).astype(np.uint16)
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYCZT" Type="uint16" SizeX="128" SizeY="128" SizeC="4" SizeZ="1" SizeT="1">'
        '<TiffData IFD="0" FirstC="3"><UUID FileName="morphology_focus_0003.ome.tif">urn:uuid:1</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    for k, picture in enumerate(pictures):
        tifffile.imwrite(folder / f"morphology_focus_{k:04d}.ome.tif", picture, description=xml, metadata=None)
    assert (read_morphology(folder).pixels == pictures[0]).all()
    assert (read_morphology(folder, channel=1).pixels == pictures[1]).all()
    with pytest.raises(DataError, match="holds 2 files"):
        read_morphology(folder, channel=2)


def test_morphology_images_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"absent.ome.tif, a morphology image, does not exist"):
        read_morphology(tmp_path / "absent.ome.tif")
    path = write_pyramid(tmp_path / "cut.ome.tif", np.ones((1, 256, 256), np.uint16) * np.arange(256, dtype=np.uint16))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(DataError, match=r"cut.ome.tif cannot be read"):
        read_morphology(path)
    tifffile.imwrite(tmp_path / "rgb.ome.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    with pytest.raises(DataError, match=r"rgb.ome.tif holds pictures of \(64, 64, 3\); expected planes of one channel"):
        read_morphology(tmp_path / "rgb.ome.tif")


# --- grey, mask, store ------------------------------------------------------------------------------------------------


def test_the_scaling_to_grey_is_recorded_and_can_be_undone():
    values = np.random.default_rng(3).uniform(100, 3000, (200, 200)).astype(np.float32)
    values[:50] = 0  # the instrument saw nothing there
    grey, record = to_grey(values)
    there = values[50:]
    assert record["low"] == pytest.approx(np.percentile(there, 1)) and record["high"] == pytest.approx(
        np.percentile(there, 99.8)
    )
    assert (grey[:50] == 0).all() and grey.dtype == np.uint8
    back = record["low"] + grey[50:].astype(float) / 255 * (record["high"] - record["low"])
    kept = (there > record["low"]) & (there < record["high"])
    assert np.abs(back - there)[kept].max() <= 0.51 * (record["high"] - record["low"]) / 255
    for blank in (np.zeros((9, 9), np.float32), np.full((9, 9), 7, np.float32)):
        with pytest.raises(DataError, match="blank where the stained image lies"):
            to_grey(blank)


def test_the_mask_covers_the_cells_and_no_more(store):
    ring = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 40)), np.sin(t)], axis=1)
    outline = np.array([[(40.0, 50.0)], [(90, 70)]]) + 12 * ring
    missing = np.full((1, 40, 2), np.nan)
    beyond = np.array([[(0.0, 0.0)]]) + 8 * ring  # a quarter lies in the image
    mask = cell_mask(np.concatenate([outline, missing, beyond]), store)
    assert set(np.unique(mask)) == {0, 255}
    area_um2 = (mask == 255).sum() * STORE_UM**2
    assert area_um2 == pytest.approx(np.pi * (2 * 12**2 + 8**2 / 4), rel=0.03)
    y, x = np.nonzero(mask[40:])  # below the quarter
    centre = np.array([x.mean() + 0.5, y.mean() + 40.5])
    np.testing.assert_allclose(centre, store.to_px(np.array([[65.0, 60.0]]))[0], atol=0.5)


def test_channels_are_written_read_and_put_behind_the_tiles(store, tmp_path):
    rng = np.random.default_rng(5)
    made = {name: rng.integers(0, 256, store.shape).astype(np.uint8) for name in ("dapi", "cells")}
    write_channels(made, {"dapi": {"low": 3.0, "high": 9.0}}, tmp_path / "c.npy", tmp_path / "c.json")
    extra = pickle.loads(pickle.dumps(ExtraChannels(tmp_path / "c.npy")))
    extra.check_size(store)
    assert extra.names == ("dapi", "cells")
    x0, y0 = np.array([3, 40]), np.array([9, 0])
    tiles = with_channels(store.crops(x0, y0, 32), extra, x0, y0)
    assert tiles.shape == (2, 32, 32, 5)
    assert (tiles[..., :3] == store.crops(x0, y0, 32)).all()
    assert (tiles[1, ..., 3] == made["dapi"][:32, 40:72]).all() and (
        tiles[0, ..., 4] == made["cells"][9:41, 3:35]
    ).all()

    small = {name: channel[:50] for name, channel in made.items()}
    write_channels(small, {}, tmp_path / "small.npy", tmp_path / "small.json")
    with pytest.raises(DataError, match=r"small.npy is \(50, .*expected one size"):
        ExtraChannels(tmp_path / "small.npy").check_size(store)
    record = (tmp_path / "small.json").read_text()
    (tmp_path / "small.json").write_text(record.replace('"height_px": 50', '"height_px": 150'))
    with pytest.raises(DataError, match=r"small.npy holds no channels .it holds uint8 .* and not uint8 "):
        ExtraChannels(tmp_path / "small.npy")
    (tmp_path / "c.npy").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"c.npy holds no channels"):
        ExtraChannels(tmp_path / "c.npy")


def test_labels_are_masked_by_the_pixels_centres(store):
    labels = np.zeros((240, 320), np.int32)
    labels[30:90, 60:160] = 5
    labels[239, 319] = 9
    mask = label_mask(labels, store)
    assert set(np.unique(mask)) == {0, 255} and mask.shape == store.shape
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    by, bx = 240 / mask.shape[0], 320 / mask.shape[1]
    assert ((mask > 0) == (labels[(y * by).astype(int), (x * bx).astype(int)] > 0)).all()
    area = (mask[:-1] == 255).sum() * by * bx
    assert area == pytest.approx(60 * 100, rel=0.03)
