"""A floor of generators: every picture is the pixel mean of the training tiles, whatever the expression."""

import numpy as np
import torch

from ..units import Units
from .base import Batch, DataSpec, Method, MethodOptions

READ_AT_ONCE = 256


class TrainingMeanImage(Method):
    """The mean picture: the best constant in squared error, and a picture without any structure."""

    family = "generator"
    needs = frozenset({"tiles"})
    trains = "once"

    def __init__(self, options: MethodOptions, spec: DataSpec):
        super().__init__(options, spec)
        shape = (spec.tile_px, spec.tile_px, spec.channels)
        self.register_buffer("picture", torch.zeros(shape, dtype=torch.uint8))

    def fit(self, units: Units) -> None:
        """Take the mean of the training tiles, in the order of the units."""
        total = np.zeros(self.picture.shape, dtype=np.float64)
        for first in range(0, len(units), READ_AT_ONCE):
            index = np.arange(first, min(first + READ_AT_ONCE, len(units)))
            total += units.tiles.read(index).sum(0, dtype=np.float64)
        self.picture.copy_(torch.from_numpy(np.rint(total / len(units)).astype(np.uint8)))

    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return the mean picture for every draw, uint8 [B, draws, H, W, C]."""
        return self.picture.expand(*seeds.shape, *self.picture.shape).clone()


METHOD = TrainingMeanImage
