"""Read, normalise and ready for training, one core, as a ratio to OpenSlide + staintools + h5 in the same run.

    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/store.py [--tiles 10000] [--image slide.svs] [--folder /tmp]

A slide (JPEG pyramid of the middle of `--image`, or of simulated tissue, repeated) has spots on a square grid, 100 um
apart at 0.5 um per px, with tiles of 224 px. The reference reads, normalises and appends tile by tile. Ours decodes,
normalises and stores the slide once and then cuts every tile in random order. Time is the processor's; memory is what
is added at the peak, mapped files not counted. Growth: tiles of 64 px side by side, so that 100,000 are a slide of
20,000 px.
"""

import argparse
import tempfile
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import openslide
from rows import Row, add_options, give, grown, processor
from slides import Memory, measured, one_core, source_name, take_picture, write_pyramid

from stmorph.image.source import open_image
from stmorph.image.stain import PUBLISHED_TARGET
from stmorph.image.stain_options import StainOptions
from stmorph.image.stain_staintools import load_staintools
from stmorph.image.store import build_store, open_store
from stmorph.image.tiles import SlideTiles

BATCH = 64


def grid(tiles: int, pitch_px: int, size_px: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return corners of a square of tiles and the side of the slide."""
    n = int(np.ceil(np.sqrt(tiles)))
    y, x = np.divmod(np.arange(tiles), n)
    return x * pitch_px, y * pitch_px, (n - 1) * pitch_px + size_px


def reference(path, x0, y0, size, h5):
    normalizer = load_staintools().StainNormalizer("macenko")
    normalizer.stain_matrix_target, normalizer.maxC_target = PUBLISHED_TARGET.matrix, PUBLISHED_TARGET.strength[None]
    with openslide.OpenSlide(path) as slide, h5py.File(h5, "w") as file:
        shape = (0, size, size, 3)
        out = file.create_dataset("img", shape, np.uint8, maxshape=(None, *shape[1:]), chunks=(1, *shape[1:]))
        for x, y in zip(x0.tolist(), y0.tolist()):
            tile = np.asarray(slide.read_region((x, y), 0, (size, size)).convert("RGB"))
            with suppress(Exception):  # the package fails on tiles of glass
                tile = normalizer.transform(tile.copy())
            out.resize(len(out) + 1, axis=0)
            out[-1] = tile


def ours(path, x0, y0, size, folder):
    npy = folder / "image.npy"
    build_store(open_image(path), 0.5, 0.5, StainOptions(), npy, folder / "image.json")
    tiles = SlideTiles([open_store(npy)], np.zeros(len(x0)), x0, y0, size)
    order = np.random.default_rng(0).permutation(len(x0))
    for start in range(0, len(order), BATCH):
        tiles.read(order[start : start + BATCH])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--reference", type=int, default=64, help="tiles for the reference")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--growth", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    add_options(parser)
    arguments = parser.parse_args()
    take_picture(arguments.image)
    one_core()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        path = folder / "slide.tif"
        x0, y0, side = grid(100, 200, 224)
        write_pyramid(path, side, "jpeg")
        ours(path, x0, y0, 224, folder)  # compiles
        reference(path, x0[:4], y0[:4], 224, folder / "tiles.h5")

        x0, y0, side = grid(arguments.tiles, 200, 224)
        write_pyramid(path, side, "jpeg")
        chosen = np.random.default_rng(1).choice(len(x0), arguments.reference, replace=False)
        half, theirs = len(chosen) // 2, []
        theirs.append(measured(lambda: reference(path, x0[chosen[:half]], y0[chosen[:half]], 224, folder / "t.h5")))
        with Memory() as memory:
            seconds = measured(lambda: ours(path, x0, y0, 224, folder))
        theirs.append(measured(lambda: reference(path, x0[chosen[half:]], y0[chosen[half:]], 224, folder / "t.h5")))
        slow, fast = len(chosen) / sum(theirs), len(x0) / seconds
        print(f"{processor()}, one core; {len(x0):,} tiles of 224 px, {side} x {side} px; {source_name()}")
        rates = f"{fast:,.0f} of {slow:.1f} tiles/s; {memory.mib:.0f} MiB added"
        rows = [Row("image to training batches", "OpenSlide + staintools + h5 append", fast / slow, 30, "x", rates)]
        print(" | ".join(rows[0].cells()), flush=True)
        per_tile = {}
        for n in arguments.growth:  # tiles of 64 px side by side
            x0, y0, side = grid(n, 64, 64)
            write_pyramid(path, side, "jpeg")
            with Memory() as memory:
                per_tile[n] = measured(lambda x0=x0, y0=y0: ours(path, x0, y0, 64, folder)) / n
            print(f"{n:8} tiles {n * per_tile[n]:8.2f} s {per_tile[n] * 1e6:8.0f} us a tile {memory.mib:7.0f} MiB")
        rows += grown("image to training batches, 64 px", per_tile)
    give(rows, arguments.rows)


if __name__ == "__main__":
    main()
