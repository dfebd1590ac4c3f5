"""Many draws of a unit's expression to one prediction (Stem, "Generated Samples and Sample Statistics", Table 7)."""

from typing import Literal, get_args

import numpy as np

from ..errors import ConfigError

Estimator = Literal["mean", "median", "mode", "draw"]


def point_prediction(draws: np.ndarray, estimator: Estimator) -> np.ndarray:
    """Return one prediction per unit and gene, float64 [n, G].

    Parameters
    ----------
    draws
        Draws [n, D, G] in the target space.
    estimator
        `mean`, `median`, `mode` (`half_sample_mode`) of the D draws, or `draw`, the first draw alone: its variation
        is that of the distribution, while the mean's shrinks with D.

    Raises
    ------
    ConfigError
        `estimator` is unknown.
    """
    if estimator == "mean":
        return draws.mean(axis=1, dtype=np.float64)
    if estimator == "median":
        return np.median(draws, axis=1).astype(np.float64)
    if estimator == "mode":
        return half_sample_mode(draws)
    if estimator == "draw":
        return draws[:, 0].astype(np.float64)
    raise ConfigError(f"estimator is {estimator!r}; expected one of {', '.join(get_args(Estimator))}")


def half_sample_mode(draws: np.ndarray, chunk: int = 256) -> np.ndarray:
    """Return the half-sample mode over the draws, float64 [n, G].

    Stem calls the mode "the value with the highest probability among the generated samples" and gives no estimator.
    Here: of the sorted draws keep the half that lies closest together, again and again, until at most three are left
    (Bickel and Fruehwirth 2006). It needs no bandwidth, and a value that more than half of the draws share is
    the mode. The lowest of equally dense halves is kept, and three equally spaced draws give the middle one.

    Parameters
    ----------
    draws
        Draws [n, D, G].
    chunk
        Units taken at a time; bounds memory and changes nothing else.
    """
    n, _, genes = draws.shape
    mode = np.empty((n, genes))
    for start in range(0, n, chunk):
        kept = np.sort(draws[start : start + chunk].astype(np.float64), axis=1)
        while kept.shape[1] > 3:
            half = -(-kept.shape[1] // 2)
            width = kept[:, half - 1 :] - kept[:, : kept.shape[1] - half + 1]
            first = width.argmin(axis=1)[:, None]
            kept = np.take_along_axis(kept, first + np.arange(half)[None, :, None], axis=1)
        mode[start : start + chunk] = _mode_of_three(kept)
    return mode


def _mode_of_three(kept: np.ndarray) -> np.ndarray:
    if kept.shape[1] < 3:
        return kept.mean(axis=1)
    low, middle, high = kept[:, 0], kept[:, 1], kept[:, 2]
    lower, upper = middle - low, high - middle
    return np.where(lower < upper, (low + middle) / 2, np.where(upper < lower, (middle + high) / 2, middle))
