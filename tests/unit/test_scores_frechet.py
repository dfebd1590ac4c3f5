import numpy as np
import pytest
import scipy.linalg
from cleanfid.fid import frechet_distance as clean_fid_distance
from cleanfid.fid import kernel_distance as clean_kid_distance

from stmorph.errors import DataError
from stmorph.scores import frechet
from stmorph.scores.frechet import fid, frechet_distance, frechet_of_features, kid


def features(n, d, seed=0, shift=0.0, decay=1.0):
    rng = np.random.default_rng(seed)
    return shift + rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) * np.geomspace(1, decay, d))


def statistics(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


def test_the_distance_of_two_normals_by_hand():
    one, two = np.diag([1.0, 4]), np.diag([9.0, 4])
    assert frechet_distance(np.zeros(2), one, np.array([3.0, 4]), two) == pytest.approx(25 + (3 - 1) ** 2)
    assert frechet_distance(np.zeros(2), one, np.zeros(2), one) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("decay", [1.0, 1e-2])
def test_it_agrees_with_the_matrix_square_root(decay):
    x, y = features(500, 40, 1, decay=decay), features(400, 40, 2, 0.1, decay)
    (m1, c1), (m2, c2) = statistics(x), statistics(y)
    root = scipy.linalg.sqrtm(c1 @ c2)
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root.real)
    assert frechet_of_features(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-6)
    assert clean_fid_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sizes", [(20, 25), (20, 200), (200, 20), (50, 50)])
def test_fewer_vectors_than_dimensions(sizes):
    """The reference is the sum of the roots of cov1 cov2's eigenvalues, all of which are real and not negative."""
    x, y = features(sizes[0], 50, 1), features(sizes[1], 50, 2, 0.3)
    (m1, c1), (m2, c2) = statistics(x), statistics(y)
    overlap = np.sqrt(np.clip(np.linalg.eigvals(c1 @ c2).real, 0, None)).sum()
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * overlap
    assert frechet_of_features(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sizes", [(120, 130), (30, 20), (120, 20)])
@pytest.mark.parametrize("copied", [False, True])
def test_the_fast_path_for_many_dimensions_agrees_with_the_exact_one(monkeypatch, sizes, copied):
    x, y = features(sizes[0], 40, 1), features(sizes[1], 40, 2, 0.1)
    if copied:  # collinear features: singular covariances
        x, y = np.hstack([x, x]), np.hstack([y, y])
    exact = frechet_of_features(x, y)
    monkeypatch.setattr(frechet, "_EXACT_SIDE", 5)
    assert frechet_of_features(x, y) == pytest.approx(exact, rel=1e-6)


def test_invariances():
    x, y = features(90, 12, 1), features(80, 12, 2, 0.5)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))
    value = frechet_of_features(x, y)
    assert frechet_of_features(y, x) == pytest.approx(value)
    assert frechet_of_features(x[::-1], y) == pytest.approx(value)
    assert frechet_of_features(x @ rotation + 3, y @ rotation + 3) == pytest.approx(value)
    assert frechet_of_features(2 * x, 2 * y) == pytest.approx(4 * value)
    assert frechet_of_features(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_of_features(x[:5], x[:5]) == pytest.approx(0, abs=1e-9)


def direct_kid(x, y):
    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize("block", [4, 1024])
def test_kid_is_the_double_sum(block):
    x, y = features(17, 6, 1), features(13, 6, 2, 0.4)
    estimate = kid(x, y, block)
    assert estimate.value == pytest.approx(direct_kid(x, y), rel=1e-9)
    assert estimate.note == "m=13 of the reference"
    left_x = [direct_kid(np.delete(x, i, 0), y) for i in range(17)]
    left_y = [direct_kid(x, np.delete(y, i, 0)) for i in range(13)]
    assert estimate.se == pytest.approx(np.sqrt(16 * np.var(left_x) + 12 * np.var(left_y)), rel=1e-9)


def test_kid_agrees_with_clean_fid():
    x, y = features(40, 8, 1), features(40, 8, 2, 0.4)
    # With subsets as large as the sets, clean-fid's mean over subsets is the full estimate.
    assert kid(x, y).value == pytest.approx(clean_kid_distance(x, y, num_subsets=1, max_subset_size=40), rel=1e-9)


def test_kid_is_unbiased_and_its_interval_covers():
    """Two sets of one distribution: mean 0; some 95 of 100 intervals hold 0."""
    rng = np.random.default_rng(3)
    estimates = [kid(rng.normal(size=(40, 5)), rng.normal(0.3, 1, size=(50, 5))) for _ in range(100)]
    values, errors = (np.array([getattr(e, a) for e in estimates]) for a in ("value", "se"))
    far = np.mean([kid(rng.normal(size=(1500, 5)), rng.normal(0.3, 1, size=(1500, 5))).value for _ in range(4)])
    assert abs(values.mean() - far) < 4 * values.std() / 10
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)
    assert 85 <= (np.abs(values - far) < 2 * errors).sum() <= 100


def test_the_jackknife_of_fid_measures_its_spread():
    rng = np.random.default_rng(4)
    estimates = [fid(rng.normal(size=(300, 4)), rng.normal(0.5, 1.5, size=(300, 4))) for _ in range(60)]
    spread = np.std([e.value for e in estimates], ddof=1)
    assert np.mean([e.se for e in estimates]) == pytest.approx(spread, rel=0.3)
    assert np.isnan(fid(rng.normal(size=(30, 4)), rng.normal(size=(30, 4)), groups=0).se)


def test_bad_features_are_refused():
    x = features(10, 3)
    with pytest.raises(DataError, match="from one extractor"):
        frechet_of_features(x, x[:, :2])
    with pytest.raises(DataError, match="at least 2"):
        fid(x, x[:1])
    with pytest.raises(DataError, match="2 feature vectors"):
        kid(x, np.vstack([x, [[np.nan] * 3] * 2]))
