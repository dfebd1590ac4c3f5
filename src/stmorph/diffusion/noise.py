"""Noise for iterative samplers: every row has a stream of its own, so no row depends on its batch mates."""

from collections.abc import Sequence

import torch


class RowNoise:
    """Standard normal noise, step after step; row r of every step depends on seeds[r] alone.

    The first step equals `randomness.normal_rows(seeds, shape)`. Noise is drawn on the CPU, one step at a time: all the
    noise of a thousand steps would not fit in memory.

    Parameters
    ----------
    seeds
        One seed a row.
    shape
        Shape of one row.
    device
        Where the noise is put.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.shape = tuple(shape)
        self.device = device

    def __len__(self) -> int:
        return len(self.generators)

    def next(self) -> torch.Tensor:
        """Return the next step's noise, float32 [rows, *shape]."""
        rows = torch.empty((len(self), *self.shape))
        for row, generator in zip(rows, self.generators):
            row.normal_(generator=generator)
        return rows.to(self.device)
