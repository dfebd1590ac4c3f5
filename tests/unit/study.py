"""A small study for the tests of the configuration: real method files, a dataset and a paper of its own."""

import copy
import shutil
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]

DATASET = {
    "title": "Toy tissue",
    "licence": "MIT",
    "attribution": "nobody",
    "homepage": "https://example.org/toy",
    "reader": "visium",
    "platform": "Visium",
    "species": "human",
    "spot_diameter_um": 55,
    "spot_pitch_um": 100,
    "files": {
        "counts": "{slide}/counts.h5",
        "positions": "{slide}/positions.csv",
        "scalefactors": "{slide}/scalefactors.json",
        "image": "{slide}/image.tif",
    },
    "gene_sets": {"programmes": "programmes.gmt"},
    "simulate": {},
    "slides": {
        "s1": {"patient": "P1", "um_per_px": 1.0},
        "s2": {"patient": "P1", "um_per_px": 1.0},
        "s3": {"patient": "P2", "um_per_px": 1.0},
    },
}
PAPER = {
    "title": "A Paper",
    "authors": "Others",
    "year": 2025,
    "doi": "arXiv:1",
    "tables": {
        "paper_table": {
            "description": "Table 1",
            "groups": [{"label": "few", "run": {"panel": "few"}}, {"label": "many", "run": {"panel": "many"}}],
            "columns": [{"label": "MSE", "metric": "mse", "estimator": "mean"}],
            "rows": [
                {"label": "Stem", "run": {"method": "stem"}, "published": {"few": {"MSE": 1.0}}},
                {"label": "shuffled", "run": {"method": "stem", "condition": "shuffled"}, "only": ["few"]},
                {"label": "Ridge", "run": {"method": "ridge"}},
                {"label": "Other", "run": None, "why": "no code"},
            ],
        }
    },
}
STUDY = {
    "name": "toy",
    "title": "A toy",
    "scale": "smoke",
    "seeds": [0, 1],
    "datasets": ["toy"],
    "papers": ["paper"],
    "tiles": {"spot": {"fov_um": 64, "size_px": 32}},
    "encoders": {"morphometric": {"model": "morphometric"}},
    "splits": {
        "new_patient": {"dataset": "toy", "kind": "patients", "test": ["P2"]},
        "cv": {"dataset": "toy", "kind": "folds", "of": "slides", "k": 3},
    },
    "panels": {"few": {"kind": "hmhvg", "genes": 10}, "many": {"kind": "hvg", "genes": 50}},
    "tables": {"paper_table": {"run": {"dataset": "toy", "split": "new_patient"}}},
    "figures": {"losses": {"kind": "loss_curves", "table": "paper_table", "description": "Losses"}},
}


def study(**changes):
    """Return the toy study with some keys replaced."""
    return copy.deepcopy({**STUDY, **changes})


def write_config(folder: Path, dataset=DATASET, paper=PAPER) -> Path:
    """Write a config folder: the repository's methods, the toy dataset and paper; return it."""
    config = folder / "config"
    shutil.copytree(ROOT / "config" / "methods", config / "methods")
    for kind, name, content in (("datasets", "toy", dataset), ("papers", "paper", paper)):
        (config / kind).mkdir()
        (config / kind / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return config
