"""GeneFlow: rectified flow from noise to tissue, conditioned on expression (section 3.2)."""

from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from ...errors import ConfigError
from ...flow.path import Path
from ...flow.solver import solve
from ...randomness import BatchRandom, normal_rows
from ...units import Units
from ..base import Batch, DataSpec
from .options import GeneFlowOptions
from .picture import PictureMethod

PICTURES_MEASURED = 512
LAST_MOMENT = 1e-3
"""How long before t = 1 a network that predicts `data` is asked last: its velocity has no value at 1."""
MOST_WEIGHT = 10.0
"""Bound on the weight of a picture's error in the velocity's, which grows as 1 / (1 - t)^2."""


class GeneFlow(PictureMethod):
    """The velocity of the path from noise to pictures, learned by mean squared error; sampling follows it.

    Raises
    ------
    ConfigError
        The options contradict each other.
    """

    Options = GeneFlowOptions

    def __init__(self, options: GeneFlowOptions, spec: DataSpec):
        super().__init__(options, spec)
        if options.predicts == "data" and options.precondition:
            raise ConfigError(
                "geneflow's option precondition is true with predicts: data, expected only with predicts: velocity; "
                "switch one of the two off"
            )
        self.path = Path(options.path, options.sigma, options.noise_derivative)
        self.register_buffer("picture_mean", torch.zeros(spec.channels, 1, 1))
        self.register_buffer("picture_sd", torch.ones(spec.channels, 1, 1))

    def prepare(self, units: Units) -> None:
        """Keep the training expression's scale and, to precondition, the mean and spread of the training pictures."""
        super().prepare(units)
        if self.options.precondition:
            some = np.linspace(0, len(units) - 1, min(len(units), PICTURES_MEASURED)).round().astype(np.int64)
            tiles = torch.from_numpy(np.ascontiguousarray(units.tiles.read(some)))
            values = self.to_model(tiles.double() / 127.5 - 1).flatten(0, 2)
            self.picture_mean.copy_(values.mean(0)[:, None, None])
            # A constant channel would divide by nothing at t = 1.
            self.picture_sd.copy_(values.std(0, correction=0).clamp(min=0.01)[:, None, None])

    def estimate(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the picture [B, C, H, W] that x will become, as a network that predicts `data` believes at times t."""
        return self.unet(x, t, condition).float()

    def velocity(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the learned velocity [B, C, H, W] at x, times t [B] and embeddings [B, embedding_dim]."""
        if self.options.predicts == "data":
            # At t = 1 the velocity is 0 / 0: it is held from shortly before.
            t = t.clamp(max=1 - LAST_MOMENT)
            return self.path.velocity_of_data(x, t, self.estimate(x, t, condition))
        v = self.unet(x, t, condition).float()
        if self.options.precondition:
            v = v + self.path.linear_velocity(x, t, self.picture_mean, self.picture_sd)
        return v

    def training_step(self, batch: Batch, rng: BatchRandom) -> dict[str, torch.Tensor]:
        """Return `loss` and its parts: `velocity` (eq. 10), `sparsity` and, where it is on, `guide`."""
        x1 = self.to_model(batch.image)
        t = (rng.uniform() ** self.options.time_power).to(x1.device)
        noise = rng.normal(*x1.shape[1:]).to(x1.device)
        z = rng.normal(*x1.shape[1:]).to(x1.device)
        condition = self.condition(batch)
        x = self.path.point(x1, noise, z, t)
        if self.options.predicts == "data":
            t = t.clamp(max=1 - LAST_MOMENT)
            error = (self.estimate(x, t, condition) - x1).square().mean((1, 2, 3))
            velocity = (self.path.data_gain(t).square().clamp(max=MOST_WEIGHT) * error).mean()
        else:
            velocity = functional.mse_loss(self.velocity(x, t, condition), self.path.velocity(x1, noise, z, t))
        return self.with_encoder_losses({"velocity": velocity}, condition, x1)

    def sampled(self, seeds: list[int], condition: torch.Tensor) -> torch.Tensor:
        """Return where the velocity leads from each seed's noise [N, C, H, W]."""
        return self.follow(normal_rows(seeds, self.picture_shape).to(condition.device), condition)

    @torch.no_grad()
    def follow(self, start: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return where the velocity leads standard normal noise [N, C, H, W] under embeddings [N, embedding_dim].

        A network that predicts `data` is followed until one step before the end, and its estimate there is the result:
        a step of any solver across t = 1 would meet a velocity that is 0 / 0.
        """
        o = self.options
        if o.start_noise == "fixed":
            start = start * self.path.start_scale()
        end = 1.0
        if o.predicts == "data":
            end = 1 - (LAST_MOMENT if o.solver == "dopri5" else 1 / (o.steps + 1))
        x = solve(
            lambda x, t, rows: end * self.velocity(x, end * t, condition[rows]),
            start,
            o.solver,
            steps=o.steps,
            rtol=o.rtol,
            atol=o.atol,
            max_steps=o.max_steps,
        ).x
        return self.estimate(x, x.new_full((len(x),), end), condition) if o.predicts == "data" else x

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
        return self.velocity(x, t, self.condition(batch)).square().sum((1, 2, 3))
