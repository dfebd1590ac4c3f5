"""What a job asks for and where its benchmark is written: asked of Snakemake's own rules, so that it stands once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .jobs import Job


@dataclass(frozen=True)
class Asked:
    """The limits of a job. runtime_s and mem_mb bound it from above; `benchmark` still has its wildcards."""

    threads: int
    runtime_s: float
    mem_mb: float
    benchmark: str | None


def asker(workflow: Any) -> Callable[[Job], Asked]:
    """Return what tells a job's limits, of its first attempt and apart from what this machine has."""
    from snakemake.iocontainers import Wildcards

    def ask(job: Job) -> Asked:
        rule = workflow.get_rule(job.rule)
        wildcards = Wildcards(fromdict=dict(job.wildcards))

        def value(name: str) -> float:
            resource = rule.resources.get(name)
            if resource is None:
                return 0
            return float(resource.evaluate(wildcards, attempt=1, threads=1, input=[], rulename=job.rule).value or 0)

        memory = value("mem") or value("mem_mb")
        benchmark = None if rule.benchmark is None else str(rule.benchmark)
        return Asked(int(value("_cores")) or 1, 60 * value("runtime"), memory, benchmark)

    return ask
