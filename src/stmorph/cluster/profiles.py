"""The profiles of a run, laid over each other as Snakemake does it, and what they say about partitions and GPUs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError

NAMES = ("profile.yaml", "config.yaml")


def read_profiles(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the settings of several profiles; a key of a later one replaces the whole key.

    Raises
    ------
    ConfigError
        A folder has no profile, or it is no mapping.
    """
    merged: dict[str, Any] = {}
    for folder in folders:
        file = next((folder / name for name in NAMES if (folder / name).is_file()), None)
        if file is None:
            raise ConfigError(f"{folder} has no {' or '.join(NAMES)}; give the folder of a Snakemake profile")
        content = yaml.safe_load(file.read_text()) or {}
        if not isinstance(content, dict):
            raise ConfigError(f"{file} is {type(content).__name__}; expected a mapping of Snakemake's options")
        # A path that lies beside the profile is meant from there.
        merged |= {key: _beside(folder, value) for key, value in content.items()}
    return merged


def defaults(profile: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a profile's `key=value` settings (default-resources, config), written as a mapping or as a list."""
    value = profile.get(key) or {}
    if isinstance(value, Mapping):
        return dict(value)
    return {name: given for name, _, given in (str(item).partition("=") for item in value)}


def partition_limits(profile: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return partition -> limits from the site's partition file; empty without one.

    Raises
    ------
    ConfigError
        The file is missing or has no `partitions`.
    """
    file = profile.get("slurm-partition-config")
    if file is None:
        return {}
    if not Path(file).is_file():
        raise ConfigError(f"slurm-partition-config is {file}; there is no such file beside the profile or here")
    content = yaml.safe_load(Path(file).read_text())
    if not isinstance(content, dict) or not isinstance(content.get("partitions"), dict):
        raise ConfigError(f"{file} has no mapping `partitions`; expected a partition a key, with its limits")
    return {name: dict(limits or {}) for name, limits in content["partitions"].items()}


def _beside(folder: Path, value: Any) -> Any:
    return str(folder / value) if isinstance(value, str) and value and (folder / value).exists() else value
