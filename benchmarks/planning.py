"""Seconds and memory until Snakemake knows what is to be done: of a study as it is, and with many more runs.

    python benchmarks/planning.py [--config config/config.yaml] [--seeds 3 12 24]

A dry run in a folder of its own, twice: the first checks the config and remembers that, the second is a user's ordinary
one. Each seed adds one run of every method, so that the study grows as the papers' tables do. Seconds are processor and
wall time of the whole command; there is no reference, and the goal is 20 s for all five papers' declared runs.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def dry_run(config: Path, folder: Path) -> tuple[int, float, float]:
    """Plan a study in `folder`; return jobs, processor seconds and wall seconds."""
    words = ["-n", "--quiet", "rules", "--cores", "1", "-s", str(ROOT / "Snakefile"), "--directory", str(folder)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words, "--configfile", str(config)],
        env=variables,
        capture_output=True,
        text=True,
    )
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    jobs = re.search(r"^total\s+(\d+)", done.stdout + done.stderr, re.MULTILINE)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return int(jobs[1]) if jobs else 0, processor_s, wall_s


def main() -> None:
    """Print a line a number of seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "config/config.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 12, 24])
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores; {given.config.name}")
    print("| seeds | jobs | first dry run, s processor | s wall | second, s processor | s wall |")
    print("|---|---|---|---|---|---|")
    for seeds in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            study = yaml.safe_load(given.config.read_text()) | {"seeds": list(range(seeds))}
            config = Path(folder) / "study.yaml"
            config.write_text(yaml.safe_dump(study, sort_keys=False))
            (jobs, first_s, first_wall_s), (_, second_s, second_wall_s) = (
                dry_run(config, Path(folder)) for _ in range(2)
            )
        print(f"| {seeds} | {jobs} | {first_s:.1f} | {first_wall_s:.1f} | {second_s:.1f} | {second_wall_s:.1f} |")
    print(f"largest process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
