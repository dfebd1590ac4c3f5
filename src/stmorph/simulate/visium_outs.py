"""Space Ranger's own file layout, version 1 to 4, written byte for byte alike for the same content."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse

from ..files import whole
from ..randomness import numpy_generator
from .options import SpaceRanger
from .pictures import previews, write_image, write_preview
from .programmes import GeneCatalogue

POSITIONS = {1: "tissue_positions_list.csv", 2: "tissue_positions.csv", 4: "tissue_positions.parquet"}
POSITION_COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")


@dataclass(frozen=True)
class VisiumSlide:
    """What Space Ranger would know of a slide with n spots, m of them under tissue.

    barcode: str [n]. in_tissue: bool [n]. array_row, array_col: int64 [n]. spot_um: float64 [n, 2] x, y.
    counts: CSR int32 [m, G], rows in the order of the barcodes in tissue. image: uint8 [H, W, 3].
    """

    name: str
    barcode: np.ndarray
    in_tissue: np.ndarray
    array_row: np.ndarray
    array_col: np.ndarray
    spot_um: np.ndarray
    counts: scipy.sparse.csr_matrix
    genes: GeneCatalogue
    image: np.ndarray
    um_per_px: float
    spot_diameter_um: float


def visium_files(out_dir: str | Path, version: SpaceRanger = 2) -> dict[str, Path]:
    """Return the files of a simulated slide by role; the names depend on the folder and version alone.

    The image lies beside `outs`, as a scanner's file does; truth is what a real slide does not have.
    """
    out_dir = Path(out_dir)
    return {
        "counts": out_dir / "outs" / "filtered_feature_bc_matrix.h5",
        "positions": out_dir / "outs" / "spatial" / POSITIONS[version],
        "scalefactors": out_dir / "outs" / "spatial" / "scalefactors_json.json",
        "hires": out_dir / "outs" / "spatial" / "tissue_hires_image.png",
        "lowres": out_dir / "outs" / "spatial" / "tissue_lowres_image.png",
        "image": out_dir / "image.tif",
        "truth": out_dir / "truth.parquet",
        "truth_json": out_dir / "truth.json",
    }


def mtx_files(out_dir: str | Path) -> dict[str, Path]:
    """Return the three files of the matrix as text, by role."""
    folder = Path(out_dir) / "outs" / "filtered_feature_bc_matrix"
    return {
        "matrix": folder / "matrix.mtx.gz",
        "features": folder / "features.tsv.gz",
        "barcodes": folder / "barcodes.tsv.gz",
    }


def array_barcodes(number: int) -> np.ndarray:
    """Return distinct barcodes, str [number], 16 nucleotides and "-1"; the k-th is the same on every slide."""
    letters = numpy_generator("visium barcodes").integers(0, 4, (8192, 12))
    tail = (np.arange(8192)[:, None] * 2657 % 8192 // 4 ** np.arange(7)) % 4
    # The last letters count through the array, so no two are alike whatever the first ones are.
    letters = np.concatenate([letters[:, :9], tail], axis=1)
    return np.array(["".join("ACGT"[i] for i in row) + "-1" for row in letters[:number]])


def write_visium(slide: VisiumSlide, out_dir: str | Path, version: SpaceRanger = 2, mtx: bool = False) -> None:
    """Write a slide's counts, positions, scale factors, previews and full-resolution image.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    files = visium_files(out_dir, version)
    _write_h5(slide, files["counts"], version)
    _write_positions(slide, files["positions"], version)
    _write_previews(slide, files)
    write_image(slide.image, slide.um_per_px, files["image"])
    if mtx:
        _write_mtx(slide, mtx_files(out_dir))


def _write_h5(slide: VisiumSlide, path: Path, version: int) -> None:
    """Write 10x's HDF5 matrix, format 2: features by barcodes in compressed columns, so a column is a spot."""
    counts = slide.counts.tocsr().sorted_indices()
    barcodes = slide.barcode[slide.in_tissue]
    with whole(path) as partial, h5py.File(partial, "w", libver="earliest") as file:
        file.attrs["chemistry_description"] = np.array([b"Spatial 3' v1"])
        file.attrs["filetype"] = "matrix"
        file.attrs["library_ids"] = np.array([slide.name.encode()])
        file.attrs["original_gem_groups"] = np.array([1], dtype=np.int64)
        file.attrs["software_version"] = f"spaceranger-{version}.0.0"
        file.attrs["version"] = np.int64(2)
        matrix = file.create_group("matrix")
        features = matrix.create_group("features")

        def put(group: h5py.Group, name: str, values: np.ndarray) -> None:
            group.create_dataset(name, data=values, compression="gzip", compression_opts=4, track_times=False)

        put(matrix, "barcodes", barcodes.astype("S"))
        put(matrix, "data", counts.data.astype(np.int32))
        put(matrix, "indices", counts.indices.astype(np.int64))
        put(matrix, "indptr", counts.indptr.astype(np.int64))
        put(matrix, "shape", np.array([len(slide.genes), len(barcodes)], dtype=np.int32))
        put(features, "id", np.array(slide.genes.gene_id, dtype="S"))
        put(features, "name", np.array(slide.genes.name, dtype="S"))
        put(features, "feature_type", np.array(["Gene Expression"] * len(slide.genes), dtype="S"))
        put(features, "genome", np.array(["simulated"] * len(slide.genes), dtype="S"))
        put(features, "_all_tag_keys", np.array([b"genome"]))


def _write_mtx(slide: VisiumSlide, files: dict[str, Path]) -> None:
    """Write the same matrix as gzipped text: genes in rows, spots in columns."""
    rows = zip(slide.genes.gene_id, slide.genes.name)
    text = {
        "barcodes": "".join(f"{b}\n" for b in slide.barcode[slide.in_tissue]),
        "features": "".join(f"{i}\t{n}\tGene Expression\n" for i, n in rows),
    }
    for role, path in files.items():
        with whole(path) as partial, partial.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            if role == "matrix":
                scipy.io.mmwrite(packed, scipy.sparse.coo_matrix(slide.counts.T), field="integer", symmetry="general")
            else:
                packed.write(text[role].encode())


def _write_positions(slide: VisiumSlide, path: Path, version: int) -> None:
    """Write every spot of the array; its place is given row first, then column, in pixels of the full image."""
    pixel = slide.spot_um / slide.um_per_px
    if version == 1:
        pixel = np.rint(pixel).astype(np.int64)
    columns = (slide.barcode, slide.in_tissue.astype(np.int64), slide.array_row, slide.array_col)
    table = pd.DataFrame(dict(zip(POSITION_COLUMNS, (*columns, pixel[:, 1], pixel[:, 0]))))
    with whole(path) as partial:
        if version == 4:
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False, header=version > 1, float_format="%.2f", lineterminator="\n")


def _write_previews(slide: VisiumSlide, files: dict[str, Path]) -> None:
    """Write the two smaller images and the factors that lead from the full image to them."""
    factors = {
        "spot_diameter_fullres": slide.spot_diameter_um / slide.um_per_px,
        # The fiducial frame's dots are 1.6 times as wide as spots in Space Ranger's files.
        "fiducial_diameter_fullres": 1.6154 * slide.spot_diameter_um / slide.um_per_px,
    }
    for role, (picture, factor) in previews(slide.image).items():
        factors[f"tissue_{role}_scalef"] = factor
        write_preview(picture, files[role])
    with whole(files["scalefactors"]) as partial:
        partial.write_text(json.dumps(factors, sort_keys=True), encoding="utf-8")
