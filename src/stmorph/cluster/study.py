"""What a study will ask a cluster for."""

from pathlib import Path
from typing import Any

import yaml

from ..config.workflow import open_study


def study_asks(configfile: Path) -> dict[str, Any]:
    """Return the most GPUs and minutes that a job asks for, and the variables that gated data sets need.

    Raises
    ------
    ConfigError
        The study has mistakes.
    """
    study = open_study(yaml.safe_load(configfile.read_text()), Path(__file__).resolve().parents[3])
    resources = [study.plan.resources(run) for run in study.plan.runs]
    gates = {name: getattr(dataset, "gate", None) for name, dataset in study.study.datasets.items()}
    return {
        "gpus": max((one.gpu for one in resources), default=0),
        "runtime": max((one.runtime for one in resources), default=0),
        "tokens": {gate.variable: name for name, gate in sorted(gates.items()) if gate is not None},
    }
