"""Tiles from a pyramid in barcode order on one core, as a ratio to OpenSlide's `read_region` per tile in the same run.

    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/tiles.py [--tiles 10000] [--side 20000] [--image slide.svs]

The slide is the middle of `--image`, or simulated tissue, repeated to `--side`, stored as JPEG and as LZW; `--slide`
takes a file as it is instead. OpenSlide reads a random part of the tiles (`--reference`), in five
rounds between ours, of which the median counts. "Decode alone" decodes each of the file's tiles that is needed once,
and does nothing with it: the limit. It is measured before and after each round of ours, because a processor's speed
changes. Time is the processor's. Memory is what is added at the peak, mapped files not counted; tiles go into a mapped
file, or, with `iterate_tiles`, to whoever asks for the next one (growth is measured so).
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import openslide
from rows import Row, add_options, give, grown, processor
from slides import (
    Memory,
    corners,
    measured,
    one_core,
    source_name,
    take_picture,
    write_pyramid,
)

from stmorph.image.source import open_image
from stmorph.image.tile_reader import iterate_tiles, read_tiles

SIZE = 224
ROUNDS = 5
GOALS = {"jpeg": 7.0, "lzw": 3.5}


def decode_alone(source, x0, y0):
    with source.opened() as level:
        high, wide = level.piece_height_px, level.piece_width_px
    needed = {
        (row, column)
        for x, y in zip(x0.tolist(), y0.tolist())
        for row in range(y // high, (y + SIZE - 1) // high + 1)
        for column in range(x // wide, (x + SIZE - 1) // wide + 1)
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


def places(source, tiles):
    """Return corners anywhere on a slide that need not be square."""
    width, height = source.levels[0]
    return corners(tiles, width, SIZE)[0], corners(tiles, height, SIZE)[1]


def compare(path, kind, tiles, reference, folder):
    source = open_image(path)
    x0, y0 = places(source, tiles)
    out = np.memmap(folder / "out.u8", np.uint8, "w+", shape=(tiles, SIZE, SIZE, 3))
    read_tiles(source, x0[:10], y0[:10], SIZE)
    ours, theirs, mib = [], [], []
    limit = [measured(lambda: decode_alone(source, x0, y0)) / tiles]
    for turn in range(ROUNDS):
        part = slice(turn * reference % tiles, turn * reference % tiles + reference)
        theirs.append(measured(lambda part=part: by_openslide(path, x0[part], y0[part])) / len(x0[part]))
        with Memory() as memory:
            ours.append(measured(lambda: read_tiles(source, x0, y0, SIZE, out)) / tiles)
        limit.append(measured(lambda: decode_alone(source, x0, y0)) / tiles)
        mib.append(memory.mib)
    share = np.median((np.array(limit[:-1]) + limit[1:]) / 2 / ours)
    gap = np.abs(np.stack(by_openslide(path, x0[:50], y0[:50])).astype(int) - out[:50]).max()
    ours, limit, theirs = np.median(ours), np.median(limit), np.median(theirs)
    (folder / "out.u8").unlink()
    rates = f"{1 / ours:,.0f} tiles/s; decode alone {1 / limit:,.0f}; OpenSlide {1 / theirs:,.0f}"
    work = f"{tiles:,} tiles of a {source.levels[0][0]:,} x {source.levels[0][1]:,} px {kind.upper()}, barcode order"
    rows = [
        Row(work, "OpenSlide, a tile at a time", theirs / ours, GOALS.get(kind, 3.5), "x", rates),
        Row(work, "decode alone", 100 * share, 70, "%", f"largest difference {gap} grey levels"),
        Row(work, "memory added", max(mib), 150, "MiB"),
    ]
    print(*(" | ".join(row.cells()) for row in rows), sep="\n", flush=True)
    return source, rows


def growth(source, counts):
    seconds = {}
    for n in counts:
        x0, y0 = places(source, n)
        with Memory() as memory:
            seconds[n] = measured(lambda x0=x0, y0=y0: sum(1 for _ in iterate_tiles(source, x0, y0, SIZE))) / n
        print(f"{n:8} tiles {n * seconds[n]:8.1f} s {1 / seconds[n]:9.0f} tiles/s {memory.mib:7.0f} MiB", flush=True)
    return grown("tiles of a JPEG pyramid, not kept", seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=20_000, help="of the slide, px")
    parser.add_argument("--reference", type=int, default=400, help="tiles a round for OpenSlide")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--growth", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--slide", type=Path, help="a TIFF or SVS to read as it is")
    add_options(parser)
    arguments = parser.parse_args()
    take_picture(arguments.image)  # drawing it takes memory that is not the reader's
    one_core()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        print(f"{processor()}, one core; {arguments.tiles:,} tiles of {SIZE} px; {arguments.slide or source_name()}")
        for kind in [] if arguments.slide else GOALS:
            path = folder / f"{kind}.tif"
            write_pyramid(path, arguments.side, kind)
            source, found = compare(path, kind, arguments.tiles, arguments.reference, folder)
            rows += found + (growth(source, arguments.growth) if kind == "jpeg" else [])
            path.unlink()
        if arguments.slide:
            compression = {5: "lzw", 7: "jpeg"}.get(open_image(arguments.slide).compression, "other")
            source, found = compare(arguments.slide, compression, arguments.tiles, arguments.reference, folder)
            rows += found + growth(source, arguments.growth)
    give(rows, arguments.rows)


if __name__ == "__main__":
    main()
