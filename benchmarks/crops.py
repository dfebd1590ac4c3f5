"""Shuffled training batches cut from a slide store, one core, as a ratio to a mapped array of tiles, fancy-indexed.

    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/crops.py [--tiles 10000] [--folder /tmp]

The mapped array holds each tile as its own copy: the fastest there is, for twice to hundreds of times the space. Both
are in the page cache. `uint8`: the tiles alone; `float`: as the training loop's batches have them. Rounds alternate;
time is the processor's.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from slides import corners, measured, one_core, picture, processor

from stmorph.batches import Batcher
from stmorph.image.stain_options import StainOptions
from stmorph.image.store import build_store, open_store
from stmorph.image.tiles import SlideTiles
from stmorph.units import Units

BATCH = 64


class Mapped:
    """Tiles as copies in a mapped array: the reference."""

    def __init__(self, tiles: np.ndarray):
        self.tiles = tiles

    def read(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(self.tiles[index])


def batches(reader, order: np.ndarray, as_float: bool) -> None:
    n = len(order)
    units = Units(
        np.full(n, "s"), np.arange(n).astype(str), np.zeros((n, 2)), ("A",), np.zeros((n, 1), "f4"), tiles=reader
    )
    batcher = Batcher(units, frozenset({"tiles"}))
    for start in range(0, n, BATCH):
        index = order[start : start + BATCH]
        batcher.batch(index) if as_float else reader.read(index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--growth", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    arguments = parser.parse_args()
    size, n = arguments.size, arguments.tiles
    side = int(np.sqrt(n) * size * 0.9)
    one_core()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        image = picture()
        image = np.tile(image, (-(-side // len(image)), -(-side // image.shape[1]), 1))[:side, :side]
        build_store(image, 1.0, 1.0, StainOptions(fit="none"), folder / "image.npy", folder / "image.json")
        del image
        store = open_store(folder / "image.npy")
        x0, y0 = corners(n, side, size)
        tiles = SlideTiles([store], np.zeros(n), x0, y0, size)
        copies = np.lib.format.open_memmap(folder / "tiles.npy", "w+", np.uint8, (n, size, size, 3))
        for start in range(0, n, BATCH):
            part = np.arange(start, min(n, start + BATCH))
            copies[part] = tiles.read(part)
        mapped = Mapped(np.load(folder / "tiles.npy", mmap_mode="r"))
        del copies
        print(f"{processor()}, one core; {n} tiles of {size} px, batches of {BATCH}, store of {side} x {side} px")
        rng = np.random.default_rng(0)
        for kind in ("uint8", "float"):
            seconds = {"mapped": [], "store": []}
            for _ in range(4):
                order = rng.permutation(n)
                for name, reader in (("mapped", mapped), ("store", tiles)):
                    seconds[name].append(measured(partial(batches, reader, order, kind == "float")))
            slow, fast = (np.median(seconds[name][1:]) for name in ("store", "mapped"))
            print(
                f"{kind:6} mapped {n / fast:9.0f} tiles/s, store {n / slow:9.0f} tiles/s: {fast / slow:.0%}, goal 60%"
            )
        if arguments.growth:
            print("growth, uint8:")
        for count in arguments.growth:
            x0, y0 = corners(count, side, size, seed=1)
            reader, order = SlideTiles([store], np.zeros(count), x0, y0, size), rng.permutation(count)
            seconds = measured(partial(batches, reader, order, False))
            print(f"{count:8} tiles {seconds:8.2f} s {count / seconds:9.0f} tiles/s")


if __name__ == "__main__":
    main()
