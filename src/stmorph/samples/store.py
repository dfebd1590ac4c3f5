"""samples.zarr.zip: the draws of a run's test units and where each came from."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..zarr_zip import opened, written

CHUNK_BYTES = 2**23


@dataclass(frozen=True)
class Samples:
    """What is in samples.zarr.zip.

    draws: uint8 [n, draws, H, W, C] (generators) or float32 [n, draws, G] in the target space (predictors); a zarr
    array if read lazily. seed: int64 [n, draws]. slide, barcode: str [n]. condition_of: str [n], `slide/barcode` of the
    unit whose condition was used.
    attributes: family, method, target_space, genes, condition, draws, and what the writer added.
    """

    draws: Any
    seed: np.ndarray
    slide: np.ndarray
    barcode: np.ndarray
    condition_of: np.ndarray
    attributes: dict[str, Any]

    def __len__(self) -> int:
        return len(self.barcode)


def write_samples(
    path: str | Path, chunks: Iterable[np.ndarray], names: dict[str, np.ndarray], attributes: dict[str, Any]
) -> None:
    """Write draws, given in chunks of units, as one zip store; the same content gives the same bytes.

    Parameters
    ----------
    chunks
        Arrays [k, draws, ...] of one type, in the order of the units.
    names
        `seed` int64 [n, draws]; `slide`, `barcode`, `condition_of` str [n].

    Raises
    ------
    DataError
        The chunks hold another number of units than `names`, or the disk is full.
    """
    n, done, array = len(names["barcode"]), 0, None
    with written(path, attributes) as group:
        for drawn in chunks:
            if array is None:
                unit = max(1, drawn[:1].nbytes)
                rows = max(1, min(n, CHUNK_BYTES // unit))
                array = group.create_array(
                    "draws", shape=(n, *drawn.shape[1:]), chunks=(rows, *drawn.shape[1:]), dtype=drawn.dtype
                )
            if done + len(drawn) <= n:
                array[done : done + len(drawn)] = drawn
            done += len(drawn)
        if done != n:
            raise DataError(
                f"{path} would hold draws of {done} units where {n} are named; draw for the units that are named"
            )
        group.create_array("seed", data=np.asarray(names["seed"], dtype=np.int64))
        for key in ("slide", "barcode", "condition_of"):
            group.create_array(key, data=np.asarray(names[key]).astype(np.dtypes.StringDType()))


def read_samples(path: str | Path, lazy: bool = False) -> Samples:
    """Return what `write_samples` wrote; with `lazy`, draws are a zarr array that is read as it is sliced.

    Raises
    ------
    DataError
        The file is missing or damaged.
    """
    with opened(path, "a run's samples", "sample the run", lazy) as group:
        draws = group["draws"]
        return Samples(
            draws=draws if lazy else draws[:],
            seed=group["seed"][:],
            attributes=dict(group.attrs),
            **{key: np.array(group[key][:].tolist(), dtype=str) for key in ("slide", "barcode", "condition_of")},
        )
