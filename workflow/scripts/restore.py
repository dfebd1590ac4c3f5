"""Puts published scores or models in place, or takes them away again. `make restore` and `make forget` call it.

python workflow/scripts/restore.py put results.zip --config config/demo.yaml
python workflow/scripts/restore.py forget scores --config config/demo.yaml
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from stmorph.bundle.contents import KINDS  # noqa: E402
from stmorph.bundle.restore import forget, restore  # noqa: E402
from stmorph.config.load import read_yaml  # noqa: E402
from stmorph.config.workflow import open_study  # noqa: E402
from stmorph.errors import StmorphError  # noqa: E402


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    put = commands.add_parser("put", help="check a bundle and put its files in place")
    put.add_argument("bundle", type=Path)
    put.add_argument("--overwrite", action="store_true", help="replace files that are there with other content")
    put.add_argument("--any-code", action="store_true", help="take a bundle that other code made")
    gone = commands.add_parser("forget", help="remove what was restored and is as it was")
    gone.add_argument("kind", choices=KINDS)
    for command in (put, gone):
        command.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="the study")
    args = parser.parse_args()
    try:
        study = open_study(read_yaml(args.config), ROOT)
        if args.command == "forget":
            print(f"{len(forget(study, args.kind))} restored files removed from {study.config.results}")
            return
        done = restore(args.bundle, study, args.overwrite, args.any_code)
    except StmorphError as error:
        sys.exit(f"stmorph: {error}")
    placed = [study.paths(file) for file in done.placed]
    if placed and Path(".snakemake/metadata").is_dir():
        _clear_records(args.config, placed)
    print(f"{len(placed)} files of {done.kind} restored to {study.config.results}, {len(done.kept)} were there already")


def _clear_records(config: Path, files: list[str]) -> None:
    """Make Snakemake forget how earlier files of these names were made; else it would make them anew."""
    for start in range(0, len(files), 500):
        words = ["--cleanup-metadata", *files[start : start + 500], "--configfile", str(config)]
        command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--quiet", "all", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\nstmorph: Snakemake's records could not be cleared; see above, and restore again")


main()
