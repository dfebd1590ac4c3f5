"""What the flow and its diffusion comparator share: encoder, U-Net and the range of pictures."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch.nn import functional

from ...errors import ConfigError
from ...units import Units
from ..base import Batch, DataSpec, Method, Need
from .encoder import ExpressionEncoder
from .options import PictureOptions
from .unet import UNet


class PictureMethod(Method):
    """A generator of pictures from expression by a conditioned U-Net.

    `needs` of an object holds `cells` too where its encoder is `multi`.

    Raises
    ------
    ConfigError
        The tile cannot be halved as often as the U-Net has levels.
    """

    family = "generator"
    needs: ClassVar = frozenset({"tiles"})

    def __init__(self, options: PictureOptions, spec: DataSpec):
        super().__init__(options, spec)
        multiple = options.patch * 2 ** (len(options.multipliers) - 1)
        if spec.tile_px % multiple or not spec.tile_px:
            raise ConfigError(
                f"tiles are {spec.tile_px} px wide, expected a multiple of {multiple} (options patch and multipliers "
                f"of {type(self).__name__}); choose another tile size or fewer multipliers"
            )
        self.needs = self.needs_with(options)
        self.encoder = ExpressionEncoder(options, len(spec.genes))
        self.unet = UNet(options, spec.channels)
        self.guide = torch.nn.Linear(options.embedding_dim, 2 * spec.channels) if options.guide else None

    @classmethod
    def needs_with(cls, options: PictureOptions) -> frozenset[Need]:
        """Return the tiles and, where the encoder is `multi`, the cells."""
        return cls.needs | {"cells"} if options.encoder == "multi" else cls.needs

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""
        return self.spec.channels, self.spec.tile_px, self.spec.tile_px

    @property
    def expression_mean(self) -> torch.Tensor:
        """The training units' (or their cells') mean expression [G]; zeros before `prepare`."""
        return self.encoder.mean

    def prepare(self, units: Units) -> None:
        """Keep the training expression's mean and standard deviation per gene."""
        if self.options.encoder == "multi":
            self.encoder.standardise_by_parts(units.cells)
        else:
            self.encoder.standardise_by(torch.as_tensor(units.expression))

    def condition(self, batch: Batch) -> torch.Tensor:
        """Return the embeddings [B, embedding_dim] of the batch's expression."""
        if self.options.encoder == "multi":
            return self.encoder(batch.cells, batch.cell_mask)
        return self.encoder(batch.expression)

    def to_model(self, image: torch.Tensor) -> torch.Tensor:
        """Map pictures in [-1, 1] to the range in which the network works."""
        return (image + 1) / 2 if self.options.image_range == "code" else image

    def to_pictures(self, x: torch.Tensor) -> torch.Tensor:
        """Map the network's range [N, C, H, W] to uint8 [N, H, W, C]."""
        unit = x if self.options.image_range == "code" else (x + 1) / 2
        return (unit.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    @torch.no_grad()
    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return pictures uint8 [B, draws, H, W, C]."""
        condition = self.condition(batch).repeat_interleave(seeds.shape[1], 0)
        return self.to_pictures(self.sampled(seeds.flatten().tolist(), condition)).unflatten(0, tuple(seeds.shape))

    @abstractmethod
    def sampled(self, seeds: list[int], condition: torch.Tensor) -> torch.Tensor:
        """Return a picture [N, C, H, W] a seed, in the network's range, under embeddings [N, embedding_dim]."""

    def with_encoder_losses(
        self, parts: dict[str, torch.Tensor], condition: torch.Tensor, image: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the parts, the L1 penalty, the guide and, as `loss`, their sum."""
        parts = parts | {"sparsity": self.options.sparsity * self.encoder.sparsity()}
        if self.guide is not None:
            target = torch.cat([image.mean((2, 3)), image.std((2, 3))], 1)
            parts["guide"] = self.options.guide * functional.mse_loss(self.guide(condition).float(), target)
        return {"loss": sum(parts.values())} | {name: value.detach() for name, value in parts.items()}
