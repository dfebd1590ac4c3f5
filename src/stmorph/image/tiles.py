"""The list of a slide's tiles, and the reader that cuts them from slide stores: tiles are views, not copies."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..errors import DataError
from .extra_channels import Channel, ExtraChannels, with_channels
from .stain import normalize_tiles
from .stain_options import StainOptions
from .store import SlideStore, open_store
from .tissue_mask import tissue_mask_of

COLUMNS = ("barcode", "slide", "x_um", "y_um", "x0_px", "y0_px", "size_px", "tissue_fraction", "kept", "lost")
NOT_IN_TISSUE, BORDER, NO_TISSUE = "not in tissue", "border", "no tissue"


class TilingOptions(BaseModel):
    """How tiles are cut: a closed object.

    fov_um: side of the field of view in micrometres. size_px: side of the tile in pixels.
    min_tissue: least share of tissue in a tile, 0 to 1. stain: see `StainOptions`.
    channels: of the pictures, behind the stained image's three; embeddings and scores take no notice of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fov_um: float = Field(gt=0, allow_inf_nan=False)
    size_px: int = Field(gt=0, le=8192)
    min_tissue: float = Field(default=0.1, ge=0, le=1)
    stain: StainOptions = StainOptions()
    channels: tuple[Channel, ...] = ()

    @field_validator("channels")
    @classmethod
    def _distinct(cls, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        if len(set(channels)) < len(channels):
            raise ValueError(f"a channel stands there more than once ({', '.join(channels)}); name each once")
        return channels

    @property
    def um_per_px(self) -> float:
        """The working resolution: the store has it, so that cutting resamples nothing."""
        return self.fov_um / self.size_px


def tile_table(
    slide: str,
    barcode: Sequence[str],
    spatial_um: np.ndarray,
    in_tissue: np.ndarray,
    store: SlideStore,
    options: TilingOptions,
) -> pd.DataFrame:
    """List the tile of every unit of a slide, sorted by barcode; each is kept or lost for one reason.

    Parameters
    ----------
    slide
        The slide's name.
    barcode
        str [n], unique.
    spatial_um
        float64 [n, 2], x and y of the units' centres from the image's top-left corner.
    in_tissue
        bool [n].
    store
        The slide's image at `options.um_per_px`.
    options
        Size and least tissue.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`, n rows. A box is whole pixels of the store, its centre within half a pixel of the unit's. The first
        reason that holds is given in `lost`: not in tissue, border (the box leaves the image), no tissue.

    Raises
    ------
    DataError
        Barcodes are not unique, a position is not finite, most units lie outside the image, or no tile is kept.
    """
    barcode, position = np.asarray(barcode, dtype=str), np.asarray(spatial_um, dtype=np.float64)
    inside = np.asarray(in_tissue).astype(bool)
    _check(slide, barcode, position, store, options)
    size = options.size_px
    height, width = store.shape
    centre = store.to_px(position)
    box = np.floor(centre - size / 2 + 0.5).astype(np.int64)
    outside = ((centre < 0) | (centre > [width, height])).any(axis=1) & inside
    if outside.sum() > 0.5 * inside.sum():
        raise DataError(
            f"slide {slide} has {outside.sum()} of {inside.sum()} units outside its image of {width} x {height} px at "
            f"{store.um_per_px:.4g} um per px; expected most inside: check um_per_px and that x and y are not swapped"
        )
    border = (box < 0).any(axis=1) | (box + size > [width, height]).any(axis=1)
    fraction = tissue_mask_of(store.image.strips(), width, height).fraction(box[:, 0], box[:, 1], size)
    lost = np.select(
        [~inside, border, fraction < options.min_tissue], [NOT_IN_TISSUE, BORDER, NO_TISSUE], default=""
    ).astype(object)
    table = pd.DataFrame(
        {
            "barcode": barcode.astype(object),
            "slide": slide,
            "x_um": position[:, 0],
            "y_um": position[:, 1],
            "x0_px": box[:, 0],
            "y0_px": box[:, 1],
            "size_px": size,
            "tissue_fraction": fraction,
            "kept": lost == "",
            "lost": lost,
        },
        columns=list(COLUMNS),
    )
    if not table["kept"].any():
        raise DataError(
            f"slide {slide} keeps none of its {len(table)} tiles (lost: {losses(table)}); expected tissue under its "
            "units: check the image, um_per_px, fov_um and min_tissue"
        )
    return table.sort_values("barcode", kind="stable", ignore_index=True)


def losses(table: pd.DataFrame) -> dict[str, int]:
    """Return how many units of a tile list were lost, by reason; with the kept ones they add up to all."""
    counts = table.loc[~table["kept"], "lost"].value_counts()
    return {reason: int(counts[reason]) for reason in (NOT_IN_TISSUE, BORDER, NO_TISSUE) if reason in counts}


class SlideTiles:
    """Cuts tiles from the stores of several slides: a `units.TileReader`.

    Tiles of stores with stain fit `tile` are normalised when they are cut. channels: of each store, or None.
    """

    def __init__(
        self,
        stores: Sequence[SlideStore],
        store_of_unit: np.ndarray,
        x0_px: np.ndarray,
        y0_px: np.ndarray,
        size_px: int,
        channels: Sequence[ExtraChannels] | None = None,
    ):
        self.stores = list(stores)
        self.channels = None if channels is None else list(channels)
        self.store_of_unit = np.asarray(store_of_unit, dtype=np.int64)
        self.x0_px, self.y0_px = np.asarray(x0_px, dtype=np.int64), np.asarray(y0_px, dtype=np.int64)
        self.size_px = int(size_px)

    @classmethod
    def of(
        cls, stores: Sequence[str | Path], table: pd.DataFrame, channels: Sequence[str | Path] | None = None
    ) -> "SlideTiles":
        """Return a reader of the rows of `table`, a tile list whose column `store` counts in `stores` (0 if absent).

        `channels` are the files of the stores' extra channels; without them tiles are red, green and blue.

        Raises
        ------
        DataError
            Tiles differ in size, one was lost and cannot be cut, or stores have other channels or of another size.
        """
        sizes = np.unique(table["size_px"])
        if len(sizes) > 1:
            raise DataError(
                f"tiles of {sizes.tolist()} px were put together; expected one size: use one tiling for all slides"
            )
        if not table["kept"].all():
            row = table[~table["kept"]].iloc[0]
            raise DataError(
                f"tile {row['slide']}/{row['barcode']} was asked for, but is lost ({row['lost']}); expected kept tiles "
                "only: make the split again"
            )
        store = table["store"] if "store" in table else np.zeros(len(table))
        size = int(sizes[0]) if len(sizes) else 0
        opened = [open_store(path) for path in stores]
        extra = None if channels is None else [ExtraChannels(path) for path in channels]
        for one, image in zip(extra or (), opened, strict=extra is not None):
            one.check_size(image)
            if one.names != extra[0].names:
                raise DataError(
                    f"{one.path} has the channels {', '.join(one.names)}, {extra[0].path} {', '.join(extra[0].names)}; "
                    "expected the same of all slides: delete both and make them again"
                )
        return cls(opened, store, table["x0_px"], table["y0_px"], size, extra)

    def __len__(self) -> int:
        return len(self.x0_px)

    def read(self, index: np.ndarray) -> np.ndarray:
        """Return the tiles of units `index` (int64 [k]) as uint8 [k, size_px, size_px, 3 + C], in that order."""
        index = np.asarray(index, dtype=np.int64)
        tiles = self._read(index)[0]
        if self.channels is None:
            return tiles
        out = np.empty((*tiles.shape[:3], tiles.shape[3] + self.channels[0].image.channels), np.uint8)
        for number, rows in self._rows_of(index):
            at = self.x0_px[index[rows]], self.y0_px[index[rows]]
            out[rows] = with_channels(tiles[rows], self.channels[number], *at)
        return out

    def unfitted(self, chunk: int = 256) -> int:
        """Return how many tiles stay as they are because they have no stains to fit; 0 unless the fit is per tile."""
        parts = (np.arange(start, min(start + chunk, len(self))) for start in range(0, len(self), chunk))
        return sum(int((~self._read(part)[1]).sum()) for part in parts)

    def _read(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = np.empty((len(index), self.size_px, self.size_px, 3), np.uint8)
        fitted = np.ones(len(index), bool)
        for number, rows in self._rows_of(index):
            store, units = self.stores[number], index[rows]
            store.image.boxes_into(out, self.x0_px[units], self.y0_px[units], rows)
            if store.stain.fit == "tile":
                out[rows], fitted[rows] = normalize_tiles(out[rows], store.target, store.stain)
        return out, fitted

    def _rows_of(self, index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each store that holds some of the units, and their places among them."""
        if len(self.stores) == 1:
            yield 0, np.arange(len(index))
            return
        store_of = self.store_of_unit[index]
        for number in np.unique(store_of):
            yield int(number), np.flatnonzero(store_of == number)


def _check(slide: str, barcode: np.ndarray, position: np.ndarray, store: SlideStore, options: TilingOptions) -> None:
    if not np.isclose(store.um_per_px, options.um_per_px, rtol=1e-6):
        raise DataError(
            f"{store.path} has {store.um_per_px} um per px; expected {options.um_per_px} (fov_um / size_px): make the "
            "store again with these options"
        )
    names, counts = np.unique(barcode, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"slide {slide} has the barcode {names[counts > 1][0]} {counts.max()} times; expected each once: mend the "
            "positions file"
        )
    if not np.isfinite(position).all():
        row = int(np.flatnonzero(~np.isfinite(position).all(axis=1))[0])
        raise DataError(
            f"slide {slide} has no finite position for {barcode[row]} ({position[row].tolist()}); expected "
            "micrometres: mend the positions file"
        )
