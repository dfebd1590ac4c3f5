"""The frame of every script: its log first, a user's mistake as one sentence, nothing half-said."""

import logging
import os
import site
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from . import __version__
from .errors import StmorphError
from .files import remove_leftovers
from .training.nodes import by_srun, is_helper


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Send everything that the step prints, libraries included, to its log; tell a user's mistake on the terminal too.

    Snakemake does not capture a script's output, so the log is opened here, on the level of file descriptors.
    """
    _leave_host()
    log = Path(snakemake.log[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    output, terminal = os.dup(1), os.dup(2)
    # Where several processes train together each runs this script; they share the first one's log.
    anew = 0 if is_helper() or by_srun() else os.O_TRUNC
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | anew, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=True)
    print(f"stmorph {__version__}: {' '.join([snakemake.rule, *map(str, snakemake.wildcards)])}")
    told, handler = logging.getLogger("stmorph"), logging.StreamHandler(sys.stderr)
    level = told.level
    told.addHandler(handler)
    told.setLevel(logging.INFO)
    try:
        if anew:  # the first of several processes: what a killed one left is nobody's now
            for made in snakemake.output:
                remove_leftovers(made)
        yield
    except StmorphError as error:
        sentence = f"stmorph: {snakemake.rule}: {error}\n"
        sys.stderr.write(sentence)
        sys.stderr.flush()
        os.write(terminal, sentence.encode())
        raise SystemExit(1) from None
    except Exception:
        traceback.print_exc()
        os.write(terminal, f"stmorph: {snakemake.rule}: unexpected failure; the traceback is in {log}\n".encode())
        raise SystemExit(1) from None
    finally:
        told.removeHandler(handler)
        told.setLevel(level)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(output, 1)
        os.dup2(terminal, 2)
        os.close(output)
        os.close(terminal)


def named(files: Any) -> dict[str, list[str]]:
    """Return a job's named inputs as lists of paths, also where a name holds a single one."""
    return {name: [value] if isinstance(value, str) else list(value) for name, value in files.items()}


def _leave_host() -> None:
    """Take the packages that stand beside Snakemake off the path, where the step runs in an environment of its own.

    Snakemake puts its own path behind the script's, because the script needs Snakemake. A package that the environment
    lacks would come from there: another version than the environment's, or compiled for another Python.
    """
    package = sys.modules.get("snakemake")
    host = Path(getattr(package, "__file__", None) or "").parent.parent
    own = [*site.getsitepackages(), site.getusersitepackages()]
    if package is None or any(distributions(name="snakemake", path=own)):
        return
    sys.path[:] = own_path(sys.path, str(host), site.getusersitepackages(), str(Path(__file__).parents[1]))


def own_path(path: Sequence[str], host: str, user_site: str, library: str) -> list[str]:
    """Return the search path of an environment of its own, as it is before Snakemake's begins, and this library's.

    Parameters
    ----------
    path
        The search path that a script finds.
    host
        The folder that holds the package `snakemake`: with it begins what Snakemake adds.
    user_site
        The user's own packages, which an environment of conda would see before its own.
    library
        The folder that holds `stmorph`.
    """
    kept = list(path)[: path.index(host)] if host in path else list(path)
    return [entry for entry in kept if entry not in (user_site, library)] + [library]
