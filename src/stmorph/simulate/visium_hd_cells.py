"""Space Ranger 4's `segmented_outputs` of a simulated Visium HD slide: cells, the 2 um bins in them, their outlines."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
import scipy.spatial

from ..files import whole
from .outlines import feature, growth, outlines, rounded, write_geojson
from .tissue import TYPE_NAMES
from .visium_hd_slide import SimulatedHD

NEAREST = 4
"""Cells among which a bin's is sought."""


@dataclass(frozen=True)
class SegmentedCells:
    """The n cells of a slide that have counts, by number, and the outlines of all m.

    barcode: str [n]; counts: CSR int32 [n, G], sums of the bins in the cell. number: int64 [m], the label that the cell
    has in the truth. cell_px, nucleus_px: float64 [m, V, 2]. cluster: int64 [m].
    """

    barcode: np.ndarray
    counts: scipy.sparse.csr_matrix
    number: np.ndarray
    cell_px: np.ndarray
    nucleus_px: np.ndarray
    cluster: np.ndarray


def segmented_files(out_dir: Path) -> dict[str, Path]:
    """Return the files of the segmented outputs by role."""
    folder = out_dir / "outs" / "segmented_outputs"
    return {
        "cell_counts": folder / "filtered_feature_cell_matrix.h5",
        "raw_cell_counts": folder / "raw_feature_cell_matrix.h5",
        "cells": folder / "cell_segmentations.geojson",
        "nucleus_outlines": folder / "nucleus_segmentations.geojson",
        "annotated_cells": folder / "graphclust_annotated_cell_segmentations.geojson",
        "annotated_nuclei": folder / "graphclust_annotated_nucleus_segmentations.geojson",
        "cell_scalefactors": folder / "spatial" / "scalefactors_json.json",
        "cell_hires": folder / "spatial" / "tissue_hires_image.png",
        "cell_lowres": folder / "spatial" / "tissue_lowres_image.png",
    }


def segment(drawn: SimulatedHD) -> SegmentedCells:
    """Return the cells of a slide: a bin in tissue is the cell's whose ellipse its centre lies deepest in, if any's."""
    cells, px = drawn.section.cells, 1 / drawn.section.options.um_per_px
    row, column = np.divmod(np.arange(len(drawn.in_tissue)), drawn.shape[1])
    bins = np.flatnonzero(drawn.in_tissue)
    xy_um = (drawn.origin + np.column_stack([column, row])[bins] @ drawn.axes) / px
    near = scipy.spatial.cKDTree(cells.xy_um).query(xy_um, k=min(NEAREST, len(cells)))[1].reshape(len(bins), -1)
    away = xy_um[:, None] - cells.xy_um[near]
    cosine, sine = np.cos(cells.angle)[near], np.sin(cells.angle)[near]
    root = np.sqrt(cells.elongation)[near]
    along = (away[..., 0] * cosine + away[..., 1] * sine) / root
    across = (away[..., 1] * cosine - away[..., 0] * sine) * root
    depth = np.hypot(along, across) / (cells.radius_um * growth(cells))[near]
    best = depth.argmin(axis=1)
    inside = depth.min(axis=1) <= 1
    of = near[np.arange(len(bins)), best][inside]
    ones = np.ones(len(of), dtype=np.int32)
    belongs = scipy.sparse.csr_matrix((ones, (of, bins[inside])), shape=(len(cells), len(drawn.in_tissue)))
    counts = (belongs @ drawn.counts).tocsr().astype(np.int32)
    counts.sort_indices()
    full = np.flatnonzero(np.asarray(counts.sum(axis=1)).ravel())
    number = np.arange(1, len(cells) + 1)
    cell, nucleus = outlines(cells)
    barcode = np.array([f"cellid_{one:09d}-1" for one in number[full]])
    return SegmentedCells(barcode, counts[full], number, cell * px, nucleus * px, cells.type)


def write_outlines(cells: SegmentedCells, files: dict[str, Path]) -> None:
    """Write the outlines, plain and with each cell's cluster, to the files of `segmented_files`.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    for rings, plain, annotated in (
        (cells.cell_px, "cells", "annotated_cells"),
        (cells.nucleus_px, "nucleus_outlines", "annotated_nuclei"),
    ):
        shapes = [[ring] for ring in rounded(rings)]
        ids = [{"cell_id": int(one)} for one in cells.number]
        colours = [[25 * (one % 10), 255 - 25 * (one % 10), 128] for one in range(len(TYPE_NAMES))]
        clusters = [
            {"classification": {"name": f"Cluster {one + 1}", "color": colours[one]}} for one in cells.cluster.tolist()
        ]
        for role, more in ((plain, [{}] * len(ids)), (annotated, clusters)):
            features = [feature("Polygon", *one) for one in zip(shapes, (a | b for a, b in zip(ids, more)))]
            write_geojson({"type": "FeatureCollection", "features": features}, files[role])


def write_cell_scale(path: Path, um_per_px: float, factors: dict[str, float]) -> None:
    """Write scalefactors_json.json as it lies beside cells: without a size of bins or spots."""
    content = {"microns_per_pixel": um_per_px, "fiducial_diameter_fullres": 1200 / um_per_px} | factors
    with whole(path) as partial:
        partial.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
