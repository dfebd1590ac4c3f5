"""What the benchmarks of the data stages share: a slide of any size, the machine's name, times and memory."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile

from stmorph.image.source import ImageSource, open_image
from stmorph.simulate.options import SimulationOptions
from stmorph.simulate.render import draw_stain, render
from stmorph.simulate.tissue import draw_section

FILE_TILE_PX = 256
COMPRESSION = {"jpeg": {"compression": "jpeg", "compressionargs": {"level": 80}}, "lzw": {"compression": "lzw"}}


@lru_cache(maxsize=1)
def picture(side_px: int = 2048) -> np.ndarray:
    """Return the middle of the image given by `take_picture`, else of a simulated section at 0.5 um per px."""
    if _IMAGE:
        return _whole_tiles(_middle(open_image(_IMAGE[0]), side_px))
    options = SimulationOptions(spots=250, um_per_px=0.5)
    section = draw_section(options, "bench", "P", 0)
    image = render(section, draw_stain(options, "bench", "P", 0))
    top, left = (max(0, (size - side_px) // 2) for size in image.shape[:2])
    return _whole_tiles(image[top : top + side_px, left : left + side_px])


def take_picture(image: Path | None) -> None:
    """Let `picture` be cut from an image, if one is given; drawn or read now, for that takes memory."""
    _IMAGE[:] = [image] if image else []
    picture()


def source_name() -> str:
    return str(_IMAGE[0]) if _IMAGE else "simulated tissue"


_IMAGE: list[Path] = []


def _middle(image: ImageSource, side_px: int) -> np.ndarray:
    width, height = image.levels[0]
    left, top = (max(0, (size - side_px) // 2) for size in (width, height))
    return image.region(left, top, min(side_px, width), min(side_px, height))


def _whole_tiles(image: np.ndarray) -> np.ndarray:
    height, width = (size // FILE_TILE_PX * FILE_TILE_PX for size in image.shape[:2])
    if not (height and width):
        raise SystemExit(f"{source_name()} has {image.shape[1]} x {image.shape[0]} px; give 256 x 256 px or more")
    return np.ascontiguousarray(image[:height, :width])


def write_pyramid(path: Path, side_px: int, compression: str) -> None:
    """Write a BigTIFF of three levels whose full one is `picture` side by side; file tiles are encoded once each."""
    image = picture()

    def tiles(level: int) -> Iterator[np.ndarray]:
        small, side = image[:: 2**level, :: 2**level], -(-side_px // 2**level)
        high, wide = small.shape[:2]
        for y in range(0, side, FILE_TILE_PX):
            for x in range(0, side, FILE_TILE_PX):
                yield small[y % high : y % high + FILE_TILE_PX, x % wide : x % wide + FILE_TILE_PX]

    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for level in range(3):
            side = -(-side_px // 2**level)
            tif.write(
                tiles(level),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(FILE_TILE_PX, FILE_TILE_PX),
                photometric="rgb",
                subfiletype=int(level > 0),
                resolution=(20_000 / 2**level,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
                **COMPRESSION[compression],
            )


def corners(n: int, side_px: int, size_px: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return top-left corners of `n` tiles all over a slide, in the order of their barcodes, which is random."""
    return tuple(np.random.default_rng(seed).integers(0, side_px - size_px + 1, (2, n)))


def measured(call: Callable[[], object]) -> float:
    """Return the processor's seconds of a call, the system's included: a busy machine matters little to them."""
    start = time.process_time()
    call()
    return time.process_time() - start


class Memory:
    """The most memory that is no mapped file, in MiB, above what the process held when `one_core` was called."""

    def __enter__(self) -> "Memory":
        self.mib, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.mib = max(self.mib, (_anonymous() - _START[0]) / 2**20)


_START = [0]


def _anonymous() -> int:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def one_core() -> None:
    """Keep this process on one core, and take its memory now as the zero of `Memory`."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _START[0] = _anonymous()
