"""The path from noise (t = 0) to a picture (t = 1), and the velocity that a network learns (GeneFlow, section 3.2)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

Shape = Literal["sine", "linear"]
NoiseDerivative = Literal["paper", "code", "fixed"]
SIGNS = {"paper": 1.0, "code": 0.0, "fixed": -1.0}
"""Of sigma z in the velocity."""


@dataclass(frozen=True)
class Path:
    """x_t = s(t) x1 + (1 - s(t)) noise + sigma (1 - t) z, with noise and z standard normal (eq. 8).

    shape: `sine`, s = sin(pi t / 2), or `linear`, s = t. Both go along the same straight line at different speeds.
    sigma: the size of the perturbation that fades towards the picture; 0 switches it off.
    noise_derivative: what the velocity holds of the perturbation, whose derivative is -sigma z. `paper`: +sigma z, the
        sign of eq. 9; `code`: nothing; `fixed`: -sigma z, so that the velocity is the derivative of the path.
    """

    shape: Shape = "sine"
    sigma: float = 0.05
    noise_derivative: NoiseDerivative = "fixed"

    def share(self, t: torch.Tensor) -> torch.Tensor:
        """Return s(t), the picture's share at time t."""
        return torch.sin(t * (math.pi / 2)) if self.shape == "sine" else t

    def speed(self, t: torch.Tensor) -> torch.Tensor:
        """Return ds/dt."""
        return torch.cos(t * (math.pi / 2)) * (math.pi / 2) if self.shape == "sine" else torch.ones_like(t)

    def point(self, x1: torch.Tensor, noise: torch.Tensor, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return x_t [B, ...] for pictures and two noises [B, ...] at times t [B] (eq. 8)."""
        t = _beside(t, x1)
        s = self.share(t)
        return s * x1 + (1 - s) * noise + self.sigma * (1 - t) * z

    def velocity(self, x1: torch.Tensor, noise: torch.Tensor, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the velocity [B, ...] that is learned at x_t (eq. 9 and the switch `noise_derivative`)."""
        return self.speed(_beside(t, x1)) * (x1 - noise) + SIGNS[self.noise_derivative] * self.sigma * z

    def linear_velocity(self, x: torch.Tensor, t: torch.Tensor, mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
        """Return the best guess of the path's derivative [B, ...] that is linear in x_t alone.

        For pictures whose values have `mean` and `sd` (both broadcast against x); exact where values are independent
        and normal. What remains for a network is what pictures have beyond that.
        """
        t = _beside(t, x)
        s, speed, fade = self.share(t), self.speed(t), self.sigma * (1 - t)
        variance = s**2 * sd**2 + (1 - s) ** 2 + fade**2
        covariance = speed * (s * sd**2 - (1 - s)) - self.sigma * fade
        return speed * mean + covariance / variance * (x - s * mean)

    def velocity_of_data(self, x: torch.Tensor, t: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
        """Return the velocity [B, ...] at x_t that follows from the picture x1 [B, ...], for t [B] below 1.

        x_t - s x1 is all that is known of the two noises together, and with it both their means: the result is the mean
        of `velocity` given x_t and x1, which is `velocity` itself where sigma is 0. It is linear in x1, so the best
        estimate of the picture gives the best estimate of the velocity; any error in x1 is multiplied by `data_gain`.
        """
        t = _beside(t, x)
        return self.data_gain(t) * x1 + self._decay(t) * x

    def data_gain(self, t: torch.Tensor) -> torch.Tensor:
        """Return by how much `velocity_of_data` grows with x1, at times t below 1; it grows without bound towards 1."""
        return self.speed(t) - self.share(t) * self._decay(t)

    def _decay(self, t: torch.Tensor) -> torch.Tensor:
        rest, fade = 1 - self.share(t), self.sigma * (1 - t)
        return (SIGNS[self.noise_derivative] * self.sigma * fade - self.speed(t) * rest) / (rest**2 + fade**2)

    def start_scale(self) -> float:
        """Return the standard deviation of x_0: the noise and the perturbation together."""
        return math.sqrt(1 + self.sigma**2)


def _beside(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return t.reshape(-1, *([1] * (x.ndim - 1)))
