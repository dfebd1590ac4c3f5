"""Space Ranger's `feature_slice.h5` of Visium HD: the array of 2 um bins as sparse pictures, and how it lies.

Other programs know the folder by this file (spatialdata-io 0.7) and take the array's place from its record. As version
0.1.0 has it, but of the pictures only molecules and tissue: those of every gene repeat the matrix.
"""

import json
from pathlib import Path

import h5py
import numpy as np

from ..files import whole
from .programmes import GeneCatalogue
from .visium_hd_slide import BIN_UM, SimulatedHD


def write_feature_slice(drawn: SimulatedHD, genes: GeneCatalogue, slide: str, path: Path) -> None:
    """Write `feature_slice.h5`.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    rows, columns = drawn.shape
    to_image = np.eye(3)
    to_image[:2, :2], to_image[:2, 2] = drawn.axes.T, drawn.origin
    # There is no CytAssist: its picture is the image itself.
    there, back = to_image.tolist(), np.linalg.inv(to_image).tolist()
    record = {
        "sample_id": slide,
        "sample_desc": "",
        "slide_name": "visium_hd_v1",
        "nrows": rows,
        "ncols": columns,
        "spot_pitch": float(BIN_UM),
        "hd_layout_json": json.dumps({"file_format": "1.0", "transform": there}),
        "transform_matrices": {
            "spot_colrow_to_microscope_colrow": there,
            "microscope_colrow_to_spot_colrow": back,
            "spot_colrow_to_cytassist_colrow": there,
            "cytassist_colrow_to_spot_colrow": back,
        },
    }
    names = {
        "id": genes.gene_id,
        "name": genes.name,
        "feature_type": ["Gene Expression"] * len(genes),
        "genome": ["simulated"] * len(genes),
        "_all_tag_keys": ["genome"],
    }
    with whole(path) as partial, h5py.File(partial, "w", libver="earliest") as file:
        file.attrs["filetype"] = "feature_slice"
        file.attrs["version"] = "0.1.0"
        file.attrs["metadata_json"] = json.dumps(record)
        for name, values in names.items():
            file.create_dataset(f"features/{name}", data=np.array(values, dtype="S"), track_times=False)
        total, tissue = np.asarray(drawn.counts.sum(axis=1)).ravel(), drawn.in_tissue
        for name, values, kind in (("umis/total", total, "raw_counts"), ("masks/filtered", tissue, "binary_mask")):
            group, place = file.create_group(name), np.flatnonzero(values)
            group.attrs["metadata_json"] = json.dumps({"kind": kind, "domain": "all_spots", "binning_scale": 1})
            row, column = np.divmod(place, columns)
            for part, data in {"row": row, "col": column, "data": values[place]}.items():
                options = {"compression": "gzip", "shuffle": True, "track_times": False}
                group.create_dataset(part, data=data.astype(np.int32), **options)
