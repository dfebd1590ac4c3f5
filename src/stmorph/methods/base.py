"""What a method is: one module that says what it needs, builds its networks, takes a training step and draws.

Everything else (loading, precision, EMA, checkpoints, resume, logs, sampling in chunks, scoring) belongs to the frame.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict

from ..randomness import BatchRandom
from ..units import Units

Family = Literal["generator", "predictor"]
Need = Literal["tiles", "embedding", "cells"]
Trains = Literal["steps", "once", "never"]


class MethodOptions(BaseModel):
    """A method's hyper-parameters: a closed object, so an unknown key is an error. Subclass it per method."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class DataSpec:
    """What a method must know of the data to build its networks; in model.json, so sampling needs no training data."""

    genes: tuple[str, ...]
    target_space: str
    embedding_dim: int = 0
    tile_px: int = 0
    channels: int = 3
    max_cells: int = 0
    um_per_px: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Batch:
    """Some units, as tensors. What a method does not need is None.

    expression: float32 [B, G], log-normalised in the run's target space.
    embedding: float32 [B, dim] of one view of the tile.
    image: float32 [B, C, H, W] in [-1, 1], the same view.
    cells: float32 [B, max_cells, G] padded with zeros; cell_mask: bool [B, max_cells], True where there is a cell.
    """

    expression: torch.Tensor
    embedding: torch.Tensor | None = None
    image: torch.Tensor | None = None
    cells: torch.Tensor | None = None
    cell_mask: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.expression)

    def map(self, function) -> "Batch":
        """Return a batch with `function` applied to every tensor that is there."""
        present = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(value) for name, value in present.items() if value is not None})

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def take(self, index: torch.Tensor) -> "Batch":
        """Return the rows `index` (int64 or bool) of every tensor."""
        return self.map(lambda tensor: tensor[index])


class Method(torch.nn.Module, ABC):
    """Base of every system, baseline and floor.

    Class attributes a subclass sets
    --------------------------------
    family: `generator` (expression -> image) or `predictor` (image -> expression).
    needs: which parts of a batch it reads beyond expression: `tiles`, `embedding`, `cells`.
    trains: `steps` (training_step under the shared loop), `once` (fit, closed form) or `never`.
    Options: its hyper-parameters.
    wants_real: a floor that deals out real tiles; sampling calls its `bind` with tiles that are not scored against.

    All that it learns must be in its `state_dict`, for the model file holds nothing else.
    """

    family: ClassVar[Family]
    needs: ClassVar[frozenset[Need]]
    trains: ClassVar[Trains] = "steps"
    Options: ClassVar[type[MethodOptions]] = MethodOptions
    wants_real: ClassVar[bool] = False

    def __init__(self, options: MethodOptions, spec: DataSpec):
        super().__init__()
        self.options = options
        self.spec = spec

    @classmethod
    def needs_with(cls, options: MethodOptions) -> frozenset[Need]:
        """Return `needs` of an object with these options."""
        return cls.needs

    def prepare(self, units: Units) -> None:
        """Set buffers (means, scales) from the training units, once, before the first of its steps."""

    def training_step(self, batch: Batch, rng: BatchRandom) -> dict[str, torch.Tensor]:
        """Return the losses of one batch: `loss` (scalar, differentiated) and any parts worth logging.

        Draw random numbers from `rng`, which depends on the seed, the step and the row alone, and move them to the
        batch's device; layers such as dropout may use torch's global generator, which the loop seeds per step.
        """
        raise NotImplementedError(f"{type(self).__name__} does not train by steps")

    def fit(self, units: Units) -> None:
        """Learn in closed form from the training units (methods that train `once`)."""
        raise NotImplementedError(f"{type(self).__name__} is not fitted in closed form")

    @abstractmethod
    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Draw from the conditional distribution.

        Parameters
        ----------
        batch
            The conditions. A predictor must not read `expression`; a generator must not read `image` or `embedding`.
        seeds
            int64 [B, draws], on the CPU; draw (b, d) depends on row b of the batch and seeds[b, d] alone.

        Returns
        -------
        torch.Tensor
            Predictors: float32 [B, draws, G] in the target space.
            Generators: uint8 [B, draws, H, W, C].
        """
