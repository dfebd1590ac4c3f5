"""Time of the Fréchet distance beside clean-fid's, in one run, on the same statistics (n = 5000, d = 2048).

    python benchmarks/frechet.py [--n 5000] [--dim 2048] [--repeats 1]

Prints the hardware, both times (the best of the repeats), their ratio and the relative difference of the values.
Takes some minutes on 2 cores, nearly all of them clean-fid's.
"""

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import scipy
from cleanfid.fid import frechet_distance as clean_fid_distance

from stmorph.scores.frechet import frechet_distance, frechet_of_features


def processor() -> str:
    """Name the CPU, as the system does."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores seen"


def features(n: int, dim: int, seed: int) -> np.ndarray:
    """Correlated, non-negative vectors, as pooled network features are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(dim, dim)) * np.geomspace(1, 1e-2, dim)[:, None] / np.sqrt(dim)
    return np.maximum(rng.normal(size=(n, dim)) @ mixing + 0.02 * seed, 0)


def best_of(repeats: int, function, *arguments) -> tuple[float, float]:
    """Return the shortest time in seconds and the value."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times), value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    x, y = features(options.n, options.dim, 1), features(options.n, options.dim, 2)
    statistics = [part for z in (x, y) for part in (z.mean(axis=0), np.cov(z, rowvar=False))]
    ours, value = best_of(options.repeats, frechet_distance, *statistics)
    whole, _ = best_of(1, frechet_of_features, x, y)
    theirs, expected = best_of(options.repeats, clean_fid_distance, *statistics)
    print(f"hardware            {processor()}")
    print(f"numpy, scipy        {np.__version__}, {scipy.__version__}")
    print(f"threads             OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    print(f"n, dim              {options.n}, {options.dim}")
    print(f"clean-fid           {theirs:.2f} s")
    print(f"stmorph             {ours:.2f} s (with the covariances: {whole:.2f} s)")
    print(f"ratio               {theirs / ours:.1f}")
    print(f"relative difference {abs(value - expected) / abs(expected):.1e} (value {value:.6f})")


if __name__ == "__main__":
    main()
