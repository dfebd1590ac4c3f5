"""Tiles from a pyramid in barcode order on one core, as a ratio to OpenSlide's `read_region` per tile in the same run.

    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/tiles.py [--tiles 10000] [--side 20000] [--folder /tmp]

The slide is simulated, stored as JPEG and as LZW. OpenSlide reads a random part of the tiles (`--reference`), in three
rounds between ours. "Decode alone" decodes each of the file's tiles that is needed once, and does nothing with it:
the limit. Time is the processor's. Memory is what is added at the peak, mapped files not counted; tiles go into a
mapped file, or, with `iterate_tiles`, to whoever asks for the next one (growth is measured so).
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import openslide
from slides import FILE_TILE_PX, Memory, corners, measured, one_core, picture, processor, write_pyramid

from stmorph.image.source import open_image
from stmorph.image.tile_reader import iterate_tiles, read_tiles

SIZE = 224
GOALS = {"jpeg": 7.0, "lzw": 3.5}


def decode_alone(source, x0, y0):
    needed = {
        (row, column)
        for x, y in zip(x0.tolist(), y0.tolist())
        for row in range(y // FILE_TILE_PX, (y + SIZE - 1) // FILE_TILE_PX + 1)
        for column in range(x // FILE_TILE_PX, (x + SIZE - 1) // FILE_TILE_PX + 1)
    }
    with source.opened() as level:
        for row, column in sorted(needed):
            level.piece(row, column)


def by_openslide(path, x0, y0):
    with openslide.OpenSlide(path) as slide:
        return [
            np.asarray(slide.read_region((x, y), 0, (SIZE, SIZE)).convert("RGB"))
            for x, y in zip(x0.tolist(), y0.tolist())
        ]


def compare(path, kind, tiles, side, reference, folder):
    source = open_image(path)
    x0, y0 = corners(tiles, side, SIZE)
    out = np.memmap(folder / "out.u8", np.uint8, "w+", shape=(tiles, SIZE, SIZE, 3))
    read_tiles(source, x0[:10], y0[:10], SIZE)
    ours, limit, theirs, mib = [], [], [], []
    for turn in range(3):
        part = slice(turn * reference, (turn + 1) * reference)
        theirs.append(measured(lambda part=part: by_openslide(path, x0[part], y0[part])) / len(x0[part]))
        limit.append(measured(lambda: decode_alone(source, x0, y0)) / tiles)
        with Memory() as memory:
            ours.append(measured(lambda: read_tiles(source, x0, y0, SIZE, out)) / tiles)
        mib.append(memory.mib)
    gap = np.abs(np.stack(by_openslide(path, x0[:50], y0[:50])).astype(int) - out[:50]).max()
    ours, limit, theirs = np.median(ours), np.median(limit), np.median(theirs)
    print(
        f"{kind:5} {1 / theirs:10.0f} {1 / ours:10.0f} {1 / limit:10.0f} {theirs / ours:8.1f} {GOALS[kind]:6} "
        f"{limit / ours:9.0%} {'70%':>6} {max(mib):8.0f} {150:6} {gap:5}"
    )
    (folder / "out.u8").unlink()
    return source


def growth(source, side, counts):
    for n in counts:
        x0, y0 = corners(n, side, SIZE)
        with Memory() as memory:
            seconds = measured(lambda x0=x0, y0=y0: sum(1 for _ in iterate_tiles(source, x0, y0, SIZE)))
        print(f"{n:8} tiles {seconds:8.1f} s {n / seconds:9.0f} tiles/s {memory.mib:7.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=20_000, help="of the slide, px")
    parser.add_argument("--reference", type=int, default=400, help="tiles a round for OpenSlide")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--growth", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    arguments = parser.parse_args()
    picture()  # drawing it takes memory that is not the reader's
    one_core()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        print(
            f"{processor()}, one core; {arguments.tiles} tiles of {SIZE} px from {arguments.side} x {arguments.side} px"
        )
        print(
            f"{'':5} {'openslide':>10} {'ours':>10} {'decode':>10} {'ratio':>8} {'goal':>6} {'of decode':>9} "
            f"{'goal':>6} {'MiB':>8} {'goal':>6} {'gap':>5}"
        )
        for kind in GOALS:
            path = folder / f"{kind}.tif"
            write_pyramid(path, arguments.side, kind)
            source = compare(path, kind, arguments.tiles, arguments.side, arguments.reference, folder)
            if kind == "jpeg" and arguments.growth:
                jpeg = source
            else:
                path.unlink()
        if arguments.growth:
            print("growth, JPEG, tiles not kept:")
            growth(jpeg, arguments.side, arguments.growth)


if __name__ == "__main__":
    main()
