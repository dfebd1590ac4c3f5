import hashlib
import json
import warnings

import h5py
import matplotlib.path
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from stmorph.image.alignment import read_alignment
from stmorph.image.channels import into_store, read_morphology
from stmorph.image.source import open_image
from stmorph.image.stain_options import StainOptions
from stmorph.image.store import build_store, open_store
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.transcripts_zarr import recount_in_outlines
from stmorph.read.xenium_files import cell_polygons, cell_table, recount
from stmorph.simulate import LAYOUTS, SimulationOptions, catalogue, simulate_slide
from stmorph.simulate.xenium_outs import CONTROLS, polygon_area
from stmorph.simulate.xenium_slide import draw_xenium

SMALL = SimulationOptions(
    platform="xenium", spots=20, um_per_px=0.8, xenium_um_per_px=0.6, noise_genes=20, cell_molecules=40
)
INFO = SlideInfo(dataset="sim", slide="A1", platform="xenium", organ="gland", species="simulated", patient="P1")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("xenium")
    return simulate_slide(SMALL, out_dir, "A1", "P1", 7)


@pytest.fixture(scope="module")
def drawn():
    return draw_xenium(SMALL, "A1", "P1", 7)


def given(files, **other):
    return {role: path for role, path in {**files, **other}.items() if role in READERS["xenium"].roles}


@pytest.mark.parametrize("cells", ["cells", "cells_csv", "cells_zarr"])
@pytest.mark.parametrize("kind", ["", "_csv"])
def test_the_reader_gets_back_what_was_drawn(written, drawn, cells, kind):
    files = given(
        written,
        cells=written[cells],
        boundaries=written[f"boundaries{kind}"],
        transcripts=written[f"transcripts{kind}"],
    )
    slide = read_slide("xenium", files, INFO)
    truth = drawn.truth.set_index("barcode")
    counted = np.asarray(drawn.xenium.counts[:, : len(catalogue(20))].sum(axis=1)).ravel() > 0
    assert set(slide.obs_names) == set(truth.index[counted]) and counted.sum() > 200
    at = truth.index.get_indexer(slide.obs_names)
    assert (slide.X.toarray() == drawn.xenium.counts[at].toarray()).all()
    assert list(slide.var_names) == list(drawn.xenium.feature_name)
    half_px = 0.5 * SMALL.um_per_px
    assert np.abs(slide.obsm["spatial_um"] - truth[["x_um", "y_um"]].to_numpy()[at]).max() < half_px
    assert slide.uns["stmorph"]["um_per_px"] == pytest.approx(0.8)
    np.testing.assert_allclose(slide.obs["cell_area_um2"], polygon_area(slide.obsm["boundary_um"]), rtol=1e-3)
    inside = np.abs(slide.obsm["boundary_um"].mean(axis=1) - slide.obsm["spatial_um"])
    assert inside.max() < 3


def test_every_molecule_of_the_matrix_is_a_transcript(written, drawn):
    xenium = drawn.xenium
    total = np.asarray(xenium.counts.sum(axis=1)).ravel()
    found = recount(written["transcripts"], xenium.cell_id, xenium.feature_name, 20)
    assert (found == total).all()
    table = pd.read_parquet(written["transcripts"])
    one_gene = table[(table["feature_name"] == xenium.feature_name[3]) & (table["qv"] >= 20)]
    by_cell = one_gene[one_gene["cell_id"] != "UNASSIGNED"].groupby("cell_id").size()
    column = pd.Series(xenium.counts[:, 3].toarray().ravel(), index=xenium.cell_id)
    assert (by_cell.reindex(column.index, fill_value=0) == column).all()
    # What does not count is there too: poor ones in cells, and some in none.
    assert ((table["qv"] < 20) & (table["cell_id"] != "UNASSIGNED")).sum() > 50
    assert (table["cell_id"] == "UNASSIGNED").sum() > 50
    assert table["transcript_id"].is_unique


def test_the_zipped_transcripts_are_those_of_the_table(written):
    table = pd.read_parquet(written["transcripts"]).set_index("transcript_id")
    with zarr.storage.ZipStore(written["transcripts_zarr"], mode="r") as store:
        root = zarr.open_group(store, mode="r")
        assert root.metadata.zarr_format == 2
        tiles = {key: {name: array[:] for name, array in tile.arrays()} for key, tile in root["grids/0"].groups()}
        merged = sum(int(tile["cluster_count"][:].sum()) for _, tile in root["grids/1"].groups())
        names = np.array(root.attrs["gene_names"], dtype=object)
    assert len(tiles) > 2 and merged == len(table)
    for key, tile in tiles.items():
        corner = np.array(key.split(","), int) * 250.0
        assert ((tile["location"][:, :2] >= corner) & (tile["location"][:, :2] < corner + 250)).all()
    found = {name: np.concatenate([tile[name] for tile in tiles.values()]) for name in next(iter(tiles.values()))}
    field = np.uint64(2**16) + found["id"][:, 1].astype(np.uint64)
    same = table.loc[field << np.uint64(32) | found["id"][:, 0].astype(np.uint64)]
    assert len(same) == len(table) and same.index.is_unique
    assert (names[found["gene_identity"][:, 0]] == same["feature_name"].to_numpy()).all()
    place = same[["x_location", "y_location", "z_location"]].to_numpy()
    assert (found["location"] == place.astype(np.float32)).all()
    assert (found["quality_score"][:, 0] == same["qv"].to_numpy().astype(np.float32)).all()


def test_the_zipped_transcripts_are_counted_in_the_outlines_they_lie_in(written, drawn):
    table, xenium = pd.read_parquet(written["transcripts"]), drawn.xenium
    outline = cell_polygons(written["boundaries"], xenium.cell_id)
    place = table.loc[table["qv"] >= 20, ["x_location", "y_location"]].to_numpy().astype(np.float32)
    owner = np.full(len(place), -1)
    for cell, ring in enumerate(outline):
        owner[matplotlib.path.Path(ring).contains_points(place)] = cell
    found = recount_in_outlines(written["transcripts_zarr"], outline, xenium.feature_name, 20)
    assert (found == np.bincount(owner[owner >= 0], minlength=len(outline))).all()
    # It is the recount of the table but for molecules in overlapping outlines, and those of no cell that lie in one.
    total = recount(written["transcripts"], xenium.cell_id, xenium.feature_name, 20)
    assert 0 < np.abs(found - total).sum() < 0.02 * total.sum()
    zipped = given(written, transcripts=written["transcripts_zarr"])
    assert read_slide("xenium", zipped, INFO).n_obs == read_slide("xenium", given(written), INFO).n_obs


def test_molecules_lie_in_their_cells(drawn):
    xenium = drawn.xenium
    table = xenium.transcripts[xenium.transcripts["cell_id"] != "UNASSIGNED"]
    cell = pd.Index(xenium.cell_id).get_indexer(table["cell_id"])
    away = np.linalg.norm(table[["x_location", "y_location"]].to_numpy() - xenium.xy_um[cell], axis=1)
    reach = np.linalg.norm(xenium.cell_um - xenium.xy_um[:, None], axis=-1).max(axis=1)
    assert (away <= reach[cell] + 1e-3).all()
    assert away.mean() > 0.3 * reach.mean()


def test_the_frames_differ_and_the_alignment_joins_them(written, drawn):
    alignment = read_alignment(written["alignment"], SMALL.xenium_um_per_px)
    np.testing.assert_allclose(alignment.matrix, drawn.xenium.alignment.matrix, rtol=1e-9)
    angle = np.rad2deg(np.arctan2(alignment.matrix[1, 0], alignment.matrix[0, 0]))
    assert angle == pytest.approx(SMALL.xenium_rotation_deg)
    truth = drawn.truth[["x_um", "y_um"]].to_numpy()
    assert np.abs(drawn.xenium.xy_um - truth).mean() > 10  # without the alignment every cell is missed
    assert (drawn.xenium.xy_um > 0).all() and (drawn.xenium.cell_um > 0).all()
    height, width = drawn.xenium.dapi.shape[1:]
    assert (drawn.xenium.xy_um < np.array([width, height]) * SMALL.xenium_um_per_px).all()


def test_dapi_is_bright_where_the_stained_image_has_nuclei(written, drawn, tmp_path):
    image = open_image(written["image"])
    assert image.um_per_px_embedded == pytest.approx(0.8)
    build_store(image, 0.8, 1.0, StainOptions(fit="none"), tmp_path / "i.npy", tmp_path / "i.json")
    store = open_store(tmp_path / "i.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plane = read_morphology(written["morphology"], most_reduction=1.0 / SMALL.xenium_um_per_px)
    assert plane.pixels.dtype == np.uint16
    alignment = read_alignment(written["alignment"], SMALL.xenium_um_per_px)
    dapi = into_store(plane, alignment, store)
    column, row = store.to_px(drawn.truth[["x_um", "y_um"]].to_numpy()).astype(int).T
    assert np.median(dapi[row, column]) > 2000
    assert np.median(dapi) < 400
    # Displaced by 8 um it no longer fits.
    assert np.median(dapi[row, np.minimum(column + 8, dapi.shape[1] - 1)]) < 1000


def test_the_layout_is_the_vendors(written):
    with h5py.File(written["counts"]) as file:
        features = file["matrix/features"]
        kinds = features["feature_type"].asstr()[:]
        assert set(kinds) == {"Gene Expression", *CONTROLS}
        assert (
            features["id"].asstr()[:][kinds != "Gene Expression"]
            == features["name"].asstr()[:][kinds != "Gene Expression"]
        ).all()
        assert file["matrix/shape"][:].tolist() == [len(kinds), len(file["matrix/barcodes"])]
    cells = pd.read_parquet(written["cells"])
    sums = cells[[c for c in cells if c.endswith("_counts") and c != "total_counts"]].sum(axis=1)
    assert (sums == cells["total_counts"]).all()
    assert cells["cell_id"].str.fullmatch("[a-p]{8}-1").all() and cells["cell_id"].is_unique
    assert (cells["cell_area"] > cells["nucleus_area"]).all()
    pd.testing.assert_frame_equal(cell_table(written["cells"]), cell_table(written["cells_csv"]))
    outline = pd.read_parquet(written["boundaries"]).groupby("cell_id", sort=False)
    first, last = outline.nth(0), outline.nth(-1)
    assert (outline.size() == 13).all()
    assert (first[["vertex_x", "vertex_y"]].to_numpy() == last[["vertex_x", "vertex_y"]].to_numpy()).all()
    assert json.loads(written["experiment"].read_text())["pixel_size"] == SMALL.xenium_um_per_px
    with tifffile.TiffFile(written["morphology"]) as tif:
        assert tif.is_ome and tif.series[0].axes in ("ZYX", "QYX") and len(tif.series[0].levels) > 1
        assert f'PhysicalSizeX="{SMALL.xenium_um_per_px}"' in tif.ome_metadata


def test_expression_follows_the_programmes_and_controls_follow_nothing(drawn):
    genes = catalogue(20)
    counts = drawn.xenium.counts.toarray().astype(float)
    truth = drawn.truth
    total = counts[:, : len(genes)].sum(axis=1)
    for name in ("PROLIFERATION", "MATRIX"):
        own = counts[:, : len(genes)][:, [p == name for p in genes.programme]].sum(axis=1) / np.maximum(total, 1)
        assert np.corrcoef(own, truth[name])[0, 1] > 0.5
    controls = counts[:, len(genes) :]
    assert 0 < controls.sum() < 0.02 * counts.sum()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(written, tmp_path):
    again = simulate_slide(SMALL, tmp_path / "again", "A1", "P1", 7)
    other = simulate_slide(SMALL, tmp_path / "other", "A1", "P1", 8)
    assert set(again) == set(LAYOUTS["xenium"].files(tmp_path, SMALL)) == set(written)
    for role in written:
        one, two, three = (hashlib.sha256(files[role].read_bytes()).digest() for files in (written, again, other))
        assert one == two, role
        assert one != three or role == "experiment", role
    assert not list(tmp_path.rglob(".partial*"))
