"""What a reader is, and what a dataset's configuration says about a slide."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ..errors import ConfigError

if TYPE_CHECKING:
    import anndata

PICTURE_ROLES = frozenset({"dapi"})
"""Roles that only extra channels of the pictures are made of: no reader looks at them."""
SPECIES = ("human", "mouse", "simulated")


@dataclass(frozen=True, kw_only=True)
class SlideInfo:
    """What the files of a slide do not say.

    um_per_px is that of the full-resolution image; None: it is measured by the spots' grid.
    spot_pitch_um is the distance between the centres of nearest neighbours on the array (Visium 100; Spatial
    Transcriptomics arrays of 1,007 spots 200, of 2,000 spots 150); None where units do not lie on a grid.

    Raises
    ------
    ConfigError
        The species is unknown, or a length is not a positive number.
    """

    dataset: str
    slide: str
    platform: str
    organ: str
    species: str
    patient: str
    um_per_px: float | None = None
    spot_diameter_um: float | None = None
    spot_pitch_um: float | None = None
    licence: str = ""
    attribution: str = ""

    def __post_init__(self) -> None:
        if self.species not in SPECIES:
            raise ConfigError(
                f"slide {self.slide} of {self.dataset}: species is {self.species!r}; expected one of "
                f"{', '.join(SPECIES)}"
            )
        for name in ("um_per_px", "spot_diameter_um", "spot_pitch_um"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"slide {self.slide} of {self.dataset}: {name} is {value}; expected a length above 0, or null"
                )


class ReaderOptions(BaseModel):
    """What a dataset's `reader_options` may say: a closed object without keys; readers with choices extend it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Reader:
    """Reads one platform's files.

    roles: what each file is to the reader -> whether it must be given. Every reader has the role `image`.
    either: two roles of which one must be given and not both; empty: none such.
    read: (files by role, what the configuration says, options) -> AnnData of the units that have a position, lie in
    tissue and have counts, sorted by barcode:
    X CSR int32 raw counts [n, G]; obs array_row, array_col, in_tissue; obsm['spatial_px'] float64 [n, 2], x and y in
    pixels of the full-resolution image; var gene_id, control; uns['lost'] {reason: count}, uns['grid']
    (`grid.Grid`), uns['duplicate_symbols'], uns['genes_without_symbol']; where units are no spots uns['unit']
    (`pseudo-spot`, `bin` or `cell`), and where the files tell the image's scale otherwise than by a grid
    uns['um_per_px'] and uns['um_per_px_evidence'], and where they tell its size uns['image_size_px'] (width,
    height). Where counts are sums that would fill the memory, X is left out and uns['counts'] is a
    `pooling.PooledCounts` of the same rows. Outlines of cells are obsm['boundary_px'] float64 [n, V, 2], padded with
    the last vertex, NaN where a cell has none.
    `read` does not open the image.
    channels: extra channel of the pictures -> the roles of one of which it is made, of what the platform can give.
    no_slide: why its files make no slide, the end of a sentence; empty where they do.
    """

    roles: dict[str, bool]
    read: Callable[[dict[str, Path], SlideInfo, ReaderOptions], "anndata.AnnData"]
    Options: type[ReaderOptions] = ReaderOptions
    channels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    either: tuple[str, ...] = ()
    no_slide: str = ""
