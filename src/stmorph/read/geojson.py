"""The features of a GeoJSON text, one at a time: of a slide with 300,000 cells the whole as objects takes some GiB."""

import json
import re
from collections.abc import Iterator
from typing import Any

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


def features_of(text: str) -> Iterator[Any]:
    """Give the features of a FeatureCollection, or the members of a list of features as QuPath exports it.

    Raises
    ------
    ValueError
        The text is no JSON (`json.JSONDecodeError`), or neither of them.
    """
    at = _past(text, 0)
    if text[at : at + 1] == "[":
        at = yield from _members(text, at)
    elif text[at : at + 1] == "{":
        kind, found, at = None, False, _past(text, at + 1)
        while text[at : at + 1] != "}":
            key, at = _DECODER.raw_decode(text, at)
            at = _past(text, _expect(text, _past(text, at), ":"))
            if key == "features" and text[at : at + 1] == "[":
                found, at = True, (yield from _members(text, at))
            else:
                value, at = _DECODER.raw_decode(text, at)
                kind = value if key == "type" else kind
            at = _past(text, at)
            if text[at : at + 1] != "}":
                at = _past(text, _expect(text, at, ","))
        at += 1
        if not found:
            raise ValueError(f"it is a GeoJSON {kind}, not a FeatureCollection with a list of features")
    else:
        raise json.JSONDecodeError("it begins with no bracket", text[:200], min(at, 200))
    if _past(text, at) != len(text):
        raise json.JSONDecodeError("more follows its end", text[at : at + 200], 0)


def _members(text: str, at: int) -> Iterator[Any]:
    """Give the members of the list that begins at a place; return the place behind it."""
    at = _past(text, at + 1)
    if text[at : at + 1] == "]":
        return at + 1
    while True:
        member, at = _DECODER.raw_decode(text, at)
        yield member
        at = _past(text, at)
        if text[at : at + 1] == "]":
            return at + 1
        at = _past(text, _expect(text, at, ","))


def _past(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"{sign!r} is missing after {at} characters", text[at : at + 200], 0)
    return at + 1
