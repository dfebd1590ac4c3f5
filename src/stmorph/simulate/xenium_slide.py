"""A simulated Xenium slide: a section's cells, their molecules one by one, DAPI, and the frames between the images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..image.alignment import Alignment
from ..randomness import numpy_generator
from .cells import cell_activity, cell_counts
from .fields import at
from .options import SimulationOptions
from .outlines import VERTICES, outlines
from .programmes import PROGRAMMES, catalogue
from .render import Stain, draw_stain, render, stamp
from .tissue import TYPE_NAMES, Cells, Section, draw_section
from .truth_files import write_truth
from .xenium_outs import LEAST_QV, XeniumSlide, cell_names, feature_tables, write_xenium, xenium_files

CONTROL_RATE = 0.01
"""Expected molecules of a control feature in a cell."""
POOR_SHARE, FREE_SHARE = 0.10, 0.05
"""Molecules of poor quality, and outside any cell, for each one that counts."""
MARGIN_UM = 20.0
Z_PLANES = 2


@dataclass(frozen=True)
class SimulatedXenium:
    """A slide in memory. truth: one row a cell, in the order of `xenium.cell_id`; x_um and y_um in the H&E image."""

    section: Section
    stain: Stain
    xenium: XeniumSlide
    truth: pd.DataFrame


def draw_alignment(options: SimulationOptions, width_um: float, height_um: float) -> Alignment:
    """Return the alignment of an H&E image of a size: turned, scaled, and shifted so that the whole of it fits."""
    turn, scale = np.deg2rad(options.xenium_rotation_deg), options.um_per_px / options.xenium_um_per_px
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners = np.array([(0, 0), (width_um, 0), (0, height_um), (width_um, height_um)]) / options.um_per_px
    matrix[:2, 2] = MARGIN_UM / options.xenium_um_per_px - (corners @ matrix[:2, :2].T).min(axis=0)
    return Alignment(matrix, options.xenium_um_per_px)


def draw_xenium(options: SimulationOptions, slide: str, patient: str, seed: int) -> SimulatedXenium:
    """Draw a slide: section, picture, counts and molecules, each from (seed, slide, patient) alone."""
    section = draw_section(options, slide, patient, seed)
    cells, layout = section.cells, section.layout
    alignment = draw_alignment(options, layout.width_um, layout.height_um)

    def to_frame(xy_um: np.ndarray) -> np.ndarray:
        return alignment.to_frame_um(xy_um / options.um_per_px)

    genes = catalogue(options.noise_genes)
    name, gene_id, kind = feature_tables(genes)
    rng = numpy_generator(seed, slide, patient, "xenium")
    controls = rng.poisson(CONTROL_RATE, (len(cells), len(name) - len(genes)))
    counts = np.concatenate([cell_counts(section, options.cell_molecules).astype(np.int32), controls], axis=1)
    counts = scipy.sparse.csr_matrix(counts.astype(np.int32))
    outline, nucleus = outlines(cells)
    cell_id = cell_names(len(cells))
    transcripts = draw_transcripts(counts, cells, cell_id, name, outline, layout, rng)
    transcripts[["x_location", "y_location"]] = np.round(
        to_frame(transcripts[["x_location", "y_location"]].to_numpy()), 4
    )
    stain = draw_stain(options, slide, patient, seed)
    xenium = XeniumSlide(
        name=slide,
        cell_id=cell_id,
        xy_um=to_frame(cells.xy_um),
        cell_um=to_frame(outline),
        nucleus_um=to_frame(nucleus),
        counts=counts,
        feature_name=name,
        feature_id=gene_id,
        feature_type=kind,
        transcripts=transcripts,
        dapi=_dapi(section, alignment, options, rng),
        image=render(section, stain),
        alignment=alignment,
        um_per_px=options.um_per_px,
    )
    return SimulatedXenium(section, stain, xenium, xenium_truth(section, cell_id))


def write_xenium_slide(options: SimulationOptions, out_dir: str | Path, slide: str, patient: str, seed: int) -> None:
    """Draw a slide and write it as Xenium Onboard Analysis would, with its truth: `xenium_files(out_dir)`.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    drawn = draw_xenium(options, slide, patient, seed)
    files = xenium_files(out_dir)
    write_xenium(drawn.xenium, out_dir)
    write_truth(
        files,
        drawn.truth,
        options,
        (slide, patient, seed),
        drawn.section,
        drawn.stain,
        alignment=drawn.xenium.alignment.matrix.tolist(),
    )


def draw_transcripts(
    counts, cells: Cells, cell_id: np.ndarray, names: np.ndarray, outline, layout, rng
) -> pd.DataFrame:
    """Return one row a molecule: those that the matrix counts, poor ones in cells, and some outside any cell.

    As in Xenium's `transcripts.parquet`, but x_location and y_location are in the section's micrometres.
    """
    table = counts.tocoo()
    counted = np.stack([np.repeat(table.row, table.data), np.repeat(table.col, table.data)], axis=1)
    poor = counted[rng.random(len(counted)) < POOR_SHARE]
    free = counted[rng.random(len(counted)) < FREE_SHARE]
    owner = np.concatenate([counted[:, 0], poor[:, 0], np.full(len(free), -1)])
    feature = np.concatenate([counted[:, 1], poor[:, 1], free[:, 1]])
    quality = np.concatenate(
        [
            rng.uniform(LEAST_QV, 40, len(counted)),
            rng.uniform(0, LEAST_QV - 0.01, len(poor)),
            rng.uniform(0, 40, len(free)),
        ]
    )
    # Within the cell: between its centre and a point of its outline, evenly by area.
    place = np.maximum(owner, 0)
    side, share = rng.integers(VERTICES - 1, size=len(owner)), rng.random((len(owner), 1))
    edge = outline[place, side] * share + outline[place, side + 1] * (1 - share)
    xy = cells.xy_um[place] + np.sqrt(rng.random((len(owner), 1))) * (edge - cells.xy_um[place])
    outside = rng.random((len(owner), 2)) * [layout.width_um, layout.height_um]
    xy[owner < 0] = outside[owner < 0]
    from_centre = np.linalg.norm(xy - cells.xy_um[place], axis=1) - cells.radius_um[place]
    order = rng.permutation(len(owner))
    found = pd.DataFrame(
        {
            "transcript_id": np.arange(281474976710656, 281474976710656 + len(owner), dtype=np.uint64),
            "cell_id": np.where(owner < 0, "UNASSIGNED", cell_id[place]).astype(object)[order],
            "overlaps_nucleus": (from_centre <= 0).astype(np.uint8)[order],
            "feature_name": names[feature].astype(object)[order],
            "x_location": xy[order, 0],
            "y_location": xy[order, 1],
            "z_location": np.round(rng.uniform(8, 20, len(owner)), 3),
            "qv": np.round(quality, 3)[order],
            "fov_name": "A1",
            "nucleus_distance": np.round(np.maximum(from_centre, 0), 4)[order],
        }
    )
    return found


def _dapi(section: Section, alignment: Alignment, options: SimulationOptions, rng: np.random.Generator) -> np.ndarray:
    """Return DAPI in the morphology image's frame, uint16 [z, H, W]: nuclei drawn there, nothing resampled."""
    layout, cells, um = section.layout, section.cells, alignment.frame_um_per_px
    size_px = np.array([layout.width_um, layout.height_um]) / options.um_per_px
    corners = alignment.to_frame_um(np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * size_px)
    width, height = np.ceil((corners.max(axis=0) + MARGIN_UM) / um).astype(int)
    xy = alignment.to_frame_um(cells.xy_um / options.um_per_px) / um
    angle = cells.angle + np.deg2rad(options.xenium_rotation_deg)
    bright = 1.2 - 0.05 * (cells.radius_um - 3.5)
    nuclei = stamp((height, width), xy, cells.radius_um / um, 1.0 / um, bright, cells.elongation, angle)
    planes = []
    for focus in np.linspace(1.0, 0.7, Z_PLANES):
        planes.append(np.clip(120 + 3000 * focus * nuclei + rng.normal(0, 12, nuclei.shape), 0, 65535))
    return np.rint(np.stack(planes)).astype(np.uint16)


def xenium_truth(section: Section, cell_id: np.ndarray) -> pd.DataFrame:
    """Return what is true of each cell: barcode, place, programmes, nuclear radius, type and region."""
    cells = section.cells
    table = pd.DataFrame({"barcode": cell_id, "x_um": cells.xy_um[:, 0], "y_um": cells.xy_um[:, 1]})
    table[list(PROGRAMMES)] = cell_activity(section)
    table["nuclear_radius_um"] = cells.radius_um
    table["type"] = np.array(TYPE_NAMES)[cells.type]
    table["region"] = np.array(section.layout.names)[at(section.layout.region, cells.xy_um)]
    return table
