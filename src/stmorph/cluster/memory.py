"""How much memory a further attempt asks for: more where the last may have died of too little, never more than exists.

SLURM's word for how a job ended does not reach a rule, so what is known is used: a training that was told to stop (time
limit, pre-emption, scancel) says so at the end of its log, and a process that was killed for its memory cannot. So only
attempts without those words count.
"""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

from ..training.signals import STOPPED
from .slurm import largest_nodes

MOST = 3
"""Times the first request, at most: what needs more is wrongly configured, and larger requests wait longer."""
TAIL_BYTES = 4096


class Growth:
    """Remembers, while the main process lives, how often each job's memory has grown."""

    def __init__(self) -> None:
        self._times: dict[Hashable, dict[int, int]] = {}

    def times(self, job: Hashable, attempt: int, told_to_stop: Callable[[], bool]) -> int:
        """Return how many times its first request a job's attempt (1, 2, ...) asks for.

        told_to_stop: whether the attempt before this one ended because it was told to; asked once an attempt.
        """
        known = self._times.setdefault(job, {1: 1})
        if attempt not in known:
            before = known.get(attempt - 1, min(attempt - 1, MOST))
            known[attempt] = before if told_to_stop() else min(before + 1, MOST)
        return known[attempt]


def told_to_stop(log: Path) -> bool:
    """Return whether a step's log ends with the words of a training that saved at a signal."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return STOPPED in file.read().decode(errors="replace")
    except OSError:
        return False


def grown_mb(first_mb: int, times: int, most_mb: int | None) -> int:
    """Return first_mb times `times`, but no more than a node has; a first request above that stays as it is."""
    wanted = first_mb * times
    return wanted if most_mb is None else min(wanted, max(most_mb, first_mb))


def most_mb(limits: Mapping[str, Mapping[str, Any]], gpu: int, partition: str | None) -> int | None:
    """Return the largest memory that a job can be given, or None where SLURM does not tell.

    Parameters
    ----------
    limits
        Partition -> limits of the site's partition file; empty without one.
    gpu
        GPUs that the job asks for on a node.
    partition
        The one that it names.
    """
    nodes = largest_nodes(gpu)
    fit = [name for name, limit in limits.items() if (limit.get("max_gpu") or 0) >= gpu and name in nodes]
    names = [partition] if partition else fit or list(nodes)
    known = [min(nodes[name], limits.get(name, {}).get("max_mem_mb") or nodes[name]) for name in names if name in nodes]
    return max(known, default=None)
