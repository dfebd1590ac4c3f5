"""How gene importance is taken: a closed object, apart from the code that takes it, for the config's check."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ImportanceOptions(BaseModel):
    """What `importance.<name>.options` may say.

    times: where along the path gradients are taken. draws: noises per unit and time. at: `path` (between noise and the
    unit's picture) or `noise` (GeneFlow's code). scaling: `sd` multiplies by the gene's standard deviation, `none` does
    not (GeneFlow's code). max_units: training units used. steps: quadrature nodes of integrated gradients.
    max_completeness: largest relative error of integrated gradients that is accepted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    draws: Annotated[int, Field(ge=1)] = 1
    at: Literal["path", "noise"] = "path"
    scaling: Literal["sd", "none"] = "sd"
    max_units: Annotated[int, Field(ge=1)] = 200
    chunk: Annotated[int, Field(ge=1)] = 64
    steps: Annotated[int, Field(ge=2)] = 32
    max_completeness: Annotated[float, Field(gt=0)] = 0.02
