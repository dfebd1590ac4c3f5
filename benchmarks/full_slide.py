"""A full Visium HD slide from the vendor's files to units: seconds and peak memory of every stage, on one core.

    PYTHONPATH=src OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/full_slide.py [--folder here] [--bins 3350]

Writes bins of 2 um in Space Ranger's layout (a round section on an array of 3,350 x 3,350, 18,000 genes, about 15
molecules a bin, shares of the genes falling as a power), and runs each stage in a process of its own, as the workflow
does: `slide` (reads the bins, sums some 300,000 pseudo-spots of 27 x 27 bins every 5, writes slide.h5ad), `tiles`,
`split`, `panel` (200 genes by high mean and variance among the most variable ones), `units` (what a training job
loads) and `quality`. The limit is 12 GiB and 30 minutes for all. `--folder` keeps the files (some 4 GiB), and a second
run makes only those that are missing; `--steps` names some stages. With `--bins 600` it takes a minute.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE, STRIDE, PANEL, FOV_UM = 27, 5, 200, 54.0
UM_PER_PX = 1.0
STEPS = ("slide", "tiles", "split", "panel", "units", "quality")
LIMIT_GIB, LIMIT_MINUTES = 12, 30


class Files:
    """Where everything of the slide lies."""

    def __init__(self, folder: Path):
        outs = folder / "binned_outputs" / "square_002um"
        self.outs, self.folder = outs, folder
        self.counts = outs / "filtered_feature_bc_matrix.h5"
        self.positions = outs / "spatial" / "tissue_positions.parquet"
        self.scalefactors = outs / "spatial" / "scalefactors_json.json"
        self.image, self.slide = folder / "image.btf", folder / "slide.h5ad"
        self.store, self.record = folder / "image.npy", folder / "image.json"
        self.tiles, self.split, self.panel = (folder / name for name in ("tiles.parquet", "split.parquet", "panel.txt"))
        self.page = folder / "quality.json"


def names(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return 10x's barcodes of 2 um bins, S21 [n]."""
    letters = np.tile(np.frombuffer(b"s_002um_00000_00000-1", np.uint8), (len(rows), 1))
    for values, first in ((rows, 8), (cols, 14)):
        for place in range(5):
            letters[:, first + 4 - place] += (values // 10**place % 10).astype(np.uint8)
    return letters.view("S21").ravel()


def write_bins(files: Files, bins: int, genes: int, molecules: float) -> None:
    """Write the outs: a disc of tissue on the array, its bins in an order of their own."""
    import h5py
    import pyarrow as pa
    import pyarrow.parquet
    import tifffile

    rng = np.random.default_rng(0)
    files.positions.parent.mkdir(parents=True, exist_ok=True)
    row, col = np.divmod(np.arange(bins * bins), bins)
    radius = 0.472 * bins
    tissue = np.hypot(row - bins / 2, col - bins / 2) < radius
    barcode = names(row, col)
    ends = np.arange(0, 21 * len(barcode) + 1, 21, dtype=np.int32)
    step_px = 2 / UM_PER_PX
    table = {
        "barcode": pa.StringArray.from_buffers(len(barcode), pa.py_buffer(ends), pa.py_buffer(barcode)),
        "in_tissue": tissue.astype(np.int64),
        "array_row": row,
        "array_col": col,
        "pxl_row_in_fullres": (row + 0.5) * step_px,
        "pxl_col_in_fullres": (col + 0.5) * step_px,
    }
    pa.parquet.write_table(pa.table(table), files.positions)
    factors = {"bin_size_um": 2.0, "microns_per_pixel": UM_PER_PX, "spot_diameter_fullres": step_px}
    files.scalefactors.write_text(json.dumps(factors))
    order = rng.permutation(np.flatnonzero(tissue))
    barcode = barcode[order]
    del row, col, tissue, ends, table
    share = np.cumsum((np.arange(genes) + 30.0) ** -1.1)
    share, gene_of = (share / share[-1]).astype(np.float32), rng.permutation(genes).astype(np.int32)
    with h5py.File(files.counts, "w") as file:
        group = file.create_group("matrix")
        packed = {"maxshape": (None,), "chunks": (80_000,), "compression": "gzip", "compression_opts": 1}
        data = group.create_dataset("data", (0,), np.int32, **packed)
        indices = group.create_dataset("indices", (0,), np.int64, **packed)
        lengths = []
        for first in range(0, len(order), 200_000):
            n = min(200_000, len(order) - first)
            bin_ = np.repeat(np.arange(n), rng.poisson(molecules, n))
            gene = gene_of[np.minimum(np.searchsorted(share, rng.random(len(bin_), dtype=np.float32)), genes - 1)]
            key, count = np.unique(bin_ * genes + gene, return_counts=True)
            lengths.append(np.bincount(key // genes, minlength=n))
            for dataset, values in ((data, count), (indices, key % genes)):
                dataset.resize((len(dataset) + len(values),))
                dataset[-len(values) :] = values
        group["indptr"] = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        group["shape"] = np.array([genes, len(order)], dtype=np.int32)
        group.create_dataset("barcodes", data=barcode, compression="gzip", compression_opts=1)
        symbol = [f"GENE{i}" for i in range(genes)]
        columns = {"id": symbol, "name": symbol, "feature_type": ["Gene Expression"] * genes, "genome": ["toy"] * genes}
        for name, values in columns.items():
            group[f"features/{name}"] = np.array(values, dtype="S")
        print(f"bins                {bins} x {bins}, {len(order)} in tissue, {len(data)} entries, {genes} genes")
    across = int(bins * step_px)
    pixels = rng.integers(225, 245, (across, across, 3), dtype=np.uint8)
    y, x = np.ogrid[:across, :across]
    pixels[np.hypot(y - across / 2, x - across / 2) < radius * step_px] -= 90
    tifffile.imwrite(files.image, pixels, bigtiff=True, photometric="rgb", tile=(256, 256))


def slide(files: Files) -> str:
    from stmorph.read import READERS, SlideInfo, read_slide, write_slide

    given = {role: getattr(files, role) for role in ("counts", "positions", "scalefactors", "image")}
    about = {"dataset": "full", "slide": "A", "patient": "P", "platform": "Visium HD", "organ": "-"}
    options = READERS["visium_hd"].Options(bin_um=2, pool={"bins": SIDE, "stride": STRIDE})
    found = read_slide("visium_hd", given, SlideInfo(**about, species="simulated"), options, lazy=True)
    write_slide(found, files.slide)
    return f"{found.n_obs} pseudo-spots, {found.n_vars} genes, {files.slide.stat().st_size / 2**30:.2f} GiB on disk"


def tiles(files: Files) -> str:
    from stmorph.image.source import open_image
    from stmorph.image.store import build_store, open_store
    from stmorph.image.tiles import TilingOptions, tile_table
    from stmorph.slide_file import open_slide

    options = TilingOptions(fov_um=FOV_UM, size_px=27, stain={"fit": "none"})
    found = open_slide(files.slide)
    build_store(open_image(files.image), UM_PER_PX, options.um_per_px, options.stain, files.store, files.record)
    inside = found.obs["in_tissue"].to_numpy(dtype=bool)
    table = tile_table("A", found.obs_names, found.spatial_um, inside, open_store(files.store), options)
    table.to_parquet(files.tiles, index=False)
    return f"{int(table['kept'].sum())} of {len(table)} tiles kept"


def split(files: Files) -> str:
    from stmorph.config.schema import SplitConfig
    from stmorph.splits import kept_units, split_units

    config = SplitConfig(dataset="full", kind="blocks", test_fraction=0.2, block_um=500.0, buffer_um=60.0)
    found = split_units(kept_units([files.slide], [files.tiles]), config.model_dump(), "full")
    found.to_parquet(files.split, index=False)
    return str(found["role"].value_counts().to_dict())


def panel(files: Files) -> str:
    from stmorph.config.schema import PanelConfig
    from stmorph.panels import choose_panel, split_genes, training_slides, write_panel

    options = PanelConfig(kind="hmhvg", genes=PANEL).model_dump()
    tested = split_genes([files.slide], files.split)
    found = choose_panel(training_slides([files.slide], files.split), options, "full", tested)
    write_panel(found, files.panel)
    return str(found.record)


def units(files: Files) -> str:
    from stmorph.load_units import load_units, slide_files

    given = slide_files([str(files.slide)], [str(files.tiles)], [str(files.store)])
    found = load_units(given, files.split, files.panel, ["train"], "log1p_cp10k")
    return f"{found.expression.shape[0]} units x {found.expression.shape[1]} genes, mean {found.expression.mean():.4f}"


def quality(files: Files) -> str:
    from stmorph.quality.measure import measure

    found = measure(files.slide, files.image, {"full": (files.tiles, files.record)})
    files.page.write_text(json.dumps(found.record, indent=1))
    return f"{found.record['counts_total']} molecules, {found.record['genes_detected']} genes detected"


def measured(step: str, files: Files) -> None:
    """Run one stage in this process and say what it took."""
    start, cpu = time.perf_counter(), time.process_time()
    said = globals()[step](files)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"step": step, "seconds": seconds, "cpu": cpu, "gib": peak, "said": said}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keeps the files; without it they are removed")
    parser.add_argument("--bins", type=int, default=3350, help="bins a side")
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--molecules", type=float, default=15.0, help="of a bin, on average")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--here", choices=("bins", *STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here == "bins":
        return write_bins(Files(options.folder), options.bins, options.genes, options.molecules)
    if options.here:
        return measured(options.here, Files(options.folder))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        sizes = [f"--{key}={getattr(options, key)}" for key in ("bins", "genes", "molecules")]
        call = [sys.executable, __file__, f"--folder={folder}", *sizes]
        if not Files(folder).image.exists():
            subprocess.run([*call, "--here=bins"], check=True)
        seconds = cpu = peak = 0.0
        for step in options.steps:
            done = subprocess.run([*call, f"--here={step}"], check=True, stdout=subprocess.PIPE, text=True)
            told = json.loads(done.stdout.splitlines()[-1])
            seconds, cpu, peak = seconds + told["seconds"], cpu + told["cpu"], max(peak, told["gib"])
            figures = f"{told['seconds']:7.1f} s (processor {told['cpu']:7.1f} s)  {told['gib']:5.2f} GiB"
            print(f"{step:9} {figures}  {told['said']}", flush=True)
        print(
            f"together  {seconds / 60:.1f} min (limit {LIMIT_MINUTES}), processor {cpu / 60:.1f} min, "
            f"peak {peak:.2f} GiB (limit {LIMIT_GIB})"
        )


if __name__ == "__main__":
    main()
