"""The frame of every script: its log first, a user's mistake as one sentence, nothing half-said."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import __version__
from .errors import StmorphError


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Send everything that the step prints, libraries included, to its log; tell a user's mistake on the terminal too.

    Snakemake does not capture a script's output, so the log is opened here, on the level of file descriptors.
    """
    log = Path(snakemake.log[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    output, terminal = os.dup(1), os.dup(2)
    # Where several processes train together each runs this script; they share the first one's log.
    anew = 0 if int(os.environ.get("LOCAL_RANK", "0")) else os.O_TRUNC
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | anew, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=True)
    print(f"stmorph {__version__}: {' '.join([snakemake.rule, *map(str, snakemake.wildcards)])}")
    try:
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
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(output, 1)
        os.dup2(terminal, 2)
        os.close(output)
        os.close(terminal)


def named(files: Any) -> dict[str, list[str]]:
    """Return a job's named inputs as lists of paths, also where a name holds a single one."""
    return {name: [value] if isinstance(value, str) else list(value) for name, value in files.items()}
