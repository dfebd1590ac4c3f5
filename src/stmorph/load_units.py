"""Joins what the stages wrote about some slides into the units of a split's roles. Joined by barcode, never by row."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .errors import DataError
from .expression import TargetSpace, to_target_space
from .panels import read_panel
from .ragged_cells import RaggedCells
from .slide_file import SlideFile, open_slide, rows_of
from .units import Units


@dataclass(frozen=True)
class SlideFiles:
    """The files of one slide that a step was given; those it does not need are None."""

    slide: str
    tiles: str
    image: str | None = None
    embedding: str | None = None
    channels: str | None = None


def slide_files(
    slides: Sequence[str],
    tiles: Sequence[str],
    images: Sequence[str] | None = None,
    embeddings: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
) -> list[SlideFiles]:
    """Return one `SlideFiles` a slide from parallel lists of paths."""
    absent = [None] * len(slides)
    parts = (slides, tiles, images or absent, embeddings or absent, channels or absent)
    return [SlideFiles(*files) for files in zip(*parts, strict=True)]


def load_units(
    files: Sequence[SlideFiles],
    split: str | Path,
    panel: str | Path,
    roles: Collection[str],
    target_space: TargetSpace,
) -> Units:
    """Return the units with one of `roles`, sorted by slide and barcode.

    Raises
    ------
    DataError
        A panel gene is not measured on a slide, or the split, tiles and embedding of a slide name different units.
    """
    from .encoders.embedding import read_embedding
    from .image.tiles import SlideTiles

    table = pd.read_parquet(split)
    table = table[table["role"].isin(list(roles))].sort_values(["slide", "barcode"], kind="stable")
    genes = read_panel(Path(panel)).genes
    expression, embedding, boxes, stores, channels, cells, wanted_slides = [], [], [], [], [], [], []
    by_name = {str(slide.about["slide"]): (slide, file) for file in files for slide in [open_slide(file.slide)]}
    for name in sorted(by_name):  # the order of the table
        slide, file = by_name.pop(name)  # it holds what was read of it only as long as it is needed
        wanted = table.loc[table["slide"] == name, "barcode"].to_numpy()
        if not len(wanted):
            continue
        columns = slide.var.index.get_indexer(list(genes))
        missing = [gene for gene, column in zip(genes, columns) if column < 0]
        if missing:
            raise DataError(
                f"{file.slide} does not measure {len(missing)} genes of {panel}, the first {missing[0]}; "
                "choose the panel anew"
            )
        rows = rows_of(slide.obs_names, wanted, file.slide)
        measured = ~slide.var["control"].to_numpy(dtype=bool)
        expression.append(_expression(slide.take(rows), columns, measured, target_space))
        if slide.cells is not None:
            cells.append(RaggedCells.of(slide.cells, columns, measured, target_space).take(rows))
        if file.embedding is not None:
            record = read_embedding(file.embedding)
            embedding.append(record.embedding[rows_of(record.barcode, wanted, file.embedding)])
        if file.image is not None:
            listed = pd.read_parquet(file.tiles)
            chosen = listed.iloc[rows_of(listed["barcode"], wanted, file.tiles)]
            boxes.append(chosen.assign(store=len(stores)))
            stores.append(file.image)
            channels += [] if file.channels is None else [file.channels]
        wanted_slides.append(name)
    table = table[table["slide"].isin(wanted_slides)]
    return Units(
        slide=table["slide"].to_numpy(dtype=str),
        barcode=table["barcode"].to_numpy(dtype=str),
        spatial_um=table[["x_um", "y_um"]].to_numpy(dtype=np.float64),
        genes=genes,
        expression=np.concatenate(expression) if expression else np.zeros((0, len(genes)), np.float32),
        embedding=np.concatenate(embedding) if embedding else None,
        tiles=SlideTiles.of(stores, pd.concat(boxes), channels or None) if boxes else None,
        cells=RaggedCells.joined(cells) if cells and len(cells) == len(wanted_slides) else None,
    )


def _expression(units: SlideFile, columns: np.ndarray, measured: np.ndarray, target_space: TargetSpace) -> np.ndarray:
    """Return the panel's expression, float32 [n, G], from the counts a block at a time."""
    found = np.empty((units.n_obs, len(columns)), dtype=np.float32)
    of_library = measured.astype(np.float64)
    for index, counts in units.blocks():
        found[index] = to_target_space(counts[:, columns], counts @ of_library, target_space)
    return found
