"""Reads a bundle: every checksum first, then all of it in place, and nothing of one's own overwritten unasked."""

import hashlib
import os
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from ..config.workflow import Workflow
from ..digests import file_digest
from ..errors import ConfigError, DataError
from .contents import MANIFEST, Kind, Manifest, Member, bundle_files, differing, study_digests
from .given import mark_path, read_mark, unchanged, write_mark

CHUNK = 2**20
LARGEST_MANIFEST = 2**26


@dataclass(frozen=True)
class Restored:
    """What a restore did: the files put in place, and those that were there with the same content."""

    kind: Kind
    placed: list[str]
    kept: list[str]


def restore(path: str | Path, study: Workflow, overwrite: bool = False, any_code: bool = False) -> Restored:
    """Check a bundle and put its files into the study's results folder.

    Everything is verified in a folder beside the results before the first file is put in place; a restore that was
    killed is finished by a second one.

    Parameters
    ----------
    path
        The bundle.
    study
        The study of this checkout; the bundle must be of the same.
    overwrite
        Replace files that are there with other content.
    any_code
        Take a bundle that other code made.

    Raises
    ------
    DataError
        The file is no bundle, is damaged, holds what does not belong to the study, or would overwrite other files.
    ConfigError
        It is of another config or of other code; the sentence says what differs.
    """
    path, results = Path(path), Path(study.config.results)
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the path of a bundle") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a whole bundle ({error}); download it again") from error
    with archive:
        manifest = read_manifest(archive, path)
        digests = _check_study(manifest, study, path, any_code)
        _check_members(archive, manifest, study, path)
        staging = results / ".partial-restore"
        shutil.rmtree(staging, ignore_errors=True)  # of a restore that was killed
        try:
            _extract(archive, manifest, staging, path)
            return _place(manifest, staging, results, digests, overwrite)
        except OSError as error:
            raise DataError(
                f"{results} could not be written ({error.strerror or error}); free space or mend the folder's rights "
                "and restore again"
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def forget(study: Workflow, kind: Kind) -> list[str]:
    """Remove the restored files of a kind that are still as they were restored; return them."""
    results = Path(study.config.results)
    removed = unchanged(results, read_mark(results, kind)["files"])
    for file in removed:
        (results / file).unlink()
    mark_path(results, kind).unlink(missing_ok=True)
    return removed


def read_manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    """Return what a bundle says of itself.

    Raises
    ------
    DataError
        It has no manifest, or one of another format.
    """
    try:
        if archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
            raise ValueError("it is too large")
        return Manifest.model_validate_json(archive.read(MANIFEST))
    except KeyError as error:
        raise DataError(f"{path} has no {MANIFEST}; give a bundle that `snakemake archive` wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: {MANIFEST} is not as expected ({where}: {first['msg']}); give a bundle of this version of stmorph"
        ) from error
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: {MANIFEST} cannot be read ({error}); download the bundle again") from error


def _check_study(manifest: Manifest, study: Workflow, path: Path, any_code: bool) -> dict[str, str]:
    digests = study_digests(study, manifest.kind)
    if manifest.study != study.config.name:
        raise ConfigError(
            f"{path} is of study {manifest.study!r}, this config is {study.config.name!r}; name the other with CONFIG"
        )
    parts = differing(digests, manifest.digests)
    if config := [part for part in parts if part != "code"]:
        told = ", ".join(f"{part} ({manifest.digests.get(part)}, here {digests.get(part)})" for part in config)
        raise ConfigError(f"{path} was made with another config, which differs in {told}; restore it with that config")
    if parts and not any_code:
        raise ConfigError(
            f"{path} was made by other code (commit {manifest.commit}): {manifest.digests.get('code')}, here "
            f"{digests['code']}; check out that commit, or take it as it is with ANY_CODE=1"
        )
    return digests


def _check_members(archive: zipfile.ZipFile, manifest: Manifest, study: Workflow, path: Path) -> None:
    named = [member.path for member in manifest.files]
    expected = set(bundle_files(study, manifest.kind))
    for name in [*archive.namelist(), *named]:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or str(pure) != name:
            raise DataError(f"{path} holds {name!r}, which would lie outside the results; nothing was restored")
    if sorted(archive.namelist()) != sorted([MANIFEST, *named]) or len(set(named)) < len(named):
        odd = sorted(set(archive.namelist()) ^ {MANIFEST, *named}) or ["a file twice"]
        raise DataError(f"{path}: {odd[0]!r} is not in both the archive and its manifest once; download it again")
    if wrong := sorted(set(named) ^ expected):
        raise DataError(
            f"{path} and the study do not agree on {wrong[0]!r} (and {len(wrong) - 1} more); "
            "give a bundle of the whole study"
        )


def _extract(archive: zipfile.ZipFile, manifest: Manifest, staging: Path, path: Path) -> None:
    for member in manifest.files:
        target = staging / member.path
        target.parent.mkdir(parents=True, exist_ok=True)
        sha256, left = hashlib.sha256(), member.size_bytes
        try:
            with archive.open(member.path) as source, target.open("wb") as file:
                while data := source.read(min(CHUNK, left + 1)):
                    sha256.update(data)
                    left -= len(data)
                    if left < 0:
                        break
                    file.write(data)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{path}: {member.path} is damaged ({error}); download the bundle again") from error
        if left or sha256.hexdigest() != member.sha256:
            raise DataError(
                f"{path}: {member.path} is damaged: its sha256 or size is not that of the manifest "
                f"({member.sha256}, {member.size_bytes} bytes); download the bundle again"
            )


def _place(manifest: Manifest, staging: Path, results: Path, digests: dict[str, str], overwrite: bool) -> Restored:
    there = {member.path: results / member.path for member in manifest.files if (results / member.path).exists()}
    same = [member.path for member in manifest.files if member.path in there and _is(member, there[member.path])]
    other = sorted(set(there) - set(same))
    if other and not overwrite:
        listed = ", ".join(str(results / file) for file in other[:5]) + (", ..." if len(other) > 5 else "")
        raise DataError(
            f"{len(other)} files are there with other content and were left as they are: {listed}; "
            "move them away, or replace them with OVERWRITE=1"
        )
    placed = sorted({member.path for member in manifest.files} - set(same))
    now = int(time.time())
    sizes = {member.path: member.size_bytes for member in manifest.files}
    before = read_mark(results, manifest.kind)["files"]
    kept = {file: before[file] for file in unchanged(results, before) if file in same}
    # Written first: files without the record would be taken for one's own, a record without files does no harm.
    write_mark(results, manifest.kind, digests, kept | {file: [sizes[file], now] for file in placed})
    for file in placed:
        os.utime(staging / file, (now, now))
        (results / file).parent.mkdir(parents=True, exist_ok=True)
        (staging / file).replace(results / file)
    return Restored(manifest.kind, placed, sorted(same))


def _is(member: Member, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == member.size_bytes and file_digest(path) == member.sha256
