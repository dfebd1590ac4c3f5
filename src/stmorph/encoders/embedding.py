"""The embedding of a slide's tiles: made in chunks, kept as a zipped Zarr store; the same content, the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import ConfigError, DataError
from ..image.views import VIEWS, view
from ..units import TileReader
from ..zarr_zip import opened, written
from .base import Encoder

#: A zip stores a time with every entry; this one, the earliest there is, makes the bytes a function of the content.


@dataclass(frozen=True)
class Embedding:
    """What an embedding file holds.

    embedding: float32 [n, views, dim]. barcode: str [n]. views: names from `image.views`.
    features: names of the dim numbers, or ().
    """

    embedding: np.ndarray
    barcode: np.ndarray
    encoder: str
    weights_sha256: str
    views: tuple[str, ...]
    features: tuple[str, ...]


def check_views(views: Sequence[str]) -> tuple[str, ...]:
    """Return the views as a tuple: names of `VIEWS`, each once, `identity` first.

    Raises
    ------
    ConfigError
        As above.
    """
    views = tuple(views)
    if not views or views[0] != VIEWS[0] or len(set(views)) < len(views) or not set(views) <= set(VIEWS):
        raise ConfigError(
            f"views are {', '.join(views) or 'empty'} where `identity` first and then any of {', '.join(VIEWS[1:])}, "
            "each once, are allowed; correct the list"
        )
    return views


def embed_tiles(
    encoder: Encoder,
    tile_reader: TileReader,
    n: int,
    views: Sequence[str] = VIEWS[:1],
    *,
    um_per_px: float,
    chunk: int = 256,
    progress: bool = True,
) -> np.ndarray:
    """Return the vectors of tiles 0 .. n - 1 of a reader in some views, float32 [n, views, dim].

    An encoder that is `view_invariant` is asked once a tile and its answer stands for all views.

    Raises
    ------
    ConfigError
        The views are not names of `image.views.VIEWS` with `identity` first.
    DataError
        The encoder gave a number that is not finite.
    """
    views = check_views(views)
    result = np.empty((n, len(views), encoder.dim), dtype=np.float32)
    with tqdm(total=n, desc=encoder.name, unit="tile", disable=not progress) as bar:
        for start in range(0, n, chunk):
            index = np.arange(start, min(start + chunk, n))
            tiles = tile_reader.read(index)
            if encoder.view_invariant:
                result[index] = encoder.encode(tiles, um_per_px)[:, None]
            else:
                for v, name in enumerate(views):
                    result[index, v] = encoder.encode(np.ascontiguousarray(view(tiles, name)), um_per_px)
            if not np.isfinite(result[index]).all():
                bad = int(index[~np.isfinite(result[index]).all(axis=(1, 2))][0])
                raise DataError(
                    f"encoder {encoder.name} gave a number that is not finite for tile {bad}; check its weights"
                )
            bar.update(len(index))
    return result


def write_embedding(
    path: str | Path, embedding: np.ndarray, barcodes: Sequence[str], encoder: Encoder, views: Sequence[str]
) -> None:
    """Write `<encoder>.zarr.zip`: arrays `embedding` float32 [n, views, dim] and `barcode`.

    Attributes: encoder, weights_sha256, views, features, dim. The same input gives the same bytes.

    Raises
    ------
    DataError
        The shapes disagree, a barcode comes twice, or the disk is full.
    """
    views = check_views(views)
    expected = (len(barcodes), len(views), encoder.dim)
    if embedding.shape != expected:
        raise DataError(
            f"{path} would hold an embedding of shape {list(embedding.shape)} where {list(expected)} (barcodes, views, "
            "dim) was expected; embed the same tiles that are listed"
        )
    if len(set(barcodes)) < len(barcodes):
        raise DataError(f"{path} would hold a barcode twice; barcodes must be unique, so mend the slide's units")
    attributes = {
        "encoder": encoder.name,
        "weights_sha256": encoder.weights_sha256,
        "views": list(views),
        "features": list(encoder.features),
        "dim": encoder.dim,
    }
    with written(path, attributes) as group:
        rows = max(1, min(len(embedding), 2**22 // max(1, len(views) * encoder.dim)))  # 16 MB a chunk
        group.create_array(
            "embedding", data=np.asarray(embedding, dtype=np.float32), chunks=(rows, len(views), encoder.dim)
        )
        names = group.create_array("barcode", shape=(len(barcodes),), dtype=str, chunks=(max(1, len(barcodes)),))
        names[:] = np.asarray(list(barcodes), dtype=np.dtypes.StringDType())


def read_embedding(path: str | Path) -> Embedding:
    """Return what `write_embedding` wrote.

    Raises
    ------
    DataError
        The file is missing, damaged, or its parts contradict each other.
    """
    with opened(path, "a slide's embedding", "run the embedding step for its slide") as group:
        embedding = np.asarray(group["embedding"][:], dtype=np.float32)
        barcode = np.array(group["barcode"][:].tolist(), dtype=str)
        attributes = dict(group.attrs)
        found = Embedding(
            embedding=embedding,
            barcode=barcode,
            encoder=attributes["encoder"],
            weights_sha256=attributes["weights_sha256"],
            views=tuple(attributes["views"]),
            features=tuple(attributes["features"]),
        )
    expected = (len(barcode), len(found.views), attributes.get("dim"))
    if embedding.shape != expected or len(found.features) not in (0, expected[2]):
        raise DataError(
            f"embedding {path} has shape {list(embedding.shape)} where its barcodes, views and dim say "
            f"{list(expected)}; delete it and run its step again"
        )
    return found
