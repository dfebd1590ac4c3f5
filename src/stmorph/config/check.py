"""All that is wrong with a configuration, at once: each with its path, the value found and the nearest allowed one."""

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def nearest(found: str, allowed: Iterable[str]) -> str:
    """Return the end of a sentence: the nearest allowed name if there is one, and the allowed names."""
    allowed = sorted(map(str, allowed))
    close = difflib.get_close_matches(str(found), allowed, n=1)
    listed = ", ".join(allowed[:20]) + (", ..." if len(allowed) > 20 else "")
    return (f"did you mean {close[0]!r}? " if close else "") + f"allowed: {listed or 'none'}"


class Problems:
    """Collects problems, so that a user mends them in one go."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, path: str, sentence: str) -> None:
        """Note one problem at a path such as `config/demo.yaml: tables.stem_table1`; the same one is noted once."""
        line = f"{path}: {sentence}"
        if line not in self.found:
            self.found.append(line)

    def known(self, path: str, name: str | None, allowed: Iterable[str], what: str) -> bool:
        """Note that `name` is not among `allowed`; return whether it is."""
        allowed = list(allowed)
        if name in allowed:
            return True
        if name is None:
            self.add(path, f"no {what} is named; {nearest('', allowed)}")
        else:
            self.add(path, f"{what} {name!r} is unknown; {nearest(name, allowed)}")
        return False

    def validate(self, model: type[Model], data: Any, path: str) -> Model | None:
        """Return `data` as a `model`, or None with every error noted."""
        return self.attempt(lambda: model.model_validate(data), path, model)

    def attempt(self, build: Callable[[], Model], path: str, model: type[BaseModel]) -> Model | None:
        """Run `build`, noting pydantic's errors in words."""
        try:
            return build()
        except ValidationError as error:
            for one in error.errors():
                where = ".".join(str(part) for part in one["loc"])
                self.add(f"{path}: {where}" if where else path, _sentence(one, model))
            return None

    def stop_if_any(self) -> None:
        """Raise a ConfigError that lists them all."""
        if self.found:
            count = "1 problem" if len(self.found) == 1 else f"{len(self.found)} problems"
            raise ConfigError(f"the configuration has {count}:\n" + "\n".join(f"  - {line}" for line in self.found))

    def leave_if_any(self) -> None:
        """End the process with them all; inside Snakemake's functions an error would be shown with a traceback."""
        try:
            self.stop_if_any()
        except ConfigError as error:
            sys.exit(f"stmorph: {error}")


@contextmanager
def noted(into: Problems | None) -> Iterator[Problems]:
    """Give the caller's list to add to, or without one a new list that is raised as a ConfigError at the end."""
    problems = Problems() if into is None else into
    yield problems
    if into is None:
        problems.stop_if_any()


def _sentence(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, found = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"unknown key (value {found!r}); {nearest(error['loc'][-1], _fields_at(model, error['loc'][:-1]))}"
    if kind == "missing":
        return "this key is required and missing"
    if kind == "literal_error":
        allowed = [part.strip(" '") for part in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"found {found!r}; {nearest(str(found), allowed)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}; found {_short(found)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields_at(model: type[BaseModel], loc: tuple) -> list[str]:
    """Return the field names of the object at `loc` inside `model`."""
    current: list[Any] = [model]
    for part in loc:
        current = [inner for one in current for inner in _inside(one, part)]
    return [name for one in current if _is_model(one) for name in one.model_fields]


def _inside(annotation: Any, part: str | int) -> list[Any]:
    """Return the types that may stand at key, index or union member `part` of a type; unions are taken apart."""
    if _is_model(annotation):
        field = annotation.model_fields.get(str(part))
        return _members(field.annotation) if field else [annotation] if annotation.__name__ == part else []
    values = get_args(annotation)[1:] if get_origin(annotation) is dict else get_args(annotation)[:1]
    return [member for value in values for member in _members(value)]


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
