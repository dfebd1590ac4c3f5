"""The Zarr files of a Xenium output, version 2 in a zip, as far as readers want them. Same content, same bytes.

`cells.zarr.zip`: ids as prefix and suffix, and the summary; masks and polygons are left out. `transcripts.zarr.zip`:
level 0 in square tiles, and one coarser level that merges transcripts, as the vendor's do for display; the index of
genes within a tile and the densities are left out.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..files import whole, zip_folder

TILE_UM = 250.0
"""Side of a tile of level 0; of each further level twice that of the level before."""
MERGED_UM = 8.0
"""Side of the squares in which level 1 merges the transcripts of a gene."""
NO_CODEWORD = 65535


def write_cells_zarr(cell_id: np.ndarray, cells: pd.DataFrame, nucleus_um: np.ndarray, path: Path) -> None:
    """Write `cells.zarr.zip`.

    Parameters
    ----------
    cell_id, cells, nucleus_um
        Names str [n]; the table as `cells.parquet` has it; outlines of nuclei, float64 [n, V, 2].

    Raises
    ------
    DataError
        The file cannot be written.
    """
    digits = str.maketrans("abcdefghijklmnop", "0123456789abcdef")
    prefix = [int(name.split("-")[0].translate(digits), 16) for name in cell_id]
    names = ["cell_centroid_x", "cell_centroid_y", "cell_area", "nucleus_centroid_x", "nucleus_centroid_y"]
    names += ["nucleus_area", "z_level", "nucleus_count"]
    nucleus, ones = nucleus_um[:, :-1].mean(axis=1), np.ones(len(cells))
    summary = [cells["x_centroid"], cells["y_centroid"], cells["cell_area"], *nucleus.T, cells["nucleus_area"]]
    summary += [0 * ones, ones]
    with _zipped(path) as root:
        root.attrs["number_cells"] = len(cells)
        _add(root, "cell_id", np.column_stack([prefix, ones]).astype(np.uint32))
        _add(root, "cell_summary", np.column_stack(summary).astype(np.float64))
        root["cell_summary"].attrs["column_names"] = names


def write_transcripts_zarr(transcripts: pd.DataFrame, feature_name: np.ndarray, path: Path) -> None:
    """Write `transcripts.zarr.zip`.

    Parameters
    ----------
    transcripts, feature_name
        One row a molecule, as `transcripts.parquet` has it; the features' names, str [F], in the order of the matrix.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    number = len(transcripts)
    place = transcripts[["x_location", "y_location", "z_location"]].to_numpy().astype(np.float32)
    gene = pd.Index(feature_name).get_indexer(transcripts["feature_name"]).astype(np.uint16)
    molecule = transcripts["transcript_id"].to_numpy().astype(np.uint64)
    low, high = (molecule & np.uint64(2**32 - 1)).astype(np.uint32), (molecule >> np.uint64(32)).astype(np.uint32)
    level_0 = {
        "location": place,
        "gene_identity": gene[:, None],
        "codeword_identity": np.column_stack([gene, np.full(number, NO_CODEWORD, np.uint16)]),
        "quality_score": transcripts["qv"].to_numpy().astype(np.float32)[:, None],
        "id": np.column_stack([low, high - np.uint32(2**16)]),  # within the field of view, and its number
        "uuid": np.column_stack([low, high]),
        "status": np.zeros((number, 1), np.uint8),
        "valid": np.ones((number, 1), np.uint8),
    }
    square = np.column_stack([gene, np.floor(place[:, :2] / MERGED_UM)]).astype(np.int64)
    merged, into, times = np.unique(square, axis=0, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(into.ravel(), axis, len(merged)) for axis in place.T.astype(np.float64)], axis=1)
    level_1 = {
        "location": (sums / times[:, None]).astype(np.float32),
        "gene_identity": merged[:, :1].astype(np.uint16),
        "cluster_count": times[:, None].astype(np.uint32),
    }
    with _zipped(path) as root:
        root.attrs.update(
            {
                "name": "RnaDataset",
                "major_version": 4,
                "minor_version": 1,
                "spatial_units": "micron",
                "coordinate_space": "refined-final_global_micron",
                "number_rnas": number,
                "number_genes": len(feature_name),
                "gene_names": [str(name) for name in feature_name],
                "codeword_count": len(feature_name),
                "codeword_gene_names": [str(name) for name in feature_name],
                "codeword_gene_mapping": list(range(len(feature_name))),
                "fov_names": sorted(set(transcripts["fov_name"])),
            }
        )
        tiles = [_write_level(root, level, arrays) for level, arrays in enumerate((level_0, level_1))]
        root["grids"].attrs.update(
            {
                "number_levels": len(tiles),
                "grid_size": [TILE_UM],
                "grid_zip": False,
                "grid_key_names": ["grid_x_loc", "grid_y_loc"],
                "grid_keys": [list(level) for level in tiles],
                "grid_number_objects": [list(level.values()) for level in tiles],
            }
        )


def _write_level(root: Any, level: int, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """Write a level's tiles; return how many rows each has."""
    column_row = np.floor(arrays["location"][:, :2] / (TILE_UM * 2**level)).astype(np.int64)
    tiles = {}
    for column, row in np.unique(column_row, axis=0).tolist():
        inside = (column_row == (column, row)).all(axis=1)
        tile = root.require_group(f"grids/{level}/{column},{row}")
        for name, values in arrays.items():
            _add(tile, name, values[inside])
        tiles[f"{column},{row}"] = int(inside.sum())
    return tiles


@contextmanager
def _zipped(path: Path) -> Iterator[Any]:
    import zarr

    with whole(path) as partial, tempfile.TemporaryDirectory() as folder:
        yield zarr.open_group(folder, mode="w", zarr_format=2)
        zip_folder(Path(folder), partial)


def _add(group: Any, name: str, values: np.ndarray) -> None:
    # Chunks of zeros are written too: a reader cannot tell one that is left out from one that is lost.
    group.create_array(name, data=values, config={"write_empty_chunks": True})
