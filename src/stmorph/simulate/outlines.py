"""The outlines of a section's cells and nuclei, and the files of polygons that vendors and data sets keep them in."""

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.spatial

from ..files import EARLIEST_ZIP_TIME, whole
from .tissue import Cells

VERTICES = 13
"""Vertices of an outline, the last one the first, as Onboard Analysis 1 and 2 write."""


def growth(cells: Cells) -> np.ndarray:
    """Return how many times as wide as its nucleus a cell is, float64 [n].

    It reaches up to halfway to the nearest nucleus, and never less far than its own.
    """
    long = cells.radius_um * np.sqrt(cells.elongation)
    nearest = scipy.spatial.cKDTree(cells.xy_um).query(cells.xy_um, k=2)[0][:, 1]
    body = np.maximum(1.75, 1 + 3.0 / cells.radius_um)
    return np.clip(0.5 * nearest / long, 1.05, body)


def outlines(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Return the outlines of cells and nuclei, float64 [n, VERTICES, 2], in the section's micrometres.

    A cell is its nucleus enlarged (`growth`).
    """
    angle = np.linspace(0, 2 * np.pi, VERTICES)
    long, short = cells.radius_um * np.sqrt(cells.elongation), cells.radius_um / np.sqrt(cells.elongation)
    along, across = long[:, None] * np.cos(angle), short[:, None] * np.sin(angle)
    cosine, sine = np.cos(cells.angle)[:, None], np.sin(cells.angle)[:, None]
    shape = np.stack([along * cosine - across * sine, along * sine + across * cosine], axis=-1)
    shape[:, -1] = shape[:, 0]
    return cells.xy_um[:, None] + growth(cells)[:, None, None] * shape, cells.xy_um[:, None] + shape


def feature(geometry: str, coordinates: Sequence, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a feature of GeoJSON."""
    return {
        "type": "Feature",
        "geometry": {"type": geometry, "coordinates": coordinates},
        "properties": dict(properties),
    }


def rounded(rings: np.ndarray) -> list[list[list[float]]]:
    """Return rings [n, V, 2] as lists, to thousandths."""
    return np.round(rings, 3).tolist()


def write_geojson(content: Any, path: Path, packed: Path | None = None) -> None:
    """Write GeoJSON, and the same in a zip where a path is given; both without a time."""
    text = json.dumps(content)
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    if packed is not None:
        with whole(packed) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(path.name, EARLIEST_ZIP_TIME), text, zipfile.ZIP_DEFLATED)


def write_geoparquet(rings: np.ndarray, table: pd.DataFrame, path: Path) -> None:
    """Write one polygon a row in well-known binary, with the columns and the index of a table, as geopandas does."""
    import pyarrow
    import pyarrow.parquet

    head = struct.pack("<BIII", 1, 3, 1, rings.shape[1])
    shapes = [head + ring.astype("<f8").tobytes() for ring in rings]
    stored = pyarrow.Table.from_pandas(table.assign(geometry=shapes))
    about = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": about}}
    stored = stored.replace_schema_metadata({**stored.schema.metadata, b"geo": json.dumps(geo).encode()})
    with whole(path) as partial:
        pyarrow.parquet.write_table(stored, partial)
