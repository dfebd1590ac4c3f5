"""The conda environments and the locks name the same versions, with hashes and without an index."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").iterdir())
ENVIRONMENTS = sorted((ROOT / "workflow" / "envs").glob("*.yaml"))
PYTHON_3_11 = {
    "python_version": "3.11",
    "python_full_version": "3.11.9",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "extra": "",
}


def entries(lock: Path) -> list[str]:
    """Return the lock's requirements, each on one line, without comments."""
    text = "\n".join(line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#"))
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def pins(lock: Path) -> dict[str, str]:
    """Return package -> version where the lock is for Python 3.11 on Linux."""
    found = {}
    for entry in entries(lock):
        requirement, _, marker = entry.partition(" --hash")[0].partition(";")
        name, _, version = requirement.strip().partition("==")
        if not marker.strip() or Marker(marker.strip()).evaluate(PYTHON_3_11):
            assert canonicalize_name(name) not in found, f"{lock.name} pins {name} twice for Python 3.11"
            found[canonicalize_name(name)] = version.strip()
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_hashes(lock):
    assert entries(lock)
    for entry in entries(lock):
        assert re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*==[^\s;]+( ;[^\\]*?)? +--hash=sha256:", entry), entry[:100]
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in re.findall(r"--hash=(\S+)", entry))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_lock_names_an_index_or_a_host(lock):
    text = lock.read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|\s@\s|^-i\s", text, re.MULTILINE)


@pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda path: path.name)
def test_environments_have_the_locked_versions(file):
    environment = yaml.safe_load(file.read_text())
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    assert "python=3.11" in conda
    wanted = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    locked = pins(ROOT / "requirements" / "dev.lock")
    # The build of OpenCV without a screen's libraries stands in for the other in the lock.
    stands_for = {"opencv-python": "opencv-python-headless"}
    for requirement in wanted:
        name, _, version = requirement.partition("==")
        name = canonicalize_name(name)
        assert version == locked.get(stands_for.get(name, name)), requirement


def test_the_locks_agree():
    run, dev = pins(ROOT / "requirements" / "run.lock"), pins(ROOT / "requirements" / "dev.lock")
    assert run.items() <= dev.items()
