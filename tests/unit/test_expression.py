"""Counts to the target space: known answers."""

import numpy as np
import pytest
import scipy.sparse

from stmorph.errors import ConfigError, DataError
from stmorph.expression import to_target_space

COUNTS = np.array([[0, 1, 9], [5, 0, 0]])
LIBRARY = np.array([100.0, 5.0])


@pytest.mark.parametrize("form", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, np.asarray])
@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("log1p_cp10k", np.log1p([[0, 100, 900], [10_000, 0, 0]])),
        ("log1p_counts", np.log([[1, 2, 10], [6, 1, 1]])),
        ("log2_counts", np.log2([[1, 2, 10], [6, 1, 1]])),
    ],
)
def test_known_answers(form, space, expected):
    found = to_target_space(form(COUNTS.astype(np.int32)), LIBRARY, space)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32 and found.shape == (2, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_depth_cancels_only_where_it_should():
    deeper = to_target_space(scipy.sparse.csr_matrix(COUNTS * 7), LIBRARY * 7, "log1p_cp10k")
    np.testing.assert_allclose(deeper, to_target_space(scipy.sparse.csr_matrix(COUNTS), LIBRARY, "log1p_cp10k"))
    raw = to_target_space(scipy.sparse.csr_matrix(COUNTS * 7), LIBRARY * 7, "log1p_counts")
    assert (raw[COUNTS > 0] > np.log1p(COUNTS)[COUNTS > 0]).all()


def test_large_counts_do_not_overflow():
    found = to_target_space(
        scipy.sparse.csr_matrix(np.array([[2_000_000_000]], np.int32)), np.array([2e9]), "log1p_cp10k"
    )
    np.testing.assert_allclose(found, np.log1p([[1e4]]), rtol=1e-6)


def test_the_whole_library_scales_not_the_panel():
    found = to_target_space(scipy.sparse.csr_matrix([[1, 1]]), np.array([1000.0]), "log1p_cp10k")
    np.testing.assert_allclose(np.expm1(found), 10, rtol=1e-5)


def test_a_unit_without_counts():
    empty = scipy.sparse.csr_matrix(np.zeros((3, 2)))
    with pytest.raises(DataError, match="2 units have no counts"):
        to_target_space(empty, np.array([0.0, 4.0, 0.0]), "log1p_cp10k")
    assert (to_target_space(empty, np.zeros(3), "log1p_counts") == 0).all()


def test_unknown_space():
    with pytest.raises(ConfigError, match=r"'log3'.*log1p_cp10k, log1p_counts, log2_counts"):
        to_target_space(scipy.sparse.csr_matrix(COUNTS), LIBRARY, "log3")
