"""What a study's check found is remembered, so that only the first look at a study imports its methods' libraries.

Every job of a cluster reads the workflow again, on its own node and with its own memory; torch alone would be three
quarters of a gigabyte and seconds each time.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..digests import PACKAGE, digest_of
from ..errors import DataError
from ..files import whole
from .load import Study

FOLDER = Path(".snakemake") / "stmorph"
"""Below the working folder, beside Snakemake's own records."""
_KEPT = 50


@dataclass(frozen=True)
class MethodFacts:
    """What the plan must know of a method's class, without its libraries.

    needs: what it reads of the data. steps: it trains by steps. wants_real: it deals out real tiles.
    """

    needs: tuple[str, ...]
    steps: bool
    wants_real: bool


def method_facts(names: Iterable[str]) -> dict[str, MethodFacts]:
    """Return name -> facts of methods, from their classes."""
    from ..methods.registry import load_method

    kinds = {name: load_method(name) for name in sorted(set(names))}
    return {
        name: MethodFacts(tuple(sorted(kind.needs)), kind.trains == "steps", kind.wants_real)
        for name, kind in kinds.items()
    }


def study_key(study: Study) -> str:
    """Return what the check of a study depends on, as a digest: the study, the library's files, the Python."""
    parts = {"config": {"": study.config}, "datasets": study.datasets, "methods": study.methods, "tables": study.tables}
    said = {kind: {name: one.model_dump(mode="json") for name, one in part.items()} for kind, part in parts.items()}
    files = sorted(PACKAGE.rglob("*.py"))
    stats = [(file.relative_to(PACKAGE).as_posix(), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    return digest_of([sys.version, stats, said])


def remembered(key: str, methods: Iterable[str]) -> dict[str, MethodFacts] | None:
    """Return the facts of a study that was checked before and had no mistakes, or None."""
    try:
        content = json.loads(_path(key).read_text())
        if sorted(content) != sorted(set(methods)):
            return None
        return {name: MethodFacts(**{**facts, "needs": tuple(facts["needs"])}) for name, facts in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def remember(key: str, facts: dict[str, MethodFacts]) -> None:
    """Keep a checked study's facts; where nothing can be written it is checked again next time."""
    with suppress(DataError, OSError):
        with whole(_path(key)) as partial:
            partial.write_text(json.dumps({name: asdict(one) for name, one in facts.items()}, sort_keys=True))
        oldest = sorted(FOLDER.glob("checked-*.json"), key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]
        for path in oldest:
            path.unlink(missing_ok=True)


def _path(key: str) -> Path:
    return FOLDER / f"checked-{key}.json"
