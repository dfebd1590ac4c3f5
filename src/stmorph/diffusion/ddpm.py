"""Denoising diffusion in discrete time: noise schedule, forward process, losses and the ancestral sampler.

After Ho et al. 2020 as Stem uses it (Zhu et al., ICLR 2025, section 4): linear betas and a reverse variance that is the
forward process's posterior variance, not learned. (Stem's printed mean divides by sqrt(1 - alpha_t); the posterior mean
of its own forward process has 1 - alpha-bar_t there, and that is what is used here.) The learned variance of its public
code is in `learned_variance.py`.

Time runs from 0 (least noise) to `steps - 1` (most). Tensors have any shape [B, ...]; tables are float64.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from ..errors import ConfigError
from .noise import RowNoise

Target = Literal["noise", "x0", "v"]
"""What a network predicts: the noise, the clean sample, or v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0 (Salimans
& Ho 2022), which is the clean sample where there is most noise and the noise where there is least."""

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x_t [B, ...], t int64 [B]) -> what the network predicts, [B, ...]."""


class NoiseSchedule:
    """How much noise each step holds.

    Attributes
    ----------
    timesteps: int64 [K], the time the network is told at each step (0..K-1, unless respaced).
    beta, alpha_bar, alpha_bar_before: float64 [K]; `alpha_bar` is the share of signal power left,
    `alpha_bar_before` that of the previous (less noisy) step of this very schedule, 1 for the first.
    posterior_variance: float64 [K], of x_{t-1} given x_t and x_0; 0 at the first step.
    """

    def __init__(self, alpha_bar: np.ndarray, timesteps: np.ndarray | None = None):
        alpha_bar = np.asarray(alpha_bar, dtype=np.float64)
        self.alpha_bar = torch.from_numpy(alpha_bar)
        self.alpha_bar_before = torch.from_numpy(np.concatenate([[1.0], alpha_bar[:-1]]))
        self.beta = 1 - self.alpha_bar / self.alpha_bar_before
        self.posterior_variance = self.beta * (1 - self.alpha_bar_before) / (1 - self.alpha_bar)
        self.timesteps = torch.from_numpy(np.arange(len(alpha_bar)) if timesteps is None else np.asarray(timesteps))

    @classmethod
    def linear(cls, steps: int = 1000, beta_first: float = 1e-4, beta_last: float = 0.02) -> "NoiseSchedule":
        """Return the schedule with betas evenly spaced between two values given for 1000 steps, both ends included.

        With another number of steps the betas are multiplied by 1000 / steps, so that the signal left at the last step
        stays about the same (alpha-bar 4.0e-5 for the default betas); a beta never exceeds 0.999.

        Raises
        ------
        ConfigError
            `steps` is below 2.
        """
        if steps < 2:
            raise ConfigError(f"diffusion steps are {steps}; expected at least 2")
        beta = np.minimum(np.linspace(beta_first, beta_last, steps) * (1000 / steps), 0.999)
        return cls(np.cumprod(1 - beta))

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def respaced(self, steps: int) -> "NoiseSchedule":
        """Return the schedule of `steps` evenly spaced times of this one, first and last included.

        alpha-bar is kept at the chosen times and the betas follow from neighbouring chosen times, so the sampler's
        steps are as long as the gaps (Nichol & Dhariwal 2021, section 4).

        Raises
        ------
        ConfigError
            `steps` is below 1 or above this schedule's length.
        """
        if not 1 <= steps <= len(self):
            raise ConfigError(f"sampling steps are {steps}; expected 1 to {len(self)}, the steps of training")
        # A single step must start where the noise is: at the last time.
        chosen = (
            np.linspace(0, len(self) - 1, steps).round().astype(np.int64) if steps > 1 else np.array([len(self) - 1])
        )
        return NoiseSchedule(self.alpha_bar[chosen].numpy(), self.timesteps[chosen].numpy())

    def add_noise(self, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise (Stem, section 4), [B, ...]; t int64 [B]."""
        return at(self.alpha_bar.sqrt(), t, x0) * x0 + at((1 - self.alpha_bar).sqrt(), t, x0) * noise

    def x0_of(self, x_t: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the clean sample that `noise` implies, [B, ...]: the inverse of `add_noise`."""
        return (x_t - at((1 - self.alpha_bar).sqrt(), t, x_t) * noise) / at(self.alpha_bar.sqrt(), t, x_t)

    def noise_of(self, x_t: torch.Tensor, t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        """Return the noise that a clean sample implies, [B, ...]."""
        return (x_t - at(self.alpha_bar.sqrt(), t, x_t) * x0) / at((1 - self.alpha_bar).sqrt(), t, x_t)

    def v_of(self, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return v, [B, ...], of a clean sample and its noise."""
        return at(self.alpha_bar.sqrt(), t, x0) * noise - at((1 - self.alpha_bar).sqrt(), t, x0) * x0

    def x0_of_v(self, x_t: torch.Tensor, t: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the clean sample that v implies, [B, ...]."""
        return at(self.alpha_bar.sqrt(), t, x_t) * x_t - at((1 - self.alpha_bar).sqrt(), t, x_t) * v

    def clean(self, output: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, target: Target) -> torch.Tensor:
        """Return the clean sample, [B, ...], that a network's output of kind `target` implies."""
        if target == "x0":
            return output
        return self.x0_of_v(x_t, t, output) if target == "v" else self.x0_of(x_t, t, output)

    def posterior_mean(self, x0: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the mean of x_{t-1} given x_t and x0, [B, ...] (Ho et al. 2020, equation 7)."""
        before, bar = self.alpha_bar_before, self.alpha_bar
        of_x0 = before.sqrt() * self.beta / (1 - bar)
        of_x_t = (1 - self.beta).sqrt() * (1 - before) / (1 - bar)
        return at(of_x0, t, x_t) * x0 + at(of_x_t, t, x_t) * x_t


def at(table: torch.Tensor, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return table[t] in `like`'s type and on its device, shaped [B, 1, ...] to multiply it."""
    values = table.to(like.device)[t.to(like.device)].to(like.dtype)
    return values.reshape(-1, *[1] * (like.ndim - 1))


def denoising_loss(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    target: Target = "noise",
) -> torch.Tensor:
    """Return the squared error of the prediction, mean over units and values, a scalar.

    Stem, section 4, writes the sum over genes; the mean differs by a factor and keeps learning rates comparable.

    Parameters
    ----------
    x0, noise
        Clean samples and standard normal noise, [B, ...].
    t
        int64 [B], indices into the schedule.
    target
        What the network predicts: the `noise` (Stem), the clean sample `x0` or `v`.
    """
    predicted = predict(schedule.add_noise(x0, t, noise), t)
    wanted = x0 if target == "x0" else schedule.v_of(x0, t, noise) if target == "v" else noise
    return torch.nn.functional.mse_loss(predicted.to(x0.dtype), wanted)


@torch.no_grad()
def sample(
    schedule: NoiseSchedule,
    predict: Predict,
    seeds: Sequence[int],
    shape: Sequence[int],
    *,
    steps: int | None = None,
    target: Target = "noise",
    eta: float = 1.0,
    clip: tuple[float, float] | tuple[torch.Tensor, torch.Tensor] | None = None,
    variance: Callable[[torch.Tensor, NoiseSchedule, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Draw samples by reversing the noising, from pure noise down to time 0; no noise is added at the last step.

    Parameters
    ----------
    schedule
        The schedule of training; `predict` is told its times.
    predict
        The denoiser; rows must not interact in it.
    seeds
        One seed a row: a row's noise depends on its seed alone, whatever rows are drawn beside it.
    shape
        Shape of one row.
    steps
        Steps taken, evenly respaced; None takes all.
    target
        What `predict` returns.
    eta
        1: the ancestral sampler with the posterior variance (Stem, section 4); 0: the deterministic DDIM; values
        between interpolate (Song et al. 2021, equation 16). The previous alpha-bar is that of the respaced schedule.
    clip
        Bounds put on every estimate of the clean sample: numbers (images: -1, 1) or tensors that broadcast with a row;
        None for data without bounds.
    variance
        For a learned variance: (output, respaced schedule, step int64 [B]) -> (prediction, log variance [B, ...]);
        eta must be 1.
    device
        Where `predict` runs.

    Returns
    -------
    torch.Tensor
        float32 [len(seeds), *shape].
    """
    if variance is not None and eta != 1:
        raise ConfigError(
            f"eta is {eta} beside a learned variance; expected 1, for DDIM replaces the variance that was learned"
        )
    stride = schedule if steps is None else schedule.respaced(steps)
    noise = RowNoise(seeds, shape, device)
    x = noise.next()
    for k in reversed(range(len(stride))):
        step = torch.full((len(x),), k, dtype=torch.int64, device=device)
        output = predict(x, torch.full_like(step, int(stride.timesteps[k]))).to(x.dtype)
        log_variance = None
        if variance is not None:
            output, log_variance = variance(output, stride, step)
        x0 = stride.clean(output, x, step, target)
        if clip is not None:
            x0 = x0.clamp(*clip)
        if log_variance is not None:
            x = stride.posterior_mean(x0, x, step)
            if k:
                x = x + (log_variance / 2).exp() * noise.next()
            continue
        sigma = eta * float(stride.posterior_variance[k]) ** 0.5
        before = float(stride.alpha_bar_before[k])
        x = before**0.5 * x0 + max(1 - before - sigma**2, 0.0) ** 0.5 * stride.noise_of(x, step, x0)
        if k and eta:
            x = x + sigma * noise.next()
    return x
