"""GeneFlow's diffusion comparator (section 4.2): the same encoder and U-Net, trained by denoising.

The public comparator trains on pictures in [0, 1] but samples as if they were in [-1, 1], which washes its pictures out
and flatters the flow; here both ends use one range.
"""

from typing import Literal

import numpy as np
import torch

from ..diffusion.ddpm import NoiseSchedule, denoising_loss, sample
from ..randomness import BatchRandom
from .base import Batch, DataSpec
from .geneflow.options import GeneFlowDiffusionOptions
from .geneflow.picture import PictureMethod


def cosine_schedule(steps: int, offset: float = 0.008, largest_beta: float = 0.999) -> NoiseSchedule:
    """Return the schedule whose signal falls as a squared cosine (Nichol & Dhariwal 2021, equation 17)."""
    signal = np.cos((np.linspace(0, 1, steps + 1) + offset) / (1 + offset) * np.pi / 2) ** 2
    beta = np.minimum(1 - signal[1:] / signal[:-1], largest_beta)
    return NoiseSchedule(np.cumprod(1 - beta))


class GeneFlowDiffusion(PictureMethod):
    """Denoising diffusion of pictures, conditioned on expression, with the ancestral sampler."""

    Options = GeneFlowDiffusionOptions

    def __init__(self, options: GeneFlowDiffusionOptions, spec: DataSpec):
        super().__init__(options, spec)
        cosine = options.schedule == "cosine"
        self.schedule = cosine_schedule(options.timesteps) if cosine else NoiseSchedule.linear(options.timesteps)

    def _predict(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        # The U-Net takes times in [0, 1].
        return self.unet(x, t.float() / len(self.schedule), condition).float()

    def training_step(self, batch: Batch, rng: BatchRandom) -> dict[str, torch.Tensor]:
        """Return `loss` and its parts: `denoising`, `sparsity` and, where it is on, `guide`."""
        x0 = self.to_model(batch.image)
        t = rng.integers(len(self.schedule)).to(x0.device)
        noise = rng.normal(*x0.shape[1:]).to(x0.device)
        condition = self.condition(batch)
        denoising = denoising_loss(
            self.schedule, lambda x, t: self._predict(x, t, condition), x0, t, noise, self.options.predict
        )
        return self.with_encoder_losses({"denoising": denoising}, condition, x0)

    def sampled(self, seeds: list[int], condition: torch.Tensor) -> torch.Tensor:
        """Return what each seed's noise is denoised to [N, C, H, W]."""
        return sample(
            self.schedule,
            lambda x, t: self._predict(x, t, condition),
            seeds,
            self.picture_shape,
            steps=self.options.sampling_steps,
            target=self.options.predict,
            clip=(0, 1) if self.options.image_range == "code" else (-1, 1),
            device=condition.device,
        )

    def energy_noise_shape(self) -> tuple[int, ...]:
        """Return the shape of one unit's noise in `conditional_energy`."""
        return 1, *self.picture_shape

    def conditional_energy(
        self, batch: Batch, t: torch.Tensor, noise: torch.Tensor, at: Literal["path", "noise"] = "path"
    ) -> torch.Tensor:
        """Return the squared norm of the network's output [B], differentiable in the batch's expression.

        t [B] in [0, 1] runs from noise to picture as in the flow; noise is standard normal [B, 1, C, H, W].
        """
        step = ((1 - t) * (len(self.schedule) - 1)).round().long()
        x = noise[:, 0]
        if at == "path":
            x = self.schedule.add_noise(self.to_model(batch.image), step, x)
        return self._predict(x, step, self.condition(batch)).square().sum((1, 2, 3))


METHOD = GeneFlowDiffusion
