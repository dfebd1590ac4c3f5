"""Figures: one module a kind, found by its file name, so that adding a kind touches no rule.

A kind's module has
`Options` (a closed pydantic model), `FAMILIES` (which runs it shows), `TRAINED_BY_STEPS` (only runs with a loss curve),
`FILES` (name -> file of each run that it reads), `DATA` (which of the units' data it reads, or None), and
`draw(runs, options, files, path)`: `runs` as `Workflow.figure_runs` gives them, `files` the named inputs of the job.
"""

import importlib
import pkgutil
from types import ModuleType

from ..config.check import nearest
from ..errors import ConfigError

_NOT_KINDS = {"style", "importance"}


def figure_kinds() -> list[str]:
    """Return the kinds there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_KINDS)


def load_figure(kind: str) -> ModuleType:
    """Return a kind's module.

    Raises
    ------
    ConfigError
        There is no such kind.
    """
    if kind not in figure_kinds():
        raise ConfigError(f"figure kind {kind!r} is unknown; {nearest(kind, figure_kinds())}")
    return importlib.import_module(f"{__name__}.{kind}")
