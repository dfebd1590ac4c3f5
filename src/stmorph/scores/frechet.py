"""Distances between two sets of feature vectors: Fréchet (FID) and kernel (KID), with their uncertainty."""

import numpy as np
import scipy.linalg

from ..errors import DataError
from .resample import Estimate

_EXACT_SIDE = 1000


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Return the Fréchet distance between two normal distributions (Heusel et al. 2017, the FID's formula).

    |mean1 - mean2|^2 + tr(cov1) + tr(cov2) - 2 tr((cov1 cov2)^(1/2)). The last trace is the nuclear norm of A^T B for
    any A A^T = cov1, B B^T = cov2: no complex square root of a non-symmetric matrix is needed, and singular
    covariances need no added diagonal.

    Parameters
    ----------
    mean1, mean2
        Means [d].
    cov1, cov2
        Covariances [d, d], symmetric and positive semi-definite up to rounding.
    """
    cov1, cov2 = np.asarray(cov1, dtype=np.float64), np.asarray(cov2, dtype=np.float64)
    if len(cov1) > _EXACT_SIDE and (factor := _cholesky(cov1)) is not None:
        overlap = _sum_of_roots(factor.T @ cov2 @ factor)
    else:
        overlap = _nuclear_norm(_factor(cov1).T @ _factor(cov2))
    return _assemble(mean1, mean2, np.trace(cov1), np.trace(cov2), overlap)


def frechet_of_features(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Fréchet distance between normals fitted to two sets of features, [n, d] and [m, d] (n, m >= 2).

    Covariances divide by n - 1. Where a set has fewer vectors than dimensions, its covariance is never formed: with
    centred and scaled X, Y the nuclear norm of X Y^T [n, m] is the same number.

    Raises
    ------
    DataError
        A set has fewer than two vectors, the dimensions differ, or a value is not finite.
    """
    x, y = _checked(x, y)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = (x - mean_x) / np.sqrt(len(x) - 1), (y - mean_y) / np.sqrt(len(y) - 1)
    if min(len(x), len(y)) > x.shape[1]:
        return frechet_distance(mean_x, x.T @ x, mean_y, y.T @ y)
    # The side with more vectors than dimensions shrinks to its triangular factor: R^T R is the same covariance.
    x, y = (np.linalg.qr(z, mode="r") if len(z) > z.shape[1] else z for z in (x, y))
    return _assemble(mean_x, mean_y, (x * x).sum(), (y * y).sum(), _nuclear_norm(x @ y.T))


def _assemble(mean1, mean2, trace1: float, trace2: float, overlap: float) -> float:
    difference = np.asarray(mean1, dtype=np.float64) - np.asarray(mean2, dtype=np.float64)
    # The distance is never negative: what lies below zero is rounding of the two traces.
    return max(0.0, float(difference @ difference + trace1 + trace2 - 2 * overlap))


def _cholesky(cov: np.ndarray) -> np.ndarray | None:
    """Return the lower factor, or None where the matrix is too near to singular for squared singular values."""
    try:
        factor = scipy.linalg.cholesky(cov, lower=True)
    except scipy.linalg.LinAlgError:
        return None
    diagonal = np.diag(factor)
    return factor if diagonal.min() > 1e-6 * diagonal.max() else None


def _factor(cov: np.ndarray) -> np.ndarray:
    """Return A with A A^T = cov; eigenvalues below rounding are zero."""
    values, vectors = scipy.linalg.eigh(cov)
    return vectors * np.sqrt(np.clip(values, 0, None))


def _nuclear_norm(matrix: np.ndarray) -> float:
    if min(matrix.shape) <= _EXACT_SIDE:
        return float(scipy.linalg.svdvals(matrix).sum())
    # Squared singular values cost a fifth of the time; their rounding is 1e-8 of the largest singular value.
    return _sum_of_roots(matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix)


def _sum_of_roots(square: np.ndarray) -> float:
    values = scipy.linalg.eigvalsh((square + square.T) / 2)
    return float(np.sqrt(np.clip(values, 0, None)).sum())


def fid(x: np.ndarray, y: np.ndarray, groups: int = 10) -> Estimate:
    """Return the Fréchet distance of two feature sets [n, d], [m, d] and its standard error.

    The error is a delete-a-group jackknife's: a bootstrap would repeat vectors, which lowers the covariances' rank and
    shifts the distance upwards. Vectors of equal index are left out together, so paired sets stay paired. `groups`
    below 2 computes no error. The distance itself is biased upwards, the more the fewer vectors: compare equal n only.

    Raises
    ------
    DataError
        See `frechet_of_features`.
    """
    x, y = _checked(x, y)
    value, groups = frechet_of_features(x, y), min(groups, min(len(x), len(y)) // 2)
    note = f"m={len(y)} of the reference" if len(x) != len(y) else ""
    if groups < 2:
        return Estimate(value, len(x), note=note)
    # Spread every group over the whole order (units are sorted by slide and place) instead of cutting blocks.
    without = [
        frechet_of_features(x[np.arange(len(x)) % groups != g], y[np.arange(len(y)) % groups != g])
        for g in range(groups)
    ]
    return Estimate(value, len(x), se=_jackknife(np.array(without)), degrees=groups - 1, note=note)


def kid(x: np.ndarray, y: np.ndarray, block: int = 1024) -> Estimate:
    """Return the kernel inception distance (Binkowski et al. 2018) of two feature sets [n, d], [m, d].

    The unbiased estimate of the squared maximum mean discrepancy with the kernel (a.b / d + 1)^3 over all pairs, not
    over random subsets; it may be negative. Its standard error is the jackknife over single vectors of either set,
    taken as independent (for paired sets that overstates it). Not multiplied by 1000.

    Raises
    ------
    DataError
        See `frechet_of_features`.
    """
    x, y = _checked(x, y)
    n, m = len(x), len(y)
    rows_xx, rows_yy = _kernel_sums(x, x, block, skip_self=True)[0], _kernel_sums(y, y, block, skip_self=True)[0]
    rows_xy, columns_xy = _kernel_sums(x, y, block)
    xx, yy, xy = rows_xx.sum(), rows_yy.sum(), rows_xy.sum()
    value = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    se = np.nan
    if min(n, m) > 2:
        left_x = (xx - 2 * rows_xx) / ((n - 1) * (n - 2)) - 2 * (xy - rows_xy) / ((n - 1) * m)
        left_y = (yy - 2 * rows_yy) / ((m - 1) * (m - 2)) - 2 * (xy - columns_xy) / (n * (m - 1))
        se = float(np.hypot(_jackknife(left_x), _jackknife(left_y)))
    note = f"m={m} of the reference" if n != m else ""
    return Estimate(float(value), n, se=se, degrees=max(1, min(n, m) - 1), note=note)


def _kernel_sums(x, y, block: int, skip_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel's sums over y for each x, and over x for each y; blocks bound the memory."""
    rows, columns = np.zeros(len(x)), np.zeros(len(y))
    for start in range(0, len(x), block):
        kernel = (x[start : start + block] @ y.T / x.shape[1] + 1) ** 3
        if skip_self:
            inside = np.arange(len(kernel))
            kernel[inside, start + inside] = 0
        rows[start : start + block] = kernel.sum(axis=1)
        columns += kernel.sum(axis=0)
    return rows, columns


def _jackknife(values: np.ndarray) -> float:
    return float(np.sqrt((len(values) - 1) * values.var()))


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise DataError(
            f"the two sets of features have shapes {x.shape} and {y.shape} where [n, d] and [m, d] were expected; "
            "take both from one extractor"
        )
    if min(len(x), len(y)) < 2:
        raise DataError(
            f"a set of features has {min(len(x), len(y))} vectors; a distance between sets needs at least 2"
        )
    bad = int((~np.isfinite(x)).any(axis=1).sum() + (~np.isfinite(y)).any(axis=1).sum())
    if bad:
        raise DataError(
            f"{bad} feature vectors hold values that are not finite; use another extractor or mend this one"
        )
    return x, y
