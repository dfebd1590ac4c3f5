"""The variable genes are scanpy's, read in blocks or not."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy
import scipy.sparse

from stmorph import slide_file
from stmorph.gene_moments import highly_variable, most_dispersed, raw_moments
from stmorph.read import write_slide
from stmorph.slide_file import open_slide, slide_rows


def slide(units, genes, seed, density=1.0):
    """Genes of all levels, some not seen at all, some without variance, some alone at their level."""
    rng = np.random.default_rng(seed)
    mean = 10 ** rng.uniform(-2, 2, genes) * rng.gamma(5, 0.2, (units, 1))
    counts = rng.negative_binomial(2, 2 / (2 + mean)) * (rng.random((units, genes)) < density)
    counts[:, :3], counts[:, 3], counts[0, 4] = 0, 7, 5000
    return anndata.AnnData(
        scipy.sparse.csr_matrix(counts.astype(np.int32)),
        obs=pd.DataFrame(index=[f"b{i:03d}" for i in range(units)]),
        var=pd.DataFrame({"control": False}, index=[f"G{i:04d}" for i in range(genes)]),
        uns={"stmorph": {"slide": "A"}},
    )


def by_scanpy(data, most):
    data = data.copy()
    data.X = data.X.astype(np.float64)
    scanpy.pp.normalize_total(data)
    scanpy.pp.log1p(data)
    return scanpy.pp.highly_variable_genes(data, n_top_genes=most, inplace=False)


@pytest.mark.parametrize(
    ("units", "genes", "density", "most"),
    [(200, 800, 1.0, 100), (200, 800, 0.1, 100), (50, 30, 1.0, 12), (3, 60, 1.0, 20), (120, 400, 0.01, 50)],
)
@pytest.mark.parametrize("seed", range(3))
def test_variable_genes_are_scanpys(units, genes, density, most, seed):
    data = slide(units, genes, seed, density)
    data = data[:, np.asarray(data.X.sum(axis=0)).ravel() > 0].copy()
    rows, names = slide_rows(data), data.var_names
    found = highly_variable(rows, names, raw_moments(rows, names).library, most)
    expected = by_scanpy(data, most)
    np.testing.assert_array_equal(found, expected["highly_variable"].to_numpy())
    assert found.sum() >= most or np.isnan(expected["dispersions_norm"]).any()


def test_genes_in_any_order_and_a_choice_of_them(tmp_path):
    data = slide(80, 300, 5)
    names = data.var_names[np.random.default_rng(0).permutation(300)[:200]]
    library = raw_moments(slide_rows(data), names).library
    np.testing.assert_array_equal(library, np.asarray(data[:, names].X.sum(axis=1)).ravel())
    found = highly_variable(slide_rows(data), names, library, 40)
    part = data[:, sorted(names)].copy()
    part = part[:, np.asarray(part.X.sum(axis=0)).ravel() > 0].copy()
    expected = by_scanpy(part, 40)["highly_variable"].to_numpy()
    assert set(names[found]) == set(part.var_names[expected])


def test_blocks_change_not_a_bit(tmp_path, monkeypatch):
    data = slide(90, 120, 1)
    write_slide(data, tmp_path / "slide.h5ad")
    wanted = np.arange(0, 90, 2)
    whole, part = slide_rows(data[wanted].copy()), open_slide(tmp_path / "slide.h5ad").take(wanted)
    monkeypatch.setattr(slide_file, "BLOCK_ENTRIES", 500)
    assert len(list(part.blocks())) > 5
    found, expected = raw_moments(part, data.var_names), raw_moments(whole, data.var_names)
    for name in ("total", "squares", "library"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for most in (1, 20, 60, 500):
        np.testing.assert_array_equal(
            highly_variable(part, data.var_names, found.library, most),
            highly_variable(whole, data.var_names, found.library, most),
        )


def test_where_fewer_are_seen_all_of_them_are_taken():
    data = slide(40, 30, 0)
    rows = slide_rows(data)
    found = highly_variable(rows, data.var_names, raw_moments(rows, data.var_names).library, 28)
    np.testing.assert_array_equal(found, np.asarray(data.X.sum(axis=0)).ravel() > 0)


def test_sums_are_those_of_the_counts():
    data = slide(50, 20, 3)
    dense, moments = data.X.toarray().astype(float), raw_moments(slide_rows(data), data.var_names)
    np.testing.assert_array_equal(moments.total, dense.sum(axis=0))
    np.testing.assert_array_equal(moments.squares, (dense**2).sum(axis=0))


def test_a_gene_that_varies_more_than_its_like_comes_first():
    mean = np.repeat([1.0, 50.0], 20)
    variance = mean * np.tile(np.linspace(1, 2, 20), 2)
    variance[[7, 31]] = mean[[7, 31]] * 40
    assert set(np.flatnonzero(most_dispersed(mean, variance, 2))) == {7, 31}
    assert not most_dispersed(mean, np.zeros(40), 2).any()
