"""Counts to the space in which methods train and scores are taken."""

from typing import Literal, get_args

import numpy as np
import scipy.sparse

from .errors import ConfigError, DataError

TargetSpace = Literal["log1p_cp10k", "log1p_counts", "log2_counts"]
"""log1p_cp10k: ln(1 + counts per 10^4 of the unit's own total); log1p_counts: ln(1 + counts);
log2_counts: log2(1 + counts)."""


def to_target_space(counts: scipy.sparse.csr_matrix, library_size: np.ndarray, space: TargetSpace) -> np.ndarray:
    """Return expression, float32 [n, G], in a target space.

    Parameters
    ----------
    counts
        Raw counts [n, G] of the panel's genes.
    library_size
        Total counts [n] of each unit over ALL its genes (not the panel's), controls excluded.
    space
        One of `TargetSpace`.

    Raises
    ------
    ConfigError
        `space` is unknown.
    DataError
        A unit has no counts, so it cannot be scaled.
    """
    dense = np.asarray(counts.todense() if scipy.sparse.issparse(counts) else counts, dtype=np.float64)
    if space == "log1p_cp10k":
        if (library_size <= 0).any():
            raise DataError(
                f"{int((library_size <= 0).sum())} units have no counts at all and cannot be scaled to counts per "
                "10^4; drop them when the slide is read"
            )
        return np.log1p(dense * (1e4 / library_size[:, None])).astype(np.float32)
    if space == "log1p_counts":
        return np.log1p(dense).astype(np.float32)
    if space == "log2_counts":
        return np.log2(dense + 1).astype(np.float32)
    raise ConfigError(f"target_space is {space!r}; expected one of {', '.join(get_args(TargetSpace))}")
