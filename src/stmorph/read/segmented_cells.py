"""Cells that Space Ranger 4 found in a Visium HD slide: `outs/segmented_outputs`.

`filtered_feature_cell_matrix.h5` (or `raw_...`) names cells `cellid_000000001-1`. `cell_segmentations.geojson` and
`nucleus_segmentations.geojson` outline them in pixels of the full-resolution microscope image, one Polygon a cell with
its number in `properties.cell_id`; `graphclust_annotated_..._segmentations.geojson` are the same with each cell's
cluster. `spatial/scalefactors_json.json` has microns_per_pixel and no bin size (10x Genomics, "Space Ranger Segmented
Outputs"). Space Ranger may outline cells that have no counts, and the other way round.
"""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .base import SlideInfo
from .bin_scale import bin_scale
from .counts import Counts
from .join import join
from .polygons import Polygons, padded, read_polygons
from .visium import feature_matrix

if TYPE_CHECKING:
    import anndata

_BARCODE = re.compile(r"cellid_(\d{1,18})(?:-\d+)?")
_ID = re.compile(r"(?:cellid_)?(\d{1,18})(?:-\d+)?")
_BIN = re.compile(r"s_\d{3}um_")


def segmented_cells(files: dict[str, Path], info: SlideInfo) -> "anndata.AnnData":
    """Return the cells of `counts` and `cells` (outlines), as `Reader.read` promises; `scalefactors` tells the scale.

    Raises
    ------
    DataError
        A file is damaged, the counts are bins', the outlines have no ids or name a cell twice, or no cell is in both.
    """
    counts = feature_matrix(files["counts"])
    polygons = read_polygons(files["cells"])
    outlines = polygons.table(_barcodes(polygons, counts))
    # Cells lie on no array: 0 throughout, so that no grid is sought.
    positions = outlines.assign(in_tissue=True, array_row=0, array_col=0)
    adata = join(counts, positions, files["cells"], np.zeros((len(positions), 2)))
    adata.uns["lost"] |= polygons.odd
    adata.uns["unit"] = "cell"
    stated = bin_scale(files["scalefactors"]).get("microns_per_pixel") if "scalefactors" in files else None
    if stated is not None:
        adata.uns["um_per_px"] = stated
        adata.uns["um_per_px_evidence"] = f"{stated:.4f} by {files['scalefactors'].name} (microns_per_pixel)"
    kept = outlines.loc[adata.obs_names]
    adata.obs["cell_area_um2"] = kept["area_px2"].to_numpy() * (info.um_per_px or stated or math.nan) ** 2
    adata.obsm["boundary_px"] = padded(list(kept["polygon"]))
    return adata


def _barcodes(polygons: Polygons, counts: Counts) -> np.ndarray:
    """Return what the counts call each outline's cell, object [n]; of those without counts what they would."""
    if _BIN.match(counts.barcode[0]):
        raise DataError(
            f"{counts.path} holds bins ({counts.barcode[0]!r}), and {polygons.path} outlines cells; expected the "
            "counts of cells: give segmented_outputs/filtered_feature_cell_matrix.h5"
        )
    if not polygons.named:
        raise DataError(
            f"{polygons.path} has polygons without cell_id; expected each one's number in its properties, to find its "
            "counts: give segmented_outputs/cell_segmentations.geojson"
        )
    found = [_BARCODE.fullmatch(name) for name in counts.barcode]
    ids = [_ID.fullmatch(name) for name in polygons.name]
    if not all(found) or not all(ids):
        return polygons.name  # another program's names, taken as they are
    barcode = {int(match[1]): match[0] for match in found}
    if len(barcode) < len(found):
        raise DataError(
            f"{counts.path} holds {len(found)} barcodes of {len(barcode)} cells, which differ by what follows the "
            "hyphen alone; expected one slide: give the file of one run, not of several"
        )
    number = [int(match[1]) for match in ids]
    return np.array([barcode.get(one, f"cellid_{one:09d}-1") for one in number], dtype=object)
