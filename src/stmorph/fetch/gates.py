"""Files behind terms: which page to accept, which variable to set."""

import os

from ..errors import DataError
from .source import Gate


def token_of(gate: Gate | None, what: str) -> str | None:
    """Return the token for a gated file, None for an open one.

    Raises
    ------
    DataError
        The file is gated and no token is set.
    """
    if gate is None:
        return None
    if token := token_at_hand(gate):
        return token
    raise DataError(f"{what} is gated and {gate.variable} is not set: {cure(gate)}")


def token_at_hand(gate: Gate) -> str | None:
    """Return the token for a gate if there is one; nobody is asked whether it is valid."""
    return os.environ.get(gate.variable, "").strip() or _login(gate) or None


def cure(gate: Gate) -> str:
    """Return what to do about a closed gate, as the end of a sentence."""
    return (
        f"accept the terms at {gate.page}, set the environment variable {gate.variable} to a token of that account and "
        "run again (or put the file below data_root)"
    )


def _login(gate: Gate) -> str:
    """Return the token that a login to the Hugging Face Hub left on this machine."""
    if gate.variable != "HF_TOKEN":
        return ""
    from huggingface_hub import get_token

    return get_token() or ""
