"""What is said where a killed main process left Snakemake's lock: `make resume`, for its jobs may still be at work.

Snakemake itself names `--unlock`, after which it would start those jobs a second time.
"""

import logging
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any


def resume_command(
    targets: Iterable[str],
    configfiles: Iterable[str | Path],
    config: Mapping[str, Any],
    words: Sequence[str],
    submits: bool,
) -> str:
    """Return the `make resume` that stands for a command.

    Parameters
    ----------
    targets, configfiles, config
        As Snakemake was given them; `config`: what `--config` sets.
    words
        The command line, in which the second `--profile` is the site's.
    submits
        Jobs go to SLURM.
    """
    named = sorted(targets)
    if config:
        named += ["--config", *(f"{key}={value}" for key, value in config.items())]
    site = [word for before, word in pairwise(words) if before == "--profile"][1:2] if submits else []
    settings = {
        "TARGET": shlex.join(named),
        "CONFIG": " ".join(_short(Path(file)) for file in configfiles),
        "SITE": " ".join(site),
        "PROFILE": "" if submits else "profiles/local",
    }
    return " ".join(["make resume", *(f"{key}={shlex.quote(value)}" for key, value in settings.items() if value)])


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def tell_to_resume(logger: logging.Logger, command: Callable[[], str]) -> None:
    """Let Snakemake's logger say of a lock what to do about it; only then is the command asked for."""
    logger.addFilter(_OfLocks(command))


class _OfLocks(logging.Filter):
    def __init__(self, command: Callable[[], str]):
        super().__init__()
        self._command = command

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "exception", None) == "LockException":
            record.msg = (
                f"stmorph: {Path.cwd()} is locked; expected no other Snakemake there: if one is at work let it end, "
                f"and if it was killed run `{self._command()}`, which waits for the jobs it left, lifts the lock and "
                "goes on (after --unlock alone they would run twice)"
            )
        return True
