"""The one place that says how a job asks SLURM for GPUs."""

from collections.abc import Callable
from typing import Any

from ..errors import ConfigError

PLACE = "{gpu}"


def gpu_resources(gres: str | None, count: Callable[[Any], int]) -> dict[str, Callable[[Any], int | str | None]]:
    """Return the resources of a rule that may need GPUs.

    Parameters
    ----------
    gres
        None: the rule asks for `gpu`, which becomes `--gpus=<n>`. For clusters that do not know it: what `--gres` is
        given instead, with `{gpu}` for the number, for example `gpu:a100:{gpu}`.
    count
        Wildcards -> number of GPUs.

    Raises
    ------
    ConfigError
        `gres` has no `{gpu}`.
    """
    if gres is None:
        return {"gpu": count}
    if not isinstance(gres, str) or PLACE not in gres:
        raise ConfigError(f"gres is {gres!r}; expected one with {PLACE} for the number, as 'gpu:a100:{PLACE}'")
    # None is no resource at all: a job without GPUs asks for nothing.
    return {"gres": lambda wildcards: gres.replace(PLACE, str(n)) if (n := count(wildcards)) else None}
