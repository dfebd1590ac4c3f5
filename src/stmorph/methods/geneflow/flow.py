"""GeneFlow: rectified flow from noise to tissue, conditioned on expression (section 3.2)."""

from typing import Literal

import torch
from torch.nn import functional

from ...flow.path import Path
from ...flow.solver import solve
from ...randomness import normal_rows
from ..base import Batch, DataSpec
from .options import GeneFlowOptions
from .picture import PictureMethod


class GeneFlow(PictureMethod):
    """The velocity of the path from noise to pictures, learned by mean squared error; sampling follows it."""

    Options = GeneFlowOptions

    def __init__(self, options: GeneFlowOptions, spec: DataSpec):
        super().__init__(options, spec)
        self.path = Path(options.path, options.sigma, options.noise_derivative)

    def training_step(self, batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Return `loss`, and its parts `velocity` (eq. 10) and `sparsity`."""
        x1 = self.to_model(batch.image)
        t = torch.rand(len(batch), generator=rng).to(x1.device)
        noise = torch.randn(x1.shape, generator=rng).to(x1.device)
        z = torch.randn(x1.shape, generator=rng).to(x1.device)
        predicted = self.unet(self.path.point(x1, noise, z, t), t, self.condition(batch))
        velocity = functional.mse_loss(predicted.float(), self.path.velocity(x1, noise, z, t))
        sparsity = self.sparsity_loss()
        return {"loss": velocity + sparsity, "velocity": velocity.detach(), "sparsity": sparsity.detach()}

    @torch.no_grad()
    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return pictures uint8 [B, draws, H, W, C]."""
        o, (units, draws) = self.options, seeds.shape
        condition = self.condition(batch).repeat_interleave(draws, 0)
        start = normal_rows(seeds.flatten().tolist(), self.picture_shape).to(condition.device)
        if o.start_noise == "fixed":
            start = start * self.path.start_scale()
        solution = solve(
            lambda x, t, rows: self.unet(x, t, condition[rows]).float(),
            start,
            o.solver,
            steps=o.steps,
            rtol=o.rtol,
            atol=o.atol,
            max_steps=o.max_steps,
        )
        return self.to_pictures(solution.x).unflatten(0, (units, draws))

    def energy_noise_shape(self) -> tuple[int, ...]:
        """Return the shape of one unit's noise in `conditional_energy`."""
        return 2, *self.picture_shape

    def conditional_energy(
        self, batch: Batch, t: torch.Tensor, noise: torch.Tensor, at: Literal["path", "noise"] = "path"
    ) -> torch.Tensor:
        """Return the squared norm of the velocity [B], differentiable in the batch's expression (section 4.3).

        Parameters
        ----------
        batch
            Units with expression (or cells) and, for `path`, their pictures.
        t
            Times [B] in [0, 1].
        noise
            Standard normal [B, 2, C, H, W].
        at
            `path`: at x_t between noise and the unit's picture, where the velocity was learned; `noise`: at pure noise
            whatever t is, as the public code does.
        """
        start, z = noise[:, 0], noise[:, 1]
        x = start if at == "noise" else self.path.point(self.to_model(batch.image), start, z, t)
        return self.unet(x, t, self.condition(batch)).float().square().sum((1, 2, 3))
