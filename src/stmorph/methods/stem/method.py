"""Stem as a method: scaling of expression and embedding, the loss, and draws by reverse diffusion.

Every point where the paper and its public code disagree, or where either is ill-posed, is an option whose values are
`paper`, `code` and `fixed`; where two values do the same, the comment says so. The options that concern training alone
(augmented views, EMA and its warm-up) belong to the training loop, and the statistic over draws to the scores.
"""

from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch.nn import functional as F

from ...diffusion import learned_variance
from ...diffusion.ddpm import NoiseSchedule, denoising_loss, sample
from ...errors import ConfigError
from ...randomness import BatchRandom
from ...units import Units
from ..base import Batch, DataSpec, Method, MethodOptions
from .network import GeneDiT

Switch = Literal["paper", "code", "fixed"]


class StemOptions(MethodOptions):
    """Stem's hyper-parameters; the defaults are the paper's (appendix C) with its well-posed repairs (`fixed`)."""

    blocks: int = Field(12, ge=1)
    heads: int = Field(6, ge=1)
    width: int = Field(384, ge=2)
    mlp_ratio: float = Field(4.0, gt=0)
    genes_per_token: int = Field(1, ge=1)
    """1: paper and code; more make attention cheaper for runs without a GPU."""
    condition_hidden: int | None = Field(None, ge=1)
    """Hidden width of the embedding's MLP; None: as wide as the embedding, as in the code."""
    diffusion_steps: int = Field(1000, ge=2)
    beta_first: float = Field(1e-4, gt=0, lt=1)
    beta_last: float = Field(0.02, gt=0, lt=1)
    sampling_steps: int = Field(1000, ge=1)
    eta: float = Field(1.0, ge=0, le=1)
    """1: ancestral sampling, as in the paper; 0: deterministic DDIM."""
    predicts: Literal["noise", "x0", "v"] = "noise"
    """`noise`: paper and code. `x0`: the clean sample. `v`: clean sample where there is most noise, noise where
    there is least, which learns the conditional mean in far fewer steps and keeps the spread from the start."""
    variance: Switch = "paper"
    """`paper`: the posterior variance, not learned; `code`: a learned range, trained by the full bound with an 8-bit
    picture's likelihood at t = 0; `fixed`: a learned range whose bound weighs 0.001 and has a density at t = 0."""
    activation: Switch = "fixed"
    """Of the blocks' feed-forward. `paper`: SiLU; `code` and `fixed`: GELU (tanh), as in DiT."""
    expression_scaling: Switch = "fixed"
    """`paper` and `code`: the target space as it is; `fixed`: each gene to mean 0 and variance 1 by the training units'
    statistics, for the diffusion's start from unit noise assumes it; draws are scaled back."""
    embedding_scaling: Switch = "fixed"
    """`paper` and `code`: the encoder's output as it is; `fixed`: standardised by the training units' statistics."""
    clip: Literal["none", "training_range", "nonnegative"] = "none"
    """`none`: paper and code; `training_range`: estimates of the clean sample stay within each gene's training range at
    every step; `nonnegative`: finished draws below 0 become 0."""

    @model_validator(mode="after")
    def _consistent(self) -> "StemOptions":
        if self.width % self.heads:
            raise ValueError(f"width is {self.width} and heads {self.heads}; expected a width that heads divides")
        if self.sampling_steps > self.diffusion_steps:
            raise ValueError(
                f"sampling_steps is {self.sampling_steps}; expected at most diffusion_steps ({self.diffusion_steps})"
            )
        if self.variance != "paper" and (self.predicts != "noise" or self.eta != 1):
            raise ValueError("a learned variance (variance: code or fixed) expects predicts: noise and eta: 1")
        return self


class Stem(Method):
    """Draws expression given a tile's embedding with a conditional diffusion transformer."""

    family = "predictor"
    needs = frozenset({"embedding"})
    trains = "steps"
    Options = StemOptions

    def __init__(self, options: StemOptions, spec: DataSpec):
        super().__init__(options, spec)
        if spec.embedding_dim < 1 or not spec.genes:
            raise ConfigError(
                f"stem was given an embedding of {spec.embedding_dim} dimensions and {len(spec.genes)} genes; "
                "expected at least one of each, choose an encoder and a panel"
            )
        genes = len(spec.genes)
        self.schedule = NoiseSchedule.linear(options.diffusion_steps, options.beta_first, options.beta_last)
        self.network = GeneDiT(
            genes,
            spec.embedding_dim,
            genes_per_token=options.genes_per_token,
            width=options.width,
            blocks=options.blocks,
            heads=options.heads,
            mlp_ratio=options.mlp_ratio,
            condition_hidden=options.condition_hidden or spec.embedding_dim,
            channels=1 if options.variance == "paper" else 2,
            activation=F.silu if options.activation == "paper" else partial(F.gelu, approximate="tanh"),
        )
        self.register_buffer("expression_mean", torch.zeros(genes))
        self.register_buffer("expression_sd", torch.ones(genes))
        self.register_buffer("expression_low", torch.full((genes,), -torch.inf))
        self.register_buffer("expression_high", torch.full((genes,), torch.inf))
        self.register_buffer("embedding_mean", torch.zeros(spec.embedding_dim))
        self.register_buffer("embedding_sd", torch.ones(spec.embedding_dim))

    def prepare(self, units: Units) -> None:
        """Take means, standard deviations and ranges from the training units; what does not vary keeps the scale 1."""
        if self.options.expression_scaling == "fixed":
            self.expression_mean, self.expression_sd = _mean_and_sd(units.expression, self.expression_mean)
        expression = torch.as_tensor(units.expression).to(self.expression_mean)
        self.expression_low, self.expression_high = expression.amin(0), expression.amax(0)
        if self.options.embedding_scaling == "fixed":
            views = units.embedding.reshape(-1, units.embedding.shape[-1])
            self.embedding_mean, self.embedding_sd = _mean_and_sd(views, self.embedding_mean)

    def condition(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return the condition vector [B, width] of embeddings [B, dim]."""
        return self.network.image((embedding - self.embedding_mean) / self.embedding_sd)

    def training_step(self, batch: Batch, rng: BatchRandom) -> dict[str, torch.Tensor]:
        """Return the loss: squared error of the prediction (section 4) and, with a learned variance, the bound."""
        x0 = (batch.expression - self.expression_mean) / self.expression_sd
        t = rng.integers(len(self.schedule)).to(x0.device)
        noise = rng.normal(*x0.shape[1:]).to(x0)
        image = self.condition(batch.embedding)
        if self.options.variance == "paper":
            loss = denoising_loss(
                self.schedule, lambda x, t: self.network(x, t, image), x0, t, noise, self.options.predicts
            )
            return {"loss": loss}
        x_t = self.schedule.add_noise(x0, t, noise)
        output = self.network(x_t, t, image).to(x0.dtype)
        error = F.mse_loss(output[..., 0], noise)
        as_code = self.options.variance == "code"
        likelihood = "8bit" if as_code else "continuous"
        bound = learned_variance.bound_bits(self.schedule, output, x0, x_t, t, likelihood)
        return {"loss": error + (1.0 if as_code else 0.001) * bound, "noise_error": error, "bound_bits": bound}

    @torch.no_grad()
    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return draws, float32 [B, draws, G] in the target space, by reverse diffusion from each draw's own noise."""
        units, draws = seeds.shape
        image = self.condition(batch.embedding).repeat_interleave(draws, 0)
        clip = None
        if self.options.clip == "training_range":
            clip = tuple(
                (b - self.expression_mean) / self.expression_sd for b in (self.expression_low, self.expression_high)
            )
        rows = sample(
            self.schedule,
            lambda x, t: self.network(x, t, image),
            seeds.flatten().tolist(),
            (len(self.spec.genes),),
            steps=self.options.sampling_steps,
            target=self.options.predicts,
            eta=self.options.eta,
            clip=clip,
            variance=None if self.options.variance == "paper" else learned_variance.split,
            device=image.device,
        )
        rows = rows * self.expression_sd + self.expression_mean
        if self.options.clip == "nonnegative":
            rows = rows.clamp_min(0)
        return rows.float().reshape(units, draws, -1)


def _mean_and_sd(values, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of columns, in `like`'s type; a standard deviation of 0 becomes 1."""
    values = torch.as_tensor(values).to(like.device, torch.float64)
    mean, sd = values.mean(0), values.std(0, correction=0)
    # Equal float32 values may leave a rounding error of a variance: it must not be magnified to unit size.
    sd = torch.where(sd <= 1e-6 * mean.abs().clamp_min(1e-6), torch.ones_like(sd), sd)
    return mean.to(like.dtype), sd.to(like.dtype)
