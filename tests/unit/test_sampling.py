"""Draws: their seeds, their conditions, their file."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_toys import Linear, Mean, Painter, toy_spec, toy_units

from stmorph.errors import DataError, StmorphError
from stmorph.samples.draw import conditions_of, draw_samples, draw_seeds, sample_to_file
from stmorph.samples.store import read_samples, write_samples
from stmorph.training.fit import new_method

HOW = {"accelerator": "cpu"}


def method_of(kind, units):
    return new_method(kind, kind.Options(), toy_spec(units), 0).eval()


@pytest.mark.parametrize("kind", [Linear, Painter])
def test_draws_do_not_depend_on_the_chunk_or_the_company(kind):
    units = toy_units()
    method = method_of(kind, units)
    whole = draw_samples(method, units, 3, seed=5, chunk=40, **HOW)
    # Sums in matrix products may differ in their last bits with the number of rows; a picture then by one grey level.
    close = {"atol": 1e-5} if kind is Linear else {"atol": 1}
    np.testing.assert_allclose(
        draw_samples(method, units, 3, seed=5, chunk=7, **HOW).astype(float), whole.astype(float), **close
    )
    some = np.array([31, 4, 17])
    alone = draw_samples(method, units.take(some), 3, seed=5, **HOW)
    np.testing.assert_allclose(alone.astype(float), whole[some].astype(float), **close)
    assert not np.array_equal(draw_samples(method, units, 3, seed=6, **HOW), whole)


def test_seeds_belong_to_unit_and_draw():
    units = toy_units()
    seeds = draw_seeds(units, 4, seed=5)
    assert seeds.dtype == np.int64 and seeds.shape == (40, 4)
    assert (seeds >= 0).all() and len(np.unique(seeds)) == seeds.size
    some = np.array([31, 4, 17])
    assert (draw_seeds(units.take(some), 2, seed=5) == seeds[some, :2]).all()


@given(n=st.integers(2, 60), seed=st.integers(0, 5))
def test_no_unit_keeps_its_own_condition_when_shuffled(n, seed):
    units = toy_units(n=n)
    source = conditions_of(units, "shuffled", seed)
    assert sorted(source) == list(range(n))
    assert (source != np.arange(n)).all()


def test_a_shuffled_condition_is_another_units_and_the_seed_ones_own():
    units = toy_units()
    method = method_of(Linear, units)
    source = conditions_of(units, "shuffled", 5)
    shuffled = draw_samples(method, units, 2, seed=5, condition="shuffled", **HOW)
    paired = draw_samples(method, units, 2, seed=5, **HOW)
    with torch.no_grad():
        centre = method(torch.as_tensor(units.embedding[:, 0])).numpy()[:, None]
    np.testing.assert_allclose(shuffled - centre[source], paired - centre, atol=1e-4)


def test_a_single_unit_cannot_be_shuffled():
    with pytest.raises(DataError, match="at least two"):
        conditions_of(toy_units().take(np.array([0])), "shuffled", 0)


def test_a_predictor_that_looks_at_the_truth_is_found_out():
    class Peeps(Linear):
        def draw(self, batch, seeds):
            return batch.expression[:, None].repeat(1, seeds.shape[1], 1)

    units = toy_units()
    with pytest.raises(StmorphError, match="not finite"):
        draw_samples(method_of(Peeps, units), units, 1, seed=0, **HOW)


def test_drawing_leaves_the_callers_generator_alone():
    units = toy_units()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    draw_samples(method_of(Painter, units), units, 1, seed=0, **HOW)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), expected)


def test_wrong_shapes_types_and_genes_are_said():
    class Wrong(Mean):
        def draw(self, batch, seeds):
            return super().draw(batch, seeds).double()

    units = toy_units()
    with pytest.raises(StmorphError, match=r"gave float64.*expected float32 \[40, 1, 3\]"):
        draw_samples(method_of(Wrong, units), units, 1, seed=0, **HOW)
    other = type(units)(**{**vars(units), "genes": ("G0", "G2", "G1")})
    with pytest.raises(DataError, match="panel of the training"):
        draw_samples(method_of(Mean, units), other, 1, seed=0, **HOW)
    with pytest.raises(DataError, match="no test units"):
        draw_samples(method_of(Mean, units), units.take(np.arange(0)), 1, seed=0, **HOW)


@pytest.mark.parametrize("kind", [Linear, Painter])
@pytest.mark.parametrize("condition", ["paired", "shuffled"])
def test_the_file_gives_back_what_was_drawn(tmp_path, kind, condition):
    units = toy_units()
    method = method_of(kind, units)
    path = tmp_path / "samples.zarr.zip"
    sample_to_file(path, method, units, 3, 5, "toy", condition, more={"model": "abc"}, chunk=9, **HOW)
    samples = read_samples(path)
    expected = draw_samples(method, units, 3, 5, chunk=9, condition=condition, **HOW)
    assert samples.draws.dtype == expected.dtype
    assert np.array_equal(samples.draws, expected)
    assert np.array_equal(read_samples(path, lazy=True).draws[3:5], expected[3:5])
    assert np.array_equal(samples.seed, draw_seeds(units, 3, 5))
    assert samples.barcode.tolist() == units.barcode.tolist() and samples.slide.tolist() == units.slide.tolist()
    assert samples.condition_of.tolist() == units.names()[conditions_of(units, condition, 5)].tolist()
    assert samples.attributes == {
        "family": kind.family,
        "method": "toy",
        "target_space": "log1p_cp10k",
        "genes": ["G0", "G1", "G2"],
        "condition": condition,
        "draws": 3,
        "model": "abc",
    }


def test_the_same_draws_give_the_same_bytes(tmp_path, monkeypatch):
    import time

    units = toy_units()
    sample_to_file(tmp_path / "one.zarr.zip", method_of(Linear, units), units, 2, 5, "toy", **HOW)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    sample_to_file(tmp_path / "two.zarr.zip", method_of(Linear, units), units, 2, 5, "toy", **HOW)
    assert (tmp_path / "one.zarr.zip").read_bytes() == (tmp_path / "two.zarr.zip").read_bytes()


def test_a_failure_while_drawing_leaves_no_file(tmp_path):
    units = toy_units()
    names = {"seed": draw_seeds(units, 1, 0), "slide": units.slide, "barcode": units.barcode}
    names["condition_of"] = units.names()

    def too_few():
        yield np.zeros((30, 1, 3), np.float32)

    with pytest.raises(DataError, match="30 units where 40"):
        write_samples(tmp_path / "samples.zarr.zip", too_few(), names, {})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_absent_file_is_said(tmp_path):
    with pytest.raises(DataError, match="does not exist; expected a run's samples: sample the run"):
        read_samples(tmp_path / "none.zarr.zip")
    (tmp_path / "bad.zarr.zip").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(tmp_path / "bad.zarr.zip")


def test_real_tiles_are_handed_only_to_the_floor_that_deals_them_out():
    class Deals(Painter):
        wants_real = True

        def bind(self, bank, seeds):
            self.bank, self.run_seeds = bank, seeds

        def draw(self, batch, seeds):
            return torch.from_numpy(self.bank[(seeds % len(self.bank)).numpy()])

    units, real = toy_units(), toy_units(n=6, seed=4)
    method = method_of(Deals, units)
    drawn = draw_samples(method, units, 2, seed=5, chunk=7, real=real, **HOW)
    seeds = draw_seeds(units, 2, 5)
    assert np.array_equal(drawn, real.tiles.tiles[seeds % 6])
    assert np.array_equal(method.run_seeds, seeds)
    with pytest.raises(DataError, match="deals out real tiles"):
        draw_samples(method_of(Deals, units), units, 2, seed=5, **HOW)
    without = draw_samples(method_of(Painter, units), units, 1, seed=5, **HOW)
    assert np.array_equal(draw_samples(method_of(Painter, units), units, 1, seed=5, real=real, **HOW), without)
