"""What a look at a cluster finds, and what it is asked to look at."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .profiles import defaults


@dataclass(frozen=True)
class Finding:
    """One line: how it stands, about what, and what was found or is to be changed."""

    level: Literal["ok", "warning", "error"]
    about: str
    text: str


@dataclass(frozen=True)
class Wanted:
    """What is to be checked: the merged profile, the folder of the run, and what its study asks for.

    requests: (memory in MB, GPUs, partition or None) of its jobs.
    """

    profile: Mapping[str, Any]
    folder: Path
    gpus: int = 0
    runtime: int = 0
    tokens: Mapping[str, str] | None = None
    requests: Collection[tuple[int, int, str | None]] = ()
    wait_s: int = 120


def error(about: str, text: str) -> Finding:
    """Return what must be mended."""
    return Finding("error", about, text)


def warning(about: str, text: str) -> Finding:
    """Return what should be thought about."""
    return Finding("warning", about, text)


def job_words(wanted: Wanted, partition: str) -> list[str]:
    """Return the options of sbatch or srun for a small job in a partition."""
    account = defaults(wanted.profile, "default-resources").get("slurm_account")
    words = [f"--partition={partition}", "--time=2", "--mem=500", "--cpus-per-task=1"]
    return [*words, *([f"--account={account}"] if account else [])]
