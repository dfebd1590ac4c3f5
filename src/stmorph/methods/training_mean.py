"""The floor of all floors: every unit gets the training units' mean of each gene, whatever its picture shows."""

import torch

from ..units import Units
from .base import Batch, DataSpec, Method, MethodOptions


class TrainingMean(Method):
    """Predicts the training mean; its variance over units is 0, so its relative variance distance is 1."""

    family = "predictor"
    needs = frozenset()
    trains = "once"
    Options = MethodOptions

    def __init__(self, options: MethodOptions, spec: DataSpec):
        super().__init__(options, spec)
        self.register_buffer("mean", torch.zeros(len(spec.genes)))

    def fit(self, units: Units) -> None:
        """Take each gene's mean over the training units."""
        self.mean = torch.as_tensor(units.expression).double().mean(0).to(self.mean)

    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return the mean for every unit and draw, float32 [B, draws, G]."""
        return self.mean.expand(*seeds.shape, -1).clone()


METHOD = TrainingMean
