"""Every random number comes from a name and the config's seed, never from an order of events.

A unit's draw depends on (seed, barcode, draw), a training step's on (seed, step): so neither batch size, worker count
nor an interruption changes a result.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch  # imported where it is used: steps without a network start seconds earlier


def seed_of(*parts: str | int) -> int:
    """Return a 63-bit seed that is a pure function of `parts` (their order matters, and whether text or number).

    NumPy's text and numbers count as Python's, so that a barcode from an array and from a list draw alike.
    """
    text = "\x1f".join(f"{'str' if isinstance(part, str) else 'int'}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(*parts: str | int) -> np.random.Generator:
    """Return NumPy's generator seeded by `seed_of(*parts)`."""
    return np.random.default_rng(seed_of(*parts))


def torch_generator(*parts: str | int) -> "torch.Generator":
    """Return a CPU generator seeded by `seed_of(*parts)`."""
    import torch

    return torch.Generator().manual_seed(seed_of(*parts))


class BatchRandom:
    """Random numbers for the rows of a training batch, the same for a row whichever process computes it.

    Every process draws for the whole batch and keeps its own rows, so that two processes with half a batch each learn
    what one with the whole batch would.

    Parameters
    ----------
    generator
        A CPU generator that depends on the seed and the step alone.
    total
        Rows of the whole batch.
    mine
        The rows of this process.
    """

    def __init__(self, generator: "torch.Generator", total: int, mine: slice = slice(None)):
        self._generator, self._total, self._mine = generator, total, mine

    def normal(self, *shape: int) -> "torch.Tensor":
        """Return standard normal numbers, float32 [rows, *shape]."""
        import torch

        return torch.randn(self._total, *shape, generator=self._generator)[self._mine]

    def uniform(self) -> "torch.Tensor":
        """Return uniform numbers from 0 below 1, float32 [rows]."""
        import torch

        return torch.rand(self._total, generator=self._generator)[self._mine]

    def integers(self, high: int) -> "torch.Tensor":
        """Return integers from 0 below `high`, int64 [rows]."""
        import torch

        return torch.randint(high, (self._total,), generator=self._generator)[self._mine]


def normal_rows(seeds: Sequence[int], shape: Sequence[int]) -> "torch.Tensor":
    """Return standard normal noise, float32 [len(seeds), *shape], each row from its own seed alone.

    Rows are drawn on the CPU, so that a draw has the same noise on every device and beside any batch mates.
    """
    import torch

    rows = torch.empty((len(seeds), *shape))
    for row, seed in zip(rows, seeds):
        row.normal_(generator=torch.Generator().manual_seed(int(seed)))
    return rows
