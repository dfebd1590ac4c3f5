"""HEST-1k's own layout: `st/<id>.h5ad`, `wsis/<id>.tif`, `patches/<id>.h5`, `metadata/<id>.json`, the table of samples.

The id is the name of the slide's folder. Visium is written as measured; Xenium and Visium HD as HEST pools them: square
pseudo-spots side by side, the empty ones left out. The patches are shuffled, as joining by barcode demands. Xenium also
has its cells (`hest_cells`), whose molecules are drawn apart from those of the pseudo-spots.
"""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..files import whole
from ..image.pictures import fitted
from ..randomness import numpy_generator
from .counts import slide_depth
from .hest_cells import draw_hest_cells, hest_cell_files, write_hest_cells
from .layout import PITCH_UM, SPOT_DIAMETER_UM
from .options import SimulationOptions
from .programmes import GeneCatalogue, catalogue
from .render import draw_stain, render
from .slide import measured_spots
from .tissue import Section, draw_section
from .truth_files import write_truth
from .visium_outs import array_barcodes

PATCH_UM_PER_PX = 0.5
PATCH_PX = 224
POOLED_UM = {"Xenium": 100.0, "Visium HD": 128.0}
OVERVIEW_PX = 1000
# The table's columns in version 1.1.0.
COLUMNS = (
    "dataset_title",
    "id",
    "image_filename",
    "organ",
    "disease_state",
    "oncotree_code",
    "species",
    "patient",
    "st_technology",
    "data_publication_date",
    "license",
    "study_link",
    "download_page_link1",
    "inter_spot_dist",
    "spot_diameter",
    "spots_under_tissue",
    "preservation_method",
    "nb_genes",
    "treatment_comment",
    "pixel_size_um_embedded",
    "pixel_size_um_estimated",
    "magnification",
    "fullres_px_width",
    "fullres_px_height",
    "tissue",
    "disease_comment",
    "subseries",
    "hest_version_added",
)


def hest_files(out_dir: str | Path, technology: str = "Visium") -> dict[str, Path]:
    """Return the files of a simulated sample by role; they depend on the folder and the technology alone."""
    out_dir = Path(out_dir)
    sample = out_dir.name
    return {
        "counts": out_dir / "st" / f"{sample}.h5ad",
        "image": out_dir / "wsis" / f"{sample}.tif",
        "patches": out_dir / "patches" / f"{sample}.h5",
        "sample_metadata": out_dir / "metadata" / f"{sample}.json",
        "metadata": out_dir / "HEST_v1_1_0.csv",
        "truth": out_dir / "truth.parquet",
        "truth_json": out_dir / "truth.json",
        **(hest_cell_files(out_dir) if technology == "Xenium" else {}),
    }


def write_hest_slide(options: SimulationOptions, out_dir: str | Path, slide: str, patient: str, seed: int) -> None:
    """Draw a slide and write it as HEST-1k would, with its truth (one row a unit): `hest_files(out_dir, technology)`.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    files, sample = hest_files(out_dir, options.hest_technology), Path(out_dir).name
    section = draw_section(options, slide, patient, seed)
    stain = draw_stain(options, slide, patient, seed)
    section, barcode = _units(section, options)
    keep, truth, counts = measured_spots(section, barcode, options, slide, patient, seed)
    image, genes = render(section, stain), catalogue(options.noise_genes)
    xy_px = truth[["x_um", "y_um"]].to_numpy() / options.um_per_px
    array = np.column_stack([section.layout.spot_row, section.layout.spot_column])[keep]
    if options.hest_technology == "Visium HD":
        # As published: numbered by place among the units that are left, so that rows and columns are nobody's.
        width = int(array[:, 1].max()) + 1
        array = np.column_stack(np.divmod(np.arange(len(truth)), width))
    row = _metadata_row(options, sample, patient, image, truth, genes)
    _write_h5ad(files["counts"], counts, truth["barcode"].to_numpy(), xy_px, array, genes, image, options)
    _write_wsi(files["image"], image, options.um_per_px)
    patches = _write_patches(files["patches"], image, truth["barcode"].to_numpy(), xy_px, options, (seed, slide))
    if options.hest_technology == "Xenium":
        write_hest_cells(draw_hest_cells(section), Path(out_dir))
    with whole(files["metadata"]) as partial:
        table = pd.DataFrame([row], columns=COLUMNS)
        table.to_csv(partial, index=False, encoding="utf-8-sig", lineterminator="\n")
    with whole(files["sample_metadata"]) as partial:
        partial.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    write_truth(
        files,
        truth.assign(has_patch=patches),
        options,
        (slide, patient, seed),
        section,
        stain,
        unit="spot" if options.hest_technology == "Visium" else "pseudo-spot",
        depth=slide_depth(options, slide, patient, seed),
        total_counts=int(counts.sum()),
    )


def _units(section: Section, options: SimulationOptions) -> tuple[Section, np.ndarray]:
    """Return the section with the technology's units as its spots, and their names."""
    layout = section.layout
    if options.hest_technology == "Visium":
        return section, array_barcodes(len(layout.spot_um))
    pitch = POOLED_UM[options.hest_technology]
    rows, columns = (int(side // pitch) for side in (layout.height_um, layout.width_um))
    row, column = np.divmod(np.arange(rows * columns), columns)
    um = (np.stack([column, row], axis=1) + 0.5) * pitch
    layout = dataclasses.replace(layout, spot_row=row, spot_column=column, spot_um=um)
    digits = 3 if options.hest_technology == "Xenium" else 4
    names = np.array([f"{r:0{digits}d}x{c:0{digits}d}" for r, c in zip(row, column)])
    return dataclasses.replace(section, layout=layout), names


def _write_h5ad(
    path: Path,
    counts: np.ndarray,
    barcode: np.ndarray,
    xy_px: np.ndarray,
    array: np.ndarray,
    genes: GeneCatalogue,
    image: np.ndarray,
    options: SimulationOptions,
) -> None:
    import anndata

    factor = min(1.0, OVERVIEW_PX / max(image.shape[:2]))
    step = max(1, round(1 / factor))
    total, named = counts.sum(axis=1), counts > 0
    obs = pd.DataFrame(
        {
            "in_tissue": 1,
            "array_row": array[:, 0].astype(np.int64),
            "array_col": array[:, 1].astype(np.int64),
            "pxl_col_in_fullres": xy_px[:, 0],
            "pxl_row_in_fullres": xy_px[:, 1],
            "n_genes_by_counts": named.sum(axis=1).astype(np.int32),
            "total_counts": total.astype(np.float32),
        },
        index=pd.Index(barcode.astype(object)),
    )
    if options.hest_technology == "Visium":
        names = {"gene_ids": list(genes.gene_id), "feature_types": "Gene Expression", "genome": "simulated"}
        var = pd.DataFrame(names, index=pd.Index(genes.name, dtype=object))
        diameter_um = SPOT_DIAMETER_UM
    else:
        var = pd.DataFrame(index=pd.Index(genes.name, dtype=object))  # pooling kept the symbols alone
        diameter_um = POOLED_UM[options.hest_technology]
    scalefactors = {
        "spot_diameter_fullres": diameter_um / options.um_per_px,
        "tissue_downscaled_fullres_scalef": 1 / step,
    }
    adata = anndata.AnnData(
        X=scipy.sparse.csr_matrix(counts.astype(np.float32)),
        obs=obs,
        var=var,
        obsm={"spatial": xy_px},
        uns={
            "spatial": {
                "ST": {
                    "images": {"downscaled_fullres": image[::step, ::step].copy()},
                    "metadata": {},
                    "scalefactors": scalefactors,
                }
            }
        },
    )
    with whole(path) as partial:
        adata.write_h5ad(partial, compression="gzip")


def _write_wsi(path: Path, image: np.ndarray, um_per_px: float) -> None:
    """Write a generic pyramidal TIFF: each resolution half the one before, in pages of their own."""
    import tifffile

    per_cm = 1e4 / um_per_px
    with whole(path) as partial, tifffile.TiffWriter(partial, bigtiff=True) as tif:
        level, scale = image, 1
        while True:
            tif.write(
                level,
                photometric="rgb",
                tile=(256, 256),
                compression="jpeg",
                compressionargs={"level": 92},
                resolution=(per_cm / scale, per_cm / scale),
                resolutionunit="CENTIMETER",
                subfiletype=0 if scale == 1 else 1,
                software="stmorph",
                metadata=None,
            )
            if max(level.shape[:2]) <= 512:
                return
            height, width = (side // 2 * 2 for side in level.shape[:2])
            level = level[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
            level, scale = np.rint(level).astype(np.uint8), scale * 2


def _write_patches(
    path: Path,
    image: np.ndarray,
    barcode: np.ndarray,
    xy_px: np.ndarray,
    options: SimulationOptions,
    seed: tuple[int, str],
) -> np.ndarray:
    """Write the pictures around the units in a shuffled order; return which units lie far enough from the border."""
    import h5py

    side = math.floor(PATCH_PX * PATCH_UM_PER_PX / options.um_per_px)
    corner = np.floor(xy_px - side / 2).astype(np.int64)
    inside = ((corner >= 0) & (corner + side <= np.array(image.shape[1::-1]))).all(axis=1)
    order = numpy_generator(*seed, "patches").permutation(np.flatnonzero(inside))
    pictures = np.stack(
        [
            fitted(np.ascontiguousarray(image[y : y + side, x : x + side]), options.hest_patch_px)
            for x, y in corner[order]
        ]
        or [np.zeros((0, 0, 3), np.uint8)]
    )
    with whole(path) as partial, h5py.File(partial, "w", libver="earliest") as file:
        stored = file.create_dataset(
            "img", data=pictures, chunks=(1, *pictures.shape[1:]), compression="gzip", compression_opts=1
        )
        stored.attrs["patch_size_src"] = side
        stored.attrs["patch_size_target"] = options.hest_patch_px
        stored.attrs["pixel_size"] = options.um_per_px
        stored.attrs["downsample"] = side / options.hest_patch_px
        file.create_dataset("barcode", data=barcode[order].astype("S")[:, None])
        file.create_dataset("coords", data=corner[order])
    return inside


def _metadata_row(
    options: SimulationOptions,
    sample: str,
    patient: str,
    image: np.ndarray,
    truth: pd.DataFrame,
    genes: GeneCatalogue,
) -> dict[str, str | float | int]:
    real = options.hest_technology == "Visium"
    # The table gives the bins of Visium HD, not the pseudo-spots, and nothing for Xenium.
    of_bins = 2.0 if options.hest_technology == "Visium HD" else ""
    row = dict.fromkeys(COLUMNS, "")
    return row | {
        "dataset_title": "Simulated tissue, with a known answer",
        "id": sample,
        "image_filename": f"{sample}.tif",
        "organ": "Simulated",
        "disease_state": "Healthy",
        "species": "Simulated",
        "patient": patient,
        "st_technology": options.hest_technology,
        "inter_spot_dist": PITCH_UM if real else of_bins,
        "spot_diameter": SPOT_DIAMETER_UM if real else of_bins,
        "spots_under_tissue": len(truth),
        "nb_genes": len(genes),
        "pixel_size_um_embedded": options.um_per_px,
        "pixel_size_um_estimated": options.um_per_px,
        "magnification": "20x",
        "fullres_px_width": image.shape[1],
        "fullres_px_height": image.shape[0],
        "hest_version_added": "v1_1_0",
    }
