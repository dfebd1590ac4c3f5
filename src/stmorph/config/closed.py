"""What all objects of the config have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")]
"""Names become folders: letters, digits, `_` and `.`; `-` is kept free to join a method with its variant."""


class Closed(BaseModel):
    """A frozen object that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
