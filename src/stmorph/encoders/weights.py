"""Finds a network's weights (a file, a folder in the hub's own layout) and reads them; nothing is downloaded here."""

import pickle
from pathlib import Path

from ..errors import WeightsError
from .facts import Facts


def locate(name: str, facts: Facts, weights: str | Path | None) -> Path:
    """Return the path of the weights file of encoder `name`.

    Parameters
    ----------
    weights
        A file; a folder that holds one of `facts.files`; a hub cache (`models--owner--name/snapshots/...`) or the
        folder above it.

    Raises
    ------
    WeightsError
        The weights are absent, or nothing says where they are: here nothing is downloaded.
    """
    if weights is None:
        raise WeightsError(
            f"weights of encoder {name} are not given; name a file by the option `weights` (published at "
            f"{facts.page}), or run the workflow, which fetches them"
        )
    return _in_folder(name, facts, Path(weights).expanduser())


def _in_folder(name: str, facts: Facts, path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise WeightsError(
            f"weights of encoder {name}: {path} does not exist; give a file or a folder that holds {facts.files[0]}, "
            f"or leave the option out: they are fetched from {facts.page}"
        )
    cache = path / f"models--{facts.hub_id.replace('/', '--')}"
    folders = [path, *(snapshot for root in (path, cache) for snapshot in _snapshots(root))]
    for folder in folders:
        for file in facts.files:
            if (folder / file).is_file():
                return folder / file
    found = sorted(p.name for p in path.iterdir())
    raise WeightsError(
        f"weights of encoder {name}: {path} holds {', '.join(found[:5]) or 'nothing'} where one of "
        f"{', '.join(facts.files)} was expected; download it from {facts.page} into that folder"
    )


def _snapshots(root: Path) -> list[Path]:
    """Snapshots of a hub cache, the one that `main` points to first."""
    snapshots = sorted(p for p in (root / "snapshots").glob("*") if p.is_dir())
    main = root / "refs" / "main"
    current = main.read_text().strip() if main.is_file() else ""
    return sorted(snapshots, key=lambda p: p.name != current)


def read_state(name: str, path: Path) -> dict:
    """Return the tensors of a weights file by key, on the CPU; no code stored in the file is run.

    Raises
    ------
    WeightsError
        The file is damaged or holds something else than tensors by key.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(_damaged(name, path, type(error).__name__)) from error
    except Exception as error:  # safetensors raises a class of its own that is no subclass of the above
        if type(error).__name__ != "SafetensorError":
            raise
        raise WeightsError(_damaged(name, path, "SafetensorError")) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(_damaged(name, path, f"it holds a {type(state).__name__} without tensors"))
    return state


def _damaged(name: str, path: Path, why: str) -> str:
    return (
        f"weights of encoder {name}: {path} cannot be read as tensors by key ({why}); it is damaged or another kind of "
        "file, so download it again"
    )
