"""samples.zarr.zip: the draws of a run's test units and where each came from."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import whole
from ..methods.base import Method
from ..units import Units
from .draw import Condition, conditions_of, draw_in_chunks, draw_seeds

NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
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


def sample_to_file(
    path: str | Path,
    method: Method,
    units: Units,
    draws: int,
    seed: int,
    name: str,
    condition: Condition = "paired",
    more: dict[str, Any] | None = None,
    **how,
) -> None:
    """Draw for the test units and write samples.zarr.zip; only one chunk of draws is in memory at a time.

    Parameters
    ----------
    name
        The method's name in the registry.
    more
        More attributes to store (e.g. the digest of the model).
    how
        `chunk`, `accelerator`, `cpu_threads` of `draw_in_chunks`, whose errors are raised.
    """
    attributes = {
        "family": method.family,
        "method": name,
        "target_space": method.spec.target_space,
        "genes": list(method.spec.genes),
        "condition": condition,
        "draws": draws,
        **(more or {}),
    }
    names = {
        "seed": draw_seeds(units, draws, seed),
        "slide": units.slide,
        "barcode": units.barcode,
        "condition_of": units.names()[conditions_of(units, condition, seed)],
    }
    write_samples(path, draw_in_chunks(method, units, draws, seed, condition=condition, **how), names, attributes)


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
    import zarr

    path = Path(path)
    n, done, array = len(names["barcode"]), 0, None
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # A folder first: a zip store cannot rewrite a chunk, and keeps the time of writing.
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
            group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=attributes)
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
            with whole(path) as partial:
                _zip_folder(Path(folder), partial)
    except OSError as error:
        raise DataError(
            f"{path} could not be written ({error.strerror or error}); "
            "free space or mend the folder's rights and run again"
        ) from error


def read_samples(path: str | Path, lazy: bool = False) -> Samples:
    """Return what `write_samples` wrote; with `lazy`, draws are a zarr array that is read as it is sliced.

    Raises
    ------
    DataError
        The file is missing or damaged.
    """
    import zarr

    path = Path(path)
    if not path.is_file():
        raise DataError(f"samples {path} do not exist; sample the run first")
    try:
        group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
        draws = group["draws"]
        return Samples(
            draws=draws if lazy else draws[:],
            seed=group["seed"][:],
            attributes=dict(group.attrs),
            **{key: np.array(group[key][:].tolist(), dtype=str) for key in ("slide", "barcode", "condition_of")},
        )
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RuntimeError) as error:
        raise DataError(
            f"samples {path} cannot be read ({type(error).__name__}: {str(error)[:80]}); "
            "delete the file and sample again"
        ) from error


def _zip_folder(folder: Path, path: Path) -> None:
    """Put a folder's files into a zip in the order of their names, as they are, without times."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), date_time=NO_TIME)
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 2**20)
