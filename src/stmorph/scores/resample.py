"""Uncertainty over a slide's units, and the mean over slides.

The bootstrap takes the units of a slide as exchangeable. Neighbouring spots are alike, so the intervals say how much a
number depends on which units were measured, not how much it would change on another slide.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.stats

from ..randomness import numpy_generator
from .rows import Score


@dataclass(frozen=True)
class Estimate:
    """A value on one set of n units, with its bootstrap replicates [B] or a standard error and degrees of freedom."""

    value: float
    n: int
    replicates: np.ndarray | None = None
    se: float = np.nan
    degrees: float = np.inf
    note: str = ""

    def fill(self, row: Score) -> Score:
        """Return `row` with this value, its standard error, 95 % interval, n and note."""
        se, low, high = self.se, np.nan, np.nan
        if self.replicates is not None:
            defined = self.replicates[np.isfinite(self.replicates)]
            if np.isfinite(self.value) and len(defined) > 1:
                se = float(defined.std(ddof=1))
                low, high = np.quantile(defined, (0.025, 0.975))
        elif np.isfinite(self.value) and np.isfinite(se):
            half = float(scipy.stats.t.ppf(0.975, self.degrees)) * se
            low, high = self.value - half, self.value + half
        note = "; ".join(part for part in (row.note, self.note) if part)
        return replace(
            row, value=float(self.value), se=float(se), ci_low=float(low), ci_high=float(high), n=int(self.n), note=note
        )


def bootstrap_counts(n: int, resamples: int, seed: int, slide: str) -> np.ndarray:
    """Return how often each unit is drawn, float64 [resamples, n], rows sum to n.

    The draws depend on (seed, slide, n) alone, so all methods and metrics of a run meet the same resamples.
    """
    draw = numpy_generator("bootstrap", seed, slide, n)
    return draw.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def bootstrap_mean(values: np.ndarray, counts: np.ndarray) -> Estimate:
    """Return the mean of `values` [n] over units, with replicates from `bootstrap_counts` [B, n]."""
    return Estimate(float(np.mean(values)), len(values), counts @ values / counts.sum(axis=1))


def over_slides(estimates: Mapping[str, Estimate], row: Score) -> list[Score]:
    """Return one row per slide, in the order of their names, and the row `all`: the mean of the slides' values.

    A slide whose value is undefined is left out of the mean, and the note counts it.
    """
    names = sorted(estimates)
    rows = [estimates[name].fill(replace(row, slide=name)) for name in names]
    defined = [estimates[name] for name in names if np.isfinite(estimates[name].value)]
    notes = [] if len(names) == len(defined) else [f"undefined on {len(names) - len(defined)} of {len(names)} slides"]
    notes += list(dict.fromkeys(e.note for e in estimates.values() if e.note)) if len(names) == 1 else []
    if len(names) > 1:
        notes += [f"{name}: {estimates[name].note}" for name in names if estimates[name].note]
    return [*rows, _mean(defined, "; ".join(notes)).fill(replace(row, slide="all"))]


def _mean(estimates: list[Estimate], note: str) -> Estimate:
    if not estimates:
        return Estimate(np.nan, 0, note=note)
    value, n = float(np.mean([e.value for e in estimates])), sum(e.n for e in estimates)
    if all(e.replicates is not None for e in estimates):
        # Slides are resampled independently of one another, so the b-th replicates may be averaged.
        return Estimate(value, n, np.mean([e.replicates for e in estimates], axis=0), note=note)
    variances = np.array([e.se**2 for e in estimates])
    se = float(np.sqrt(variances.sum())) / len(estimates)
    # Welch and Satterthwaite's degrees of freedom of a sum of independent estimates.
    share = np.array([v**2 / e.degrees for v, e in zip(variances, estimates)]).sum()
    return Estimate(value, n, se=se, degrees=variances.sum() ** 2 / share if share > 0 else np.inf, note=note)


def slides_of(slide: np.ndarray) -> dict[str, np.ndarray]:
    """Return the unit indices (int64) of each slide, slides in the order of their names."""
    slide = np.asarray(slide)
    return {str(name): np.flatnonzero(slide == name) for name in np.unique(slide)}
