"""Tiles a second of stain normalisation on one core, as a ratio to staintools per tile in the same run.

    PYTHONPATH=src OMP_NUM_THREADS=1 python benchmarks/stain.py [--image slide.svs] [--seconds 5]

Tiles of 224 px are cut from the middle of `--image` (any H&E picture or slide); without one, from simulated tissue.
staintools runs as its users call it: `StainNormalizer.transform` of each tile. Each row is the median of its
rounds; time is the processor's, and rounds of all rows alternate, so that a busy machine matters little.
"""

import argparse
import time

import numpy as np
from rows import Row, add_options, give, processor
from slides import one_core, picture, source_name, take_picture

from stmorph.image.stain import PUBLISHED_TARGET, StainTransform, fit_stains, normalize_tiles
from stmorph.image.stain_options import RULES, StainOptions
from stmorph.image.stain_staintools import load_staintools

SIZE = 224


def cut(image: np.ndarray, at_most: int = 64) -> np.ndarray:
    tiles = [
        image[y : y + SIZE, x : x + SIZE]
        for y in range(0, image.shape[0] - SIZE + 1, SIZE)
        for x in range(0, image.shape[1] - SIZE + 1, SIZE)
    ]
    stained = [tile for tile in tiles if all(fit_stains(tile, rule) is not None for rule in RULES.values())]
    return np.stack(stained[:: max(1, len(stained) // at_most)][:at_most])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="time a row, about")
    add_options(parser)
    arguments = parser.parse_args()
    take_picture(arguments.image)
    one_core()
    tiles = cut(picture())

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

    functions = {
        "staintools, fit per tile": staintools_per_tile,
        "stmorph, rule macenko, fit per slide": per_slide("macenko"),
        "stmorph, rule staintools, fit per slide": per_slide("staintools"),
        "stmorph, rule macenko, fit per tile": per_tile("macenko"),
        "stmorph, rule staintools, fit per tile": per_tile("staintools"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function(tiles[:2])  # compiles
    end = time.perf_counter() + arguments.seconds * len(functions)
    while time.perf_counter() < end or len(speeds["staintools, fit per tile"]) < 3:
        for name, function in functions.items():
            part = tiles[:8] if name.startswith("staintools") else tiles
            start = time.process_time()
            function(part)
            speeds[name].append(len(part) / (time.process_time() - start))

    print(f"{processor()}, one core; {len(tiles)} tiles of {SIZE} px; {source_name()}")
    speed = {name: np.median(values) for name, values in speeds.items()}
    reference = speed.pop("staintools, fit per tile")
    rows = []
    for rule in RULES:
        ours, _ = normalize_tiles(tiles[:16], PUBLISHED_TARGET, StainOptions(fit="tile", rule=rule))
        gap = int(np.abs(ours.astype(int) - staintools_per_tile(tiles[:16])).max())
        for fit, goal in (("slide", 100), ("tile", 15)):
            name = f"stmorph, rule {rule}, fit per {fit}"
            note = f"{speed[name]:,.0f} of {reference:.1f} tiles/s"
            if (rule, fit) == ("staintools", "tile"):
                note += f"; {gap} grey level(s) from staintools"
            work = f"stain of 224 px tiles, fit per {fit}, rule {rule}"
            rows.append(Row(work, "staintools, a tile at a time", speed[name] / reference, goal, "x", note))
            print(" | ".join(rows[-1].cells()))
    give(rows, arguments.rows)


if __name__ == "__main__":
    main()
