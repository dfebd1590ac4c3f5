import hashlib
import json

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tifffile
from scipy.stats import spearmanr

from stmorph.image.source import open_image
from stmorph.simulate import PROGRAMMES, SimulationOptions, catalogue, simulate_slide
from stmorph.simulate.fields import at
from stmorph.simulate.visium_hd_cells import segment
from stmorph.simulate.visium_hd_outs import visium_hd_files
from stmorph.simulate.visium_hd_slide import SIZES, draw_hd
from stmorph.simulate.visium_outs import POSITION_COLUMNS

OPTIONS = SimulationOptions(platform="visium_hd", spots=30, um_per_px=1.25, noise_genes=40, hd_rotation_deg=8.0)


@pytest.fixture(scope="module")
def drawn():
    return draw_hd(OPTIONS, "A1", "P1", 5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return simulate_slide(OPTIONS, tmp_path_factory.mktemp("hd"), "A1", "P1", 5)


def h5(path):
    with h5py.File(path) as file:
        group = file["matrix"]
        parts = tuple(group[name][:] for name in ("data", "indices", "indptr"))
        matrix = scipy.sparse.csc_matrix(parts, shape=tuple(group["shape"][:])).T.tocsr()
        return matrix, group["barcodes"][:].astype(str), group["features/name"][:].astype(str)


def test_the_folders_are_those_of_space_ranger(files):
    assert files == visium_hd_files(files["image"].parent)
    folder = files["image"].parent / "outs" / "binned_outputs"
    assert sorted(f.name for f in folder.iterdir()) == ["square_002um", "square_008um", "square_016um"]
    for size in SIZES:
        inside = folder / f"square_{size:03d}um"
        assert {f.name for f in inside.iterdir()} == {
            "filtered_feature_bc_matrix.h5",
            "raw_feature_bc_matrix.h5",
            "spatial",
        }
    assert all(path.is_file() for path in files.values())
    written = {f for f in files["image"].parent.rglob("*") if f.is_file()}
    assert written == set(files.values())


def test_counts_of_larger_bins_are_the_sums_of_the_2_um_bins(files):
    small, barcode, genes = h5(files["raw_counts"])
    assert tuple(genes) == catalogue(OPTIONS.noise_genes).name
    place = pd.Series(barcode).str.extract(r"^s_002um_(\d{5})_(\d{5})-1$").astype(int)
    for size in (8, 16):
        n = SIZES[size]
        large, names, _ = h5(files[f"raw_counts_{size:03d}um"])
        own = pd.Series([f"s_{size:03d}um_{r // n:05d}_{c // n:05d}-1" for r, c in zip(place[0], place[1])])
        row = pd.Index(names).get_indexer(own)
        assert (row >= 0).all() and len(set(row)) == len(names)
        sums = scipy.sparse.csr_matrix((np.ones(len(row)), (row, np.arange(len(row))))) @ small
        assert (sums != large).nnz == 0
        assert large.sum() == small.sum()


def test_the_feature_slice_tells_molecules_tissue_and_place(files):
    positions = pd.read_parquet(files["positions"]).set_index(["array_row", "array_col"])
    counts, barcode, _ = h5(files["raw_counts"])
    total = pd.Series(np.asarray(counts.sum(axis=1)).ravel(), barcode)
    with h5py.File(files["feature_slice"]) as file:
        record = json.loads(file.attrs["metadata_json"])
        found = {
            name: pd.Series(
                file[name]["data"][:], pd.MultiIndex.from_arrays([file[name][k][:] for k in ("row", "col")])
            )
            for name in ("umis/total", "masks/filtered")
        }
        assert file["features/name"].asstr()[:].tolist() == list(catalogue(OPTIONS.noise_genes).name)
    assert (record["nrows"], record["ncols"]) == tuple(np.array(positions.index.max()) + 1)
    place = np.array(record["transform_matrices"]["spot_colrow_to_microscope_colrow"])
    row_col = np.array(positions.index.to_list())
    xy = np.column_stack([row_col[:, ::-1], np.ones(len(row_col))]) @ place.T
    assert np.allclose(xy[:, :2], positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    molecules = found["umis/total"].reindex(positions.index, fill_value=0)
    assert (molecules.to_numpy() == total[positions["barcode"]].to_numpy()).all()
    tissue = found["masks/filtered"].reindex(positions.index, fill_value=0)
    assert (tissue == positions["in_tissue"]).all() and 0 < tissue.sum() < len(tissue)


@pytest.mark.parametrize("tail", ["", "_008um", "_016um"])
def test_filtered_counts_are_the_raw_ones_in_tissue(files, tail):
    raw, every, _ = h5(files[f"raw_counts{tail}"])
    filtered, some, _ = h5(files[f"counts{tail}"])
    positions = pd.read_parquet(files[f"positions{tail}"])
    assert set(some) == set(positions["barcode"][positions["in_tissue"] == 1])
    assert set(every) == set(positions["barcode"])
    assert (raw[pd.Index(every).get_indexer(some)] != filtered).nnz == 0
    assert list(some) != sorted(some)
    # Some molecules stray onto the glass.
    assert 0 < raw.sum() - filtered.sum() < 0.05 * raw.sum()


@pytest.mark.parametrize("size", SIZES)
def test_positions_are_a_turned_square_grid_and_the_scale_is_told(files, size):
    tail = "" if size == 2 else f"_{size:03d}um"
    table = pd.read_parquet(files[f"positions{tail}"])
    assert list(table.columns) == list(POSITION_COLUMNS)
    assert list(table.dtypes[1:].astype(str)) == ["int64", "int64", "int64", "float64", "float64"]
    scale = json.loads(files[f"scalefactors{tail}"].read_text())
    assert scale["bin_size_um"] == size and scale["microns_per_pixel"] == OPTIONS.um_per_px
    assert scale["spot_diameter_fullres"] == size / OPTIONS.um_per_px
    grid = table.set_index(["array_row", "array_col"])[["pxl_col_in_fullres", "pxl_row_in_fullres"]]
    along = grid.loc[(3, 5)] - grid.loc[(3, 4)]
    down = grid.loc[(4, 4)] - grid.loc[(3, 4)]
    angle = np.deg2rad(OPTIONS.hd_rotation_deg)
    step = size / OPTIONS.um_per_px
    np.testing.assert_allclose(along, [step * np.cos(angle), step * np.sin(angle)], atol=1e-9)
    np.testing.assert_allclose(down, [-step * np.sin(angle), step * np.cos(angle)], atol=1e-9)


def test_a_large_bin_lies_in_the_middle_of_its_small_ones(files):
    small, large = (pd.read_parquet(files[f"positions{tail}"]) for tail in ("", "_016um"))
    axes = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    middle = small.groupby([small["array_row"] // 8, small["array_col"] // 8])[axes].mean()
    number = small.groupby([small["array_row"] // 8, small["array_col"] // 8]).size()
    own = large.set_index(["array_row", "array_col"])[axes]
    whole = number == 64
    assert whole.sum() > 20
    np.testing.assert_allclose(own[whole.to_numpy()], middle[whole], atol=1e-6)


def test_the_picture_is_a_bigtiff_of_the_declared_scale(files, drawn):
    with tifffile.TiffFile(files["image"]) as tif:
        assert tif.is_bigtiff
        assert tif.pages[0].shape == drawn.image.shape
    image = open_image(files["image"])
    assert image.um_per_px_embedded == pytest.approx(OPTIONS.um_per_px, rel=1e-3)
    assert np.abs(image.read().astype(int) - drawn.image).mean() < 6


def test_molecules_follow_the_tissue_and_the_programmes(files, drawn):
    counts, barcode, _ = h5(files["counts_016um"])
    genes = catalogue(OPTIONS.noise_genes)
    positions = pd.read_parquet(files["positions_016um"]).set_index("barcode").loc[barcode]
    xy_um = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy() * OPTIONS.um_per_px
    full = np.asarray(counts.sum(axis=1)).ravel() > 150
    assert full.sum() > 300
    share = counts[full].toarray() / np.asarray(counts[full].sum(axis=1))
    for k, programme in enumerate(PROGRAMMES):
        own = np.array([p == programme for p in genes.programme])
        truth = at(drawn.section.activity[k], xy_um[full])
        assert spearmanr(share[:, own].sum(axis=1), truth)[0] > 0.5, programme


def test_the_depth_is_that_of_a_spot_on_the_same_area(drawn):
    per_um2 = drawn.counts.sum() / (drawn.in_tissue.sum() * 4)
    spot = drawn.depth / (np.pi * 27.5**2)
    assert 0.6 < per_um2 / spot < 1.6


def test_nuclei_lie_where_the_cells_are(files, drawn):
    labels = tifffile.imread(files["nuclei"])
    assert labels.shape == drawn.image.shape[:2] and labels.dtype == np.int32
    truth = pd.read_parquet(files["truth"])
    assert len(truth) == len(drawn.section.cells) and labels.max() <= len(truth)
    under = labels[(truth["y_um"] / 1.25).astype(int), (truth["x_um"] / 1.25).astype(int)]
    assert (under == truth["label"]).mean() > 0.95
    area_um2 = np.bincount(labels.ravel(), minlength=len(truth) + 1)[1:] * 1.25**2
    assert np.median(area_um2 / (np.pi * truth["nuclear_radius_um"] ** 2)) == pytest.approx(1, abs=0.05)
    dark = drawn.image[..., 0].astype(float)
    assert dark[labels > 0].mean() < dark[(labels == 0) & (dark < 235)].mean() - 20


def test_the_same_seed_gives_the_same_bytes(files, tmp_path):
    again = simulate_slide(OPTIONS, tmp_path, "A1", "P1", 5)
    for role, path in files.items():
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again[role].read_bytes()).digest(), role
    assert draw_hd(OPTIONS, "A1", "P1", 6).counts.sum() != h5(files["raw_counts"])[0].sum()


def test_a_bin_is_in_one_segmented_cell_at_most(drawn):
    cells = segment(drawn)
    assert len(cells.number) == len(drawn.section.cells) >= len(cells.barcode) > 100
    in_tissue = np.asarray(drawn.counts[drawn.in_tissue].sum(axis=0)).ravel()
    in_cells = np.asarray(cells.counts.sum(axis=0)).ravel()
    assert (in_cells <= in_tissue).all() and 0.1 * in_tissue.sum() < in_cells.sum()
    # As many molecules as the cells' share of the tissue's area, about.
    x, y = np.moveaxis(cells.cell_px - cells.cell_px[:, :1], -1, 0)
    area = np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2
    share = area.sum() / (drawn.in_tissue.sum() * np.abs(np.linalg.det(drawn.axes)))
    assert in_cells.sum() / in_tissue.sum() == pytest.approx(share, rel=0.15)


def test_no_bin_outside_the_image_is_in_tissue(files, drawn):
    table = pd.read_parquet(files["positions"])
    height, width = drawn.image.shape[:2]
    x, y = table["pxl_col_in_fullres"], table["pxl_row_in_fullres"]
    outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
    assert outside.sum() > 50 and (table["in_tissue"][outside] == 0).all()
