#!/usr/bin/env python3
"""A study on the loopback cluster, disturbed at random moments, again and again; its results must not notice.

    python tests/cluster/failures.py FOLDER --rounds 20                       a tiny study, minutes a round
    python tests/cluster/failures.py FOLDER --rounds 1 --blows 8 --config config/demo.yaml

In FOLDER: a cluster (cluster.py), a disk of its own, and on it a clone of this checkout's last commit with this
checkout's .venv. The study runs once undisturbed. Then, each round from nothing: at a random moment one thing goes
wrong (BLOWS), the same command is given again until it ends well (`make resume`'s, where the main process was killed),
and what was made is compared byte for byte with the undisturbed run. A round also fails where a partial file is left,
a finished model was trained again, or there is still something to do. The exit status is 1 when a round failed.
Needs root for the disk (a loop device); without, the full disk is left out, and said so.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / "tests/cluster"), str(REPO / "tests/pipeline")]
from cluster import NODES, Cluster  # noqa: E402
from conftest import both_directions, environment, leftovers, tiny_dataset, tiny_study  # noqa: E402

BLOWS = ("kill main", "kill job", "lose slurmd", "lose node", "scancel", "full disk", "time limit")
COMPARED = ("tables", "importance", "runs", "slides", "splits")
"""Folders of a study's results whose files must be the same bytes."""
MAY_DIFFER = ("provenance.json",)
"""Tells how a run went: when it was resumed. So do TensorBoard's event files."""
FULL_S = 30  # how long the disk stays full
AWAY_S = 25  # how long a node stays away; more than SlurmdTimeout, so that SLURM gives it up
STARTS = 6  # at most, in a round
PATIENCE_S = 3600


@dataclass
class Round:
    """What was done to a run, and what came of it."""

    number: int
    blows: list[str] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Study:
    """A clone of the repository with a study, run on a cluster."""

    def __init__(self, checkout: Path, config: str, cluster: Cluster):
        self.folder, self.config, self.cluster = checkout, config, cluster
        self.results = checkout / yaml.safe_load((checkout / config).read_text()).get("results", "results")
        # Words of both `snakemake` and `make resume`.
        site = checkout / "tests/cluster/site"
        self.words = ["--profile", "profiles/slurm", "--profile", str(site), "--configfile", config]
        self.words += ["--quiet", "host", "reason", "rules"]
        self._last: subprocess.Popen | None = None

    def start(self, log: Path, resume: bool = False, flags: tuple[str, ...] = ()) -> subprocess.Popen:
        """Start Snakemake, or `make resume`, in a session of its own."""
        python = str(self.folder / ".venv/bin/python")
        go_on = ["-m", "stmorph.cluster.resume", "--"]
        words = [python, *(go_on if resume else ["-m", "snakemake"]), *flags, *self.words]
        variables = environment() | {"PATH": self.cluster.environment["PATH"]}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        if resume:
            variables["PYTHONPATH"] = str(self.folder / "src")
        with log.open("a") as file:
            self._last = subprocess.Popen(
                words, cwd=self.folder, env=variables, stdout=file, stderr=file, start_new_session=True
            )
        return self._last

    def stop(self) -> None:
        """End what is still running of it, apart from its jobs."""
        if self._last is not None and self._last.poll() is None:
            self._last.kill()

    def clear(self) -> None:
        """Forget all that was made, and what Snakemake knows of it."""
        shutil.rmtree(self.results, ignore_errors=True)
        shutil.rmtree(self.folder / ".snakemake", ignore_errors=True)

    def content(self) -> dict[str, str]:
        """Return file -> digest, of what must be the same."""
        return content(self.results)

    def to_do(self, log: Path) -> bool:
        """Return whether a finished study still has something to do."""
        before = log.stat().st_size if log.exists() else 0
        self.start(log, flags=("-n",)).wait()
        return "Nothing to be done" not in log.read_text()[before:]


def content(results: Path) -> dict[str, str]:
    """Return file -> digest, of what must be the same in a study's results."""
    found = (path for part in COMPARED for path in sorted((results / part).rglob("*")) if path.is_file())
    return {
        path.relative_to(results).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
        if path.name not in MAY_DIFFER and ".tfevents." not in path.name
    }


class Trainings(threading.Thread):
    """Looks twice a second whether a finished model is finished a second time, while a round runs."""

    def __init__(self, results: Path):
        super().__init__(daemon=True)
        self.results, self.seen, self._end = results, {}, threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.5):
            for record in self.results.glob("work/*/finished/files.json"):
                with contextlib.suppress(FileNotFoundError):
                    told = record.stat()
                    self.seen.setdefault(record.parts[-3], set()).add((told.st_ino, told.st_mtime_ns))

    def stop(self) -> list[str]:
        """Return the runs that were trained more than once to their end."""
        self._end.set()
        self.join()
        return sorted(name for name, ends in self.seen.items() if len(ends) > 1)


class Blows:
    """The things that go wrong."""

    def __init__(self, study: Study, rng: random.Random):
        self.study, self.cluster, self.rng = study, study.cluster, rng

    def strike(self, kind: str, main: subprocess.Popen) -> str:
        """Do it to what is running now; return what was done, or why nothing was."""
        if kind == "kill main":
            os.kill(main.pid, signal.SIGKILL)
            return kind
        if kind == "full disk":
            with full(self.study.folder):
                self._pause(main, FULL_S)
            return f"{kind} for {FULL_S} s"
        job = self._running(main)
        if job is None:
            return f"{kind}: no job was running any more"
        what = job["comment"].removeprefix("rule_").replace("_wildcards_", " ")
        node = job["node"]
        if kind == "kill job":
            for pid in self.cluster.processes(SLURM_JOB_ID=job["id"]):
                with contextlib.suppress(OSError):
                    if b".snakemake/scripts" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)
        elif kind == "scancel":
            self.cluster.command("scancel", job["id"], check=False)
        elif kind == "time limit":
            self.cluster.command("scontrol", "update", f"JobId={job['id']}", "TimeLimit=1", check=False)
        else:
            self.cluster.lose(node, daemon_only=kind == "lose slurmd")
            self._pause(main, AWAY_S)
            self.cluster.bring_back(node)
            return f"{kind} {node} with {what}"
        return f"{kind} {what}"

    def _running(self, main: subprocess.Popen) -> dict[str, str] | None:
        while main.poll() is None:
            jobs = [job for job in self.cluster.jobs() if job["state"] == "RUNNING" and job["node"] in NODES]
            if jobs:
                return self.rng.choice(sorted(jobs, key=lambda job: int(job["id"])))
            time.sleep(0.5)
        return None

    @staticmethod
    def _pause(main: subprocess.Popen, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            main.wait(seconds)
        if main.poll() is not None:
            time.sleep(1)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk that `folder` lies on to the last byte, for a while."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for block in (2**20, 2**12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(block))
        yield
    finally:
        filler.unlink(missing_ok=True)


@contextlib.contextmanager
def disk(folder: Path, size_gb: int) -> Iterator[bool]:
    """Give `folder` a small disk of its own, so that it can be filled; tells whether that worked."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(size_gb * 2**30)
    # No room kept for root: root fills the disk here.
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-F", str(image)], check=False).returncode == 0
    mounted = made and subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
        image.unlink(missing_ok=True)


def clone(checkout: Path, config: str) -> str:
    """Clone the last commit with this checkout's .venv; return the config's name there. `tiny`: the tests' study."""
    if checkout.exists():
        shutil.rmtree(checkout)
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(checkout)], check=True)
    (checkout / ".venv").symlink_to(REPO / ".venv")
    if config != "tiny":
        return config
    (checkout / "config/datasets/tiny.yaml").write_text(yaml.safe_dump(tiny_dataset(), sort_keys=False))
    (checkout / "config/tiny.yaml").write_text(yaml.safe_dump(both_directions(tiny_study()), sort_keys=False))
    return "config/tiny.yaml"


def disturbed(
    study: Study, number: int, kinds: list[str], rng: random.Random, whole_s: float, log: Path, wanted: dict[str, str]
) -> Round:
    """Run the study from nothing while things go wrong; look at what is left."""
    blows, found = Blows(study, rng), Round(number)
    study.clear()
    trainings = Trainings(study.results)
    trainings.start()
    began = time.monotonic()
    moments = sorted(rng.uniform(0.02, 0.95) * whole_s for _ in kinds)
    main = study.start(log)
    found.starts = 1
    left = list(zip(moments, kinds))
    while True:
        # The next blow's moment, or the end.
        wait_s = max(0.0, left[0][0] - (time.monotonic() - began)) if left else PATIENCE_S
        try:
            main.wait(wait_s)
        except subprocess.TimeoutExpired:
            if not left:
                main.kill()
                found.faults.append(f"not at its end after {PATIENCE_S} s")
                break
            at, kind = left.pop(0)
            done = blows.strike(kind, main)
            found.blows.append(f"{done} at {at:.0f} s")
            continue
        if main.returncode == 0 and not left:
            break
        if main.returncode == 0:
            found.blows += [f"{kind}: the run had ended" for _, kind in left]
            break
        if found.starts == STARTS:
            found.faults.append(f"exit status {main.returncode} after {STARTS} starts")
            break
        main = study.start(log, resume=main.returncode == -signal.SIGKILL)
        found.starts += 1
    found.seconds = time.monotonic() - began
    found.faults += [f"trained again: {name}" for name in trainings.stop()]
    if not found.faults:
        made = study.content()
        found.faults += [f"differs: {name}" for name in sorted(wanted) if made.get(name) != wanted[name]]
        found.faults += [f"not in the undisturbed run: {name}" for name in sorted(set(made) - set(wanted))]
        found.faults += [f"left: {name}" for name in leftovers(study.results.parent)]
        if study.to_do(log):
            found.faults.append("there is still something to do")
    return found


def main() -> int:
    """Run the rounds and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where all of it happens; made, and removed at a good end")
    parser.add_argument("--config", default="tiny", help="the study: a config file of the repository, or `tiny`")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--blows", type=int, default=1, help="in each round")
    parser.add_argument("--only", choices=BLOWS, action="append", help="these kinds alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk-gb", type=int, default=4)
    parser.add_argument("--reference", type=Path, help="results of an undisturbed run of this commit, made anywhere")
    parser.add_argument("--minutes", type=float, default=10, help="that such a run takes here; with --reference")
    given = parser.parse_args()
    # Asked to stop, it stops its cluster too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit("stopped"))
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder / "cluster")
    rng = random.Random(given.seed)
    with disk(folder / "disk", given.disk_gb) as own_disk:
        kinds = [kind for kind in (given.only or BLOWS) if own_disk or kind != "full disk"]
        if not own_disk:
            print("no disk of its own (that needs root and a loop device): the full disk is left out")
        study = Study(folder / "disk/checkout", clone(folder / "disk/checkout", given.config), cluster)
        cluster.start()
        try:
            failed = rounds(study, kinds, rng, given, folder)
        finally:
            study.stop()
            cluster.stop()
    if not failed:
        shutil.rmtree(folder)
    return int(failed > 0)


def rounds(study: Study, kinds: list[str], rng: random.Random, given: argparse.Namespace, folder: Path) -> int:
    """Run the undisturbed study and the rounds; return how many failed."""
    if given.reference is not None:
        whole_s, wanted = 60 * given.minutes, content(given.reference)
    else:
        began = time.monotonic()
        log = folder / "undisturbed.log"
        if (status := study.start(log).wait()) != 0:
            sys.exit(f"the undisturbed run ended with {status}; see {log}")
        whole_s, wanted = time.monotonic() - began, study.content()
    print(f"undisturbed: {whole_s:.0f} s, {len(wanted)} files to compare", flush=True)
    deck: list[str] = []
    failed = 0
    for number in range(1, given.rounds + 1):
        chosen = []
        for _ in range(given.blows):
            # Every kind comes once before any comes twice.
            deck = deck or rng.sample(kinds, len(kinds))
            chosen.append(deck.pop())
        found = disturbed(study, number, chosen, rng, whole_s, folder / f"round{number:02d}.log", wanted)
        failed += bool(found.faults)
        verdict = "FAILED: " + "; ".join(found.faults[:5]) if found.faults else "equal"
        print(
            f"round {number:2d}: {'; '.join(found.blows)}: {found.starts} starts, {found.seconds:.0f} s, {verdict}",
            flush=True,
        )
        if found.faults:
            shutil.copytree(
                study.folder / ".snakemake/slurm_logs", folder / f"round{number:02d}.jobs", dirs_exist_ok=True
            )
    print(f"{given.rounds - failed} of {given.rounds} rounds ended equal")
    return failed


if __name__ == "__main__":
    sys.exit(main())
