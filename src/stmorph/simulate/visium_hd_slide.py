"""A simulated Visium HD slide: a section's molecules in the 2 um bins of a turned array, and its nuclei."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse

from ..randomness import numpy_generator
from .counts import draw_counts, expected_counts, own_fields, slide_depth
from .fields import at
from .layout import SPOT_DIAMETER_UM
from .options import SimulationOptions
from .programmes import PROGRAMMES, catalogue
from .render import Stain, draw_stain, render
from .tissue import Section, draw_section

BIN_UM = 2
SIZES = {2: 1, 8: 4, 16: 8}
"""Sizes of bins that are written, um, and how many 2 um bins that is to a side."""
SCATTER = 0.03
"""Share of the molecules that are found some micrometres away, on glass too, as diffusion carries them."""
SCATTER_UM = 12.0


@dataclass(frozen=True)
class SimulatedHD:
    """A slide in memory.

    shape: rows and columns of the array of 2 um bins. counts: CSR int32 [rows x columns, G], row by row of the array.
    in_tissue: bool [rows x columns]. origin, axes: of the map from array column and row to pixels: x, y of column 0,
    row 0, and the steps [2, 2] along columns and along rows. nuclei: int32 [H, W], label k is the
    section's cell k - 1.
    """

    section: Section
    stain: Stain
    depth: float
    shape: tuple[int, int]
    counts: scipy.sparse.csr_matrix
    in_tissue: np.ndarray
    origin: np.ndarray
    axes: np.ndarray
    image: np.ndarray
    nuclei: np.ndarray

    def bins(self, size_um: int) -> pd.DataFrame:
        """Return every bin of a size, row by row: barcode, in_tissue, array_row, array_col, x_px, y_px."""
        n = SIZES[size_um]
        shape = tuple(-(-length // n) for length in self.shape)
        row, column = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
        middle = np.column_stack([column, row]) * n + (n - 1) / 2
        xy = self.origin + middle @ self.axes
        tissue = np.zeros(len(row), dtype=bool)
        tissue[self.bin_of(size_um)[self.in_tissue]] = True
        # A large bin's centre may lie outside an image that its corner touches.
        tissue &= ((xy >= 0) & (xy < self.image.shape[1::-1])).all(axis=1)
        return pd.DataFrame(
            {
                "barcode": [f"s_{size_um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, column)],
                "in_tissue": tissue.astype(np.int64),
                "array_row": row,
                "array_col": column,
                "x_px": xy[:, 0],
                "y_px": xy[:, 1],
            }
        )

    def bin_of(self, size_um: int) -> np.ndarray:
        """Return which bin of a size each 2 um bin lies in, int64 [rows x columns]."""
        n = SIZES[size_um]
        row, column = np.divmod(np.arange(self.shape[0] * self.shape[1]), self.shape[1])
        return row // n * -(-self.shape[1] // n) + column // n

    def counts_of(self, size_um: int) -> scipy.sparse.csr_matrix:
        """Return the counts of the bins of a size: sums of the 2 um bins, in or off tissue."""
        of = self.bin_of(size_um)
        ones = np.ones(len(of), dtype=np.int32)
        summed = (scipy.sparse.csr_matrix((ones, (of, np.arange(len(of))))) @ self.counts).tocsr()
        summed.sort_indices()
        return summed


def draw_hd(options: SimulationOptions, slide: str, patient: str, seed: int) -> SimulatedHD:
    """Draw a slide: section, picture and molecules, each from (seed, slide, patient) alone.

    Counts are drawn for squares of 16 um by the rules of Visium's spots, and each molecule then falls into one of the
    square's 2 um bins: a programme's field changes over 100 um, and the sums are exact whatever the size.
    """
    section = draw_section(options, slide, patient, seed)
    layout, um_per_px = section.layout, options.um_per_px
    stain = draw_stain(options, slide, patient, seed)
    image = render(section, stain)
    # The array is turned about the image's centre: its corners reach beyond the image, as a capture area's do.
    size_um = np.array([layout.width_um, layout.height_um])
    shape = tuple(int(n) for n in size_um[::-1] // BIN_UM)
    turn = np.deg2rad(options.hd_rotation_deg)
    steps_um = BIN_UM * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    first_um = size_um / 2 - np.array([shape[1] - 1, shape[0] - 1]) / 2 @ steps_um
    row, column = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    xy_um = first_um + np.column_stack([column, row]) @ steps_um
    in_image = ((xy_um >= 0) & (xy_um < size_um)).all(axis=1)
    in_tissue = in_image & at(layout.tissue, xy_um)
    counts = _molecules(section, shape, xy_um, in_tissue)
    depth = slide_depth(options, slide, patient, seed)
    nuclei = nuclear_labels(section, image.shape[:2])
    return SimulatedHD(
        section, stain, depth, shape, counts, in_tissue, first_um / um_per_px, steps_um / um_per_px, image, nuclei
    )


def _molecules(
    section: Section, shape: tuple[int, int], xy_um: np.ndarray, in_tissue: np.ndarray
) -> scipy.sparse.csr_matrix:
    """Return the molecules of each 2 um bin, CSR int32 [bins, G]; a few land beside the tissue."""
    options, genes = section.options, catalogue(section.options.noise_genes)
    names = (section.slide, section.patient)
    rng = numpy_generator(section.seed, *names, "hd molecules")
    n = SIZES[16]
    across = -(-shape[1] // n)
    row, column = np.divmod(np.arange(len(xy_um)), shape[1])
    square = row // n * across + column // n
    square = np.unique(square[in_tissue], return_inverse=True)[1]
    number = np.bincount(square)
    centre_um = np.column_stack([np.bincount(square, xy_um[in_tissue, k]) / number for k in (0, 1)])
    activity = np.stack([at(field, centre_um) for field in section.activity], axis=1).astype(np.float64)
    spot_um2 = np.pi * (SPOT_DIAMETER_UM / 2) ** 2
    total = slide_depth(options, *names, section.seed) * number * BIN_UM**2 / spot_um2
    own = own_fields(genes, centre_um, *names, section.seed)
    drawn = draw_counts(expected_counts(genes, activity, own, total), options.overdispersion, options.dropout, rng)

    # Bins differ in how much they catch; a molecule's bin is where its random number falls among its square's shares.
    share = np.exp(0.3 * rng.standard_normal(in_tissue.sum()))
    order = np.argsort(square, kind="stable")
    edge = np.cumsum(share[order] / np.bincount(square, share)[square[order]])
    where, gene = np.nonzero(drawn)
    where, gene = (np.repeat(index, drawn[where, gene]) for index in (where, gene))
    place = np.searchsorted(edge, where + rng.random(len(where)) * (1 - 1e-9))
    last = np.cumsum(number)[where] - 1
    bin_ = np.flatnonzero(in_tissue)[order[np.clip(place, last - number[where] + 1, last)]]

    strays = rng.random(len(bin_)) < SCATTER
    away = np.rint(rng.normal(0, SCATTER_UM / BIN_UM, (int(strays.sum()), 2))).astype(np.int64)
    r, c = row[bin_[strays]] + away[:, 0], column[bin_[strays]] + away[:, 1]
    on_array = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
    bin_[np.flatnonzero(strays)[on_array]] = r[on_array] * shape[1] + c[on_array]
    ones = np.ones(len(bin_), dtype=np.int32)
    return scipy.sparse.coo_matrix((ones, (bin_, gene)), shape=(len(xy_um), len(genes))).tocsr()


def nuclear_labels(section: Section, shape: tuple[int, int]) -> np.ndarray:
    """Return the label image of the nuclei, int32 [H, W]: cell k has label k + 1; the later one lies on top."""
    px, cells = 1 / section.options.um_per_px, section.cells
    labels = np.zeros(shape, dtype=np.int32)
    root = np.sqrt(cells.elongation)
    for k, (x, y) in enumerate(cells.xy_um * px):
        radius = cells.radius_um[k] * px
        reach = radius * root[k] + 1
        top, left = max(int(y - reach), 0), max(int(x - reach), 0)
        part = labels[top : int(y + reach) + 2, left : int(x + reach) + 2]
        dy, dx = np.ogrid[: part.shape[0], : part.shape[1]]
        dx, dy = dx + left + 0.5 - x, dy + top + 0.5 - y
        cosine, sine = np.cos(cells.angle[k]), np.sin(cells.angle[k])
        along, side = (dx * cosine + dy * sine) / root[k], (dy * cosine - dx * sine) * root[k]
        part[along**2 + side**2 <= radius**2] = k + 1
    return labels


def cell_truth(drawn: SimulatedHD) -> pd.DataFrame:
    """Return what is true of each cell: label, x_um, y_um, radius_um, elongation, and each programme's activity."""
    cells = drawn.section.cells
    table = {
        "label": np.arange(1, len(cells) + 1),
        "x_um": cells.xy_um[:, 0],
        "y_um": cells.xy_um[:, 1],
        "nuclear_radius_um": cells.radius_um,
        "elongation": cells.elongation,
    }
    return pd.DataFrame(table | dict(zip(PROGRAMMES, cells.activity.T)))
