"""Scores of predicted expression: correlation, errors and preserved variation, gene by gene and slide by slide."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..errors import DataError
from .estimators import Estimator, point_prediction
from .resample import Estimate, bootstrap_counts, bootstrap_mean, over_slides, slides_of
from .rows import Score


@dataclass(frozen=True)
class Moments:
    """Per-gene statistics of a slide, [G] or with a leading axis of resamples [B, G]; variances divide by n.

    pcc is NaN where truth or prediction does not vary.
    """

    pcc: np.ndarray
    var_true: np.ndarray
    var_pred: np.ndarray


def score_predictor(
    draws: np.ndarray,
    truth: np.ndarray,
    slide: np.ndarray,
    genes: Sequence[str],
    train_expression: np.ndarray,
    *,
    target_space: str,
    k: Sequence[int] = (10, 50, 200),
    estimators: Sequence[Estimator] = ("mean", "median", "mode", "draw"),
    reference: str = "paired test units",
    seed: int = 0,
    resamples: int = 200,
) -> tuple[list[Score], pd.DataFrame]:
    """Score a predictor's draws against the measured expression (Stem, section 5, "Evaluation metrics").

    Per estimator and slide, and as the mean over slides (`all`):

    - `pcc`: Pearson correlation over the slide's units, per gene, averaged over the genes of `gene_choice`:
      `oracle` (k genes of highest PCC on this very slide, Stem's PCC-k: chosen on the test truth, differently for every
      method, hence biased upwards), `train` (the k genes of highest variance over the training units, in the target
      space: fixed for all methods) and `all`. A gene whose truth or prediction is constant has no PCC: it is left
      out and counted in the note. A k above the panel's size gives NaN and a note.
    - `pcc_median`: the median over all genes.
    - `mae`, `mse`: over all units and genes. `rvd`: mean over genes of ((var_pred - var_true) / var_true)^2, and
      `rvd_median`; genes without true variance are left out and counted.

    Intervals resample the units; the oracle's genes stay those of the full set.

    Parameters
    ----------
    draws
        Draws [n, D, G] in the target space.
    truth
        Measured expression [n, G] in the target space.
    slide
        Slide of each unit, str [n].
    genes
        The panel, length G.
    train_expression
        Expression of the training units [m, G] in the target space; only chooses the `train` genes.

    Returns
    -------
    tuple
        The scores; and a table with a row per estimator, slide and gene: estimator, slide, gene, pcc, mean_true,
        mean_pred, var_true, var_pred (the gene variation curves of Stem, appendix A).

    Raises
    ------
    DataError
        The arrays do not belong together, or hold values that are not finite.
    ConfigError
        An estimator is unknown.
    """
    _check(draws, truth, slide, genes, train_expression)
    truth = truth.astype(np.float64)
    by_variance = np.argsort(-train_expression.var(axis=0, dtype=np.float64), kind="stable")
    groups = slides_of(slide)
    counts = {name: bootstrap_counts(len(index), resamples, seed, name) for name, index in groups.items()}
    rows, tables = [], []
    for estimator in estimators:
        predicted = point_prediction(draws, estimator)
        point = {name: moments(predicted[index], truth[index]) for name, index in groups.items()}
        again = {name: moments(predicted[i], truth[i], counts[name]) for name, i in groups.items()}
        tables += [
            _table(estimator, name, genes, point[name], truth[index], predicted[index])
            for name, index in groups.items()
        ]
        row = Score("", np.nan, estimator=estimator, reference=reference, target_space=target_space)

        def add(metric, per_slide, row=row, **qualifiers):
            rows.extend(over_slides(per_slide, replace(row, metric=metric, **qualifiers)))

        for size in k:
            for choice in ("oracle", "train"):
                chosen = {
                    name: _best(point[name].pcc, size) if choice == "oracle" else by_variance[:size] for name in groups
                }
                add("pcc", {s: _pcc(point[s], again[s], chosen[s], size, len(groups[s])) for s in groups},
                    k=int(size), gene_choice=choice)  # fmt: skip
        everything = np.arange(len(genes))
        for metric, centre in (("pcc", np.nanmean), ("pcc_median", np.nanmedian)):
            per_slide = {s: _pcc(point[s], again[s], everything, 0, len(groups[s]), centre) for s in groups}
            add(metric, per_slide, gene_choice="all")
        error = np.abs(predicted - truth)
        add("mae", {s: bootstrap_mean(error[i].mean(axis=1), counts[s]) for s, i in groups.items()}, gene_choice="all")
        error *= error
        add("mse", {s: bootstrap_mean(error[i].mean(axis=1), counts[s]) for s, i in groups.items()}, gene_choice="all")
        for metric, centre in (("rvd", np.nanmean), ("rvd_median", np.nanmedian)):
            per_slide = {s: _rvd(point[s], again[s], len(groups[s]), centre) for s in groups}
            add(metric, per_slide, gene_choice="all")
    return rows, pd.concat(tables, ignore_index=True)


def moments(predicted: np.ndarray, truth: np.ndarray, counts: np.ndarray | None = None) -> Moments:
    """Return per-gene PCC and variances of predictions and truth [n, G].

    Without `counts` over the n units; with `counts` [B, n] over each resample: five matrix products, no loop.
    """
    constant_pred, constant_true = _constant(predicted), _constant(truth)
    # Centring on the full set first keeps the differences of moments below free of cancellation.
    p, t = predicted - predicted.mean(axis=0), truth - truth.mean(axis=0)
    p[:, constant_pred], t[:, constant_true] = 0, 0
    full_pred, full_true = (p * p).mean(axis=0), (t * t).mean(axis=0)
    if counts is None:
        var_pred, var_true, covariance = full_pred, full_true, (p * t).mean(axis=0)
    else:
        w = counts / counts.sum(axis=1, keepdims=True)
        mean_p, mean_t = w @ p, w @ t
        var_pred, var_true = w @ (p * p) - mean_p**2, w @ (t * t) - mean_t**2
        covariance = w @ (p * t) - mean_p * mean_t
        # A resample may miss every unit in which a sparse gene was seen: what is left is rounding.
        var_pred = np.where(var_pred > 1e-12 * full_pred, var_pred, 0)
        var_true = np.where(var_true > 1e-12 * full_true, var_true, 0)
    varies = (var_pred > 0) & (var_true > 0)
    scale = np.sqrt(np.where(varies, var_pred, 1)) * np.sqrt(np.where(varies, var_true, 1))
    return Moments(np.where(varies, np.clip(covariance / scale, -1, 1), np.nan), var_true, var_pred)


def relative_variation(m: Moments) -> np.ndarray:
    """Return ((var_pred - var_true) / var_true)^2 per gene (Stem, RVD), NaN where the truth does not vary."""
    true = np.where(m.var_true > 0, m.var_true, np.nan)
    return ((m.var_pred - true) / true) ** 2


def _constant(values: np.ndarray) -> np.ndarray:
    """Genes whose spread is within float32 rounding of their size."""
    return np.ptp(values, axis=0) <= 1e-6 * np.abs(values).max(axis=0)


def _best(pcc: np.ndarray, k: int) -> np.ndarray:
    """Return the k genes of highest PCC; undefined ones last, ties in the panel's order."""
    return np.argsort(-np.where(np.isnan(pcc), -np.inf, pcc), kind="stable")[:k]


def _pcc(point: Moments, again: Moments, chosen: np.ndarray, k: int, n: int, centre=np.nanmean) -> Estimate:
    if k > len(point.pcc):
        return Estimate(np.nan, n, note=f"the panel has {len(point.pcc)} genes, fewer than k")
    flat_truth, flat_pred = point.var_true[chosen] == 0, point.var_pred[chosen] == 0
    parts = []
    if flat_truth.any():
        parts.append(f"truth constant in {int(flat_truth.sum())}")
    if (flat_pred & ~flat_truth).any():
        parts.append(f"prediction constant in {int((flat_pred & ~flat_truth).sum())}")
    note = f"{' and '.join(parts)} of {len(chosen)} genes, left out as undefined" if parts else ""
    if (flat_truth | flat_pred).all():
        return Estimate(np.nan, n, note=note)
    return Estimate(float(centre(point.pcc[chosen])), n, _centre(again.pcc[:, chosen], centre), note=note)


def _rvd(point: Moments, again: Moments, n: int, centre) -> Estimate:
    flat = int((point.var_true == 0).sum())
    note = f"truth constant in {flat} of {len(point.pcc)} genes, left out as undefined" if flat else ""
    if flat == len(point.pcc):
        return Estimate(np.nan, n, note=note)
    return Estimate(float(centre(relative_variation(point))), n, _centre(relative_variation(again), centre), note=note)


def _centre(values: np.ndarray, centre) -> np.ndarray:
    """Apply `centre` along genes; a resample without any defined gene stays NaN, without a warning."""
    result = np.full(len(values), np.nan)
    some = ~np.isnan(values).all(axis=1)
    result[some] = centre(values[some], axis=1)
    return result


def _table(estimator, slide, genes, m: Moments, truth: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "estimator": estimator,
            "slide": slide,
            "gene": list(genes),
            "pcc": m.pcc,
            "mean_true": truth.mean(axis=0),
            "mean_pred": predicted.mean(axis=0),
            "var_true": m.var_true,
            "var_pred": m.var_pred,
        }
    )


def _check(draws, truth, slide, genes, train_expression) -> None:
    n, size = truth.shape
    if draws.ndim != 3 or draws.shape[::2] != (n, size) or len(slide) != n or n == 0 or draws.shape[1] == 0:
        raise DataError(
            f"the draws have shape {draws.shape} and {len(slide)} slide labels, but the test units' expression has "
            f"{truth.shape}; expected [units, draws, genes] of the same units: sample again"
        )
    if len(genes) != size or train_expression.shape[1:] != (size,) or len(train_expression) == 0:
        raise DataError(
            f"the panel has {len(genes)} genes and the training expression shape {train_expression.shape}, "
            f"but the test units have {size} genes; make panel, samples and scores from one panel file"
        )
    for name, values in (("draws", draws), ("measured expression", truth)):
        bad = int((~np.isfinite(values)).any(axis=tuple(range(1, values.ndim))).sum())
        if bad:
            raise DataError(f"the {name} hold values that are not finite in {bad} of {n} units; train or sample again")
