"""Failures that a user can mend: one sentence that says what, where, what was expected and what to do."""

import errno
from pathlib import Path


class StmorphError(Exception):
    """Base of every failure with a sentence for the user; scripts print it without a traceback."""


class ConfigError(StmorphError):
    """The configuration asks for something that does not exist or cannot be."""


class DataError(StmorphError):
    """A file that was given is missing, damaged or contradicts another."""


class WeightsError(StmorphError):
    """A pretrained network's weights are absent, gated or of the wrong shape."""


class CheckpointError(StmorphError):
    """A training checkpoint is damaged or belongs to another run."""


class LeakError(StmorphError):
    """Something measured on test units would reach training."""


def reason_of(error: BaseException) -> str:
    """Return what a library says of a failure, short enough for a sentence: its first line, or its kind."""
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return reason if len(reason) <= 200 else f"{reason[:200]} ..."


def unread(path: Path, error: BaseException, expected: str, otherwise: str) -> DataError | None:
    """Return the failure to read a file that says nothing of what the file holds: rights, memory. None: it does.

    Parameters
    ----------
    expected
        What the file should be.
    otherwise
        What to do where the job cannot have more memory.
    """
    if isinstance(error, MemoryError):
        return DataError(
            f"{path} takes more memory than there is ({reason_of(error)}); expected {expected}: give the job more "
            f"memory, or {otherwise}"
        )
    # Libraries raise OSError of what lies inside a file, too: only the system's own number tells of the file.
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return DataError(
            f"{path} may not be read ({reason_of(error)}); expected {expected}: mend the rights of the file and its "
            "folders"
        )
    return None
