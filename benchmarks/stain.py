"""Tiles a second of stain normalisation on one core, as a ratio to staintools per tile in the same run.

    PYTHONPATH=src OMP_NUM_THREADS=1 python benchmarks/stain.py [image] [--seconds 5]

Tiles of 224 px are cut from `image` (any H&E picture, read at full resolution); without one, from simulated light.
staintools runs as its users call it: `StainNormalizer.transform` of each tile. Each row is the median of its
rounds; time is the processor's, and rounds of all rows alternate, so that a busy machine matters little.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np

from stmorph.image.stain import PUBLISHED_TARGET, StainTransform, fit_stains, normalize_tiles
from stmorph.image.stain_options import RULES, StainOptions
from stmorph.image.stain_staintools import load_staintools

SIZE = 224


def simulated(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    amounts = rng.gamma(3.0, 0.25, (n, SIZE, SIZE, 2)) * rng.integers(0, 2, (n, SIZE, SIZE, 2))
    return np.clip(240 * np.exp(-amounts @ PUBLISHED_TARGET.matrix) - 1, 0, 255).astype(np.uint8)


def cut(image: np.ndarray, at_most: int = 64) -> np.ndarray:
    tiles = [
        image[y : y + SIZE, x : x + SIZE]
        for y in range(0, image.shape[0] - SIZE + 1, SIZE)
        for x in range(0, image.shape[1] - SIZE + 1, SIZE)
    ]
    stained = [tile for tile in tiles if all(fit_stains(tile, rule) is not None for rule in RULES.values())]
    return np.stack(stained[:: max(1, len(stained) // at_most)][:at_most])


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?")
    parser.add_argument("--seconds", type=float, default=5.0, help="time a row, about")
    arguments = parser.parse_args()
    if arguments.image:
        from stmorph.image.source import open_image

        tiles = cut(open_image(arguments.image).read())
    else:
        tiles = simulated(32)

    normalizer = load_staintools().StainNormalizer("macenko")
    normalizer.stain_matrix_target = PUBLISHED_TARGET.matrix
    normalizer.maxC_target = PUBLISHED_TARGET.strength[None]

    def staintools_per_tile(part):
        return np.stack([normalizer.transform(tile.copy()) for tile in part])

    def per_slide(rule):
        transform = StainTransform(fit_stains(tiles, RULES[rule]), PUBLISHED_TARGET, RULES[rule])
        return lambda part: [transform.apply(tile) for tile in part]

    def per_tile(rule):
        options = StainOptions(fit="tile", rule=rule)
        return lambda part: normalize_tiles(part, PUBLISHED_TARGET, options)

    rows = {
        "staintools, fit per tile": (staintools_per_tile, None),
        "stmorph, rule macenko, fit per slide": (per_slide("macenko"), 100),
        "stmorph, rule staintools, fit per slide": (per_slide("staintools"), None),
        "stmorph, rule macenko, fit per tile": (per_tile("macenko"), 15),
        "stmorph, rule staintools, fit per tile": (per_tile("staintools"), 15),
    }
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    for function, _ in rows.values():
        function(tiles[:2])  # compiles
    end = time.perf_counter() + arguments.seconds * len(rows)
    while time.perf_counter() < end or len(speeds["staintools, fit per tile"]) < 3:
        for name, (function, _) in rows.items():
            part = tiles[:8] if name.startswith("staintools") else tiles
            start = time.process_time()
            function(part)
            speeds[name].append(len(part) / (time.process_time() - start))

    print(f"{processor()}, one core; {len(tiles)} tiles of {SIZE} px from {arguments.image or 'simulated light'}")
    reference = np.median(speeds["staintools, fit per tile"])
    print(f"{'':42}{'tiles/s':>10}{'ratio':>9}{'goal':>7}")
    for name, (_, goal) in rows.items():
        speed = np.median(speeds[name])
        print(f"{name:42}{speed:10.1f}{speed / reference:9.1f}{goal or '':>7}")
    ours, _ = normalize_tiles(tiles[:16], PUBLISHED_TARGET, StainOptions(fit="tile", rule="staintools"))
    gap = int(np.abs(ours.astype(int) - staintools_per_tile(tiles[:16])).max())
    print(f"largest difference from staintools, rule staintools, fit per tile: {gap} grey level(s)")


if __name__ == "__main__":
    main()
