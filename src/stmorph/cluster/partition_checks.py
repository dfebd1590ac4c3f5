"""Whether the site's partitions exist and take what a study asks for."""

from collections.abc import Iterator, Mapping
from typing import Any

from .asks import PLACE
from .findings import Finding, Wanted, error, job_words, warning
from .memory import most_mb
from .profiles import defaults, partition_limits
from .slurm import Partition, ask, minutes_of


def check_partitions(wanted: Wanted, found: Mapping[str, Partition]) -> Iterator[Finding]:
    """Whether the site's partitions exist and take what the study asks for."""
    limits = partition_limits(wanted.profile)
    named = defaults(wanted.profile, "default-resources").get("slurm_partition")
    of_study = sorted({partition for _, _, partition in wanted.requests if partition})
    for name in dict.fromkeys([*limits, *([named] if named else []), *of_study]):
        if name not in found:
            where = "`resources` of the study or its methods" if name in of_study else "the site's profile"
            yield error("partition", f"{name} does not exist; there are {', '.join(found)}: mend {where}")
        elif not found[name].up:
            yield error("partition", f"{name} is {found[name].fields.get('State')}; take another")
    for name, limit in limits.items():
        if (partition := found.get(name)) is None:
            continue
        if _minutes(limit.get("max_runtime")) > partition.minutes:
            yield error("partition", f"{name} ends jobs after {partition.minutes:g} min; set its max_runtime to that")
        if limit.get("max_gpu", 0) and not partition.gpus:
            yield error("partition", f"{name} has no GPUs; remove its max_gpu")
    if not limits and named is None and not any(partition.default for partition in found.values()):
        yield error("partition", "there is no default one; name yours in the site's profile (slurm-partition-config)")
    gpu = gpu_partitions(wanted.profile, found)
    if wanted.gpus and not gpu:
        yield error("partition", "the study asks for GPUs and no partition of the profile has any; give it max_gpu")
    longest = max(
        (min(found[name].minutes, _minutes(limits.get(name, {}).get("max_runtime"))) for name in gpu), default=0
    )
    if wanted.gpus and gpu and wanted.runtime > longest:
        yield warning(
            "time limit", f"a job asks for {wanted.runtime} min and the longest GPU partition gives {longest:g}; set "
            "that runtime in the method's resources: what is unfinished goes on at the next attempt (retries)"
        )  # fmt: skip
    yield from _check_memory(wanted, limits)


def check_requests(wanted: Wanted, found: Mapping[str, Partition]) -> Iterator[Finding]:
    """Whether SLURM would take the jobs; nothing is submitted."""
    for name in cpu_partitions(wanted.profile, found):
        yield _request(name, job_words(wanted, name), "jobs")
    for name in gpu_partitions(wanted.profile, found):
        words = gpu_words(wanted.profile, max(wanted.gpus, 1))
        yield _request(name, [*job_words(wanted, name), *words], f"GPU jobs ({' '.join(words)})")


def gpu_partitions(profile: Mapping[str, Any], found: Mapping[str, Partition]) -> list[str]:
    """Return the partitions that a job with a GPU may be sent to."""
    if limits := partition_limits(profile):
        return [name for name, limit in limits.items() if limit.get("max_gpu", 0) and name in found]
    named = defaults(profile, "default-resources").get("slurm_partition")
    return [name for name, part in found.items() if part.gpus and (name == named if named else part.default)]


def cpu_partitions(profile: Mapping[str, Any], found: Mapping[str, Partition]) -> list[str]:
    """Return the partitions that a job without a GPU may be sent to."""
    limits = partition_limits(profile)
    plain = [name for name, limit in limits.items() if not limit.get("max_gpu", 0) and name in found]
    named = defaults(profile, "default-resources").get("slurm_partition")
    other = [named] if named in found else [name for name, partition in found.items() if partition.default]
    return plain or [name for name in limits if name in found] or other


def gpu_words(profile: Mapping[str, Any], count: int) -> list[str]:
    """Return how sbatch is asked for GPUs: as the plugin does it."""
    gres, model = defaults(profile, "config").get("gres"), defaults(profile, "default-resources").get("gpu_model")
    if gres:
        return [f"--gres={str(gres).replace(PLACE, str(count))}"]
    return [f"--gpus={model}:{count}" if model else f"--gpus={count}"]


def _check_memory(wanted: Wanted, limits: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    largest: dict[tuple[int, str | None], int] = {}
    for memory, gpu, partition in wanted.requests:
        largest[gpu, partition] = max(largest.get((gpu, partition), 0), memory)
    for (gpu, partition), memory in sorted(largest.items(), key=str):
        most = most_mb(limits, gpu, partition)
        if most is not None and memory > most:
            where = f" in {partition}" if partition else ""
            yield error(
                "memory", f"a job asks for {memory} MB and the largest node{where} with {gpu} GPUs has {most}; set "
                "mem_mb in the method's resources, or name another partition"
            )  # fmt: skip


def _minutes(limit: Any) -> float:
    if limit is None:  # the plugin then sends jobs of any length
        return 0.0
    return float(limit) if isinstance(limit, int | float) else minutes_of(str(limit))


def _request(partition: str, words: list[str], what: str) -> Finding:
    answer = ask("sbatch", "--test-only", *words, "--wrap=true")
    if answer.status == 0:
        return Finding("ok", f"partition {partition}", f"takes {what}")
    return error(f"partition {partition}", f"refuses {what}: {answer.why}; mend the site's profile (docs/cluster.md)")
