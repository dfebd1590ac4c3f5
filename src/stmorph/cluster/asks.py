"""What a job asks for, in the words of Snakemake's SLURM plugin: the one place that turns the config into them."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..config.check import Problems
from ..config.method_schema import JobConfig
from ..config.plan import Run
from ..config.workflow import Workflow
from ..errors import ConfigError
from ..training.nodes import no_nodes
from .memory import Growth, grown_mb, most_mb, told_to_stop
from .profiles import partition_limits

PLACE = "{gpu}"
WORDS = {
    "partition": "slurm_partition",
    "account": "slurm_account",
    "gpu_model": "gpu_model",
    "constraint": "constraint",
    "qos": "qos",
    "slurm_extra": "slurm_extra",
}
"""Key of the config -> resource of the plugin, of those that stand in a request only where they are given."""
OF_RUNS = ("train", "sample", "score")


@dataclass(frozen=True)
class Asked:
    """What one job asks for. nodes, devices: of a training on several nodes, with `devices` processes on each."""

    config: JobConfig
    cpus: int = 1
    nodes: int = 1
    devices: int = 1

    @property
    def slurm_extra(self) -> str | None:
        """Further words for sbatch; processes and GPUs are spread evenly over the nodes."""
        even = []
        if self.nodes > 1:
            even = [f"--ntasks-per-node={self.devices}"]
            even += [f"--gpus-per-node={self.config.gpu}"] if self.config.gpu else []
        return " ".join(filter(None, [*even, self.config.slurm_extra])) or None


class Asks:
    """Gives each rule its `resources` and `threads`.

    Parameters
    ----------
    study
        Its methods and its `resources` say what jobs ask for.
    gres
        None: GPUs are asked for by `gpu`, which becomes `--gpus=<n>`. For clusters that do not know it: what `--gres`
        is given instead, with `{gpu}` for the number on each node, for example `gpu:a100:{gpu}`.
    site
        The profile's default resources, as Snakemake holds them: what a job is given that asks for nothing of its own.
    executor
        Returns the settings of Snakemake's executor, which it has once the rules are read. Those of SLURM name the
        site's partition file; only the process that submits jobs has them, and it alone asks SLURM.

    Raises
    ------
    ConfigError
        `gres` has no `{gpu}`.
    """

    def __init__(
        self,
        study: Workflow,
        gres: str | None = None,
        site: Mapping[str, Any] | None = None,
        executor: Callable[[], Any] = lambda: None,
    ):
        if gres is not None and (not isinstance(gres, str) or PLACE not in gres):
            raise ConfigError(f"gres is {gres!r}; expected one with {PLACE} for the number, as 'gpu:a100:{PLACE}'")
        self.study, self.gres, self.site, self.growth = study, gres, site or {}, Growth()
        self._most_mb = cache(
            lambda gpu, partition: most_mb(
                partition_limits({"slurm-partition-config": executor().partition_config}), gpu, partition
            )
        )
        self._executor = executor
        self._of_runs: dict[tuple, Asked] = {}

    @classmethod
    def of(cls, workflow: Any, study: Workflow, gres: str | None) -> "Asks":
        """Return what the rules of a Snakemake workflow ask for."""
        site = workflow.resource_settings._parsed_default_resources
        return cls(study, gres, site, lambda: workflow.executor_settings)

    @property
    def submits(self) -> bool:
        """Whether this process submits jobs to SLURM; not known before the rules are read."""
        return hasattr(self._executor(), "partition_config")

    def __call__(
        self, rule: str, log: str | None = None, more_mb: Callable[[Any], int] | None = None, **own: Any
    ) -> dict[str, Any]:
        """Return a rule's resources.

        Parameters
        ----------
        rule
            Its name, in the study's `resources` too.
        log
            Pattern of its log, where a step that is told to stop says so.
        more_mb
            What the input of a run's job, by its wildcards, adds to the memory that its method asks for.
        own
            What its jobs ask for where the config says nothing: values, or functions of the wildcards.
        """

        # Asked several times for each of thousands of jobs: what is the same for all is made once.
        laid, fixed = self._laid(rule), JobConfig(**{k: v for k, v in own.items() if not callable(v)})
        by_wildcards = {key: value for key, value in own.items() if callable(value)}
        same = Asked(laid.over(fixed))
        of_configs = cache(lambda config: config.over(fixed))

        def of_rule(wildcards: Any) -> Asked:
            if not by_wildcards:
                return same
            values = {key: value(wildcards) for key, value in by_wildcards.items()}
            return Asked(laid.over(JobConfig(**values)).over(fixed))

        def of_run(wildcards: Any) -> Asked:
            asked = self._of_run(rule, self.study.run(wildcards))
            return Asked(of_configs(asked.config), asked.cpus, asked.nodes, asked.devices)

        of_runs = rule in OF_RUNS
        every = [self._of_run(rule, run) for run in self.study.plan.runs] if of_runs else [Asked(laid)]
        return self._resources(rule, log, of_run if of_runs else of_rule, every, more_mb or (lambda wildcards: 0))

    def cpus(self, rule: str) -> Callable[[Any], int]:
        """Return a rule's `threads`: CPU cores, of a training on several nodes for each process."""
        if rule in OF_RUNS:
            return lambda wildcards: self._of_run(rule, self.study.run(wildcards)).cpus
        return lambda wildcards: self._laid(rule).cpus or 1

    def leave_without_nodes(self, runs: Iterable[Run]) -> None:
        """End the process where one of the runs, which are to be trained, asks for several nodes and there is no SLURM.

        Not said when the config is read: one who has the trained models makes tables of them on any machine.
        """
        if self.submits or "SLURM_JOB_ID" in os.environ:
            return
        problems = Problems()
        for run in runs:
            if (nodes := self._of_run("train", run).nodes) > 1:
                problems.add(f"methods.{run.method}", str(no_nodes(nodes)))
        problems.leave_if_any()

    def _laid(self, rule: str) -> JobConfig:
        return self.study.config.resources.get(rule, JobConfig())

    def _of_run(self, rule: str, run: Run) -> Asked:
        if (rule, *run.key) not in self._of_runs:
            config, training = self.study.plan.asked(rule, run), run.training
            nodes, devices = (training.get("nodes", 1), training.get("devices", 1)) if rule == "train" else (1, 1)
            threads = 1 if rule == "score" else training.get("cpu_threads", 1) * (devices if nodes == 1 else 1)
            self._of_runs[rule, *run.key] = Asked(config, config.cpus or threads, nodes, devices)
        return self._of_runs[rule, *run.key]

    def _resources(
        self,
        rule: str,
        log: str | None,
        said: Callable[[Any], Asked],
        every: Iterable[Asked],
        more_mb: Callable[[Any], int],
    ) -> dict[str, Any]:
        every = list(every)

        def mem_mb(wildcards: Any, attempt: int) -> int:
            config = said(wildcards).config
            step_log = None if log is None else Path(log.format(**dict(wildcards.items())))
            times = self.growth.times(
                (rule, *wildcards.items()), attempt, lambda: step_log is not None and told_to_stop(step_log)
            )
            limited = times > 1 and self.submits
            first_mb = config.mem_mb + more_mb(wildcards)
            return grown_mb(first_mb, times, self._most_mb(config.gpu or 0, config.partition) if limited else None)

        found: dict[str, Any] = {"mem_mb": mem_mb, "runtime": lambda wildcards: said(wildcards).config.runtime}
        if self.gres is None:
            found["gpu"] = lambda wildcards: (said(wildcards).config.gpu or 0) * said(wildcards).nodes
        else:
            # None is no resource at all: a job without GPUs asks for nothing.
            found["gres"] = lambda wildcards: (
                self.gres.replace(PLACE, str(n)) if (n := said(wildcards).config.gpu) else None
            )
        for key, word in WORDS.items():
            # What no job of the rule asks for stays as the site's profile has it, and a model is one of GPUs.
            if any(_value(asked, key) is not None for asked in every) or (key == "gpu_model" and word in self.site):
                found[word] = self._or_sites(key, word, said)
        if any(asked.nodes > 1 for asked in every):
            found |= _several(said)
        return found

    def _or_sites(self, key: str, word: str, said: Callable[[Any], Asked]) -> Callable[..., Any]:
        # Snakemake gives a function what it names.
        def value(wildcards: Any, attempt: int, threads: int, input: Any, rulename: str, async_run: Any) -> Any:
            asked = said(wildcards)
            if key == "gpu_model" and not asked.config.gpu:
                return None
            own = _value(asked, key)
            if own is not None or word not in self.site:
                return own
            at_hand = {"attempt": attempt, "threads": threads, "input": input, "rulename": rulename}
            return self.site[word].evaluate(wildcards, **at_hand, async_run=async_run).value

        return value


def _value(asked: Asked, key: str) -> str | None:
    return asked.slurm_extra if key == "slurm_extra" else getattr(asked.config, key)


def _several(said: Callable[[Any], Asked]) -> dict[str, Callable[[Any], Any]]:
    """Return the resources of a job on several nodes.

    `mpi` makes the plugin start Snakemake in the batch step itself, outside any `srun`: the training then starts its
    processes by an srun of its own, which has all of the job.
    """

    def only(value: Callable[[Asked], Any]) -> Callable[[Any], Any]:
        return lambda wildcards: value(asked) if (asked := said(wildcards)).nodes > 1 else None

    return {
        "nodes": only(lambda asked: asked.nodes),
        "tasks": only(lambda asked: asked.nodes * asked.devices),
        "tasks_per_gpu": only(lambda asked: 0),  # else the plugin takes `tasks` for it
        "mpi": only(lambda asked: "srun"),
    }
