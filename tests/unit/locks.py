"""The lock files and the conda environments, read: which package at which version, with which hashes."""

import inspect
import re
from importlib.metadata import distributions
from pathlib import Path

import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stmorph.config.workflow import Workflow

ROOT = Path(__file__).parents[2]
LOCKS = sorted([*(ROOT / "requirements").glob("*.lock"), ROOT / "requirements" / "uv.txt"])
SPATIALDATA_LOCK = ROOT / "requirements" / "spatialdata.lock"
ENVIRONMENTS = sorted((ROOT / "workflow" / "envs").glob("*.yaml"))
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
SCRIPTS = sorted({name for file in RULES for name in re.findall(r"\.\./scripts/(\w+)\.py", file.read_text())})
STANDS_FOR = {"opencv-python": "opencv-python-headless"}
"""Package -> the build of it without a screen's libraries, which the lock has instead."""
MARK = "# And what these need"
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
    return {name: entry.split()[0].partition("==")[2] for name, entry in for_python_3_11(lock).items()}


def for_python_3_11(lock: Path) -> dict[str, str]:
    """Return package -> its entry, with hashes and without marker, where the lock is for Python 3.11 on Linux."""
    found = {}
    for entry in entries(lock):
        requirement, separator, hashes = entry.partition(" --hash")
        pin, _, marker = requirement.partition(";")
        name = canonicalize_name(pin.partition("==")[0].strip())
        if not marker.strip() or Marker(marker.strip()).evaluate(PYTHON_3_11):
            assert name not in found, f"{lock.name} pins {name} twice for Python 3.11"
            found[name] = f"{pin.strip()}{separator}{hashes}"
    return found


def pip_part(file: Path) -> list[str]:
    """Return what an environment asks of pip."""
    return next(item["pip"] for item in yaml.safe_load(file.read_text())["dependencies"] if isinstance(item, dict))


def locked_part(file: Path) -> list[str]:
    """Return what an environment asks of pip as the lock has it: with hashes."""
    lock = locked()
    names = [canonicalize_name(Requirement(line).name) for line in pip_part(file)]
    return [lock[STANDS_FOR.get(name, name)] for name in names]


def locked() -> dict[str, str]:
    """Return package -> its entry in the lock of the tests, or in that of the library which these lack."""
    return for_python_3_11(SPATIALDATA_LOCK) | for_python_3_11(ROOT / "requirements" / "dev.lock")


def own_packages(file: Path) -> set[str]:
    """Return the packages that stand in an environment by hand: what its steps import."""
    above = file.read_text().partition(MARK)[0]
    return {canonicalize_name(name) for name in re.findall(r"^      - ([^\s=]+)==", above, re.MULTILINE)}


def needed_by(packages: set[str], path: list[str]) -> set[str]:
    """Return packages and all that they need on Linux, as those that are installed below a search path say."""
    there = {canonicalize_name(one.name): one.requires or [] for one in reversed(list(distributions(path=path)))}
    seen, todo = set(), [(name, "") for name in sorted(packages)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, there[STANDS_FOR.get(name, name)]):
            if requirement.marker is None or requirement.marker.evaluate({**PYTHON_3_11, "extra": extra}):
                todo += [(canonicalize_name(requirement.name), extra) for extra in ("", *requirement.extras)]
    return {name for name, _ in seen}


def environments_of(script: str) -> list[Path]:
    """Return the environments in which a rule runs a script, also where a function of the study chooses among them."""
    names = set()
    for rule in [part for file in RULES for part in re.split(r"^ *rule\b", file.read_text(), flags=re.MULTILINE)]:
        if f"scripts/{script}.py" not in rule:
            continue
        asked = rule.partition("conda:")[2].partition("threads:")[0]
        chosen = re.findall(r"study\.(\w+)\(", asked)
        texts = [asked, *(inspect.getsource(getattr(Workflow, function)) for function in chosen)]
        found = {name for text in texts for name in re.findall(r"envs/(\w+)\.yaml", text)}
        assert found, f"a rule of {script}.py has no environment"
        names |= found
    return sorted(ROOT / "workflow" / "envs" / f"{name}.yaml" for name in names)
