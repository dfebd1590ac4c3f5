"""slide.h5ad is written and read in parts, and the parts are the whole."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from stmorph import slide_file
from stmorph.errors import DataError
from stmorph.load_units import load_units, slide_files
from stmorph.panels import training_slides
from stmorph.pooling import PooledCounts, lay_windows
from stmorph.read import write_slide
from stmorph.slide_file import open_slide, slide_rows

GENES = [f"G{i}" for i in range(8)] + ["NegControlProbe_1"]


def slide(units=60, seed=0, dtype=np.int32):
    """Counts with empty rows at the beginning, in the middle and at the end."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.8, (units, len(GENES))).astype(dtype)
    counts[:, 0] += 1
    counts[[0, 1, 20, units - 1]] = 0
    return anndata.AnnData(
        scipy.sparse.csr_matrix(counts),
        obs=pd.DataFrame({"in_tissue": True}, index=[f"b{i:03d}" for i in range(units)]),
        var=pd.DataFrame({"control": [gene.startswith("Neg") for gene in GENES]}, index=GENES),
        obsm={"spatial_um": rng.uniform(0, 100, (units, 2))},
        uns={"stmorph": {"slide": "A", "dataset": "d", "patient": "P", "species": "human"}},
    )


@pytest.fixture
def path(tmp_path):
    write_slide(slide(), tmp_path / "slide.h5ad")
    return tmp_path / "slide.h5ad"


def gathered(rows):
    found = np.full((rows.n_obs, len(GENES)), -1)
    for index, counts in rows.blocks():
        assert (found[index] == -1).all() and counts.shape == (len(index), len(GENES))
        found[index] = counts.toarray()
    return found


@pytest.mark.parametrize("most", [1, 7, 50, 10**9])
@pytest.mark.parametrize("rows", [None, [3], [], [59, 0, 20, 21, 5, 5, 40], range(0, 60, 2)])
def test_blocks_are_the_whole(path, monkeypatch, most, rows):
    monkeypatch.setattr(slide_file, "BLOCK_ENTRIES", most)
    given, whole = open_slide(path), slide()
    kept = np.arange(60) if rows is None else np.array(rows, dtype=int)
    if rows is not None:
        given = given.take(list(rows))
    np.testing.assert_array_equal(gathered(given), whole.X.toarray()[kept])
    assert list(given.obs_names) == list(whole.obs_names[kept]) and given.nnz == whole.X[kept].nnz
    np.testing.assert_array_equal(given.spatial_um, whole.obsm["spatial_um"][kept])


def test_no_block_is_larger_than_it_may_be(path, monkeypatch):
    monkeypatch.setattr(slide_file, "BLOCK_ENTRIES", 40)
    sizes = [counts.nnz for _, counts in open_slide(path).blocks()]
    assert max(sizes) <= 40 and len(sizes) < 20


def test_units_of_units(path):
    some = open_slide(path).take(np.arange(10, 30)).take(np.array([4, 2]))
    assert list(some.obs_names) == ["b014", "b012"]
    np.testing.assert_array_equal(gathered(some), slide().X.toarray()[[14, 12]])


def test_a_slide_in_memory_reads_like_one_on_disk(path):
    held = slide_rows(slide())
    np.testing.assert_array_equal(gathered(held), gathered(open_slide(path)))
    assert held.nnz == open_slide(path).nnz and held.about == open_slide(path).about
    assert slide_rows(held) is held


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_any_anndata_reads_what_was_written(tmp_path, dtype):
    given = slide(dtype=dtype)
    given.uns["cells"] = {"counts": given.X.copy(), "start": np.arange(3)}
    write_slide(given, tmp_path / "slide.h5ad")
    back = anndata.read_h5ad(tmp_path / "slide.h5ad")
    assert back.X.dtype == dtype and back.X.format == "csr" and back.X.indptr.dtype == np.int32
    np.testing.assert_array_equal(back.X.toarray(), given.X.toarray())
    pd.testing.assert_frame_equal(back.obs, given.obs)
    pd.testing.assert_frame_equal(back.var, given.var)
    np.testing.assert_array_equal(back.obsm["spatial_um"], given.obsm["spatial_um"])
    assert (open_slide(tmp_path / "slide.h5ad").cells["counts"] != given.X).nnz == 0
    assert back.uns.keys() == given.uns.keys()


def test_sums_that_were_left_out_are_written_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr("stmorph.pooling.BLOCK", 11)
    monkeypatch.setattr("stmorph.read.write.CHUNK_ENTRIES", 64)
    side, rng = 20, np.random.default_rng(0)
    rows, cols = np.divmod(np.arange(side * side), side)
    bins = scipy.sparse.csr_matrix(rng.poisson(0.5, (side * side, len(GENES))).astype(np.int32))
    pooled = PooledCounts(bins, rows, cols, rows >= 0, lay_windows(rows, cols, rows >= 0, 5, 2, 25))
    whole = slide(units=len(pooled.windows))
    later = anndata.AnnData(obs=whole.obs, var=whole.var, obsm=dict(whole.obsm), uns={**whole.uns, "counts": pooled})
    whole.X = pooled.all()[0]
    for name, given in (("later", later), ("again", later), ("whole", whole)):
        write_slide(given, tmp_path / f"{name}.h5ad")
    found, expected = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("later", "whole"))
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found.X, part), getattr(expected.X, part))
    assert found.X.dtype == np.int32 and list(found.uns) == ["stmorph"] and "counts" in later.uns
    assert (tmp_path / "later.h5ad").read_bytes() == (tmp_path / "again.h5ad").read_bytes()


def test_what_breaks_while_it_is_written_leaves_nothing(tmp_path):
    class Broken:
        shape = (60, len(GENES))

        def blocks(self):
            yield slide().X[:30]
            raise RuntimeError("stopped")

    given = slide()
    given = anndata.AnnData(obs=given.obs, var=given.var, uns={**given.uns, "counts": Broken()})
    with pytest.raises(RuntimeError, match="stopped"):
        write_slide(given, tmp_path / "slide.h5ad")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_damaged_slides_are_told(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"slide\.h5ad is no slide .*delete it and make it again"):
        gathered(open_slide(path))


def written_split(folder, barcode):
    table = pd.DataFrame({"slide": "A", "barcode": barcode, "role": "train", "x_um": 0.0, "y_um": 0.0})
    table.to_parquet(folder / "split.parquet")
    (folder / "panel.txt").write_text("G3\nG0\n")
    return folder / "split.parquet"


@pytest.mark.parametrize("space", ["log1p_cp10k", "log2_counts"])
def test_units_are_the_same_whatever_the_blocks(path, monkeypatch, space):
    names = [f"b{i:03d}" for i in (40, 5, 6, 19)]
    split = written_split(path.parent, names)
    counts = slide()[sorted(names)].X.toarray()
    library = counts[:, :-1].sum(axis=1, keepdims=True)
    panel = counts[:, [3, 0]]
    expected = np.log1p(panel * 1e4 / library) if space == "log1p_cp10k" else np.log2(panel + 1)
    for most in (5, 10**9):
        monkeypatch.setattr(slide_file, "BLOCK_ENTRIES", most)
        units = load_units(slide_files([str(path)], [""]), split, path.parent / "panel.txt", ["train"], space)
        np.testing.assert_allclose(units.expression, expected, rtol=1e-6)
        assert list(units.barcode) == sorted(names) and units.expression.dtype == np.float32


def test_units_that_a_slide_lacks_are_named(path):
    split = written_split(path.parent, ["b003", "gone"])
    match = r"slide\.h5ad lacks 1 of 2 units that the split names, the first gone; .*delete it and run again"
    with pytest.raises(DataError, match=match):
        training_slides([path], split)
    with pytest.raises(DataError, match=match):
        load_units(slide_files([str(path)], [""]), split, path.parent / "panel.txt", ["train"], "log1p_counts")
