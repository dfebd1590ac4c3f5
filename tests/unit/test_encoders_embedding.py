"""Embedding tiles in views and chunks, and the file they are kept in."""

import time
import zipfile

import numpy as np
import pytest

from stmorph.encoders.base import Encoder
from stmorph.encoders.embedding import embed_tiles, read_embedding, write_embedding
from stmorph.encoders.load import load_encoder
from stmorph.errors import ConfigError, DataError
from stmorph.image.views import VIEWS, view


class Corner(Encoder):
    """The colour of the upper left pixel: every view of an uneven tile has another one."""

    name, dim, features, weights_sha256 = "corner", 3, ("red", "green", "blue"), "0" * 64

    def __init__(self):
        self.asked = 0

    def encode(self, tiles, um_per_px):
        self.asked += len(tiles)
        return tiles[:, 0, 0].astype(np.float32)


class Reader:
    def __init__(self, tiles):
        self.tiles = tiles

    def read(self, index):
        return self.tiles[index]


TILES = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
BARCODES = [f"spot-{i}é" for i in range(7)]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_views_are_the_views_of_the_tile_at_every_chunk_size(chunk):
    found = embed_tiles(Corner(), Reader(TILES), 7, VIEWS, um_per_px=1.0, chunk=chunk, progress=False)
    assert found.shape == (7, 8, 3) and found.dtype == np.float32
    for v, name in enumerate(VIEWS):
        np.testing.assert_array_equal(found[:, v], view(TILES, name)[:, 0, 0])


def test_an_invariant_encoder_is_asked_once_a_tile():
    class Mean(Corner):
        view_invariant = True

    encoder = Mean()
    found = embed_tiles(encoder, Reader(TILES), 7, VIEWS, um_per_px=1.0, progress=False)
    assert encoder.asked == 7
    assert (found == found[:, :1]).all()


def test_embedding_is_read_as_it_was_written(tmp_path):
    encoder = load_encoder("morphometric")
    embedding = embed_tiles(encoder, Reader(TILES), 7, VIEWS, um_per_px=1.0, progress=False)
    path = tmp_path / "deep" / "morphometric.zarr.zip"
    write_embedding(path, embedding, BARCODES, encoder, VIEWS)
    found = read_embedding(path)
    np.testing.assert_array_equal(found.embedding, embedding)
    assert found.embedding.dtype == np.float32
    assert found.barcode.tolist() == BARCODES
    assert (found.encoder, found.weights_sha256) == ("morphometric", encoder.weights_sha256)
    assert found.views == VIEWS and found.features == encoder.features
    assert [p.name for p in path.parent.iterdir()] == ["morphometric.zarr.zip"]


def test_the_same_input_gives_the_same_bytes_at_another_time(tmp_path, monkeypatch):
    embedding = embed_tiles(Corner(), Reader(TILES), 7, um_per_px=1.0, progress=False)
    paths = [tmp_path / f"{i}.zarr.zip" for i in (0, 1)]
    write_embedding(paths[0], embedding, BARCODES, Corner(), VIEWS[:1])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10_000)
    write_embedding(paths[1], embedding, BARCODES, Corner(), VIEWS[:1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with zipfile.ZipFile(paths[0]) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert len(archive.namelist()) == len(set(archive.namelist()))
    embedding[0, 0, 0] += 1
    write_embedding(paths[1], embedding, BARCODES, Corner(), VIEWS[:1])
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_any_zarr_reader_opens_the_file(tmp_path):
    import zarr

    embedding = embed_tiles(Corner(), Reader(TILES), 7, um_per_px=1.0, progress=False)
    write_embedding(tmp_path / "e.zarr.zip", embedding, BARCODES, Corner(), VIEWS[:1])
    group = zarr.open_group(zarr.storage.ZipStore(tmp_path / "e.zarr.zip", mode="r"), mode="r")
    assert group["embedding"].shape == (7, 1, 3)
    assert group.attrs["dim"] == 3 and group.attrs["encoder"] == "corner"


def test_a_slide_without_tiles_has_an_empty_embedding(tmp_path):
    embedding = embed_tiles(Corner(), Reader(TILES), 0, VIEWS, um_per_px=1.0, progress=False)
    write_embedding(tmp_path / "e.zarr.zip", embedding, [], Corner(), VIEWS)
    assert read_embedding(tmp_path / "e.zarr.zip").embedding.shape == (0, 8, 3)


def test_contradictions_are_refused_and_leave_nothing(tmp_path):
    path = tmp_path / "e.zarr.zip"
    with pytest.raises(DataError, match=r"shape \[7, 1, 3\] where \[6, 1, 3\]"):
        write_embedding(path, np.zeros((7, 1, 3)), BARCODES[:6], Corner(), VIEWS[:1])
    with pytest.raises(DataError, match="barcode twice"):
        write_embedding(path, np.zeros((2, 1, 3)), ["a", "a"], Corner(), VIEWS[:1])
    for views in (["rotate_90"], [], ["identity", "identity"], ["identity", "mirror"]):
        with pytest.raises(ConfigError, match="identity"):
            embed_tiles(Corner(), Reader(TILES), 7, views, um_per_px=1.0, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_not_finite_names_its_tile():
    class Broken(Corner):
        def encode(self, tiles, um_per_px):
            result = super().encode(tiles, um_per_px)
            result[tiles[:, 0, 0, 0] == TILES[4, 0, 0, 0]] = np.nan
            return result

    with pytest.raises(DataError, match="not finite for tile 4"):
        embed_tiles(Broken(), Reader(TILES), 7, um_per_px=1.0, progress=False)


def test_a_missing_damaged_or_foreign_file_is_one_sentence(tmp_path):
    path = tmp_path / "e.zarr.zip"
    with pytest.raises(DataError, match="does not exist"):
        read_embedding(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(DataError, match="cannot be read"):
        read_embedding(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(DataError, match="cannot be read"):
        read_embedding(path)
    write_embedding(path, np.zeros((7, 1, 3), np.float32), BARCODES, Corner(), VIEWS[:1])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read"):
        read_embedding(path)
