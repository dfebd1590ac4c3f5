"""Finds a network's weights (a file, a folder in the hub's own layout, or the hub) and reads them."""

import pickle
from pathlib import Path

from ..errors import WeightsError
from .facts import Facts


def locate(name: str, facts: Facts, weights: str | Path | None = None, revision: str = "main") -> Path:
    """Return the path of the weights file of encoder `name`.

    Parameters
    ----------
    weights
        A file; a folder that holds one of `facts.files`; a hub cache (`models--owner--name/snapshots/...`) or the
        folder above it. None: the Hugging Face hub, with the token of HF_TOKEN or of the cached login.
    revision
        Branch, tag or commit on the hub.

    Raises
    ------
    WeightsError
        The weights are absent, gated for this user, or cannot be reached.
    """
    return _download(name, facts, revision) if weights is None else _in_folder(name, facts, Path(weights).expanduser())


def _in_folder(name: str, facts: Facts, path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise WeightsError(
            f"weights of encoder {name}: {path} does not exist; give a file or a folder that holds {facts.files[0]}, "
            f"or leave the option out to download from {facts.page}"
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


def _download(name: str, facts: Facts, revision: str) -> Path:
    from huggingface_hub import errors, hf_hub_download

    elsewhere = "or give a local copy by the encoder's option `weights`"
    try:
        for file in facts.files:
            try:
                return Path(hf_hub_download(facts.hub_id, file, revision=revision))
            except errors.RemoteEntryNotFoundError:
                continue
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"weights of encoder {name} are gated: accept the conditions at {facts.page}, then set HF_TOKEN to a token "
            f"of that account (https://huggingface.co/settings/tokens), {elsewhere}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"weights of encoder {name}: the hub does not show {facts.hub_id} to this user; look at {facts.page} and "
            f"check that HF_TOKEN is a valid token, {elsewhere}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(
            f"weights of encoder {name}: {facts.hub_id} has no revision {revision}; choose one that is listed at "
            f"{facts.page}/commits, {elsewhere}"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        # The hub's library wraps a refusal that it does not know into "not in the local cache".
        refusal = error if isinstance(error, errors.HfHubHTTPError) else error.__cause__
        answer = getattr(refusal, "response", None)
        if answer is not None:
            cure = (
                "set HF_TOKEN to a valid token that may read it"
                if answer.status_code in (401, 403)
                else "try again later"
            )
            raise WeightsError(
                f"weights of encoder {name}: the hub answered {answer.status_code} for {facts.page}; {cure}, "
                f"{elsewhere}"
            ) from error
        raise WeightsError(
            f"weights of encoder {name} are not in the local cache and {facts.page} cannot be reached; connect to the "
            f"network (and unset HF_HUB_OFFLINE) once, {elsewhere}"
        ) from error
    raise WeightsError(
        f"weights of encoder {name}: {facts.page} has none of {', '.join(facts.files)}; name another `revision`, "
        f"{elsewhere}"
    )


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
