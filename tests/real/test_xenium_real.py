import numpy as np
import pandas as pd
import pytest

from stmorph.errors import DataError
from stmorph.image.channels import read_morphology, to_grey
from stmorph.image.windows import area_inside, cells_in_tiles
from stmorph.read.transcripts_zarr import recount_in_outlines
from stmorph.read.visium import feature_matrix
from stmorph.read.xenium import XeniumOptions, check_recount
from stmorph.read.xenium_files import cell_polygons, cell_table, recount
from stmorph.simulate.xenium_zarr import write_transcripts_zarr

pytestmark = pytest.mark.real


@pytest.fixture
def toy(real_data):
    return real_data / "xenium_toy"


def test_cells_and_matrix_agree(toy):
    csv, parquet = (cell_table(toy / f"cells.{kind}") for kind in ("csv.gz", "parquet"))
    assert len(csv) == 569 and (csv.index == parquet.index).all()
    np.testing.assert_allclose(csv, parquet, atol=1e-9)
    counts = feature_matrix(toy / "cell_feature_matrix.h5")
    assert counts.matrix.shape == (569, 541)
    assert int(counts.var["control"].sum()) == 514  # blank, negative and unassigned features, as the vendor types them
    reported = pd.read_parquet(toy / "cells.parquet").set_index("cell_id").loc[counts.barcode]
    control = counts.var["control"].to_numpy()
    assert (np.asarray(counts.matrix.sum(axis=1)).ravel() == reported["total_counts"]).all()
    assert (np.asarray(counts.matrix[:, ~control].sum(axis=1)).ravel() == reported["transcript_counts"]).all()


def test_outlines_have_the_reported_areas(toy):
    table = cell_table(toy / "cells.parquet")
    for name, column in (("cell", "cell_area_um2"), ("nucleus", "nucleus_area_um2")):
        csv, parquet = (
            cell_polygons(toy / f"{name}_boundaries.{kind}", table.index.to_numpy()) for kind in ("csv.gz", "parquet")
        )
        assert csv.shape == (569, 13, 2)
        np.testing.assert_allclose(csv, parquet, atol=1e-3)
        x, y = csv[..., 0], csv[..., 1]
        area = np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2
        # The reported area counts the segmentation's pixels, which 13 vertices cut short: most on small nuclei.
        assert np.median(np.abs(area / table[column] - 1)) < {"cell": 0.03, "nucleus": 0.1}[name]
        assert np.corrcoef(area, table[column])[0, 1] > 0.99


def test_transcripts_are_a_part_of_the_matrix(toy):
    counts = feature_matrix(toy / "cell_feature_matrix.h5")
    names = counts.var.index.union(counts.var["gene_id"]).to_numpy()
    csv, parquet = (recount(toy / f"transcripts.{kind}", counts.barcode, names, 20) for kind in ("csv.gz", "parquet"))
    assert (csv == parquet).all() and csv.sum() == 5241
    assert (csv <= np.asarray(counts.matrix.sum(axis=1)).ravel()).all()
    # The toy's transcripts are a sample, which the recount must notice.
    with pytest.raises(DataError, match=r"of 569 cells another total"):
        check_recount(counts, toy / "transcripts.parquet", XeniumOptions())


def test_outlines_hold_the_transcripts_of_their_cells(toy, tmp_path):
    counts = feature_matrix(toy / "cell_feature_matrix.h5")
    table = pd.read_parquet(toy / "transcripts.parquet")
    table["feature_name"], table["fov_name"] = (table[name].astype(str) for name in ("feature_name", "fov_name"))
    names = np.unique(table["feature_name"])
    write_transcripts_zarr(table, names, tmp_path / "transcripts.zarr.zip")
    by_name = recount(toy / "transcripts.parquet", counts.barcode, names, 20)

    def difference(outline):
        found = recount_in_outlines(tmp_path / "transcripts.zarr.zip", outline, names, 20)
        return np.abs(found - by_name).sum() / by_name.sum()

    outline = cell_polygons(toy / "cell_boundaries.parquet", counts.barcode)
    most = XeniumOptions().max_outline_difference
    assert difference(outline) < 0.5 * most
    assert difference(outline + 2) > most  # displaced by 2 um
    assert difference(np.roll(outline, 1, axis=0)) > 10 * most


def test_windows_over_real_cells_conserve_them(toy):
    table = cell_table(toy / "cells.parquet")
    outline = cell_polygons(toy / "cell_boundaries.parquet", table.index.to_numpy())
    left, top = np.meshgrid(np.arange(900, 1500, 50.0), np.arange(900, 1500, 50.0))
    box = np.stack([left, top, left + 50, top + 50], axis=-1).reshape(-1, 4)
    tile = np.array([f"t{k:03d}" for k in range(len(box))])
    cells = (table.index.to_numpy(), table[["x_um", "y_um"]].to_numpy(), table["cell_area_um2"].to_numpy())
    found = {way: cells_in_tiles(tile, box, *cells, outline, way) for way in ("whole", "none", "fraction")}
    np.testing.assert_allclose(found["fraction"].groupby("cell")["weight"].sum(), 1, atol=1e-9)
    assert found["fraction"]["cell"].nunique() == 569
    assert len(found["none"]) < len(found["fraction"]) == len(found["whole"])
    enclosed = found["fraction"][found["fraction"]["weight"] == 1]
    assert set(zip(enclosed["tile"], enclosed["cell"])) >= set(zip(found["none"]["tile"], found["none"]["cell"]))
    assert area_inside(outline, np.tile([900.0, 900, 1500, 1500], (569, 1))).min() == pytest.approx(1)


def test_dapi(toy):
    plane = read_morphology(toy / "morphology_mip.ome.tif")
    assert plane.pixels.shape == (237, 237) and plane.pixels.dtype == np.uint16 and plane.reduction == (1, 1)
    grey, record = to_grey(plane.pixels.astype(np.float32))
    assert 0 < record["low"] < record["high"] and grey.std() > 20
