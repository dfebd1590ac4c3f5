import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from stmorph.errors import DataError
from stmorph.pooling import PooledCounts, lay_windows


def section(shape=(41, 33), genes=12, seed=0, density=0.2, tissue=0.97):
    """Bins in no order, some off tissue, some without counts."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(shape[0] * shape[1])
    rows, cols = np.divmod(order, shape[1])
    counts = rng.poisson(3, (len(order), genes)) * (rng.random((len(order), genes)) < density)
    in_tissue = rng.random(len(order)) < tissue
    return scipy.sparse.csr_matrix(counts.astype(np.int32)), rows, cols, in_tissue


def pool_bins(counts, rows, cols, in_tissue, k, stride, genes=None):
    """Windows of k x k bins where every bin is in tissue: their counts, and the sums of all genes."""
    windows = lay_windows(rows, cols, in_tissue, k, stride, least=k * k)
    return PooledCounts(counts, rows, cols, in_tissue, windows, genes).all()


def by_hand(counts, rows, cols, in_tissue, k, stride, least):
    """Each window's sum of all genes, one window after another."""
    dense, shape = counts.toarray(), (rows.max() + 1, cols.max() + 1)
    at = np.full(shape, -1)
    at[rows, cols] = np.arange(len(rows))
    found = []
    for top in range(0, shape[0] - k + 1, stride):
        for left in range(0, shape[1] - k + 1, stride):
            bins = at[top : top + k, left : left + k]
            bins = bins[bins >= 0]
            bins = bins[in_tissue[bins]]
            if len(bins) >= least:
                found.append((top, left, len(bins), dense[bins].sum(axis=0)))
    return found


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 9),
    stride=st.integers(1, 11),
    height=st.integers(9, 30),
    width=st.integers(9, 30),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 5),
)
def test_every_window_is_the_sum_of_its_bins(k, stride, height, width, share, seed):
    given_ = section((height, width), genes=5, seed=seed)
    least = max(1, int(np.ceil(share * k * k)))
    windows = lay_windows(*given_[1:], k, stride, least)
    matrix, library = PooledCounts(*given_, windows).all()
    expected = by_hand(*given_, k, stride, least)
    assert [(a, b, c) for a, b, c, _ in expected] == list(zip(windows.top, windows.left, windows.in_tissue))
    sums = np.array([s for *_, s in expected]).reshape(-1, 5)
    np.testing.assert_array_equal(matrix.toarray(), sums)
    np.testing.assert_array_equal(library, sums.sum(axis=1))
    laid = len(range(0, height - k + 1, stride)) * len(range(0, width - k + 1, stride))
    assert len(windows) + sum(windows.lost.values()) == laid


def test_the_matrix_is_one_that_scipy_takes_for_sound():
    matrix, _ = pool_bins(*section(), 7, 2)
    matrix.check_format(full_check=True)
    assert matrix.dtype == np.int32 and matrix.has_sorted_indices and (matrix.data > 0).all()
    again = scipy.sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    assert again.has_canonical_format and (again != matrix).nnz == 0


def test_totals_are_conserved_where_windows_tile_the_section():
    counts, rows, cols, _ = section((40, 32))
    matrix, library = pool_bins(counts, rows, cols, np.ones(len(rows), dtype=bool), 8, 8)
    np.testing.assert_array_equal(np.asarray(matrix.sum(axis=0)), np.asarray(counts.sum(axis=0)))
    assert library.sum() == counts.sum() and len(library) == 20


def test_a_panel_has_its_own_order_and_the_library_of_all_genes():
    given_ = section()
    everything, total = pool_bins(*given_, 5, 2)
    panel, library = pool_bins(*given_, 5, 2, genes=[7, 0, 3])
    np.testing.assert_array_equal(panel.toarray(), everything.toarray()[:, [7, 0, 3]])
    np.testing.assert_array_equal(library, total)
    np.testing.assert_array_equal(total, np.asarray(everything.sum(axis=1)).ravel())
    reversed_, _ = pool_bins(*given_, 5, 2, genes=np.arange(12)[::-1])
    np.testing.assert_array_equal(reversed_.toarray(), everything.toarray()[:, ::-1])
    with pytest.raises(ValueError, match="twice"):
        pool_bins(*given_, 5, 2, genes=[1, 1])


def test_a_library_without_controls_and_without_any_gene_asked_for():
    counts, rows, cols, in_tissue = section()
    windows = lay_windows(rows, cols, in_tissue, 5, 2, 1)
    counted = np.arange(12) % 3 != 0
    matrix, library = PooledCounts(counts, rows, cols, in_tissue, windows, counted=counted).all()
    np.testing.assert_array_equal(library, matrix.toarray()[:, counted].sum(axis=1))
    none, same = PooledCounts(counts, rows, cols, in_tissue, windows, genes=[], counted=counted).all()
    assert none.shape == (len(windows), 0)
    np.testing.assert_array_equal(same, library)


def test_windows_asked_for_in_any_order_are_the_same():
    given_ = section()
    pooled = PooledCounts(*given_, lay_windows(*given_[1:], 9, 2, 1))
    whole, library = pooled.all()
    index = np.random.default_rng(1).integers(0, len(library), 700)
    index[5:9] = [3, 3, 4, 3]
    some, sizes = pooled.take(index)
    np.testing.assert_array_equal(some.toarray(), whole.toarray()[index])
    np.testing.assert_array_equal(sizes, library[index])
    assert pooled.take(np.array([], dtype=int))[0].shape == (0, 12)


def test_the_order_of_the_bins_and_bins_off_tissue_change_nothing():
    counts, rows, cols, in_tissue = section()
    reference = pool_bins(counts, rows, cols, in_tissue, 6, 1)
    order = np.random.default_rng(9).permutation(len(rows))
    again = pool_bins(counts[order], rows[order], cols[order], in_tissue[order], 6, 1)
    assert (again[0] != reference[0]).nnz == 0 and (again[1] == reference[1]).all()
    other = counts.toarray()
    other[~in_tissue] = 1000
    windows = lay_windows(rows, cols, in_tissue, 6, 1, 1)
    spoilt = PooledCounts(scipy.sparse.csr_matrix(other), rows, cols, in_tissue, windows).all()[0]
    assert (spoilt != PooledCounts(counts, rows, cols, in_tissue, windows).all()[0]).nnz == 0


def test_windows_do_not_move_with_the_tissue():
    _, rows, cols, in_tissue = section(tissue=1.0)
    some = in_tissue & (rows > 12) & (cols > 8)
    whole, part = (lay_windows(rows, cols, t, 5, 3, 25) for t in (in_tissue, some))
    assert set(zip(part.top, part.left)) < set(zip(whole.top, whole.left))
    assert (part.top % 3 == 0).all() and part.top.min() == 15 and part.left.min() == 9


def test_which_bins_the_windows_cover():
    _, rows, cols, in_tissue = section(tissue=0.9)
    windows = lay_windows(rows, cols, in_tissue, 4, 3, 16)
    by_window = np.zeros((rows.max() + 1, cols.max() + 1), dtype=bool)
    for top, left in zip(windows.top, windows.left):
        by_window[top : top + 4, left : left + 4] = True
    np.testing.assert_array_equal(windows.cover(rows, cols), by_window[rows, cols])
    kept = windows.keep(windows.top > 5, "too high")
    assert len(kept) + kept.lost["too high"] == len(windows) and (kept.top > 5).all()


def test_a_section_smaller_than_a_window_has_none():
    matrix, library = pool_bins(*section((6, 40)), 7, 1)
    assert matrix.shape == (0, 12) and library.shape == (0,)
    nothing = np.zeros(0, dtype=np.int64)
    matrix, _ = pool_bins(scipy.sparse.csr_matrix((0, 4), dtype=np.int32), nothing, nothing, nothing > 0, 2, 1)
    assert matrix.shape == (0, 4)


def test_blocks_one_after_the_other_are_the_whole(monkeypatch):
    given_ = section((60, 60), genes=40)
    windows = lay_windows(*given_[1:], 9, 1, 1)
    pooled = PooledCounts(*given_, windows)
    whole = pooled.all()[0]
    for block in (7, 300, 10_000):
        monkeypatch.setattr("stmorph.pooling.BLOCK", block)
        blocks = list(pooled.blocks())
        assert {part.shape[0] for part in blocks[:-1]} <= {block} and len(blocks) == -(-len(windows) // block)
        joined = scipy.sparse.vstack(blocks, format="csr")
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(joined, part), getattr(whole, part))


def test_windows_that_are_not_kept_take_nothing_from_the_others():
    given_ = section()
    pooled = PooledCounts(*given_, lay_windows(*given_[1:], 9, 2, 1))
    chosen = np.arange(len(pooled.windows)) % 3 > 0
    kept = pooled.keep(chosen, "a third")
    assert kept.shape == (chosen.sum(), 12) and kept.windows.lost["a third"] == (~chosen).sum()
    assert (kept.all()[0] != pooled.all()[0][chosen]).nnz == 0 and len(pooled.windows) == len(chosen)


def test_bins_that_cannot_be():
    counts, rows, cols, in_tissue = section(tissue=1.0)
    moved = rows.copy()
    moved[4], moved_cols = rows[9], cols.copy()
    moved_cols[4] = cols[9]
    with pytest.raises(DataError, match=f"1 bins lie at an array position that another has.*row {rows[9]}"):
        pool_bins(counts, moved, moved_cols, in_tissue, 3, 1)
    moved[4] = -2
    with pytest.raises(DataError, match=r"row -2.*expected rows and columns from 0"):
        pool_bins(counts, moved, cols, in_tissue, 3, 1)
    with pytest.raises(DataError, match="expected an array of at most"):
        pool_bins(counts, rows * 100_000, cols * 1000, in_tissue, 3, 1)
    large = counts.copy()
    large.data[:] = 2**30
    with pytest.raises(DataError, match=r"could exceed 2\^31"):
        pool_bins(large, rows, cols, in_tissue, 3, 1)
