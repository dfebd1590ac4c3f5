"""Outlines of cells and nuclei as polygons: GeoParquet, GeoJSON, and GeoJSON in a zip, as HEST-1k gives both kinds.

`cellvit_seg/<id>_cellvit_seg.parquet` has one polygon a row. The same as `<id>_cellvit_seg.geojson.zip` is a list of
features, one of each class, whose MultiPolygon holds a nucleus a polygon; in `xenium_seg` `cell_id` lists their ids.
"""

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .tables import names_of, reading


def read_polygons(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return names, object [n], and outer rings, float64 [V, 2] each, x and y in pixels, in the order of the file.

    Polygons without a name are numbered from 1.

    Raises
    ------
    DataError
        The file is damaged, or has no geometry or one that is no polygon.
    """
    with reading(path, "polygons of cells (GeoParquet, GeoJSON, or GeoJSON in a zip)"):
        with path.open("rb") as file:
            kind = file.read(4)
        if kind == b"PAR1":
            return _of_parquet(path)
        names, rings = _of_features(json.loads(_text_of(path, kind)))
        if not rings:
            raise ValueError("it holds no polygon")
        return names, rings


def is_polygons(path: Path) -> bool:
    """Return whether a file looks like one of polygons, by its first bytes or, of a zip, by its members' names."""
    with path.open("rb") as file:
        kind = file.read(4)
    if kind[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith((".geojson", ".json")) for name in archive.namelist())
    return kind == b"PAR1" or kind.lstrip()[:1] in (b"[", b"{")


def _of_parquet(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    table = pd.read_parquet(path)
    geometry = next((name for name in ("geometry", "combined", "xy") if name in table.columns), None)
    if geometry is None:
        raise ValueError(f"no column geometry among {', '.join(map(str, table.columns[:12]))}")
    rings = [_outer_ring(value) for value in table[geometry]]
    if "cell_id" not in table and isinstance(table.index, pd.RangeIndex):
        return _numbered(len(rings)), rings
    ids = table["cell_id"] if "cell_id" in table else table.index.to_series(name="cell_id")
    return names_of(ids, path), rings


def _text_of(path: Path, kind: bytes) -> bytes:
    if kind[:2] != b"PK":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.lower().endswith((".geojson", ".json"))]
        members = [name for name in members if not name.startswith("__MACOSX")]
        if len(members) != 1:
            raise ValueError(f"it holds {len(members)} files *.geojson, not one")
        return archive.read(members[0])


def _of_features(content: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    features = content["features"] if isinstance(content, dict) else content
    names: list[str] | None = []
    rings: list[np.ndarray] = []
    for feature in features:
        geometry = feature["geometry"]
        if geometry["type"] not in ("Polygon", "MultiPolygon"):
            raise ValueError(f"a geometry is a {geometry['type']}, not a Polygon or MultiPolygon")
        polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        ids = (feature.get("properties") or {}).get("cell_id")
        ids = ids if isinstance(ids, list) or ids is None else [ids]
        if ids is not None and len(ids) != len(polygons):
            raise ValueError(f"a feature has {len(polygons)} polygons and {len(ids)} cell_id")
        if ids is None:
            names = None
        elif names is not None:
            names += map(str, ids)
        for polygon in polygons:
            ring = np.asarray(polygon[0], dtype=np.float64)
            if ring.ndim != 2 or ring.shape[1] < 2 or not np.isfinite(ring).all():
                raise ValueError("a polygon's points are no pairs of numbers")
            rings.append(ring[:, :2])
    return _numbered(len(rings)) if names is None else np.array(names, dtype=object), rings


def _numbered(number: int) -> np.ndarray:
    return np.array([str(i + 1) for i in range(number)], dtype=object)


def padded(polygons: list[np.ndarray | None]) -> np.ndarray:
    """Return rings as one array, float64 [n, V, 2], padded with each one's last vertex; NaN where there is none."""
    longest = max((len(ring) for ring in polygons if ring is not None), default=1)
    out = np.full((len(polygons), longest, 2), np.nan)
    for place, ring in enumerate(polygons):
        if ring is not None:
            out[place, : len(ring)], out[place, len(ring) :] = ring, ring[-1]
    return out


def _outer_ring(wkb: bytes) -> np.ndarray:
    """Return the outer ring of a polygon in well-known binary (OGC 06-103r4, 8.2), of a multi-polygon its largest."""
    if not isinstance(wkb, bytes) or len(wkb) < 9 or wkb[0] > 1:
        raise ValueError("a geometry is not well-known binary")
    order = "<" if wkb[0] else ">"
    kind, number = struct.unpack_from(f"{order}II", wkb, 1)
    if kind == 6 and number:
        rings, at = [], 9
        for _ in range(number):
            ring, at = _polygon(wkb, at)
            rings.append(ring)
        return max(rings, key=lambda ring: abs(centroid(ring)[2]))
    if kind != 3 or not number:
        raise ValueError(f"a geometry is of the kind {kind}, not a polygon (3)")
    return _polygon(wkb, 0)[0]


def _polygon(wkb: bytes, at: int) -> tuple[np.ndarray, int]:
    order = "<" if wkb[at] else ">"
    rings = struct.unpack_from(f"{order}II", wkb, at + 1)[1]
    at, outer = at + 9, None
    for _ in range(rings):
        points = struct.unpack_from(f"{order}I", wkb, at)[0]
        ring = np.frombuffer(wkb, f"{order}f8", 2 * points, at + 4).reshape(-1, 2).astype(np.float64)
        outer, at = ring if outer is None else outer, at + 4 + 16 * points
    return outer, at


def centroid(ring: np.ndarray) -> tuple[float, float, float]:
    """Return centroid x, y and area of a ring; the mean of its vertices where it has no area."""
    x, y = (ring - ring[0]).T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum() / 2
    if abs(area) < 1e-12:
        return (*ring.mean(axis=0), 0.0)
    cx, cy = ((one + np.roll(one, -1)) @ cross / (6 * area) for one in (x, y))
    return float(ring[0, 0] + cx), float(ring[0, 1] + cy), float(abs(area))
