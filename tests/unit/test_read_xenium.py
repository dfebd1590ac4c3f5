import gzip
import json
import struct
import zipfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import tifffile
import zarr
from feature_matrix import write_feature_matrix
from PIL import Image

from stmorph.errors import DataError
from stmorph.files import zip_folder
from stmorph.image.alignment import Alignment, read_alignment
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.tables import names_of
from stmorph.read.transcripts_zarr import recount_in_outlines
from stmorph.read.xenium import XeniumOptions
from stmorph.read.xenium_files import cell_polygons, cell_table, pixel_size, recount
from stmorph.simulate.xenium_zarr import write_transcripts_zarr

PX = 0.2125
WIDTH, HEIGHT = 460, 300  # of the H&E image
# H&E to morphology pixels: a quarter turn, 1.25 times as large, shifted. x' = 1.25 y + 40, y' = -1.25 x + 700.
QUARTER = np.array([[0.0, 1.25, 40.0], [-1.25, 0.0, 700.0], [0.0, 0.0, 1.0]])
INFO = SlideInfo(dataset="toy", slide="A", platform="xenium", organ="skin", species="human", patient="P1")


class Outs:
    """A minimal Xenium run: 40 cells, 4 genes and 3 controls; the H&E image is turned against it."""

    def __init__(self, folder):
        self.folder = folder
        rng = np.random.default_rng(4)
        self.matrix = QUARTER.copy()
        self.he_px = rng.uniform(60, [400, 260], (40, 2))
        frame = np.c_[self.he_px, np.ones(40)] @ QUARTER.T
        self.xy_um = frame[:, :2] * PX
        self.cell_id = [f"{i:02d}".translate(str.maketrans("0123456789", "abcdefghij")) + "aaaaaa-1" for i in range(40)]
        self.counts = rng.poisson(2.0, (40, 7))
        self.counts[:, 0] += 1
        self.symbol = ["TP53", "ACTB", "KRT5", "CD3E", "NegControlProbe_00001", "BLANK_0001", "UnassignedCodeword_0001"]
        self.gene_id = [f"ENSG{i:011d}" for i in range(4)] + self.symbol[4:]
        self.feature_type = ["Gene Expression"] * 4 + [
            "Negative Control Probe",
            "Blank Codeword",
            "Unassigned Codeword",
        ]
        self.genome = ["GRCh38"] * 4 + ["Unknown"] * 3
        self.matrix_ids = list(self.cell_id)

    def cells(self):
        return pd.DataFrame(
            {
                "cell_id": self.cell_id,
                "x_centroid": self.xy_um[:, 0],
                "y_centroid": self.xy_um[:, 1],
                "transcript_counts": self.counts[:, :4].sum(axis=1),
                "cell_area": np.linspace(30, 90, len(self.cell_id)),
                "nucleus_area": 20.0,
            }
        )

    def write_cells(self, name="cells.csv.gz", **columns):
        path, table = self.folder / name, self.cells().assign(**columns)
        table.to_parquet(path, index=False) if name.endswith(".parquet") else table.to_csv(path, index=False)
        return path

    def write_zarr(self, ids):
        folder, table = self.folder / "cells", self.cells()
        root = zarr.open_group(folder, mode="w", zarr_format=2)
        root.create_array("cell_id", data=ids)
        root.create_array("cell_summary", data=table[["x_centroid", "y_centroid", "cell_area"]].to_numpy())
        root["cell_summary"].attrs["column_names"] = ["cell_centroid_x", "cell_centroid_y", "cell_area"]
        zip_folder(folder, self.folder / "cells.zarr.zip")
        return self.folder / "cells.zarr.zip"

    def write_h5(self):
        names = {"id": "gene_id", "name": "symbol", "feature_type": "feature_type", "genome": "genome"}
        columns = {name: getattr(self, key) for name, key in names.items()}
        return write_feature_matrix(self.folder / "cell_feature_matrix.h5", self.counts, self.matrix_ids, columns)

    def write_mtx(self):
        folder = self.folder / "cell_feature_matrix"
        folder.mkdir()
        rows = zip(self.gene_id, self.symbol, self.feature_type)
        (folder / "features.tsv.gz").write_bytes(gzip.compress("".join("\t".join(r) + "\n" for r in rows).encode()))
        (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(("\n".join(self.matrix_ids) + "\n").encode()))
        with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
            scipy.io.mmwrite(file, scipy.sparse.coo_matrix(self.counts.T))
        return folder

    def write_image(self, size=(WIDTH, HEIGHT)):
        pixels = np.full((size[1], size[0], 3), 240, np.uint8)
        pixels[20:280, 30:430] = np.random.default_rng(0).integers(90, 160, pixels[20:280, 30:430].shape)
        Image.fromarray(pixels).save(self.folder / "he.png")
        return self.folder / "he.png"

    def write_alignment(self):
        path = self.folder / "he_imagealignment.csv"
        np.savetxt(path, self.matrix, delimiter=",", fmt="%.10g")
        return path

    def write_experiment(self, pixel_size=PX):
        path = self.folder / "experiment.xenium"
        path.write_text(json.dumps({"major_version": 2, "pixel_size": pixel_size}))
        return path

    def transcripts(self):
        cell, feature = np.nonzero(self.counts)
        times = self.counts[cell, feature]
        table = pd.DataFrame(
            {
                "cell_id": np.repeat(np.array(self.cell_id, dtype=object)[cell], times),
                "feature_name": np.repeat(np.array(self.symbol, dtype=object)[feature], times),
                "qv": 30.0,
            }
        )
        poor = table.iloc[::3].assign(qv=19.9)
        return pd.concat([table, poor, table.iloc[::5].assign(cell_id="UNASSIGNED")], ignore_index=True)

    def write_transcripts(self, table, name="transcripts.parquet"):
        path = self.folder / name
        table.to_parquet(path, index=False) if name.endswith(".parquet") else table.to_csv(path, index=False)
        return path

    def placed(self):
        """Transcripts with places: in the small outlines of their cells, and 300 um away from all of them."""
        table, rng = self.transcripts(), np.random.default_rng(2)
        cell = pd.Index(self.cell_id).get_indexer(table["cell_id"])
        place = self.xy_um[cell] + rng.uniform([-0.04, -0.04], [0.04, 0.09], (len(table), 2))
        place[cell < 0] += 300
        number = np.arange(2**48, 2**48 + len(table), dtype=np.uint64)
        return table.assign(
            x_location=place[:, 0], y_location=place[:, 1], z_location=9.0, transcript_id=number, fov_name="A1"
        )

    def write_transcripts_zarr(self):
        path = self.folder / "transcripts.zarr.zip"
        write_transcripts_zarr(self.placed(), np.array(self.symbol), path)
        return path

    def write_small_boundaries(self, name="cell_boundaries.parquet"):
        return self.write_transcripts(self.boundaries(0.05), name)

    def recount_zarr(self, path, least_qv=20):
        outline = cell_polygons(self.write_small_boundaries(), np.array(self.cell_id, dtype=object))
        return recount_in_outlines(path, outline, np.array(self.symbol), least_qv)

    def boundaries(self, size=1.0):
        corner = np.array([(-1, -1), (1, -1), (1, 2), (-1, 2), (-1, -1)], float) * size
        vertex = (self.xy_um[:, None] + corner).reshape(-1, 2)
        names = np.repeat(self.cell_id, 5)
        return pd.DataFrame({"cell_id": names, "vertex_x": vertex[:, 0], "vertex_y": vertex[:, 1]})

    def files(self, **given):
        made = {
            "counts": self.write_h5,
            "cells": self.write_cells,
            "image": self.write_image,
            "alignment": self.write_alignment,
            "experiment": self.write_experiment,
        }
        return {role: make() for role, make in made.items() if role not in given} | given

    def read(self, info=INFO, options=None, **given):
        return read_slide("xenium", self.files(**given), info, options)


@pytest.fixture
def outs(tmp_path):
    return Outs(tmp_path)


def place_px(slide):
    return slide.obsm["spatial_um"] / slide.uns["stmorph"]["um_per_px"]


# --- what is read -----------------------------------------------------------------------------------------------------


def test_content(outs):
    slide = outs.read()
    assert list(slide.obs_names) == sorted(outs.cell_id) and slide.uns["stmorph"]["unit"] == "cell"
    at = pd.Index(outs.cell_id).get_indexer(slide.obs_names)
    assert slide.X.dtype == np.int32 and (slide.X.toarray() == outs.counts[at]).all()
    np.testing.assert_allclose(place_px(slide), outs.he_px[at], atol=1e-6)
    np.testing.assert_allclose(slide.obs["cell_area_um2"], outs.cells()["cell_area"].iloc[at])


def test_controls_are_flagged_and_kept(outs):
    slide = outs.read()
    assert list(slide.var_names) == outs.symbol
    assert slide.var["control"].tolist() == [False] * 4 + [True] * 3


def test_the_matrix_may_be_a_folder_of_text(outs):
    h5, mtx = outs.read(), outs.read(counts=outs.write_mtx())
    assert (h5.X != mtx.X).nnz == 0 and (h5.obs_names == mtx.obs_names).all()
    assert h5.var["control"].tolist() == mtx.var["control"].tolist()


def test_cells_of_every_format_are_the_same(outs):
    csv = cell_table(outs.write_cells())
    pd.testing.assert_frame_equal(csv, cell_table(outs.write_cells("cells.parquet")))
    packed = [name.encode() for name in outs.cell_id]
    pd.testing.assert_frame_equal(csv, cell_table(outs.write_cells("bytes.parquet", cell_id=packed)))
    prefix = [
        int(name[:8].translate(str.maketrans("abcdefghijklmnop", "0123456789abcdef")), 16) for name in outs.cell_id
    ]
    stored = cell_table(outs.write_zarr(np.column_stack([prefix, np.ones(40)]).astype(np.uint32)))
    assert (stored.index == csv.index).all()
    pd.testing.assert_frame_equal(stored[["x_um", "y_um", "cell_area_um2"]], csv[["x_um", "y_um", "cell_area_um2"]])


@pytest.mark.parametrize(
    ("prefix", "suffix", "name"), [(1437536272, 1, "ffkpbaba-1"), (0, 2, "aaaaaaaa-2"), (2**32 - 1, 1, "pppppppp-1")]
)
def test_known_ids_of_the_zarr_file(outs, prefix, suffix, name):
    for key in ("cell_id", "xy_um", "counts"):
        setattr(outs, key, getattr(outs, key)[:1])
    stored = cell_table(outs.write_zarr(np.array([[prefix, suffix]], dtype=np.uint32)))
    assert stored.index.tolist() == [name]


def test_numbered_cells_of_the_first_version(outs):
    outs.cell_id = list(range(1, 41))
    outs.matrix_ids = [str(i) for i in outs.cell_id]
    slide = outs.read()
    assert set(slide.obs_names) == set(outs.matrix_ids)
    row = slide.obs_names.get_loc("17")
    assert (slide.X[row].toarray().ravel() == outs.counts[16]).all()
    np.testing.assert_allclose(place_px(slide)[row], outs.he_px[16], atol=1e-6)


def test_cells_without_counts_or_without_a_place_are_counted(outs):
    outs.counts[3] = 0
    outs.counts[7, :4] = 0  # controls alone are no counts
    outs.counts[7, 4] = 5
    cells = outs.cells().drop(index=[10, 11, 12])
    path = outs.folder / "fewer.csv"
    cells.to_csv(path, index=False)
    slide = outs.read(cells=path)
    assert slide.n_obs == 35
    assert json.loads(slide.uns["stmorph"]["lost"]) == {"no counts": 2, "no position": 3}


def test_boundaries_follow_the_cells_into_the_image(outs):
    table = outs.boundaries()
    gone = outs.cell_id[5]
    table = table[table["cell_id"] != gone]
    path = outs.folder / "cell_boundaries.csv.gz"
    table.to_csv(path, index=False)
    slide = outs.read(boundaries=path)
    um, outline = slide.uns["stmorph"]["um_per_px"], slide.obsm["boundary_um"]
    assert um == pytest.approx(1.25 * PX) and outline.shape == (40, 5, 2)
    missing = np.isnan(outline).any(axis=(1, 2))
    assert slide.obs_names[missing].tolist() == [gone]
    for k in np.flatnonzero(~missing)[:5]:
        # 2 x 3 um in the instrument's frame; the quarter turn exchanges the sides.
        np.testing.assert_allclose(np.ptp(outline[k], axis=0), [3, 2], atol=1e-6)
        assert (np.abs(outline[k].mean(axis=0) - slide.obsm["spatial_um"][k]) < 1).all()


def test_outlines_of_unequal_length_are_filled_up_without_area(tmp_path):
    table = pd.DataFrame(
        {"cell_id": [7, 7, 7, 9, 9, 9, 9], "vertex_x": [0, 4, 0, 0, 2, 2, 0.0], "vertex_y": [0, 0, 4, 0, 0, 2, 2.0]}
    )
    table.to_parquet(tmp_path / "b.parquet")
    found = cell_polygons(tmp_path / "b.parquet", np.array(["9", "8", "7"], dtype=object))
    assert found[2].tolist() == [[0, 0], [4, 0], [0, 4], [0, 4]] and found[0].tolist()[3] == [0, 2]
    assert np.isnan(found[1]).all()


# --- alignment and scale ----------------------------------------------------------------------------------------------


def test_the_alignment_maps_the_image_to_the_morphology_image():
    alignment = Alignment(QUARTER, PX)
    # By hand: the image's (100, 8) is x' = 1.25 * 8 + 40 = 50, y' = -1.25 * 100 + 700 = 575 in morphology pixels.
    np.testing.assert_allclose(alignment.to_frame_um(np.array([100.0, 8.0])), [50 * PX, 575 * PX])
    np.testing.assert_allclose(alignment.to_image_px(np.array([50 * PX, 575 * PX])), [100, 8])
    assert alignment.um_per_px == pytest.approx(1.25 * PX)


def test_a_published_alignment_maps_the_image_onto_the_run(tmp_path):
    # 10x Genomics' Human_Breast_Biomarkers_S1_Top: H&E 20,515 x 43,995 px, morphology 53,994 x 27,420 px.
    rows = "9.88824121e-03,1.28956723,-1108.08655\n-1.28956723,9.88824121e-03,26722.4245\n0,0,1\n"
    (tmp_path / "a.csv").write_text(rows)
    alignment = read_alignment(tmp_path / "a.csv")
    assert alignment.um_per_px == pytest.approx(0.2740, abs=1e-4)  # a scanner's 40 x
    centre_px = alignment.to_frame_um(np.array([20515, 43995]) / 2) / PX
    np.testing.assert_allclose(centre_px, np.array([53994, 27420]) / 2, rtol=0.04)


def test_without_an_alignment_the_image_has_the_morphology_images_pixels(outs):
    outs.xy_um = outs.he_px * PX
    files = {role: path for role, path in outs.files().items() if role not in ("alignment", "experiment")}
    slide = read_slide("xenium", files, INFO)
    at = pd.Index(outs.cell_id).get_indexer(slide.obs_names)
    np.testing.assert_allclose(slide.obsm["spatial_um"], outs.he_px[at] * PX)
    assert slide.uns["stmorph"]["um_per_px"] == PX
    assert "no alignment" in slide.uns["stmorph"]["um_per_px_evidence"]


def test_the_scale_is_the_alignments_and_a_declared_one_must_agree(outs):
    slide = outs.read()
    record = slide.uns["stmorph"]
    assert record["um_per_px"] == record["um_per_px_measured"] == pytest.approx(1.25 * PX)
    assert "scale 1.25" in record["um_per_px_evidence"]
    near = outs.read(replace(INFO, um_per_px=0.27))
    assert near.uns["stmorph"]["um_per_px"] == 0.27 and "declared" in near.uns["stmorph"]["um_per_px_evidence"]
    np.testing.assert_allclose(place_px(near), place_px(slide))
    with pytest.raises(DataError, match=r"declared as 0\.5000, but is 0\.2656 by the alignment's scale"):
        outs.read(replace(INFO, um_per_px=0.5))


def test_the_images_own_scale_is_told_beside_the_alignments(outs):
    pixels = np.asarray(Image.open(outs.write_image()))
    path = outs.folder / "he.ome.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", metadata={"PhysicalSizeX": 0.31, "PhysicalSizeXUnit": "µm"})
    evidence = outs.read(image=path).uns["stmorph"]["um_per_px_evidence"]
    assert "0.2656 by the alignment" in evidence and "says 0.3100, a difference of +17%" in evidence


def test_the_run_says_how_wide_its_pixels_are(outs):
    outs.xy_um = outs.xy_um * 2
    slide = outs.read(experiment=outs.write_experiment(2 * PX))
    at = pd.Index(outs.cell_id).get_indexer(slide.obs_names)
    np.testing.assert_allclose(place_px(slide), outs.he_px[at], atol=1e-6)
    assert slide.uns["stmorph"]["um_per_px"] == pytest.approx(2.5 * PX)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,0,0\n2,0,0\n0,0,1\n", "singular matrix"),
        ("0,0,0\n0,0,0\n0,0,1\n", "singular matrix"),
        ("1,0\n0,1\n", "2 x 2 values"),
        ("1,0,0\n0,nan,0\n0,0,1\n", "finite numbers"),
        ("1,0,0\n0,1,0\n5,7,1\n", "last row"),
        ("1,0,0\n0,1.5,0\n0,0,1\n", "one axis by 1.5000"),
        ("a,b,c\nd,e,f\n", "cannot be read"),
        ("1,0,0\n0,1\n", "cannot be read"),
    ],
)
def test_alignments_that_cannot_be(tmp_path, text, says):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=says) as error:
        read_alignment(tmp_path / "a.csv")
    assert "a.csv" in str(error.value)


def test_the_inverse_of_the_alignment_is_found_out(outs):
    outs.matrix = np.linalg.inv(QUARTER)
    with pytest.raises(DataError, match="lie outside"):
        outs.read()


# --- transcripts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transcripts.parquet", "transcripts.csv.gz"])
def test_a_recount_finds_the_matrix_again(outs, name):
    table = outs.transcripts()
    path = outs.write_transcripts(table, name)
    found = recount(path, np.array(outs.cell_id), np.array(outs.symbol), 20)
    assert (found == outs.counts.sum(axis=1)).all()
    assert outs.read(transcripts=path).n_obs == 40
    some = recount(path, np.array(outs.cell_id), np.array(outs.symbol[:2]), 20)
    assert (some == outs.counts[:, :2].sum(axis=1)).all()
    poor = recount(path, np.array(outs.cell_id), np.array(outs.symbol), 0)
    assert poor.sum() == (table["cell_id"] != "UNASSIGNED").sum()


def test_transcripts_of_another_run_are_refused(outs):
    path = outs.write_transcripts(outs.transcripts().iloc[: outs.counts.sum() // 2])
    with pytest.raises(DataError, match=r"gives \d+ of 40 cells another total than .*cell_feature_matrix.h5"):
        outs.read(transcripts=path)
    assert outs.read(transcripts=path, options=XeniumOptions(max_recount_difference=1)).n_obs == 40
    numbers = outs.transcripts().assign(cell_id=np.where(outs.transcripts()["cell_id"] == "UNASSIGNED", -1, 5))
    with pytest.raises(DataError, match="gives 40 of 40 cells another total"):
        outs.read(transcripts=outs.write_transcripts(numbers))


def test_transcripts_without_a_column(outs):
    for name in ("transcripts.parquet", "transcripts.csv"):
        with pytest.raises(DataError, match=f"{name} has no column qv .*expected cell_id, feature_name, qv"):
            outs.read(transcripts=outs.write_transcripts(outs.transcripts().drop(columns="qv"), name))


# --- transcripts in tiles ---------------------------------------------------------------------------------------------


@contextmanager
def opened(path):
    """Change what a zipped Zarr group holds."""
    folder = path.parent / "opened"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    yield zarr.open_group(folder, mode="r+")
    zip_folder(folder, path)


def replace_array(group, name, values):
    group.create_array(name, data=values, overwrite=True, config={"write_empty_chunks": True})


@pytest.mark.parametrize("least_qv", [20, 0])
def test_transcripts_in_tiles_count_as_those_of_the_table(outs, least_qv):
    inside = (np.abs(outs.xy_um[:, None] - outs.xy_um) < [0.1, 0.15]).all(axis=-1)
    assert inside.sum() == 40, "the small outlines must lie apart"
    zipped, table = outs.write_transcripts_zarr(), outs.write_transcripts(outs.placed())
    with zipfile.ZipFile(zipped) as archive:  # several tiles, and a coarser level that must not be counted as well
        tiles = {tuple(name.split("/")[1:3]) for name in archive.namelist() if name.endswith("location/.zarray")}
    assert {level for level, _ in tiles} == {"0", "1"} and len(tiles) > 2
    of_table = recount(table, np.array(outs.cell_id), np.array(outs.symbol), least_qv)
    assert (outs.recount_zarr(zipped, least_qv) == of_table).all()
    assert (of_table == outs.counts.sum(axis=1)).all() == (least_qv == 20)


def test_a_run_is_read_with_transcripts_in_tiles(outs):
    boundaries, zipped = outs.write_small_boundaries(), outs.write_transcripts_zarr()
    assert outs.read(transcripts=zipped, boundaries=boundaries).n_obs == 40
    with pytest.raises(DataError, match=r"transcripts.zarr.zip names no cell, and no boundaries are given; expected"):
        outs.read(transcripts=zipped)
    moved = outs.boundaries(0.05).assign(cell_id=np.roll(np.repeat(outs.cell_id, 5), 5))
    moved = outs.write_transcripts(moved, "moved.parquet")
    with pytest.raises(DataError, match=r"cells another total than .*differ by at most 5% of the transcripts, here"):
        outs.read(transcripts=zipped, boundaries=moved)
    assert outs.read(options=XeniumOptions(max_outline_difference=1), transcripts=zipped, boundaries=moved).n_obs == 40


def test_a_few_transcripts_across_an_outline_are_no_other_run(outs):
    outs.counts = outs.counts * 10
    counts, table = outs.write_h5(), outs.placed()
    first = table.groupby("cell_id").head(1).index
    table.loc[first, "x_location"] += 0.5  # beside its own cell's outline
    path = outs.folder / "transcripts.zarr.zip"
    write_transcripts_zarr(table, np.array(outs.symbol), path)
    assert (outs.recount_zarr(path) == outs.counts.sum(axis=1) - 1).mean() > 0.9
    assert outs.read(counts=counts, transcripts=path, boundaries=outs.write_small_boundaries()).n_obs == 40


def test_transcripts_of_no_gene_and_not_valid_ones_do_not_count(outs):
    path = outs.write_transcripts_zarr()
    full = outs.recount_zarr(path).sum()
    with opened(path) as root:
        tile = root["grids/0/0,0"]
        gene, valid, good = tile["gene_identity"][:], tile["valid"][:], tile["quality_score"][:, 0] >= 20
        gene[np.flatnonzero(good)[:7]] = 65535
        valid[np.flatnonzero(good)[5:10]] = 0
        replace_array(tile, "gene_identity", gene)
        replace_array(tile, "valid", valid)
    assert outs.recount_zarr(path).sum() == full - 10


def test_arrays_may_be_flat_and_tiles_unlisted(outs):
    path = outs.write_transcripts_zarr()
    full = outs.recount_zarr(path)
    with opened(path) as root:
        del root["grids"].attrs["grid_keys"], root["grids"].attrs["grid_number_objects"]
        for _, tile in root["grids/0"].groups():
            for name in ("gene_identity", "quality_score"):
                replace_array(tile, name, tile[name][:].ravel())
            del tile["valid"]
    assert (outs.recount_zarr(path) == full).all() and full.sum() == outs.counts.sum()


def test_a_zip_with_the_directory_of_large_ones(outs):
    path = outs.write_transcripts_zarr()
    full = outs.recount_zarr(path)
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    number, size, start = struct.unpack_from("<HII", content, end + 10)
    large = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, number, number, size, start)
    large += struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    old = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(content[:end] + large + old)
    assert (outs.recount_zarr(path) == full).all()


def no_names(root):
    del root.attrs["gene_names"]


def other_unit(root):
    root.attrs["spatial_units"] = "pixel"


def fewer_names(root):
    root.attrs["gene_names"] = root.attrs["gene_names"][:3]


def fewer_rows(root):
    replace_array(root["grids/0/0,0"], "quality_score", root["grids/0/0,0/quality_score"][:-1])


def fewer_than_said(root):
    for name in ("location", "gene_identity", "quality_score", "valid"):
        replace_array(root["grids/0/0,0"], name, root[f"grids/0/0,0/{name}"][:-1])


def two_columns(root):
    replace_array(root["grids/0/0,0"], "gene_identity", root["grids/0/0,0/codeword_identity"][:])


def no_number(root):
    place = root["grids/0/0,0/location"][:]
    place[3, 1] = np.nan
    replace_array(root["grids/0/0,0"], "location", place)


def no_quality(root):
    del root["grids/0/0,0/quality_score"]


def no_tile(root):
    del root["grids/0/0,0"]


def no_level(root):
    del root["grids/0"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (no_names, "its attributes have no gene_names; transcripts.parquet lies beside it"),
        (other_unit, "its spatial_units are 'pixel', not 'micron'"),
        (fewer_names, r"grids/0/0,0 has gene_identity from 0 to 6, of 3 gene_names"),
        (fewer_rows, r"grids/0/0,0 has arrays of (\d+) rows \(location\), \1 rows .*quality_score"),
        (fewer_than_said, r"grids/0/0,0 has \d+ transcripts, of \d+ that grid_number_objects says"),
        (two_columns, r"grids/0/0,0 has location .*gene_identity uint16 \(\d+, 2\)"),
        (no_number, r"grids/0/0,0 has a location or quality_score that is no number"),
        (no_quality, "quality_score"),
        (no_tile, r"grids/0 lacks 1 of its \d+ tiles, first 0,0"),
        (no_level, "it has no tile in grids/0"),
    ],
)
def test_transcripts_in_tiles_that_lack_something(outs, change, says):
    path = outs.write_transcripts_zarr()
    with opened(path) as root:
        change(root)
    with pytest.raises(DataError, match=rf"transcripts.zarr.zip cannot be read .*{says}.*; expected transcripts.zarr"):
        outs.recount_zarr(path)


@pytest.mark.parametrize("name", ["location", "gene_identity", "quality_score", "valid"])
def test_a_missing_chunk_of_a_tile_is_not_zeros(outs, name):
    path = outs.write_transcripts_zarr()
    rezipped(path, keep=lambda member: member != f"grids/0/0,0/{name}/0.0")
    with pytest.raises(DataError, match=rf"grids/0/0,0/{name} lacks 1 of its 1 chunks"):
        outs.recount_zarr(path)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "role", ["counts", "cells", "cells_csv", "cells_zarr", "boundaries", "transcripts", "transcripts_zarr"]
)
def test_truncated_files(outs, role):
    path = {
        "counts": outs.write_h5,
        "cells": lambda: outs.write_cells("cells.parquet"),
        "cells_csv": outs.write_cells,
        "cells_zarr": lambda: outs.write_zarr(np.ones((40, 2), np.uint32)),
        "boundaries": lambda: outs.write_transcripts(outs.boundaries(), "cell_boundaries.csv.gz"),
        "transcripts": lambda: outs.write_transcripts(outs.transcripts()),
        "transcripts_zarr": outs.write_transcripts_zarr,
    }[role]()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{path.name} cannot be read .*truncated or of another kind"):
        outs.read(**{"boundaries": outs.write_small_boundaries("whole.parquet"), role.split("_")[0]: path})


def test_cells_of_another_run(outs):
    outs.matrix_ids = [name.replace("-1", "-2") for name in outs.cell_id]
    with pytest.raises(DataError, match=r"no barcode in common"):
        outs.read()
    table = outs.boundaries()
    path = outs.write_transcripts(table.assign(cell_id="pppppppp-1"), "cell_boundaries.csv")
    outs.matrix_ids = list(outs.cell_id)
    with pytest.raises(DataError, match=r"cell_boundaries.csv outlines none of the 40 cells"):
        outs.read(boundaries=path)


def test_cells_named_twice(outs):
    outs.cell_id[4] = outs.cell_id[5]
    with pytest.raises(DataError, match=f"cells.csv.gz names 1 cells more than once, first '{outs.cell_id[5]}'"):
        outs.read()
    outs.cell_id, outs.matrix_ids = outs.matrix_ids, outs.cell_id
    with pytest.raises(DataError, match=r"cell_feature_matrix.h5 names 1 barcodes more than once"):
        outs.read()


def test_values_that_are_missing_or_negative(outs):
    x = outs.xy_um[:, 0].copy()
    x[6] = np.nan
    with pytest.raises(DataError, match=f"x_centroid of {outs.cell_id[6]} is .*nan"):
        outs.read(cells=outs.write_cells(x_centroid=x))
    x[6] = -3.5
    with pytest.raises(DataError, match=rf"cell {outs.cell_id[6]} lies at \(-3.5, "):
        outs.read(cells=outs.write_cells(x_centroid=x))
    with pytest.raises(DataError, match="a cell_id is missing"):
        outs.read(cells=outs.write_cells(cell_id=[None, *outs.cell_id[1:]]))
    with pytest.raises(DataError, match="a cell_id is missing or no whole number"):
        names_of(pd.Series([1.0, np.nan], name="cell_id"), outs.folder)
    vertices = outs.boundaries()
    vertices.loc[12, "vertex_y"] = np.nan
    with pytest.raises(DataError, match=f"vertex_y of {outs.cell_id[2]} is .*nan"):
        outs.read(boundaries=outs.write_transcripts(vertices, "b.parquet"))


def test_swapped_axes(outs):
    cells = outs.write_cells(x_centroid=outs.xy_um[:, 1], y_centroid=outs.xy_um[:, 0])
    with pytest.raises(DataError, match=r"cells.csv.gz: \d+ of 40 spots lie outside"):
        outs.read(cells=cells)
    outs.matrix = np.eye(3)
    outs.xy_um = outs.he_px[:, ::-1] * PX
    with pytest.raises(DataError, match="axes look swapped"):
        outs.read()


def test_an_empty_slide(outs):
    empty = outs.folder / "cells.csv"
    outs.cells().iloc[:0].to_csv(empty, index=False)
    with pytest.raises(DataError, match=r"cells.csv holds no cell"):
        outs.read(cells=empty)
    outs.counts[:] = 0
    with pytest.raises(DataError, match=r"cell_feature_matrix.h5 holds no counts"):
        outs.read()


def test_two_species(outs):
    outs.gene_id[1] = "ENSMUSG00000000001"
    with pytest.raises(DataError, match=r"several species by their ids \(.*1 mouse\)"):
        outs.read()
    with pytest.raises(DataError, match="expected mouse as declared"):
        outs.gene_id[1] = "ENSG00000000001x"
        outs.read(replace(INFO, species="mouse"))


def test_files_of_another_kind(outs):
    with pytest.raises(DataError, match="has no column x_centroid, y_centroid"):
        outs.read(cells=outs.write_transcripts(outs.boundaries(), "b.csv"))
    with pytest.raises(DataError, match="has no column vertex_x, vertex_y"):
        outs.read(boundaries=outs.write_cells())
    labelled = outs.boundaries().assign(label_id=np.arange(200) // 3)
    with pytest.raises(DataError, match="several outlines; expected one a cell"):
        outs.read(boundaries=outs.write_transcripts(labelled, "nucleus_boundaries.parquet"))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        "null",
        "{",
        '{"pixel_size": 0}',
        '{"pixel_size": "0.2125"}',
        '{"pixel_size": NaN}',
        '{"pixel_size": 1e6}',
        '{"pixel_size": 1e-300}',
        '{"pixel_size": 1' + 400 * "0" + "}",
    ],
)
def test_experiments_that_say_no_width(tmp_path, text):
    (tmp_path / "experiment.xenium").write_text(text)
    with pytest.raises(DataError, match=r"experiment.xenium.*pixel_size"):
        pixel_size(tmp_path / "experiment.xenium")


# --- other versions, other programs -----------------------------------------------------------------------------------


def text(**options):
    return lambda table, path: table.to_csv(path, **{"index": False} | options)


# The same cells as programs save them: file's name, and how the table is written.
TABLES = {
    "more columns": ("a.csv", lambda table, path: table.assign(segmentation_method="x").to_csv(path, index=False)),
    "saved index": ("a.csv", text(index=True)),
    "semicolons": ("a.csv", text(sep=";")),
    "Windows, quoted, with a mark": ("a.csv", text(quoting=1, lineterminator="\r\n", encoding="utf-8-sig")),
    "packed, unknown to its name": ("a.csv", text(compression="gzip")),
    "not packed, though named so": ("a.csv.gz", text(compression=None)),
    "parquet named csv": ("a.csv.gz", lambda table, path: table.to_parquet(path)),
    "ids as index": ("a.parquet", lambda table, path: table.set_index("cell_id").to_parquet(path)),
    "ids as categories": ("a.parquet", lambda table, path: table.astype({"cell_id": "category"}).to_parquet(path)),
}


@pytest.mark.parametrize("name", TABLES)
def test_cells_of_other_programs_are_the_same(outs, name):
    file, write = TABLES[name]
    write(outs.cells(), outs.folder / file)
    pd.testing.assert_frame_equal(cell_table(outs.folder / file), cell_table(outs.write_cells("reference.csv")))


def test_ids_are_names_whatever_they_look_like(outs):
    outs.cell_id = ["NA", "nan", "null", "007", "1e5", *outs.cell_id[5:]]
    assert cell_table(outs.write_cells()).index.tolist() == outs.cell_id
    numbered = outs.write_cells("numbers.parquet", cell_id=np.arange(1.0, 41))
    assert cell_table(numbered).index.tolist() == [str(k) for k in range(1, 41)]


def test_features_of_every_type_and_genes_of_a_custom_panel(outs):
    kinds = {
        "NegControlCodeword_1": "Negative Control Codeword",
        "DeprecatedCodeword_1": "Deprecated Codeword",
        "Intergenic_Region_1": "Genomic Control",
    }
    outs.symbol, outs.gene_id = [*outs.symbol, *kinds], [*outs.gene_id, *kinds]
    outs.feature_type = [*outs.feature_type, *kinds.values()]
    # A gene that the reference does not know has no genome.
    outs.genome = ["GRCh38", "GRCh38", "GRCh38", "Unknown", *["Unknown"] * 6]
    outs.counts = np.hstack([outs.counts, np.ones((40, 3), np.int64)])
    slide = outs.read()
    assert slide.var["control"].tolist() == [False] * 4 + [True] * 6
    assert slide.X.sum() == outs.counts.sum()


@pytest.mark.parametrize("form", ["bytes", "categories", "semicolons", "parts", "numbers", "parquet named csv"])
def test_transcripts_of_other_versions_count_the_same(outs, form):
    table, path = outs.transcripts(), outs.folder / "transcripts.parquet"
    if form == "bytes":
        for name in ("cell_id", "feature_name"):
            table[name] = table[name].str.encode("ascii")
        table.to_parquet(path)
    elif form == "categories":
        table.astype({"cell_id": "category", "feature_name": "category"}).to_parquet(path)
    elif form == "semicolons":
        table.to_csv(path, sep=";", index=False)
    elif form == "parts":
        path.mkdir()
        for part in range(3):
            table.iloc[part::3].to_parquet(path / f"{part}.parquet")
    elif form == "numbers":
        numbers = {name: k for k, name in enumerate(outs.cell_id, 1)} | {"UNASSIGNED": -1}
        outs.cell_id = outs.matrix_ids = [str(k) for k in range(1, 41)]
        table.assign(cell_id=table["cell_id"].map(numbers)).to_parquet(path)
    else:
        path = outs.folder / "transcripts.csv.gz"
        table.to_parquet(path)
    found = recount(path, np.array(outs.cell_id, dtype=object), np.array(outs.symbol), 20)
    assert (found == outs.counts.sum(axis=1)).all()


def rezipped(path, keep=lambda name: True, prefix=""):
    """Write a zip again without some of its files, or with all of them in a folder."""
    with zipfile.ZipFile(path) as archive:
        files = {prefix + name: archive.read(name) for name in archive.namelist() if keep(name)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("ids", "change", "says"),
    [
        ((40, 2), {"keep": lambda name: not name.startswith("cell_summary/0")}, "cell_summary lacks 1 of its 1 chunks"),
        ((40, 2), {"keep": lambda name: not name.startswith("cell_summary")}, "cell_summary"),
        ((40, 2), {"keep": lambda name: not name.endswith(".zattrs")}, "column_names"),
        ((40, 2), {"prefix": "cells.zarr/"}, "No group found"),
        ((30, 2), {}, r"cell_id is uint32 \(30, 2\) for 40 rows"),
        ((40, 3), {}, r"cell_id is uint32 \(40, 3\) for 40 rows"),
    ],
)
def test_cells_zarr_that_lack_something(outs, ids, change, says):
    path = outs.write_zarr(np.arange(np.prod(ids), dtype=np.uint32).reshape(ids))
    rezipped(path, **change)
    with pytest.raises(DataError, match=rf"cells.zarr.zip cannot be read .*{says}"):
        cell_table(path)


def test_zips_that_hold_something_else(outs):
    zipped = outs.write_zarr(np.ones((40, 2), np.uint32))
    with pytest.raises(DataError, match=r"cells.zarr.zip cannot be read \(its attributes have no gene_names; "):
        outs.read(transcripts=zipped, boundaries=outs.write_small_boundaries())
    with pytest.raises(DataError, match=r"cells.zarr.zip cannot be read \(it is neither HDF5 nor Matrix Market\)"):
        outs.read(counts=zipped)
    with pytest.raises(DataError, match=r"cells is a folder that cannot be read as one"):
        cell_table(outs.folder / "cells")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n", "1 x 0 values"),
        ("1e200,0,0\n0,1e200,0\n0,0,1\n", "3 x 3 finite numbers"),
        ("1;0;0\n", "cannot be read"),
    ],
)
def test_alignments_of_another_kind(tmp_path, text, says):
    (tmp_path / "a.csv").write_text(text)
    with pytest.warns(UserWarning) if not text.strip() else nullcontext(), pytest.raises(DataError, match=says):
        read_alignment(tmp_path / "a.csv")


def test_the_roles_are_the_readers():
    required = {role for role, needed in READERS["xenium"].roles.items() if needed}
    assert required == {"counts", "cells", "image"}
