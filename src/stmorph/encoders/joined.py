"""Several encoders side by side: Stem concatenates UNI and CONCH (paper, Appendix C)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
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


def parts_of(model: str, options: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the models that a config entry joins, each with its options; of a single one they are not by name."""
    models = model.split(JOIN)
    return [(one, options if len(models) == 1 else options.get(one, {})) for one in models]


def open_encoder(
    model: str, options: Mapping[str, Any], weights: Sequence[str] = (), device: str | None = None
) -> Encoder:
    """Return the encoder of a config entry: one model, or several joined by `+`, whose options are then given by name.

    Parameters
    ----------
    weights
        The weights files of the networks among the models, in their order; empty: their options say where.
    device
        None takes a CUDA device where a network can use one.

    Raises
    ------
    ConfigError
        A model or an option is unknown, or there are more or fewer weights than networks.
    WeightsError
        Weights are absent, damaged or of another network.
    """
    parts = parts_of(model, options)
    if weights:
        networks = list(dict.fromkeys(one for one, _ in parts if is_network(one)))
        if len(weights) != len(networks):
            raise ConfigError(
                f"encoder {model} has {len(networks)} networks and {len(weights)} files of weights; give one each"
            )
        files = dict(zip(networks, weights))
        parts = [(one, {**own, **({"weights": files[one]} if one in files else {})}) for one, own in parts]
    encoders = [load_encoder(one, own, _device(one, device)) for one, own in parts]
    return encoders[0] if len(encoders) == 1 else JoinedEncoder(encoders)


def is_network(model: str) -> bool:
    """Return whether any part of `model` is a network, which runs best on a GPU."""
    from .facts import FACTS

    return any(one in FACTS for one in model.split(JOIN))


def _device(model: str, device: str | None) -> str:
    if device is not None or not is_network(model):
        return device or "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
