"""Xenium Onboard Analysis' own file layout (version 2), with an H&E image that an alignment maps onto it.

The section is drawn in the H&E image's frame. The instrument's frame is turned, scaled and shifted against it, so a
reader that confuses the two, or inverts the alignment, misses the cells. Same content, same bytes.
"""

import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..files import whole
from ..image.alignment import Alignment
from .programmes import GeneCatalogue
from .xenium_zarr import write_cells_zarr, write_transcripts_zarr

LEAST_QV = 20.0
"""Quality from which Onboard Analysis counts a transcript."""

CONTROLS = {
    "Negative Control Probe": "NegControlProbe_{:05d}",
    "Negative Control Codeword": "NegControlCodeword_{:04d}",
    "Unassigned Codeword": "UnassignedCodeword_{:04d}",
    "Deprecated Codeword": "DeprecatedCodeword_{:04d}",
}
CONTROLS_EACH = 5
"""Control features of each type."""

_COUNT_COLUMNS = {
    "transcript_counts": "Gene Expression",
    "control_probe_counts": "Negative Control Probe",
    "control_codeword_counts": "Negative Control Codeword",
    "unassigned_codeword_counts": "Unassigned Codeword",
    "deprecated_codeword_counts": "Deprecated Codeword",
}


@dataclass(frozen=True)
class XeniumSlide:
    """What the instrument would know of n cells; positions in micrometres of the morphology image's frame.

    cell_id: str [n]. xy_um: float64 [n, 2]. cell_um, nucleus_um: outlines float64 [n, V, 2], the last vertex the first.
    counts: CSR int32 [n, features]. feature_name, feature_id, feature_type: str [features].
    transcripts: one row a molecule, as in `transcripts.parquet`. dapi: uint16 [z, H, W]. image: uint8 [H, W, 3], H&E.
    alignment: H&E pixels to morphology pixels. um_per_px: of the H&E image.
    """

    name: str
    cell_id: np.ndarray
    xy_um: np.ndarray
    cell_um: np.ndarray
    nucleus_um: np.ndarray
    counts: scipy.sparse.csr_matrix
    feature_name: np.ndarray
    feature_id: np.ndarray
    feature_type: np.ndarray
    transcripts: pd.DataFrame
    dapi: np.ndarray
    image: np.ndarray
    alignment: Alignment
    um_per_px: float


def xenium_files(out_dir: str | Path) -> dict[str, Path]:
    """Return the files of a simulated slide by role; the names depend on the folder alone.

    `boundaries` and the roles of the reader name parquet files; the same tables lie beside them as csv.gz, cells
    and transcripts also as zarr.zip.
    """
    out_dir = Path(out_dir)
    outs = out_dir / "outs"
    return {
        "counts": outs / "cell_feature_matrix.h5",
        "cells": outs / "cells.parquet",
        "cells_csv": outs / "cells.csv.gz",
        "cells_zarr": outs / "cells.zarr.zip",
        "transcripts": outs / "transcripts.parquet",
        "transcripts_csv": outs / "transcripts.csv.gz",
        "transcripts_zarr": outs / "transcripts.zarr.zip",
        "boundaries": outs / "cell_boundaries.parquet",
        "boundaries_csv": outs / "cell_boundaries.csv.gz",
        "nucleus_boundaries": outs / "nucleus_boundaries.parquet",
        "nucleus_boundaries_csv": outs / "nucleus_boundaries.csv.gz",
        "experiment": outs / "experiment.xenium",
        "morphology": outs / "morphology.ome.tif",
        "image": out_dir / "he_image.ome.tif",
        "alignment": out_dir / "he_imagealignment.csv",
        "truth": out_dir / "truth.parquet",
        "truth_json": out_dir / "truth.json",
    }


def feature_tables(genes: GeneCatalogue) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return names, ids and types of the panel's features, str [F] each: genes, then controls of every type."""
    controls = [(pattern.format(k), kind) for kind, pattern in CONTROLS.items() for k in range(1, CONTROLS_EACH + 1)]
    names, kinds = (np.array(column) for column in zip(*controls))
    return (
        np.concatenate([genes.name, names]),
        np.concatenate([genes.gene_id, names]),
        np.concatenate([["Gene Expression"] * len(genes), kinds]),
    )


def cell_names(number: int) -> np.ndarray:
    """Return distinct cell ids, str [number], `aaaabbbb-1`; their letters a to p are hexadecimal digits."""
    # An odd factor permutes 32-bit numbers: neighbours get unlike names, and no two get one.
    prefix = (np.arange(1, number + 1, dtype=np.uint64) * 2654435761) % 2**32
    letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    return np.array([f"{int(p):08x}".translate(letters) + "-1" for p in prefix])


def polygon_area(polygons: np.ndarray) -> np.ndarray:
    """Return the areas [n] of polygons [n, V, 2]."""
    x, y = polygons[..., 0], polygons[..., 1]
    return np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2


def write_xenium(slide: XeniumSlide, out_dir: str | Path) -> None:
    """Write all of a slide's files but its truth.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    files = xenium_files(out_dir)
    _write_h5(slide, files["counts"])
    cells = cells_of(slide)
    for role, table in {
        "cells": cells,
        "transcripts": slide.transcripts,
        "boundaries": _vertices(slide.cell_id, slide.cell_um),
        "nucleus_boundaries": _vertices(slide.cell_id, slide.nucleus_um),
    }.items():
        with whole(files[role]) as partial:
            table.to_parquet(partial, index=False)
        _write_csv(table, files[f"{role}_csv"])
    write_cells_zarr(slide.cell_id, cells, slide.nucleus_um, files["cells_zarr"])
    write_transcripts_zarr(slide.transcripts, slide.feature_name, files["transcripts_zarr"])
    with whole(files["experiment"]) as partial:
        partial.write_text(json.dumps(_experiment(slide), indent=2) + "\n", encoding="utf-8")
    _write_morphology(slide, files["morphology"])
    _write_image(slide, files["image"])
    with whole(files["alignment"]) as partial:
        np.savetxt(partial, slide.alignment.matrix, delimiter=",", fmt="%.12g")


def cells_of(slide: XeniumSlide) -> pd.DataFrame:
    """Return the table of cells as `cells.parquet` has it."""
    columns: dict[str, np.ndarray] = {
        "cell_id": slide.cell_id.astype(object),
        "x_centroid": slide.xy_um[:, 0],
        "y_centroid": slide.xy_um[:, 1],
    }
    for name, kind in _COUNT_COLUMNS.items():
        columns[name] = np.asarray(slide.counts[:, slide.feature_type == kind].sum(axis=1)).ravel().astype(np.int32)
    columns["total_counts"] = np.asarray(slide.counts.sum(axis=1)).ravel().astype(np.int32)
    columns["cell_area"], columns["nucleus_area"] = polygon_area(slide.cell_um), polygon_area(slide.nucleus_um)
    return pd.DataFrame(columns)


def _write_h5(slide: XeniumSlide, path: Path) -> None:
    import h5py

    counts = slide.counts.tocsr().sorted_indices()
    gene = slide.feature_type == "Gene Expression"
    with whole(path) as partial, h5py.File(partial, "w", libver="earliest") as file:
        file.attrs["chemistry_description"] = "Xenium"
        file.attrs["filetype"] = "matrix"
        file.attrs["library_ids"] = np.array([slide.name.encode()])
        file.attrs["software_version"] = "xenium-2.0.0"
        file.attrs["version"] = np.int64(2)
        matrix = file.create_group("matrix")
        features = matrix.create_group("features")
        for group, name, values in (
            (matrix, "barcodes", slide.cell_id.astype("S")),
            (matrix, "data", counts.data.astype(np.int32)),
            (matrix, "indices", counts.indices.astype(np.int64)),
            (matrix, "indptr", counts.indptr.astype(np.int64)),
            (matrix, "shape", np.array(counts.shape[::-1], dtype=np.int32)),
            (features, "id", slide.feature_id.astype("S")),
            (features, "name", slide.feature_name.astype("S")),
            (features, "feature_type", slide.feature_type.astype("S")),
            (features, "genome", np.where(gene, "simulated", "Unknown").astype("S")),
            (features, "_all_tag_keys", np.array([b"genome"])),
        ):
            group.create_dataset(name, data=values, compression="gzip", compression_opts=4, track_times=False)


def _vertices(cell_id: np.ndarray, polygons: np.ndarray) -> pd.DataFrame:
    flat = polygons.reshape(-1, 2).astype(np.float32)
    names = np.repeat(cell_id.astype(object), polygons.shape[1])
    return pd.DataFrame({"cell_id": names, "vertex_x": flat[:, 0], "vertex_y": flat[:, 1]})


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with (
        whole(path) as partial,
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", 4, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        table.to_csv(text, index=False, lineterminator="\n")


def _experiment(slide: XeniumSlide) -> dict:
    return {
        "major_version": 2,
        "minor_version": 0,
        "run_name": "simulated",
        "region_name": slide.name,
        "num_cells": len(slide.cell_id),
        "pixel_size": slide.alignment.frame_um_per_px,
        "z_step_size": 3.0,
        "analysis_sw_version": "xenium-2.0.0",
        "images": {"morphology_filepath": "morphology.ome.tif"},
    }


def _ome(shape: tuple[int, ...], dtype: str, um_per_px: float, z: int = 1, samples: int = 1) -> str:
    size = f'SizeX="{shape[1]}" SizeY="{shape[0]}" SizeC="{samples}" SizeZ="{z}" SizeT="1"'
    physical = f'PhysicalSizeX="{um_per_px:.10g}" PhysicalSizeXUnit="um" PhysicalSizeY="{um_per_px:.10g}"'
    planes = "".join(f'<TiffData IFD="{k}" FirstZ="{k}" PlaneCount="1"/>' for k in range(z))
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{dtype}" {size} {physical} '
        f'PhysicalSizeYUnit="um"><Channel ID="Channel:0:0" SamplesPerPixel="{samples}"/>{planes}</Pixels></Image></OME>'
    )


def _write_morphology(slide: XeniumSlide, path: Path) -> None:
    """Write DAPI as a stack of planes, each a pyramid, 16 bit."""
    import tifffile

    depth, *shape = slide.dapi.shape
    with whole(path) as partial, tifffile.TiffWriter(partial, bigtiff=True) as file:
        for k, plane in enumerate(slide.dapi):
            levels = [plane]
            while min(levels[-1].shape) > 512 and len(levels) < 7:
                rows, columns = (n // 2 for n in levels[-1].shape)
                blocks = levels[-1][: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).astype(np.float32)
                levels.append(np.rint(blocks.mean(axis=(1, 3))).astype(np.uint16))
            about = _ome(tuple(shape), "uint16", slide.alignment.frame_um_per_px, z=depth) if k == 0 else None
            common = {"photometric": "minisblack", "tile": (512, 512), "compression": "zlib", "software": False}
            file.write(plane, subifds=len(levels) - 1, description=about, metadata=None, **common)
            for level in levels[1:]:
                file.write(level, subfiletype=1, metadata=None, **common)


def _write_image(slide: XeniumSlide, path: Path) -> None:
    import tifffile

    with whole(path) as partial:
        tifffile.imwrite(
            partial,
            slide.image,
            photometric="rgb",
            tile=(512, 512),
            compression="jpeg",
            compressionargs={"level": 92},
            description=_ome(slide.image.shape, "uint8", slide.um_per_px, samples=3),
            metadata=None,
            software=False,
        )
