"""Did HEST-1k keep the molecules of a Visium HD sample? Compares its .h5ad with Space Ranger's own bins, gene by gene.

PYTHONPATH=src .venv/bin/python benchmarks/hest_totals.py "st/<id>.h5ad" binned_outputs/square_016um
The second is the folder of one bin size (`filtered_feature_bc_matrix.h5` and `spatial/tissue_positions.parquet` in it).
Pooling bins without loss keeps their totals, whatever the size; HEST's pooling added to repeated indices at once, which
keeps one bin of those that fall into a pseudo-spot. Exits with 1 where HEST has fewer molecules.
"""

import argparse
import sys
from pathlib import Path

from stmorph.errors import StmorphError
from stmorph.read import READERS, SlideInfo
from stmorph.read.hest_totals import compare_totals


def bins_of(folder: Path):
    """Return the bins in tissue of a folder of `binned_outputs`; the image is not needed."""
    files = {
        "counts": folder / "filtered_feature_bc_matrix.h5",
        "positions": folder / "spatial" / "tissue_positions.parquet",
    }
    reader = READERS["visium_hd"]
    info = SlideInfo(dataset="", slide=folder.name, platform="", organ="", species="simulated", patient="")
    return reader.read(files, info, reader.Options())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hest", type=Path, help="HEST-1k's st/<id>.h5ad")
    parser.add_argument("bins", type=Path, help="a folder of 10x's binned_outputs, square_016um for example")
    parser.add_argument("--matrix", default="X", help="where the raw counts are: X, raw or a layer")
    options = parser.parse_args(arguments)
    try:
        totals = compare_totals(options.hest, bins_of(options.bins), options.matrix)
    except StmorphError as error:
        print(error, file=sys.stderr)
        return 2
    print(totals.sentence())
    if totals.only_hest or totals.only_repooled:
        print(f"not compared: {totals.only_hest} genes that HEST alone has, {totals.only_repooled} that 10x alone has")
    return int(totals.hest < totals.repooled)


if __name__ == "__main__":
    sys.exit(main())
