"""Outlines of cells and nuclei as polygons: GeoParquet, GeoJSON, and GeoJSON packed in a zip or by gzip.

HEST-1k publishes both kinds. Its parquet has one polygon a row, in `xenium_seg` with the cells' ids as index. Its
GeoJSON is a list of features (in `cellvit_seg` one of each class, in `xenium_seg` ten, by place in the file), each a
MultiPolygon that holds a cell a polygon, without ids. Space Ranger 4 writes a FeatureCollection with one Polygon a cell
and its number in `properties.cell_id`. Other programs list the ids of a MultiPolygon's cells there.
"""

import gzip
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .geojson import features_of
from .tables import names_of, reading

FLAT = "outlines without area"
CROSSED = "outlines that cross themselves (hull taken)"
PARTS = "smaller parts of outlines"
_KIND = "polygons of cells (GeoParquet, GeoJSON, or GeoJSON in a zip)"
_ID_COLUMNS = ("cell_id", "__index_level_0__", "__null_dask_index__")
"""Where parquet has the ids: a column, or an index that no longer is one because another program wrote the file."""
MOST_VERTICES = 64
"""Vertices of an outline that is kept beside a cell."""
_MOST_PARTS = 50
"""Polygons of one cell; where a single id goes with more, it is not theirs."""


@dataclass(frozen=True)
class Polygons:
    """The outlines of n cells in the order of a file, x and y in its pixels.

    name: object [n]; named: whether the file gives them (else they are numbered from 1). ring: outer rings, float64
    [V, 2] each, that do not cross themselves; None where a polygon has no area. measured: float64 [n, 3], centroid x, y
    and area. odd: {what: number} of what was left out or mended.
    """

    path: Path
    name: np.ndarray
    named: bool
    ring: list[np.ndarray | None]
    measured: np.ndarray
    odd: dict[str, int] = field(default_factory=dict)

    def table(self, name: np.ndarray | None = None) -> pd.DataFrame:
        """Return those with an area as cells, indexed by name: x_px, y_px (centroid), area_px2, polygon.

        Parameters
        ----------
        name
            Object [n], other names than the file's; None in it: left out.

        Raises
        ------
        DataError
            A name stands twice.
        """
        name = self.name if name is None else name
        kept = [i for i, ring in enumerate(self.ring) if ring is not None and name[i] is not None]
        index = pd.Index(name[kept], dtype=object, name="barcode")
        twice = index.duplicated()
        if twice.any():
            raise DataError(
                f"{self.path} names {int(twice.sum())} cells more than once, first {index[twice][0]!r}; expected one "
                "polygon a cell: download it again"
            )
        table = pd.DataFrame(self.measured[kept], columns=["x_px", "y_px", "area_px2"], index=index)
        table["polygon"] = pd.Series([self.ring[i] for i in kept], index=index, dtype=object)
        return table


def read_polygons(path: Path) -> Polygons:
    """Read a file of polygons.

    Raises
    ------
    DataError
        The file is damaged, or has no polygon with an area, a geometry that is no polygon, or a coordinate that is no
        number.
    """
    with reading(path, _KIND):
        with path.open("rb") as file:
            kind = file.read(4)
        name, rings, parts = _of_parquet(path) if kind == b"PAR1" else _of_features(_text_of(path, kind))
        ring, measured, odd = _mended(rings, name)
        if all(one is None for one in ring):
            raise ValueError(f"it holds {f'{len(ring)} polygons, none with an area' if ring else 'no polygon'}")
    if parts:
        odd[PARTS] = parts
    names = np.array([str(i + 1) for i in range(len(ring))], dtype=object) if name is None else name
    return Polygons(path, names, name is not None, ring, measured, odd)


def is_polygons(path: Path) -> bool:
    """Return whether a file looks like one of polygons, by its first bytes or, of a zip, by its members' names."""
    with path.open("rb") as file:
        kind = file.read(64)
    if kind[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith((".geojson", ".json")) for name in archive.namelist())
    text = kind.removeprefix(b"\xef\xbb\xbf").lstrip()
    return kind[:4] == b"PAR1" or kind[:2] == b"\x1f\x8b" or text[:1] in (b"[", b"{")


_Rings = tuple[np.ndarray | None, list[np.ndarray | None], int]
"""Names (None: the file has none), outer rings (None: empty), and how many smaller parts were left out."""


def _of_parquet(path: Path) -> _Rings:
    table = pd.read_parquet(path)
    geometry = next((name for name in ("geometry", "combined", "xy") if name in table.columns), None)
    if geometry is None:
        raise ValueError(f"no column geometry among {', '.join(map(str, table.columns[:12]))}")
    found = [_outer_ring(value) for value in table[geometry]]
    rings, parts = [ring for ring, _ in found], sum(more for _, more in found)
    column = next((name for name in _ID_COLUMNS if name in table), None)
    if column is None and isinstance(table.index, pd.RangeIndex):
        return None, rings, parts
    ids = table.index.to_series(name="cell_id") if column is None else table[column].rename("cell_id")
    return names_of(ids, path), rings, parts


def _text_of(path: Path, kind: bytes) -> str:
    if kind[:2] == b"\x1f\x8b":
        found = gzip.decompress(path.read_bytes())
    elif kind[:2] != b"PK":
        found = path.read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.lower().endswith((".geojson", ".json"))]
            members = [name for name in members if not name.startswith("__MACOSX")]
            if len(members) != 1:
                named = f" ({', '.join(sorted(members)[:4])})" if members else ""
                raise ValueError(f"it holds {len(members)} files *.geojson{named}, not one")
            found = archive.read(members[0])
    return found.decode("utf-8-sig")


def _of_features(text: str) -> _Rings:
    names: list[str | None] = []
    rings: list[np.ndarray | None] = []
    parts = 0
    for feature in features_of(text):
        polygons = _coordinates(feature["geometry"])
        ids = (feature.get("properties") or {}).get("cell_id")
        outer = [_ring(polygon[0]) if polygon else None for polygon in polygons]
        if ids is not None and not isinstance(ids, list) and len(polygons) != 1:
            if len(polygons) > _MOST_PARTS:
                raise ValueError(f"a feature has {len(polygons)} polygons and one cell_id, {ids!r}")
            outer, ids, parts = [_largest(outer)], [ids], parts + max(len(polygons) - 1, 0)
        ids = [ids] * len(outer) if ids is None else ids if isinstance(ids, list) else [ids]
        if len(ids) != len(outer):
            raise ValueError(f"a feature has {len(outer)} polygons and {len(ids)} cell_id")
        names += [None if one is None else _id_text(one) for one in ids]
        rings += outer
    unnamed = sum(name is None for name in names)
    if 0 < unnamed < len(names):
        raise ValueError(f"{unnamed} of {len(names)} polygons have no cell_id")
    return (None if unnamed else np.array(names, dtype=object)), rings, parts


def _coordinates(geometry: Any) -> list:
    if geometry is None:  # GeoJSON's way to say that there is none (RFC 7946, 3.2)
        return [[]]
    if geometry["type"] not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"a geometry is a {geometry['type']}, not a Polygon or MultiPolygon")
    return geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]


def _ring(points: list) -> np.ndarray | None:
    if not points:
        return None
    ring = np.asarray(points, dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2:
        raise ValueError("a polygon's points are no pairs of numbers")
    return ring[:, :2]


def _id_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"a cell_id is {value!r}, neither a whole number nor text")
    return str(value)


def _mended(
    rings: list[np.ndarray | None], name: np.ndarray | None
) -> tuple[list[np.ndarray | None], np.ndarray, dict[str, int]]:
    """Return rings without crossings, None for those without area; centroids and areas; and what was done."""
    for place, ring in enumerate(rings):
        if ring is not None and not np.isfinite(ring).all():
            called = f"polygon {place + 1}" if name is None else f"cell {name[place]!r}"
            raise ValueError(f"the outline of {called} has a coordinate that is no number")
    measured, crosses = measure_rings(rings)
    crossed = np.flatnonzero(crosses)
    if len(crossed):
        rings = list(rings)
        for place in crossed:
            rings[place] = _hull(rings[place])
        measured[crossed] = measure_rings([rings[place] for place in crossed])[0]
    flat = ~(measured[:, 2] > 0)
    odd = {CROSSED: len(crossed), FLAT: int(flat.sum())}
    kept = [None if none else ring for ring, none in zip(rings, flat)]
    return kept, measured, {what: number for what, number in odd.items() if number}


def _hull(ring: np.ndarray) -> np.ndarray:
    import scipy.spatial

    try:
        corners = scipy.spatial.ConvexHull(ring).vertices
    except scipy.spatial.QhullError:  # as good as a line: no area
        return ring[:1]
    return ring[np.append(corners, corners[0])]


def measure_rings(rings: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Return centroid x, y and area of rings, float64 [n, 3], and which cross themselves, bool [n].

    A ring without area has the mean of its vertices, one without vertices NaN, and area 0.
    """
    from .ring_kernels import measure

    start = np.cumsum([0, *(0 if ring is None else len(ring) for ring in rings)])
    there = [ring for ring in rings if ring is not None]
    xy = np.concatenate(there) if there else np.zeros((0, 2))
    measured, crosses = np.full((len(rings), 3), (np.nan, np.nan, 0.0)), np.zeros(len(rings), dtype=bool)
    some = np.flatnonzero(np.diff(start))
    part, across = np.zeros((len(some), 3)), np.zeros(len(some), dtype=bool)
    measure(np.ascontiguousarray(xy), np.append(start[some], start[-1]), part, across)
    measured[some], crosses[some] = part, across
    return measured, crosses


def _largest(rings: Sequence[np.ndarray | None]) -> np.ndarray | None:
    return max(zip(rings, measure_rings(rings)[0][:, 2]), key=lambda one: one[1])[0] if rings else None


def padded(polygons: list[np.ndarray | None]) -> np.ndarray:
    """Return rings as one array, float64 [n, V, 2], padded with each one's last vertex; NaN where there is none.

    V is at most `MOST_VERTICES`: longer rings are thinned evenly, for one long one would make the array long for all.
    """
    longest = min(max((len(ring) for ring in polygons if ring is not None), default=1), MOST_VERTICES)
    out = np.full((len(polygons), longest, 2), np.nan)
    for place, ring in enumerate(polygons):
        if ring is None:
            continue
        if len(ring) > longest:
            ring = ring[np.linspace(0, len(ring) - 1, longest).round().astype(np.int64)]
        out[place, : len(ring)], out[place, len(ring) :] = ring, ring[-1]
    return out


def _outer_ring(wkb: bytes | None) -> tuple[np.ndarray | None, int]:
    """Return the outer ring of a polygon in well-known binary (OGC 06-103r4, 8.2), of a multi-polygon its largest.

    Beside it how many other parts there are. None: nothing, or an empty polygon.
    """
    if wkb is None or (isinstance(wkb, float) and np.isnan(wkb)):
        return None, 0
    if not isinstance(wkb, bytes) or len(wkb) < 9 or wkb[0] > 1:
        raise ValueError("a geometry is not well-known binary")
    order = "<" if wkb[0] else ">"
    kind, number = struct.unpack_from(f"{order}II", wkb, 1)
    if kind not in (3, 6):
        raise ValueError(f"a geometry is of the kind {kind}, not a polygon (3)")
    if kind == 3 or not number:
        return (_polygon(wkb, 0)[0], 0) if number else (None, 0)
    rings, at = [], 9
    for _ in range(number):
        ring, at = _polygon(wkb, at)
        rings.append(ring)
    return _largest(rings) if number > 1 else rings[0], number - 1


def _polygon(wkb: bytes, at: int) -> tuple[np.ndarray | None, int]:
    order = "<" if wkb[at] else ">"
    rings = struct.unpack_from(f"{order}II", wkb, at + 1)[1]
    at, outer = at + 9, None
    for _ in range(rings):
        points = struct.unpack_from(f"{order}I", wkb, at)[0]
        ring = np.frombuffer(wkb, f"{order}f8", 2 * points, at + 4).reshape(-1, 2).astype(np.float64)
        outer, at = ring if outer is None else outer, at + 4 + 16 * points
    return outer, at
