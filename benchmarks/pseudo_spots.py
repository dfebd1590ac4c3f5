"""Pseudo-spots of Visium HD (27 x 27 bins every 5), as a ratio to the plain way in the same run.

    PYTHONPATH=src OMP_NUM_THREADS=1 python benchmarks/pseudo_spots.py [--grow]

The plain way is the sum of all genes per window: `counts[bins of the window].sum(axis=0)` on SciPy's CSR, the windows'
bins known beforehand; it is timed on a sample of the windows and scaled to all. Ours is timed whole, from the file's
order of bins to the sums. Time is the processor's, the best of the rounds, so that a busy machine matters little.
Bins hold some 15 molecules of genes whose shares fall as a power, in shuffled order.

`--grow` shows the time and memory at growing sections and what they make of a full slide (3,350 x 3,350 bins, 300,000
windows). `full_slide.py` takes a full slide from its files to units.
"""

import argparse
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np
import scipy
import scipy.sparse

from stmorph.pooling import PooledCounts, lay_windows

SIDE, STRIDE, PANEL = 27, 5, 200
FULL_WINDOWS, FULL_BINS = 300_000, 7_500_000
"""Of a full slide: windows in tissue, and the bins in tissue that they cover (5 x 5 new ones a window)."""


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores seen"


def section(side: int, genes: int, molecules: float, seed: int = 0) -> tuple:
    """Return counts of side x side bins in no order, their rows, columns and tissue flags."""
    rng = np.random.default_rng(seed)
    number = rng.poisson(molecules, side * side)
    indptr = np.concatenate([[0], np.cumsum(number)])
    share = np.cumsum((np.arange(genes) + 30.0) ** -1.1)
    gene = np.searchsorted(share / share[-1], rng.random(indptr[-1], dtype=np.float32)).astype(np.int32)
    gene = rng.permutation(genes).astype(np.int32)[np.minimum(gene, genes - 1)]
    counts = scipy.sparse.csr_matrix((np.ones(indptr[-1], np.int32), gene, indptr), shape=(side * side, genes))
    counts.sum_duplicates()
    order = rng.permutation(side * side)
    rows, cols = np.divmod(order, side)
    return counts, rows, cols, np.ones(side * side, dtype=bool)


def plain(counts, rows, cols, windows, sample: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Return seconds for all windows by the plain way, which windows were summed, and their sums."""
    slot = np.empty((rows.max() + 1, cols.max() + 1), dtype=np.int64)
    slot[rows, cols] = np.arange(len(rows))
    index = np.linspace(0, len(windows) - 1, min(sample, len(windows))).astype(np.int64)
    places = [
        slot[t : t + SIDE, c : c + SIDE].ravel() for t, c in zip(windows.top[index], windows.left[index], strict=True)
    ]
    start = time.process_time()
    sums = [counts[place].sum(axis=0) for place in places]
    seconds = (time.process_time() - start) / len(index) * len(windows)
    return seconds, index, np.asarray(np.vstack(sums))


def ours(given: tuple, windows, genes) -> tuple[float, scipy.sparse.csr_matrix, np.ndarray]:
    start = time.process_time()
    matrix, library = PooledCounts(*given, windows, genes).all()
    return time.process_time() - start, matrix, library


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare(options: argparse.Namespace) -> None:
    given = section(options.side, options.genes, options.molecules)
    windows = lay_windows(*given[1:], SIDE, STRIDE, SIDE**2)
    panel = np.sort(np.random.default_rng(1).choice(options.genes, PANEL, replace=False))
    print(f"section             {options.side} x {options.side} bins, {options.genes} genes, {given[0].nnz} entries")
    print(f"pseudo-spots        {len(windows)}, {SIDE} x {SIDE} bins every {STRIDE}")
    times = {"plain": [], "every gene": [], "panel": []}
    for _ in range(options.repeats):
        seconds, index, expected = plain(*given[:3], windows, options.sample)
        times["plain"].append(seconds)
        seconds, matrix, library = ours(given, windows, None)
        times["every gene"].append(seconds)
        seconds, some, total = ours(given, windows, panel)
        times["panel"].append(seconds)
        assert (matrix[index].toarray() == expected).all() and (library[index] == expected.sum(axis=1)).all()
        assert (some[index].toarray() == expected[:, panel]).all() and (total == library).all()
    tiles = lay_windows(*given[1:], SIDE, SIDE, SIDE**2)
    tiled = PooledCounts(*given, tiles).all()[0].sum()
    covered = given[0][tiles.cover(*given[1:3])].sum()
    best = {name: min(values) for name, values in times.items()}
    print(f"plain               {best['plain']:.3f} s ({best['plain'] / len(windows) * 1e6:.0f} us a pseudo-spot)")
    for name, goal in (("panel", 15), ("every gene", 2)):
        label = f"{PANEL} genes + library" if name == "panel" else name
        rate, ratio = best[name] / len(windows) * 1e6, best["plain"] / best[name]
        print(f"{label:19} {best[name]:.3f} s ({rate:.0f} us), {ratio:.1f} times the plain way (goal {goal})")
    print(
        f"equal               {len(index)} windows x {options.genes} genes; side by side {tiled} = {covered} molecules"
    )


def grow(options: argparse.Namespace) -> None:
    print("bins a side   windows   entries of X   every gene   panel      us a window")
    for side in (200, 400, 800):
        given = section(side, options.genes, options.molecules)
        windows = lay_windows(*given[1:], SIDE, STRIDE, SIDE**2)
        panel = np.sort(np.random.default_rng(1).choice(options.genes, PANEL, replace=False))
        some, *_ = ours(given, windows, panel)
        every, matrix, _ = ours(given, windows, None)
        per = every / len(windows) * 1e6
        each = f"{per:9.1f}, {some / len(windows) * 1e6:.1f}"
        print(f"{side:11} {len(windows):9} {matrix.nnz:14} {every:10.2f} s {some:8.3f} s {each}")
    gib = matrix.nnz / len(windows) * FULL_WINDOWS * 8 / 2**30
    bins_gib = given[0].nnz / side**2 * FULL_BINS * 8 / 2**30
    print(
        f"a full slide        {FULL_WINDOWS} windows: every gene {per * FULL_WINDOWS / 1e6:.0f} s and {gib:.1f} GiB, "
        f"beside {2 * bins_gib:.1f} GiB of bins (as read, and in the array's order); "
        f"panel {some / len(windows) * FULL_WINDOWS:.1f} s; peak of this run {peak_gib():.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=400, help="bins a side")
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--molecules", type=float, default=15.0, help="of a bin, on average")
    parser.add_argument("--sample", type=int, default=1000, help="windows summed the plain way")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--grow", action="store_true")
    options = parser.parse_args()
    print(f"hardware            {processor()}")
    print(f"numpy, scipy        {np.__version__}, {scipy.__version__}")
    print(f"threads             OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    warm = section(60, 50, 5.0)
    ours(warm, lay_windows(*warm[1:], 9, 3, 81), [3, 4])  # compiled, not counted
    (grow if options.grow else compare)(options)


if __name__ == "__main__":
    main()
