"""SPIDER's archive: one tar in parts, `spider-<organ>.tar.<part>`, or the folder that they give when unpacked.

Joined by their names' order the parts give `SPIDER-<organ>` with `metadata.json` and `images/`. They are read where
they lie, so that the pictures that nobody asked for, 16 in 17, are never decoded nor written.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import ConfigError, DataError, reason_of
from .spider_list import central_tiles
from .tables import reading
from .tar_parts import opened_tar

_METADATA = "metadata.json"


def parts_in_order(files: Mapping[str, str | Path]) -> list[Path]:
    """Return the parts of an archive, of its files by role: `image` (the only one or the first), `part_01`, ..."""
    return [Path(files["image"]), *(Path(files[role]) for role in sorted(files) if role.startswith("part_"))]


def read_central(parts: Path | Sequence[Path]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return `central_tiles` of an archive in parts, or of an unpacked folder.

    Raises
    ------
    DataError
        A part is missing or damaged, or there is no metadata.json.
    """
    path = first_part(parts)
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
    wanted, path = set(names), first_part(parts)
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


def first_part(parts: Path | Sequence[Path]) -> Path:
    """Return the file that stands for an archive in error sentences, or the unpacked folder."""
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
            f"{path}: the picture {name} cannot be decoded ({reason_of(error)}); expected PNG or JPEG: "
            "download all parts again"
        ) from error
    if picture.shape[0] != picture.shape[1]:
        raise DataError(
            f"{path}: the picture {name} has {picture.shape[1]} x {picture.shape[0]} px; expected a square: download "
            "all parts again"
        )
    return picture
