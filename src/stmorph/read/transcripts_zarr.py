"""Transcripts of `transcripts.zarr.zip`, which names no cell: each one is in the cell whose outline it lies in.

Zarr version 2, stored in a zip. `grids/0` holds every transcript, in square tiles `<column>,<row>`; `grids/1` and on
merge them for display and are not read. Of a tile's arrays, one row a transcript, four are: `location` (x, y, z in the
micrometres of the morphology image's frame), `gene_identity` (a number in the root's attribute `gene_names`; 65535 is
none), `quality_score` and, where it is there, `valid` (0: not in `transcripts.parquet` either).
"""

import zipfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .tables import reading

NO_GENE = 65535


def recount_in_outlines(path: Path, outline_um: np.ndarray, features: np.ndarray, least_qv: float) -> np.ndarray:
    """Return how many transcripts lie in each outline, int64 [n]: those of `features` of quality `least_qv` or more.

    A transcript in two outlines counts for the later one, as a pixel of two nuclei does.

    Parameters
    ----------
    path
        `transcripts.zarr.zip`.
    outline_um
        float64 [n, V, 2], from `cell_polygons`; NaN where a cell has none.
    features
        Names, str.
    least_qv
        Least quality of a transcript that counts.

    Raises
    ------
    DataError
        The file is damaged or of another layout, or lacks a tile or a part of one.
    """
    from skimage.measure import points_in_poly

    total = np.zeros(len(outline_um), dtype=np.int64)
    with np.errstate(invalid="ignore"):
        low, high = outline_um.min(axis=1), outline_um.max(axis=1)
    known = pd.Index(features)
    with reading(path, "transcripts.zarr.zip, transcripts in tiles"):
        for names, xy_um, gene, quality in _tiles(path):
            # No gene has the number -1, which takes the last entry: no feature.
            wanted = np.append(known.get_indexer(names) >= 0, False)[gene] & (quality >= least_qv)
            xy_um = xy_um[wanted]
            if not len(xy_um):
                continue
            xy_um = xy_um[np.argsort(xy_um[:, 0], kind="stable")]
            x, y = xy_um.T
            near = ((low <= xy_um.max(axis=0)) & (high >= xy_um.min(axis=0))).all(axis=1)
            owner = np.full(len(x), -1)
            for cell in np.flatnonzero(near):
                first = np.searchsorted(x, low[cell, 0], "left")
                last = np.searchsorted(x, high[cell, 0], "right")
                place = first + np.flatnonzero((y[first:last] >= low[cell, 1]) & (y[first:last] <= high[cell, 1]))
                if len(place):
                    owner[place[points_in_poly(xy_um[place], outline_um[cell])]] = cell
            total += np.bincount(owner[owner >= 0], minlength=len(total))
    return total


def whole_array(root: Any, name: str, members: set[str]) -> np.ndarray:
    """Return an array of a zipped Zarr group all of whose chunks are there.

    Parameters
    ----------
    root, name
        The group at the zip's root, and the array's path in it.
    members
        The names of the zip's files. Zarr itself would go through all of them for each array.

    Raises
    ------
    ValueError
        A chunk is missing: Zarr takes it for one of zeros.
    """
    array = root[name]
    numbers = (range(-(-size // chunk)) for size, chunk in zip(array.shape, array.chunks))
    keys = [f"{name}/{array.metadata.encode_chunk_key(key)}" for key in product(*numbers)]
    missing = sum(key not in members for key in keys)
    if missing:
        raise ValueError(f"{name} lacks {missing} of its {len(keys)} chunks")
    return np.asarray(array)


def _tiles(path: Path) -> Iterator[tuple[list[str], np.ndarray, np.ndarray, np.ndarray]]:
    """Give of each tile the genes' names, places [n, 2], genes' numbers [n] (-1: none) and qualities [n]."""
    import zarr

    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
    with zarr.storage.ZipStore(path, mode="r") as store:
        root = zarr.open_group(store, mode="r")
        names = root.attrs.get("gene_names")
        if not isinstance(names, list) or not names:
            raise ValueError("its attributes have no gene_names; transcripts.parquet lies beside it")
        unit = root.attrs.get("spatial_units", "micron")
        if unit != "micron":
            raise ValueError(f"its spatial_units are {unit!r}, not 'micron'")
        for tile, number in _numbers(root, members).items():
            yield [str(name) for name in names], *_tile(root, f"grids/0/{tile}", number, members, len(names))


def _numbers(root: Any, members: set[str]) -> dict[str, int | None]:
    """Return the tiles of level 0, and how many transcripts each is said to have."""
    there = sorted({name.split("/")[2] for name in members if name.startswith("grids/0/") and name.count("/") > 2})
    if not there:
        raise ValueError("it has no tile in grids/0")
    attributes = root["grids"].attrs
    listed, numbers = attributes.get("grid_keys"), attributes.get("grid_number_objects")
    if not listed:
        return dict.fromkeys(there)
    said = dict(zip(listed[0], numbers[0], strict=True)) if numbers else dict.fromkeys(listed[0])
    missing = [tile for tile, number in said.items() if number != 0 and tile not in there]
    if missing:
        raise ValueError(f"grids/0 lacks {len(missing)} of its {len(said)} tiles, first {missing[0]}")
    return {tile: said.get(tile) for tile in there}


def _tile(
    root: Any, tile: str, number: int | None, members: set[str], genes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    names = ["location", "gene_identity", "quality_score"]
    names += ["valid"] if f"{tile}/valid/.zarray" in members else []
    arrays = [whole_array(root, f"{tile}/{name}", members) for name in names]
    lengths = {name: len(array) for name, array in zip(names, arrays)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{tile} has arrays of {', '.join(f'{n} rows ({name})' for name, n in lengths.items())}")
    place, gene, quality = arrays[:3]
    if number is not None and len(place) != number:
        raise ValueError(f"{tile} has {len(place)} transcripts, of {number} that grid_number_objects says")
    single = gene.size == quality.size == len(place)
    if place.ndim != 2 or place.shape[1] < 2 or gene.dtype.kind not in "iu" or not single:
        shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in zip(names, arrays))
        raise ValueError(f"{tile} has {shapes}")
    gene, quality = gene.ravel().astype(np.int64), quality.ravel().astype(np.float64)
    place = place[:, :2].astype(np.float64)
    if not (np.isfinite(place).all() and np.isfinite(quality).all()):
        raise ValueError(f"{tile} has a location or quality_score that is no number")
    gene[gene == NO_GENE] = -1
    if len(gene) and not -1 <= gene.min() <= gene.max() < genes:
        raise ValueError(f"{tile} has gene_identity from {gene.min()} to {gene.max()}, of {genes} gene_names")
    if len(arrays) == 4:
        valid = arrays[3].reshape(len(place), -1)[:, 0] != 0
        place, gene, quality = place[valid], gene[valid], quality[valid]
    return place, gene, quality
