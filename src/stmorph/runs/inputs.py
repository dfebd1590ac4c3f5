"""From a job's input files to units: the same for every step of a run."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..load_units import load_units, slide_files
from ..randomness import numpy_generator
from ..units import Units


def units_of(run: Mapping[str, Any], files: Mapping[str, Sequence[str]], roles: Collection[str]) -> Units:
    """Return the units with one of `roles` from a job's named inputs (`slides`, `tiles`, `split`, `panel`, ...)."""
    parts = (files.get(name) for name in ("images", "embeddings", "channels"))
    slides = slide_files(files["slides"], files["tiles"], *parts)
    return load_units(slides, files["split"][0], files["panel"][0], roles, run["target_space"])


def tile_scale(files: Mapping[str, Sequence[str]]) -> tuple[int, float]:
    """Return the side of a tile in pixels and its um per px; (0, 0.0) where a job has no images."""
    if "images" not in files:
        return 0, 0.0
    import pandas as pd

    from ..image.store import open_store

    return int(pd.read_parquet(files["tiles"][0])["size_px"].iloc[0]), open_store(files["images"][0]).um_per_px


def picture_channels(files: Mapping[str, Sequence[str]]) -> int:
    """Return how many channels a job's tiles have: red, green and blue, and the extra ones where it has any."""
    from ..image.extra_channels import RGB, ExtraChannels

    return RGB + len(ExtraChannels(files["channels"][0]).names) if files.get("channels") else RGB


def choose_test_units(run: Mapping[str, Any], test: Units, at_most: int | None) -> np.ndarray:
    """Return which test units are sampled, sorted int64 indices; the same for every method of a split and seed.

    The seed is the split's name and the run's seed, not the method's, so that methods are compared on the same units.
    """
    if at_most is None or at_most >= len(test):
        return np.arange(len(test))
    rng = numpy_generator("test units", run["dataset"], run["split"], run["seed"])
    return np.sort(rng.permutation(len(test))[:at_most])
