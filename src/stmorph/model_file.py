"""model.safetensors and model.json: enough to sample without the training data."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .digests import file_digest
from .errors import ConfigError, DataError, WeightsError, reason_of
from .files import whole
from .methods.base import DataSpec, Method

FORMAT = 1


@dataclass(frozen=True)
class ModelRecord:
    """What model.json says beside the method's options and data: the same run, the same bytes (no times, no machine).

    method: its name in the registry. seed: the run's. config: the whole run as configured.
    digests: of panel, split and code. training: `Trained.record`.
    """

    method: str
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    version: str = ""
    training: dict[str, Any] = field(default_factory=dict)


def save_model(method: Method, record: ModelRecord, path_safetensors: str | Path, path_json: str | Path) -> None:
    """Write a trained method (with its EMA weights) and its record.

    Raises
    ------
    DataError
        The disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    # Clones, because tensors that share memory cannot be stored; sorted by name by safetensors itself.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in method.state_dict().items()}
    with whole(path_safetensors) as path:
        save_file(state, path)
    content = {
        "format": FORMAT,
        "family": method.family,
        **asdict(record),
        "options": method.options.model_dump(mode="json"),
        "spec": asdict(method.spec),
        "weights_sha256": file_digest(path_safetensors),
    }
    with whole(path_json) as path:
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_record(path_json: str | Path) -> dict[str, Any]:
    """Return what model.json says.

    Raises
    ------
    DataError
        The file is missing, damaged or of another format.
    """
    path = Path(path_json)
    try:
        content = json.loads(path.read_text())
        found = content["format"]
    except FileNotFoundError as error:
        raise DataError(f"model record {path} does not exist; train the run first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"model record {path} is damaged ({error}); delete it and train again") from error
    if found != FORMAT:
        raise DataError(f"model record {path} has format {found}; expected {FORMAT}: train again with this version")
    return content


def load_model(
    path_safetensors: str | Path, path_json: str | Path, kind: Callable[[str], type[Method]] | None = None
) -> Method:
    """Return the trained method, on the CPU, ready to draw.

    Parameters
    ----------
    kind
        Gives a method's class by its name; the registry if None.

    Raises
    ------
    DataError
        A file is missing or damaged, or the two are not of the same model.
    ConfigError
        The method does not exist, or its options are no longer those of the record.
    WeightsError
        The weights do not fit the method.
    """
    from pydantic import ValidationError
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if kind is None:
        from .methods.registry import load_method as kind
    record, path = read_record(path_json), Path(path_safetensors)
    if not path.is_file():
        raise DataError(f"weights {path} do not exist; train the run first")
    if file_digest(path) != record["weights_sha256"]:
        raise DataError(f"weights {path} are not those that {path_json} describes; delete both and train again")
    method_class = kind(record["method"])
    try:
        options = method_class.Options(**record["options"])
    except ValidationError as error:
        raise ConfigError(
            f"{path_json}: options of method {record['method']} are not those of this version "
            f"({error.error_count()} wrong); train again"
        ) from error
    spec = DataSpec(**{**record["spec"], "genes": tuple(record["spec"]["genes"])})
    method = method_class(options, spec)
    try:
        state = load_file(path)
        _make_room(method, state)
        method.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"weights {path} do not fit method {record['method']} ({reason_of(error)}); train again"
        ) from error
    return method.eval().requires_grad_(False)


def _make_room(method: Method, state: dict[str, torch.Tensor]) -> None:
    """Give buffers the size that they have in the file: those of a closed-form fit depend on the training units."""
    for name, value in state.items():
        module_name, _, leaf = name.rpartition(".")
        try:
            module = method.get_submodule(module_name)
        except AttributeError:
            continue  # load_state_dict says what is too much
        if leaf in module._buffers and (module._buffers[leaf] is None or module._buffers[leaf].shape != value.shape):
            module._buffers[leaf] = torch.empty_like(value)
