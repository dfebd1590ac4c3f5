"""Tiny studies on simulated tissue, and Snakemake as a user starts it: as a process, with a profile, in a folder."""

import copy
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "workflow", "config", "src", "profiles", "resources")
TIMEOUT_S = 1800

TINY_SLIDE = {"spots": 70, "um_per_px": 2.0, "noise_genes": 40, "depth": 3000}
STEM = {
    "options": {"blocks": 1, "heads": 2, "width": 16, "mlp_ratio": 1, "genes_per_token": 8, "sampling_steps": 3},
    "training": {"steps": 6, "batch_size": 16, "views": 2, "log_every": 2, "checkpoint_minutes": 0},
    "sampling": {"draws": 2, "chunk": 64},
}
GENEFLOW = {
    "options": {
        "relation_rank": 2,
        "widths": [16, 8],
        "embedding_dim": 8,
        "heads": 2,
        "base": 8,
        "multipliers": [1],
        "head_channels": 8,
        "patch": 4,
        "steps": 2,
    },
    "training": {"steps": 6, "batch_size": 8, "views": 1, "log_every": 2, "checkpoint_minutes": 0},
}


# --- what is run ------------------------------------------------------------------------------------------------------


def tiny_dataset(slides: Iterable[tuple[str, str]] = (("A", "P1"), ("B", "P2")), **options) -> dict:
    """Return the simulated dataset of the demo with other slides (name, patient), each of some 70 spots."""
    dataset = yaml.safe_load((REPO / "config/datasets/simulated.yaml").read_text())
    dataset["title"] = "Tiny simulated tissue"
    dataset["simulate"] = {**dataset["simulate"], **TINY_SLIDE, **options}
    dataset["slides"] = {name: {"patient": patient, "organ": "lobules", "um_per_px": 2.0} for name, patient in slides}
    return dataset


def tiny_table(*methods: str, metric: str) -> dict:
    """Return a table of the study's own: one row a method, one column."""
    return {
        "description": f"{metric.upper()} of {', '.join(methods)}",
        "caption": f"A caption about {metric} that nobody else has.",
        "run": {"dataset": "tiny", "split": "new_patient", "panel": "few"},
        "groups": [{"label": "here"}],
        "rows": [{"label": method, "run": {"method": method}} for method in methods],
        "columns": [{"label": metric, "metric": metric, **({"estimator": "mean"} if metric == "mae" else {})}],
    }


def tiny_study(**changes) -> dict:
    """Return a study of two slides, a system and a floor: one direction. `both_directions` adds the other."""
    study = {
        "name": "tiny",
        "title": "Tiny study",
        "scale": "smoke",
        "results": "results",
        "datasets": ["tiny"],
        # Wider than the spots' pitch: neighbours share pixels, so a split within a slide leaks.
        "tiles": {"spot104": {"fov_um": 104, "size_px": 16, "min_tissue": 0.3, "stain": {"fit": "slide"}}},
        "encoders": {"statistics": {"model": "morphometric", "views": 8}},
        "splits": {"new_patient": {"dataset": "tiny", "kind": "patients", "test": ["P2"]}},
        "panels": {"few": {"kind": "hvg", "genes": 30, "hvg_per_slide": 60}},
        "scores": {"k": [10], "bootstrap": 10},
        "methods": {"stem": copy.deepcopy(STEM), "geneflow": copy.deepcopy(GENEFLOW)},
        "tables": {"expression": tiny_table("stem", "training_mean", metric="mae")},
    }
    return {**study, **changes}


def both_directions(study: dict) -> dict:
    """Return the study with pictures from expression, figures of both directions and gene importance."""
    at = {"dataset": "tiny", "split": "new_patient", "panel": "few"}
    return {
        **study,
        "tables": {**study["tables"], "pictures": tiny_table("geneflow", metric="ssim")},
        "figures": {
            "maps": {"kind": "prediction_maps", "table": "expression", "description": "Maps of genes"},
            "samples": {"kind": "samples", "table": "pictures", "description": "Tiles beside drawn ones"},
        },
        "importance": {
            "genes": {
                "description": "Genes that move the pictures",
                "run": {**at, "method": "geneflow"},
                "options": {"max_units": 8, "times": [0.5]},
                "gene_sets": "programmes",
                "min_size": 1,
                "top": 10,
            }
        },
    }


# --- where and how it is run ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A copy of the repository, a working folder, and the config file that is run there."""

    root: Path
    folder: Path
    config: Path

    def write(self, study: dict) -> "Place":
        """Set the study to run."""
        self.config.write_text(yaml.safe_dump(study, sort_keys=False))
        return self

    def study(self) -> dict:
        """Return the study as it stands in the file."""
        return yaml.safe_load(self.config.read_text())

    def elsewhere(self, folder: Path) -> "Place":
        """Return the same repository and study in another working folder."""
        folder.mkdir(parents=True, exist_ok=True)
        return replace(self, folder=folder, config=folder / "study.yaml").write(self.study())

    def command(self, *targets: str, cores: int = 2, flags: Iterable[str] = (), profile: str | None = "local"):
        """Return the command line; targets first, for --config and --configfile take all words that follow."""
        profiled = [] if profile is None else ["--profile", str(self.root / "profiles" / profile)]
        where = ["-s", str(self.root / "Snakefile"), "--directory", str(self.folder)]
        what = ["--configfile", str(self.config), "--cores", str(cores)]
        return [sys.executable, "-m", "snakemake", *targets, *where, *profiled, *what, *flags]

    def run(self, *targets: str, **how) -> subprocess.CompletedProcess:
        """Run Snakemake to its end; its output is one text."""
        return subprocess.run(
            self.command(*targets, **how),
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )

    def make(self, *targets: str, **how) -> str:
        """Run Snakemake, which must succeed; return its output."""
        done = self.run(*targets, **how)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def plan(self, *targets: str, **how) -> dict[str, int]:
        """Return rule -> number of jobs that a dry run announces; empty where nothing is to be done."""
        flags = ["-n", *how.pop("flags", ())]
        return jobs_of(self.make(*targets, flags=flags, **how))

    def files(self, pattern: str = "results/**/*") -> dict[str, bytes]:
        """Return path below the working folder -> bytes."""
        found = (path for path in sorted(self.folder.glob(pattern)) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


def environment() -> dict[str, str]:
    """Return the environment of a run: no pytest, no other checkout of the library."""
    hidden = ("PYTEST_", "PYTHONPATH", "SNAKEMAKE_")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)}


def jobs_of(output: str) -> dict[str, int]:
    """Return the table of jobs that Snakemake prints, without the rules that only gather others."""
    lines = [line.split() for line in output.splitlines()]
    starts = [i for i, words in enumerate(lines) if words == ["job", "count"]]
    jobs: dict[str, int] = {}
    for words in lines[starts[0] + 2 :] if starts else []:
        if len(words) != 2 or words[0] == "total":
            break
        jobs[words[0]] = int(words[1])
    return {rule: count for rule, count in jobs.items() if rule != "all"}


def copy_repository(to: Path) -> Path:
    """Copy what a run needs, and nothing that was made."""
    to.mkdir(parents=True)
    for part in PARTS:
        source = REPO / part
        if source.is_dir():
            shutil.copytree(source, to / part, ignore=shutil.ignore_patterns("__pycache__", ".snakemake"))
        elif source.exists():
            shutil.copy2(source, to / part)
    return to


def new_place(base: Path, study: dict | None = None, dataset: dict | None = None, root: Path | None = None) -> Place:
    """Return a folder to run in, with a copy of the repository that has the dataset `tiny`."""
    if root is None:
        root = copy_repository(base / "repository")
        (root / "config/datasets/tiny.yaml").write_text(yaml.safe_dump(dataset or tiny_dataset(), sort_keys=False))
    folder = base / "work"
    folder.mkdir(parents=True)
    return Place(root, folder, folder / "study.yaml").write(study or tiny_study())


def leftovers(folder: Path) -> list[str]:
    """Return what a broken step would leave: partial files, anywhere, and in results/work all but finished models."""
    partial = [path for path in folder.rglob("*.partial-*")] + [path for path in folder.rglob(".partial-*")]
    work = [path for path in folder.glob("results/work/*/**/*") if path.is_file() and path.parent.name != "finished"]
    return sorted({str(path.relative_to(folder)) for path in [*partial, *work]})


def copy_of(finished: Place, base: Path, study: dict | None = None) -> Place:
    """Return a finished place copied with its times (`cp -a`), to work on; the repository is shared."""
    shutil.copytree(finished.folder, base / "work")
    place = replace(finished, folder=base / "work", config=base / "study.yaml")
    return place.write(study or finished.study())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One complete tiny study in both directions, for looking at: who changes it works on a copy.

    Made once, also where several workers share the tests.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    base = shared / "finished"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (base / "output.txt").exists():
            return Place(base / "repository", base / "work", base / "work/study.yaml")
        shutil.rmtree(base, ignore_errors=True)
        place = new_place(base, both_directions(tiny_study()))
        output = place.make(flags=["--skip-script-cleanup"])  # for who runs a step again as it was
        (base / "output.txt").write_text(output)
        return place
