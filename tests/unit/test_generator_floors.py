from dataclasses import replace

import numpy as np
import pytest
import torch

from stmorph.errors import ConfigError, DataError
from stmorph.methods.base import Batch, DataSpec
from stmorph.methods.nearest_neighbour_image import NearestNeighbourImage
from stmorph.methods.real_against_real import RealAgainstReal
from stmorph.methods.shuffled_pixels import ShuffledPixels
from stmorph.methods.training_mean_image import TrainingMeanImage
from stmorph.units import Units

N, GENES, PX = 300, 6, 4


class Tiles:
    def __init__(self, pictures):
        self.pictures = pictures

    def read(self, index):
        return self.pictures[index]


@pytest.fixture
def units() -> Units:
    rng = np.random.default_rng(0)
    names = np.array([f"{i:04d}" for i in range(N)])
    expression = rng.random((N, GENES)).astype(np.float32) * np.array([100, 1, 1, 1, 1, 0], np.float32)
    tiles = Tiles(rng.integers(0, 256, (N, PX, PX, 3), dtype=np.uint8))
    return Units(names, names, np.zeros((N, 2)), tuple("ABCDEF"), expression, tiles=tiles)


def build(method, **options):
    return method(method.Options(**options), DataSpec(tuple("ABCDEF"), "log1p_counts", tile_px=PX))


def test_mean_image_is_the_rounded_pixel_mean(units):
    method = build(TrainingMeanImage)
    method.fit(units)
    pictures = method.draw(Batch(torch.rand(2, GENES)), torch.zeros(2, 3, dtype=torch.int64))
    expected = np.rint(units.tiles.pictures.astype(float).mean(0)).astype(np.uint8)
    assert pictures.shape == (2, 3, PX, PX, 3)
    assert (pictures.numpy() == expected).all()


@pytest.mark.parametrize("distance", ["euclidean", "correlation"])
def test_a_training_units_nearest_tile_is_its_own(units, distance):
    method = build(NearestNeighbourImage, distance=distance)
    method.fit(units)
    pictures = method.draw(Batch(torch.from_numpy(units.expression[:20])), torch.zeros(20, 1, dtype=torch.int64))
    assert (pictures[:, 0].numpy() == units.tiles.pictures[:20]).all()


def test_draws_are_ranked_by_the_distance_of_standardised_genes(units):
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    method = build(NearestNeighbourImage)
    method.fit(units)
    query = np.random.default_rng(1).random((5, GENES)).astype(np.float32)
    scaler = StandardScaler().fit(units.expression)
    order = (
        NearestNeighbors(n_neighbors=4).fit(scaler.transform(units.expression)).kneighbors(scaler.transform(query))[1]
    )
    pictures = method.draw(Batch(torch.from_numpy(query)), torch.zeros(5, 4, dtype=torch.int64))
    assert (pictures.numpy() == units.tiles.pictures[order]).all()
    nearest = build(NearestNeighbourImage, draws="nearest")
    nearest.fit(units)
    pictures = nearest.draw(Batch(torch.from_numpy(query)), torch.zeros(5, 4, dtype=torch.int64))
    assert (pictures.numpy() == units.tiles.pictures[order[:, :1]]).all()


@pytest.mark.parametrize("cls", [TrainingMeanImage, NearestNeighbourImage])
def test_fitted_floor_comes_back_from_its_state_dict(units, cls):
    one, other = build(cls), build(cls)
    one.fit(units)
    other.load_state_dict(one.state_dict())
    batch, seeds = Batch(torch.rand(3, GENES)), torch.zeros(3, 2, dtype=torch.int64)
    assert torch.equal(one.draw(batch, seeds), other.draw(batch, seeds))


def test_more_draws_than_training_tiles_are_refused(units):
    method = build(NearestNeighbourImage)
    method.fit(units.take(np.arange(3)))
    with pytest.raises(ConfigError, match="4 draws"):
        method.draw(Batch(torch.rand(1, GENES)), torch.zeros(1, 4, dtype=torch.int64))


def test_real_tiles_are_dealt_without_replacement_and_in_any_chunks(units):
    method, bank = build(RealAgainstReal), units.tiles.pictures[:40]
    seeds = torch.randint(0, 2**62, (40, 2), generator=torch.Generator().manual_seed(0))
    method.bind(bank, seeds)
    batch = Batch(torch.zeros(40, GENES))
    pictures = method.draw(batch, seeds)
    for draw in range(2):
        dealt = sorted(picture.tobytes() for picture in pictures[:, draw].numpy())
        assert dealt == sorted(picture.tobytes() for picture in bank)
    assert not torch.equal(pictures[:, 0], pictures[:, 1])
    assert torch.equal(method.draw(batch.take(torch.arange(7, 9)), seeds[7:9]), pictures[7:9])


def test_a_small_bank_is_used_evenly(units):
    method, seeds = build(RealAgainstReal), torch.arange(30)[:, None] * 17
    method.bind(units.tiles.pictures[:10], seeds)
    pictures = method.draw(Batch(torch.zeros(30, GENES)), seeds)[:, 0].numpy()
    assert sorted(np.unique(pictures.reshape(30, -1), axis=0, return_counts=True)[1]) == [3] * 10


def test_real_tiles_stay_out_of_the_model_and_must_be_bound(units):
    method = build(RealAgainstReal)
    with pytest.raises(ConfigError, match="bind"):
        method.draw(Batch(torch.zeros(1, GENES)), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(DataError, match="uint8"):
        method.bind(units.tiles.pictures.astype(np.float32))
    method.bind(units.tiles.pictures)
    assert not method.state_dict()
    assert (
        method.draw(Batch(torch.zeros(1, GENES)), torch.tensor([[N + 3]]))[0, 0].numpy().tolist()
        == units.tiles.pictures[3].tolist()
    )


def test_shuffled_pixels_keep_the_colours_and_nothing_else(units):
    pictures = np.zeros((N, PX, PX, 3), np.uint8)
    pictures[:, : PX // 4] = (200, 100, 50)  # a quarter of each tile, always at the top
    method = build(ShuffledPixels)
    method.fit(replace(units, tiles=Tiles(pictures)))
    seeds = torch.arange(600).reshape(200, 3)
    drawn = method.draw(Batch(torch.rand(200, GENES)), seeds).numpy()
    coloured = (drawn == (200, 100, 50)).all(-1)
    assert drawn.shape == (200, 3, PX, PX, 3) and drawn.dtype == np.uint8
    assert (coloured | (drawn == 0).all(-1)).all()
    assert coloured.mean() == pytest.approx(0.25, abs=0.03)
    assert coloured.mean((0, 1)) == pytest.approx(np.full((PX, PX), 0.25), abs=0.08)  # nowhere more than elsewhere
    assert (method.draw(Batch(torch.rand(1, GENES)), seeds[7:8]).numpy()[0] == drawn[7]).all()
