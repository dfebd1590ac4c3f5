"""The ceiling of generators: real tiles of other units of the test set in place of generated ones.

It has the real pictures' distribution and ignores the condition: what distribution scores (FID, KID) can reach at this
number of tiles, and what paired scores give a generator that draws perfect tissue without reading the genes.
"""

from typing import ClassVar

import numpy as np
import torch

from ..errors import ConfigError, DataError
from .base import Batch, DataSpec, Method, MethodOptions


class RealAgainstReal(Method):
    """Deals out a bank of real tiles; sampling hands it over by `bind`, because `wants_real` is set.

    The bank must hold no tile of the reference that pictures are scored against: tiles would be scored with themselves.
    """

    family = "generator"
    needs = frozenset({"tiles"})
    trains = "never"
    wants_real: ClassVar[bool] = True

    def __init__(self, options: MethodOptions, spec: DataSpec):
        super().__init__(options, spec)
        self._bank: np.ndarray | None = None
        self._dealt: list[dict[int, int]] = []

    def bind(self, bank: np.ndarray, seeds: torch.Tensor | None = None) -> None:
        """Take the real tiles from which draws are dealt; they do not enter the state_dict.

        Parameters
        ----------
        bank
            uint8 [m, H, W, C].
        seeds
            int64 [n, draws]: all seeds of the run. Within each draw the units then get tiles without replacement (every
            tile once before any twice), in the order of their seeds. Without them a draw is tile number seed mod m.

        Raises
        ------
        DataError
            The bank is empty or not uint8 [m, H, W, C].
        """
        if bank.ndim != 4 or bank.dtype != np.uint8 or not len(bank):
            raise DataError(
                f"the bank of real tiles is {bank.dtype} {list(bank.shape)}, expected uint8 [m, H, W, C] with m at "
                "least 1; give it real tiles that are not in the reference"
            )
        self._bank = bank
        columns = [] if seeds is None else seeds.T.tolist()
        self._dealt = [{seed: rank % len(bank) for rank, seed in enumerate(sorted(column))} for column in columns]

    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return real tiles uint8 [B, draws, H, W, C].

        Raises
        ------
        ConfigError
            No bank was bound.
        """
        if self._bank is None:
            raise ConfigError("real_against_real has no tiles to draw from; call bind with real tiles before draw")
        chosen = (seeds % len(self._bank)).tolist()
        if self._dealt:
            chosen = [[dealt[seed] for dealt, seed in zip(self._dealt, row)] for row in seeds.tolist()]
        return torch.from_numpy(self._bank[np.asarray(chosen)])


METHOD = RealAgainstReal
