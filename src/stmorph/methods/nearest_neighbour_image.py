"""A floor of generators: the real tiles of the training units whose expression is nearest.

Perfect texture and no invention: a generator must beat it in following the expression, for nothing beats its realism.
"""

from typing import Literal

import numpy as np
import torch

from ..errors import ConfigError
from ..units import Units
from .base import Batch, DataSpec, MethodOptions
from .remembering import Remembering


class NearestNeighbourImageOptions(MethodOptions):
    """How near is measured and which neighbour is a draw."""

    distance: Literal["euclidean", "correlation"] = "euclidean"
    """Of genes standardised by the training units."""
    draws: Literal["ranked", "nearest"] = "ranked"
    """`ranked`: draw d is the d-th nearest tile; `nearest`: every draw is the nearest one."""


class NearestNeighbourImage(Remembering):
    """Training tiles and expression, kept whole; no draw depends on its seed."""

    family = "generator"
    needs = frozenset({"tiles"})
    trains = "once"
    remembered = ("expression", "tiles")
    Options = NearestNeighbourImageOptions

    def __init__(self, options: NearestNeighbourImageOptions, spec: DataSpec):
        super().__init__(options, spec)
        genes = len(spec.genes)
        self.register_buffer("mean", torch.zeros(genes))
        self.register_buffer("sd", torch.ones(genes))
        self.register_buffer("expression", torch.zeros(0, genes))
        self.register_buffer("tiles", torch.zeros(0, spec.tile_px, spec.tile_px, spec.channels, dtype=torch.uint8))

    def fit(self, units: Units) -> None:
        """Keep the training units' tiles and standardised expression."""
        expression = torch.from_numpy(units.expression)
        sd = expression.double().std(0, correction=0)
        self.mean = expression.double().mean(0).float()
        # A constant gene says nothing: it keeps its scale and adds the same to every distance.
        self.sd = torch.where(sd > 1e-6, sd, torch.ones_like(sd)).float()
        self.expression = self._placed(expression)
        self.tiles = torch.from_numpy(np.ascontiguousarray(units.tiles.read(np.arange(len(units)))))

    def _placed(self, expression: torch.Tensor) -> torch.Tensor:
        x = (expression - self.mean) / self.sd
        if self.options.distance == "correlation":
            x = x - x.mean(1, keepdim=True)
            x = x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return x

    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return training tiles uint8 [B, draws, H, W, C], nearest first; equal distances in the units' order.

        Raises
        ------
        ConfigError
            More draws are asked for than there are training units.
        """
        draws = seeds.shape[1]
        if self.options.draws == "ranked" and draws > len(self.tiles):
            raise ConfigError(
                f"{draws} draws of nearest_neighbour_image are asked for but it holds {len(self.tiles)} training "
                "tiles; lower sampling.draws or set draws: nearest"
            )
        distance = torch.cdist(
            self._placed(batch.expression), self.expression, compute_mode="donot_use_mm_for_euclid_dist"
        )
        order = distance.sort(dim=1, stable=True).indices
        chosen = order[:, :draws] if self.options.draws == "ranked" else order[:, :1].expand(-1, draws)
        return self.tiles[chosen]


METHOD = NearestNeighbourImage
