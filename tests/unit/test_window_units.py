import json

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from study import DATASET, write_config
from study import study as config_study

from stmorph.batches import Batcher
from stmorph.config.workflow import open_study
from stmorph.errors import DataError
from stmorph.image.stain_options import StainOptions
from stmorph.image.store import build_store, open_store
from stmorph.image.tiles import TilingOptions, tile_table
from stmorph.image.windows import WindowOptions
from stmorph.load_units import load_units, slide_files
from stmorph.methods.base import DataSpec
from stmorph.methods.geneflow import GeneFlow
from stmorph.panels import training_slides
from stmorph.read.window_units import window_units
from stmorph.read.write import write_slide
from stmorph.samples.draw import draw_samples
from stmorph.splits import kept_units
from stmorph.training.fit import fit_or_train, new_method
from stmorph.training.options import TrainingOptions

GENES = ["A", "B", "C", "control"]
WINDOWS = WindowOptions(fov_um=20, step_um=10)


def cell_slide(name="S1", seed=0, cells=60):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(3, 57, (cells, 2))
    corner = np.array([(-2, -2), (2, -2), (2, 2), (-2, 2), (-2, -2)], float)
    counts = rng.poisson(3.0, (cells, 4)).astype(np.int32)
    counts[:, 0] += 1
    record = {
        "dataset": "toy", "slide": name, "patient": "P1", "unit": "cell", "um_per_px": 0.5, "image_width_px": 120,
        "image_height_px": 120, "lost": json.dumps({"no counts": 2}),
    }  # fmt: skip
    return anndata.AnnData(
        X=scipy.sparse.csr_matrix(counts),
        obs=pd.DataFrame(
            {"in_tissue": True, "cell_area_um2": 16.0},
            index=pd.Index([f"k{i:02d}" for i in range(cells)], dtype=object),
        ),
        var=pd.DataFrame({"gene_id": GENES, "control": [False] * 3 + [True]}, index=GENES),
        obsm={"spatial_um": centre, "boundary_um": centre[:, None] + corner},
        uns={"stmorph": record},
    )


def overlap(slide, centre, fov_um):
    """Fractions of the square cells in a window, by hand."""
    low = np.maximum(slide.obsm["spatial_um"] - 2, centre - fov_um / 2)
    high = np.minimum(slide.obsm["spatial_um"] + 2, centre + fov_um / 2)
    return np.clip(high - low, 0, None).prod(axis=1) / 16


@pytest.mark.parametrize("border", ["whole", "none", "fraction"])
def test_a_windows_counts_are_the_weighted_sum_of_its_cells(border):
    slide = cell_slide()
    found = window_units(slide, WindowOptions(fov_um=20, step_um=10, border=border))
    assert found.uns["stmorph"]["unit"] == "window" and list(found.obs_names) == sorted(found.obs_names)
    cells, counts = found.uns["cells"], slide.X.toarray()
    for i, centre in enumerate(found.obsm["spatial_um"]):
        part = overlap(slide, centre, 20)
        weight = {"whole": (part > 0) * 1.0, "none": (part > 1 - 1e-12) * 1.0, "fraction": part}[border]
        np.testing.assert_allclose(found.X[i].toarray().ravel(), weight @ counts, atol=1e-9)
        held = slice(cells["start"][i], cells["start"][i + 1])
        assert sorted(cells["cell"][held]) == np.flatnonzero(weight > 1e-12).tolist()
        np.testing.assert_allclose(cells["weight"][held], weight[cells["cell"][held]], atol=1e-9)
        assert found.obs["n_cells"].iloc[i] == (weight > 1e-12).sum()
    assert (found.X.dtype == np.float64) == (border == "fraction")


def test_totals_are_conserved_where_windows_do_not_overlap():
    slide = cell_slide()
    found = window_units(slide, WindowOptions(fov_um=20, step_um=20, border="fraction"))
    np.testing.assert_allclose(found.X.sum(axis=0), slide.X.sum(axis=0))  # all cells lie wholly in the image


def test_windows_that_are_lost_are_counted_and_so_are_the_cells():
    slide = cell_slide(cells=12)
    found = window_units(slide, WindowOptions(fov_um=20, step_um=10, min_cells=2))
    lost = json.loads(found.uns["stmorph"]["lost"])
    assert lost["too few cells"] + found.n_obs == 25 and (found.obs["n_cells"] >= 2).all()
    assert json.loads(found.uns["stmorph"]["cells_lost"]) == {"no counts": 2}
    with pytest.raises(DataError, match="slide S1 of toy keeps none of 25 windows"):
        window_units(slide, WindowOptions(fov_um=20, step_um=10, min_cells=13))
    slide.uns["stmorph"]["unit"] = "spot"
    with pytest.raises(DataError, match="units of the kind 'spot'; expected cells"):
        window_units(slide, WINDOWS)


@pytest.fixture
def study(tmp_path):
    """Two slides of windows as the stages leave them: slide.h5ad, tiles, split and panel."""
    slides, tiles, images, split = [], [], [], []
    for seed, name in enumerate(("S1", "S2")):
        found = window_units(cell_slide(name, seed), WindowOptions(fov_um=20, step_um=10, border="fraction"))
        folder = tmp_path / name
        folder.mkdir()
        write_slide(found, folder / "slide.h5ad")
        picture = np.random.default_rng(seed).integers(80, 160, (120, 120, 3)).astype(np.uint8)
        build_store(picture, 0.5, 1.0, StainOptions(fit="none"), folder / "image.npy", folder / "image.json")
        table = tile_table(
            name,
            found.obs_names,
            found.obsm["spatial_um"],
            found.obs["in_tissue"].to_numpy(),
            open_store(folder / "image.npy"),
            TilingOptions(fov_um=20, size_px=20, min_tissue=0),
        )
        assert table["kept"].all()
        table.to_parquet(folder / "tiles.parquet")
        slides.append(str(folder / "slide.h5ad"))
        tiles.append(str(folder / "tiles.parquet"))
        images.append(str(folder / "image.npy"))
    split = kept_units(slides, tiles)
    split.assign(role=np.where(split["slide"] == "S1", "train", "test")).to_parquet(tmp_path / "split.parquet")
    (tmp_path / "panel.txt").write_text("C\nA\n")
    return {"files": slide_files(slides, tiles, images), "slides": slides, "folder": tmp_path}


def load(study, roles, space="log1p_counts"):
    return load_units(study["files"], study["folder"] / "split.parquet", study["folder"] / "panel.txt", roles, space)


def test_units_of_windows_hold_their_cells(study):
    units = load(study, ["train", "test"])
    assert units.genes == ("C", "A") and len(units.cells) == len(units)
    for i in (0, 7, len(units) - 1):
        slide = cell_slide(units.slide[i], int(units.slide[i] == "S2"))
        part = overlap(slide, units.spatial_um[i], 20)
        inside = np.flatnonzero(part > 1e-12)
        counts = slide.X.toarray()[:, [2, 0]] * part[:, None]
        np.testing.assert_allclose(units.cells[i], np.log1p(counts[inside]), atol=1e-6)
        np.testing.assert_allclose(units.expression[i], np.log1p(counts.sum(axis=0)), atol=1e-5)


def test_half_a_cell_counts_half_whatever_the_target_space(study):
    units = load(study, ["test"], "log1p_cp10k")
    slide = cell_slide("S2", 1)
    library = (
        slide.X[:, :3].sum(axis=1).A1 if hasattr(slide.X, "A1") else np.asarray(slide.X[:, :3].sum(axis=1)).ravel()
    )
    part = overlap(slide, units.spatial_um[3], 20)
    inside = np.flatnonzero(part > 1e-12)
    expected = np.log1p(slide.X.toarray()[:, [2, 0]] / library[:, None] * 1e4 * part[:, None])[inside]
    np.testing.assert_allclose(units.cells[3], expected, rtol=1e-5)


def test_chosen_units_keep_their_own_cells_and_batches_pad_them(study):
    units = load(study, ["train", "test"])
    index = np.array([5, 2, len(units) - 1])
    chosen = units.take(index).take(np.array([2, 0]))
    for k, i in enumerate((len(units) - 1, 5)):
        assert (chosen.cells[k] == units.cells[i]).all()
    batch = Batcher(chosen, frozenset({"tiles", "cells"})).batch(np.array([0, 1]))
    most = max(len(cells) for cells in chosen.cells)
    assert batch.cells.shape == (2, most, 2) and batch.cell_mask.sum(1).tolist() == [len(c) for c in chosen.cells]
    assert (batch.cells[1][: len(chosen.cells[1])].numpy() == chosen.cells[1]).all()
    assert batch.image.shape == (2, 3, 20, 20)


def test_the_number_of_cells_is_known_without_making_them_dense(study, monkeypatch):
    units = load(study, ["train", "test"])
    most = max(len(cells) for cells in units.cells)
    few = units.take(np.array([i for i, cells in enumerate(units.cells) if len(cells) < most]))
    lower = max(len(cells) for cells in few.cells)
    monkeypatch.setattr(type(units.cells), "__getitem__", None)
    assert Batcher(units, frozenset({"cells"})).max_cells == most > lower
    assert Batcher(few, frozenset({"cells"})).max_cells == lower


def test_panels_and_splits_take_windows_as_they_take_spots(study):
    (train,) = training_slides(study["slides"], study["folder"] / "split.parquet")
    assert set(train.obs_names) == set(load(study, ["train"]).barcode)


def test_slides_without_cells_give_none(study, tmp_path):
    plain = anndata.read_h5ad(study["slides"][1])
    del plain.uns["cells"]
    write_slide(plain, study["slides"][1])
    assert load(study, ["train"]).cells is not None
    assert load(study, ["test"]).cells is None and load(study, ["train", "test"]).cells is None


def test_geneflows_multi_cell_encoder_trains_on_windows_and_draws_from_their_cells(study, tmp_path):
    units, test = load(study, ["train"]), load(study, ["test"])
    tiny = {"relation_rank": 2, "widths": (8, 8), "embedding_dim": 8, "heads": 2, "base": 8, "multipliers": (1,)}
    options = GeneFlow.Options(encoder="multi", blocks=1, head_channels=8, solver="euler", steps=2, patch=2, **tiny)
    spec = DataSpec(units.genes, "log1p_counts", tile_px=20, um_per_px=1.0)
    training = TrainingOptions(steps=2, batch_size=4, accelerator="cpu", prefetch=0)
    method = fit_or_train(new_method(GeneFlow, options, spec, 0), units, training, 0, tmp_path / "work").method
    assert GeneFlow.needs_with(options) == method.needs == {"tiles", "cells"}
    np.testing.assert_allclose(method.expression_mean, np.concatenate(list(units.cells)).mean(axis=0), rtol=1e-4)
    chosen = test.take(np.arange(3))
    drawn = draw_samples(method, chosen, 1, 0)
    assert drawn.shape == (3, 1, 20, 20, 3) and drawn.dtype == np.uint8


# --- the configuration ------------------------------------------------------------------------------------------------

XENIUM = DATASET | {
    "reader": "xenium",
    "platform": "Xenium",
    "files": {"counts": "{slide}/c.h5", "cells": "{slide}/cells.parquet", "image": "{slide}/he.tif"},
    "simulate": {"platform": "xenium"},
}
VISIUM_HD = XENIUM | {
    "reader": "visium_hd",
    "files": {"counts": "{slide}/c.h5", "cells": "{slide}/cells.geojson", "image": "{slide}/he.tif"},
    "simulate": {"platform": "visium_hd", "space_ranger": 4},
    "reader_options": {"windows": {"fov_um": 64, "step_um": 39}},
}


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (DATASET, "the method needs cells, which slide 's1' of dataset 'toy' does not give; set windows"),
        (XENIUM, "the method needs cells, which slide 's1' of dataset 'toy' does not give; set windows"),
        (
            XENIUM | {"reader_options": {"windows": {"fov_um": 60, "step_um": 39}}},
            "windows.fov_um: 60 is not the fov_um of tiles.spot (64)",
        ),
        (XENIUM | {"reader_options": {"windows": {"fov_um": 64, "step_um": 39}}}, None),
        (XENIUM | {"reader_options": {"windows": {"fov_um": 64, "stepp_um": 39}}}, "stepp_um: unknown key"),
        (VISIUM_HD, None),
        (
            VISIUM_HD | {"files": {**VISIUM_HD["files"], "positions": "{slide}/p.parquet"}},
            "reader 'visium_hd' needs one of the roles 'positions' and 'cells', not both",
        ),
        (
            VISIUM_HD | {"files": {"counts": "{slide}/c.h5", "image": "{slide}/he.tif"}},
            "reader 'visium_hd' needs one of the roles 'positions' and 'cells', not none of them",
        ),
    ],
)
def test_a_study_of_cells_needs_windows_as_large_as_its_tiles(tmp_path, monkeypatch, dataset, says):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, dataset)
    flow = {"label": "flow", "run": {"method": "geneflow", "options": {"encoder": "multi"}}}
    table = {
        "description": "Cells",
        "run": {"dataset": "toy", "split": "new_patient", "panel": "few"},
        "groups": [{"label": "all"}],
        "columns": [{"label": "FID", "metric": "fid"}],
        "rows": [flow],
    }
    try:
        open_study(config_study(tables={"cells": table}, papers=[], figures={}), tmp_path)
        told = ""
    except SystemExit as left:
        told = str(left.code)
    assert told == "" if says is None else says in told
