"""SPIDER (Nechaev et al. 2025): tiles of four organs with a class each, for training without expression.

Only central pictures are taken (`spider_list`), straight from the archive (`spider_archive`), into one store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from pydantic import Field

from ..errors import ConfigError, DataError
from ..files import whole
from .base import Reader, ReaderOptions, SlideInfo
from .spider_archive import first_part, read_central, stream
from .spider_list import chosen_tiles

LIST_COLUMNS = ("barcode", "slide", "label", "split", "row")


def _read(files: dict[str, Path], info: SlideInfo, options: ReaderOptions) -> NoReturn:
    raise ConfigError(f"slide {info.slide} of {info.dataset} {SPIDER.no_slide}")


class SpiderOptions(ReaderOptions):
    """Which central pictures are taken.

    split: `train` or `test`, SPIDER's own by slide; None: both. labels: patterns of classes (`*` stands for anything).
    size_px: side of the stored tiles; None: as they come.
    """

    split: Literal["train", "test"] | None = None
    labels: str | list[str] = "*"
    size_px: int | None = Field(default=None, ge=1)


SPIDER = Reader(
    roles={"image": True, **{f"part_{number:02d}": False for number in range(1, 100)}},
    read=_read,
    Options=SpiderOptions,
    no_slide="is a SPIDER archive, tiles without expression; expected a slide with counts: use it for training without "
    "expression (the target `unpaired` makes one store of its tiles)",
)
"""So that a data set can name its archive; nothing is measured in it."""


@dataclass(frozen=True)
class Unpacked:
    """What `unpack` wrote: tiles, and how many records were left out by reason; together they are all records."""

    tiles: int
    lost: dict[str, int]


def unpack(
    parts: Path | Sequence[Path],
    out_npy: str | Path,
    out_list: str | Path,
    *,
    split: str | None = None,
    labels: str | Sequence[str] = "*",
    size_px: int | None = None,
) -> Unpacked:
    """Write the central pictures to one store and their list beside it: both whole or not at all.

    Parameters
    ----------
    parts
        As of `stream`.
    out_npy
        uint8 [n, S, S, 3], sorted by slide and name; `image.pictures.ArrayTiles` reads it.
    out_list
        Parquet, one row a tile: `LIST_COLUMNS`.
    split, labels
        As of `chosen_tiles`.
    size_px
        Side of the stored tiles; None: as they come.

    Raises
    ------
    ConfigError, DataError
        As `read_central`, `chosen_tiles`, `stream`; or pictures of two sizes, or the disk is full.
    """
    from ..image.pictures import fitted

    table, lost = read_central(parts)
    chosen = chosen_tiles(table, split, labels)
    lost |= {"not chosen": len(table) - len(chosen)} if len(chosen) < len(table) else {}
    row_of = {name: row for row, name in enumerate(chosen["barcode"])}
    first: tuple[str, int] | None = None
    with whole(out_npy) as npy:
        with npy.open("wb") as file:
            for name, picture in stream(parts, list(row_of)):
                side = size_px or picture.shape[0]
                if first is None:
                    first = name, picture.shape[0]
                    header = {"descr": "|u1", "fortran_order": False, "shape": (len(row_of), side, side, 3)}
                    np.lib.format.write_array_header_1_0(file, header)
                    start = file.tell()
                if picture.shape[0] != first[1]:
                    raise DataError(
                        f"{first_part(parts)} holds pictures of two sizes ({first[0]}: {first[1]} px, {name}: "
                        f"{picture.shape[0]} px); expected one: download all parts again"
                    )
                file.seek(start + row_of[name] * side * side * 3)
                file.write(np.ascontiguousarray(fitted(picture, side)).data)
        with whole(out_list) as parquet:
            chosen.assign(row=np.arange(len(chosen)))[list(LIST_COLUMNS)].to_parquet(parquet, index=False)
    return Unpacked(len(chosen), lost)
