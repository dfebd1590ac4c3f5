"""What was restored is given: the rule that would make it asks for no inputs, so nothing is made for its sake."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.workflow import Workflow
from ..errors import ConfigError, DataError
from ..files import whole
from .contents import KINDS, Kind, differing, study_digests

FOLDER = "restored"


@dataclass(frozen=True)
class Given:
    """The restored files of a study that are still as they were restored, as paths that the rules know."""

    files: frozenset[str] = frozenset()

    def inputs(self, output: str, inputs: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Return the inputs of the job that makes `output`; none where it is given."""
        return {} if output in self.files else dict(inputs)


def read_given(study: Workflow) -> Given:
    """Return what is given in a study.

    Raises
    ------
    ConfigError
        The study or the code is no longer the one for which the files were restored. Snakemake could not know: it has
        no record of how they were made.
    """
    files: set[str] = set()
    results = Path(study.config.results)
    for kind in KINDS:
        mark = read_mark(results, kind)
        kept = unchanged(results, mark["files"])
        if not kept:
            continue
        if parts := differing(study_digests(study, kind), mark["digests"]):
            raise ConfigError(
                f"{results} has {len(kept)} files restored from published {kind} ({kept[0]}, ...), but the study now "
                f"differs in {', '.join(parts)}; put that back, or remove them with: make forget KIND={kind}"
            )
        files |= {study.paths(file) for file in kept}
    return Given(frozenset(files))


def given_or_exit(study: Workflow) -> Given:
    """Return what is given, or leave with one sentence and no traceback."""
    try:
        return read_given(study)
    except (ConfigError, DataError) as error:
        sys.exit(f"stmorph: {error}")


# --- the record of what was restored ----------------------------------------------------------------------------------


def mark_path(results: Path, kind: Kind) -> Path:
    """Return where it is written down what was restored."""
    return results / FOLDER / f"{kind}.json"


def read_mark(results: Path, kind: Kind) -> dict[str, Any]:
    """Return the digests and the files (path -> [size in bytes, time of change in s]) of a restore; empty without one.

    Raises
    ------
    DataError
        The record cannot be read.
    """
    path = mark_path(results, kind)
    try:
        mark = json.loads(path.read_text("utf-8"))
        return {"digests": dict(mark["digests"]), "files": dict(mark["files"])}
    except FileNotFoundError:
        return {"digests": {}, "files": {}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}); remove it and restore the bundle again") from error


def write_mark(results: Path, kind: Kind, digests: Mapping[str, str], files: Mapping[str, list[int]]) -> None:
    """Write down what was restored; without files the record goes."""
    path = mark_path(results, kind)
    if not files:
        path.unlink(missing_ok=True)
        return
    with whole(path) as partial:
        partial.write_text(
            json.dumps({"digests": dict(digests), "files": dict(files)}, indent=1, sort_keys=True) + "\n"
        )


def unchanged(results: Path, files: Mapping[str, Iterable[int]]) -> list[str]:
    """Return which of the restored files are still there with their size and time, sorted."""
    return sorted(file for file, stamp in files.items() if stamp_of(results / file) == list(stamp))


def stamp_of(path: Path) -> list[int] | None:
    """Return size in bytes and time of change in whole seconds, which a copy keeps; None where it has no such time."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns // 10**9] if found.st_mtime_ns % 10**9 == 0 else None
