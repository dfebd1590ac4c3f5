"""Molecules counted at spots and cells, given what the programmes do there."""

import numpy as np

from ..randomness import numpy_generator
from .options import SimulationOptions
from .programmes import GeneCatalogue, catalogue

FIELD_WAVES = 48
"""Waves summed for a gene's own field: enough for a field that is Gaussian at any point."""

OWN_FIELD_UM = 160.0
"""Length over which a gene's own field varies, about that of the programmes' fields."""


def slide_depth(options: SimulationOptions, slide: str, patient: str, seed: int) -> float:
    """Return the slide's expected molecules per spot: the options' depth x exp(normal of sd `depth_sd`)."""
    rng = numpy_generator(seed, slide, patient, "depth")
    return float(options.depth * np.exp(options.depth_sd * rng.standard_normal()))


def own_fields(genes: GeneCatalogue, xy_um: np.ndarray, slide: str, patient: str, seed: int) -> np.ndarray:
    """Return the log rate that no morphology follows, float64 [n, G]: a smooth Gaussian field per gene and slide.

    Sums of random plane waves give a field at any point without a grid; 0 for genes that have no field.
    """
    fields = np.zeros((len(xy_um), len(genes)))
    for g in np.flatnonzero(genes.field_sd):
        rng = numpy_generator(seed, slide, patient, "own field", genes.name[g])
        waves = rng.normal(0, 1 / OWN_FIELD_UM, (2, FIELD_WAVES))
        phase = rng.uniform(0, 2 * np.pi, FIELD_WAVES)
        fields[:, g] = genes.field_sd[g] * np.sqrt(2 / FIELD_WAVES) * np.cos(xy_um @ waves + phase).sum(axis=1)
    return fields


def expected_counts(
    genes: GeneCatalogue, activity: np.ndarray, own: np.ndarray, total: float | np.ndarray
) -> np.ndarray:
    """Return expected molecules, float64 [n, G]: share x exp(slope x activity + own field), scaled.

    Parameters
    ----------
    activity
        Programme activities [n, 6], 0 to 1.
    own
        Each gene's own log rate [n, G].
    total
        Molecules expected of a unit with activities spread evenly over 0 to 1, a number or one per unit [n]. A unit
        in which more programmes are active has more molecules.
    """
    rate = genes.share * np.exp(genes.log_gain(activity) + own) / genes.reference_total()
    return rate * np.broadcast_to(np.asarray(total, dtype=np.float64).reshape(-1, 1), (len(rate), 1))


def draw_counts(expected: np.ndarray, overdispersion: float, dropout: float, rng: np.random.Generator) -> np.ndarray:
    """Draw counts, int32 [n, G]: gamma-Poisson, then dropout.

    A count is lost with probability d / (d + mean (1 - d)), which is `dropout` at a mean of one molecule and falls
    hyperbolically above it.
    """
    shape = 1 / overdispersion if overdispersion > 0 else None
    rate = expected if shape is None else expected * rng.gamma(shape, overdispersion, expected.shape)
    counts = rng.poisson(rate)
    lost = rng.random(expected.shape) * (dropout + expected * (1 - dropout)) < dropout
    return np.where(lost, 0, counts).astype(np.int32)


def spot_counts(
    options: SimulationOptions,
    activity: np.ndarray,
    tissue_fraction: np.ndarray,
    xy_um: np.ndarray,
    slide: str,
    patient: str,
    seed: int,
) -> np.ndarray:
    """Return counts of spots, int32 [n, G], from the mean activities [n, 6] of the tissue under their discs."""
    genes = catalogue(options.noise_genes)
    total = slide_depth(options, slide, patient, seed) * tissue_fraction
    own = own_fields(genes, xy_um, slide, patient, seed)
    # Barcodes differ in how much they catch, whatever lies above them.
    total = total * np.exp(0.15 * numpy_generator(seed, slide, patient, "capture").standard_normal(len(xy_um)))
    rng = numpy_generator(seed, slide, patient, "counts")
    return draw_counts(expected_counts(genes, activity, own, total), options.overdispersion, options.dropout, rng)
