"""Makes a slide's extra channels from the files that show them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..read.nuclei import read_nuclei
from ..read.xenium_files import pixel_size
from ..slide_file import SlideFile
from .alignment import MORPHOLOGY_UM_PER_PX, Alignment, read_alignment
from .channels import cell_mask, into_store, label_mask, read_morphology, to_grey
from .extra_channels import Channel, write_channels
from .store import SlideStore


def make_channels(
    names: Sequence[Channel],
    slide: SlideFile,
    store: SlideStore,
    files: Mapping[str, Path],
    out_npy: str | Path,
    out_json: str | Path,
) -> dict[str, dict[str, Any]]:
    """Make and write the channels of a slide; return the record of each.

    Parameters
    ----------
    names
        Which, in this order.
    slide
        For the cells' outlines.
    store
        The stained image's; the channels get its pixels.
    files
        By role. `dapi`: a morphology OME-TIFF; with `alignment` in the frame that it maps the stained image into
        (whose pixels `experiment` tells), else of the stained image's own pixels. `nuclei`: a label image.
    out_npy, out_json
        Where to write.

    Raises
    ------
    DataError
        A file is missing, damaged or of another size than the image, DAPI is blank, or no cell has an outline.
    """
    make = {"dapi": _dapi, "cell_mask": _cells}
    made, records = {}, {}
    for name in names:
        made[name], records[name] = make[name](slide, store, files)
    write_channels(made, records, out_npy, out_json)
    return records


def _dapi(slide: SlideFile, store: SlideStore, files: Mapping[str, Path]) -> tuple[np.ndarray, dict[str, Any]]:
    frame = pixel_size(files["experiment"]) if "experiment" in files else MORPHOLOGY_UM_PER_PX
    aligned = "alignment" in files
    alignment = read_alignment(files["alignment"], frame) if aligned else Alignment.none(frame)
    source = store.record["source"]
    scale = float(np.sqrt(abs(np.linalg.det(alignment.matrix[:2, :2]))))
    plane = read_morphology(files["dapi"], max(1.0, scale * source["width_px"] / store.shape[1]))
    full = [n * by for n, by in zip(plane.pixels.shape[::-1], plane.reduction, strict=True)]
    if not aligned and np.abs(np.subtract(full, (source["width_px"], source["height_px"]))).max() > 1:
        raise DataError(
            f"{files['dapi']} has {full[0]:.0f} x {full[1]:.0f} px, the image of slide {slide.about['slide']} "
            f"{source['width_px']} x {source['height_px']} px; expected one size where no alignment is given: name the "
            "file alignment"
        )
    return to_grey(into_store(plane, alignment, store))


def _cells(slide: SlideFile, store: SlideStore, files: Mapping[str, Path]) -> tuple[np.ndarray, dict[str, Any]]:
    outlines = slide.outlines_um
    if outlines is None and "nuclei" in files:
        labels, source = read_nuclei(files["nuclei"]).labels, store.record["source"]
        if labels.shape != (source["height_px"], source["width_px"]):
            raise DataError(
                f"{files['nuclei']} is {labels.shape[1]} x {labels.shape[0]} px, the image of slide "
                f"{slide.about['slide']} {source['width_px']} x {source['height_px']} px; expected one size: give the "
                "label image of that image"
            )
        return label_mask(labels, store), {"of": "nuclei"}
    known = 0 if outlines is None else int(np.isfinite(outlines).all(axis=(1, 2)).sum())
    if not known:
        raise DataError(
            f"{slide.path} holds no outline of a cell, of which the channel cell_mask is drawn; expected cells with "
            "outlines: give the reader the file of boundaries, or leave cell_mask out of the tiling's channels"
        )
    return cell_mask(outlines, store), {"of": "outlines", "cells": known, "without_outline": len(outlines) - known}
