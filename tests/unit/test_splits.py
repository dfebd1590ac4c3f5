"""Roles of units: every kind of split, and what holds for all of them."""

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmorph.config.schema import SplitConfig
from stmorph.errors import DataError
from stmorph.splits import kept_units, split_units

SLIDES = {"s1": "p1", "s2": "p1", "s3": "p2", "s4": "p3"}
KINDS = {
    "slides": {"test": ["s2"]},
    "some slides": {"kind": "slides", "test": ["s2"], "train": ["s1"]},
    "patients": {"test": ["p1"]},
    "blocks": {"test_fraction": 0.3, "block_um": 300.0, "buffer_um": 90.0},
    "fraction": {"test_fraction": 0.25, "replication": True},
    "folds of slides": {"kind": "folds", "of": "slides", "k": 4},
    "folds of patients": {"kind": "folds", "of": "patients", "k": 2},
    "folds of blocks": {"kind": "folds", "of": "blocks", "k": 3, "block_um": 250.0, "buffer_um": 60.0},
    "folds of units": {"kind": "folds", "of": "units", "k": 5, "replication": True},
}


def config(name, **other):
    return SplitConfig(**{"dataset": "d", "kind": name, **KINDS[name], **other}).model_dump()


def tissue(per_slide=60, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "dataset": "d",
            "slide": np.repeat(list(SLIDES), per_slide),
            "patient": np.repeat(list(SLIDES.values()), per_slide),
            "barcode": [f"b{i:03d}" for i in range(per_slide)] * len(SLIDES),
            "x_um": rng.uniform(0, 1000, per_slide * len(SLIDES)),
            "y_um": rng.uniform(0, 1000, per_slide * len(SLIDES)),
        }
    )


def roles(split):
    return split.groupby("slide")["role"].agg(lambda role: set(role)).to_dict()


def folds_of(split):
    return range(split["k"]) if split["kind"] == "folds" else [None]


def test_slides():
    assert roles(split_units(tissue(), config("slides"), "x")) == {
        "s1": {"train"},
        "s2": {"test"},
        "s3": {"train"},
        "s4": {"train"},
    }


def test_named_training_slides_leave_the_others_unused():
    found = roles(split_units(tissue(), config("some slides"), "x"))
    assert found == {"s1": {"train"}, "s2": {"test"}, "s3": {"unused"}, "s4": {"unused"}}


def test_patients_take_all_their_slides():
    found = roles(split_units(tissue(), config("patients"), "x"))
    assert found == {"s1": {"test"}, "s2": {"test"}, "s3": {"train"}, "s4": {"train"}}


def test_blocks_are_tested_whole_and_their_surroundings_set_aside():
    split = split_units(tissue(300), config("blocks"), "x")
    block = split["slide"] + (split["x_um"] // 300).astype(str) + (split["y_um"] // 300).astype(str)
    tested = split.groupby(block)["role"].agg(lambda role: (role == "test").mean())
    assert set(tested) == {0.0, 1.0}
    assert tested.mean() == pytest.approx(0.3, abs=0.02)
    for _, slide in split.groupby("slide"):
        xy, role = slide[["x_um", "y_um"]].to_numpy(), slide["role"].to_numpy()
        near = np.array(
            [np.hypot(*(xy[role == "test"] - one).T).min() if (role == "test").any() else 9e9 for one in xy]
        )
        assert ((near < 90) == np.isin(role, ["test", "buffer"])).all()
    assert (split["role"] == "buffer").sum() > 10


def test_no_buffer():
    assert set(split_units(tissue(), config("blocks", buffer_um=0), "x")["role"]) == {"train", "test"}


def test_fraction():
    assert (split_units(tissue(), config("fraction"), "x")["role"] == "test").mean() == 0.25


def test_another_seed_tests_others():
    first, second = (split_units(tissue(), config("fraction", seed=seed), "x")["role"] for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("folds")])
def test_folds_test_every_unit_once(name):
    split, units = config(name), tissue()
    tested = [split_units(units, split, "x", fold)["role"] == "test" for fold in folds_of(split)]
    assert (np.sum(tested, axis=0) == 1).all()
    assert all(fold.any() for fold in tested)


def test_folds_of_patients_keep_a_patient_together():
    split = split_units(tissue(), config("folds of patients"), "x", 0)
    assert split.groupby("patient")["role"].nunique().eq(1).all()


def test_more_folds_than_slides():
    with pytest.raises(DataError, match=r"5 folds of slides .* only 4"):
        split_units(tissue(), config("folds of slides", k=5), "x", 0)


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("slides", {"test": ["absent"]}, r"'mine' leaves no test units \(240 train\)"),
        ("slides", {"test": list(SLIDES)}, r"'mine' leaves no train units \(240 test\)"),
        ("blocks", {"buffer_um": 5000.0, "test_fraction": 0.9}, "leaves no train units"),
        ("blocks", {"block_um": 1e6, "test_fraction": 0.1, "buffer_um": 9e5}, None),
    ],
)
def test_an_empty_side_is_an_error(name, other, said):
    if said is None:  # one block a slide: the other slides still train
        assert set(split_units(tissue(), config(name, **other), "mine")["role"]) == {"train", "test"}
        return
    with pytest.raises(DataError, match=said):
        split_units(tissue(), config(name, **other), "mine")


def test_no_units_at_all():
    with pytest.raises(DataError, match="no units at all"):
        split_units(tissue().iloc[:0], config("slides"), "x")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 50),
    st.randoms(use_true_random=False),
    st.integers(20, 60),
)
def test_every_unit_has_one_role_whatever_the_order(name, tissue_seed, split_seed, random, size):
    units, split = tissue(size, tissue_seed), config(name, seed=split_seed)
    order = list(range(len(units)))
    random.shuffle(order)
    for fold in folds_of(split):
        found = split_units(units, split, "x", fold)
        assert len(found) == len(units) and set(found["role"]) <= {"train", "test", "buffer", "unused"}
        assert not found.duplicated(["slide", "barcode"]).any()
        assert found.equals(found.sort_values(["slide", "barcode"], ignore_index=True))
        both = found.merge(units, on=["slide", "barcode"], suffixes=("", "_given"))
        assert len(both) == len(units)
        assert (both[["x_um", "y_um"]].to_numpy() == both[["x_um_given", "y_um_given"]].to_numpy()).all()
        pd.testing.assert_frame_equal(found, split_units(units.iloc[order], split, "x", fold))


def test_kept_units_are_kept_in_every_tiling(tmp_path):
    slide = anndata.AnnData(np.zeros((4, 1), np.float32), obs=pd.DataFrame(index=["a", "b", "c", "d"]))
    slide.obsm["spatial_um"] = np.arange(8.0).reshape(4, 2)
    slide.uns["stmorph"] = {"dataset": "d", "slide": "s1", "patient": "p1"}
    slide.write_h5ad(tmp_path / "s1.h5ad")
    for tiling, kept in (("wide", [True, False, True]), ("narrow", [True, True, False])):
        # Rows in another order than the slide's, and none of barcode d.
        table = pd.DataFrame({"slide": "s1", "barcode": ["a", "b", "c"], "kept": kept})
        table.iloc[::-1].to_parquet(tmp_path / f"{tiling}.parquet")
    tiles = [tmp_path / "wide.parquet", tmp_path / "narrow.parquet"]
    units = kept_units([tmp_path / "s1.h5ad"], tiles)
    assert units.to_dict("records") == [
        {"dataset": "d", "slide": "s1", "patient": "p1", "barcode": "a", "x_um": 0.0, "y_um": 1.0}
    ]
    assert kept_units([tmp_path / "s1.h5ad"], tiles[:1])["barcode"].tolist() == ["a", "c"]
