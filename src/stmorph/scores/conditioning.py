"""Does a generated picture show what its condition says? Retrieval of the paired tile, and change along programmes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.stats

from ..errors import ConfigError, DataError
from .resample import Estimate, bootstrap_mean, over_slides
from .rows import Score

BINS = 10


@dataclass(frozen=True)
class Programmes:
    """Which programme is looked for in which statistic of a picture.

    expression: the conditions, float [n, G] in the target space. genes: the panel.
    members: genes of each programme. pairs: (programme, statistic).
    statistics: names of the columns of the feature matrix, e.g. the `morphometric` encoder's.
    """

    expression: np.ndarray
    genes: Sequence[str]
    members: Mapping[str, Sequence[str]]
    pairs: Sequence[tuple[str, str]]
    statistics: Sequence[str]


def paired_ranks(generated: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for features [n, d] of each generated picture, where its own real tile stands among the n real tiles.

    The first array [n] counts the real tiles that are nearer (Euclidean) than the paired one, the second those as near
    as it (without itself). Distances that differ by less than rounding are ties, so that duplicated tiles, or a
    generator that ignores its condition, gain nothing from the order of rows.
    """
    nearer, ties = np.empty(len(real)), np.empty(len(real))
    size = (real**2).sum(axis=1)
    for start in range(0, len(real), 1024):
        block = generated[start : start + 1024]
        own = np.arange(len(block))
        squared = (block**2).sum(axis=1)[:, None] + size - 2 * block @ real.T
        paired = squared[own, start + own][:, None]
        slack = 1e-10 * ((block**2).sum(axis=1)[:, None] + size)
        nearer[start : start + 1024] = (squared < paired - slack).sum(axis=1)
        ties[start : start + 1024] = (np.abs(squared - paired) <= slack).sum(axis=1) - 1
    return nearer, ties


def retrieval_scores(
    generated: np.ndarray,
    real: np.ndarray,
    groups: Mapping[str, np.ndarray],
    counts: Mapping[str, np.ndarray],
    row: Score,
) -> list[Score]:
    """Return `retrieval_rank`, `retrieval_top1` and `retrieval_top5pct` per slide and over slides.

    The rank of the paired real tile among all real tiles of the slide, over n - 1: 0 is best, .5 is chance. Recall
    counts the pictures whose paired tile is the nearest, or among the nearest 5 % (at least one). Ties count as if
    broken at random.

    Parameters
    ----------
    generated, real
        Features [n, d] of generated pictures and of their paired tiles.
    groups, counts
        Units of each slide and their bootstrap counts.
    """
    rank, top1, top5 = {}, {}, {}
    for slide, index in groups.items():
        n = len(index)
        if n < 2:
            rank[slide] = top1[slide] = top5[slide] = Estimate(np.nan, n, note="one tile alone has no rank")
            continue
        nearer, ties = paired_ranks(generated[index], real[index])
        rank[slide] = bootstrap_mean((nearer + ties / 2) / (n - 1), counts[slide])
        for places, target in ((1, top1), (max(1, round(0.05 * n)), top5)):
            found = bootstrap_mean(np.clip((places - nearer) / (ties + 1), 0, 1), counts[slide])
            target[slide] = replace(found, note=f"chance {places / n:.3g}")
    row = replace(row, reference="real test tiles of the slide")
    return [
        *over_slides(rank, replace(row, metric="retrieval_rank", note="chance 0.5")),
        *over_slides(top1, replace(row, metric="retrieval_top1")),
        *over_slides(top5, replace(row, metric="retrieval_top5pct")),
    ]


def programme_activity(expression: np.ndarray, genes: Sequence[str], members: Sequence[str]) -> np.ndarray:
    """Return a programme's activity [n]: the mean of its genes' z-scores over the n units; constant genes are left out.

    Raises
    ------
    DataError
        No gene of the programme is in the panel, or all are constant.
    """
    wanted = set(members)
    chosen = expression[:, [i for i, gene in enumerate(genes) if gene in wanted]].astype(np.float64)
    varying = chosen[:, np.ptp(chosen, axis=0) > 0] if chosen.size else chosen
    if not varying.shape[1]:
        raise DataError(
            f"none of the programme's {len(wanted)} genes is in the panel and varies; give one of the panel's genes"
        )
    return ((varying - varying.mean(axis=0)) / varying.std(axis=0)).mean(axis=1)


def programme_scores(
    programmes: Programmes,
    generated: np.ndarray,
    real: np.ndarray,
    groups: Mapping[str, np.ndarray],
    counts: Mapping[str, np.ndarray],
    row: Score,
) -> list[Score]:
    """Return how pictures change along programmes.

    `reference` is `programme: <name>`, `features` is `<extractor>: <statistic>`, and the note says both.
    Per pair, slide and over slides:

    - `programme_rho`: Spearman's correlation of the condition's activity with the statistic of the generated picture;
      `programme_rho_real`: the same in the paired real tiles; `programme_rho_difference`: generated - real;
    - `programme_sign`: 1 where both have one sign, else 0;
    - `programme_rho_binned`, `programme_rho_binned_real`: over the means of 10 equal-sized bins along the activity,
      which averages out what the programme does not explain;
    - `statistic_rho`: the correlation of the statistic in the generated picture with that in its paired tile.

    Parameters
    ----------
    generated, real
        Features [n, F] as measured (unscaled), columns `programmes.statistics`.

    Raises
    ------
    ConfigError
        A pair names an unknown programme or statistic.
    """
    rows: list[Score] = []
    for name, statistic in programmes.pairs:
        column = _column(programmes, name, statistic)
        per_metric: dict[str, dict[str, Estimate]] = {}
        note = f"programme={name}; statistic={statistic}"
        try:
            activity = programme_activity(programmes.expression, programmes.genes, programmes.members[name])
        except DataError:
            # Another panel may hold the programme's genes: here it has no activity, and every value is undefined.
            activity = np.zeros(len(programmes.expression))
            note += "; none of the programme's genes is in the panel and varies"
        for slide, index in groups.items():
            measured = _of_slide(activity[index], generated[index, column], real[index, column], counts[slide])
            for metric, estimate in measured.items():
                per_metric.setdefault(metric, {})[slide] = estimate
        named = replace(row, note=note, reference=f"programme: {name}", features=f"{row.features}: {statistic}")
        for metric, per_slide in per_metric.items():
            rows += over_slides(per_slide, replace(named, metric=metric))
    return rows


def _column(programmes: Programmes, name: str, statistic: str) -> int:
    if name not in programmes.members:
        raise ConfigError(f"programme {name!r} does not exist; expected one of {', '.join(programmes.members)}")
    if statistic not in programmes.statistics:
        names = ", ".join(programmes.statistics) or "none: the extractor's features have no names"
        raise ConfigError(
            f"picture statistic {statistic!r} of programme {name} does not exist; expected one of {names}"
        )
    return list(programmes.statistics).index(statistic)


def _of_slide(activity, generated, real, counts) -> dict[str, Estimate]:
    n = len(activity)
    draws = np.stack([np.repeat(np.arange(n), c) for c in counts.astype(np.int64)])
    a, g, r = _ranks(activity[draws]), _ranks(generated[draws]), _ranks(real[draws])
    rho = float(_spearman(activity, generated)[0]), float(_spearman(activity, real)[0])
    again = _correlation(a, g), _correlation(a, r)
    note = "" if np.isfinite(rho).all() else "undefined: activity or statistic is constant"
    bins = _bins(activity)
    middle = np.array([activity[b].mean() for b in bins])
    binned = [float(_spearman(middle, np.array([v[b].mean() for b in bins]))[0]) for v in (generated, real)]
    sign = float(np.sign(rho[0]) == np.sign(rho[1])) if np.isfinite(rho).all() else np.nan
    return {
        "programme_rho": Estimate(rho[0], n, again[0], note=note),
        "programme_rho_real": Estimate(rho[1], n, again[1], note=note),
        "programme_rho_difference": Estimate(rho[0] - rho[1], n, again[0] - again[1], note=note),
        "programme_sign": Estimate(sign, n, note=note),
        "programme_rho_binned": Estimate(binned[0], n, note=note),
        "programme_rho_binned_real": Estimate(binned[1], n, note=note),
        "statistic_rho": Estimate(float(_spearman(generated, real)[0]), n, _correlation(g, r), note=note),
    }


def _bins(activity: np.ndarray) -> list[np.ndarray]:
    return [part for part in np.array_split(np.argsort(activity, kind="stable"), BINS) if len(part)]


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _correlation(_ranks(x[None]), _ranks(y[None]))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Centred mid-ranks along the last axis."""
    return scipy.stats.rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    return np.where(scale > 0, (a * b).sum(axis=-1) / np.where(scale > 0, scale, 1), np.nan)
