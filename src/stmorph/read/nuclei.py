"""Bins to nuclei, as GE2Hist makes cells of Visium HD: the bins inside a nucleus are summed, ambiguous ones dropped.

A bin belongs to the nucleus under its centre. Where its square also touches another nucleus, its molecules may be
either's, and it is dropped and counted (the paper filters "overlapping barcodes").
"""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import DataError, reason_of
from .polygons import Polygons, is_polygons, read_polygons
from .tables import reading

STRIP = 2048
"""Rows of the mask read at a time."""
MOST_LABELS = 100_000_000
_MOST_HELD = 2**28  # pixels of drawn labels: 1 GiB


@dataclass(frozen=True)
class Nuclei:
    """A label image, labels: integers [H, W], pixels of the full-resolution image, 0 outside nuclei.

    area_px: int64 [L + 1] pixels of each label; centre_px: float64 [L + 1, 2] x, y, NaN for labels that do not occur.
    number: how many nuclei there are. rings: of label i + 1 its outline, float64 [V, 2], where the file gives outlines;
    then `labels` reach as far as the nuclei do, which may be less than the image. odd: {what: number} of outlines that
    were left out or mended.
    """

    path: Path
    labels: np.ndarray
    area_px: np.ndarray
    centre_px: np.ndarray
    number: int
    rings: list[np.ndarray | None] | None = None
    odd: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def names(label: np.ndarray) -> np.ndarray:
        """Return what nuclei are called, object [n], by their labels."""
        return np.array([f"nucleus_{one:09d}" for one in label.tolist()], dtype=object)

    def outlines(self) -> pd.DataFrame:
        """Return the nuclei as cells, indexed by name: x_px, y_px, area_px2 and, where there are rings, polygon."""
        label = np.flatnonzero(self.area_px[1:]) + 1
        centre, index = self.centre_px[label], pd.Index(self.names(label), dtype=object, name="barcode")
        columns = {"x_px": centre[:, 0], "y_px": centre[:, 1], "area_px2": self.area_px[label].astype(np.float64)}
        table = pd.DataFrame(columns, index=index)
        if self.rings is not None:
            table["polygon"] = pd.Series([self.rings[one - 1] for one in label], index=index, dtype=object)
        return table

    def at(self, xy_px: np.ndarray) -> np.ndarray:
        """Return the label under each position, int64 [n], of x and y in pixels [n, 2]; 0 beyond the labels, of NaN."""
        known = np.isfinite(xy_px).all(axis=1)
        column, row = np.floor(np.where(known[:, None], xy_px, -1)).astype(np.int64).T
        inside = (row >= 0) & (column >= 0) & (row < self.labels.shape[0]) & (column < self.labels.shape[1])
        found = np.zeros(len(xy_px), dtype=np.int64)
        found[inside] = self.labels[row[inside], column[inside]]
        return found


def read_nuclei(path: Path) -> Nuclei:
    """Read nuclei: a label image (TIFF, .npy, or .npz with one array; large ones are mapped), or polygons.

    Raises
    ------
    DataError
        The file is damaged or of another kind, is not one plane of whole numbers from 0, or tells no nuclei apart.
    """
    with reading(path, "a label image of nuclei (tif, npy or npz) or their polygons (parquet, geojson or its zip)"):
        polygons = is_polygons(path)
    if polygons:
        return drawn(read_polygons(path))
    with reading(path, "a label image of nuclei (tif, npy or npz)"):
        labels = _open(path)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path} is an array of {labels.dtype}, {' x '.join(map(str, labels.shape))}; expected one plane of whole "
            "numbers, 0 outside and a number of its own in each nucleus: give the label image of the segmentation"
        )
    if not labels.dtype.isnative:
        labels = labels.astype(labels.dtype.newbyteorder("="))
    low, high = _extent(labels)
    if low < 0 or high > MOST_LABELS:
        raise DataError(
            f"{path} holds labels from {low} to {high}; expected 0 outside and 1 to {MOST_LABELS} in nuclei: number "
            "the nuclei from 1"
        )
    if high < 2:
        raise DataError(
            f"{path} {'holds no nucleus' if high == 0 else 'holds one label, as a mask of foreground does'}; expected "
            "a number of its own in each nucleus: give the label image of the segmentation"
        )
    area, centre = _centres(labels, high)
    return Nuclei(path, labels, area, centre, int((area[1:] > 0).sum()))


def drawn(polygons: Polygons) -> Nuclei:
    """Return nuclei from their outlines: label i + 1 are the pixels whose centres lie in ring i and in no later one.

    A nucleus's centre is its outline's, whatever of it lies under another.

    Raises
    ------
    DataError
        The outlines lie where no image is, or there is no room to draw them.
    """
    from skimage.draw import polygon

    path, rings = polygons.path, polygons.ring
    there = [ring for ring in rings if ring is not None]
    low = np.min([ring.min(axis=0) for ring in there], axis=0)
    width, height = (int(n) for n in np.ceil(np.max([ring.max(axis=0) for ring in there], axis=0)))
    if low.max() < -1 or min(width, height) < 1 or max(width, height) > 2**20:
        raise DataError(
            f"{path} has polygons from ({low[0]:.0f}, {low[1]:.0f}) to ({width}, {height}) px; expected them in the "
            "pixels of the full-resolution image: give that image's segmentation"
        )
    labels = _empty_labels(path, height, width)
    for number, ring in enumerate(rings, 1):
        if ring is not None:
            labels[polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, labels.shape)] = number
    area = _centres(labels, len(rings))[0]
    centre = np.concatenate([np.full((1, 2), np.nan), polygons.measured[:, :2]])
    return Nuclei(path, labels, area, centre, len(there), rings, polygons.odd)


def _empty_labels(path: Path, height: int, width: int) -> np.ndarray:
    """Return zeros, int32 [height, width]; large ones lie in a file without a name, not in memory."""
    if height * width < _MOST_HELD:
        return np.zeros((height, width), dtype=np.int32)
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        # Asked for at once: a disk that fills up under a mapped file ends the process without a word.
        os.posix_fallocate(file.fileno(), 0, height * width * 4)
    except OSError as error:
        raise DataError(
            f"{path} is drawn on {width} x {height} px, for which {tempfile.gettempdir()} has no room ({error}); "
            f"expected {height * width * 4 / 2**30:.0f} GiB: free some, or set TMPDIR"
        ) from error
    return np.memmap(file, np.int32, "r+", shape=(height, width))


def _open(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic == b"\x93NUMPY":
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise DataError(
                f"{path} cannot be read ({reason_of(error)}); expected a label image of nuclei: the file is truncated, "
                "download it again or write it again"
            ) from error
    if magic[:2] == b"PK":
        with np.load(path, allow_pickle=False) as arrays:
            if len(arrays.files) != 1:
                raise ValueError(f"it holds the arrays {', '.join(arrays.files) or 'none'}, not one")
            return arrays[arrays.files[0]]
    import tifffile

    try:
        return tifffile.memmap(path, mode="r")
    except ValueError:  # packed
        return tifffile.imread(path)


def _extent(labels: np.ndarray) -> tuple[int, int]:
    strips = [labels[r : r + STRIP] for r in range(0, labels.shape[0], STRIP)]
    if not labels.size:
        return 0, 0
    return min(int(strip.min()) for strip in strips), max(int(strip.max()) for strip in strips)


def _centres(labels: np.ndarray, high: int) -> tuple[np.ndarray, np.ndarray]:
    from ..pooling_kernels import label_sums

    area = np.zeros(high + 1, dtype=np.int64)
    sums = np.zeros((2, high + 1))
    for row in range(0, labels.shape[0], STRIP):
        label_sums(np.ascontiguousarray(labels[row : row + STRIP]), row, area, *sums)
    with np.errstate(invalid="ignore"):
        return area, (sums / area).T


@dataclass(frozen=True)
class CellCounts:
    """Sums of bins, n nuclei with counts, by label.

    label: int64 [n], ascending. counts: CSR int32 [n, G]. bins: int64 [n], how many were summed.
    lost: {reason: number}.
    """

    label: np.ndarray
    counts: scipy.sparse.csr_matrix
    bins: np.ndarray
    lost: dict[str, int]


def sum_by_nucleus(
    counts: scipy.sparse.csr_matrix, xy_px: np.ndarray, axes: np.ndarray, nuclei: Nuclei, counted: np.ndarray
) -> CellCounts:
    """Sum bins by the nucleus that they lie in.

    Every bin is in one nucleus or counted in `lost`, as is every nucleus that becomes no cell.

    Parameters
    ----------
    counts, xy_px
        CSR integers [bins, G], and the bins' centres [bins, 2], x and y in pixels.
    axes
        float64 [2, 2], pixels per step along the array's columns and rows: the sides of a bin.
    nuclei
        From `read_nuclei`.
    counted
        bool [G], the columns by which a nucleus has counts.

    Raises
    ------
    DataError
        More than 2 % of the bins lie outside the label image, or no bin lies in a nucleus.
    """
    from ..pooling_kernels import label_bins

    height, width = nuclei.labels.shape
    outside = ((xy_px < 0) | (xy_px >= [width, height])).any(axis=1)
    if nuclei.rings is None and outside.mean() > 0.02:
        raise DataError(
            f"{nuclei.path} is {width} x {height} px, and {int(outside.sum())} of {len(xy_px)} bins in tissue lie "
            f"outside it (up to x {xy_px[:, 0].max():.0f}, y {xy_px[:, 1].max():.0f}); expected the nuclei of the "
            "full-resolution image, pixel by pixel: segment that image, or scale the labels to it"
        )
    reach = 0.5 * np.abs(axes).sum(axis=0)
    label = label_bins(nuclei.labels, np.ascontiguousarray(xy_px), np.linalg.inv(axes.T), reach[0], reach[1])
    inside = np.flatnonzero(label > 0)
    if not len(inside):
        raise DataError(
            f"{nuclei.path} has no nucleus with a bin of its own among {len(label)} bins in tissue; expected the "
            "nuclei of the same image: give the label image of this slide"
        )
    of = label[inside]
    belongs = scipy.sparse.csr_matrix(
        (np.ones(len(inside), dtype=np.int32), (of, inside)), shape=(len(nuclei.area_px), len(label))
    )
    present = np.unique(of)
    summed = (belongs[present] @ counts).tocsr().astype(np.int32)
    summed.sort_indices()
    full = np.asarray(summed[:, counted].sum(axis=1)).ravel() > 0
    lost = {
        "bins outside nuclei": int((label == 0).sum()),
        "bins in two nuclei": int((label < 0).sum()),
        "nuclei without bins": nuclei.number - len(present),
        "no counts": int((~full).sum()),
    }
    return CellCounts(present[full], summed[full], np.bincount(of)[present][full], lost)
