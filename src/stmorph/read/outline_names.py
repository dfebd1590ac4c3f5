"""Outlines without ids: whose they are, by the transcripts that lie in them; and whether outlines fit transcripts.

HEST-1k's GeoJSON of Xenium's cells has no ids. The table of transcripts has each one's cell and place: an outline is
the cell's of which it holds most transcripts, where it also holds more of that cell's than any other outline does.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError
from .nuclei import drawn
from .polygons import Polygons
from .tables import names_of, reading
from .xenium_files import transcript_parts

MOST_OFF = 0.3
"""How far, in radii, a cell's transcripts in an outline may lie off its centre in the median."""
_MANY = 10
_CHECKED = 2000
"""Cells whose place is looked at."""


def name_outlines(polygons: Polygons, transcripts: Path, no_cell: Sequence[str]) -> np.ndarray:
    """Return which cell each outline is of, object [n], None where of none.

    Parameters
    ----------
    polygons
        Outlines in the pixels of he_x and he_y.
    transcripts
        The table with cell_id, he_x and he_y.
    no_cell
        What stands for no cell in cell_id.

    Raises
    ------
    DataError
        A file is damaged, or in the median outline the cell's transcripts lie off its centre by more than `MOST_OFF` of
        its radius: then it is laid over some other cell.
    """
    table = _held(polygons, transcripts, no_cell)
    # Names and labels decide between equals, so that the order of the file does not.
    table = table.sort_values(["number", "cell", "label"], ascending=[False, True, True], kind="stable")
    mutual = table[~table["label"].duplicated() & ~table["cell"].duplicated()]
    place = mutual["label"].to_numpy(np.int64) - 1
    x, y, area = polygons.measured[place].T
    number = mutual["number"].to_numpy()
    away = np.hypot(mutual["x"] / number - x, mutual["y"] / number - y) / np.sqrt(area / np.pi)
    # A mean of few says little: those with many are asked, as far as there are some.
    sure = number >= min(_MANY, np.median(number) if len(number) else 0)
    off = float(np.median(away[sure])) if len(number) else np.inf
    if off > MOST_OFF:
        found = f"lie {off:.0%} of its radius off its centre" if len(number) else "are none"
        raise DataError(
            f"{polygons.path} has no ids, and the transcripts in {transcripts} of a cell in an outline {found} (median "
            f"of {int(sure.sum())} outlines); expected at most {MOST_OFF:.0%}: give the same sample's outlines in the "
            "image's pixels, x before y, or the parquet with ids"
        )
    names = np.full(len(polygons.ring), None, dtype=object)
    names[place] = mutual["cell"].to_numpy()
    return names


def _held(polygons: Polygons, transcripts: Path, no_cell: Sequence[str]) -> pd.DataFrame:
    """Return cell, label of an outline, number of the cell's transcripts in it, and the sums of their x and y."""
    nuclei, parts = drawn(polygons), []
    with reading(transcripts, "a table of transcripts (parquet or text)"):
        for part in transcript_parts(transcripts, ("cell_id", "he_x", "he_y")):
            part = part[part["cell_id"].notna()]
            name, xy = names_of(part["cell_id"], transcripts), part[["he_x", "he_y"]].to_numpy(np.float64)
            label = nuclei.at(xy)
            counted = (label > 0) & ~np.isin(name, no_cell)
            held = {"cell": name[counted], "label": label[counted], "number": 1}
            held |= {"x": xy[counted, 0], "y": xy[counted, 1]}
            parts = [pd.concat([*parts, pd.DataFrame(held)]).groupby(["cell", "label"], as_index=False).sum()]
    return parts[0] if parts else pd.DataFrame({"cell": [], "label": [], "number": [], "x": [], "y": []})


def check_places(outlines: pd.DataFrame, places: pd.DataFrame, path: Path, transcripts: Path) -> None:
    """Check that cells are outlined where their transcripts lie.

    Parameters
    ----------
    outlines
        As `Polygons.table` gives it.
    places
        Indexed by cell: x_px, y_px, the mean place of its transcripts.
    path, transcripts
        The two files, for error sentences.

    Raises
    ------
    DataError
        More than half of the cells that both have are outlined elsewhere.
    """
    both = outlines.index.intersection(places.index[places.notna().all(axis=1)], sort=False)
    both = both[:: max(1, len(both) // _CHECKED)]
    if not len(both):
        return  # told by whoever joins them
    box = np.array([(ring.min(axis=0), ring.max(axis=0)) for ring in outlines.loc[both, "polygon"]])
    middle, reach = box.mean(axis=1), np.diff(box, axis=1)[:, 0]
    place = places.loc[both, ["x_px", "y_px"]].to_numpy()

    def near(xy: np.ndarray) -> np.ndarray:
        # Transcripts of a cell may lie around its nucleus, so twice the outline's box is allowed.
        return (np.abs(xy - middle) <= reach).all(axis=1)

    fits = near(place)
    if fits.mean() < 0.5:
        first = int(np.flatnonzero(~fits)[0])
        advice = "give the same sample's files, both in the pixels of the image"
        if near(place[:, ::-1]).mean() >= 0.5:
            advice = "the axes look swapped (x and y exchanged would fit): exchange them in one of the files"
        raise DataError(
            f"{path}: cell {both[first]!r} is outlined around ({middle[first, 0]:.0f}, {middle[first, 1]:.0f}) px, and "
            f"{transcripts} has its transcripts around ({place[first, 0]:.0f}, {place[first, 1]:.0f}) "
            f"({int((~fits).sum())} of {len(both)} cells); expected outlines around the transcripts: {advice}"
        )
