"""What a method's YAML may say, and what any job may ask of the machine or the cluster."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ..expression import TargetSpace
from .closed import Closed, Name

JobRule = Literal[
    "unpack", "simulate", "slide", "tiles", "channels", "quality_page", "embedding", "split", "panel", "score",
    "importance", "enrichment", "figure", "unpaired_tiles",
]  # fmt: skip
"""Rules whose jobs run on a cluster, but training and sampling: what these ask for is the method's."""


class SamplingConfig(Closed):
    """How a trained method is drawn from."""

    draws: Annotated[int, Field(ge=1)] = 1
    chunk: Annotated[int, Field(ge=1)] = 64
    max_units: Annotated[int, Field(ge=1)] | None = None


class JobConfig(Closed):
    """What jobs of a kind ask for; what is not given stays as the rule, the method or the site's profile has it.

    gpu, mem_mb: on each node. partition, account, gpu_model, constraint, qos: as the cluster calls them.
    slurm_extra: further words for sbatch.
    """

    mem_mb: Annotated[int, Field(ge=100)] | None = None
    runtime: Annotated[int, Field(ge=1)] | None = None
    gpu: Annotated[int, Field(ge=0)] | None = None
    cpus: Annotated[int, Field(ge=1)] | None = None
    partition: str | None = None
    account: str | None = None
    gpu_model: str | None = None
    constraint: str | None = None
    qos: str | None = None
    slurm_extra: str | None = None

    def over(self, other: "JobConfig") -> "JobConfig":
        """Return this laid over another: its own values where it has them."""
        values = {key: getattr(self, key) for key in JobConfig.model_fields}
        return JobConfig(**{key: getattr(other, key) if value is None else value for key, value in values.items()})


class ResourceConfig(JobConfig):
    """What a training job of the method asks for; `sampling` is laid over it, `scoring` over the rule's own."""

    mem_mb: Annotated[int, Field(ge=100)] = 3000
    runtime: Annotated[int, Field(ge=1)] = 60
    gpu: Annotated[int, Field(ge=0)] = 0
    sampling: JobConfig = JobConfig()
    scoring: JobConfig = JobConfig()


class MethodConfig(Closed):
    """`config/methods/<name>.yaml`; `scales` are presets merged over the rest."""

    title: str
    family: Literal["generator", "predictor"]
    description: str
    citation: str = ""
    options: dict[str, Any] = {}
    training: dict[str, Any] = {}
    sampling: SamplingConfig = SamplingConfig()
    resources: ResourceConfig = ResourceConfig()
    target_space: TargetSpace = "log1p_cp10k"
    encoder: Name | None = None
    scales: dict[Literal["full", "small", "smoke"], dict[str, Any]] = {}
