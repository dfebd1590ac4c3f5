"""What is true of a simulated slide, written beside any layout: `truth.parquet` and `truth.json`."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import whole
from .options import SimulationOptions
from .programmes import PROGRAMMES
from .render import Stain
from .tissue import Section


def write_truth(
    files: dict[str, Path],
    truth: pd.DataFrame,
    options: SimulationOptions,
    drawn: tuple[str, str, int],
    section: Section,
    stain: Stain,
    **facts: Any,
) -> None:
    """Write a slide's truth.

    Parameters
    ----------
    files
        Holds the roles `truth` and `truth_json`.
    truth
        One row a unit.
    drawn
        Slide, patient and seed.
    facts
        What only this layout knows.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    slide, patient, seed = drawn
    with whole(files["truth"]) as partial:
        truth.to_parquet(partial, index=False)
    content = {
        "slide": slide,
        "patient": patient,
        "seed": seed,
        "options": options.model_dump(),
        "um_per_px": options.um_per_px,
        "stain_matrix": stain.matrix.tolist(),
        "stain_amount": stain.amount.tolist(),
        "optical_density": "natural logarithm, rows hematoxylin and eosin, columns red, green, blue",
        "programmes": list(PROGRAMMES),
        "cells": len(section.cells),
        **facts,
    }
    with whole(files["truth_json"]) as partial:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
