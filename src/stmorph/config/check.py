"""All that is wrong with a configuration, at once: each with its path, the value found and the nearest allowed one."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

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
        """Note one problem at a path such as `config/demo.yaml: tables.stem_table1`."""
        self.found.append(f"{path}: {sentence}")

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
    """Return the field names of the object at `loc` inside `model` (best effort through dicts, lists and unions)."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        candidates = _models_in(current)
        if candidates:
            current = candidates[0]
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
