"""Floor: noise of the right colours. Every pixel is one of the training tiles' pixels, in no order and for no reason.

The far end of a picture score: a generator that is not much nearer to real tiles than this draws no tissue.
"""

import numpy as np
import torch

from ..randomness import numpy_generator
from ..units import Units
from .base import Batch, DataSpec, Method, MethodOptions

POOL = 65_536
"""Pixels that are kept: enough for every colour in its share, few enough for a small file."""


class ShuffledPixels(Method):
    """Draws tiles of independent pixels from a pool of the training tiles' pixels."""

    family = "generator"
    needs = frozenset({"tiles"})
    trains = "once"

    def __init__(self, options: MethodOptions, spec: DataSpec):
        super().__init__(options, spec)
        self.register_buffer("pool", torch.zeros(POOL, spec.channels, dtype=torch.uint8))

    def fit(self, units: Units) -> None:
        """Keep `POOL` pixels, drawn from as many training tiles, each with the same chance."""
        rng = numpy_generator("shuffled pixels", len(units))
        tile = np.sort(rng.integers(0, len(units), POOL))
        found = np.empty((POOL, self.spec.channels), dtype=np.uint8)
        for index in np.unique(tile):
            rows = np.flatnonzero(tile == index)
            pixels = units.tiles.read(np.array([index]))[0].reshape(-1, self.spec.channels)
            found[rows] = pixels[rng.integers(0, len(pixels), len(rows))]
        self.pool.copy_(torch.from_numpy(found))

    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return noise uint8 [B, draws, H, W, C]; the batch is not looked at."""
        size = self.spec.tile_px
        drawn = [
            self.pool.cpu()[torch.randint(POOL, (size, size), generator=torch.Generator().manual_seed(seed))]
            for seed in seeds.flatten().tolist()
        ]
        return torch.stack(drawn).reshape(*seeds.shape, size, size, self.spec.channels)


METHOD = ShuffledPixels
