"""What pictures are compared by: clean-fid's Inception where its weights are there, else an encoder; always named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..encoders.base import Encoder
from ..errors import DataError, WeightsError, reason_of

INCEPTION_FILE = "inception-2015-12-05.pt"


class FeatureExtractor(Protocol):
    """Turns pictures into vectors. name: stands beside every score made with it."""

    name: str

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """Return features float [n, d] of tiles uint8 [n, H, W, 3]."""
        ...


class InceptionFeatures:
    """The 2048 pooled Inception-v3 features of the FID, through clean-fid's own network wrapper and "clean" resizing.

    Parameters
    ----------
    weights
        The TorchScript file, or the folder that holds it under its published name `inception-2015-12-05.pt`.
        Nothing is downloaded.
    device
        A torch device.
    batch
        Tiles passed through the network at a time.

    Raises
    ------
    WeightsError
        The file is absent or cannot be loaded.
    """

    name = "inception (clean-fid)"

    def __init__(self, weights: str | Path, device: str = "cpu", batch: int = 32):
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer

        folder = Path(weights).expanduser()
        folder = folder.parent if folder.name == INCEPTION_FILE else folder
        if not (folder / INCEPTION_FILE).is_file():
            raise WeightsError(
                f"inception_weights: {folder / INCEPTION_FILE} does not exist; put clean-fid's {INCEPTION_FILE} there, "
                "or leave the option out to compare pictures by the run's encoder"
            )
        try:
            network = InceptionV3W(str(folder), download=False, resize_inside=False)
        except (RuntimeError, AttributeError) as error:
            raise WeightsError(
                f"inception_weights: {folder / INCEPTION_FILE} is not clean-fid's network ({reason_of(error)}); "
                "download it again"
            ) from error
        self._network = network.to(device).eval()
        self._resize = build_resizer("clean")
        self._device = device
        self._batch = batch

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """Return float32 [n, 2048] of tiles uint8 [n, H, W, 3]."""
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(tiles), self._batch):
                resized = np.stack([self._resize(tile) for tile in tiles[start : start + self._batch]])
                pictures = torch.from_numpy(resized).permute(0, 3, 1, 2).to(self._device)
                parts.append(self._network(pictures).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, 2048), dtype=np.float32)


@dataclass(frozen=True)
class EncoderFeatures:
    """An encoder as feature extractor; `um_per_px` is the tiles' pixel size, `batch` the tiles encoded at a time."""

    encoder: Encoder
    um_per_px: float
    batch: int = 256

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.encoder.name

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """Return float32 [n, dim] of tiles uint8 [n, H, W, 3]."""
        starts = range(0, len(tiles), self.batch)
        parts = [self.encoder.encode(tiles[start : start + self.batch], self.um_per_px) for start in starts]
        return np.concatenate(parts) if parts else np.empty((0, self.encoder.dim), dtype=np.float32)


def choose_extractor(
    inception_weights: str | Path | None, encoder: Encoder, um_per_px: float, device: str = "cpu"
) -> FeatureExtractor:
    """Return clean-fid's Inception where its weights are named, else the encoder in use.

    Raises
    ------
    WeightsError
        Weights are named but absent or damaged: scores are not silently made with other features.
    """
    if inception_weights:
        return InceptionFeatures(inception_weights, device)
    return EncoderFeatures(encoder, um_per_px)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation [d] that put features on one scale; name: of the features once they are on it."""

    name: str
    mean: np.ndarray
    sd: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return scaled features, float64 [n, d].

        Raises
        ------
        DataError
            A value is not finite.
        """
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        if bad:
            raise DataError(
                f"the features {self.name} are not finite in {bad} of {len(features)} pictures; mend the extractor or "
                "choose another"
            )
        return (features.astype(np.float64) - self.mean) / self.sd


def scale_by(name: str, real: np.ndarray) -> Scale:
    """Return the scale on which features are compared, taken from the REAL pictures' features [n, d] alone.

    Inception's features are compared as they are, as every published FID does. Other extractors mix quantities of very
    different size (areas in um2 beside fractions), of which the largest would decide every distance: they are
    standardised by the real pictures' mean and standard deviation, and `(z)` is added to the name. A feature that is
    constant among the real pictures is centred only.
    """
    if name == InceptionFeatures.name:
        return Scale(name, np.zeros(real.shape[1]), np.ones(real.shape[1]))
    mean, sd = real.mean(axis=0, dtype=np.float64), real.std(axis=0, dtype=np.float64)
    return Scale(f"{name}(z)", mean, np.where(sd > 1e-6 * np.maximum(np.abs(mean), 1e-6), sd, 1.0))
