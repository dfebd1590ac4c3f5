"""Floor: expression of the training units whose tiles are nearest in embedding space.

The retrieval half of BLEEP (Xie et al. 2023, k = 50), without its contrastive training.
"""

from typing import Literal

import torch
from pydantic import Field

from ..errors import ConfigError
from ..units import Units
from .base import Batch, DataSpec, MethodOptions
from .remembering import Remembering


class NearestNeighbourOptions(MethodOptions):
    """Which neighbours, and what a draw makes of them."""

    k: int = Field(50, ge=1)
    metric: Literal["euclidean", "cosine"] = "euclidean"
    draw: Literal["mean", "neighbour"] = "mean"
    """`mean`: every draw is the neighbours' mean; `neighbour`: each draw is one of them, chosen by its seed."""


class NearestNeighbour(Remembering):
    """Averages, or draws from, the k nearest training units; embeddings are standardised by the training units."""

    family = "predictor"
    needs = frozenset({"embedding"})
    trains = "once"
    remembered = ("embedding", "expression")
    Options = NearestNeighbourOptions

    def __init__(self, options: NearestNeighbourOptions, spec: DataSpec):
        super().__init__(options, spec)
        self.register_buffer("embedding_mean", torch.zeros(spec.embedding_dim, dtype=torch.float64))
        self.register_buffer("embedding_sd", torch.ones(spec.embedding_dim, dtype=torch.float64))
        self.register_buffer("embedding", torch.zeros(0, spec.embedding_dim))
        self.register_buffer("expression", torch.zeros(0, len(spec.genes)))

    def fit(self, units: Units) -> None:
        """Remember the training units: their untransformed tile's embedding and their expression.

        Raises
        ------
        ConfigError
            There are fewer training units than neighbours.
        """
        if len(units) < self.options.k:
            raise ConfigError(
                f"options.k of nearest_neighbour is {self.options.k} but there are {len(units)} training units; lower k"
            )
        embedding = torch.as_tensor(units.embedding[:, 0]).double()
        sd = embedding.std(0, correction=0)
        self.embedding_mean = embedding.mean(0).to(self.embedding_mean)
        self.embedding_sd = torch.where(sd > 0, sd, torch.ones_like(sd)).to(self.embedding_sd)
        self.embedding = embedding.float().to(self.embedding)
        self.expression = torch.as_tensor(units.expression).float().to(self.expression)

    def neighbours(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return the indices of the k nearest training units, nearest first, int64 [B, k]; embedding [B, dim]."""
        asked, known = (((e.double() - self.embedding_mean) / self.embedding_sd) for e in (embedding, self.embedding))
        if self.options.metric == "cosine":
            asked, known = (torch.nn.functional.normalize(e, dim=-1) for e in (asked, known))
        # One unit at a time against all: distances of a unit then cannot depend, in the last bit, on its batch mates.
        distance = torch.stack([(known - one).square().sum(-1) for one in asked])
        return distance.topk(self.options.k, dim=-1, largest=False).indices

    @torch.no_grad()
    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return the neighbours' mean, or one neighbour a draw, float32 [B, draws, G]."""
        nearest = self.neighbours(batch.embedding)
        if self.options.draw == "mean":
            mean = self.expression[nearest].double().mean(1).float()
            return mean[:, None].expand(-1, seeds.shape[1], -1).clone()
        chosen = nearest.gather(1, (seeds % self.options.k).to(nearest.device))
        return self.expression[chosen]


METHOD = NearestNeighbour
