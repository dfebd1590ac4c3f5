"""The cells of a simulated Xenium sample in every form that HEST-1k has published them in.

`transcripts/<id>_transcripts.parquet` is Xenium's table with he_x and he_y. `xenium_seg/` outlines cells and nuclei,
`cellvit_seg/` the nuclei as CellViT would find them in the image; each as parquet, GeoJSON and GeoJSON in a zip. The
GeoJSON has no ids, as HEST's writer leaves them out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..files import whole
from ..randomness import numpy_generator
from .cells import cell_counts
from .outlines import feature, outlines, rounded, write_geojson, write_geoparquet
from .programmes import catalogue
from .tissue import LYMPHOCYTE, TYPE_NAMES, Section
from .xenium_outs import cell_names
from .xenium_slide import draw_transcripts, xenium_truth

CHUNKS = 10
"""Features that HEST's writer cuts the polygons of Xenium into, whatever they are of."""
_CLASSES = {LYMPHOCYTE: "Inflammatory", "fibroblast": "Connective"}


@dataclass(frozen=True)
class HestCells:
    """What is known of a sample's n cells; pixels are the image's.

    cell_id: str [n]. counts: CSR int32 [n, G], of the genes in the catalogue's order. cell_px, nucleus_px: outlines,
    float64 [n, V, 2]. kind: CellViT's class, str [n]. transcripts: as HEST stores them. truth: one row a cell.
    """

    cell_id: np.ndarray
    counts: scipy.sparse.csr_matrix
    cell_px: np.ndarray
    nucleus_px: np.ndarray
    kind: np.ndarray
    transcripts: pd.DataFrame
    truth: pd.DataFrame


def hest_cell_files(out_dir: Path) -> dict[str, Path]:
    """Return the files of the cells by role; `truth_cells` is what a real sample does not have."""
    sample = out_dir.name
    files = {"transcripts": out_dir / "transcripts" / f"{sample}_transcripts.parquet"}
    for role, stem in (
        ("cells", f"xenium_seg/{sample}_xenium_cell_seg"),
        ("xenium_nuclei", f"xenium_seg/{sample}_xenium_nucleus_seg"),
        ("nuclei", f"cellvit_seg/{sample}_cellvit_seg"),
    ):
        for tail, ending in (("", "parquet"), ("_geojson", "geojson"), ("_zip", "geojson.zip")):
            files[f"{role}{tail}"] = out_dir / f"{stem}.{ending}"
    return files | {"truth_cells": out_dir / "truth_cells.parquet"}


def draw_hest_cells(section: Section) -> HestCells:
    """Draw the cells of a section: counts and molecules, from the section's seed, slide and patient alone."""
    cells, options = section.cells, section.options
    genes, cell_id = catalogue(options.noise_genes), cell_names(len(cells))
    counts = scipy.sparse.csr_matrix(cell_counts(section, options.cell_molecules).astype(np.int32))
    outline, nucleus = outlines(cells)
    rng = numpy_generator(section.seed, section.slide, section.patient, "hest transcripts")
    names = np.array(genes.name)
    transcripts = draw_transcripts(counts, cells, cell_id, names, outline, section.layout, rng)
    for place, axis in (("he_x", "x_location"), ("he_y", "y_location")):
        transcripts[place] = np.round(transcripts[axis] / options.um_per_px, 4)
    kind = np.array([_CLASSES.get(TYPE_NAMES[one], "Neoplastic") for one in cells.type])
    px = 1 / options.um_per_px
    return HestCells(cell_id, counts, outline * px, nucleus * px, kind, transcripts, xenium_truth(section, cell_id))


def write_hest_cells(cells: HestCells, out_dir: Path) -> None:
    """Write the files of `hest_cell_files`.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    files = hest_cell_files(out_dir)
    for role, table in (("transcripts", cells.transcripts), ("truth_cells", cells.truth)):
        with whole(files[role]) as partial:
            table.to_parquet(partial, index=False)
    chunk = np.arange(len(cells.cell_id)) // (len(cells.cell_id) // CHUNKS + 1)
    ids = pd.DataFrame(index=pd.Index(cells.cell_id.astype(object)))
    found = pd.DataFrame({"class": cells.kind.astype(object), "cell_id": np.arange(len(cells.kind))})
    for role, rings, table, group in (
        ("cells", cells.cell_px, ids, chunk),
        ("xenium_nuclei", cells.nucleus_px, ids, chunk),
        ("nuclei", cells.nucleus_px, found, cells.kind),
    ):
        write_geoparquet(rings, table, files[role])
        features = [_feature(rings[group == one], one) for one in np.unique(group)]
        write_geojson(features, files[f"{role}_geojson"], files[f"{role}_zip"])


def _feature(rings: np.ndarray, group: object) -> dict:
    shapes = [[ring] for ring in rounded(rings)]
    about = {"objectType": "annotation", "classification": {"name": str(group), "color": [255, 0, 0]}}
    return feature("MultiPolygon", shapes, about)
