"""The whole table of speed and memory, each line a ratio to a named reference in the same run.

    taskset -c 1 python benchmarks/table.py [--full] [--image slide.svs] [--only tiles crops] [--folder /tmp]

Sizes are small without `--full` (some minutes; with it, an hour). Each benchmark is a process of its own, on one core.
Ends with 1 if a goal is missed or a benchmark cannot run.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import Row, processor

HERE = Path(__file__).parent
SMALL = {
    "stain": ["--seconds", "3"],
    "tiles": ["--tiles", "1600", "--side", "8000", "--reference", "100", "--growth", "1000", "10000"],
    "store": ["--tiles", "1600", "--reference", "32", "--growth", "1000", "10000"],
    "crops": ["--tiles", "3000", "--growth", "1000", "10000"],
    "encoders": ["--batches", "2"],
    "pseudo_spots": ["--side", "200", "--sample", "300"],
}
FULL = {
    "stain": ["--seconds", "8"],
    "tiles": [],
    "store": [],
    "crops": [],
    "encoders": ["--encoders", "resnet50", "conch", "--batches", "1"],
    "pseudo_spots": [],
}
HEAD = ["work", "reference", "measured", "goal", "verdict", "limit, rates"]


def pseudo_spots(text: str) -> list[Row]:
    """Return the rows of what `pseudo_spots.py` prints."""
    found = re.findall(r"^(.+?)\s+([\d.]+ s \(.*?\)), ([\d.]+) times the plain way \(goal (\d+)\)", text, re.M)
    return [
        Row(f"pseudo-spots 27/5, {label}", "sum of all genes per window", float(ratio), float(goal), "x", rate)
        for label, rate, ratio, goal in found
    ]


def run(name: str, options: list[str], image: Path | None, folder: Path | None) -> tuple[list[Row], str]:
    """Return the rows of one benchmark, and why there are none."""
    own = name == "pseudo_spots"
    with tempfile.TemporaryDirectory() as place:
        rows = Path(place) / "rows.json"
        command = [sys.executable, HERE / f"{name}.py", *options]
        if not own:
            command += ["--rows", rows, *(["--image", image] if image else [])]
        if folder and name in ("tiles", "store", "crops"):
            command += ["--folder", folder]
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        path = os.pathsep.join(filter(None, [str(HERE.parent / "src"), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(command, env={**os.environ, **one, "PYTHONPATH": path}, capture_output=True, text=True)
        print(done.stdout, file=sys.stderr, flush=True)
        if done.returncode:
            return [], (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        found = pseudo_spots(done.stdout) if own else [Row(**row) for row in json.loads(rows.read_text())]
        return found, "" if found else "gave no rows"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the stated sizes")
    parser.add_argument("--only", nargs="+", choices=list(SMALL), default=list(SMALL))
    parser.add_argument("--image", type=Path, help="picture or slide to take the pixels from; simulated without")
    parser.add_argument("--folder", type=Path, help="for the slides that are written")
    arguments = parser.parse_args()
    missed, lines = False, [HEAD, ["---"] * len(HEAD)]
    for name in arguments.only:
        rows, trouble = run(name, (FULL if arguments.full else SMALL)[name], arguments.image, arguments.folder)
        lines += [row.cells() for row in rows]
        if trouble:
            lines.append([name, "", "", "", "NOT RUN", trouble])
        missed |= bool(trouble) or not all(row.met for row in rows)
    sizes = "the stated sizes" if arguments.full else "small sizes"
    print(f"{processor()}, one core of {os.cpu_count()}; {sizes}; {arguments.image or 'simulated tissue'}\n")
    print(*(f"| {' | '.join(line)} |" for line in lines), sep="\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
