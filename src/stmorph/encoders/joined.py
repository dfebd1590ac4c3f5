"""Several encoders side by side: Stem concatenates UNI and CONCH (paper, Appendix C)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .base import Encoder
from .load import load_encoder

JOIN = "+"


class JoinedEncoder(Encoder):
    """The concatenation of the vectors of `parts`, in their order."""

    def __init__(self, parts: Sequence[Encoder]):
        self.parts = list(parts)
        self.name = JOIN.join(part.name for part in parts)
        self.dim = sum(part.dim for part in parts)
        self.features = tuple(f"{part.name}: {name}" for part in parts for name in part.features)
        self.weights_sha256 = JOIN.join(part.weights_sha256 for part in parts)
        self.view_invariant = all(part.view_invariant for part in parts)

    def encode(self, tiles: np.ndarray, um_per_px: float) -> np.ndarray:
        """Return float32 [n, dim] of tiles uint8 [n, H, W, 3]."""
        return np.concatenate([part.encode(tiles, um_per_px) for part in self.parts], axis=1)


def open_encoder(model: str, options: Mapping[str, Any], device: str | None = None) -> Encoder:
    """Return the encoder of a config entry: one model, or several joined by `+`, whose options are then given by name.

    `device` None takes a CUDA device where a network can use one.
    """
    models = model.split(JOIN)
    if len(models) == 1:
        return load_encoder(model, options, _device(model, device))
    return JoinedEncoder([load_encoder(one, options.get(one, {}), _device(one, device)) for one in models])


def is_network(model: str) -> bool:
    """Return whether any part of `model` is a network, which runs best on a GPU."""
    from .facts import FACTS

    return any(one in FACTS for one in model.split(JOIN))


def _device(model: str, device: str | None) -> str:
    if device is not None or not is_network(model):
        return device or "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
