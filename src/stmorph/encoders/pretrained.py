"""A pretrained network as an encoder: tiles are resized to its input, normalised its way and passed through it."""

from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ..digests import file_digest
from .base import Encoder, check_tiles
from .facts import FACTS
from .networks import build, fill
from .weights import locate, read_state

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class PretrainedOptions(BaseModel):
    """Options of a pretrained encoder.

    weights: a file, or a folder in the hub's layout; the workflow fills it in with what it has fetched.
    revision, file: what is fetched: branch, tag or commit on the hub, and the file's name; None takes the usual one.
    architecture: entries that replace those of the published architecture (timm's arguments; `model` is timm's name),
        for weights of another size saved in the same layout.
    input_px: side of the network's input; None takes the published one.
    precision: `auto` is bfloat16, else float16, on a GPU that has it and float32 on the CPU.
    batch: tiles passed through the network at a time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    weights: str | None = None
    revision: str = Field(default="main", pattern=r"^\w[\w./-]*$")
    file: str | None = Field(default=None, pattern=r"^\w[\w.-]*$")
    architecture: dict[str, Any] = Field(default_factory=dict)
    input_px: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    batch: int = Field(default=64, ge=1)


class PretrainedEncoder(Encoder):
    """One of `facts.FACTS` with its weights.

    Raises
    ------
    WeightsError
        The weights are absent, gated, damaged or of another network.
    """

    def __init__(self, name: str, options: PretrainedOptions, device: str | torch.device = "cpu"):
        self.name = name
        self.facts = FACTS[name]
        self.options = options
        self.device = torch.device(device)
        path = locate(name, self.facts, options.weights)
        network = fill(build(self.facts, options.architecture), self.facts, read_state(name, path), name, path)
        self.network = network.to(self.device)
        self.dim = network.dim
        self.weights_sha256 = file_digest(path)
        self.input_px = options.input_px or self.facts.input_px
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (self.facts.mean, self.facts.std)
        )

    def prepare(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return uint8 [n, H, W, 3] as the network's input, float32 [n, 3, input, input], resized with antialiasing."""
        images = tiles.permute(0, 3, 1, 2).float().div(255)
        if images.shape[2:] != (self.input_px, self.input_px):
            size = (self.input_px, self.input_px)
            mode = self.facts.interpolation
            images = torch.nn.functional.interpolate(images, size, mode=mode, antialias=True).clamp(0, 1)
        return (images - self._mean) / self._std

    def encode(self, tiles: np.ndarray, um_per_px: float) -> np.ndarray:
        """Return float32 [n, dim]; `um_per_px` is not used, the tile's whole field of view fills the input."""
        check_tiles(tiles, um_per_px)
        found = [np.empty((0, self.dim), dtype=np.float32)]
        waiting: list[torch.Tensor] = []
        for start in range(0, len(tiles), self.options.batch):
            part = torch.from_numpy(np.ascontiguousarray(tiles[start : start + self.options.batch]))
            if self.device.type == "cuda":
                part = part.pin_memory()  # copied while the batch before is still worked on
            with torch.inference_mode(), self._autocast():
                waiting.append(self.network(self.prepare(part.to(self.device, non_blocking=True))).float())
        found += [vectors.cpu().numpy() for vectors in waiting]  # asked for at the end: a GPU never waits for us
        return np.concatenate(found)

    def _autocast(self):
        kind = self.options.precision
        if kind == "auto":
            kind = "float32"
            if self.device.type == "cuda":
                kind = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        return nullcontext() if kind == "float32" else torch.autocast(self.device.type, getattr(torch, kind))
