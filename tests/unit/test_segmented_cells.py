"""Space Ranger 4's segmented outputs of Visium HD: what was drawn comes back, as cells, windows and masks."""

import json
from dataclasses import replace

import matplotlib.path
import numpy as np
import pandas as pd
import pytest
from feature_matrix import write_feature_matrix
from PIL import Image

from stmorph.errors import ConfigError, DataError
from stmorph.image.extra_channels import ExtraChannels
from stmorph.image.make_channels import make_channels
from stmorph.image.source import open_image
from stmorph.image.stain_options import StainOptions
from stmorph.image.store import build_store, open_store
from stmorph.leakage import leakage_report, window_cells
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.polygons import CROSSED, FLAT
from stmorph.read.write import write_slide
from stmorph.simulate import LAYOUTS, SimulationOptions, simulate_slide
from stmorph.simulate.visium_hd_cells import segment
from stmorph.simulate.visium_hd_slide import draw_hd
from stmorph.slide_file import open_slide

INFO = SlideInfo(dataset="toy", slide="A", platform="visium_hd", organ="kidney", species="simulated", patient="P1")
Options = READERS["visium_hd"].Options
DRAWN = SimulationOptions(
    platform="visium_hd", spots=20, um_per_px=0.8, noise_genes=20, hd_rotation_deg=-7.0, space_ranger=4
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    drawn = draw_hd(DRAWN, "A", "P", 11)
    return simulate_slide(DRAWN, tmp_path_factory.mktemp("hd"), "A", "P", 11), drawn, segment(drawn)


def given(files, outlines="cells", **other):
    roles = {"counts": "cell_counts", "cells": outlines, "scalefactors": "cell_scalefactors", "image": "image"}
    return {role: files[name] for role, name in roles.items()} | other


def read(files, info=INFO, **options):
    return read_slide("visium_hd", files, info, Options(**options))


def lost(slide):
    return json.loads(slide.uns["stmorph"]["lost"])


# --- what was drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outlines", ["cells", "annotated_cells", "nucleus_outlines", "annotated_nuclei"])
def test_cells_come_back_as_drawn(simulated, outlines):
    files, _, cells = simulated
    slide = read(given(files, outlines))
    assert slide.uns["stmorph"]["unit"] == "cell" and slide.obs_names.tolist() == cells.barcode.tolist()
    assert (cells.counts != slide.X).nnz == 0 and slide.X.dtype == np.int32
    number = slide.obs_names.str.extract(r"cellid_(\d{9})-1")[0].astype(int).to_numpy()
    truth = pd.read_parquet(files["truth"]).set_index("label").loc[number]
    away_px = (slide.obsm["spatial_um"] - truth[["x_um", "y_um"]].to_numpy()) / DRAWN.um_per_px
    assert np.abs(away_px).max() < 0.5
    rings = cells.cell_px if outlines.endswith("cells") else cells.nucleus_px
    np.testing.assert_allclose(slide.obsm["boundary_um"] / DRAWN.um_per_px, rings[number - 1], atol=1e-3)
    assert lost(slide) == {what: n for what, n in {"no counts": len(truth) - len(cells.barcode)}.items() if n}
    assert slide.uns["stmorph"]["um_per_px"] == 0.8
    assert "by scalefactors_json.json (microns_per_pixel)" in slide.uns["stmorph"]["um_per_px_evidence"]
    if outlines == "nucleus_outlines":
        # A polygon of twelve corners has 95.5 % of its ellipse.
        disc = np.pi * truth["nuclear_radius_um"] ** 2
        np.testing.assert_allclose(slide.obs["cell_area_um2"], 0.955 * disc, rtol=0.01)


def test_a_cells_counts_are_those_of_the_bins_in_its_outline(simulated):
    """By the 2 um bins as they are written, and another test of what lies in an outline."""
    files = simulated[0]
    slide = read(given(files))
    bins = read_slide(
        "visium_hd", {role: files[role] for role in ("counts", "positions", "scalefactors", "image")}, INFO
    )
    rings = slide.obsm["boundary_um"]
    alone = np.sort(np.linalg.norm(rings[:, None].mean(2) - rings.mean(1), axis=-1), axis=1)[:, 1] > 25
    assert alone.sum() >= 3  # no neighbour shares their bins
    near = 2.0 / np.sqrt(2)
    for i in np.flatnonzero(alone)[:6]:
        outline = matplotlib.path.Path(rings[i])
        sides = [outline.contains_points(bins.obsm["spatial_um"], radius=by) for by in (-near, near)]
        least, most = (np.asarray(bins.X[inside].sum(axis=0)).ravel() for inside in sorted(sides, key=np.sum))
        counts = slide.X[i].toarray().ravel()
        assert (least <= counts).all() and (counts <= most).all() and counts.sum() > 0


def test_the_folder_is_space_rangers(simulated):
    files = simulated[0]
    folder = files["cells"].parent
    assert folder.parts[-2:] == ("outs", "segmented_outputs")
    assert {path.name for path in folder.iterdir()} == {
        "filtered_feature_cell_matrix.h5", "raw_feature_cell_matrix.h5", "spatial",
        *(f"{kind}_segmentations.geojson" for kind in ("cell", "nucleus")),
        *(f"graphclust_annotated_{kind}_segmentations.geojson" for kind in ("cell", "nucleus")),
    }  # fmt: skip
    assert "bin_size_um" not in json.loads(files["cell_scalefactors"].read_text())
    content = json.loads(files["cells"].read_text())
    assert content["type"] == "FeatureCollection" and content["features"][4]["properties"] == {"cell_id": 5}
    older = LAYOUTS["visium_hd"].files(folder, DRAWN.model_copy(update={"space_ranger": 2}))
    assert set(files) - set(older) == {name for name, path in files.items() if folder in path.parents}


def test_its_nuclei_are_nuclei_for_bins_too(simulated):
    files = simulated[0]
    roles = ("counts", "positions", "scalefactors", "image")
    slide = read({role: files[role] for role in roles} | {"nuclei": files["nucleus_outlines"]})
    number = slide.obs_names.str.removeprefix("nucleus_").astype(int)
    truth = pd.read_parquet(files["truth"]).set_index("label").loc[number]
    assert slide.uns["stmorph"]["unit"] == "cell" and slide.n_obs > 100
    np.testing.assert_allclose(slide.obsm["spatial_um"], truth[["x_um", "y_um"]], atol=0.5 * DRAWN.um_per_px)


# --- what is made of cells --------------------------------------------------------------------------------------------


def test_windows_masks_and_leaks_of_segmented_cells(simulated, tmp_path):
    files = simulated[0]
    cells = read(given(files))
    slide = read(given(files), windows={"fov_um": 48, "step_um": 32, "border": "fraction"})
    assert slide.uns["stmorph"]["unit"] == "window" and slide.n_obs > 20
    held, counts = slide.uns["cells"], cells.X.toarray()
    assert list(held["barcode"]) == list(cells.obs_names)
    for i in range(0, slide.n_obs, 5):
        mine = slice(held["start"][i], held["start"][i + 1])
        weight = np.bincount(held["cell"][mine], held["weight"][mine], minlength=cells.n_obs)
        np.testing.assert_allclose(slide.X[i].toarray().ravel(), weight @ counts, rtol=1e-9)
        low, high = cells.obsm["boundary_um"].min(axis=1), cells.obsm["boundary_um"].max(axis=1)
        inside = (np.abs((low + high) / 2 - slide.obsm["spatial_um"][i]) + (high - low) / 2 <= 24).all(axis=1)
        np.testing.assert_allclose(weight[inside], 1)
    assert ((held["weight"] > 0) & (held["weight"] < 1)).any()

    write_slide(slide, tmp_path / "slide.h5ad")
    image, record = tmp_path / "image.npy", tmp_path / "image.json"
    build_store(open_image(files["image"]), 0.8, 1.0, StainOptions(fit="none"), image, record)
    store, out = open_store(image), (tmp_path / "c.npy", tmp_path / "c.json")
    made = make_channels(["cell_mask"], open_slide(tmp_path / "slide.h5ad"), store, {}, *out)
    assert made["cell_mask"]["cells"] == cells.n_obs
    column, row = store.to_px(cells.obsm["spatial_um"]).astype(int).T
    middle = np.zeros((len(row), 1, 1, 1), np.uint8)
    ExtraChannels(out[0]).image.boxes_into(middle, column, row)
    assert (middle == 255).mean() > 0.98

    split = pd.DataFrame({"slide": "A", "barcode": slide.obs_names, "dataset": "toy", "patient": "P1"})
    split[["x_um", "y_um"]] = slide.obsm["spatial_um"]
    split["role"] = np.where(split["x_um"] < split["x_um"].median(), "train", "test")
    report = leakage_report(split, 48.0, False, window_cells([tmp_path / "slide.h5ad"]))
    owner = np.repeat(split["role"], np.diff(held["start"]))
    sides = [set(held["cell"][owner == role]) for role in ("train", "test")]
    assert 0 < len(sides[0] & sides[1]) == report["shared"]["cells"]


# --- what is wrong with files -----------------------------------------------------------------------------------------


class Segmented:
    """Six cells 20 px apart in two rows, 3 genes; the picture is 100 x 70 px."""

    def __init__(self, folder):
        self.folder = folder
        row, column = np.divmod(np.arange(6), 3)
        self.xy = np.column_stack([25.0 + 20 * column, 20.0 + 20 * row])
        square = 4.0 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)])
        self.ring = [place + square for place in self.xy]
        self.cell_id = list(range(1, 7))
        self.barcode = [f"cellid_{one:09d}-1" for one in self.cell_id]
        self.counts = np.random.default_rng(0).poisson(4, (6, 3)) + 1
        self.scale = {"microns_per_pixel": 0.5, "tissue_hires_scalef": 0.1}

    def files(self):
        made = {
            "counts": self.folder / "cell_matrix.h5",
            "cells": self.folder / "cells.geojson",
            "scalefactors": self.folder / "scale.json",
            "image": self.folder / "image.png",
        }
        genes = {"id": [f"ENSG{i:011d}" for i in range(3)], "name": ["TP53", "ACTB", "KRT5"]}
        genes |= {"feature_type": ["Gene Expression"] * 3, "genome": ["GRCh38"] * 3}
        write_feature_matrix(made["counts"], self.counts, self.barcode, genes)
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [np.asarray(ring).tolist()]},
                "properties": {"cell_id": one},
            }
            for ring, one in zip(self.ring, self.cell_id)
        ]
        made["cells"].write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        made["scalefactors"].write_text(json.dumps(self.scale))
        picture = np.random.default_rng(1).integers(90, 160, (70, 100, 3)).astype(np.uint8)
        picture[:6] = 240
        Image.fromarray(picture).save(made["image"])
        return made

    def read(self, files=None, info=replace(INFO, species="human"), **options):  # noqa: B008
        return read(files or self.files(), info, **options)


@pytest.fixture
def outs(tmp_path):
    return Segmented(tmp_path)


def fails(outs, match, kind=DataError, **given_):
    with pytest.raises(kind, match=match) as caught:
        outs.read(**given_)
    sentence = str(caught.value)
    assert "\n" not in sentence and "expected" in sentence


@pytest.mark.parametrize(
    "ids",
    [
        [str(k) for k in range(1, 7)],
        [float(k) for k in range(1, 7)],
        [f"{k:09d}" for k in range(1, 7)],
        [f"cellid_{k:09d}" for k in range(1, 7)],
        [f"cellid_{k:09d}-1" for k in range(1, 7)],
    ],
)
def test_ids_as_numbers_and_as_text(outs, ids):
    reference = outs.read()
    assert reference.n_obs == 6 and np.array_equal(reference.X.toarray(), outs.counts)
    np.testing.assert_allclose(reference.obsm["spatial_um"], outs.xy * 0.5)
    np.testing.assert_allclose(reference.obs["cell_area_um2"], 16.0)
    outs.cell_id = ids
    slide = outs.read()
    assert slide.obs_names.equals(reference.obs_names) and (slide.X != reference.X).nnz == 0


def test_names_of_another_program_are_taken_as_they_are(outs):
    outs.cell_id = outs.barcode = [f"k{k}" for k in range(6)]
    assert outs.read().obs_names.tolist() == outs.barcode


def test_cells_and_outlines_that_have_no_partner_are_counted(outs):
    outs.cell_id[0], outs.counts[4] = 77, 0
    outs.ring[5] = outs.ring[5] + np.array([200, 0])
    outs.ring[2] = outs.ring[2][[0, 2, 0]]
    outs.ring[3] = outs.ring[3][[0, 2, 1, 3, 0]]
    for k in range(100):  # so that one outside the image is few
        outs.cell_id.append(1000 + k)
        outs.barcode.append(f"cellid_{1000 + k:09d}-1")
        outs.ring.append(outs.xy[1] + outs.ring[1] - outs.xy[1])
    outs.counts = np.concatenate([outs.counts, np.ones((100, 3), int)])
    slide = outs.read()
    assert slide.obs_names[:2].tolist() == ["cellid_000000002-1", "cellid_000000004-1"] and slide.n_obs == 102
    np.testing.assert_allclose(slide.obsm["spatial_um"][1], outs.xy[3] * 0.5)
    # Cell 1 has no outline, 3 one without area; 77 has no counts, 5 none either; 4's outline was mended; 6 is outside.
    assert lost(slide) == {"no position": 2, "no counts": 2, FLAT: 1, CROSSED: 1, "outside image": 1}


def test_without_scale_factors_the_scale_is_declared_or_the_images(outs):
    files = outs.files()
    del files["scalefactors"]
    fails(outs, "um per px is neither declared nor in", files=files)
    info = replace(INFO, species="human", um_per_px=0.5)
    np.testing.assert_allclose(outs.read(files, info).obs["cell_area_um2"], 16.0)
    fails(outs, "declared as 0.7000, but is 0.5000 by scale.json", info=replace(info, um_per_px=0.7))
    outs.scale["microns_per_pixel"] = 0
    fails(outs, "microns_per_pixel is 0; expected a number above 0")


def test_files_of_another_kind(outs):
    outs.barcode = [f"s_008um_00000_{k:05d}-1" for k in range(6)]
    fails(
        outs, r"cell_matrix.h5 holds bins \('s_008um_00000_00000-1'\), and .* give segmented_outputs/filtered_feature"
    )
    outs.barcode = [f"cellid_{k // 2:09d}-{k % 2 + 1}" for k in range(6)]
    fails(outs, "holds 6 barcodes of 3 cells, which differ by what follows the hyphen")
    outs.barcode = [f"cellid_{k:09d}-1" for k in range(50, 56)]
    fails(outs, "no barcode in common")
    files = outs.files()
    files["cells"].write_text(files["cells"].read_text().replace("cell_id", "id"))
    fails(outs, "cells.geojson has polygons without cell_id", files=files)


def test_outlines_that_are_none(outs):
    good = list(outs.ring)
    outs.ring[3] = outs.ring[3] + np.array([np.nan, 0])
    fails(outs, "the outline of cell '4' has a coordinate that is no number")
    outs.ring = [ring[[0, 1, 0]] for ring in good]
    fails(outs, "it holds 6 polygons, none with an area")
    outs.ring, outs.cell_id[1] = good, 1
    fails(outs, "names 1 cells more than once, first 'cellid_000000001-1'")
    outs.cell_id = list(range(1, 7))
    outs.ring = [(ring + np.array([30, 0]))[:, ::-1] for ring in good]
    fails(outs, "the axes look swapped")


@pytest.mark.parametrize("damage", ["truncated", "other kind", "no polygon", "empty"])
def test_damaged_outlines(outs, damage):
    files = outs.files()
    whole = files["cells"].read_bytes()
    files["cells"].write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "other kind": b"\0" * 200,
            "no polygon": b'{"type": "FeatureCollection", "features": []}',
            "empty": b"",
        }[damage]
    )
    with pytest.raises(DataError, match=r"cells.geojson.*download it again"):
        outs.read(files)


def test_files_and_options_that_contradict(outs):
    files = outs.files()
    both = files | {"positions": files["cells"]}
    fails(outs, "has the files positions and cells; expected one of them: leave one out", ConfigError, files=both)
    none = {role: path for role, path in files.items() if role != "cells"}
    fails(outs, "has none of the files positions and cells; expected one of them", ConfigError, files=none)
    nuclei = files | {"nuclei": files["cells"]}
    fails(outs, "files names segmented cells, .* and files names nuclei", ConfigError, files=nuclei)
    fails(outs, "reader_options sets pool, which is for bins", ConfigError, pool={})
    fails(outs, "reader_options sets bin_um, which is for bins", ConfigError, bin_um=2)
