"""Extra image channels beside the stained image: DAPI and the mask of cells, on the pixels of the slide store.

GeneFlow (section 3) draws such channels with the stained image. DAPI is measured in the instrument's frame; it is
brought into the store's by the alignment: reduced by whole-block means until its pixels are about as wide as the
store's (so that nothing is undersampled), then interpolated linearly. Positions are continuous and count from the
top-left corner, the centre of the first pixel is (0.5, 0.5).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..read.tables import reading
from .alignment import Alignment
from .store import SlideStore

LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8
"""Of the pixels above 0, mapped to grey 0 and 255: the floor of the camera, and all but hot pixels."""
_BAND_PX = 512  # rows worked on at a time
_MOST_RANKED = 2**25  # pixels of which percentiles are taken; of larger channels every n-th in each direction


@dataclass(frozen=True)
class Plane:
    """A morphology image at a stored resolution. pixels: [H, W]; reduction: full-resolution pixels per pixel, x, y."""

    pixels: np.ndarray
    reduction: tuple[float, float]


def read_morphology(path: str | Path, most_reduction: float = 1.0, channel: int = 0) -> Plane:
    """Return the brightest of the focal planes of a morphology image, from its pyramid.

    Parameters
    ----------
    path
        `morphology*.ome.tif`, or the folder `morphology_focus` with a file a channel.
    most_reduction
        Full-resolution pixels per pixel that are wanted; the coarsest stored level that is not coarser is read.
    channel
        Which file of a folder, in the order of the names; DAPI is the first.

    Raises
    ------
    DataError
        The file is missing, truncated, or no single-channel image.
    """
    import tifffile

    path = _file_of(Path(path), channel)
    with reading(path, "a whole morphology OME-TIFF"), tifffile.TiffFile(path, is_ome=False) as tif:
        # Page by page: an OME record may name further files, which need not be there.
        planes = [page for page in tif.pages if not page.is_reduced]
        full = planes[0]
        if full.ndim != 2 or any(page.shape != full.shape for page in planes):
            raise DataError(
                f"{path} holds pictures of {full.shape}; expected planes of one channel and one size: give "
                "morphology.ome.tif"
            )
        best: np.ndarray | None = None
        for page in planes:
            levels = [page, *(page.pages or ())]
            fine = [one for one in levels if full.shape[1] / one.shape[1] <= most_reduction * (1 + 1e-6)]
            level = min(fine or [page], key=lambda one: one.shape[1])
            pixels = level.asarray()
            best = pixels if best is None else np.maximum(best, pixels)
    return Plane(best, (full.shape[1] / best.shape[1], full.shape[0] / best.shape[0]))


def into_store(plane: Plane, alignment: Alignment, store: SlideStore) -> np.ndarray:
    """Return a plane on the store's pixels, float32 [H, W]; 0 where the plane has nothing.

    Parameters
    ----------
    plane
        Of the frame that `alignment` maps the stained image into.
    alignment
        Full-resolution pixels of the stained image to full-resolution pixels of the plane.
    store
        The stained image's.
    """
    import scipy.ndimage

    source = store.record["source"]
    height, width = store.shape
    store_to_image = np.array([source["width_px"] / width, source["height_px"] / height])
    matrix = alignment.matrix[:2, :2] * store_to_image / np.array(plane.reduction)[:, None]
    shift = alignment.matrix[:2, 2] / plane.reduction
    # Blocks as wide as a store pixel: linear interpolation between them neither misses nor repeats a pixel.
    factor = max(1, round(float(np.sqrt(abs(np.linalg.det(matrix))))))
    pixels = _block_means(plane.pixels, factor)
    matrix, shift = matrix / factor, shift / factor
    # To scipy's order (row, column) and its pixel centres at whole numbers.
    matrix, shift = matrix[::-1, ::-1], shift[::-1]
    out = np.empty((height, width), dtype=np.float32)
    for top in range(0, height, _BAND_PX):
        band = out[top : top + _BAND_PX]
        offset = matrix @ np.array([top + 0.5, 0.5]) + shift - 0.5
        scipy.ndimage.affine_transform(pixels, matrix, offset, output=band, output_shape=band.shape, order=1, cval=0.0)
    return out


def to_grey(pixels: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Return a channel as uint8 and the values that became 0 and 255 (`low`, `high`).

    Percentiles of what is above 0, because the instrument's frame and the image do not cover each other.

    Raises
    ------
    DataError
        The channel is blank.
    """
    step = max(1, int(np.sqrt(pixels.size / _MOST_RANKED)))
    there = pixels[::step, ::step]
    there = there[there > 0]
    low = high = 0.0
    if there.size:
        low, high = (float(value) for value in np.percentile(there, (LOW_PERCENTILE, HIGH_PERCENTILE)))
    if not high > low:
        raise DataError(
            f"the channel is blank where the stained image lies (values {low:g} to {high:g}); expected nuclei: check "
            "that the alignment is this slide's, and the morphology image the first channel"
        )
    grey = np.empty(pixels.shape, dtype=np.uint8)
    for top in range(0, len(pixels), _BAND_PX):
        scaled = (pixels[top : top + _BAND_PX] - np.float32(low)) * np.float32(255 / (high - low))
        grey[top : top + _BAND_PX] = np.rint(np.clip(scaled, 0, 255))
    return grey, {"low": low, "high": high}


def cell_mask(outline_um: np.ndarray, store: SlideStore) -> np.ndarray:
    """Return which store pixels lie in a cell, uint8 [H, W], 0 or 255, by the pixels' centres.

    outline_um: float64 [n, V, 2], x and y from the image's top-left corner, as in a slide's obsm['boundary_um'];
    cells without an outline (NaN) are passed over.
    """
    from skimage.draw import polygon

    mask = np.zeros(store.shape, dtype=np.uint8)
    known = np.isfinite(outline_um).all(axis=(1, 2))
    for outline in outline_um[known]:
        x, y = (store.to_px(outline) - 0.5).T
        mask[polygon(y, x, mask.shape)] = 255
    return mask


def label_mask(labels: np.ndarray, store: SlideStore) -> np.ndarray:
    """Return which store pixels lie in a label, uint8 [H, W], 0 or 255, by the pixels' centres.

    labels: integers [H', W'], 0 outside, on the pixels of the stained image at full resolution.
    """
    height, width = store.shape
    row, column = (
        ((np.arange(n) + 0.5) * full / n).astype(np.int64)
        for n, full in zip((height, width), labels.shape, strict=True)
    )
    mask = np.empty((height, width), dtype=np.uint8)
    for top in range(0, height, _BAND_PX):
        rows = row[top : top + _BAND_PX]
        mask[top : top + _BAND_PX] = np.where(labels[rows[0] : rows[-1] + 1][rows - rows[0]][:, column] > 0, 255, 0)
    return mask


def _block_means(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Return means of blocks, float32 (as they are with factor 1); a last block is the mean of what there is."""
    if factor == 1:
        return pixels
    height, width = pixels.shape
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    # float64 sums: 16-bit values add up beyond what float32 counts exactly.
    total = np.add.reduceat(np.add.reduceat(pixels, columns, axis=1, dtype=np.float64), rows, axis=0)
    area = np.diff(np.append(rows, height))[:, None] * np.diff(np.append(columns, width))
    return (total / area).astype(np.float32)


def _file_of(path: Path, channel: int) -> Path:
    if path.is_dir():
        found = sorted(path.glob("*.ome.tif"))
        if channel >= len(found):
            raise DataError(
                f"{path} holds {len(found)} files *.ome.tif; expected at least {channel + 1}: give the run's "
                "morphology_focus"
            )
        return found[channel]
    if not path.is_file():
        raise DataError(f"{path}, a morphology image, does not exist; correct the path or download it")
    return path
