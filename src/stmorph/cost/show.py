"""The cost as text: a table for a target, rule by rule, and one of all targets."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..bundle.given import Given
from ..config.downloads import human
from ..config.workflow import Workflow
from .estimate import Estimate, Total, estimates, total
from .jobs import jobs_of, study_jobs
from .past import Benchmarks
from .rules import asker

COLUMNS = ("jobs", "there", "CPU hours", "GPU hours", "memory of a job", "disk", "how it is known")
EXPLAINED = """measured: by Snakemake's benchmark of that very job.
scaled: from benchmarks of the same rule and data set, for runs also the same method, options and kind of device, by
  training steps and draws.
at most: nothing like it has run here; these are the time limits (`runtime`) and memory requests of rules and methods,
  and a sum with them is marked <=.
there: jobs whose files are there already; the other numbers are for all jobs.
?: sizes that nothing tells before a first run."""


def cost_text(study: Workflow, given: Given, workflow: Any, target: str | None = None) -> str:
    """Return what a target costs, rule by rule; without one, all of the study, and then each target.

    Parameters
    ----------
    workflow
        Snakemake's workflow object, whose rules say what a job asks for.
    """
    makers = study_jobs(study, given)
    targets = {name: files for name, (_, files) in study.targets.items()}
    files = [file for some in targets.values() for file in some] if target is None else targets[target]
    every = estimates(jobs_of(files, makers), asker(workflow), Benchmarks(study.config.results))
    name = f"all of {study.config.name}" if target is None else target
    parts = [study.config.title, "", f"What {name} costs, at scale {study.config.scale}:", "", by_rule(every)]
    if target is None:
        known = {id(one.job): one for one in every}
        rows = [["all", *_cells(total(every))]]
        for one, some in targets.items():
            rows.append([one, *_cells(total(known[id(job)] for job in jobs_of(some, makers)))])
        parts += ["", "Every target by itself (they share jobs):", "", _table(("target", *COLUMNS, "to fetch"), rows)]
    else:
        parts += ["", f"To fetch: {_downloads(total(every))}"]
    return "\n".join([*parts, "", EXPLAINED])


def by_rule(every: Sequence[Estimate]) -> str:
    """Return the table of some jobs, a line a rule, and their sum."""
    rules: dict[str, list[Estimate]] = {}
    for one in sorted(every, key=lambda one: one.job.rule):
        rules.setdefault(one.job.rule, []).append(one)
    rows = [[rule, *_cells(total(some))[:-1]] for rule, some in rules.items()]
    rows.append(["all rules", *_cells(total(every))[:-1]])
    return _table(("rule", *COLUMNS), rows)


def _cells(sums: Total) -> list[str]:
    mark = "<= " if sums.bounded else ""
    return [
        str(sums.jobs),
        str(sums.done),
        mark + _hours(sums.cpu_h),
        (mark if sums.gpu_h else "") + _hours(sums.gpu_h),
        human(sums.mem_mb * 1e6),
        _size(sums.size_bytes, sums.sizes_unknown, sums.jobs, "jobs"),
        ", ".join(f"{sums.bases[basis]} {basis}" for basis in sorted(sums.bases)),
        _downloads(sums),
    ]


def _hours(hours: float) -> str:
    return "0" if hours == 0 else f"{hours:.3f}" if hours < 0.1 else f"{hours:.1f}" if hours < 100 else f"{hours:.0f}"


def _size(size_bytes: float, unknown: int, all_of_them: int, what: str) -> str:
    if unknown == all_of_them:
        return "?"
    return human(round(size_bytes)) + (f" + ? of {unknown} {what}" if unknown else "")


def _downloads(sums: Total) -> str:
    if not sums.downloads:
        return "nothing"
    return f"{sums.downloads} files, {_size(sums.download_bytes, sums.downloads_unknown, sums.downloads, 'files')}"


def _table(head: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]])
