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
from .units import Units


@dataclass(frozen=True)
class SlideFiles:
    """The files of one slide that a step was given; those it does not need are None."""

    slide: str
    tiles: str
    image: str | None = None
    embedding: str | None = None


def slide_files(
    slides: Sequence[str],
    tiles: Sequence[str],
    images: Sequence[str] | None = None,
    embeddings: Sequence[str] | None = None,
) -> list[SlideFiles]:
    """Return one `SlideFiles` a slide from parallel lists of paths."""
    absent = [None] * len(slides)
    return [SlideFiles(*four) for four in zip(slides, tiles, images or absent, embeddings or absent, strict=True)]


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
    import anndata

    from .encoders.embedding import read_embedding
    from .image.tiles import SlideTiles

    table = pd.read_parquet(split)
    table = table[table["role"].isin(list(roles))].sort_values(["slide", "barcode"], kind="stable")
    genes = read_panel(Path(panel)).genes
    expression, embedding, boxes, stores, cells, wanted_slides = [], [], [], [], [], []
    by_name = {_slide_of(file.slide): file for file in files}
    for name, file in sorted(by_name.items()):  # the order of the table
        wanted = table.loc[table["slide"] == name, "barcode"].to_numpy()
        if not len(wanted):
            continue
        adata = anndata.read_h5ad(file.slide)
        missing = [gene for gene in genes if gene not in adata.var_names]
        if missing:
            raise DataError(
                f"{file.slide} does not measure {len(missing)} genes of {panel}, the first {missing[0]}; "
                "choose the panel anew"
            )
        rows = _positions(adata.obs_names, wanted, file.slide)
        measured = ~adata.var["control"].to_numpy(dtype=bool)
        library = np.asarray(adata.X[:, measured].sum(axis=1), dtype=np.float64).ravel()[rows]
        expression.append(to_target_space(adata[rows, list(genes)].X, library, target_space))
        if "cells" in adata.uns:
            columns = adata.var_names.get_indexer(list(genes))
            cells.append(RaggedCells.of(adata.uns["cells"], columns, measured, target_space).take(rows))
        if file.embedding is not None:
            record = read_embedding(file.embedding)
            embedding.append(record.embedding[_positions(record.barcode, wanted, file.embedding)])
        if file.image is not None:
            listed = pd.read_parquet(file.tiles)
            chosen = listed.iloc[_positions(listed["barcode"], wanted, file.tiles)]
            boxes.append(chosen.assign(store=len(stores)))
            stores.append(file.image)
        wanted_slides.append(name)
    table = table[table["slide"].isin(wanted_slides)]
    return Units(
        slide=table["slide"].to_numpy(dtype=str),
        barcode=table["barcode"].to_numpy(dtype=str),
        spatial_um=table[["x_um", "y_um"]].to_numpy(dtype=np.float64),
        genes=genes,
        expression=np.concatenate(expression) if expression else np.zeros((0, len(genes)), np.float32),
        embedding=np.concatenate(embedding) if embedding else None,
        tiles=SlideTiles.of(stores, pd.concat(boxes)) if boxes else None,
        cells=RaggedCells.joined(cells) if cells and len(cells) == len(wanted_slides) else None,
    )


def _slide_of(path: str) -> str:
    import h5py

    with h5py.File(path) as file:
        return file["uns/stmorph/slide"].asstr()[()]


def _positions(names: Sequence[str], wanted: np.ndarray, path: str) -> np.ndarray:
    positions = pd.Index(names).get_indexer(wanted)
    if (positions < 0).any():
        raise DataError(
            f"{path} lacks {int((positions < 0).sum())} of {len(wanted)} units that the split names, the first "
            f"{wanted[positions < 0][0]}; it is older than the split: delete it and run again"
        )
    return positions
