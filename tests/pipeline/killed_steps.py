#!/usr/bin/env python3
"""Kills the steps of a finished study with SIGKILL, runs each again, and compares what lies there with what lay there.

    python tests/pipeline/killed_steps.py FOLDER slide tiles --random 5

FOLDER is the working folder of a run that was given `--skip-script-cleanup`: Snakemake's scripts are still in it, each
with all that its job knows. They run as Snakemake runs them, in children of one process that has loaded the libraries.
A step is killed just before one of its files takes its place (one in the middle, or with --every each of them), and at
random moments. Prints what was done; the exit status is 1 where another byte came of it or a partial file was left.
"""

import argparse
import hashlib
import importlib
import multiprocessing
import os
import pathlib
import random
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

LOADED = ("anndata", "matplotlib.pyplot", "numba", "pandas", "snakemake.script", "stmorph.read", "zarr")
"""Loaded once. Nothing is computed before the children begin: threads do not survive a fork."""
TOLD = ("logs", "benchmarks")
"""Folders whose files tell of times."""


def child(work: Callable[[], None]) -> int:
    """Start some work in a process of its own; return its number."""
    number = os.fork()
    if number == 0:
        try:
            work()
            os._exit(0)
        except SystemExit as left:
            os._exit(left.code if isinstance(left.code, int) else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return number


def state() -> dict[str, str]:
    """Return path -> digest of all that the study has made, partial files too."""
    made = (path for path in Path("results").rglob("*") if path.is_file() and path.parts[1] not in TOLD)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in made}


class Step:
    """One script of a finished run."""

    def __init__(self, script: Path):
        self.script, self.name = script, script.name.split(".")[1]
        self.placed = multiprocessing.Value("i", 0)

    def run(self, fatal: int = 0) -> None:
        """Run it here; before its `fatal`-th file takes its place it is killed."""
        self.placed.value = 0

        def replace(path: Path, target: Path, inner=pathlib.Path.replace) -> Path:
            self.placed.value += 1
            if self.placed.value == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(path, target)

        pathlib.Path.replace = replace
        runpy.run_path(str(self.script), run_name="__main__")

    def whole(self) -> float:
        """Run it to its end; return the seconds that took."""
        begin = time.monotonic()
        _, status = os.waitpid(child(self.run), 0)
        assert status == 0, f"{self.script} failed"
        return time.monotonic() - begin

    def killed_before(self, file: int) -> None:
        """Run it until its `file`-th file is written and not in its place."""
        _, status = os.waitpid(child(lambda: self.run(file)), 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"{self.script} was not killed"

    def killed_after(self, seconds: float) -> None:
        """Run it for so long at most."""
        number = child(self.run)
        time.sleep(seconds)
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)


def faults_of(step: Step, expected: dict[str, str], every: bool, at_random: int, chance: random.Random) -> list[str]:
    """Kill a step at its moments, each time run it again, and return what is then not as it was."""
    took_s, files = step.whole(), step.placed.value
    assert files, f"{step.script} puts no file in its place"
    chosen = range(1, files + 1) if every else [(files + 1) // 2]
    moments = [(f"before file {file} of {files}", lambda file=file: step.killed_before(file)) for file in chosen]
    for _ in range(at_random):
        delay_s = chance.uniform(0, took_s)
        moments.append((f"after {delay_s:.2f} s", lambda delay_s=delay_s: step.killed_after(delay_s)))
    faults = []
    for when, kill in moments:
        kill()
        step.whole()
        found = state()
        wrong = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
        faults += [f"{step.name}, killed {when}: {path}" for path in wrong]
    print(f"{step.name}: {len(moments)} kills, {files} files, {took_s:.2f} s a run, {len(faults)} faults")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", nargs="+", help="names of files in workflow/scripts")
    parser.add_argument("--random", type=int, default=0, help="so many random moments a step")
    parser.add_argument("--every", action="store_true", help="before each file of a step, not one")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.chdir(args.folder)
    for module in LOADED:
        importlib.import_module(module)
    scripts = {name: next(iter(sorted(Path(".snakemake/scripts").glob(f"*.{name}.py"))), None) for name in args.steps}
    assert None not in scripts.values(), f"not all of {args.steps} were run in {args.folder}"
    chance, expected = random.Random(args.seed), state()
    faults = []
    for script in scripts.values():
        faults += faults_of(Step(script), expected, args.every, args.random, chance)
    print("\n".join(faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
