import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
from feature_matrix import write_feature_matrix
from skimage.draw import polygon2mask

from stmorph.errors import ConfigError, DataError
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.bins import fit_array
from stmorph.simulate import SimulationOptions, simulate_slide
from stmorph.simulate.visium_hd_slide import SIZES, draw_hd

ROOT = Path(__file__).parents[2]
INFO = SlideInfo(dataset="toy", slide="A", platform="visium_hd", organ="kidney", species="human", patient="P1")
SIMULATED = replace(INFO, species="simulated")
Options = READERS["visium_hd"].Options
ROWS, COLUMNS, UM_PER_PX = 24, 30, 0.4
WIDTH, HEIGHT = 190, 160
STEP = 2.0 / UM_PER_PX


class Outs:
    """A minimal folder of 2 um bins: 24 x 30 of them, turned by some degrees, the first three rows off tissue."""

    def __init__(self, folder, turn_deg=4.0, mirrored=False):
        self.folder = folder
        row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
        turn = np.deg2rad(turn_deg)
        axes = STEP * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        if mirrored:
            axes = axes[::-1]
        xy = np.column_stack([column - (COLUMNS - 1) / 2, row - (ROWS - 1) / 2]) @ axes + [WIDTH / 2, HEIGHT / 2]
        self.positions = pd.DataFrame(
            {
                "barcode": [f"s_002um_{r:05d}_{c:05d}-1" for r, c in zip(row, column)],
                "in_tissue": (row > 2).astype(int),
                "array_row": row,
                "array_col": column,
                "pxl_row_in_fullres": xy[:, 1],
                "pxl_col_in_fullres": xy[:, 0],
            }
        )
        rng = np.random.default_rng(3)
        self.barcode = self.positions["barcode"].sample(frac=1, random_state=0).to_numpy()
        self.counts = rng.poisson(0.7, (len(self.barcode), 6)).astype(float)
        self.symbol = ["TP53", "ACTB", "DUP", "NegControlProbe_1", "DUP", "KRT5"]
        self.gene_id = [f"ENSG{i:011d}" for i in range(6)]
        self.scale = {
            "bin_size_um": 2.0,
            "microns_per_pixel": UM_PER_PX,
            "spot_diameter_fullres": STEP,
            "tissue_hires_scalef": 0.5,
            "tissue_lowres_scalef": 0.1,
            "fiducial_diameter_fullres": 3000.0,
            "regist_target_img_scalef": 0.5,
        }
        self.labels = None

    def files(self):
        made = {name: self.folder / name for name in ("raw.h5", "positions.parquet", "scale.json", "image.btf")}
        features = {"id": self.gene_id, "name": self.symbol}
        features |= {"feature_type": ["Gene Expression"] * 6, "genome": ["GRCh38"] * 6}
        write_feature_matrix(made["raw.h5"], self.counts, list(self.barcode), features)
        self.positions.to_parquet(made["positions.parquet"], index=False)
        made["scale.json"].write_text(json.dumps(self.scale))
        pixels = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
        pixels[20:140, 20:170] = np.random.default_rng(0).integers(90, 160, (120, 150, 3))
        tifffile.imwrite(made["image.btf"], pixels, bigtiff=True, photometric="rgb")
        files = dict(zip(("counts", "positions", "scalefactors", "image"), made.values()))
        if self.labels is not None:
            np.save(self.folder / "nuclei.npy", self.labels)
            files["nuclei"] = self.folder / "nuclei.npy"
        return files

    def read(self, info=INFO, files=None, **options):
        return read_slide("visium_hd", self.files() if files is None else files, info, Options(**options))

    def dense(self):
        """Counts in the order of the positions."""
        return self.counts[pd.Index(self.barcode).get_indexer(self.positions["barcode"])]

    def xy(self):
        return self.positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()


@pytest.fixture
def outs(tmp_path):
    return Outs(tmp_path)


def lost(slide):
    return json.loads(slide.uns["stmorph"]["lost"])


# --- units ------------------------------------------------------------------------------------------------------------


def test_bins_as_they_are(outs):
    outs.counts[5] = 0
    slide = outs.read()
    record = slide.uns["stmorph"]
    assert record["unit"] == "bin" and record["um_per_px"] == pytest.approx(UM_PER_PX)
    assert "by the bins' pitch (2 um = 5.000 px" in record["um_per_px_evidence"]
    kept = outs.positions.set_index("barcode").loc[slide.obs_names]
    np.testing.assert_allclose(
        slide.obsm["spatial_um"], kept[["pxl_col_in_fullres", "pxl_row_in_fullres"]] * UM_PER_PX, rtol=1e-6
    )
    row = pd.Index(outs.positions["barcode"]).get_indexer(slide.obs_names)
    np.testing.assert_array_equal(slide.X.toarray(), outs.dense()[row])
    assert list(slide.obs_names) == sorted(slide.obs_names)
    empty = ((outs.dense()[:, [0, 1, 2, 4, 5]].sum(axis=1) == 0) & (outs.positions["in_tissue"] == 1)).sum()
    assert lost(slide) == {"not in tissue": 3 * COLUMNS, "no counts": empty}


@pytest.mark.parametrize("turn_deg", [0.0, 4.0, 90.0, 183.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_pseudo_spots_lie_in_the_middle_of_the_bins_they_sum(tmp_path, turn_deg, mirrored):
    outs = Outs(tmp_path, turn_deg, mirrored)
    # Registration is never quite regular, and the middle is the bins' own.
    rng = np.random.default_rng(1)
    outs.positions["pxl_col_in_fullres"] += rng.uniform(-0.4, 0.4, len(outs.positions))
    files = outs.files()
    image = np.full((260, 260, 3), 240, np.uint8)
    image[10:250, 10:250] = rng.integers(90, 160, (240, 240, 3))
    tifffile.imwrite(files["image"], image, photometric="rgb")
    slide = outs.read(files=files, pool={"bins": 7, "stride": 3})
    rows, columns, xy, dense = outs.positions["array_row"], outs.positions["array_col"], outs.xy(), outs.dense()
    assert slide.uns["stmorph"]["unit"] == "pseudo-spot" and slide.n_obs > 20
    for i, name in enumerate(slide.obs_names):
        kind, top, left = name.split("_")
        assert kind == "p007x002um"
        inside = (rows >= int(top)) & (rows < int(top) + 7) & (columns >= int(left)) & (columns < int(left) + 7)
        assert inside.sum() == 49 and (outs.positions["in_tissue"][inside] == 1).all()
        np.testing.assert_array_equal(slide.X[i].toarray()[0], dense[inside].sum(axis=0))
        middle = xy[inside].mean(axis=0) * slide.uns["stmorph"]["um_per_px"]
        np.testing.assert_allclose(slide.obsm["spatial_um"][i], middle, atol=1e-9)
        assert (slide.obs["array_row"].iloc[i], slide.obs["array_col"].iloc[i]) == (int(top) // 3, int(left) // 3)
    assert list(slide.obs_names) == sorted(slide.obs_names)


def test_sums_left_for_later_are_the_same(outs):
    """Also where some pseudo-spots lie outside the image."""
    outs.positions["pxl_col_in_fullres"] -= 26.5
    pool = {"bins": 3, "stride": 1}
    whole = outs.read(pool=pool)
    later = read_slide("visium_hd", outs.files(), INFO, Options(pool=pool), lazy=True)
    assert later.X is None and later.uns["counts"].shape == whole.shape and lost(later)["outside image"] > 0
    assert (later.uns["counts"].all()[0] != whole.X).nnz == 0
    assert str(later.uns["stmorph"]) == str(whole.uns["stmorph"])
    pd.testing.assert_frame_equal(later.obs, whole.obs)


def test_how_much_of_a_window_must_be_in_tissue(outs):
    laid = len(range(0, ROWS - 8, 2)) * len(range(0, COLUMNS - 8, 2))
    every, half, any_ = (outs.read(pool={"bins": 9, "stride": 2, "in_tissue": s}) for s in ("all", 0.7, "any"))
    assert set(every.obs_names) < set(half.obs_names) < set(any_.obs_names)
    assert (every.obs["bins_in_tissue"] == 81).all() and half.obs["bins_in_tissue"].min() >= 0.7 * 81
    for slide in (every, half, any_):
        reasons = lost(slide)
        uncovered = reasons.pop("bins in tissue that no pseudo-spot covers", 0)
        assert slide.n_obs + sum(reasons.values()) == laid and uncovered > 0
    # Bins off tissue have counts in this file and add none.
    in_tissue = outs.positions["in_tissue"].to_numpy() == 1
    first = any_[any_.obs["array_row"] == 0][0]
    inside = in_tissue & (outs.positions["array_row"] < 9).to_numpy() & (outs.positions["array_col"] < 9).to_numpy()
    np.testing.assert_array_equal(first.X.toarray()[0], outs.dense()[inside].sum(axis=0))
    # The middle is the square's, not that of its tissue.
    assert first.obsm["spatial_um"][0] == pytest.approx(outs.xy()[4 * COLUMNS + 4] * UM_PER_PX)


def test_filtered_and_raw_counts_give_the_same_pseudo_spots(outs):
    raw = outs.read(pool={"bins": 5, "stride": 2, "in_tissue": "any"})
    kept = np.isin(outs.barcode, outs.positions["barcode"][outs.positions["in_tissue"] == 1])
    outs.barcode, outs.counts = outs.barcode[kept], outs.counts[kept]
    filtered = outs.read(pool={"bins": 5, "stride": 2, "in_tissue": "any"})
    assert list(raw.obs_names) == list(filtered.obs_names) and (raw.X != filtered.X).nnz == 0


def test_positions_that_list_only_some_bins_keep_names_and_middles(outs):
    reference = outs.read(pool={"bins": 5, "stride": 2})
    outs.positions = outs.positions[outs.positions["in_tissue"] == 1]
    some = outs.read(pool={"bins": 5, "stride": 2})
    assert list(some.obs_names) == list(reference.obs_names)
    np.testing.assert_allclose(some.obsm["spatial_um"], reference.obsm["spatial_um"], atol=1e-6)
    assert lost(some)["bins without position"] == 3 * COLUMNS


def test_pseudo_spots_without_counts_are_counted(outs):
    dark = (outs.positions["array_row"] > 9) & (outs.positions["array_col"] < 12)
    outs.counts[np.isin(outs.barcode, outs.positions["barcode"][dark])] = 0
    slide = outs.read(pool={"bins": 5, "stride": 5})
    assert lost(slide)["no counts"] == 4
    assert (np.asarray(slide.X.sum(axis=1)) > 0).all()


def test_cells_are_the_bins_inside_nuclei(outs):
    outs.labels = np.zeros((HEIGHT, WIDTH), np.int32)
    outs.labels[60:90, 40:60] = 7
    outs.labels[60:90, 60:82] = 3  # touches nucleus 7
    outs.labels[100:101, 100:101] = 5  # one pixel: at most one bin
    outs.labels[5:12, 5:12] = 9  # off the array
    slide = outs.read()
    assert slide.uns["stmorph"]["unit"] == "cell"
    names = [name for name in slide.obs_names if not name.endswith("5")]
    assert names == ["nucleus_000000003", "nucleus_000000007"]
    xy, dense, in_tissue = outs.xy(), outs.dense(), outs.positions["in_tissue"].to_numpy() == 1
    label = np.zeros(len(xy), int)
    ambiguous = np.zeros(len(xy), bool)
    axes = np.linalg.inv(fit(outs).axes)
    for i, (cx, cy) in enumerate(xy):
        label[i] = outs.labels[int(cy), int(cx)]
        top, left = max(int(cy) - 6, 0), max(int(cx) - 6, 0)
        near = outs.labels[top : top + 14, left : left + 14]
        y, x = np.mgrid[: near.shape[0], : near.shape[1]] + 0.5
        offset = np.stack([x + left - cx, y + top - cy], axis=-1) @ axes
        touched = set(near[(np.abs(offset) <= 0.5).all(axis=-1)]) - {0}
        ambiguous[i] = label[i] > 0 and len(touched | {label[i]}) > 1
    assert 0 < ambiguous.sum() < 30
    for name in names:
        mine = in_tissue & ~ambiguous & (label == int(name[-1]))
        row = slide[name]
        np.testing.assert_array_equal(row.X.toarray()[0], dense[mine].sum(axis=0))
        assert row.obs["bins"].iloc[0] == mine.sum()
        pixels = np.argwhere(outs.labels == int(name[-1]))
        assert row.obsm["spatial_um"][0] == pytest.approx((pixels.mean(axis=0)[::-1] + 0.5) * UM_PER_PX)
    reasons = lost(slide)
    assert reasons["bins in two nuclei"] == (ambiguous & in_tissue).sum()
    used = slide.obs["bins"].sum()
    assert used + reasons["bins in two nuclei"] + reasons["bins outside nuclei"] == in_tissue.sum()
    assert reasons["bins not in tissue"] == 3 * COLUMNS and reasons["nuclei without bins"] >= 1


def test_windows_hold_the_nuclei_that_lie_in_them(outs):
    outs.labels = np.zeros((HEIGHT, WIDTH), np.int32)
    label = 0
    for top in range(40, 120, 16):
        for left in range(40, 140, 20):
            label += 1
            outs.labels[top : top + 12, left : left + 14] = label
    cells = outs.read()
    assert cells.obs["cell_area_um2"].to_numpy() == pytest.approx(12 * 14 * UM_PER_PX**2)
    slide = outs.read(windows={"fov_um": 20, "step_um": 8, "border": "fraction"})
    assert slide.uns["stmorph"]["unit"] == "window" and slide.n_obs > 10
    held, counts, place = slide.uns["cells"], cells.X.toarray(), cells.obsm["spatial_um"]
    assert list(held["barcode"]) == list(cells.obs_names)
    radius = np.sqrt(12 * 14 * UM_PER_PX**2 / np.pi)
    for i, centre in enumerate(slide.obsm["spatial_um"]):
        mine = slice(held["start"][i], held["start"][i + 1])
        weight = np.zeros(cells.n_obs)
        weight[held["cell"][mine]] = held["weight"][mine]
        np.testing.assert_allclose(slide.X[i].toarray().ravel(), weight @ counts, rtol=1e-9)
        away = np.abs(place - centre).max(axis=1)
        assert (weight[away < 10 - 1.01 * radius] == 1).all() and (weight[away > 10 + 1.01 * radius] == 0).all()
    assert ((held["weight"] > 0) & (held["weight"] < 1)).any()


def fit(outs):
    table = outs.positions.rename(columns={"pxl_col_in_fullres": "x_px", "pxl_row_in_fullres": "y_px"})
    return fit_array(table.set_index("barcode"), outs.folder)


def test_a_bin_whose_centre_lies_on_the_border_of_two_nuclei_is_dropped(tmp_path):
    outs = Outs(tmp_path, turn_deg=0.0)
    x = outs.xy()[10 * COLUMNS + 8, 0]
    shift = round(x) - x
    outs.positions["pxl_col_in_fullres"] += shift  # now on a pixel's border
    outs.labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    outs.labels[:, : round(x)] = 1
    outs.labels[:, round(x) :] = 2
    slide = outs.read()
    # Bins are 5 px wide: the column on the border is dropped, no other touches both.
    assert lost(slide)["bins in two nuclei"] == ROWS - 3
    assert slide.obs["bins"].sum() == (ROWS - 3) * (COLUMNS - 1)


@pytest.mark.parametrize("kind", ["npy", "npz", "tif", "packed tif", "big-endian tif"])
def test_every_kind_of_label_image_gives_the_same_cells(outs, kind):
    outs.labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    outs.labels[50:80, 40:60], outs.labels[100:120, 80:100] = 1, 400
    reference = outs.read()
    files = outs.files()
    path = files["nuclei"] = outs.folder / f"labels.{kind.split()[-1]}"
    if kind == "npy":
        np.save(path, outs.labels.astype(np.int64))
    elif kind == "npz":
        np.savez_compressed(path, anything=outs.labels)
    else:
        tifffile.imwrite(
            path,
            outs.labels,
            compression="deflate" if kind.startswith("packed") else None,
            byteorder=">" if kind.startswith("big") else "<",
        )
    slide = outs.read(files=files)
    assert list(slide.obs_names) == list(reference.obs_names) and (slide.X != reference.X).nnz == 0
    np.testing.assert_array_equal(slide.obsm["spatial_um"], reference.obsm["spatial_um"])


def test_polygons_of_nuclei_give_the_cells_of_their_label_image(outs, monkeypatch):
    rings = [np.array([(40, 50), (60, 50), (60, 80), (40, 80.0)]), np.array([(80, 100), (100, 104), (92, 121.0)])]
    outs.labels = np.zeros((HEIGHT, WIDTH), np.int32)
    for number, ring in enumerate(rings, 1):
        outs.labels[polygon2mask(outs.labels.shape, ring[:, ::-1] - 0.5)] = number
    reference = outs.read()
    files = outs.files()
    files["nuclei"] = outs.folder / "nuclei.geojson"
    shapes = [{"geometry": {"type": "Polygon", "coordinates": [ring.tolist()]}} for ring in rings]
    files["nuclei"].write_text(json.dumps(shapes))
    for most in (2**28, 100):  # held in memory, and in a file
        monkeypatch.setattr("stmorph.read.nuclei._MOST_HELD", most)
        slide = outs.read(files=files)
        assert list(slide.obs_names) == list(reference.obs_names) and (slide.X != reference.X).nnz == 0
        # Outlines have their own centroid, not that of the pixels in them.
        np.testing.assert_allclose(slide.obsm["spatial_um"], reference.obsm["spatial_um"], atol=0.5 * UM_PER_PX)
        np.testing.assert_allclose(slide.obsm["spatial_um"][1] / UM_PER_PX, rings[1].mean(axis=0))
        assert lost(slide) == lost(reference)
        outline = slide.obsm["boundary_um"][1]
        np.testing.assert_allclose(outline, np.concatenate([rings[1], rings[1][-1:]]) * UM_PER_PX)


def test_barcodes_of_another_tool_go_by_row_and_column(outs):
    reference = outs.read(pool={"bins": 5, "stride": 2})
    rename = dict(zip(outs.positions["barcode"], [f"bin{i}" for i in range(len(outs.positions))]))
    outs.positions["barcode"] = outs.positions["barcode"].map(rename)
    outs.barcode = np.array([rename[b] for b in outs.barcode])
    slide = outs.read(pool={"bins": 5, "stride": 2})
    assert (slide.X != reference.X).nnz == 0 and list(slide.obs_names) == list(reference.obs_names)
    files = outs.files()
    del files["scalefactors"]
    with pytest.raises(DataError, match="declare um_per_px"):
        outs.read(files=files, pool={"bins": 5, "stride": 2})
    slide = outs.read(replace(INFO, um_per_px=0.4), files=files, pool={"bins": 5, "stride": 2})
    assert slide.obs_names[0].startswith("p005xbins_")
    sized = outs.read(files=files, bin_um=2, pool={"bins": 5, "stride": 2})
    assert list(sized.obs_names) == list(reference.obs_names)


# --- what was drawn ---------------------------------------------------------------------------------------------------

DRAWN = SimulationOptions(platform="visium_hd", spots=25, um_per_px=0.8, noise_genes=20, hd_rotation_deg=-7.0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    files = simulate_slide(DRAWN, tmp_path_factory.mktemp("hd"), "A", "P", 11)
    return files, draw_hd(DRAWN, "A", "P", 11)


def given(files, size, *more):
    tail = "" if size == 2 else f"_{size:03d}um"
    roles = {role: files[f"{role}{tail}"] for role in ("counts", "positions", "scalefactors")}
    return roles | {role: files[role] for role in ("image", *more)}


@pytest.mark.parametrize("size", SIZES)
def test_bins_come_back_as_drawn(simulated, size):
    files, drawn = simulated
    slide = read_slide("visium_hd", given(files, size), SIMULATED, Options(bin_um=size))
    truth, counts = drawn.bins(size), drawn.counts_of(size)
    row = pd.Index(truth["barcode"]).get_indexer(slide.obs_names)
    assert (row >= 0).all() and (counts[row] != slide.X).nnz == 0
    xy = slide.obsm["spatial_um"] / slide.uns["stmorph"]["um_per_px"]
    assert np.abs(xy - truth[["x_px", "y_px"]].to_numpy()[row]).max() < 0.5
    assert slide.uns["stmorph"]["um_per_px"] == pytest.approx(0.8)
    assert slide.uns["stmorph"]["on_tissue_fraction"] > 0.75  # vacuoles are as light as glass
    empty = np.asarray(counts.sum(axis=1)).ravel() == 0
    tissue = truth["in_tissue"].to_numpy() == 1
    expected = {"not in tissue": int((~tissue).sum()), "no counts": int((tissue & empty).sum())}
    assert lost(slide) == {k: n for k, n in expected.items() if n}


def test_pseudo_spots_come_back_as_drawn(simulated):
    files, drawn = simulated
    slide = read_slide("visium_hd", given(files, 2), replace(SIMULATED, spot_pitch_um=10.0), Options(pool={}))
    assert slide.n_obs > 800
    grid = np.arange(len(drawn.in_tissue)).reshape(drawn.shape)
    for i in range(0, slide.n_obs, 37):
        top, left = (int(part) for part in slide.obs_names[i].split("_")[1:])
        inside = grid[top : top + 27, left : left + 27].ravel()
        assert drawn.in_tissue[inside].all()
        np.testing.assert_array_equal(slide.X[i].toarray()[0], np.asarray(drawn.counts[inside].sum(axis=0))[0])
        middle = drawn.origin + np.array([left + 13, top + 13]) @ drawn.axes
        assert np.abs(slide.obsm["spatial_um"][i] / 0.8 - middle).max() < 1e-6


def test_four_8_um_bins_pooled_are_one_16_um_bin(simulated):
    files = simulated[0]
    pool = {"bins": 2, "stride": 2, "in_tissue": "all"}
    small = read_slide("visium_hd", given(files, 8), SIMULATED, Options(pool=pool))
    large = read_slide("visium_hd", given(files, 16), SIMULATED)
    names = ["s_016um_{:05d}_{:05d}-1".format(*(int(p) // 2 for p in name.split("_")[1:])) for name in small.obs_names]
    row = large.obs_names.get_indexer(names)
    assert (row >= 0).all() and (large.X[row] != small.X).nnz == 0
    np.testing.assert_allclose(small.obsm["spatial_um"], large.obsm["spatial_um"][row], atol=1e-6)


def test_cells_come_back_as_drawn(simulated):
    files, drawn = simulated
    slide = read_slide("visium_hd", given(files, 2, "nuclei"), SIMULATED)
    truth = pd.read_parquet(files["truth"]).set_index("label")
    cells = truth.loc[[int(name.split("_")[1]) for name in slide.obs_names]]
    away = np.hypot(*(slide.obsm["spatial_um"] - cells[["x_um", "y_um"]].to_numpy()).T)
    assert np.median(away) < 0.4 and len(slide) > 0.8 * len(truth)
    # A nucleus has as many bins as its area holds.
    bins = np.pi * cells["nuclear_radius_um"].to_numpy() ** 2 / 4
    assert np.median(slide.obs["bins"] / bins) == pytest.approx(1, abs=0.15)
    assert slide.X.sum() < drawn.counts.sum()


def test_the_command_tells_what_hests_pooling_lost(simulated, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("hest_totals", ROOT / "benchmarks" / "hest_totals.py")
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    files = simulated[0]
    folder = files["counts_016um"].parent
    bins = command.bins_of(folder)
    place = bins.obs[["array_row", "array_col"]].to_numpy() // 8
    _, spot = np.unique(place, axis=0, return_inverse=True)
    counts = bins.X.toarray()
    kept, lossy = (np.zeros((spot.max() + 1, bins.n_vars)) for _ in range(2))
    np.add.at(kept, spot.ravel(), counts)
    lossy[spot.ravel()] += counts  # of the bins of a pseudo-spot one is kept
    for pooled, left in ((lossy, 1), (kept, 0)):
        anndata.AnnData(pooled.astype(np.float32), var=bins.var).write_h5ad(tmp_path / "st.h5ad")
        assert command.main([str(tmp_path / "st.h5ad"), str(folder)]) == left
        said = capsys.readouterr().out
        assert f"hold {int(pooled.sum())} of {int(counts.sum())} molecules ({pooled.sum() / counts.sum():.1%})" in said
    assert command.main([str(tmp_path / "absent.h5ad"), str(folder)]) == 2
    assert "absent.h5ad" in capsys.readouterr().err


# --- what is wrong with files -----------------------------------------------------------------------------------------


def fails(outs, match, kind=DataError, **given_):
    with pytest.raises(kind, match=match) as caught:
        outs.read(**given_)
    sentence = str(caught.value)
    assert "\n" not in sentence and "expected" in sentence
    return sentence


@pytest.mark.parametrize("role", ["counts", "positions", "scalefactors", "image", "nuclei"])
@pytest.mark.parametrize("damage", ["truncated", "other kind", "empty"])
def test_damaged_files(outs, role, damage):
    outs.labels = np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH)
    files = outs.files()
    whole = files[role].read_bytes()
    files[role].write_bytes(
        {"truncated": whole[: len(whole) // 2], "other kind": b"<html>404</html>\n" * 20, "empty": b""}[damage]
    )
    with pytest.raises(DataError, match="download it again") as caught:
        outs.read(files=files)
    assert files[role].name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
def test_a_truncated_label_tiff(outs, packed):
    outs.labels = np.random.default_rng(0).integers(0, 99, (HEIGHT, WIDTH)).astype(np.int32)
    files = outs.files()
    files["nuclei"] = outs.folder / "nuclei.tif"
    tifffile.imwrite(files["nuclei"], outs.labels, compression="deflate" if packed else None)
    whole = files["nuclei"].read_bytes()
    files["nuclei"].write_bytes(whole[: len(whole) // 2])
    fails(outs, "nuclei.tif cannot be read", files=files)


@pytest.mark.parametrize("options", [{}, {"pool": {"bins": 3, "stride": 3}}, {"nuclei": True}])
def test_positions_and_counts_of_different_slides(outs, options):
    if options.pop("nuclei", False):
        outs.labels = np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH)
    outs.barcode = np.array([b.replace("002um", "008um") for b in outs.barcode])
    sentence = fails(outs, "no barcode in common", **options)
    assert "s_002um_" in sentence and "s_008um_" in sentence


def test_swapped_rows_and_columns(outs):
    outs.positions[["array_row", "array_col"]] = outs.positions[["array_col", "array_row"]].to_numpy()
    assert "the two columns look exchanged" in fails(outs, "expected row 0, column 1 as its barcode says")
    outs.positions[["array_row", "array_col"]] = outs.positions[["array_col", "array_row"]].to_numpy()
    outs.positions.loc[77, "array_row"] = 9
    sentence = fails(outs, r"s_002um_00002_00017-1 has array_row 9, array_col 17 \(1 such bins\)")
    assert "mend the file" in sentence


def test_swapped_pixel_axes(outs):
    axes = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    outs.positions[axes] = outs.positions[axes[::-1]].to_numpy()
    fails(outs, "the axes look swapped")


def test_negative_places_and_coordinates(outs):
    outs.positions.loc[4, "array_row"] = -1
    fails(outs, "s_002um_00000_00004-1 lies at array_row -1, array_col 4; expected rows and columns from 0")
    outs.positions.loc[4, "array_row"] = 0
    outs.positions["pxl_col_in_fullres"] -= 100
    fails(outs, "lie outside")


def test_bins_beyond_the_image_off_tissue_are_ordinary(outs):
    outs.positions.loc[outs.positions["array_col"] < 3, "in_tissue"] = 0
    outs.positions["pxl_col_in_fullres"] -= 25
    assert outs.positions["pxl_col_in_fullres"].min() < 0
    assert "outside image" not in lost(outs.read())


@pytest.mark.parametrize("value", [0, -1, float("nan"), "0.4", None, True])
@pytest.mark.parametrize("name", ["microns_per_pixel", "bin_size_um", "spot_diameter_fullres"])
def test_scale_factors_that_are_none(outs, name, value):
    outs.scale[name] = value
    fails(outs, f"scale.json: {name} is .* expected a number above 0")


def test_statements_of_size_and_scale_that_disagree(outs):
    outs.scale["bin_size_um"] = 8.0
    fails(outs, "bins are 2 um in .*positions.parquet by its barcodes and 8 um in .*scale.json")
    outs.scale["bin_size_um"] = 2.0
    fails(outs, r"2 um in .* and 16 um in reader_options \(bin_um\)", bin_um=16)
    outs.scale["microns_per_pixel"] = 0.5
    fails(outs, r"microns_per_pixel is 0.5000, but the positions in .* give 0.4000")
    del outs.scale["microns_per_pixel"]
    fails(outs, r"declared as 0.6000, but is 0.4000", info=replace(INFO, um_per_px=0.6))
    info = replace(INFO, spot_pitch_um=2.0)
    assert outs.read(info).uns["stmorph"]["unit"] == "bin"
    fails(outs, "declared as 2, but pseudo-spots are 6 um apart", ConfigError, info=info, pool={"bins": 3, "stride": 3})


@pytest.mark.parametrize("value", [np.nan, np.inf, None, "here"])
def test_positions_without_a_number(outs, value):
    outs.positions["pxl_col_in_fullres"] = outs.positions["pxl_col_in_fullres"].astype(object)
    outs.positions.loc[31, "pxl_col_in_fullres"] = value
    if value == "here":
        outs.positions["pxl_col_in_fullres"] = outs.positions["pxl_col_in_fullres"].astype(str)
    fails(outs, "pxl_col_in_fullres of s_002um_00001_00001-1 is .*expected a number in each of 720 rows")


@pytest.mark.parametrize("value", [np.nan, -1, 0.5])
def test_values_that_are_no_counts(outs, value):
    outs.counts[7, 1] = value
    assert outs.barcode[7] in fails(outs, "raw counts", pool={"bins": 3, "stride": 3})


@pytest.mark.parametrize("options", [{}, {"pool": {"bins": 3, "stride": 3}}])
def test_duplicate_barcodes(outs, options):
    outs.barcode[3] = outs.barcode[8]
    assert outs.barcode[8] in fails(outs, "more than once", **options)
    outs.barcode[3] = "s_002um_00099_00099-1"
    outs.positions.loc[50, "barcode"] = outs.positions.loc[60, "barcode"]
    assert outs.positions.loc[60, "barcode"] in fails(outs, "positions.parquet names 1 barcodes more than once")


def test_barcodes_of_two_kinds(outs):
    outs.positions.loc[50, "barcode"] = "ACGTACGTACGTACGT-1"
    fails(outs, "holds the barcode 'ACGTACGTACGTACGT-1' beside 's_002um_00000_00000-1'")
    outs.positions.loc[50, "barcode"] = "s_008um_00001_00020-1"
    fails(outs, "expected one kind of barcode and one size of bin")


def test_positions_that_follow_no_grid(outs):
    good = outs.positions.copy()
    outs.positions.loc[100, "pxl_row_in_fullres"] += 40
    fails(outs, r"s_002um_00003_00010-1 lies \d+ px from where its row and column put it \(1 such bins\)")
    outs.positions = good.copy()
    order = np.random.default_rng(0).permutation(len(good))
    axes = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    outs.positions[axes] = good[axes].to_numpy()[order]
    fails(outs, "do not follow their rows and columns")
    outs.positions[axes] = good[axes].to_numpy() * [1, 1.5]
    fails(outs, "do not follow their rows and columns .*steps of 7")
    outs.positions = good[good["array_row"] == 5]
    fails(outs, "lists 30 bins that span no area")


def test_nothing_there(outs):
    counts = outs.counts.copy()
    outs.counts[:] = 0
    fails(outs, "holds no counts", pool={"bins": 3, "stride": 3})
    outs.counts = counts
    positions = outs.positions.copy()
    outs.positions["in_tissue"] = 0
    fails(outs, "leave no unit")
    fails(outs, r"leaves no pseudo-spot of 3 x 3 bins \(0 bins in tissue\)", pool={"bins": 3, "stride": 3})
    outs.labels = np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH)
    fails(outs, "leave no bin in tissue with counts")
    outs.labels = None
    outs.positions = positions
    fails(outs, "leaves no pseudo-spot of 25 x 25 bins", pool={"bins": 25, "stride": 1})
    outs.counts[~np.isin(outs.barcode, positions["barcode"][positions["in_tissue"] == 0])] = 0
    fails(outs, "leave no pseudo-spot with counts", pool={"bins": 3, "stride": 3})
    outs.positions = positions[:0]
    fails(outs, "lists no bin")


def test_label_images_that_are_none(outs):
    def labelled(labels, match):
        outs.labels = labels
        fails(outs, match)

    blank = np.zeros((HEIGHT, WIDTH), np.int32)
    labelled(blank, "holds no nucleus")
    labelled(blank + (np.arange(WIDTH) > 80), "holds one label, as a mask of foreground does")
    labelled(blank - 3 * (np.arange(WIDTH) > 80), "holds labels from -3 to 0")
    labelled(blank.astype(float), "is an array of float64, 160 x 190; expected one plane of whole numbers")
    labelled(np.zeros((3, HEIGHT, WIDTH), np.int32), "is an array of int32, 3 x 160 x 190")
    small = np.arange(40 * 50, dtype=np.int32).reshape(40, 50)
    labelled(small, r"is 50 x 40 px, and \d+ of 630 bins in tissue lie outside it")
    corner = blank.copy()
    corner[0, :2] = 1, 2
    labelled(corner, "has no nucleus with a bin of its own")
    files = outs.files()
    files["nuclei"] = outs.folder / "two.npz"
    np.savez(files["nuclei"], a=blank, b=blank)
    fails(outs, "it holds the arrays a, b, not one", files=files)


def test_options_that_contradict(outs):
    outs.labels = np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH)
    fails(outs, "asks for pseudo-spots, and files names nuclei", ConfigError, pool={})
    for wrong in ({"bins": 0}, {"stride": 0}, {"in_tissue": 0}, {"in_tissue": 1.2}, {"in_tissue": "most"}, {"bin": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Options(pool=wrong)
