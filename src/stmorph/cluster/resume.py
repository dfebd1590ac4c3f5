"""`python -m stmorph.cluster.resume -- <words for snakemake>`: go on after the main process was killed.

Its jobs run on without it, on the cluster or on this machine. Snakemake started again would submit them a second time;
so their end is waited for, then the lock that the dead process left is lifted and Snakemake started. What the jobs
finished is taken up: a training from its work folder, everything else is made anew from files that are whole.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import StmorphError
from .slurm import ask

POLL_S = 10.0
NO_CLUSTER = "Could not establish a configuration source"
"""What SLURM's commands say without a slurm.conf, and where the server that has it does not answer."""


@dataclass(frozen=True, order=True)
class Orphan:
    """A job without its main process: `SLURM job 4711` or `process 815`, what it does, and its state."""

    name: str
    doing: str
    state: str


def slurm_jobs(folder: Path) -> list[Orphan]:
    """Return this user's SLURM jobs that were submitted from `folder` and have not ended; none where there is no SLURM.

    Raises
    ------
    StmorphError
        SLURM is there and does not answer: its jobs are not known, so none may be started a second time.
    """
    answer = ask("squeue", "--me", "--noheader", "--format=%i|%T|%Z|%k")
    # Commands that know no cluster: installed without one, if no job of this folder has left SLURM's log.
    if answer.status == 127 or (NO_CLUSTER in answer.error and not (folder / ".snakemake" / "slurm_logs").exists()):
        return []
    if answer.status:
        raise StmorphError(f"squeue does not answer ({answer.why}); wait until SLURM is back and run this again")
    rows = [line.split("|", 3) for line in answer.output.splitlines() if line.count("|") >= 3]
    here = folder.resolve()
    return sorted(
        Orphan(f"SLURM job {i}", what, state) for i, state, place, what in rows if Path(place).resolve() == here
    )


def local_jobs(folder: Path) -> list[Orphan]:
    """Return this machine's processes that run a step of a workflow in `folder`."""
    scripts = str(folder.resolve() / ".snakemake" / "scripts")
    return sorted(
        Orphan(f"process {process.pid}", Path(script).name.split(".", 1)[-1], "at work")
        for process in _processes()
        for script in process.info["cmdline"]
        if script.startswith(scripts)
    )


def main_processes(folder: Path) -> list[int]:
    """Return the numbers of the Snakemake processes that are at work in `folder` on this machine and are no job's."""
    return sorted(
        process.pid
        for process in _processes()
        if any(Path(word).name == "snakemake" for word in process.info["cmdline"][:3])
        and "--target-jobs" not in process.info["cmdline"]
        and process.info["cwd"] == str(folder.resolve())
    )


def wait_for_orphans(folder: Path, poll_s: float = POLL_S) -> int:
    """Wait until no job of an earlier start is at work in `folder`; return how many there were.

    Raises
    ------
    StmorphError
        A main process is still alive there.
    """
    if alive := main_processes(folder):
        raise StmorphError(
            f"Snakemake is at work in {folder} (process {alive[0]}); expected it to be gone: let it end, or stop it "
            "with Ctrl-C"
        )
    seen: set[str] = set()
    told: list[Orphan] = []
    while orphans := [*slurm_jobs(folder), *local_jobs(folder)]:
        seen |= {orphan.name for orphan in orphans}
        if orphans != told:
            print(
                f"waiting for {len(orphans)} of an earlier start (scancel or kill ends them; a training saves first):"
            )
            for orphan in orphans:
                print(f"  {orphan.name:<20} {orphan.state:<10} {orphan.doing}", flush=True)
            told = orphans
        time.sleep(poll_s)
    return len(seen)


def main() -> int:
    """Wait, unlock, and become Snakemake; return the exit status where it comes to none."""
    parser = argparse.ArgumentParser(prog="python -m stmorph.cluster.resume", description=__doc__.splitlines()[0])
    parser.add_argument("--poll", type=float, default=POLL_S, help="seconds between two looks (default: 10)")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="-- and what snakemake is given")
    given = parser.parse_args()
    words = given.words[1:] if given.words[:1] == ["--"] else given.words
    folder = Path.cwd()
    try:
        ended = wait_for_orphans(folder, given.poll)
    except StmorphError as error:
        print(f"stmorph: {error}", file=sys.stderr)
        return 1
    print(
        f"{ended} of an earlier start have ended; going on" if ended else "no job of an earlier start is left; going on"
    )
    sys.stdout.flush()
    command = [sys.executable, "-m", "snakemake", *words, "--rerun-incomplete"]
    if any((folder / ".snakemake" / "locks").glob("*")):
        unlocked = subprocess.run([*command, "--unlock", "--quiet", "all"], check=False)
        if unlocked.returncode:
            return unlocked.returncode
    os.execv(sys.executable, command)


def _processes() -> Iterator[psutil.Process]:
    own = os.getpid()
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        known = process.info["cmdline"] and process.info["status"] != psutil.STATUS_ZOMBIE
        if known and process.pid != own:
            yield process


if __name__ == "__main__":
    sys.exit(main())
