"""Which units, views and parts a step sees."""

import numpy as np
import pytest
import torch
from training_toys import ArrayTiles, toy_units

from stmorph.batches import Batcher, ahead, rows_of_step
from stmorph.errors import DataError
from stmorph.image.views import VIEWS, view


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (7, 7), (5, 12)])
def test_every_epoch_shows_each_unit_once(n, batch_size):
    shown = np.concatenate([rows_of_step(3, step, n, batch_size)[0] for step in range(n * 3)])
    epochs = shown[: len(shown) // n * n].reshape(-1, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_step_depends_on_seed_and_step_alone():
    late = rows_of_step(3, 17, 10, 4, views=8)
    for step in range(17):
        rows_of_step(3, step, 10, 4, views=8)
    for one, other in zip(late, rows_of_step(3, 17, 10, 4, views=8)):
        assert (one == other).all()
    assert not (rows_of_step(4, 17, 10, 4, views=8)[0] == late[0]).all()


def test_views_are_drawn_evenly_and_only_where_asked():
    drawn = np.concatenate([rows_of_step(0, step, 50, 40, views=8)[1] for step in range(100)])
    assert np.bincount(drawn, minlength=8).min() > 400  # 500 expected, standard deviation 21
    assert (rows_of_step(0, 5, 50, 40, views=1)[1] == 0).all()


def test_image_and_embedding_are_of_the_same_view():
    units = toy_units(n=8, views=8)
    embedding = np.arange(8)[None, :, None] + 100 * np.arange(8)[:, None, None]
    units = type(units)(**{**vars(units), "embedding": embedding.astype(np.float32)})
    views = np.array([0, 3, 7, 5])
    index = np.array([6, 1, 1, 2])
    batch = Batcher(units, frozenset({"tiles", "embedding"})).batch(index, views)
    assert batch.embedding[:, 0].tolist() == [600, 103, 107, 205]
    for row, (i, v) in enumerate(zip(index, views)):
        tile = view(units.tiles.read(np.array([i]))[0], VIEWS[v])
        torch.testing.assert_close(batch.image[row], torch.from_numpy(tile.copy()).permute(2, 0, 1) / 127.5 - 1)
    assert torch.equal(batch.expression, torch.from_numpy(units.expression[index]))


def test_the_picture_spans_minus_one_to_one():
    units = toy_units(n=2)
    tiles = np.zeros((2, 4, 4, 3), np.uint8)
    tiles[1] = 255
    units = type(units)(**{**vars(units), "tiles": ArrayTiles(tiles)})
    image = Batcher(units, frozenset({"tiles"})).batch(np.arange(2)).image
    assert image.dtype == torch.float32 and image.shape == (2, 3, 4, 4)
    assert (image[0] == -1).all() and (image[1] == 1).all()


def test_what_is_not_needed_is_not_there():
    batch = Batcher(toy_units(), frozenset()).batch(np.arange(3))
    assert batch.image is None and batch.embedding is None and batch.cells is None and batch.cell_mask is None


def test_cells_are_padded_and_their_sum_is_kept():
    units = toy_units(cells=True)
    batch = Batcher(units, frozenset({"cells"})).batch(np.arange(6))
    assert batch.cells.shape == (6, 3, 3)
    assert batch.cell_mask.sum(1).tolist() == [0, 1, 2, 3, 0, 1]
    for row in range(6):
        np.testing.assert_allclose(batch.cells[row].sum(0), units.cells[row].sum(0), rtol=1e-5, atol=1e-6)
        assert (batch.cells[row][~batch.cell_mask[row]] == 0).all()


def test_too_many_cells_give_a_choice_that_depends_on_the_unit_alone():
    units = toy_units(cells=True)
    one = Batcher(units, frozenset({"cells"}), max_cells=2).batch(np.array([3, 7]))
    other = Batcher(units.take(np.array([9, 7, 3])), frozenset({"cells"}), max_cells=2).batch(np.array([2]))
    assert one.cell_mask.all()
    assert torch.equal(one.cells[0], other.cells[0])
    present = {tuple(cell) for cell in units.cells[3]}
    assert all(tuple(cell) in present for cell in one.cells[0].numpy())


def test_a_missing_part_is_said():
    with pytest.raises(DataError, match="needs cells"):
        Batcher(toy_units(), frozenset({"cells"}))


def test_hidden_expression_is_not_a_number():
    batch = Batcher(toy_units(), frozenset(), show_expression=False).batch(np.arange(3))
    assert batch.expression.isnan().all()


@pytest.mark.parametrize("depth", [0, 1, 3, 50])
def test_batches_made_ahead_come_in_order(depth):
    assert list(ahead(lambda step: step * step, range(4, 20), depth)) == [step * step for step in range(4, 20)]


def test_a_failure_in_the_other_thread_is_raised_here():
    def make(step):
        if step == 5:
            raise DataError("tile 5 is broken")
        return step

    batches = ahead(make, range(10), 2)
    assert [next(batches) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="tile 5"):
        next(batches)
