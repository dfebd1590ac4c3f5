"""Every step in its own environment, which has its pinned packages and nothing else; Snakemake makes and enters them.

`conda` is a stand-in (`conda_stand_in.py`): what the channels' solver would find is not proved here.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distribution, distributions
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conda_stand_in import install
from conftest import REPO, Place, both_directions, environment, new_place, tiny_study
from packaging.utils import canonicalize_name

from stmorph.digests import PACKAGE, _closure, code_files, script_files

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from fetch_server import BODY, serving
from locks import ENVIRONMENTS, SCRIPTS, STANDS_FOR, environments_of, locked_part, needed_by, own_packages
from test_fetching import WANTED, archive_of, dataset_of

pytestmark = pytest.mark.pipeline

HOST_ONLY = ("pytest", "diffusers", "snakefmt")
"""Packages that the tests' own environment has and no step's."""
NO_NETWORK = re.compile("Failed to fetch|error sending request|dns error|No interpreter found|timed out", re.IGNORECASE)
SLIDE = "results/slides/tiny/A"
TARGETS = ("all", "archive", f"{SLIDE}/stained/tiles.parquet", f"{SLIDE}/spot104/statistics.zarr.zip")
"""All that the study names, and what no run of it needs: a tiling in staintools, an embedding."""
BY_NAME = {
    **dict.fromkeys(("train", "sample", "gene_importance"), ("methods.geneflow",)),
    "figure": ("figures.samples",),
}
"""Script -> what it loads by a name of this study's config."""
OTHER_DATA = {("channels", "stmorph"), ("unpaired", "stmorph")}
"""Scripts, with an environment, of data that the simulated study does not have."""
SPATIALDATA = REPO / "workflow/envs/spatialdata.yaml"
STORE = {
    "title": "A SpatialData store of one's own",
    "licence": "none",
    "attribution": "nobody",
    "reader": "spatialdata",
    "reader_options": {"unit": "spot"},
    "platform": "own",
    "species": "human",
    "spot_diameter_um": 55,
    "spot_pitch_um": 60,
    "files": {"counts": "{slide}.zarr", "image": "{slide}.zarr"},
    "slides": {"own": {"patient": "P1", "um_per_px": 2.0}},
}
"""The one YAML of a slide in the store that the reader's own tests write."""
OWN_SLIDE = "results/slides/store/own"
UNTRACKED = {"fetch", "unpack"}
"""Scripts whose files are known by address and digest: a change of the code that fetches does not change them."""
DECLARED = '''

def script_digest(script, *modules):
    """Instead of a digest, the files that it covers."""
    files = script_files(script) | code_files(*modules)
    return " ".join(sorted(file.relative_to(PACKAGE).as_posix() for file in files))
'''


@dataclass(frozen=True)
class Isolated:
    """A tiny study and a slide of SpatialData, run with --sdm conda: where, what jobs told, what `conda` was asked."""

    place: Place
    store: Place
    jobs: list[dict]
    asked: list[str]

    @property
    def base(self) -> Path:
        """Return the folder in which all of it lies."""
        return self.place.folder.parent

    def prefix_of(self, environment: Path) -> Path:
        """Return where an environment was made."""
        return made_from(environment, self.base / "conda")

    def of(self, environment: Path) -> list[dict]:
        """Return the jobs that ran in an environment."""
        return [job for job in self.jobs if Path(job["prefix"]) == self.prefix_of(environment)]


def study() -> dict:
    """Return a study of one generator whose targets need every kind of step, and a tiling in staintools."""
    whole = both_directions(tiny_study())
    kept = {"tables": {"pictures": whole["tables"]["pictures"]}, "figures": {"samples": whole["figures"]["samples"]}}
    stained = {"fov_um": 104, "size_px": 16, "min_tissue": 0.3, "stain": {"fit": "slide", "backend": "staintools"}}
    return {**whole, **kept, "tiles": {**whole["tiles"], "stained": stained}}


def made_from(environment: Path, folder: Path) -> Path:
    """Return where an environment was made; the file that it was made from lies beside it."""
    return next(file.with_suffix("") for file in folder.glob("*.yaml") if file.read_bytes() == environment.read_bytes())


def module_name(file: Path) -> str:
    """Return the name under which a file of the library is imported."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages_of(prefix: Path) -> Path:
    """Return the folder that holds an environment's packages."""
    return next(prefix.glob("lib/python*/site-packages"))


def with_the_tests(prefix: Path, base: Path, *words: str) -> subprocess.CompletedProcess:
    """Run an environment's Python beside the tests: of the tests' own packages it gets pytest, and nothing else."""
    alone = base / "pytest_alone"
    alone.mkdir(exist_ok=True)
    for package in map(distribution, ("pytest", "pluggy", "iniconfig")):
        for name in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (alone / name).exists():
                (alone / name).symlink_to(package.locate_file(name))
    path = os.pathsep.join(map(str, (alone, REPO / "tests/unit", REPO / "src")))
    command = [prefix / "bin" / "python", *words]
    env = {**environment(), "PYTHONPATH": path}
    return subprocess.run(command, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def new_store(base: Path, root: Path) -> Place:
    """Return a place for a study with a slide in a SpatialData store, which is still to be written."""
    (root / "config/datasets/store.yaml").write_text(yaml.safe_dump(STORE, sort_keys=False))
    (base / "data/store/own.zarr").mkdir(parents=True)
    data = {"data_root": str(base / "data"), "datasets": ["tiny", "store"]}
    return new_place(base, {**tiny_study(), **data}, root=root)


def make(place: Place, *targets: str, flags: tuple[str, ...]) -> None:
    done = place.run(*targets, flags=flags)
    if done.returncode != 0 and "Could not create conda environment" in done.stdout and NO_NETWORK.search(done.stdout):
        pytest.skip(f"the environments' packages cannot be had here: {done.stdout[-500:]}")
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Isolated:
    base = tmp_path_factory.mktemp("isolated")
    told = base / "told"
    told.mkdir()
    place = new_place(base, study())
    with (place.root / "src/stmorph/digests.py").open("a") as digests:
        digests.write(DECLARED)
    flags = ("--sdm", "conda", "--conda-prefix", str(base / "conda"))
    with pytest.MonkeyPatch.context() as patch, serving() as site:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # else each job compiles all that it imports
        patch.setenv("PATH", f"{install(base / 'base')}:{os.environ['PATH']}")
        patch.setenv("STMORPH_TOLD", str(told))
        patch.setenv("STMORPH_HOST_HAS", " ".join(HOST_ONLY))
        make(place, *TARGETS, flags=flags)
        assert place.plan("all", flags=flags) == {}
        site.named["/file/A"] = archive_of({"outs/counts.h5": BODY[:50_000], "outs/positions.csv": BODY[7:90_000]})
        far = new_place(base / "far", tiny_study(), dataset_of(site.url))
        make(far, *WANTED, flags=flags)
        store, slide = new_store(base / "store", place.root), f"{OWN_SLIDE}/slide.h5ad"
        make(store, slide, flags=(*flags, "--conda-create-envs-only"))
        write = "import pathlib, sys, test_read_spatialdata as t; t.Store(pathlib.Path(sys.argv[1])).write()"
        prefix = made_from(SPATIALDATA, base / "conda")
        written = with_the_tests(prefix, base, "-c", write, str(base / "store/data/store"))
        assert written.returncode == 0, written.stdout
        make(store, slide, flags=flags)
    jobs = [json.loads(file.read_text()) for file in sorted(told.iterdir())]
    return Isolated(place, store, jobs, (base / "base/asked.txt").read_text().splitlines())


def test_conda_is_asked_once_for_each_environment(isolated: Isolated):
    made = [line.split("--prefix ")[1] for line in isolated.asked if line.startswith("env create")]
    assert sorted(made) == sorted(str(isolated.prefix_of(environment)) for environment in ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda path: path.name)
def test_every_script_runs_in_each_of_its_environments(isolated: Isolated, environment: Path):
    """A step for which this study has no data is at least imported there, with all of the library that it uses."""
    expected = {script for script in SCRIPTS if environment in environments_of(script)}
    ran = {job["script"] for job in isolated.of(environment)}
    assert expected and ran <= expected
    for script in sorted(expected - ran):
        assert (script, environment.stem) in OTHER_DATA
        code = "import importlib, sys; sys.path.append(sys.argv[1]); [importlib.import_module(n) for n in sys.argv[2:]]"
        python = isolated.prefix_of(environment) / "bin" / "python"
        names = sorted(map(module_name, script_files(script)))
        subprocess.run([python, "-I", "-c", code, isolated.place.root / "src", *names], check=True)


def belongs(file: Path, job: dict) -> bool:
    """Return whether a file is of the job's environment, of Python's own library, or of this library."""
    if file.is_relative_to(job["prefix"]) or file.is_relative_to(Path(job["path"][-1]) / "stmorph"):
        return True
    return file.is_relative_to(job["base"]) and not {"site-packages", "dist-packages"} & set(file.parts)


def test_all_packages_come_from_the_environment(isolated: Isolated):
    """From outside come Snakemake, which a script cannot do without, and this library."""
    for job in isolated.jobs:
        files = {name: Path(file) for name, file in job["loaded"].items() if Path(file).is_absolute()}
        outside = {name for name, file in files.items() if not belongs(file, job)}
        strange = sorted(name for name in outside if not re.match(r"snakemake(_interface_\w+)?(\.|$)", name))
        assert strange == [], job["rule"]
        heavy = {"numpy", "pandas", "torch", "anndata", "staintools"} & set(files)
        assert all(files[name].is_relative_to(job["prefix"]) for name in heavy)
    loaded = set().union(*(job["loaded"] for job in isolated.jobs))
    assert {"torch", "staintools", "gseapy", "psutil", "matplotlib"} <= loaded


def test_no_package_of_the_host_can_be_imported(isolated: Isolated):
    host = [folder for folder in sys.path if folder.endswith("site-packages")]
    for job in isolated.jobs:
        assert job["found"] == [] and not set(host) & set(job["path"]), job["script"]
        assert job["path"][-1].endswith("/repository/src")


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda path: path.name)
def test_an_environment_has_its_pins_and_nothing_else(isolated: Isolated, environment: Path):
    folder = str(packages_of(isolated.prefix_of(environment)))
    there = {canonicalize_name(one.name): one.version for one in distributions(path=[folder])}
    found = {f"{name}=={version}" for name, version in there.items()}
    assert found == {entry.split()[0] for entry in locked_part(environment)}
    needed = needed_by(own_packages(environment), [folder])
    assert set(there) == {STANDS_FOR.get(name, name) for name in needed}


def test_the_reader_of_spatialdata_passes_its_tests_where_the_library_is(isolated: Isolated):
    tests = REPO / "tests/unit/test_read_spatialdata.py"
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(isolated.base / "of_the_reader"))
    done = with_the_tests(isolated.prefix_of(SPATIALDATA), isolated.base, *words, str(tests))
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= len(re.findall(r"^def test_", tests.read_text(), re.M))


def test_a_spatialdata_slide_goes_to_tiles_without_conda_where_the_library_was_added(
    isolated: Isolated, tmp_path: Path
):
    """As after `make setup-spatialdata`: the library and what it needs are found beside the locked packages."""
    place = isolated.store.elsewhere(tmp_path / "work")
    env = {**environment(), "PYTHONPATH": str(packages_of(isolated.prefix_of(SPATIALDATA)))}
    command = place.command(f"{OWN_SLIDE}/spot104/tiles.parquet")
    done = subprocess.run(command, cwd=place.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()
    made, read = place.folder / OWN_SLIDE, isolated.store.folder / OWN_SLIDE
    assert (made / "slide.h5ad").read_bytes() == (read / "slide.h5ad").read_bytes()
    tiles = pd.read_parquet(made / "spot104/tiles.parquet")
    assert len(tiles) == 20 and tiles["kept"].any()


def test_a_job_declares_exactly_the_code_that_its_script_imports_and_loads_no_other(isolated: Isolated):
    """So a change in a module reruns the rules whose script imports it, and no others; traced for every rule.

    Loaded, but not used, is what a package's `__init__` gathers on the way to one of its modules, and the frame.
    """
    source = isolated.place.root / "src/stmorph"
    for job in isolated.jobs:
        if job["script"] in UNTRACKED:
            assert job["code"] is None
            continue
        named = BY_NAME.get(job["script"], ())
        files = script_files(job["script"]) | code_files(*named)
        declared = set(job["code"].split())
        assert declared == {file.relative_to(PACKAGE).as_posix() for file in files}
        loaded = {Path(file) for name, file in job["loaded"].items() if name.partition(".")[0] == "stmorph"}
        frame = _closure(PACKAGE / "job.py")
        folders = {folder for file in files | frame for folder in file.parents if folder.is_relative_to(PACKAGE)}
        frame = frame.union(*(_closure(folder / "__init__.py", whole=False) for folder in folders))
        allowed = declared | {file.relative_to(PACKAGE).as_posix() for file in frame}
        undeclared = {file.relative_to(source).as_posix() for file in loaded if file.name != "__init__.py"} - allowed
        assert undeclared == set(), job["rule"]
