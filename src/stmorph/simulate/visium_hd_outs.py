"""Space Ranger's outs of Visium HD, with a BigTIFF image, the nuclei and the truth beside them.

Version 3 writes `binned_outputs`, version 4 also `segmented_outputs`.
"""

import json
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse
import tifffile
from PIL import Image

from ..files import whole
from ..randomness import numpy_generator
from .feature_slice import write_feature_slice
from .options import SimulationOptions, SpaceRanger
from .pictures import previews, write_image, write_preview
from .programmes import GeneCatalogue, catalogue
from .truth_files import write_truth
from .visium_hd_cells import segment, segmented_files, write_cell_scale, write_outlines
from .visium_hd_slide import BIN_UM, SIZES, cell_truth, draw_hd
from .visium_outs import POSITION_COLUMNS


def visium_hd_files(out_dir: str | Path, version: SpaceRanger = 2) -> dict[str, Path]:
    """Return the files of a simulated slide by role; those of larger bins end in `_008um` and `_016um`.

    From version 4 on with those of `segmented_files`.
    """
    out_dir = Path(out_dir)
    files = {}
    for size in SIZES:
        folder = out_dir / "outs" / "binned_outputs" / f"square_{size:03d}um"
        tail = "" if size == BIN_UM else f"_{size:03d}um"
        files |= {
            f"counts{tail}": folder / "filtered_feature_bc_matrix.h5",
            f"raw_counts{tail}": folder / "raw_feature_bc_matrix.h5",
            f"positions{tail}": folder / "spatial" / "tissue_positions.parquet",
            f"scalefactors{tail}": folder / "spatial" / "scalefactors_json.json",
            f"hires{tail}": folder / "spatial" / "tissue_hires_image.png",
            f"lowres{tail}": folder / "spatial" / "tissue_lowres_image.png",
        }
    segmented = segmented_files(out_dir) if version >= 4 else {}
    return (
        files
        | segmented
        | {
            "feature_slice": out_dir / "outs" / "feature_slice.h5",
            "image": out_dir / "image.btf",
            "nuclei": out_dir / "nuclei.tif",
            "truth": out_dir / "truth.parquet",
            "truth_json": out_dir / "truth.json",
        }
    )


def write_hd_slide(options: SimulationOptions, out_dir: str | Path, slide: str, patient: str, seed: int) -> None:
    """Draw a slide and write it as Space Ranger would, with its truth: `visium_hd_files(out_dir, version)`.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    version = options.space_ranger
    drawn, files = draw_hd(options, slide, patient, seed), visium_hd_files(out_dir, version)
    genes = catalogue(options.noise_genes)
    software = f"spaceranger-{max(version, 3)}.0.0"
    pictures = previews(drawn.image)
    for size in SIZES:
        tail = "" if size == BIN_UM else f"_{size:03d}um"
        bins, counts = drawn.bins(size), drawn.counts_of(size)
        barcode, tissue = bins["barcode"].to_numpy(dtype="S"), bins["in_tissue"].to_numpy() == 1
        _write_h5(files[f"counts{tail}"], slide, barcode[tissue], counts[tissue], genes, software)
        _write_h5(files[f"raw_counts{tail}"], slide, barcode, counts, genes, software)
        columns = ("barcode", "in_tissue", "array_row", "array_col", "y_px", "x_px")
        with whole(files[f"positions{tail}"]) as partial:
            bins[list(columns)].set_axis(list(POSITION_COLUMNS), axis=1).to_parquet(partial, index=False)
        _write_scale(files[f"scalefactors{tail}"], size, options.um_per_px, pictures)
        for role, (picture, _) in pictures.items():
            write_preview(picture, files[f"{role}{tail}"])
    if version >= 4:
        cells = segment(drawn)
        for role in ("cell_counts", "raw_cell_counts"):
            _write_h5(files[role], slide, cells.barcode.astype("S"), cells.counts, genes, software)
        write_outlines(cells, files)
        factors = {f"tissue_{role}_scalef": factor for role, (_, factor) in pictures.items()}
        factors["regist_target_img_scalef"] = pictures["hires"][1]
        write_cell_scale(files["cell_scalefactors"], options.um_per_px, factors)
        for role, (picture, _) in pictures.items():
            write_preview(picture, files[f"cell_{role}"])
    write_feature_slice(drawn, genes, slide, files["feature_slice"])
    write_image(drawn.image, options.um_per_px, files["image"], bigtiff=True)
    with whole(files["nuclei"]) as partial:
        tifffile.imwrite(partial, drawn.nuclei, compression="deflate", software="stmorph", metadata=None)
    write_truth(
        files,
        cell_truth(drawn),
        options,
        (slide, patient, seed),
        drawn.section,
        drawn.stain,
        depth=drawn.depth,
        array_shape=list(drawn.shape),
        array_origin_px=drawn.origin.tolist(),
        array_axes_px=drawn.axes.tolist(),
        bins_in_tissue=int(drawn.in_tissue.sum()),
        molecules=int(drawn.counts.sum()),
    )


def _write_scale(path: Path, size_um: int, um_per_px: float, pictures: dict[str, tuple[Image.Image, float]]) -> None:
    factors = {
        "spot_diameter_fullres": size_um / um_per_px,
        "bin_size_um": float(size_um),
        "microns_per_pixel": um_per_px,
        "regist_target_img_scalef": pictures["hires"][1],
        "fiducial_diameter_fullres": 1200 / um_per_px,
    } | {f"tissue_{role}_scalef": factor for role, (_, factor) in pictures.items()}
    with whole(path) as partial:
        partial.write_text(json.dumps(factors, sort_keys=True), encoding="utf-8")


def _write_h5(
    path: Path, slide: str, barcode: np.ndarray, counts: scipy.sparse.csr_matrix, genes: GeneCatalogue, software: str
) -> None:
    """Write 10x's HDF5 matrix, format 2; barcodes in an order of their own, as Space Ranger's are."""
    order = np.argsort(numpy_generator("visium hd barcodes").permutation(len(barcode)), kind="stable")
    barcode, counts = barcode[order], counts[order]
    with whole(path) as partial, h5py.File(partial, "w", libver="earliest") as file:
        file.attrs["chemistry_description"] = np.array([b"Visium HD v1"])
        file.attrs["filetype"] = "matrix"
        file.attrs["library_ids"] = np.array([slide.encode()])
        file.attrs["original_gem_groups"] = np.array([1], dtype=np.int64)
        file.attrs["software_version"] = software
        file.attrs["version"] = np.int64(2)
        matrix = file.create_group("matrix")
        features = matrix.create_group("features")
        shape = np.array([len(genes), len(barcode)], dtype=np.int32)
        columns = {
            matrix: {
                "barcodes": barcode,
                "data": counts.data.astype(np.int32),
                "indices": counts.indices.astype(np.int64),
                "indptr": counts.indptr.astype(np.int64),
                "shape": shape,
            },
            features: {
                "id": np.array(genes.gene_id, dtype="S"),
                "name": np.array(genes.name, dtype="S"),
                "feature_type": np.array(["Gene Expression"] * len(genes), dtype="S"),
                "genome": np.array(["simulated"] * len(genes), dtype="S"),
                "_all_tag_keys": np.array([b"genome"]),
            },
        }
        for group, datasets in columns.items():
            for name, values in datasets.items():
                group.create_dataset(name, data=values, compression="gzip", compression_opts=4, track_times=False)
