"""The conda environments and the locks name the same versions, with hashes and without an index."""

import ast
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions

import pytest
import yaml
from locks import (
    ENVIRONMENTS,
    LOCKS,
    ROOT,
    SCRIPTS,
    SPATIALDATA_LOCK,
    STANDS_FOR,
    entries,
    environments_of,
    locked,
    needed_by,
    own_packages,
    pins,
    pip_part,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler import MatchSpec

from stmorph.digests import PACKAGE, code_files, script_files

# Steps that can do without say so in a sentence; the environment of that name has it.
OPTIONAL = {"staintools", "spatialdata"}
# What a script loads by a name of the config.
BY_NAME = {"train": ["methods"], "sample": ["methods"], "gene_importance": ["methods"], "figure": ["figures"]}


@cache
def providers() -> dict[str, list[str]]:
    """Return module -> the packages that hold it."""
    return dict(packages_distributions())


def third_party(script: str) -> set[str]:
    """Return the packages that a script and the library below it import, also inside functions."""
    files = {ROOT / "workflow" / "scripts" / f"{script}.py", PACKAGE / "job.py", *script_files(script)}
    files |= code_files(*BY_NAME.get(script, []))
    found = set()
    for node in [node for file in files for node in ast.walk(ast.parse(file.read_text()))]:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"stmorph"}


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
def test_environments_ask_conda_for_exact_versions_from_open_channels(file):
    environment = yaml.safe_load(file.read_text())
    assert environment["channels"] == ["conda-forge", "bioconda", "nodefaults"]
    specs = [MatchSpec(item, strict=True) for item in environment["dependencies"] if isinstance(item, str)]
    assert {"python", "pip"} <= {spec.name.normalized for spec in specs}
    for spec in specs:
        assert re.fullmatch(r"==\d+(\.\d+)+", spec.version), f"{spec} is not one version"


@pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda path: path.name)
def test_environments_say_what_they_are_for(file):
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda path: path.name)
def test_environments_have_the_locked_versions(file):
    lock = locked()
    for requirement in map(Requirement, pip_part(file)):
        name = canonicalize_name(requirement.name)
        pin = lock[STANDS_FOR.get(name, name)].split()[0]
        assert str(requirement.specifier) == f"=={pin.partition('==')[2]}", requirement


# Of packages that are installed here; `tests/pipeline/test_isolation.py` asks those of each environment.
@pytest.mark.parametrize("name", ["staintools", "stmorph"])
def test_environments_pin_all_that_their_packages_need_and_nothing_else(name):
    if sys.version_info[:2] != (3, 11) or sys.platform != "linux":
        pytest.skip("the environments are for Python 3.11 on Linux, and so must be the packages that are asked")
    (file,) = [file for file in ENVIRONMENTS if file.stem == name]
    listed = [canonicalize_name(Requirement(line).name) for line in pip_part(file)]
    assert len(listed) == len(set(listed))
    assert set(listed) == needed_by(own_packages(file), sys.path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_environments_list_what_their_scripts_import(script):
    """A package that a step finds only because another one needs it is gone with the other one's next version."""
    imported = third_party(script)
    for file in environments_of(script):
        for module in sorted(imported - (OPTIONAL - {file.stem})):
            names = {canonicalize_name(name) for name in providers().get(module, [module])}
            assert own_packages(file) & names, f"{script}.py imports {module}, which {file.name} does not list"


def test_the_locks_agree():
    run, dev = pins(ROOT / "requirements" / "run.lock"), pins(ROOT / "requirements" / "dev.lock")
    assert run.items() <= dev.items()
    own = pins(SPATIALDATA_LOCK)
    assert {name: own[name] for name in own.keys() & dev.keys()}.items() <= dev.items()


def test_what_reads_spatialdata_is_no_part_of_any_other_run():
    """Where dask is, anndata imports it: every step would start half a second later."""
    for lock in ("run.lock", "dev.lock"):
        assert not pins(ROOT / "requirements" / lock).keys() & {"spatialdata", "dask", "xarray"}
