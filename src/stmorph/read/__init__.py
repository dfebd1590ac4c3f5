"""Readers: a platform's files to one slide (raw counts, positions in micrometres, where its image lies).

A reader knows one platform's file layout and nothing else; what all slides have in common is checked in `slide`.
To add a platform, write its module and enter it in `READERS`.
"""

from .base import Reader, SlideInfo
from .hest import HEST
from .legacy_st import LEGACY_ST
from .slide import read_slide
from .spatialdata_zarr import SPATIALDATA
from .spider import SPIDER
from .visium import VISIUM
from .visium_hd import VISIUM_HD
from .write import write_slide
from .xenium import XENIUM

READERS: dict[str, Reader] = {
    "visium": VISIUM,
    "visium_hd": VISIUM_HD,
    "legacy_st": LEGACY_ST,
    "hest": HEST,
    "spatialdata": SPATIALDATA,
    "spider": SPIDER,
    "xenium": XENIUM,
}
"""Reader of every platform, by the name that a dataset's configuration uses."""

__all__ = ["READERS", "Reader", "SlideInfo", "read_slide", "write_slide"]
