"""The file of a slide's extra image channels, and the tiles that show them behind red, green and blue.

The stained image stays the store's own: stain normalisation, embeddings and scores of pictures see it alone.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from ..files import whole
from .blocks import BlockedImage, write_blocks, write_header
from .store import SlideStore

Channel = Literal["dapi", "cell_mask"]
"""dapi: the stain of nuclei, as the instrument saw it. cell_mask: 255 in cells, 0 between them."""
RGB = 3
"""Channels of the stained image; a tile's first."""


class ExtraChannels:
    """The extra channels of one slide.

    image: of as many channels, memory-mapped, on the pixels of the slide's store. names: of `Channel`.
    Pickled as its path, so that workers share the mapped file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            record = json.loads(self.path.with_suffix(".json").read_text())
            self.names = tuple(str(one["name"]) for one in record["channels"])
            self.image = BlockedImage(self.path, record["width_px"], record["height_px"], len(self.names))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no channels ({error}); delete it and make it again") from error

    def __reduce__(self):
        return ExtraChannels, (self.path,)

    def check_size(self, store: SlideStore) -> None:
        """Check that the channels lie on the store's pixels.

        Raises
        ------
        DataError
            They are of another size.
        """
        found = self.image.height_px, self.image.width_px
        if found != store.shape:
            raise DataError(
                f"{self.path} is {found}, the store {store.path} {store.shape}; expected one size: delete the channels "
                "and make them again"
            )


def write_channels(
    channels: dict[str, np.ndarray], records: dict[str, dict[str, Any]], out_npy: str | Path, out_json: str | Path
) -> None:
    """Write channels of one slide, each uint8 [H, W], in the order given, with the record of each.

    Raises
    ------
    DataError
        The disk is full or the folder cannot be written.
    """
    stack = np.stack([np.asarray(channel, dtype=np.uint8) for channel in channels.values()], axis=-1)
    height, width = stack.shape[:2]
    of_each = [{"name": name, **records.get(name, {})} for name in channels]
    record = {"channels": of_each, "width_px": width, "height_px": height}
    with whole(out_npy) as npy:
        with npy.open("wb") as file:
            write_header(file, width, height, stack.shape[2])
            write_blocks(file, iter([(0, stack)]))
        with whole(out_json) as text:
            text.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def with_channels(tiles: np.ndarray, channels: ExtraChannels, x0_px: np.ndarray, y0_px: np.ndarray) -> np.ndarray:
    """Return tiles with the channels of their boxes behind their own, uint8 [k, size, size, 3 + C]."""
    boxes = np.empty((*tiles.shape[:3], channels.image.channels), dtype=np.uint8)
    channels.image.boxes_into(boxes, x0_px, y0_px)
    return np.concatenate([tiles, boxes], axis=-1)
