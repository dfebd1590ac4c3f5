"""Every example of docs/own_slides.md is planned, and read from simulated files in its vendor's layout."""

import gzip
import re
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from stmorph.config.workflow import open_study
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.spider import unpack
from stmorph.simulate import SimulationOptions, draw_slide, simulate_slide

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_slides.md").read_text("utf-8")
BLOCKS = re.findall(r"^```yaml\n# (.+?)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
DATASETS = {Path(where).stem: yaml.safe_load(text) for where, text in BLOCKS if where.startswith("config/datasets/")}
(STUDY,) = (yaml.safe_load(text) for where, text in BLOCKS if where == "config/mine.yaml")
(WINDOWS,) = (yaml.safe_load(text) for where, text in BLOCKS if where == "also in config/datasets/my_xenium.yaml")
TINY = {"spots": 25, "um_per_px": 2.0, "noise_genes": 20}


# --- the user's disk --------------------------------------------------------------------------------------------------


def simulated(folder: Path, slide: str, **options) -> None:
    simulate_slide(SimulationOptions(**TINY, **options), folder / slide, slide, "P", 0)


def hest(folder: Path, slide: str, technology: str = "Visium") -> None:
    simulated(folder / "one", slide, platform="hest", hest_technology=technology)
    table = (folder / "one" / slide / "HEST_v1_1_0.csv").read_text("utf-8-sig").replace("Simulated,A", "Simulated,P")
    of_cells = ("transcripts", "xenium_seg") if technology == "Xenium" else ()
    for file in ("st", "wsis", "patches", *of_cells):
        shutil.copytree(folder / "one" / slide / file, folder / file, dirs_exist_ok=True)
    told = folder / "HEST_v1_1_0.csv"
    lines = table.splitlines()[told.exists() :]
    with told.open("a") as opened:
        opened.write("\n".join(lines).replace(",Simulated,P,", ",Homo sapiens,P,") + "\n")
    shutil.rmtree(folder / "one")


def legacy(folder: Path, slide: str) -> None:
    drawn = draw_slide(SimulationOptions(**TINY), slide, "P", 0).visium
    kept = np.flatnonzero(drawn.in_tissue)
    x, y = drawn.array_col[kept], drawn.array_row[kept]
    # Twice as wide: spots of Visium lie 100 um apart, those of the older arrays 200.
    pixel = 2 * drawn.spot_um[kept] / drawn.um_per_px
    counts = pd.DataFrame(drawn.counts.toarray().astype(int), [f"{a}x{b}" for a, b in zip(x, y)], drawn.genes.name)
    for sub in ("counts", "spots", f"images/{slide}"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "counts" / f"{slide}.tsv.gz", "wt") as file:
        counts.to_csv(file, sep="\t")
    spots = pd.DataFrame({"x": x, "y": y, "pixel_x": pixel[:, 0], "pixel_y": pixel[:, 1]})
    spots.to_csv(folder / "spots" / f"{slide}.tsv", sep="\t", index=False)
    image = Image.fromarray(drawn.image)
    image.resize((2 * image.width, 2 * image.height)).save(folder / "images" / slide / "HE.jpg")


def plain(folder: Path, slide: str) -> None:
    drawn = draw_slide(SimulationOptions(**TINY), slide, "P", 0).visium
    kept = np.flatnonzero(drawn.in_tissue)
    folder.mkdir(parents=True, exist_ok=True)
    table = anndata.AnnData(
        drawn.counts.astype(np.float32), pd.DataFrame(index=drawn.barcode[kept]), pd.DataFrame(index=drawn.genes.name)
    )
    table.obsm["spatial"] = drawn.spot_um[kept] / drawn.um_per_px
    table.write_h5ad(folder / f"{slide}.h5ad")
    Image.fromarray(drawn.image).save(folder / f"{slide}.tif")


def store(folder: Path, slide: str) -> None:
    (folder / f"{slide}.zarr").mkdir(parents=True)


def spider(folder: Path, slide: str) -> None:
    simulated(folder, slide, platform="spider", spider_parts=2, spider_tile_px=16)
    for part in ("00", "01"):
        (folder / slide / f"spider-simulated.tar.{part}").rename(folder / f"spider-{slide}.tar.{part}")


def draw_once(draw, folder: Path, slide: str) -> None:
    """Write a slide, or where slides are folders let all but the first show the same files."""
    first = next((found for found in folder.glob("*1") if found.is_dir() and found.suffix == ""), None)
    if first is None or draw is DISK["my_visium"]:
        draw(folder, slide)
    else:
        (folder / slide).symlink_to(first)


HD = {"platform": "visium_hd", "space_ranger": 4}
DISK = {
    "my_visium": lambda folder, slide: simulated(folder, slide, space_ranger=4 if slide == "S2" else 2),
    "my_hd": lambda folder, slide: simulated(folder, slide, **HD),
    "my_hd_bins": None,  # the files of my_hd
    "my_hd_cells": None,
    "my_hd_segmented": None,
    "my_xenium": lambda folder, slide: simulated(folder, slide, platform="xenium", xenium_um_per_px=2.0),
    "my_hest": hest,
    "my_hest_cells": lambda folder, slide: hest(folder, slide, "Xenium"),
    "my_st": legacy,
    "my_h5ad": plain,
    "my_store": store,
    "my_tiles": spider,
}
UNITS = {
    "my_visium": "spot",
    "my_hd": "pseudo-spot",
    "my_hd_bins": "bin",
    "my_hd_cells": "cell",
    "my_hd_segmented": "cell",
    "my_xenium": "cell",
    "my_hest": "spot",
    "my_hest_cells": "cell",
    "my_st": "spot",
    "my_h5ad": "spot",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the page's files in config/, and a disk with what they name."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "config" / "datasets").mkdir(parents=True)
    for kind in ("methods", "papers"):
        (folder / "config" / kind).symlink_to(ROOT / "config" / kind)
    for name, dataset in DATASETS.items():
        (folder / "config" / "datasets" / f"{name}.yaml").write_text(yaml.safe_dump(dataset))
        if DISK[name] is not None:
            for slide in dataset["slides"]:
                draw_once(DISK[name], folder / "disk" / dataset.get("root", name), slide)
    return folder


def study_of(place: Path, name: str) -> dict:
    """Return the page's study of another of its data sets, as the page says: nothing else is changed."""
    text = yaml.safe_dump(STUDY | {"data_root": str(place / "disk")})
    return yaml.safe_load(text.replace("my_visium", name))


# --- tests ------------------------------------------------------------------------------------------------------------


def test_every_platform_of_the_page_is_tried():
    assert DATASETS.keys() == DISK.keys() == UNITS.keys() | {"my_store", "my_tiles"}
    readers = {dataset["reader"] for dataset in DATASETS.values()}
    assert readers == READERS.keys()


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "my_tiles"])
def test_the_study_plans_every_data_set(place, name):
    opened = open_study(study_of(place, name), place)
    assert opened.missing == {}
    tested = [slide for slide in opened.slides(name) if slide in opened.plan.tested_slides(opened.plan.runs[0])]
    assert tested == [slide for slide, entry in DATASETS[name]["slides"].items() if entry["patient"] == "B"]


def test_tiles_without_expression_stand_beside_it_and_are_read(place, tmp_path):
    study = study_of(place, "my_visium")
    opened = open_study(study | {"datasets": ["my_visium", "my_tiles"]}, place)
    assert opened.missing == {} and opened.slides("my_tiles") == ["skin"]
    parts = [Path(path) for _, path in sorted(opened.source_paths("my_tiles", "skin").items())]
    assert unpack(parts, tmp_path / "tiles.npy", tmp_path / "tiles.parquet").tiles > 5


@pytest.mark.parametrize("name", UNITS)
def test_the_files_are_read(place, name):
    opened = open_study(study_of(place, name), place)
    for slide in opened.slides(name) if name == "my_visium" else opened.slides(name)[:1]:
        info = SlideInfo(**opened.slide_info(name, slide))
        reader = READERS[DATASETS[name]["reader"]]
        files = {role: Path(path) for role, path in opened.source_paths(name, slide).items()}
        read = read_slide(reader, files, info, reader.Options(**DATASETS[name].get("reader_options", {})))
        assert read.uns["stmorph"]["unit"] == UNITS[name] and read.n_obs > 5
        assert read.uns["stmorph"]["um_per_px"] == pytest.approx(2.0, rel=0.02)


@pytest.fixture
def windows(place):
    """The Xenium slides as windows of cells, as the page says: another name, the same root."""
    changed = {**DATASETS["my_xenium"], "root": "my_xenium", **WINDOWS}
    (place / "config/datasets/my_windows.yaml").write_text(yaml.safe_dump(changed))
    methods = re.search(r"`(methods: \{geneflow.*?\})`", PAGE)[1]
    return study_of(place, "my_windows") | yaml.safe_load(methods)


def test_cells_of_xenium_become_windows(place, windows):
    opened = open_study(windows, place)
    assert any(run.options["encoder"] == "multi" for run in opened.plan.runs if run.method == "geneflow")
    info = SlideInfo(**opened.slide_info("my_windows", "X1"))
    files = {role: Path(path) for role, path in opened.source_paths("my_windows", "X1").items()}
    read = read_slide(READERS["xenium"], files, info, READERS["xenium"].Options(**WINDOWS["reader_options"]))
    assert read.uns["stmorph"]["unit"] == "window"


def test_the_changes_that_the_page_proposes_are_valid(place):
    study = study_of(place, "my_xenium")
    tiles = re.search(r"`(tiles: \{spot64.*channels.*)`", PAGE)[1]
    panel = re.search(r"`(HMHVG: \{kind: all\})`", PAGE)[1]
    changed = study | yaml.safe_load(tiles)
    changed["panels"] = changed["panels"] | yaml.safe_load(panel)
    assert open_study(changed, place).channels("spot64") == ["dapi", "cell_mask"]
    slides, blocks = re.findall(r"`(kind: .*?)`", PAGE)
    for split in (slides.replace("S3", "X2"), blocks):
        study["splits"]["new_patient"] = {"dataset": "my_xenium"} | yaml.safe_load("{" + split + "}")
        assert open_study(study, place).plan.runs
