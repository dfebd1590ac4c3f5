"""How large the bins of a Visium HD array are: by their barcodes, by the scale factors, by the configuration."""

from pathlib import Path

import pandas as pd

from ..errors import ConfigError, DataError
from .base import SlideInfo
from .bins import bin_size_um
from .visium import scale_factors

MAX_SCALE_ERROR = 0.10
"""Largest relative difference between two statements of the um per px, as for every platform."""


def bin_scale(path: Path) -> dict[str, float]:
    """Return bin_size_um and microns_per_pixel of `scalefactors_json.json`, as far as it has them.

    Raises
    ------
    DataError
        The file is damaged, or a factor is no number above 0.
    """
    scale_factors(path)
    return scale_factors(path, ("bin_size_um", "microns_per_pixel"))


def agreed_size_um(
    positions: pd.DataFrame,
    path: Path,
    stated: dict[str, float],
    scalefactors: Path | None,
    info: SlideInfo,
    bin_um: float | None,
) -> float | None:
    """Return the bins' size, on which barcodes, scale factors and options must agree; None where none states it.

    Raises
    ------
    DataError
        Two of them differ.
    """
    said = {
        f"{path} by its barcodes": bin_size_um(positions.index),
        f"{scalefactors}": stated.get("bin_size_um"),
        "reader_options (bin_um)": bin_um,
    }
    said = {who: size for who, size in said.items() if size is not None}
    (first, size), *others = said.items() or [("", None)]
    for who, other in others:
        if other != size:
            raise DataError(
                f"slide {info.slide} of {info.dataset}: bins are {size:g} um in {first} and {other:g} um in {who}; "
                "expected one size: give the files of one folder of binned_outputs, and correct bin_um"
            )
    return size


def compare_scales(measured: float, stated: float, scalefactors: Path, path: Path) -> None:
    """Check the um per px that the scale factors state against that of the positions.

    Raises
    ------
    DataError
        They differ by more than `MAX_SCALE_ERROR`.
    """
    if abs(stated / measured - 1) > MAX_SCALE_ERROR:
        raise DataError(
            f"{scalefactors}: microns_per_pixel is {stated:.4f}, but the positions in {path} give {measured:.4f}; "
            f"expected at most {MAX_SCALE_ERROR:.0%} difference: give the files of one folder of binned_outputs"
        )


def check_pitch(info: SlideInfo, pitch_um: float, unit: str) -> None:
    """Check a declared distance between units against that of the files.

    Raises
    ------
    ConfigError
        They differ; cells have none.
    """
    if unit != "cell" and info.spot_pitch_um is not None and info.spot_pitch_um != pitch_um:
        raise ConfigError(
            f"slide {info.slide} of {info.dataset}: spot_pitch_um is declared as {info.spot_pitch_um:g}, but "
            f"{unit}s are {pitch_um:g} um apart; expected the distance between units: correct it or leave it out"
        )
