"""What jobs took before: Snakemake's benchmark files of this study and of those beside it."""

import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ..config.plan import Run
from ..methods.registry import load_method
from .jobs import Job, filled

FREE = frozenset({"slide", "split", "panel", "label", "seed", "table"})
"""Wildcards in which another job may differ and still tell something; data set, tiling and encoder must be the same."""

SAME_TRAINING = ("batch_size", "views", "precision", "cpu_threads", "devices")


@dataclass(frozen=True)
class Past:
    """One finished job. scale: how many times its work the job in question has."""

    seconds: float
    cpu_seconds: float | None
    rss_mb: float | None
    size_bytes: int | None
    same_job: bool
    scale: float


class Benchmarks:
    """The benchmark files below a study's results folder and the folders beside it."""

    def __init__(self, results: str):
        self.own = Path(results)

    @cached_property
    def folders(self) -> list[Path]:
        """The results folders with benchmarks, the study's own first."""
        beside = sorted(path.parent for path in self.own.parent.glob("*/benchmarks"))
        return [self.own, *(path for path in beside if path != self.own)]

    def of(self, job: Job, pattern: str | None) -> list[Past]:
        """Return what is known of a job: its own benchmark, or those that are like it.

        Parameters
        ----------
        pattern
            Path of the rule's benchmark, with wildcards.
        """
        if pattern is None:
            return []
        pattern = re.sub(r"\{(\w+),[^{}]*\}", r"{\1}", pattern)
        own = Path(filled(pattern, job.wildcards))
        if own.is_file() and (found := self._past(job, own, self.own, job.wildcards, True)):
            return [found]
        if not Path(pattern).is_relative_to(self.own):
            return []
        # Without a data set in its name, a file of another study tells nothing: a figure may show any.
        told = "dataset" in job.wildcards or job.rule.startswith("simulate_")
        alike = []
        for folder, path, wildcards in self._like(Path(pattern).relative_to(self.own).as_posix()):
            same = all(wildcards[name] == value for name, value in job.wildcards.items() if name not in FREE)
            if same and (told or folder == self.own):
                alike += filter(None, [self._past(job, path, folder, wildcards, False)])
        return alike

    @cache  # noqa: B019 the object lives as long as the process
    def _like(self, pattern: str) -> tuple[tuple[Path, Path, dict[str, str]], ...]:
        parts = re.split(r"\{(\w+)\}", pattern)
        expression = "".join(f"(?P<{p}>[^/]+)" if i % 2 else re.escape(p) for i, p in enumerate(parts))
        wildcard = "".join("*" if i % 2 else p for i, p in enumerate(parts))
        found = []
        for folder in self.folders:
            for path in sorted(folder.glob(wildcard)):
                if match := re.fullmatch(expression, path.relative_to(folder).as_posix()):
                    found.append((folder, path, match.groupdict()))
        return tuple(found)

    def _past(self, job: Job, path: Path, folder: Path, wildcards: Mapping[str, str], same: bool) -> Past | None:
        scale = 1.0 if job.run is None else _scale(job, job.run, folder, wildcards)
        row = read_benchmark(path)
        if scale is None or row is None:
            return None
        outputs = [_moved(filled(pattern, wildcards), self.own, folder) for pattern in job.patterns]
        there = all(output.is_file() for output in outputs)
        size = sum(output.stat().st_size for output in outputs) if there else None
        return Past(row["s"], row.get("cpu_time"), row.get("max_rss"), size, same and scale == 1, scale)


def read_benchmark(path: Path) -> dict[str, float] | None:
    """Return the last row of a benchmark file, numbers only (s, cpu_time in seconds; max_rss in MB); None if broken."""
    try:
        lines = path.read_text("utf-8").splitlines()
        row = dict(_numbers(zip(lines[0].split("\t"), lines[-1].split("\t"))))
    except (OSError, IndexError, UnicodeDecodeError):
        return None
    return row if len(lines) > 1 and "s" in row else None


def _numbers(cells: Iterator[tuple[str, str]]) -> Iterator[tuple[str, float]]:
    for name, text in cells:
        try:
            number = float(text)
        except ValueError:
            continue  # `-` and `NA`: a job too short to be looked at
        if math.isfinite(number):
            yield name, number


def _moved(path: str, own: Path, folder: Path) -> Path:
    return folder / Path(path).relative_to(own) if Path(path).is_relative_to(own) else Path(path)


def _scale(job: Job, run: Run, folder: Path, wildcards: Mapping[str, str]) -> float | None:
    """Return how many times the work of a past run a run's job has; None where the two cannot be compared."""
    folder, key = folder.resolve(), tuple(wildcards.values())
    record = _record(folder, key)
    if record is None:
        return None
    config, device = record
    training = config["training"]
    if job.rule == "score":  # knows nothing of the method but its draws
        same = all(config.get(key) == getattr(run, key) for key in ("family", "tiles"))
    else:
        same = all(config.get(key) == getattr(run, key) for key in ("method", "options", "tiles", "encoder"))
        same &= all(training.get(key) == run.training.get(key) for key in SAME_TRAINING)
        same &= (device == "cpu") == (job.gpu == 0)
    if not same:
        return None
    if job.rule == "train":
        return run.training["steps"] / training["steps"] if "steps" in run.training and "steps" in training else 1.0
    drawn = _drawn(folder, key)
    if drawn is None:
        return None
    draws, units, test_units = drawn
    ours = min(run.sampling["max_units"] or test_units, test_units)
    if load_method(run.method).wants_real:  # deals out the other half
        ours = min(ours, test_units // 2)
    return run.sampling["draws"] * ours / (draws * units)


@cache
def _record(folder: Path, key: tuple[str, ...]) -> tuple[dict[str, Any], str] | None:
    """Return the config of a past run and the device on which it was trained."""
    place = _run_folder(folder, (*key[:3], key[3].removesuffix("-shuffled"), key[4]))
    try:
        config = json.loads((place / "model.json").read_text("utf-8"))["config"]
        device = json.loads((place / "provenance.json").read_text("utf-8"))["device"]
        return (config, str(device)) if {"training", "method"} <= set(config) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@cache
def _drawn(folder: Path, key: tuple[str, ...]) -> tuple[int, int, int] | None:
    """Return draws, sampled units and test units of a past run; without reading an array."""
    try:
        with zipfile.ZipFile(_run_folder(folder, key) / "samples.zarr.zip") as store:
            attributes = json.loads(store.read("zarr.json"))["attributes"]
            units = json.loads(store.read("barcode/zarr.json"))["shape"][0]
        return (int(attributes["draws"]), int(units), int(attributes["test_units"])) if units else None
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, IndexError, TypeError):
        return None


def _run_folder(folder: Path, key: tuple[str, ...]) -> Path:
    """Return a run's folder; the key is data set, split, panel, label and seed."""
    return folder.joinpath("runs", *key[:4], f"seed{key[4]}")
