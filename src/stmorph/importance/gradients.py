"""Gene importance from gradients: of the velocity's energy (GeneFlow, section 4.3) and integrated from the mean.

Both take any method with `conditional_energy(batch, t, noise, at)`, `energy_noise_shape()` and `expression_mean`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import pandas as pd
import torch

from ..errors import ConfigError
from ..methods.base import Batch, DataSpec
from ..randomness import normal_rows, seed_of

At = Literal["path", "noise"]
Scaling = Literal["none", "sd"]


class HasEnergy(Protocol):
    """A method whose pictures' energy can be differentiated in expression."""

    spec: DataSpec
    expression_mean: torch.Tensor

    def conditional_energy(self, batch: Batch, t: torch.Tensor, noise: torch.Tensor, at: At) -> torch.Tensor:
        """Return the squared norm of the network's output [B] at times t [B] and noise [B, ...]."""
        ...

    def energy_noise_shape(self) -> tuple[int, ...]:
        """Return the shape of one unit's noise."""
        ...


@dataclass(frozen=True)
class Attribution:
    """genes: DataFrame of gene, importance, signed, rank (1 is most important), se, n.

    completeness: the largest difference between the sum of a unit's attributions and f(x) - f(baseline), relative to
    |f(x) - f(baseline)| or to its mean over units where that is larger; NaN where the question does not arise.
    """

    genes: pd.DataFrame
    completeness: float = float("nan")


def energy_gradients(
    method: HasEnergy,
    batches: Sequence[tuple[Sequence[str], Batch]],
    *,
    times: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    draws: int = 1,
    at: At = "path",
    scaling: Scaling = "sd",
    seed: int = 0,
) -> Attribution:
    """Return S_g, the mean over units, times and draws of |d ||v(x_t, t, X)||^2 / d X_g| (section 4.3).

    Parameters
    ----------
    method
        The model, in evaluation mode.
    batches
        Pairs of the units' names and their batch; a unit's noise comes from its name, so batches can be cut anywhere.
        With `at="path"` the batch needs pictures. Where it has cells, a unit's gradient is the sum over its cells.
    times, draws
        Times t in [0, 1] and noises per unit and time.
    at
        `path`: x_t lies between noise and the unit's picture, where the velocity was learned; `noise`: pure noise at
        every t, as in the public code.
    scaling
        `sd`: gradients times the gene's standard deviation over the units (cells), so that genes in different ranges
        can be compared; `none`: the raw derivative, as in the public code.
    seed
        The run's seed.

    Returns
    -------
    Attribution
        `importance` is the mean of absolute derivatives, `signed` the mean of derivatives, `se` the importance's
        standard error over units, n the number of units.

    Raises
    ------
    ConfigError
        There are no units, times or draws.
    """
    _check_any(batches, times, draws)
    absolute, signed = [], []
    for names, batch in batches:
        sums = torch.zeros(2, len(batch), len(method.spec.genes), dtype=torch.float64)
        for t, noise in _evaluations(method, names, times, draws, seed):
            gradient = _gradient(method, batch, t, noise, at)
            sums += torch.stack([gradient.abs(), gradient]).double().cpu()
        absolute.append(sums[0] / (len(times) * draws))
        signed.append(sums[1] / (len(times) * draws))
    scale = _standard_deviation([batch for _, batch in batches]) if scaling == "sd" else 1.0
    return Attribution(
        _table(method.spec.genes, torch.cat(absolute).numpy() * scale, torch.cat(signed).numpy() * scale)
    )


def integrated_gradients(
    method: HasEnergy,
    batches: Sequence[tuple[Sequence[str], Batch]],
    *,
    times: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    draws: int = 1,
    at: At = "path",
    steps: int = 32,
    seed: int = 0,
) -> Attribution:
    """Return integrated gradients of the mean energy over times and draws, from the training mean to each unit.

    The integral is captum's, by Gauss-Legendre quadrature with `steps` nodes. A unit's attributions sum to
    f(X) - f(baseline); `completeness` says how nearly. The other parameters are those of `energy_gradients`; `signed`
    is the mean attribution and `importance` the mean of its absolute value.

    Raises
    ------
    ConfigError
        There are no units, times or draws.
    """
    from captum.attr import IntegratedGradients

    _check_any(batches, times, draws)
    attributions, gaps, differences = [], [], []
    for names, batch in batches:
        genes_of, mask = _input(batch)
        baseline = method.expression_mean.to(genes_of).expand_as(genes_of)
        if mask is not None:
            baseline = baseline * mask.unsqueeze(-1)
        total = torch.zeros(len(batch), len(method.spec.genes), dtype=torch.float64)
        gap = torch.zeros(len(batch), dtype=torch.float64)
        difference = torch.zeros_like(gap)
        for t, noise in _evaluations(method, names, times, draws, seed):
            t, noise = t.to(genes_of.device), noise.to(genes_of.device)

            def energy(x: torch.Tensor, row: torch.Tensor, t=t, noise=noise, batch=batch) -> torch.Tensor:
                rows = batch.take(row)
                return method.conditional_energy(_with_input(rows, x), t[row], noise[row], at)

            row = torch.arange(len(batch), device=genes_of.device)
            part = IntegratedGradients(energy).attribute(
                genes_of,
                baseline,
                additional_forward_args=(row,),
                n_steps=steps,
                method="gausslegendre",
                internal_batch_size=max(len(batch), steps),
            )
            with torch.no_grad():
                change = (energy(genes_of, row) - energy(baseline, row)).double().cpu()
            part = _per_unit(part).double().cpu()
            total, difference, gap = total + part, difference + change, gap + part.sum(1) - change
        evaluations = len(times) * draws
        attributions.append(total / evaluations)
        gaps.append(gap / evaluations)
        differences.append(difference / evaluations)
    size = torch.cat(differences).abs()
    relative = torch.cat(gaps).abs() / torch.maximum(size, size.mean()).clamp(min=1e-12)
    values = torch.cat(attributions).numpy()
    return Attribution(_table(method.spec.genes, np.abs(values), values), float(relative.max()))


def _check_any(batches: Sequence[tuple[Sequence[str], Batch]], times: Sequence[float], draws: int) -> None:
    if not (len(times) and draws > 0 and sum(len(batch) for _, batch in batches)):
        raise ConfigError("gene importance has no units, times or draws to average over; give at least one of each")


def _evaluations(
    method: HasEnergy, names: Sequence[str], times: Sequence[float], draws: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    shape = method.energy_noise_shape()
    for k, t in enumerate(times):
        for draw in range(draws):
            seeds = [seed_of("gene importance", seed, str(name), k, draw) for name in names]
            yield torch.full((len(names),), float(t)), normal_rows(seeds, shape)


def _gradient(method: HasEnergy, batch: Batch, t: torch.Tensor, noise: torch.Tensor, at: At) -> torch.Tensor:
    x, _ = _input(batch)
    x = x.detach().requires_grad_()
    energy = method.conditional_energy(_with_input(batch, x), t.to(x.device), noise.to(x.device), at)
    # Rows do not interact, so the gradient of the sum holds each row's own.
    return _per_unit(torch.autograd.grad(energy.sum(), x)[0])


def _input(batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    return (batch.expression, None) if batch.cells is None else (batch.cells, batch.cell_mask)


def _with_input(batch: Batch, x: torch.Tensor) -> Batch:
    return replace(batch, expression=x) if batch.cells is None else replace(batch, cells=x)


def _per_unit(gradient: torch.Tensor) -> torch.Tensor:
    return gradient if gradient.ndim == 2 else gradient.sum(1)


def _standard_deviation(batches: Sequence[Batch]) -> np.ndarray:
    inputs = [_input(batch) for batch in batches]
    rows = torch.cat([x if mask is None else x[mask] for x, mask in inputs])
    return rows.double().std(0, correction=0).cpu().numpy()


def _table(genes: Sequence[str], absolute: np.ndarray, signed: np.ndarray) -> pd.DataFrame:
    n = len(absolute)
    importance = absolute.mean(0)
    # Equal importances rank in the panel's order.
    order = np.argsort(-importance, kind="stable")
    rank = np.empty(len(genes), dtype=np.int64)
    rank[order] = np.arange(1, len(genes) + 1)
    se = absolute.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(genes), np.nan)
    columns = {"gene": genes, "importance": importance, "signed": signed.mean(0), "rank": rank, "se": se, "n": n}
    return pd.DataFrame(columns)
