"""Scores of generated pictures beside real ones: SSIM, feature distance, FID and KID, per slide and over slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import DataError
from .conditioning import Programmes, programme_scores, retrieval_scores
from .features import FeatureExtractor, scale_by
from .frechet import fid, kid
from .resample import Estimate, bootstrap_counts, bootstrap_mean, over_slides, slides_of
from .rows import Score


@dataclass(frozen=True)
class ReferenceTiles:
    """The real pictures that a distribution is compared with.

    name: as it stands in the scores, e.g. `paired test tiles` or `training tiles`. tiles: uint8 [m, H, W, 3].
    slide: str [m]; a test slide is compared with the reference's tiles of the same slide where there are any, else
    with all of them.
    """

    name: str
    tiles: np.ndarray
    slide: np.ndarray


def score_generator(
    generated: np.ndarray,
    real: np.ndarray,
    slide: np.ndarray,
    extractor: FeatureExtractor,
    *,
    reference: ReferenceTiles | None = None,
    programmes: Programmes | None = None,
    target_space: str | None = None,
    seed: int = 0,
    resamples: int = 200,
    fid_groups: int = 10,
) -> list[Score]:
    """Score generated pictures (GeneFlow, section 4.2) by the first draw of each unit, one picture per condition.

    Rows: `ssim`, `ssim_sd`, `feature_distance`, `feature_distance_sd` against the paired real tile; `fid`, `kid`
    against the reference set, per slide, `all` and `pooled`; `retrieval_*` and, where `programmes` is given,
    `programme_*` (module `conditioning`).

    Parameters
    ----------
    generated
        uint8 [n, draws, H, W, 3].
    real
        The units' own tiles, uint8 [n, H, W, 3].
    slide
        Slide of each unit, str [n].
    extractor
        Features; scaled by the reference's real tiles (`features.scale_by`).
    reference
        Real pictures for FID and KID; None: the paired test tiles.

    Raises
    ------
    DataError
        The pictures do not belong together, a slide has fewer than two units, or features are not finite.
    """
    if generated.ndim != 5 or generated.shape[1] < 1 or (len(generated), *generated.shape[2:]) != real.shape:
        raise DataError(
            f"the generated pictures have shape {generated.shape}, the real tiles {real.shape}; expected "
            "[n, draws, H, W, 3] and [n, H, W, 3] of the same units: sample again"
        )
    if len(slide) != len(real) or len(real) == 0:
        raise DataError(f"there are {len(slide)} slide labels for {len(real)} test tiles; make tiles and samples again")
    first = generated[:, 0]
    raw_generated, raw_real = extractor(first), extractor(real)
    raw_reference = raw_real if reference is None else extractor(reference.tiles)
    scale = scale_by(extractor.name, raw_reference)
    x, y, z = scale(raw_generated), scale(raw_real), scale(raw_reference)
    paired = Score("", np.nan, estimator="draw", reference="paired test tiles", target_space=target_space)
    groups = slides_of(slide)
    counts = {name: bootstrap_counts(len(index), resamples, seed, name) for name, index in groups.items()}
    similarity, window = ssim(first, real)
    ssim_row = replace(paired, metric="ssim", note=f"Gaussian window of {window} px")
    rows = paired_scores(similarity, groups, counts, ssim_row)
    distance = np.linalg.norm(x - y, axis=1)
    featured = replace(paired, features=scale.name)
    rows += paired_scores(distance, groups, counts, replace(featured, metric="feature_distance"))
    against = featured if reference is None else replace(featured, reference=reference.name)
    rows += distribution_scores(x, slide, z, slide if reference is None else reference.slide, against, fid_groups)
    rows += retrieval_scores(x, y, groups, counts, featured)
    if programmes is not None:
        rows += programme_scores(
            programmes, raw_generated, raw_real, groups, counts, replace(paired, features=extractor.name)
        )
    return rows


def ssim(generated: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the structural similarity of each pair, float64 [n], and the window's side in px.

    As Wang et al. 2004: Gaussian weights of sigma 1.5 px (a window of 11 px), population moments, range 255, mean of
    the three colours. Tiles smaller than 11 px take the largest odd window that fits, with sigma in proportion.

    Parameters
    ----------
    generated, real
        uint8 [n, H, W, 3].
    """
    from skimage.metrics import structural_similarity

    side = min(real.shape[1:3])
    window = min(11, side if side % 2 else side - 1)
    options = {"gaussian_weights": True, "sigma": 1.5 * window / 11, "use_sample_covariance": False}
    values = [
        structural_similarity(a, b, win_size=window, data_range=255, channel_axis=-1, **options)
        for a, b in zip(generated, real)
    ]
    return np.array(values, dtype=np.float64), window


def paired_scores(
    values: np.ndarray, groups: Mapping[str, np.ndarray], counts: Mapping[str, np.ndarray], row: Score
) -> list[Score]:
    """Return rows of the mean and of the standard deviation (`_sd`, what papers print after the ±) of values [n]."""
    mean = {s: bootstrap_mean(values[i], counts[s]) for s, i in groups.items()}
    spread = {}
    for s, index in groups.items():
        centred = values[index] - values[index].mean()
        first, second = (bootstrap_mean(centred**power, counts[s]).replicates for power in (1, 2))
        spread[s] = Estimate(float(centred.std()), len(index), np.sqrt(np.clip(second - first**2, 0, None)))
    return over_slides(mean, row) + over_slides(spread, replace(row, metric=f"{row.metric}_sd"))


def distribution_scores(
    generated: np.ndarray,
    slide: np.ndarray,
    reference: np.ndarray,
    reference_slide: np.ndarray,
    row: Score,
    fid_groups: int = 10,
) -> list[Score]:
    """Return FID and KID of features [n, d] against a reference set's [m, d], per slide, `all` and `pooled`.

    `all` is the mean of the slides' own values; `pooled` compares the units of all slides as one set with the whole
    reference, as published FIDs do.
    """
    groups, there = slides_of(slide), slides_of(reference_slide)
    everything = np.arange(len(reference))
    rows: list[Score] = []
    for metric, measure in (("fid", lambda a, b: fid(a, b, fid_groups)), ("kid", kid)):
        per_slide = {s: measure(generated[i], reference[there.get(s, everything)]) for s, i in groups.items()}
        named = replace(row, metric=metric)
        rows += over_slides(per_slide, named)
        rows.append(measure(generated, reference).fill(replace(named, slide="pooled")))
    return rows


def names_of_features(extractor: FeatureExtractor) -> Sequence[str]:
    """Return the names of the extractor's features where they have a meaning of their own (`morphometric`), else ()."""
    return getattr(getattr(extractor, "encoder", None), "features", ())
