"""What jobs will take: measured where such a job has run, else what the rules and methods ask for, an upper bound."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from .jobs import Job
from .past import Benchmarks, Past
from .rules import Asked

Basis = Literal["measured", "scaled", "at most", "not counted"]
"""measured: the benchmark of this very job. scaled: benchmarks of jobs like it, times what this one does more.
at most: its time limit and memory request. not counted: a transfer, which takes as long as the network lets it."""


@dataclass(frozen=True)
class Estimate:
    """What one job takes. size_bytes: of its outputs, None where nothing tells."""

    job: Job
    basis: Basis
    cpu_s: float
    gpu_s: float
    mem_mb: float
    size_bytes: float | None
    done: bool


@dataclass(frozen=True)
class Total:
    """What some jobs take together; memory is that of the largest."""

    jobs: int
    done: int
    cpu_h: float
    gpu_h: float
    mem_mb: float
    size_bytes: float
    sizes_unknown: int
    download_bytes: float
    downloads: int
    downloads_unknown: int
    bases: dict[Basis, int]

    @property
    def bounded(self) -> bool:
        """Whether the hours are an upper bound."""
        return self.bases.get("at most", 0) > 0


def estimate(job: Job, asked: Asked, past: list[Past]) -> Estimate:
    """Return what a job takes, from what it asks for and what it or jobs like it took."""
    outputs = [Path(output) for output in job.outputs]
    done = all(output.is_file() for output in outputs)
    size = _size(job, outputs, done, past)
    if past:
        basis: Basis = "measured" if all(one.same_job for one in past) else "scaled"
        seconds = fmean(one.seconds * one.scale for one in past)
        cpu_s = fmean((one.seconds if one.cpu_seconds is None else one.cpu_seconds) * one.scale for one in past)
        memory = max((one.rss_mb for one in past if one.rss_mb is not None), default=asked.mem_mb)
        return Estimate(job, basis, cpu_s, job.gpu * seconds, memory, size, done)
    if job.rule == "fetch":
        return Estimate(job, "not counted", 0, 0, asked.mem_mb, size, done)
    cpu_s, gpu_s = asked.threads * asked.runtime_s, job.gpu * asked.runtime_s
    return Estimate(job, "at most", cpu_s, gpu_s, asked.mem_mb, size, done)


def estimates(jobs: Iterable[Job], ask: Callable[[Job], Asked], benchmarks: Benchmarks) -> list[Estimate]:
    """Return what each job takes."""
    found = []
    for job in jobs:
        asked = ask(job)
        found.append(estimate(job, asked, benchmarks.of(job, asked.benchmark)))
    return found


def total(parts: Iterable[Estimate]) -> Total:
    """Return what some jobs take together. Downloads are those that are not there yet."""
    parts = list(parts)
    bases: dict[Basis, int] = {}
    for one in parts:
        bases[one.basis] = bases.get(one.basis, 0) + 1
    fetches = [one for one in parts if one.job.rule == "fetch" and not one.done]
    return Total(
        jobs=len(parts),
        done=sum(one.done for one in parts),
        cpu_h=sum(one.cpu_s for one in parts) / 3600,
        gpu_h=sum(one.gpu_s for one in parts) / 3600,
        mem_mb=max((one.mem_mb for one in parts), default=0),
        size_bytes=sum(one.size_bytes or 0 for one in parts),
        sizes_unknown=sum(one.size_bytes is None for one in parts),
        download_bytes=sum(one.size_bytes or 0 for one in fetches),
        downloads=len(fetches),
        downloads_unknown=sum(one.size_bytes is None for one in fetches),
        bases=bases,
    )


def _size(job: Job, outputs: list[Path], done: bool, past: list[Past]) -> float | None:
    if done:
        return sum(output.stat().st_size for output in outputs)
    if all(output in job.sizes for output in job.outputs):
        return sum(job.sizes[output] for output in job.outputs)
    known = [one.size_bytes * (one.scale if job.rule == "sample" else 1) for one in past if one.size_bytes is not None]
    return fmean(known) if known else None
