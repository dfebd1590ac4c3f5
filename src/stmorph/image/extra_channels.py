"""The file of a slide's extra image channels, and the tiles that show them behind red, green and blue.

The stained image stays the store's own: stain normalisation, embeddings and scores of pictures see it alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from ..files import whole
from .store import SlideStore

Channel = Literal["dapi", "cell_mask"]
"""dapi: the stain of nuclei, as the instrument saw it. cell_mask: 255 in cells, 0 between them."""
RGB = 3
"""Channels of the stained image; a tile's first."""


class ExtraChannels:
    """The extra channels of one slide.

    pixels: uint8 [H, W, C], memory-mapped, on the pixels of the slide's store. names: C of `Channel`.
    Pickled as its path, so that workers share the mapped file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.pixels = np.asarray(np.load(self.path, mmap_mode="r"))
            record = json.loads(self.path.with_suffix(".json").read_text())
            self.names = tuple(str(one["name"]) for one in record["channels"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no channels ({error}); delete it and make it again") from error
        if self.pixels.ndim != 3 or self.pixels.shape[2] != len(self.names) or self.pixels.dtype != np.uint8:
            raise DataError(
                f"{path} holds {self.pixels.dtype} {self.pixels.shape} for {len(self.names)} channels; expected uint8 "
                "[H, W, channels]: delete it and make it again"
            )

    def __reduce__(self):
        return ExtraChannels, (self.path,)

    def check_size(self, store: SlideStore) -> None:
        """Check that the channels lie on the store's pixels.

        Raises
        ------
        DataError
            They are of another size.
        """
        if self.pixels.shape[:2] != store.pixels.shape[:2]:
            raise DataError(
                f"{self.path} is {self.pixels.shape}, the store {store.path} {store.pixels.shape}; expected one size: "
                "delete the channels and make them again"
            )


def write_channels(
    channels: dict[str, np.ndarray], records: dict[str, dict[str, Any]], out_npy: str | Path, out_json: str | Path
) -> None:
    """Write channels of one slide as uint8 [H, W, C], in the order given, with the record of each.

    Raises
    ------
    DataError
        The disk is full or the folder cannot be written.
    """
    stack = np.stack([np.asarray(channel, dtype=np.uint8) for channel in channels.values()], axis=-1)
    record = {"channels": [{"name": name, **records.get(name, {})} for name in channels]}
    with whole(out_npy) as npy, whole(out_json) as text:
        with npy.open("wb") as file:
            np.save(file, stack)
        text.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def with_channels(tiles: np.ndarray, channels: np.ndarray, x0_px: Sequence[int], y0_px: Sequence[int]) -> np.ndarray:
    """Return tiles with the channels of their boxes behind their own, uint8 [k, size, size, 3 + C]."""
    size = tiles.shape[1]
    out = np.empty((*tiles.shape[:3], RGB + channels.shape[2]), dtype=np.uint8)
    out[..., :RGB] = tiles
    for tile, x, y in zip(out, x0_px, y0_px, strict=True):
        tile[..., RGB:] = channels[y : y + size, x : x + size]
    return out
