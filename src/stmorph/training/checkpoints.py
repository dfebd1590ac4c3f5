"""What a killed run needs to go on, in a folder of its own outside the workflow's outputs."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch

from ..digests import file_digest
from ..errors import CheckpointError, DataError, reason_of
from ..files import whole

log = logging.getLogger(__name__)
KEPT = 2


class Checkpoints:
    """The checkpoints of one run: `step-<k>.pt` (tensors) and `step-<k>.json` (step, identity, sha256 of the tensors).

    The .json is written last, so a checkpoint without one never happened.

    Parameters
    ----------
    folder
        Holds nothing else.
    identity
        What the weights depend on (digests of config, panel, split, code). Checkpoints of another identity are removed.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self.folder = Path(folder)
        self.identity = json.loads(json.dumps(identity, default=str))
        self.why_anew = ""
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` steps and drop all but the last two checkpoints.

        Raises
        ------
        DataError
            The disk is full or the folder cannot be written.
        """
        tensors, record = self._paths(step)
        try:
            with whole(tensors) as path:
                torch.save(state, path)
        except RuntimeError as error:  # so torch calls a full disk
            raise DataError(
                f"checkpoint {tensors} could not be written ({reason_of(error)}); free space and run again"
            ) from error
        content = {"step": step, "identity": self.identity, "sha256": file_digest(tensors), "saved": time.time()}
        with whole(record) as path:
            path.write_text(json.dumps(content, indent=1))
        kept = {path.stem for path in self._records()[:KEPT]}
        for path in [*self.folder.glob("step-*.json"), *self.folder.glob("step-*.pt")]:
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all checkpoints and the growing table of losses, once the model they led to is safe."""
        for path in [*self.folder.glob("step-*.json"), *self.folder.glob("step-*.pt"), self.folder / "losses.csv"]:
            path.unlink(missing_ok=True)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """Return the step and the state of the newest checkpoint that is whole and of this run; None: begin anew.

        `why_anew` then says why.

        Raises
        ------
        CheckpointError
            There are checkpoints, but none can be read.
        """
        damaged, refused = [], []
        for record in self._records():
            try:
                content = json.loads(record.read_text())
                step, identity, sha256 = content["step"], content["identity"], content["sha256"]
            except FileNotFoundError:  # another process of this training has refused and removed it
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                damaged.append(self._warn(record, error))
                continue
            if changed := self._changed(identity):
                refused.append(f"{record} belongs to another run ({changed} changed)")
                log.warning("%s and is removed", refused[-1])
                self._remove(record)
                continue
            tensors = record.with_suffix(".pt")
            try:
                if file_digest(tensors) != sha256:
                    raise ValueError(f"sha256 is not {sha256}")
                return step, torch.load(tensors, map_location="cpu", weights_only=True)
            except Exception as error:  # a damaged pickle raises anything
                damaged.append(self._warn(tensors, error))
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be read ({', '.join(path.name for path in damaged)} damaged); "
                "delete the folder to train from the beginning"
            )
        self.why_anew = (refused or self._elsewhere() or [f"there is no checkpoint in {self.folder}"])[0]
        return None

    def path(self, step: int) -> Path:
        """Return where the tensors of a checkpoint lie."""
        return self._paths(step)[0]

    def _changed(self, identity: dict[str, Any]) -> str:
        keys = identity.keys() | self.identity.keys()
        return ", ".join(sorted(key for key in keys if identity.get(key) != self.identity.get(key)))

    def _elsewhere(self) -> list[str]:
        """Return why checkpoints of the same run before a change are of no use: its folders differ in a last digest."""
        found = []
        family = self.folder.name.rpartition("-")[0]
        for record in sorted(self.folder.parent.glob(f"{family}-*/step-*.json"), reverse=True) if family else []:
            try:
                identity = json.loads(record.read_text())["identity"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if identity.get("seed") == self.identity.get("seed") and not (record.parent / "owner.json").exists():
                found.append(f"{record} belongs to another run ({self._changed(identity)} changed)")
        return found

    def _warn(self, path: Path, error: Exception) -> Path:
        log.warning("checkpoint %s is damaged (%s); trying the one before", path, error)
        return path

    def _remove(self, record: Path) -> None:
        record.unlink(missing_ok=True)
        record.with_suffix(".pt").unlink(missing_ok=True)

    def _paths(self, step: int) -> tuple[Path, Path]:
        return self.folder / f"step-{step:09d}.pt", self.folder / f"step-{step:09d}.json"

    def _records(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.json"), reverse=True)
