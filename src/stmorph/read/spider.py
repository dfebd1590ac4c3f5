"""SPIDER (Nechaev et al. 2025): tiles of four organs with a class each, for training without expression.

An organ's repository holds one tar in parts, `spider-<organ>.tar.<part>`; joined by their names' order they give the
folder `SPIDER-<organ>` with `metadata.json` and `images/`. Each record of `metadata.json` names a central picture
(`image_name`) of 224 px at 20x (0.5 um per px), its `class`, `slide_id`, `split` (train or test, by slide) and in
`context_info` the 24 pictures around it ("row_column": name). Only central pictures are taken; the parts are read where
they lie, so that the other 16 in 17 pictures are never decoded nor written.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import Field

from ..errors import ConfigError, DataError
from ..files import whole
from .base import Reader, ReaderOptions, SlideInfo
from .tables import check_columns, reading
from .tar_parts import opened_tar

UM_PER_PX = 0.5
"""20x: the scale of the pictures."""
LIST_COLUMNS = ("barcode", "slide", "label", "split", "row")
_FIELDS = {"image_name": "barcode", "slide_id": "slide", "class": "label", "split": "split"}
_METADATA = "metadata.json"


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


def central_tiles(text: str | bytes, path: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the central pictures that a `metadata.json` names, sorted by slide and name, and what was left out.

    Parameters
    ----------
    text
        The file's content.
    path
        Where it is from, for error sentences.

    Returns
    -------
    pandas.DataFrame
        barcode (the picture's name), slide, label, split.
    dict
        {reason: number}: records that stand there twice.

    Raises
    ------
    DataError
        The text is no list of records, a record lacks a field, or one picture has two classes.
    """
    with reading(path, "SPIDER's metadata.json"):
        records = json.loads(text)
        if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
            raise ValueError("it is no list of records")
        table = pd.DataFrame([{name: one.get(name) for name in _FIELDS} for one in records], columns=list(_FIELDS))
    if not len(table):
        raise DataError(f"{path} names no picture; expected SPIDER's records: download it again")
    check_columns(table.dropna(axis=1, how="all"), tuple(_FIELDS), path)
    empty = table.isna().any(axis=1)
    if empty.any():
        number = int(np.flatnonzero(empty)[0])
        lacks = ", ".join(name for name in _FIELDS if pd.isna(table[name].iloc[number]))
        raise DataError(
            f"{path}: record {number} has no {lacks}; expected {', '.join(_FIELDS)} in each of {len(table)} records: "
            "download it again"
        )
    table = table.astype(str).rename(columns=_FIELDS)
    distinct = table.drop_duplicates()
    twice = distinct["barcode"].duplicated()
    if twice.any():
        name = distinct["barcode"][twice].iloc[0]
        labels = ", ".join(sorted(set(distinct.loc[distinct["barcode"] == name, "label"])))
        raise DataError(
            f"{path} names {int(twice.sum())} pictures more than once with different records, first {name!r} (classes "
            f"{labels}); expected one class a picture: download it again"
        )
    lost = {"named twice": len(table) - len(distinct)} if len(distinct) < len(table) else {}
    return distinct.sort_values(["slide", "barcode"], kind="stable", ignore_index=True), lost


def chosen_tiles(table: pd.DataFrame, split: str | None = None, labels: str | Sequence[str] = "*") -> pd.DataFrame:
    """Return the pictures of a split whose class matches a pattern, in the table's order.

    Raises
    ------
    ConfigError
        Nothing is left, or a pattern matches no class: the sentence says what there is.
    """
    patterns = [labels] if isinstance(labels, str) else list(labels)
    there = sorted(set(table["label"]))
    for pattern in patterns:
        if not any(fnmatchcase(one.lower(), pattern.lower()) for one in there):
            raise ConfigError(
                f"no class of SPIDER matches {pattern!r}; expected some of {', '.join(there)}: correct labels"
            )
    low = [pattern.lower() for pattern in patterns]
    keep = np.array([any(fnmatchcase(one.lower(), pattern) for pattern in low) for one in table["label"]], bool)
    if split is not None:
        keep &= (table["split"] == split).to_numpy()
    if not keep.any():
        splits = ", ".join(sorted(set(table["split"])))
        raise ConfigError(
            f"no picture of split {split!r} has a class of {', '.join(patterns)}; expected a split among {splits}: "
            "correct split or labels"
        )
    return table[keep].reset_index(drop=True)


def read_central(parts: Path | Sequence[Path]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return `central_tiles` of an archive in parts, or of an unpacked folder.

    Raises
    ------
    DataError
        A part is missing or damaged, or there is no metadata.json.
    """
    path = _first(parts)
    if path.is_dir():
        with reading(path / _METADATA, "SPIDER's metadata.json"):
            text = (path / _METADATA).read_bytes()
        return central_tiles(text, path / _METADATA)
    with opened_tar(parts) as members:
        for name, file in members:
            if name == _METADATA:
                return central_tiles(file.read(), path)
    raise DataError(
        f"{path} and what follows it hold no {_METADATA}; expected it in SPIDER's archive: give all parts, "
        "spider-<organ>.tar.*"
    )


def stream(parts: Path | Sequence[Path], names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, uint8 [S, S, 3]) of the pictures asked for, in the archive's order; others are passed over unread.

    Parameters
    ----------
    parts
        The archive's parts in order, its only part, or an unpacked folder.
    names
        As `central_tiles` gives them.

    Raises
    ------
    DataError
        A part is missing, the archive is truncated, a picture is damaged or not square, or one is not there.
    """
    wanted, path = set(names), _first(parts)
    if path.is_dir():
        members = ((name, (path / "images" / name)) for name in sorted(wanted) if (path / "images" / name).is_file())
        for name, file in members:
            wanted.discard(name)
            yield name, _picture(file.read_bytes(), name, path)
    else:
        with opened_tar(parts) as found:
            for name, file in found:
                if name in wanted:
                    wanted.discard(name)
                    yield name, _picture(file.read(), name, path)
                    if not wanted:
                        return
    if wanted:
        raise DataError(
            f"{path} and what follows it lack {len(wanted)} of {len(set(names))} pictures that {_METADATA} names, "
            f"first {min(wanted)!r}; expected all: a part is missing or truncated, download all parts"
        )


def parts_in_order(files: Mapping[str, str | Path]) -> list[Path]:
    """Return the parts of an archive, of its files by role: `image` (the only one or the first), `part_01`, ..."""
    return [Path(files["image"]), *(Path(files[role]) for role in sorted(files) if role.startswith("part_"))]


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
    with whole(out_npy) as npy, whole(out_list) as parquet:
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
                        f"{_first(parts)} holds pictures of two sizes ({first[0]}: {first[1]} px, {name}: "
                        f"{picture.shape[0]} px); expected one: download all parts again"
                    )
                file.seek(start + row_of[name] * side * side * 3)
                file.write(np.ascontiguousarray(fitted(picture, side)).data)
        chosen.assign(row=np.arange(len(chosen)))[list(LIST_COLUMNS)].to_parquet(parquet, index=False)
    return Unpacked(len(chosen), lost)


def read_list(path: Path) -> pd.DataFrame:
    """Return the list that `unpack` wrote.

    Raises
    ------
    DataError
        The file is damaged or of another kind.
    """
    with reading(path, "a list of SPIDER's tiles (parquet)"):
        table = pd.read_parquet(path)
    check_columns(table, LIST_COLUMNS, path)
    return table


def _first(parts: Path | Sequence[Path]) -> Path:
    if isinstance(parts, Path):
        return parts
    if not parts:
        raise ConfigError("no part of a SPIDER archive is given; expected spider-<organ>.tar.*")
    return Path(parts[0])


def _picture(data: bytes, name: str, path: Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            picture = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{path}: the picture {name} cannot be decoded ({str(error).splitlines()[0]}); expected PNG or JPEG: "
            "download all parts again"
        ) from error
    if picture.shape[0] != picture.shape[1]:
        raise DataError(
            f"{path}: the picture {name} has {picture.shape[1]} x {picture.shape[0]} px; expected a square: download "
            "all parts again"
        )
    return picture
