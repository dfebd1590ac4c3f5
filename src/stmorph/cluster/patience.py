"""How long Snakemake may wait between two looks at its cluster jobs."""

from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

_PAUSE = RemoteExecutor.next_seconds_between_status_checks


def look_every(seconds: int) -> None:
    """Let no executor wait longer than this between two looks at its jobs.

    The SLURM plugin waits 10 seconds longer after every look that found nothing ended, up to 180, whatever
    `--seconds-between-status-checks` says: a cancelled job would be noticed after three minutes.
    """

    def set_pause(executor: RemoteExecutor, value: float | None) -> None:
        _PAUSE.fset(executor, value if value is None else min(value, seconds))

    RemoteExecutor.next_seconds_between_status_checks = property(_PAUSE.fget, set_pause)
