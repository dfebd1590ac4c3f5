"""Finds methods by their files: a module of this folder that sets METHOD is a method, and its file name is its name."""

import difflib
import importlib
import re
from pathlib import Path

from ..errors import ConfigError
from .base import Method

_FOLDER = Path(__file__).parent
_SETS_METHOD = re.compile(r"^METHOD\b\s*[:=]", re.MULTILINE)


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, sorted; their modules are read, not imported."""
    sources = {path.stem: path for path in _FOLDER.glob("*.py") if path.stem not in ("__init__", "base", "registry")}
    sources |= {path.parent.name: path for path in _FOLDER.glob("*/__init__.py")}
    return tuple(sorted(name for name, path in sources.items() if _SETS_METHOD.search(path.read_text("utf-8"))))


def load_method(name: str) -> type[Method]:
    """Return the method's class.

    Raises
    ------
    ConfigError
        No method has that name, or its METHOD is not a subclass of Method.
    """
    names = method_names()
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"method {name!r} does not exist; {hint}expected one of {', '.join(names)}")
    method = importlib.import_module(f"{__package__}.{name}").METHOD
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ConfigError(f"METHOD of methods/{name} is {method!r}; expected a subclass of stmorph.methods.base.Method")
    return method
