"""Methods that keep their training units, as many as there are."""

from typing import Any, ClassVar

import torch

from .base import Method


class Remembering(Method):
    """A method with buffers that are as long as the training set.

    remembered: their names; before `fit` they have no rows.
    """

    remembered: ClassVar[tuple[str, ...]]

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *rest: Any) -> None:
        # The number of training units is known from the file alone.
        for name in self.remembered:
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(stored, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
