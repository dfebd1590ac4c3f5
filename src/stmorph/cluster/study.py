"""What a study will ask a cluster for."""

from pathlib import Path
from typing import Any

import yaml

from ..config.plan import Plan
from ..config.workflow import open_study


def study_asks(configfile: Path) -> dict[str, Any]:
    """Return what the study's jobs ask for, and the variables that gated files need.

    Raises
    ------
    ConfigError
        The study has mistakes.
    """
    study = open_study(yaml.safe_load(configfile.read_text()), Path(__file__).resolve().parents[3])
    study.at_hand(list(study.missing))
    gated = [(path, source.gate) for path, source in sorted(study.fetched.items()) if source.gate is not None]
    return job_asks(study.plan) | {"tokens": {gate.variable: path for path, gate in gated}}


def job_asks(plan: Plan) -> dict[str, Any]:
    """Return the most GPUs and minutes that a training asks for, and the (memory, GPUs, partition) of all jobs."""
    training = [plan.asked("train", run) for run in plan.runs]
    others = [plan.asked(rule, run) for rule in ("sample", "score") for run in plan.runs]
    return {
        "gpus": max((one.gpu for one in training), default=0),
        "runtime": max((one.runtime for one in training), default=0),
        "requests": {
            (one.mem_mb or 0, one.gpu or 0, one.partition)
            for one in (*training, *others, *plan.config.resources.values())
        },
    }
