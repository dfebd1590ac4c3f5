"""Extra channels from the vendor's files to what a generator draws."""

import copy

import numpy as np
import pandas as pd
import pytest
import tifffile
from study import DATASET, write_config
from study import study as config_study
from test_store_tiles import pixels_of

from stmorph.config.workflow import open_study
from stmorph.errors import DataError
from stmorph.image.extra_channels import ExtraChannels, write_channels
from stmorph.image.make_channels import make_channels
from stmorph.image.source import open_image
from stmorph.image.stain_options import StainOptions
from stmorph.image.store import build_store, open_store
from stmorph.image.tiles import SlideTiles, TilingOptions, tile_table
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.write import write_slide
from stmorph.runs.sample import sample_run
from stmorph.runs.score import score_run
from stmorph.runs.train import train_run
from stmorph.samples.store import read_samples
from stmorph.simulate import SimulationOptions, simulate_slide
from stmorph.slide_file import open_slide
from stmorph.splits import kept_units

DRAWN = SimulationOptions(
    platform="xenium", spots=20, um_per_px=0.8, xenium_um_per_px=0.6, noise_genes=20, cell_molecules=40
)
INFO = SlideInfo(dataset="sim", slide="A1", platform="xenium", organ="gland", species="simulated", patient="P1")
WINDOWS = {"fov_um": 32.0, "step_um": 32.0, "border": "fraction", "min_cells": 3}
TILING = TilingOptions(fov_um=32, size_px=32, min_tissue=0, channels=["dapi", "cell_mask"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One simulated Xenium slide of windows as the stages leave it, with the channels."""
    folder = tmp_path_factory.mktemp("channels")
    files = simulate_slide(DRAWN, folder / "vendor", "A1", "P1", 7)
    files["dapi"] = files["morphology"]
    given = {role: path for role, path in files.items() if role in READERS["xenium"].roles}
    slide = read_slide("xenium", given, INFO, READERS["xenium"].Options(windows=WINDOWS))
    write_slide(slide, folder / "slide.h5ad")
    image, record = folder / "image.npy", folder / "image.json"
    build_store(open_image(files["image"]), 0.8, 1.0, StainOptions(), image, record)
    store = open_store(image)
    parts = {role: files[role] for role in ("dapi", "alignment", "experiment")}
    out = folder / "channels.npy", folder / "channels.json"
    records = make_channels(TILING.channels, open_slide(folder / "slide.h5ad"), store, parts, *out)
    table = tile_table("A1", slide.obs_names, slide.obsm["spatial_um"], np.ones(slide.n_obs, bool), store, TILING)
    table.to_parquet(folder / "tiles.parquet")
    return {"folder": folder, "files": files, "parts": parts, "store": store, "records": records, "table": table}


def test_dapi_is_bright_and_the_mask_full_where_cells_are(made):
    extra = ExtraChannels(made["folder"] / "channels.npy")
    extra.check_size(made["store"])
    assert extra.names == ("dapi", "cell_mask") and list(made["records"]) == ["dapi", "cell_mask"]
    truth = pd.read_parquet(made["files"]["truth"])
    column, row = made["store"].to_px(truth[["x_um", "y_um"]].to_numpy()).astype(int).T
    dapi, mask = np.moveaxis(pixels_of(extra.image), -1, 0)
    assert np.median(dapi[row, column]) > 4 * np.median(dapi) and (mask[row, column] == 255).mean() > 0.98
    assert 0.02 < (mask == 255).mean() < 0.7 and set(np.unique(mask)) == {0, 255}
    assert made["records"]["cell_mask"]["cells"] > 200 and made["records"]["cell_mask"]["without_outline"] == 0


def test_tiles_show_the_channels_behind_the_same_red_green_and_blue(made):
    kept = made["table"][made["table"]["kept"]]
    image, channels = made["folder"] / "image.npy", made["folder"] / "channels.npy"
    plain = SlideTiles.of([image, image], kept.assign(store=np.arange(len(kept)) % 2))
    shown = SlideTiles.of([image, image], kept.assign(store=np.arange(len(kept)) % 2), [channels, channels])
    index = np.array([5, 0, 3, 3])
    tiles = shown.read(index)
    assert tiles.shape == (4, 32, 32, 5) and (tiles[..., :3] == plain.read(index)).all()
    pixels = pixels_of(ExtraChannels(channels).image)
    for tile, (_, row) in zip(tiles, kept.iloc[index].iterrows()):
        x, y = row["x0_px"], row["y0_px"]
        assert (tile[..., 3:] == pixels[y : y + 32, x : x + 32]).all()


def test_slides_with_other_channels_are_not_put_together(made, tmp_path):
    blank = np.zeros(made["store"].shape, np.uint8)
    write_channels({"dapi": blank}, {}, tmp_path / "other.npy", tmp_path / "other.json")
    image, kept = made["folder"] / "image.npy", made["table"][made["table"]["kept"]]
    with pytest.raises(DataError, match=r"other.npy has the channels dapi, .*expected the same of all slides"):
        SlideTiles.of([image, image], kept, [made["folder"] / "channels.npy", tmp_path / "other.npy"])


def test_channels_whose_files_do_not_fit(made, tmp_path):
    slide, store = open_slide(made["folder"] / "slide.h5ad"), made["store"]
    out = tmp_path / "c.npy", tmp_path / "c.json"

    def fails(match, names, files, of=slide):
        with pytest.raises(DataError, match=match) as caught:
            make_channels(names, of, store, files, *out)
        assert "expected" in str(caught.value) and not out[0].exists()

    fails(r"morphology.ome.tif has .* expected one size where no alignment", ["dapi"], {"dapi": made["parts"]["dapi"]})
    given = {role: path for role, path in made["files"].items() if role in READERS["xenium"].roles}
    plain = read_slide("xenium", {role: path for role, path in given.items() if role != "boundaries"}, INFO)
    write_slide(plain, tmp_path / "slide.h5ad")
    bare = open_slide(tmp_path / "slide.h5ad")
    fails(r"slide.h5ad holds no outline of a cell", ["cell_mask"], {}, bare)
    tifffile.imwrite(tmp_path / "small.tif", np.arange(600, dtype=np.int32).reshape(20, 30))
    fails(r"small.tif is 30 x 20 px, the image of slide A1", ["cell_mask"], {"nuclei": tmp_path / "small.tif"}, bare)


def test_geneflow_trains_draws_and_is_scored_with_extra_channels(made, tmp_path):
    folder = made["folder"]
    units = kept_units([str(folder / "slide.h5ad")], [str(folder / "tiles.parquet")])
    role = np.where(np.arange(len(units)) % 3, "train", "test")
    units.assign(role=role).to_parquet(tmp_path / "split.parquet")
    genes = open_slide(folder / "slide.h5ad").var.query("~control").index[:6]
    (tmp_path / "panel.txt").write_text("\n".join(genes) + "\n")
    tiny = {"relation_rank": 2, "widths": [8, 8], "embedding_dim": 8, "heads": 2, "base": 8, "multipliers": [1]}
    options = {"encoder": "multi", "blocks": 1, "head_channels": 8, "solver": "euler", "steps": 2, "patch": 2, **tiny}
    run = {
        "dataset": "sim", "split": "s", "panel": "p", "method": "geneflow", "family": "generator", "variant": None,
        "condition": "paired", "seed": 0, "encoder": "morphometric", "tiles": "t", "target_space": "log1p_counts",
        "options": options, "sampling": {"draws": 1, "chunk": 8, "max_units": 6},
        "training": {"steps": 2, "batch_size": 4, "accelerator": "cpu", "prefetch": 0, "views": 8},
    }  # fmt: skip
    files = {"slides": [folder / "slide.h5ad"], "tiles": [folder / "tiles.parquet"], "images": [folder / "image.npy"]}
    files = {name: [str(path) for path in paths] for name, paths in files.items()}
    files |= {"split": [str(tmp_path / "split.parquet")], "panel": [str(tmp_path / "panel.txt")]}
    with_all = files | {"channels": [str(folder / "channels.npy")]}
    names = {"model": "model.safetensors", "record": "model.json", "losses": "l.csv", "provenance": "p.json"}
    out = {name: str(tmp_path / file) for name, file in names.items()}
    train_run(run, with_all, out, str(tmp_path / "work"), "code")
    given = with_all | {"model": [out["model"]], "record": [out["record"]]}
    sample_run(run, given, str(tmp_path / "samples.zarr.zip"))
    drawn = read_samples(tmp_path / "samples.zarr.zip").draws
    assert drawn.shape == (6, 1, 32, 32, 5)
    scored = {name: str(tmp_path / f"{name}.parquet") for name in ("scores", "genes")}
    scores = {"bootstrap": 5, "inception_weights": None, "programme_features": {}, "k": [2], "estimators": ["mean"]}
    encoder = {"name": "morphometric", "model": "morphometric", "options": {}}
    score_run(run, files | {"samples": [str(tmp_path / "samples.zarr.zip")]}, scores, encoder, scored)
    table = pd.read_parquet(scored["scores"])
    assert table["metric"].eq("ssim").any() and table["note"].str.endswith("not of the 2 channels behind them").all()


# --- the configuration ------------------------------------------------------------------------------------------------

XENIUM = DATASET | {
    "reader": "xenium",
    "platform": "Xenium",
    "files": {
        "counts": "{slide}/outs/cell_feature_matrix.h5",
        "cells": "{slide}/outs/cells.parquet",
        "boundaries": "{slide}/outs/cell_boundaries.parquet",
        "experiment": "{slide}/outs/experiment.xenium",
        "alignment": "{slide}/he_imagealignment.csv",
        "dapi": "{slide}/outs/morphology.ome.tif",
        "image": "{slide}/he_image.ome.tif",
    },
    "simulate": {"platform": "xenium"},
}


def opened(folder, monkeypatch, channels, dataset=XENIUM, **tiling):
    monkeypatch.chdir(folder)
    write_config(folder, dataset)
    table = {
        "description": "Channels",
        "run": {"dataset": "toy", "split": "new_patient", "panel": "few", "method": "geneflow"},
        "groups": [{"label": "all"}],
        "columns": [{"label": "FID", "metric": "fid"}],
        "rows": [{"label": "flow"}],
    }
    tiles = {"spot": {"fov_um": 64, "size_px": 32, "channels": channels, **tiling}}
    return open_study(config_study(tables={"cells": table}, papers=[], figures={}, tiles=tiles), folder)


def test_jobs_are_given_the_channels_only_where_pictures_are_learned(tmp_path, monkeypatch):
    study = opened(tmp_path, monkeypatch, ["dapi", "cell_mask"])
    run = study.plan.runs[0]
    expected = [f"results/slides/toy/{slide}/spot/channels.npy" for slide in ("s1", "s2", "s3")]
    assert study.data_inputs(run)["channels"] == study.sample_inputs(run)["channels"] == expected
    assert "channels" not in study.score_inputs(run)
    assert set(study.channel_paths("toy", "s1", "spot")) == {"dapi", "alignment", "experiment"}
    assert "dapi" not in study.source_paths("toy", "s1")


def test_without_channels_nothing_is_asked_for(tmp_path, monkeypatch):
    study = opened(tmp_path, monkeypatch, [])
    assert "channels" not in study.data_inputs(study.plan.runs[0]) and not study.channel_paths("toy", "s1", "spot")


@pytest.mark.parametrize(
    ("channels", "without", "says"),
    [
        (["dappi"], None, "tiles.spot: channels.0"),
        (["dapi", "dapi"], None, "a channel stands there more than once (dapi, dapi)"),
        (["dapi"], "dapi", "role 'dapi', of which channel 'dapi' of tiles.spot is made, is missing; name the file"),
        (["cell_mask"], "boundaries", "role 'boundaries', of which channel 'cell_mask' of tiles.spot is made"),
        (["dapi"], "reader", "'dapi' is not to be had of dataset 'toy', whose reader 'visium' gives none"),
    ],
)
def test_channels_that_cannot_be_are_told_before_anything_runs(tmp_path, monkeypatch, channels, without, says):
    dataset = copy.deepcopy(DATASET if without == "reader" else XENIUM)
    dataset["files"].pop(without, None)
    with pytest.raises(SystemExit) as left:
        opened(tmp_path, monkeypatch, channels, dataset)
    assert says in str(left.value.code)
