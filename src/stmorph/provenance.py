"""Where a result came from: code, data, packages, machine, time. Kept apart from results: it differs between runs."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import __version__
from .files import whole

PACKAGES = (
    "torch",
    "lightning-fabric",
    "numpy",
    "scipy",
    "pandas",
    "anndata",
    "scanpy",
    "scikit-learn",
    "scikit-image",
    "snakemake",
)


def write_provenance(
    path: str | Path, digests: Mapping[str, str], run: Mapping[str, Any], circumstances: Mapping[str, Any]
) -> None:
    """Write provenance.json: the run, digests, git commit and state, package versions, device, wall time."""
    content = {
        "run": dict(run),
        "digests": dict(digests),
        "stmorph": __version__,
        "git": git_state(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **circumstances,
    }
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True, default=str) + "\n")


def git_state() -> dict[str, Any]:
    """Return the commit of this checkout and how many tracked files differ from it; None without a repository."""

    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None  # installed without its repository
        return answer.stdout.strip()

    status = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "changed_files": None if status is None else len(status.splitlines())}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        # A step in an environment of its own has Snakemake from outside: loaded, not installed.
        return getattr(sys.modules.get(package), "__version__", None)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
