"""A reverse variance that is learned (Nichol & Dhariwal 2021), as the public code of Stem has it.

The network has a second output v; with v' = (v + 1)/2, not clamped, the log variance is v' log beta + (1 - v') log
posterior variance. It is trained by the variational bound, in bits per value, in which the noise output is held fixed
(the bound's gradient reaches the trunk through v alone).

At t = 0 the bound is a likelihood. Two are here: `continuous`, the density itself, and `8bit`, that of a picture in
[-1, 1] quantised to 256 levels, which the public code inherits and which is wrong for expression.
"""

from typing import Literal

import torch

from .ddpm import NoiseSchedule, at

Likelihood = Literal["continuous", "8bit"]


def split(output: torch.Tensor, schedule: NoiseSchedule, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (prediction, log variance), each [B, ...], of a network's output [B, ..., 2]; t int64 [B]."""
    predicted, v = output.unbind(-1)
    # The posterior variance is 0 at the first step; its neighbour stands in for it, as in Ho et al. 2020.
    posterior = schedule.posterior_variance.clone()
    posterior[0] = posterior[1] if len(posterior) > 1 else schedule.beta[0]
    share = (v + 1) / 2
    log_variance = share * at(schedule.beta.log(), t, v) + (1 - share) * at(posterior.log(), t, v)
    return predicted, log_variance


def bound_bits(
    schedule: NoiseSchedule,
    output: torch.Tensor,
    x0: torch.Tensor,
    x_t: torch.Tensor,
    t: torch.Tensor,
    likelihood: Likelihood,
) -> torch.Tensor:
    """Return the variational bound's term of time t in bits per value, mean over units and values, a scalar.

    Parameters
    ----------
    output
        Noise and variance outputs, [B, ..., 2]; no gradient flows through the noise output.
    x0, x_t
        Clean and noisy samples, [B, ...].
    t
        int64 [B].
    likelihood
        What stands at t = 0.
    """
    predicted, log_variance = split(torch.stack([output[..., 0].detach(), output[..., 1]], -1), schedule, t)
    mean = schedule.posterior_mean(schedule.x0_of(x_t, t, predicted), x_t, t)
    true_mean = schedule.posterior_mean(x0, x_t, t)
    true_log_variance = at(schedule.posterior_variance.clamp_min(1e-20).log(), t, x0)
    divergence = 0.5 * (
        log_variance
        - true_log_variance
        - 1
        + (true_log_variance - log_variance).exp()
        + (true_mean - mean) ** 2 * (-log_variance).exp()
    )
    first = (t == 0).reshape(-1, *[1] * (x0.ndim - 1))
    nats = torch.where(first, _negative_log_likelihood(x0, mean, log_variance, likelihood), divergence)
    return nats.mean() / torch.log(torch.tensor(2.0))


def _negative_log_likelihood(x0, mean, log_variance, likelihood: Likelihood) -> torch.Tensor:
    if likelihood == "continuous":
        log_two_pi = torch.log(torch.tensor(2 * torch.pi))
        return 0.5 * (log_two_pi + log_variance + (x0 - mean) ** 2 * (-log_variance).exp())
    scale = (-log_variance / 2).exp()
    upper = torch.special.ndtr((x0 - mean + 1 / 255) * scale)
    lower = torch.special.ndtr((x0 - mean - 1 / 255) * scale)
    probability = torch.where(x0 < -0.999, upper, torch.where(x0 > 0.999, 1 - lower, upper - lower))
    return -probability.clamp_min(1e-12).log()
