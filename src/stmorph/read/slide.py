"""A slide from any reader: what must hold for all platforms, and the file that later stages read."""

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError, DataError
from ..image.source import ImageSource, check_image
from .base import Reader, ReaderOptions, SlideInfo
from .counts import species_of
from .grid import Grid
from .tables import reading
from .window_units import window_units

if TYPE_CHECKING:
    import anndata

MAX_SCALE_ERROR = 0.10
"""Largest relative difference between a declared and a measured um per px: beyond it one of them is a mistake."""
MAX_OUTSIDE = 0.02
"""Largest fraction of the units in tissue that may lie outside the image (a registration's margin)."""


def read_slide(
    reader: Reader | str,
    files: dict[str, Path],
    info: SlideInfo,
    options: ReaderOptions | None = None,
    *,
    lazy: bool = False,
) -> "anndata.AnnData":
    """Read a slide and check it.

    Parameters
    ----------
    reader
        A reader, or its name in `READERS`.
    files
        File of every role.
    info
        What the configuration says.
    options
        The reader's own; None: as it begins.
    lazy
        Leave X out where the reader can sum it later (pseudo-spots of a full slide are some ten GiB): then
        uns['counts'] is a `pooling.PooledCounts`, and `write_slide` writes it block by block.

    Returns
    -------
    anndata.AnnData
        X CSR int32 raw counts; obs_names barcodes, sorted; obs array_row, array_col, in_tissue; obsm['spatial_um']
        float64 [n, 2], x and y from the image's top-left corner; obsm['boundary_um'] float64 [n, V, 2] where the reader
        gives outlines; var gene_id, control; uns['stmorph']: the fields of `info`, unit (`spot`, `pseudo-spot`, `bin`,
        `cell` or `window`), um_per_px, um_per_px_evidence, um_per_px_measured (NaN where it cannot be), image,
        image_width_px, image_height_px, on_tissue_fraction, duplicate_symbols, genes_without_symbol, lost (JSON
        {reason: count}). Where the options ask for windows of cells: as `window_units` gives it.

    Raises
    ------
    ConfigError
        An unknown reader or role, or a role without a file.
    DataError
        A file is missing, damaged, or contradicts another or the configuration.
    """
    if isinstance(reader, str):
        from . import READERS

        if reader not in READERS:
            raise ConfigError(f"reader is {reader!r}; expected one of {', '.join(READERS)}")
        reader = READERS[reader]
    if reader.no_slide:
        raise ConfigError(f"slide {info.slide} of {info.dataset} {reader.no_slide}")
    files = _checked_files(reader, files, info)
    image = check_image(files["image"])
    adata = reader.read(
        {role: path for role, path in files.items() if role != "image"}, info, options or reader.Options()
    )
    _check_species(adata, info, files["counts"])

    _check_image_size(adata, image, files["counts"])
    um_per_px, measured, evidence = _scale(adata, info, image)
    placed = next(files[role] for role in ("positions", "cells", "counts") if role in files)
    inside = _inside(adata.obsm["spatial_px"], image, placed)
    lost, counts = dict(adata.uns["lost"]), adata.uns.pop("counts", None)
    if not inside.all():
        lost["outside image"] = int((~inside).sum())
        adata = adata[inside].copy()
        counts = None if counts is None else counts.keep(inside, "outside image")
    on_tissue = _on_tissue(adata.obsm["spatial_px"], image, adata.uns["grid"], placed)

    record = {key: value for key, value in dataclasses.asdict(info).items() if key != "um_per_px"}
    # An h5ad holds no null: a length that is not known is NaN.
    record = {key: float("nan") if value is None else value for key, value in record.items()}
    record |= {
        "unit": adata.uns.get("unit", "spot"),
        "um_per_px": um_per_px,
        "um_per_px_evidence": evidence,
        "um_per_px_measured": measured,
        "image": str(files["image"]),
        "image_width_px": image.width_px,
        "image_height_px": image.height_px,
        "on_tissue_fraction": on_tissue,
        "duplicate_symbols": int(adata.uns["duplicate_symbols"]),
        "genes_without_symbol": int(adata.uns["genes_without_symbol"]),
        "lost": json.dumps(lost, sort_keys=True),
    }
    for name in [name for name in adata.obsm if name.endswith("_px")]:
        adata.obsm[f"{name.removesuffix('_px')}_um"] = adata.obsm.pop(name) * um_per_px
    adata.uns = {"stmorph": record}
    if counts is not None and lazy:
        adata.uns["counts"] = counts
    elif counts is not None:
        adata.X = counts.all()[0]
    windows = getattr(options, "windows", None)
    return adata if windows is None else window_units(adata, windows)


def _checked_files(reader: Reader, files: dict[str, Path], info: SlideInfo) -> dict[str, Path]:
    name = f"slide {info.slide} of {info.dataset}"
    unknown = sorted(set(files) - set(reader.roles))
    missing = [role for role, required in reader.roles.items() if required and files.get(role) is None]
    if unknown or missing:
        found = f"has files for unknown roles ({', '.join(unknown)})" if unknown else f"lacks {', '.join(missing)}"
        roles = ", ".join(role if required else f"{role} (optional)" for role, required in reader.roles.items())
        raise ConfigError(f"{name} {found}; expected a file for {roles}")
    given = {role: Path(path) for role, path in files.items() if path is not None}
    if reader.either and len(given.keys() & set(reader.either)) != 1:
        both = reader.either[0] in given
        raise ConfigError(
            f"{name} has {'the files' if both else 'none of the files'} {' and '.join(reader.either)}; expected one of "
            f"them: {'leave one out' if both else 'name one'}"
        )
    for role, path in given.items():
        with reading(path, f"the {role} of {name}"):
            size = path.stat().st_size if path.is_file() else None
            if not path.exists():
                aim = f", a link to {path.readlink()}," if path.is_symlink() else ""
                raise DataError(
                    f"{path}, the {role} of {name},{aim} does not exist; expected a file: correct the path or download "
                    "the data"
                )
        if size == 0:
            raise DataError(f"{path}, the {role} of {name}, is empty (0 bytes); download it again")
    return given


def _check_species(adata: "anndata.AnnData", info: SlideInfo, path: Path) -> None:
    found = species_of(adata.var["gene_id"].to_numpy())
    if info.species != "simulated" and found and info.species not in found:
        raise DataError(
            f"{path} holds {next(iter(found))} genes by their ids ({adata.var['gene_id'].iloc[0]}); expected "
            f"{info.species} as declared for slide {info.slide}: correct the species or the file"
        )


def _check_image_size(adata: "anndata.AnnData", image: ImageSource, path: Path) -> None:
    told = adata.uns.get("image_size_px")
    if told is not None and tuple(told) != (image.width_px, image.height_px):
        raise DataError(
            f"{image.path} has {image.width_px} x {image.height_px} px; expected {told[0]} x {told[1]} px, in which "
            f"{path} gives its positions: give that image"
        )


def _scale(adata: "anndata.AnnData", info: SlideInfo, image: ImageSource) -> tuple[float, float, str]:
    """Return um per px, the value measured by the spots' grid (NaN: none), and the evidence in words."""
    pitch_px, how = adata.uns["grid"].pitch_px, adata.uns["grid"].evidence
    measured = float("nan")
    if "um_per_px" in adata.uns:
        measured, how = adata.uns["um_per_px"], adata.uns["um_per_px_evidence"]
    elif info.spot_pitch_um is not None and math.isfinite(pitch_px) and pitch_px > 0:
        measured = info.spot_pitch_um / pitch_px
        how = f"{measured:.4f} by the spots' pitch ({info.spot_pitch_um:g} um = {pitch_px:.2f} px; {how})"
    else:
        how = f"not measured by the spots ({how if info.spot_pitch_um is not None else 'no pitch declared'})"
    if info.um_per_px is not None:
        difference = info.um_per_px / measured - 1
        if abs(difference) > MAX_SCALE_ERROR:
            raise DataError(
                f"slide {info.slide} of {info.dataset}: um_per_px is declared as {info.um_per_px:.4f}, but is {how}, a "
                f"difference of {difference:+.0%}; expected at most {MAX_SCALE_ERROR:.0%}: correct um_per_px or "
                "spot_pitch_um, or give the image in whose pixels the positions are"
            )
        how = f"declared {info.um_per_px:.4f}; {how}; {image.scale_record.against(info.um_per_px)}"
        return info.um_per_px, measured, how
    if math.isfinite(measured):
        return measured, measured, f"{how}; {image.scale_record.against(measured)}"
    if image.um_per_px_embedded is not None:
        return image.um_per_px_embedded, measured, f"{image.um_per_px_embedded:.4f} by the image's own record; {how}"
    raise DataError(
        f"slide {info.slide} of {info.dataset}: um per px is neither declared nor in {image.path} and was {how}; "
        "expected one of them: declare um_per_px"
    )


def _inside(xy: np.ndarray, image: ImageSource, path: Path) -> np.ndarray:
    """Return which positions lie in the image, bool [n]; raise DataError when more than a margin's worth do not."""
    size = np.array([image.width_px, image.height_px])

    def fits(points: np.ndarray) -> np.ndarray:
        return ((points >= 0) & (points < size)).all(axis=1)

    inside = fits(xy)
    if (~inside).mean() <= MAX_OUTSIDE:
        return inside
    reach = float((xy.max(axis=0) / size).max())
    if (~fits(xy[:, ::-1])).mean() <= MAX_OUTSIDE:
        advice = "the axes look swapped (x and y exchanged would fit): exchange the two columns"
    elif reach > 1.5:
        advice = f"they reach {reach:.1f} times the image: give the full-resolution image they were measured on"
    else:
        advice = "give the image they were measured on"
    (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
    raise DataError(
        f"{path}: {int((~inside).sum())} of {len(xy)} spots lie outside {image.path} (x {x0:.0f} to {x1:.0f} for a "
        f"width of {size[0]} px, y {y0:.0f} to {y1:.0f} for a height of {size[1]} px); expected them inside; {advice}"
    )


def _on_tissue(xy: np.ndarray, image: ImageSource, grid: Grid, path: Path) -> float:
    """Return the fraction of positions with stain around them, by the triangle threshold on the overview.

    The triangle method looks for the foot of the glass's peak; Otsu's would count pale tissue as glass (on HER2ST .80
    of the spots instead of .98). In an image that is nearly square, swapped axes stay inside, but they mirror the array
    and miss more of the tissue; together the two tell (some laboratories mirror their images and are right).
    """
    import scipy.ndimage
    from skimage.filters import threshold_triangle

    overview = image.overview()
    # Green: haematoxylin and eosin both absorb it, glass does not.
    dark = overview[..., 1] < threshold_triangle(overview[..., 1])
    factor = np.array([dark.shape[1] / image.width_px, dark.shape[0] / image.height_px])
    # About a spot's area, for tissue has holes.
    window_px = max(1, round(0.5 * grid.pitch_px * factor[0])) if math.isfinite(grid.pitch_px) else 1
    stained = scipy.ndimage.uniform_filter(dark.astype(np.float32), window_px) > 0.2
    last = np.array([dark.shape[1] - 1, dark.shape[0] - 1])

    def fraction(points: np.ndarray) -> float:
        if ((points < 0) | (points >= [image.width_px, image.height_px])).any(axis=1).mean() > MAX_OUTSIDE:
            return 0.0
        column, row = np.clip((points * factor).astype(np.int64), 0, last).T
        return float(stained[row, column].mean())

    here, swapped = fraction(xy), fraction(xy[:, ::-1])
    clear = {True: 0.02, None: 0.2, False: math.inf}[grid.mirrored]
    # Without glass in the picture nothing can be said.
    if stained.mean() < 0.8 and swapped - here > max(clear, 3 / len(xy)):
        raise DataError(
            f"{path}: {here:.0%} of the spots lie on tissue of {image.path}, but {swapped:.0%} with x and y exchanged; "
            "expected spots in tissue; the axes look swapped: exchange the two columns"
        )
    return here
