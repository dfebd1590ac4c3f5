"""Damaged files and impossible configurations: one sentence before anything is trained, nothing half-written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Place, copy_of, leftovers, new_place, tiny_dataset, tiny_study, tiny_table
from PIL import Image

from stmorph.config.workflow import open_study

pytestmark = pytest.mark.pipeline

COUNTS, POSITIONS, IMAGE = "outs/filtered_feature_bc_matrix.h5", "outs/spatial/tissue_positions.csv", "image.tif"


# --- one slide a kind of damage ---------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blank(path: Path) -> None:
    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, (240, 240, 240)).save(path)


def positions(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    return lambda path: change(pd.read_csv(path)).to_csv(path, index=False)


def counts(value: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            data = file["matrix/data"][:].astype(np.float64)
            data[7] = value
            del file["matrix/data"]
            file["matrix/data"] = data

    return change


def barcode_twice(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["matrix/barcodes"][1] = file["matrix/barcodes"][0]


def swapped(path: Path) -> None:
    """Exchange x and y, on an image with glass to the left: in a square full of tissue nobody could tell."""
    image, glass_px = path.parents[2] / IMAGE, 300
    with Image.open(image) as narrow:
        wide = Image.new("RGB", (narrow.width + glass_px, narrow.height), narrow.getpixel((0, 0)))
        wide.paste(narrow, (glass_px, 0))
    wide.save(image)
    table = pd.read_csv(path)
    x, y = table["pxl_col_in_fullres"] + glass_px, table["pxl_row_in_fullres"]
    table.assign(pxl_row_in_fullres=x, pxl_col_in_fullres=y).to_csv(path, index=False)


@positions
def far_away(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(pxl_row_in_fullres=table["pxl_row_in_fullres"] + 1e5)


@positions
def renamed(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(barcode="X" + table["barcode"])


@positions
def repeated(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.head(1)])


# slide -> the file that is damaged, how, and what must be said of it
DAMAGE = {
    "truncated_image": (IMAGE, truncate, "image.tif"),
    "blank_image": (IMAGE, blank, "is blank"),
    "swapped": (POSITIONS, swapped, "swapped"),
    "far_away": (POSITIONS, far_away, "outside"),
    "other_barcodes": (POSITIONS, renamed, "no barcode in common"),
    "position_twice": (POSITIONS, repeated, "more than once"),
    "barcode_twice": (COUNTS, barcode_twice, "more than once"),
    "nan": (COUNTS, counts(np.nan), "has the count nan"),
    "negative": (COUNTS, counts(-1), "has the count -1"),
    "fraction": (COUNTS, counts(0.5), "has the count 0.5"),
    "truncated_counts": (COUNTS, truncate, "cannot be read"),
}


@pytest.fixture(scope="module")
def damaged(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A dataset on disk, one slide a damage and a good one, read with --keep-going."""
    base = tmp_path_factory.mktemp("damaged")
    dataset = tiny_dataset([(name, "P1") for name in ("good", *DAMAGE)])
    del dataset["simulate"]
    dataset["files"] = {role: path for role, path in dataset["files"].items() if not role.startswith("truth")}
    study = tiny_study(data_root=str(base / "data"), tables={}, splits={})
    place = new_place(base, study, dataset)
    drawn = finished.folder / "results/simulated/tiny"
    for slide in dataset["slides"]:
        shutil.copytree(drawn / "A", base / "data/tiny" / slide)
    shutil.copy(drawn / "programmes.gmt", base / "data/tiny")
    for slide, (file, damage, _) in DAMAGE.items():
        damage(base / "data/tiny" / slide / file)
    targets = [f"results/slides/tiny/{slide}/slide.h5ad" for slide in dataset["slides"]]
    done = place.run(*targets, flags=["--keep-going"])
    assert done.returncode != 0
    return place, done.stdout


def test_the_undamaged_slide_is_read(damaged: tuple[Place, str]):
    assert (damaged[0].folder / "results/slides/tiny/good/slide.h5ad").exists()


@pytest.mark.parametrize("slide", DAMAGE)
def test_a_damaged_file_is_one_sentence(damaged: tuple[Place, str], slide: str):
    place, output = damaged
    last = (place.folder / f"results/logs/slide/tiny/{slide}.log").read_text().splitlines()[-1]
    assert last.startswith("stmorph: slide: ") and last in output
    assert DAMAGE[slide][-1] in last and f"tiny/{slide}/" in last
    assert not (place.folder / f"results/slides/tiny/{slide}/slide.h5ad").exists()


def test_nothing_half_written_is_left_of_them(damaged: tuple[Place, str]):
    assert leftovers(damaged[0].folder) == []
    assert len(list(damaged[0].folder.glob("results/slides/tiny/*/*"))) == 1


def test_a_missing_file_stops_before_the_first_job(damaged: tuple[Place, str], tmp_path: Path):
    place, _ = damaged
    missing = Path(place.study()["data_root"]) / "tiny/good/image.tif"
    missing.rename(tmp_path / "image.tif")
    try:
        done = place.run(flags=["-n"])
    finally:
        (tmp_path / "image.tif").rename(missing)
    assert done.returncode != 0
    assert "slides.good.files.image" in done.stdout and str(missing) in done.stdout and "put it there" in done.stdout
    assert "Traceback" not in done.stdout


# --- later stages -----------------------------------------------------------------------------------------------------


LATER = {
    "results/splits/tiny/new_patient/panels/huge.txt": ("panel", "5000 were asked for"),
    "results/splits/tiny/neighbours/split.parquet": ("split", "share pixels with a training tile"),
    "results/importance/genes/enrichment.csv": ("enrichment", "line 2"),
    "results/runs/tiny/new_patient/few/training_mean/seed0/samples.zarr.zip": ("sample", "delete both and train again"),
}


@pytest.fixture(scope="module")
def later(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A finished study whose GMT file and a model are damaged, with a panel and splits that cannot be."""
    study = finished.study()
    blocks = {"dataset": "tiny", "kind": "blocks", "test_fraction": 0.3, "buffer_um": 0}
    study["splits"]["neighbours"] = {**blocks, "block_um": 150}
    study["panels"]["huge"] = {"kind": "hvg", "genes": 5000}
    leaky = {"dataset": "tiny", "split": "neighbours", "panel": "few"}
    study["tables"]["leaky"] = {**study["tables"]["expression"], "run": leaky}
    place = copy_of(finished, tmp_path_factory.mktemp("later"), study)
    gmt = place.folder / "results/simulated/tiny/programmes.gmt"
    first, _, rest = gmt.read_text().partition("\n")
    gmt.write_text(f"{first}\nA line that is no set\n{rest}")
    truncate(place.folder / "results/runs/tiny/new_patient/few/training_mean/seed0/model.safetensors")
    done = place.run(*LATER, "leaky", flags=["--keep-going"])
    assert done.returncode != 0
    return place, done.stdout


@pytest.mark.parametrize("target", LATER)
def test_a_fault_of_a_later_stage_is_one_sentence(later: tuple[Place, str], target: str):
    place, output = later
    rule, said = LATER[target]
    told = [line for line in output.splitlines() if line.startswith(f"stmorph: {rule}: ")]
    assert any(said in line for line in told), output
    assert not (place.folder / target).exists()
    assert "Traceback" not in output


def test_a_leak_stops_the_run_before_training(later: tuple[Place, str]):
    place, _ = later
    assert not (place.folder / "results/runs/tiny/neighbours").exists()
    assert not (place.folder / "results/tables/leaky.csv").exists()
    assert leftovers(place.folder) == []


# --- the configuration ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place where nothing was run yet."""
    return new_place(tmp_path_factory.mktemp("configured"))


def told_of(place: Place, study: dict) -> list[str]:
    """Return the problems of a configuration, as the Snakefile tells them when it is read."""
    with pytest.raises(SystemExit) as told:
        open_study(study, place.root)
    first, *problems = str(told.value.code).splitlines()
    assert first.startswith("stmorph: the configuration has ") and f" {len(problems)} problem" in first
    return problems


def holds(problems: list[str], *said: str) -> bool:
    """Return whether one problem says all of it."""
    return any(all(part in problem for part in said) for problem in problems)


def test_snakemake_ends_with_the_problems_and_makes_nothing(configured: Place):
    study = tiny_study(tabels={})
    study["methods"]["stemm"] = {}
    study["datasets"].append("tinny")
    done = configured.write(study).run()
    assert done.returncode != 0
    for said in ("did you mean 'tables'?", "did you mean 'stem'?", "did you mean 'tiny'?"):
        assert said in done.stdout
    assert "Traceback" not in done.stdout and "WorkflowError" not in done.stdout
    assert not (configured.folder / "results").exists()


def test_several_nodes_without_slurm_stop_before_the_first_job(configured: Place):
    study = tiny_study()
    study["methods"]["stem"]["training"]["nodes"] = 2
    done = configured.write(study).run()
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "- methods.stem: training.nodes is 2, which only a job of SLURM can have" in done.stdout
    assert not list(configured.folder.rglob("*.tif"))  # no tissue is drawn for it


def test_names_and_options_that_do_not_exist_are_listed_at_once(configured: Place):
    study = tiny_study()
    study["methods"]["stem"]["options"]["blokcs"] = 3
    study["methods"]["stem"]["training"]["steps"] = 0
    study["tiles"]["spot104"]["fov"] = 5
    study["tables"]["second"] = tiny_table("training_mean", metric="mae")
    study["tables"]["second"]["run"]["panel"] = "fwe"
    study["figures"] = {"maps": {"kind": "map", "table": "third", "description": "Maps"}}
    problems = told_of(configured, study)
    assert holds(problems, "methods.stem", "blokcs", "did you mean 'blocks'?")
    assert holds(problems, "methods.stem", "training", "steps", "greater than or equal to 1")
    assert holds(problems, "tiles.spot104", "'fov'") or holds(problems, "tiles.spot104: fov", "unknown key")
    assert holds(problems, "tables.second", "'fwe' is unknown; did you mean 'few'?")
    assert holds(problems, "figures.maps: table", "'third' is unknown")
    assert holds(problems, "figures.maps: kind", "'map' is unknown")


def test_splits_that_cannot_be_are_refused(configured: Place):
    study = tiny_study()
    study["splits"]["all"] = {"dataset": "tiny", "kind": "patients", "test": ["P1", "P2"]}
    study["splits"]["both"] = {"dataset": "tiny", "kind": "slides", "test": ["A"], "train": ["A", "B"]}
    problems = told_of(configured, study)
    assert holds(problems, "splits.all", "none is left for training")
    assert holds(problems, "splits.both", "A would be trained on and tested")
    study["splits"] |= {
        "nobody": {"dataset": "tiny", "kind": "slides", "test": []},
        "neighbours": {"dataset": "tiny", "kind": "fraction", "test_fraction": 0.2},
    }
    problems = told_of(configured, study)
    assert holds(problems, "splits.nobody", "also needs test")
    assert holds(problems, "splits.neighbours", "replication: true")


def test_a_dataset_file_that_is_no_yaml_is_told(configured: Place):
    file = configured.root / "config/datasets/broken.yaml"
    file.write_text(yaml.safe_dump(tiny_dataset()) + "\n}: {")
    assert holds(told_of(configured, tiny_study(datasets=["tiny", "broken"])), "config/datasets/broken.yaml", "YAML")
