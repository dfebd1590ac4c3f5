"""From a name and options in the config to an encoder."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from .base import Encoder
from .facts import FACTS

MORPHOMETRIC = "morphometric"
ENCODERS: tuple[str, ...] = (MORPHOMETRIC, *FACTS)


def options_class(name: str) -> type[BaseModel]:
    """Return the closed class of the options of encoder `name`.

    Raises
    ------
    ConfigError
        There is no such encoder.
    """
    if name == MORPHOMETRIC:
        from .morphometric import MorphometricOptions

        return MorphometricOptions
    if name in FACTS:
        from .pretrained import PretrainedOptions

        return PretrainedOptions
    nearest = get_close_matches(name.lower(), ENCODERS, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}" if nearest else ""
    raise ConfigError(f"encoder {name!r} does not exist, use one of {', '.join(ENCODERS)}{hint}")


def load_encoder(name: str, options: Mapping[str, Any] | None = None, device: str = "cpu") -> Encoder:
    """Return encoder `name`, ready to encode on `device` (`morphometric` always runs on the CPU).

    Raises
    ------
    ConfigError
        The name or an option is unknown, or an option's value is not allowed.
    WeightsError
        The weights are absent, gated, damaged or of another network.
    """
    kind = options_class(name)
    try:
        checked = kind.model_validate(dict(options or {}))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (found {e['input']!r})" for e in error.errors()]
        allowed = ", ".join(kind.model_fields)
        raise ConfigError(f"options of encoder {name}: {'; '.join(faults)}; allowed keys are {allowed}") from error
    if name == MORPHOMETRIC:
        from .morphometric import MorphometricEncoder

        return MorphometricEncoder(checked)
    from .pretrained import PretrainedEncoder

    return PretrainedEncoder(name, checked, device)
