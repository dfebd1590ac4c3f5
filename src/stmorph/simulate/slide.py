"""A whole simulated slide: drawn, rendered, counted and written, with its truth beside it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import scipy.spatial

from ..errors import ConfigError
from .counts import slide_depth, spot_counts
from .fields import at, disc_mean
from .layout import SPOT_DIAMETER_UM
from .options import SimulationOptions
from .programmes import PROGRAMMES, catalogue
from .render import Stain, draw_stain, render
from .tissue import LYMPHOCYTE, TYPE_NAMES, Section, draw_section
from .truth_files import write_truth
from .visium_outs import VisiumSlide, array_barcodes, visium_files, write_visium

IN_TISSUE_FRACTION = 0.4
"""Share of a spot's disc that must be tissue for the spot to count as in tissue; edges thus have partial spots."""


@dataclass(frozen=True)
class SimulatedSlide:
    """A slide in memory: what is written, and all that is true of it.

    truth: one row per spot in tissue (columns as in `spot_truth`).
    """

    section: Section
    stain: Stain
    depth: float
    visium: VisiumSlide
    truth: pd.DataFrame


def draw_slide(options: SimulationOptions, slide: str, patient: str, seed: int) -> SimulatedSlide:
    """Draw a slide: section, picture and counts, each from (seed, slide, patient) alone.

    Raises
    ------
    ConfigError
        More spots were asked for than there are barcodes.
    """
    section = draw_section(options, slide, patient, seed)
    layout = section.layout
    if len(layout.spot_um) > 8192:
        raise ConfigError(
            f"spots is {options.spots}, an array of {len(layout.spot_um)}; expected at most 8192, lower it"
        )
    stain = draw_stain(options, slide, patient, seed)
    barcode = array_barcodes(len(layout.spot_um))
    in_tissue, truth, counts = measured_spots(section, barcode, options, slide, patient, seed)
    visium = VisiumSlide(
        name=slide,
        barcode=barcode,
        in_tissue=in_tissue,
        array_row=layout.spot_row,
        array_col=layout.spot_column,
        spot_um=layout.spot_um,
        counts=scipy.sparse.csr_matrix(counts),
        genes=catalogue(options.noise_genes),
        image=render(section, stain),
        um_per_px=options.um_per_px,
        spot_diameter_um=SPOT_DIAMETER_UM,
    )
    return SimulatedSlide(section, stain, slide_depth(options, slide, patient, seed), visium, truth)


def measured_spots(
    section: Section, barcode: np.ndarray, options: SimulationOptions, slide: str, patient: str, seed: int
) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Return which of the section's n spots are in tissue, bool [n], and of these the truth and the counts [m, G]."""
    truth = spot_truth(section, barcode)
    in_tissue = (truth["tissue_fraction"] >= IN_TISSUE_FRACTION).to_numpy()
    truth = truth[in_tissue].reset_index(drop=True)
    counts = spot_counts(
        options,
        truth[list(PROGRAMMES)].to_numpy(),
        truth["tissue_fraction"].to_numpy(),
        truth[["x_um", "y_um"]].to_numpy(),
        slide,
        patient,
        seed,
    )
    return in_tissue, truth, counts


def spot_truth(section: Section, barcode: np.ndarray) -> pd.DataFrame:
    """Return what is true under each spot's disc, one row a spot of the array.

    Columns: barcode, x_um, y_um; each programme's mean activity over the disc's tissue; tissue_fraction; cells (number
    with their centre in the disc); nuclear_radius_um (mean of all), resident_radius_um (mean without lymphocytes; NaN
    without cells); lymphocyte_share; nuclei_per_mm2 (of tissue); region (at the centre).
    """
    layout, cells = section.layout, section.cells
    xy = layout.spot_um
    table = pd.DataFrame({"barcode": barcode, "x_um": xy[:, 0], "y_um": xy[:, 1]})
    tissue = layout.tissue.astype(np.float32)
    for name, field in zip(PROGRAMMES, section.activity):
        table[name] = disc_mean(field, xy, SPOT_DIAMETER_UM, tissue)
    fraction = table["tissue_fraction"] = disc_mean(tissue, xy, SPOT_DIAMETER_UM)

    inside = scipy.spatial.cKDTree(cells.xy_um).query_ball_point(xy, SPOT_DIAMETER_UM / 2, return_sorted=True)
    spot = np.repeat(np.arange(len(xy)), [len(i) for i in inside])
    cell = np.concatenate([np.asarray(i, dtype=np.int64) for i in inside])
    resident = cells.type[cell] != TYPE_NAMES.index(LYMPHOCYTE)

    def total(index: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(index, weight, minlength=len(xy))

    number, radius = total(spot), cells.radius_um[cell]
    with np.errstate(invalid="ignore", divide="ignore"):
        table["cells"] = number
        table["nuclear_radius_um"] = total(spot, radius) / number
        table["resident_radius_um"] = total(spot[resident], radius[resident]) / total(spot[resident])
        table["lymphocyte_share"] = 1 - total(spot[resident]) / number
        table["nuclei_per_mm2"] = np.where(fraction > 0, number / (fraction * np.pi * (SPOT_DIAMETER_UM / 2e3) ** 2), 0)
    table["region"] = np.array(layout.names)[at(layout.region, xy)]
    return table


def write_visium_slide(options: SimulationOptions, out_dir: str | Path, slide: str, patient: str, seed: int) -> None:
    """Draw a slide and write it as Space Ranger would, with its truth: `visium_files(out_dir, options.space_ranger)`.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    drawn = draw_slide(options, slide, patient, seed)
    files = visium_files(out_dir, options.space_ranger)
    write_visium(drawn.visium, out_dir, options.space_ranger, mtx=options.write_mtx)
    write_truth(files, drawn.truth, options, (slide, patient, seed), drawn.section, drawn.stain, depth=drawn.depth)
