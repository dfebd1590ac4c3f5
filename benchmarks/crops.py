"""Shuffled training batches cut from a slide store, one core, as a ratio to a mapped array of tiles, fancy-indexed.

    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/crops.py [--tiles 10000] [--image slide.svs] [--folder /tmp]

The mapped array holds each tile as its own copy: the fastest there is, for once to hundreds of times the space. Both
are in the page cache. `uint8`: the tiles alone; `float`: as the training loop's batches have them. Tiles of 224 and 64
px lie anywhere on a slide of their joint size (the hardest case), or overlap 16 times, as pseudo-spots do. Rounds
alternate and batches of both readers do so within a round; time is the processor's, the median of the rounds.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from rows import Row, add_options, give, grown, processor
from slides import corners, one_core, picture, source_name, take_picture

from stmorph.batches import Batcher
from stmorph.image.stain_options import StainOptions
from stmorph.image.store import SlideStore, build_store, open_store
from stmorph.image.tiles import SlideTiles
from stmorph.units import Units


class Mapped:
    """Tiles as copies in a mapped array: the reference."""

    def __init__(self, tiles: np.ndarray):
        self.tiles = tiles

    def read(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(self.tiles[index])


def batches(readers: dict, n: int, batch: int, rounds: int, as_float: bool, rng: np.random.Generator) -> dict:
    """Return the seconds of each reader for all tiles: the median of the rounds, the first not counted."""
    names, nothing = np.arange(n).astype(str), np.zeros((n, 1), np.float32)
    units = {
        name: Batcher(
            Units(np.full(n, "s"), names, np.zeros((n, 2)), ("A",), nothing, tiles=reader), frozenset({"tiles"})
        )
        for name, reader in readers.items()
    }
    read = {name: units[name].batch if as_float else reader.read for name, reader in readers.items()}
    seconds = {name: [] for name in readers}
    for _ in range(rounds + 1):
        order, spent = rng.permutation(n), dict.fromkeys(readers, 0.0)
        for start in range(0, n, 8 * batch):
            for name, call in read.items():
                begun = time.process_time()
                for at in range(start, min(n, start + 8 * batch), batch):
                    call(order[at : at + batch])
                spent[name] += time.process_time() - begun
        for name in readers:
            seconds[name].append(spent[name])
    return {name: float(np.median(values[1:])) for name, values in seconds.items()}


def image_of(side: int) -> np.ndarray:
    image = picture()
    return np.tile(image, (-(-side // len(image)), -(-side // image.shape[1]), 1))[:side, :side]


def store_of(image: np.ndarray, folder: Path) -> SlideStore:
    build_store(image, 1.0, 1.0, StainOptions(fit="none"), folder / "image.npy", folder / "image.json")
    return open_store(folder / "image.npy")


def compare(n: int, size: int, batch: int, overlap: int, folder: Path, kinds: tuple[str, ...]) -> list[Row]:
    side = max(size, int(np.sqrt(n / overlap) * size * 0.95))
    image, (x0, y0) = image_of(side), corners(n, side, size)
    store = store_of(image, folder)
    tiles = SlideTiles([store], np.zeros(n), x0, y0, size)
    copies = np.lib.format.open_memmap(folder / "tiles.npy", "w+", np.uint8, (n, size, size, 3))
    for start in range(0, n, 64):
        part = np.arange(start, min(n, start + 64))
        copies[part] = [image[y : y + size, x : x + size] for x, y in zip(x0[part], y0[part])]
    mapped = Mapped(np.load(folder / "tiles.npy", mmap_mode="r"))
    del copies
    assert all((tiles.read(np.array([i])) == mapped.read(np.array([i]))).all() for i in (0, n // 2, n - 1))
    rows = []
    for kind in kinds:
        rng = np.random.default_rng(0)
        seconds = batches({"mapped": mapped, "store": tiles}, n, batch, 5, kind == "float", rng)
        label = f"crops, {size} px, {f'{overlap} times overlapping, ' if overlap > 1 else ''}{kind}, batches of {batch}"
        rates = f"{n / seconds['store']:,.0f} of {n / seconds['mapped']:,.0f} tiles/s"
        rows.append(
            Row(label, "mapped array, fancy-indexed", 100 * seconds["mapped"] / seconds["store"], 60, "%", rates)
        )
        print(" | ".join(rows[-1].cells()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000, help="of 224 px; three times as many of 64 px")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--growth", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    add_options(parser)
    arguments = parser.parse_args()
    n, rows = arguments.tiles, []
    take_picture(arguments.image)
    one_core()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        print(f"{processor()}, one core; {n:,} tiles of 224 px, {3 * n:,} of 64 px; {source_name()}")
        rows += compare(n, 224, 64, 1, folder, ("uint8", "float"))
        rows += compare(3 * n, 64, 64, 1, folder, ("uint8",))
        rows += compare(3 * n, 64, 256, 1, folder, ("uint8",))
        rows += compare(3 * n, 64, 256, 16, folder, ("uint8",))
        rng, store, times = np.random.default_rng(1), open_store(folder / "image.npy"), {}
        for count in arguments.growth:
            x0, y0 = corners(count, store.shape[0], 64, seed=1)
            reader = {"store": SlideTiles([store], np.zeros(count), x0, y0, 64)}
            times[count] = batches(reader, count, 64, 3, False, rng)["store"] / count
            print(f"{count:8} tiles {1 / times[count]:9.0f} tiles/s")
        rows += grown("crops, 64 px, uint8", times)
    give(rows, arguments.rows)


if __name__ == "__main__":
    main()
