"""Does expression agree with what lies under it, and better than anywhere else?

A ridge regression predicts the leading spatial components of expression from simple statistics of the image under the
units. Whole blocks of tissue are held out in turn. The same is done with the units displaced, mirrored and turned; only
the right placement lets the image foretell expression in tissue that the regression has not seen.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..randomness import numpy_generator
from .placements import Placement, placements, refined
from .under import UnderUnits
from .units import Units

CONFIDENCE = 0.9
"""Share of the resamples in which a placement must be better than all its rivals."""
MARGIN = 0.05
"""Least difference to the best rival, in shares of the components' variance."""
LEAST_SCORE = 0.1
"""Share of the variance that a placement must foretell before anything is said for it."""
FEWEST_UNITS, FEWEST_GENES = 40, 10
RESAMPLES = 1000
FOLDS, FOLD_UNITS, RESAMPLE_UNITS = 5, 4, 3  # sides of the blocks of tissue, in distances between units
COMPONENTS = 10
PENALTY = 0.1  # of the ridge, per unit and standardised statistic
_NEAR = 1.6  # placements that differ by less, in distances between units, are variants of one another


@dataclass(frozen=True)
class Registration:
    """What was found.

    verdict: pass, displaced, mirrored, rotated or undecided. sentence: the same in words.
    score: share of the variance of expression's spatial components that is foretold at the given place (below 0: worse
    than the mean). rival, rival_score: the best placement that is no variant of the given one. margin: the difference.
    confidence: share of resampled blocks of tissue in which the given placement is better than every rival.
    best, best_kind, best_score, best_confidence: the best placement of all and the same share for it.
    scores: placement -> score, of those always tried and of the best.
    units, genes, unit_um: what the score was taken on; pooled: whether units were pooled.
    """

    verdict: str
    sentence: str
    score: float
    rival: str
    rival_score: float
    margin: float
    confidence: float
    best: str
    best_kind: str
    best_score: float
    best_confidence: float
    scores: dict[str, float]
    units: int
    genes: int
    unit_um: float
    pooled: bool

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON; what is not known is None."""
        values = asdict(self)
        return {name: None if isinstance(v, float) and np.isnan(v) else v for name, v in values.items()}


def register(units: Units, under: UnderUnits, image_um: np.ndarray, seed: int = 0) -> Registration:
    """Compare the given placement of units with displaced, mirrored and rotated ones.

    Parameters
    ----------
    units
        Their positions and expression.
    under
        The image's statistics.
    image_um
        Width and height of the image.
    seed
        Of the resampling.

    Returns
    -------
    Registration
        `pass`: better than every rival by `MARGIN` and in `CONFIDENCE` of the resamples. `displaced`, `mirrored`,
        `rotated`: another placement is, in the same sense. `undecided`: neither.
    """
    n, genes = units.expression.shape
    if n < FEWEST_UNITS or genes < FEWEST_GENES:
        return _unsaid(
            units,
            f"{n} units and {genes} genes are too few to say; at least {FEWEST_UNITS} and {FEWEST_GENES} are needed",
        )
    values, weights = spatial_components(units)
    if not weights.sum() > 0:
        return _unsaid(units, "expression has no spatial structure that an image could agree with")
    trial = _Trial(units, under, values, weights / weights.sum(), seed)
    trial.add(placements(units.spatial_um, units.unit_um, image_um))
    tried = len(trial.placements)
    # A displacement by one unit is a variant of the given place, and needs evidence against this place itself.
    nudge = trial.better_variant()
    if nudge is None and not trial.holds(0) and trial.kind != "displaced":
        trial.add(refined(units.spatial_um, units.unit_um, image_um))
    best = trial.best if nudge is None or trial.holds(trial.best) else nudge
    if nudge is None and trial.holds(0):
        verdict = "pass"
    else:
        verdict = trial.placements[best].kind if best and trial.holds(best) else "undecided"
    share, _, rival = trial.confidence(0)
    best_share = trial.share(best, 0) if best == nudge else trial.confidence(best)[0]
    score = float(trial.scores[0])
    top = trial.placements[best]
    return Registration(
        verdict=verdict,
        sentence=_sentence(verdict, trial, best, rival, best_share),
        score=score,
        rival=trial.placements[rival].name,
        rival_score=float(trial.scores[rival]),
        margin=score - float(trial.scores[rival]),
        confidence=share,
        best=top.name,
        best_kind=top.kind,
        best_score=float(trial.scores[best]),
        best_confidence=best_share,
        scores={trial.placements[k].name: float(trial.scores[k]) for k in (*range(tried), best)},
        units=n,
        genes=genes,
        unit_um=units.unit_um,
        pooled=units.pooled,
    )


def spatial_components(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Return expression's principal components, float64 [n, k] of variance 1, and how much each counts, float64 [k].

    A component counts by its variance times its likeness between neighbours (Moran's I, not below 0): noise has none.
    The likeness is that of the array itself, so it favours no placement.
    """
    from scipy.spatial import cKDTree

    centred = units.expression - units.expression.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    top = np.argsort(-values, kind="stable")[:COMPONENTS]
    top = top[values[top] > 1e-9 * max(values.max(), 1e-300)]
    scores = centred @ vectors[:, top]
    scores = scores / scores.std(axis=0)
    a, b = cKDTree(units.spatial_um).query_pairs(1.5 * units.unit_um, output_type="ndarray").reshape(-1, 2).T
    likeness = (scores[a] * scores[b]).mean(axis=0) if len(a) else np.zeros(len(top))
    return scores, values[top] * np.maximum(likeness, 0)


class _Trial:
    """Scores of placements, and of their resamples, on the same folds and the same resampled blocks."""

    def __init__(self, units: Units, under: UnderUnits, values: np.ndarray, weights: np.ndarray, seed: int):
        self.units, self.under, self.values, self.weights = units, under, values, weights
        square = np.floor((units.spatial_um - units.spatial_um.min(axis=0)) / (FOLD_UNITS * units.unit_um)).astype(int)
        self.fold = (square[:, 0] + 2 * square[:, 1]) % FOLDS
        square = np.floor((units.spatial_um - units.spatial_um.min(axis=0)) / (RESAMPLE_UNITS * units.unit_um))
        self.block = np.unique(square, axis=0, return_inverse=True)[1].ravel()
        size = np.bincount(self.block)
        rng = numpy_generator("registration", seed)
        times = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), size=RESAMPLES)
        self.times = times / np.maximum(times @ size, 1)[:, None]
        self.placements: list[Placement] = []
        self.scores, self.resampled = np.empty(0), np.empty((RESAMPLES, 0))

    def add(self, found: list[Placement]) -> None:
        gains = np.stack([self._gain(placement.spatial_um) for placement in found])
        sums = np.stack([np.bincount(self.block, gain) for gain in gains])
        self.placements += found
        self.scores = np.append(self.scores, gains.mean(axis=1))
        self.resampled = np.hstack([self.resampled, self.times @ sums.T])

    def _gain(self, spatial_um: np.ndarray) -> np.ndarray:
        """Return how much nearer than the mean each unit's held-out prediction is, float64 [n]."""
        statistics = self.under.at(spatial_um)
        statistics = (statistics - statistics.mean(axis=0)) / np.maximum(statistics.std(axis=0), 1e-6)
        statistics = np.clip(statistics, -3, 3)  # a fold or a pen mark shall not rule the fit
        error = np.empty_like(self.values)
        for fold in np.unique(self.fold):
            held = self.fold == fold
            x, y = statistics[~held], self.values[~held]
            mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
            x = x - mean_x
            gram = x.T @ x + PENALTY * len(x) * np.eye(x.shape[1])
            slope = np.linalg.solve(gram, x.T @ (y - mean_y))
            error[held] = self.values[held] - mean_y - (statistics[held] - mean_x) @ slope
        return (self.values**2 - error**2) @ self.weights

    def _rivals(self, index: int) -> np.ndarray:
        here = self.placements[index].spatial_um
        away = [np.sqrt(((other.spatial_um - here) ** 2).sum(axis=1).mean()) for other in self.placements]
        return np.flatnonzero(np.array(away) > _NEAR * self.units.unit_um)

    def confidence(self, index: int) -> tuple[float, float, int]:
        """Return a placement's share of the resamples in which it beats all rivals, its margin, and its best rival."""
        rivals = self._rivals(index)
        best = int(rivals[self.scores[rivals].argmax()])
        share = float((self.resampled[:, index] > self.resampled[:, rivals].max(axis=1)).mean())
        return share, float(self.scores[index] - self.scores[best]), best

    def share(self, index: int, other: int) -> float:
        return float((self.resampled[:, index] > self.resampled[:, other]).mean())

    @property
    def best(self) -> int:
        return int(self.scores.argmax())

    @property
    def kind(self) -> str:
        """What the best placement is, where it holds; else undecided."""
        return self.placements[self.best].kind if self.holds(self.best) else "undecided"

    def holds(self, index: int) -> bool:
        """Return whether a placement is good, and surely better than its rivals."""
        share, margin, _ = self.confidence(index)
        return share >= CONFIDENCE and margin >= MARGIN and bool(self.scores[index] >= LEAST_SCORE)

    def better_variant(self) -> int | None:
        """Return the variant of the given placement that holds and is surely better than it, or None."""
        variants = np.setdiff1d(np.arange(len(self.placements)), self._rivals(0))
        best = int(variants[self.scores[variants].argmax()])
        clear = self.share(best, 0) >= CONFIDENCE and self.scores[best] - self.scores[0] >= MARGIN
        return best if clear and self.holds(best) else None


def _sentence(verdict: str, trial: _Trial, best: int, rival: int, share: float) -> str:
    own, name = trial.scores[0], trial.placements[best].name
    if verdict == "pass":
        against = trial.placements[rival].name
        return f"expression agrees with the image where it lies (score {own:.2f}), and best there (next: {against})"
    if verdict == "undecided":
        other = best or rival
        return (
            f"no placement is clearly best (as given {own:.2f}, {trial.placements[other].name} "
            f"{trial.scores[other]:.2f}); look at the picture before you trust the slide"
        )
    return (
        f"the image fits better with the units {name} (score {trial.scores[best]:.2f} against {own:.2f} as given, in "
        f"{share:.0%} of the resamples); check positions and image"
    )


def _unsaid(units: Units, why: str) -> Registration:
    nan = float("nan")
    n, genes = units.expression.shape
    return Registration(
        "undecided", why, nan, "", nan, nan, nan, "", "", nan, nan, {}, n, genes, units.unit_um, units.pooled
    )
