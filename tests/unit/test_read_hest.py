import gzip
import json
import pickle
import struct
import zipfile
from dataclasses import replace

import anndata
import h5py
import matplotlib.path
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
import scipy.spatial
from PIL import Image

from stmorph.errors import ConfigError, DataError
from stmorph.image.pictures import ArrayTiles, PatchTiles, fitted
from stmorph.image.source import open_image
from stmorph.image.windows import WindowOptions
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.hest import Options
from stmorph.read.hest_metadata import patient_key, read_metadata, sample_row, select_samples
from stmorph.read.hest_totals import compare_totals
from stmorph.read.polygons import CROSSED, FLAT, PARTS
from stmorph.simulate import SimulationOptions, catalogue, simulate_slide
from stmorph.simulate.hest_cells import draw_hest_cells, hest_cell_files, write_hest_cells
from stmorph.simulate.tissue import draw_section

INFO = SlideInfo(dataset="toy", slide="TENX1", platform="HEST", organ="brain", species="simulated", patient="P1")
KNOWN = replace(INFO, um_per_px=5.0)
ROLES = ("counts", "image", "metadata", "patches")
SMALL = SimulationOptions(platform="hest", spots=45, um_per_px=1.0, hest_patch_px=48)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    made = {}
    for technology in ("Visium", "Xenium", "Visium HD"):
        folder = tmp_path_factory.mktemp(technology.replace(" ", "")) / "TENX1"
        options = SMALL.model_copy(update={"hest_technology": technology})
        made[technology] = simulate_slide(options, folder, "TENX1", "P1", 3)
    return made


def given(files, *left_out):
    return {role: files[role] for role in ROLES if role not in left_out}


# --- what was drawn comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("technology", ["Visium", "Xenium", "Visium HD"])
def test_the_reader_gets_back_what_was_drawn(drawn, technology):
    files = drawn[technology]
    slide = read_slide("hest", given(files), INFO)
    truth = pd.read_parquet(files["truth"]).set_index("barcode").loc[slide.obs_names]
    np.testing.assert_allclose(slide.obsm["spatial_um"], truth[["x_um", "y_um"]], atol=0.5 * SMALL.um_per_px)
    stored = anndata.read_h5ad(files["counts"])[slide.obs_names, slide.var_names]
    assert (slide.X != stored.X).nnz == 0 and slide.X.dtype == np.int32
    record = slide.uns["stmorph"]
    facts = json.loads(files["truth_json"].read_text())
    assert int(slide.X.sum()) == facts["total_counts"]
    assert len(truth) + sum(json.loads(record["lost"]).values()) == len(pd.read_parquet(files["truth"]))
    assert record["unit"] == facts["unit"] == ("spot" if technology == "Visium" else "pseudo-spot")
    assert record["um_per_px"] == pytest.approx(1.0)
    assert "pixel_size_um_estimated" in record["um_per_px_evidence"]
    assert slide.obs["has_patch"].to_numpy().tolist() == truth["has_patch"].tolist()
    assert 0 < slide.obs["has_patch"].sum() < slide.n_obs or technology != "Visium"


@pytest.mark.parametrize("technology", ["Visium", "Xenium", "Visium HD"])
def test_pseudo_spots_are_known_by_their_names_alone(drawn, technology):
    slide = read_slide("hest", given(drawn[technology], "metadata", "patches"), INFO)
    assert slide.uns["stmorph"]["unit"] == ("spot" if technology == "Visium" else "pseudo-spot")
    assert slide.uns["stmorph"]["um_per_px"] == pytest.approx(1.0)  # the image's own record
    forced = read_slide("hest", given(drawn[technology]), INFO, Options(unit="spot"))
    assert forced.uns["stmorph"]["unit"] == "spot"


@pytest.mark.parametrize(("technology", "pitch_um"), [("Visium", 100.0), ("Xenium", 100.0), ("Visium HD", 128.0)])
def test_the_scale_is_measured_by_the_pitch_also_where_array_coordinates_are_wrong(drawn, technology, pitch_um):
    files = given(drawn[technology], "metadata", "patches")
    record = read_slide("hest", files, replace(INFO, spot_pitch_um=pitch_um)).uns["stmorph"]
    assert record["um_per_px_measured"] == pytest.approx(1.0, rel=1e-3)
    assert ("nearest" in record["um_per_px_evidence"]) == (technology == "Visium HD")


def test_same_seed_same_bytes(drawn, tmp_path):
    again = simulate_slide(SMALL, tmp_path / "TENX1", "TENX1", "P1", 3)
    for role, path in again.items():
        assert path.read_bytes() == drawn["Visium"][role].read_bytes(), role
    other = simulate_slide(SMALL, tmp_path / "other" / "TENX1", "TENX1", "P1", 4)
    assert other["counts"].read_bytes() != again["counts"].read_bytes()


def test_the_files_are_as_hest_lays_them_out(drawn):
    files = drawn["Visium"]
    root = files["metadata"].parent
    assert files["counts"] == root / "st" / "TENX1.h5ad" and files["image"] == root / "wsis" / "TENX1.tif"
    assert files["metadata"].read_bytes().startswith(b"\xef\xbb\xbfdataset_title,id,")
    with h5py.File(files["patches"]) as file:
        assert file["barcode"].shape == (len(file["img"]), 1) and file["coords"].shape == (len(file["img"]), 2)
        order = [name.decode() for name in file["barcode"][:, 0]]
    assert order != sorted(order)  # another order than the h5ad's
    source = open_image(files["image"])
    assert len(source.levels) > 1 and source.levels[1][0] == source.levels[0][0] // 2
    adata = anndata.read_h5ad(files["counts"])
    assert set(adata.uns["spatial"]["ST"]["scalefactors"]) >= {"spot_diameter_fullres"}
    assert adata.X.dtype == np.float32


# --- patches ----------------------------------------------------------------------------------------------------------


def test_patches_are_joined_by_barcode_though_shuffled(drawn):
    files = drawn["Visium"]
    truth = pd.read_parquet(files["truth"]).query("has_patch").set_index("barcode")
    image = open_image(files["image"]).read()
    names = sorted(truth.index)[::3]
    tiles = PatchTiles(files["patches"], names, size_px=16)
    assert len(tiles) == len(names)
    index = np.array([3, 0, 5, 3])
    got = tiles.read(index)
    assert got.shape == (4, 16, 16, 3) and got.dtype == np.uint8
    for tile, i in zip(got, index):
        x, y = truth.loc[names[i], ["x_um", "y_um"]]
        x, y = int(np.floor(x - 56)), int(np.floor(y - 56))
        window = fitted(np.ascontiguousarray(image[y : y + 112, x : x + 112]), 16)
        assert np.abs(tile.astype(int) - window).mean() < 6  # JPEG and a second resampling
    assert np.array_equal(pickle.loads(pickle.dumps(tiles)).read(index), got)
    assert tiles.read(np.array([], dtype=int)).shape == (0, 16, 16, 3)


def test_a_smaller_field_is_cut_from_the_centre(tmp_path):
    picture = np.zeros((1, 40, 40, 3), np.uint8)
    picture[0, 10:30, 10:30] = 200
    np.save(tmp_path / "tiles.npy", picture)
    whole = ArrayTiles(tmp_path / "tiles.npy")
    assert np.array_equal(whole.read(np.array([0])), picture)
    centre = ArrayTiles(tmp_path / "tiles.npy", size_px=20, fov_um=10.0, um_per_px=0.5)
    assert (centre.read(np.array([0])) == 200).all()
    with pytest.raises(DataError, match=r"pictures of 20\.0 um, but a field of view of 21 um"):
        ArrayTiles(tmp_path / "tiles.npy", fov_um=21.0, um_per_px=0.5)
    with pytest.raises(DataError, match="does not tell the scale"):
        ArrayTiles(tmp_path / "tiles.npy", fov_um=10.0)
    with pytest.raises(DataError, match="holds 1 tiles, but row 1"):
        ArrayTiles(tmp_path / "tiles.npy", rows=np.array([1]))


def test_reduction_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    reduced = fitted(stripes, 8)
    assert np.abs(reduced.astype(int) - 100).max() <= 5  # picking every eighth pixel would give 0 or 200


class Patches:
    """A minimal patches file of four units."""

    def __init__(self, folder, barcode=("A-1", "B-1", "C-1", "D-1")):
        self.path, self.barcode = folder / "patches.h5", list(barcode)
        self.img = np.zeros((len(self.barcode), 8, 8, 3), np.uint8)
        self.coords = np.arange(2 * len(self.barcode)).reshape(-1, 2)
        self.attrs = {}

    def write(self):
        with h5py.File(self.path, "w") as file:
            for name in ("img", "barcode", "coords"):
                value = getattr(self, name)
                if isinstance(value, list):
                    value = np.array(value, dtype="S")[:, None]
                if value is not None:
                    file[name] = value
            file["img"].attrs.update(self.attrs)
        return self.path


@pytest.mark.parametrize(
    ("attrs", "um_per_px"),
    [
        ({"patch_size_src": 448, "patch_size_target": 224, "pixel_size": 0.25}, 0.5),
        ({"patch_size_src": 448, "patch_size_target": 224, "pixel_size": 0.5}, 0.5),
        ({"patch_size_src": 448, "patch_size_target": 224, "pixel_size": 0.7}, None),
        ({"patch_size_src": 448}, None),
    ],
)
def test_the_scale_of_patches(tmp_path, attrs, um_per_px):
    patches = Patches(tmp_path)
    patches.attrs = attrs
    path = patches.write()
    if um_per_px is None:
        with pytest.raises(DataError, match="does not tell the scale"):
            PatchTiles(path, ["B-1"], fov_um=2.0)
        assert PatchTiles(path, ["B-1"], size_px=4, fov_um=2.0, um_per_px=0.5).crop == pytest.approx(0.5)
    else:
        assert PatchTiles(path, ["B-1"], size_px=4, fov_um=2.0).crop == pytest.approx(2 / (8 * um_per_px))


def test_bad_patches(tmp_path):
    patches = Patches(tmp_path)
    with pytest.raises(DataError, match=r"no picture of 1 of 2 units, first 'E-1' .*like 'A-1'"):
        PatchTiles(patches.write(), ["A-1", "E-1"])
    patches.barcode[1] = "A-1"
    with pytest.raises(DataError, match=r"names 1 barcodes more than once, first 'A-1'"):
        PatchTiles(patches.write(), ["A-1"])
    patches.barcode = ["A-1", "B-1", "C-1"]
    with pytest.raises(DataError, match="4 pictures and 3 barcodes"):
        PatchTiles(patches.write(), ["A-1"])
    patches.img = np.zeros((3, 8, 7, 3), np.uint8)
    with pytest.raises(DataError, match=r"shape \(3, 8, 7, 3\); expected pictures"):
        PatchTiles(patches.write(), ["A-1"])
    with h5py.File(patches.path, "w") as file:
        file["barcode"] = np.array(["A"], dtype="S")
    with pytest.raises(DataError, match="has no img"):
        PatchTiles(patches.path, ["A"])
    with h5py.File(patches.path, "w") as file:
        file["barcode"] = np.array(["A", "B"], dtype="S")
        file["img/0"], file["img/1"] = np.zeros((8, 8, 3), np.uint8), np.zeros((6, 6, 3), np.uint8)
    with pytest.raises(DataError, match=r"one by one, of the sizes \(6, 6, 3\), \(8, 8, 3\)"):
        PatchTiles(patches.path, ["A"])
    patches.path.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=r"patches\.h5 (cannot be read|is a web page).*download it again"):
        PatchTiles(patches.path, ["A"])


def scrambled(files, tmp_path, change):
    path = tmp_path / "patches.h5"
    path.write_bytes(files["patches"].read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return given(files) | {"patches": path}


def test_patches_of_another_sample_do_not_pass(drawn, tmp_path):
    files = drawn["Visium"]

    def shuffle(file):
        file["barcode"][...] = np.roll(file["barcode"][:], 1, axis=0)

    with pytest.raises(DataError, match=r"was cut \d+ px from where"):
        read_slide("hest", scrambled(files, tmp_path, shuffle), INFO)

    def rename(file):
        names = [name.decode().replace("-1", "-9") for name in file["barcode"][:, 0]]
        file["barcode"][...] = np.array(names, dtype="S")[:, None]

    with pytest.raises(DataError, match=r"no barcode in common .* without what follows a hyphen \d+ would agree"):
        read_slide("hest", scrambled(files, tmp_path, rename), INFO)


# --- the h5ad ---------------------------------------------------------------------------------------------------------


class Sample:
    """A minimal sample: 6 x 5 spots 20 px apart, 4 genes."""

    def __init__(self, folder):
        self.folder = folder
        row, column = np.divmod(np.arange(30), 5)
        self.counts = np.random.default_rng(0).poisson(3, (30, 4)).astype(np.float32)
        self.counts[:, 0] += 1
        self.obs = pd.DataFrame(
            {"in_tissue": 1, "array_row": row, "array_col": column},
            index=[f"{r:03d}x{c:03d}" for r, c in zip(row, column)],
        )
        self.xy = np.column_stack([30 + 20.0 * column, 40 + 20.0 * row])
        self.var = pd.DataFrame(index=["TP53", "ACTB", "KRT5", "NegControlProbe_1"])
        self.layers, self.keep_spatial = {}, True
        Image.fromarray(np.random.default_rng(1).integers(90, 160, (180, 150, 3)).astype(np.uint8)).save(
            folder / "wsi.png"
        )

    def write(self):
        adata = anndata.AnnData(
            scipy.sparse.csr_matrix(self.counts),
            obs=self.obs,
            var=self.var,
            obsm={"spatial": self.xy} if self.keep_spatial else {},
            layers={name: scipy.sparse.csr_matrix(value) for name, value in self.layers.items()},
        )
        adata.write_h5ad(self.folder / "st.h5ad")
        return {"counts": self.folder / "st.h5ad", "image": self.folder / "wsi.png"}

    def read(self, info=KNOWN, options=None, **files):
        return read_slide("hest", self.write() | files, info, options)


@pytest.fixture
def sample(tmp_path):
    return Sample(tmp_path)


def fails(sample, match, **given):
    with pytest.raises(DataError, match=match) as caught:
        sample.read(**given)
    sentence = str(caught.value)
    assert "\n" not in sentence and "expected" in sentence
    return sentence


def test_known_answer(sample):
    slide = sample.read()
    assert slide.n_obs == 30 and slide.uns["stmorph"]["unit"] == "pseudo-spot"
    assert slide.obsm["spatial_um"][7].tolist() == [(30 + 40) * 5.0, (40 + 20) * 5.0]
    assert np.array_equal(slide.X.toarray(), sample.counts.astype(int))
    assert slide.var["control"].tolist() == [False, False, False, True]


def test_normalised_counts_are_refused_and_the_raw_ones_are_named(sample):
    raw = sample.counts.copy()
    sample.counts = np.log1p(raw)
    sentence = fails(sample, "raw counts")
    assert sample.obs.index[0] in sentence and "reader_options" not in sentence
    sample.layers = {"counts": raw}
    assert "the file also holds counts" in fails(sample, "raw counts")
    assert np.array_equal(sample.read(options=Options(matrix="counts")).X.toarray(), raw.astype(int))
    fails(sample, r"no matrix 'raw'; expected one of X, counts", options=Options(matrix="raw"))


def test_gene_ids_with_and_without_version(sample):
    sample.var["gene_ids"] = [f"ENSG{i:011d}.{i + 1}" for i in range(4)]
    slide = sample.read(replace(INFO, um_per_px=5.0, species="human"))
    assert slide.var["gene_id"].iloc[1] == "ENSG00000000001.2" and slide.var_names[1] == "ACTB"
    fails(sample, "holds human genes .* expected mouse", info=replace(INFO, um_per_px=5.0, species="mouse"))
    # Named by ids, symbols in a column.
    sample.var = pd.DataFrame({"gene_symbols": ["TP53", "ACTB", "KRT5", ""]}, index=[f"ENSG{i:011d}" for i in range(4)])
    slide = sample.read(replace(INFO, um_per_px=5.0, species="human"))
    assert slide.var_names.tolist() == ["TP53", "ACTB", "KRT5", "ENSG00000000003"]
    assert slide.uns["stmorph"]["genes_without_symbol"] == 1


def test_the_flag_in_tissue_is_ignored_unless_asked_for(sample):
    sample.obs.loc[sample.obs.index[:10], "in_tissue"] = 0
    assert sample.read().n_obs == 30
    slide = sample.read(options=Options(in_tissue="use"))
    assert slide.n_obs == 20 and json.loads(slide.uns["stmorph"]["lost"]) == {"not in tissue": 10}
    sample.obs.loc[sample.obs.index[0], "in_tissue"] = 3
    fails(sample, "in_tissue holds 3", options=Options(in_tissue="use"))
    sample.obs = sample.obs.drop(columns="in_tissue")
    fails(sample, "no obs column in_tissue", options=Options(in_tissue="use"))


def test_units_without_array_coordinates_are_placed_by_their_distance(sample):
    sample.obs = sample.obs.drop(columns=["array_row", "array_col"])
    slide = sample.read()
    row, column = np.divmod(np.arange(30), 5)
    assert slide.obs["array_row"].tolist() == row.tolist() and slide.obs["array_col"].tolist() == column.tolist()


def test_bad_h5ad(sample):
    sample.obs.index = [*sample.obs.index[:-1], sample.obs.index[0]]
    fails(sample, r"names 1 barcodes more than once, first '000x000'")
    sample.obs.index = [f"u{i}" for i in range(30)]
    sample.xy[4, 1] = np.nan
    fails(sample, r"obsm\['spatial'\] of u4 is \[110.0, nan\]")
    sample.keep_spatial = False
    fails(sample, r"no obsm\['spatial'\]")
    sample.keep_spatial, sample.xy = True, np.arange(30.0)[:, None]
    fails(sample, r"of the shape \(30, 1\)")
    files = sample.write()
    whole = files["counts"].read_bytes()
    for damage in (whole[: len(whole) // 2], b"<html>404</html>"):
        files["counts"].write_bytes(damage)
        with pytest.raises(DataError, match=r"st\.h5ad (cannot be read|is a web page).*download it again"):
            read_slide("hest", files, INFO)
    with h5py.File(files["counts"], "w") as file:
        file["matrix/data"] = [1]
    with pytest.raises(DataError, match=r"no obs and no var \(it has matrix\)"):
        read_slide("hest", files, INFO)


def put(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


def bare(file):
    for name in list(file["obs"].attrs):
        del file["obs"].attrs[name]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        # SciPy trusts indices: one beyond the matrix would end the process or give other genes' counts.
        (lambda file: file["X/indices"].__setitem__(0, 99), "indices must be < 4"),
        (lambda file: file["X/indices"].__setitem__(0, -3), "indices must be >= 0"),
        (put("X/indptr", np.arange(10)), "index pointer size 10 should be 31"),
        (lambda file: file["X"].attrs.__setitem__("shape", [31, 4]), "index pointer size 31 should be 32"),
        (lambda file: file["X"].attrs.__setitem__("encoding-type", "dgCMatrix"), "No read method registered"),
        (lambda file: file["X"].attrs.__setitem__("encoding-type", "dict"), "X is no matrix"),
        (put("obsm/spatial", np.ones((10, 2))), "obsm/spatial has 10 rows for 30 of obs"),
        (put("obs", np.arange(30)), "obs is no table as AnnData since 0.7 writes it"),
        (bare, "obs is no table as AnnData since 0.7 writes it"),
    ],
)
def test_h5ad_put_together_wrongly(sample, change, says):
    files = sample.write()
    with h5py.File(files["counts"], "r+") as file:
        change(file)
    with pytest.raises(DataError, match=f"st.h5ad cannot be read .*{says}"):
        read_slide("hest", files, KNOWN)


@pytest.mark.parametrize("values", [["True"] * 30, ["1"] * 30, [True] * 30, pd.Categorical(["false"] * 29 + ["true"])])
def test_the_flag_in_tissue_of_every_type(sample, values):
    sample.obs["in_tissue"] = values
    slide = sample.read(options=Options(in_tissue="use"))
    assert slide.n_obs == sum(str(value).lower() in ("true", "1") for value in values)


@pytest.mark.parametrize("value", ["yes", 2, np.nan])
def test_a_flag_in_tissue_that_is_none(sample, value):
    sample.obs["in_tissue"] = pd.Series([value] * 30, index=sample.obs.index)
    fails(sample, f"column in_tissue holds {value}; expected 0 or 1", options=Options(in_tissue="use"))


def test_an_odd_rest_of_the_file_does_no_harm(sample):
    files = sample.write()
    with h5py.File(files["counts"], "r+") as file:
        file["uns"].create_group("strange").attrs["encoding-type"] = "something that no version knows"
        file["obsm"].create_group("other").attrs["encoding-type"] = "neither this"
    assert read_slide("hest", files, replace(INFO, um_per_px=5.0)).n_obs == 30


# --- cells of Xenium samples ------------------------------------------------------------------------------------------


def wkb(ring, order="<", multi=False):
    body = struct.pack(f"{order}BIII", order == "<", 3, 1, len(ring)) + np.asarray(ring, f"{order}f8").tobytes()
    return struct.pack(f"{order}BII", order == "<", 6, 1) + body if multi else body


class Cells:
    """12 cells 20 px apart, each a square of 8 px with known molecules; some molecules lie in none."""

    def __init__(self, sample):
        self.sample = sample
        rng = np.random.default_rng(4)
        self.name = [f"cell{i:02d}-1" for i in range(12)]
        row, column = np.divmod(np.arange(12), 4)
        self.xy = np.column_stack([30 + 20.0 * column, 40 + 20.0 * row])
        self.counts = rng.poisson(4, (12, 3)) + 1
        genes = ["ACTB", "KRT5", "NegControlProbe_1"]
        rows = [
            (name, gene, 30.0, *(place + rng.uniform(-3, 3, 2)))
            for name, place, counts in zip(self.name, self.xy, self.counts)
            for gene, count in zip(genes, counts)
            for _ in range(count)
        ]
        rows += [("UNASSIGNED", "ACTB", 30.0, 5.0, 5.0)] * 7 + [(self.name[0], "ACTB", 12.0, 31.0, 41.0)] * 5
        self.rows = pd.DataFrame(rows, columns=["cell_id", "feature_name", "qv", "he_x", "he_y"])
        self.rows = self.rows.sample(frac=1, random_state=0)
        self.rings = [place + 4.0 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) for place in self.xy]
        self.order, self.multi = "<", False

    def write(self, as_bytes=False):
        rows = self.rows
        if as_bytes:
            rows = rows.assign(**{name: rows[name].str.encode("ascii") for name in ("cell_id", "feature_name")})
        rows.to_parquet(self.sample.folder / "t.parquet", index=False)
        shapes = [wkb(ring, self.order, self.multi) for ring in self.rings]
        index = pd.Index(self.name, name="cell_id")[::-1]
        pd.DataFrame({"geometry": shapes[::-1]}, index=index).to_parquet(self.sample.folder / "seg.parquet")
        return {"transcripts": self.sample.folder / "t.parquet", "cells": self.sample.folder / "seg.parquet"}

    def read(self, *left_out, **options):
        files = {role: path for role, path in self.write().items() if role not in left_out}
        return self.sample.read(options=Options(unit="cell", **options), **files)


@pytest.mark.parametrize(("order", "multi"), [("<", False), (">", True)])
def test_cells_are_counted_from_transcripts_and_outlined(sample, order, multi):
    cells = Cells(sample)
    cells.order, cells.multi = order, multi
    slide = cells.read()
    assert slide.uns["stmorph"]["unit"] == "cell" and slide.obs_names.tolist() == cells.name
    assert np.array_equal(slide.X.toarray(), cells.counts)
    assert slide.var["control"].tolist() == [False, False, True]
    np.testing.assert_allclose(slide.obsm["spatial_um"], cells.xy * 5.0)
    np.testing.assert_allclose(slide.obsm["boundary_um"][3], cells.rings[3] * 5.0)
    np.testing.assert_allclose(slide.obs["cell_area_um2"], 64 * 25.0)
    assert cells.read(least_qv=10).X[0].sum() == cells.counts[0].sum() + 5


def test_cells_do_not_depend_on_how_the_table_is_read(sample, monkeypatch):
    cells = Cells(sample)
    whole = cells.read()
    monkeypatch.setattr("stmorph.read.xenium_files.TRANSCRIPT_ROWS", 7)
    parts = cells.read()
    assert (parts.X != whole.X).nnz == 0 and parts.var.equals(whole.var)


def test_cells_without_outlines_lie_where_their_transcripts_lie(sample):
    cells = Cells(sample)
    slide = cells.read("cells")
    mean = cells.rows[cells.rows["qv"] >= 20].groupby("cell_id")[["he_x", "he_y"]].mean().loc[cells.name]
    np.testing.assert_allclose(slide.obsm["spatial_um"], mean * 5.0)
    files = {"transcripts": cells.write(as_bytes=True)["transcripts"]}
    again = sample.read(options=Options(unit="cell"), **files)
    assert (again.X != slide.X).nnz == 0 and again.obs_names.equals(slide.obs_names)


@pytest.mark.parametrize("kind", ["parquet", "geojson", "zip", "label image"])
def test_transcripts_are_counted_in_nuclei_found_in_the_image(sample, kind):
    cells = Cells(sample)
    rings = [place + 0.5 + 2.4 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) for place in cells.xy]
    files = {"transcripts": cells.write()["transcripts"], "nuclei": sample.folder / f"nuclei.{kind}"}
    if kind == "parquet":  # as CellViT's in HEST-1k: no ids
        pd.DataFrame({"geometry": [wkb(ring) for ring in rings], "class": "Neoplastic"}).to_parquet(files["nuclei"])
    elif kind == "label image":
        labels = np.zeros((120, 130), np.int32)
        for number, (x, y) in enumerate(cells.xy.astype(int), 1):
            labels[y - 2 : y + 3, x - 2 : x + 3] = number
        with files["nuclei"].open("wb") as file:
            np.save(file, labels)
    else:
        content = features(rings[:7], rings[7:])
        (sample.folder / "x.geojson").write_text(json.dumps(content))
        files["nuclei"] = sample.folder / "x.geojson"
        if kind == "zip":
            files["nuclei"] = sample.folder / "x.geojson.zip"
            with zipfile.ZipFile(files["nuclei"], "w") as archive:
                archive.write(sample.folder / "x.geojson", "TENX1_cellvit_seg.geojson")
    slide = sample.read(options=Options(unit="cell"), **files)
    assert slide.uns["stmorph"]["unit"] == "cell" and slide.n_obs > 8
    number = np.array([int(name.removeprefix("nucleus_")) for name in slide.obs_names]) - 1
    rows = cells.rows[cells.rows["qv"] >= 20]
    for i, k in enumerate(number):
        drawn = np.floor(rows[["he_x", "he_y"]]).to_numpy() + 0.5
        inside = (np.abs(drawn - cells.xy[k] - 0.5) < 2.4).all(axis=1)
        counted = rows[inside]["feature_name"].value_counts().reindex(slide.var_names, fill_value=0)
        assert slide.X[i].toarray().ravel().tolist() == counted.tolist()
    np.testing.assert_allclose(slide.obsm["spatial_um"], cells.xy[number] * 5.0, atol=2.6)
    assert ("boundary_um" in slide.obsm) == (kind != "label image")
    files["cells"] = cells.write()["cells"]
    with pytest.raises(ConfigError, match="has the files cells and nuclei, which are two sets of cells; expected one"):
        sample.read(options=Options(unit="cell"), **files)


def features(*groups, **properties):
    """GeoJSON as CellViT writes it: a feature a class, its nuclei the polygons of a MultiPolygon."""
    return [
        {
            "type": "Feature",
            "geometry": {"type": "MultiPolygon", "coordinates": [[ring.tolist()] for ring in rings]},
            "properties": {"classification": {"name": f"class {k}"}, **properties},
        }
        for k, rings in enumerate(groups)
    ]


def test_outlines_with_ids_are_the_same_in_every_format(sample):
    cells = Cells(sample)
    reference, files = cells.read(), cells.write()
    content = [
        one | {"properties": {"cell_id": names}}
        for one, names in zip(features(cells.rings[:5], cells.rings[5:]), (cells.name[:5], cells.name[5:]))
    ]
    files["cells"] = sample.folder / "seg.geojson"
    for document in (content, {"type": "FeatureCollection", "features": content}):
        files["cells"].write_text(json.dumps(document))
        slide = sample.read(options=Options(unit="cell"), **files)
        assert slide.obs_names.equals(reference.obs_names) and (slide.X != reference.X).nnz == 0
        np.testing.assert_allclose(slide.obsm["boundary_um"], reference.obsm["boundary_um"])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("[]", "it holds no polygon"),
        ('{"features": 3}', "x.geojson cannot be read"),
        ('[{"geometry": {"type": "Point", "coordinates": [1, 2]}}]', "a geometry is a Point, not a Polygon"),
        ('[{"geometry": {"type": "Polygon", "coordinates": [[1, 2]]}}]', "a polygon's points are no pairs"),
        (
            '[{"geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}, "properties": {"cell_id": [1, 2]}}]',
            "a feature has 1 polygons and 2 cell_id",
        ),
        ('[{"geometry": {"type": "Polygon", "coordinates": [[[-9, -9], [-4, -9], [-4, -4]]]}}]', "has polygons from"),
        ('[{"geometry"', "x.geojson cannot be read"),
    ],
)
def test_geojson_that_is_none(sample, document, says):
    files = {"transcripts": Cells(sample).write()["transcripts"], "nuclei": sample.folder / "x.geojson"}
    files["nuclei"].write_text(document)
    fails(sample, says, options=Options(unit="cell"), **files)


def test_a_zip_of_several_geojson(sample):
    files = {"transcripts": Cells(sample).write()["transcripts"], "nuclei": sample.folder / "x.zip"}
    with zipfile.ZipFile(files["nuclei"], "w") as archive:
        archive.writestr("a.geojson", "[]")
        archive.writestr("b.geojson", "[]")
    fails(
        sample, r"it holds 2 files \*.geojson \(a.geojson, b.geojson\), not one", options=Options(unit="cell"), **files
    )


def test_windows_of_hest_cells(sample):
    slide = Cells(sample).read(windows=WindowOptions(fov_um=200.0, step_um=100.0))
    assert slide.uns["stmorph"]["unit"] == "window" and slide.n_obs > 0


def test_bad_cells(sample):
    with pytest.raises(ConfigError, match=r"asks for cells .* no file transcripts"):
        sample.read(options=Options(unit="cell"))
    cells, cell = Cells(sample), Options(unit="cell")
    ring, files = cells.rings[2], cells.write()
    point = struct.pack("<BIdd", 1, 1, 3.0, 4.0)
    for shapes, index, match in (
        ([point], ["a"], "of the kind 1, not a polygon"),
        ([wkb(ring), wkb(ring)[:40]], ["a", "b"], r"seg\.parquet cannot be read"),
        ([wkb(ring)] * 2, ["a", "a"], "names 1 cells more than once, first 'a'"),
        ([wkb(ring)], ["a"], "no barcode in common"),
    ):
        pd.DataFrame({"geometry": shapes}, index=index).to_parquet(files["cells"])
        fails(sample, match, options=cell, **files)
    pd.DataFrame({"other": [1]}).to_parquet(files["cells"])
    fails(sample, "no column geometry among other", options=cell, **files)
    fails(sample, "no transcript of quality 90", options=Options(unit="cell", least_qv=90), **files)
    cells.rows.drop(columns="qv").to_parquet(files["transcripts"])
    fails(sample, r"t\.parquet has no column qv", options=cell, **files)
    files["transcripts"].write_bytes(files["transcripts"].read_bytes()[:500])
    fails(sample, r"t\.parquet cannot be read", options=cell, **files)


# --- cells in every form that HEST has published ----------------------------------------------------------------------

XENIUM = SMALL.model_copy(update={"hest_technology": "Xenium"})
POOR, FREE = "transcripts of poor quality", "transcripts in no cell"


@pytest.fixture(scope="module")
def known_cells():
    return draw_hest_cells(draw_section(XENIUM, "TENX1", "P1", 3))


def read_cells(files, **roles):
    more = {role: path if hasattr(path, "exists") else files[path] for role, path in roles.items()}
    return read_slide("hest", given(files, "patches") | more, INFO, Options(unit="cell"))


@pytest.mark.parametrize("kind", ["cells", "xenium_nuclei"])
@pytest.mark.parametrize("form", ["", "_geojson", "_zip"])
def test_simulated_cells_come_back_from_every_form(drawn, known_cells, kind, form):
    slide = read_cells(drawn["Xenium"], transcripts="transcripts", cells=f"{kind}{form}")
    row = pd.Index(known_cells.cell_id).get_indexer(slide.obs_names)
    assert (row >= 0).all() and slide.n_obs == (known_cells.counts.sum(axis=1) > 0).sum()
    column = slide.var_names.get_indexer(catalogue(XENIUM.noise_genes).name)
    assert (known_cells.counts[row][:, column >= 0] != slide.X[:, column[column >= 0]]).nnz == 0
    assert slide.X.sum() == known_cells.counts.sum()
    truth = pd.read_parquet(drawn["Xenium"]["truth_cells"]).set_index("barcode").loc[slide.obs_names]
    away_px = np.abs(slide.obsm["spatial_um"] - truth[["x_um", "y_um"]]) / XENIUM.um_per_px
    assert away_px.to_numpy().max() < 0.5
    rings = known_cells.cell_px if kind == "cells" else known_cells.nucleus_px
    np.testing.assert_allclose(slide.obsm["boundary_um"] / XENIUM.um_per_px, rings[row], atol=1e-3)
    rows = known_cells.transcripts
    good = rows["qv"] >= 20
    free = good & (rows["cell_id"] == "UNASSIGNED")
    assert json.loads(slide.uns["stmorph"]["lost"]) == {POOR: int((~good).sum()), FREE: int(free.sum())}


@pytest.mark.parametrize("form", ["", "_geojson", "_zip"])
def test_simulated_nuclei_of_cellvit_come_back_from_every_form(drawn, known_cells, form):
    slide = read_cells(drawn["Xenium"], transcripts="transcripts", nuclei=f"nuclei{form}")
    truth = known_cells.truth[["x_um", "y_um"]].to_numpy()
    away, row = scipy.spatial.cKDTree(truth).query(slide.obsm["spatial_um"])
    assert away.max() < 0.5 * XENIUM.um_per_px and len(set(row)) == slide.n_obs > 0.95 * len(truth)
    rows = known_cells.transcripts[known_cells.transcripts["qv"] >= 20]
    pixel = np.floor(rows[["he_x", "he_y"]].to_numpy()) + 0.5
    gene = slide.var_names.get_indexer(rows["feature_name"])
    for i in range(0, slide.n_obs, 60):
        near = np.abs(pixel - known_cells.nucleus_px[row[i]].mean(axis=0)).max(axis=1) < 30
        outline = matplotlib.path.Path(known_cells.nucleus_px[row[i]])
        # Vertices are kept to thousandths: what lies nearer to the outline may be in or out.
        sides = [gene[near][outline.contains_points(pixel[near], radius=by)] for by in (-2e-3, 2e-3)]
        least, most = sorted((np.bincount(side, minlength=slide.n_vars) for side in sides), key=np.sum)
        counts = slide.X[i].toarray().ravel()
        assert (least <= counts).all() and (counts <= most).all() and counts.sum() > 0


def test_the_same_cells_give_the_same_bytes(drawn, known_cells, tmp_path):
    folder = tmp_path / "TENX1"
    write_hest_cells(known_cells, folder)
    files = hest_cell_files(folder)
    assert len(files) == 11 and set(files) <= set(drawn["Xenium"])
    for role, path in files.items():
        assert path.read_bytes() == drawn["Xenium"][role].read_bytes(), role


@pytest.mark.parametrize("packed", [True, False])
def test_transcripts_may_be_text(sample, packed):
    cells = Cells(sample)
    reference, files = cells.read(), cells.write()
    files["transcripts"] = sample.folder / f"t.csv{'.gz' if packed else ''}"
    cells.rows.to_csv(files["transcripts"], index=False)
    slide = sample.read(options=Options(unit="cell"), **files)
    assert (slide.X != reference.X).nnz == 0 and slide.obs_names.equals(reference.obs_names)
    np.testing.assert_allclose(slide.obsm["spatial_um"], reference.obsm["spatial_um"])


def test_a_gene_without_a_transcript_that_counts_stays_a_gene(sample):
    cells = Cells(sample)
    cells.rows.loc[cells.rows.index[0], ["feature_name", "qv"]] = "RARE", 3.0
    slide = cells.read()
    assert "RARE" in slide.var_names and slide[:, "RARE"].X.sum() == 0


@pytest.mark.parametrize("none", ["UNASSIGNED", None, -1, 0])
def test_transcripts_of_no_cell(sample, none):
    cells = Cells(sample)
    cells.rows["cell_id"] = pd.Series([none] * len(cells.rows), index=cells.rows.index)
    number, good = len(cells.rows), int((cells.rows["qv"] >= 20).sum())
    says = f"t.parquet has no transcript of quality 20 or more in a cell .{number} transcripts, {good} of that quality"
    fails(sample, says, options=Options(unit="cell"), **cells.write())
    fails(sample, says, options=Options(unit="cell"), **{"transcripts": cells.write()["transcripts"]})
    cells.rows[["he_x", "he_y"]] = 0.5
    nuclei = {"transcripts": cells.write()["transcripts"], "nuclei": cells.write()["cells"]}
    fails(sample, says, options=Options(unit="cell"), **nuclei)
    cells.rows = cells.rows[:0]
    fails(sample, "of quality 20 or more in a cell .0 transcripts", options=Options(unit="cell"), **cells.write())


def test_transcripts_without_a_place_count_in_their_cell(sample):
    cells = Cells(sample)
    mine = cells.rows.index[cells.rows["cell_id"] == cells.name[3]]
    cells.rows.loc[mine[:2], "he_x"] = np.nan
    assert np.array_equal(cells.read().X.toarray(), cells.counts)
    cells.rows.loc[mine, "he_y"] = np.nan
    assert np.array_equal(cells.read().X.toarray(), cells.counts)
    slide = cells.read("cells")
    assert cells.name[3] not in slide.obs_names and json.loads(slide.uns["stmorph"]["lost"])["no position"] == 1


def outlined(cells, form):
    """Write the outlines in a form; return the files."""
    files = cells.write()
    if form == "parquet":
        return files
    content = features(cells.rings[::2], cells.rings[1::2])
    if form == "geojson with ids":
        content = [
            {
                "geometry": {"type": "Polygon", "coordinates": [np.asarray(ring).tolist()]},
                "properties": {"cell_id": one},
            }
            for ring, one in zip(cells.rings, cells.name)
        ]
        content = {"type": "FeatureCollection", "features": content}
    files["cells"] = sample_file = cells.sample.folder / "seg.geojson"
    sample_file.write_text(json.dumps(content))
    if form == "zip":
        files["cells"] = cells.sample.folder / "seg.geojson.zip"
        with zipfile.ZipFile(files["cells"], "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(sample_file, "__MACOSX/._seg.geojson")
            archive.write(sample_file, "TENX1_xenium_cell_seg.geojson")
    if form == "gzip":
        files["cells"].write_bytes(gzip.compress(b"\xef\xbb\xbf" + sample_file.read_bytes()))
    return files


FORMS = ["parquet", "geojson", "geojson with ids", "zip", "gzip"]


@pytest.mark.parametrize("form", FORMS)
def test_odd_outlines_are_mended_or_lost_and_counted(sample, form):
    """A line, a bow tie, nothing at all; the counts of the others stay what they were."""
    cells = Cells(sample)
    place = cells.xy
    cells.rings[2] = place[2] + np.array([(-3.0, 0), (3, 0), (-3, 0)])
    cells.rings[5] = place[5] + 4 * np.array([(-1.0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)])
    slide = sample.read(options=Options(unit="cell"), **outlined(cells, form))
    kept = [name for k, name in enumerate(cells.name) if k != 2]
    assert slide.obs_names.tolist() == kept
    assert np.array_equal(slide.X.toarray(), np.delete(cells.counts, 2, axis=0))
    np.testing.assert_allclose(slide.obsm["spatial_um"], np.delete(place, 2, axis=0) * 5.0)
    np.testing.assert_allclose(slide.obs["cell_area_um2"], 64 * 25.0)  # the hull of the bow tie too
    reasons = json.loads(slide.uns["stmorph"]["lost"])
    assert (reasons[FLAT], reasons[CROSSED], reasons["no position"]) == (1, 1, 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_outline_with_a_coordinate_that_is_no_number(sample, form, value):
    cells = Cells(sample)
    cells.rings[4][1, 0] = value
    called = "cell 'cell04-1'" if form in ("parquet", "geojson with ids") else r"polygon 3"
    fails(
        sample,
        f"the outline of {called} has a coordinate that is no number",
        options=Options(unit="cell"),
        **outlined(cells, form),
    )


@pytest.mark.parametrize("form", FORMS)
def test_outlines_with_exchanged_axes(sample, form):
    cells = Cells(sample)
    cells.rings = [ring[:, ::-1] for ring in cells.rings]
    says = "the axes look swapped" if form in ("parquet", "geojson with ids") else "has no ids, and the transcripts"
    fails(sample, says, options=Options(unit="cell"), **outlined(cells, form))


def test_outlines_of_another_sample(sample):
    cells = Cells(sample)
    cells.rings = [ring + np.array([0, 60]) for ring in cells.rings]
    says = "cell 'cell11-1' is outlined around .90, 140. px, and .* has its transcripts around .90, 80. .12 of 12 cells"
    fails(sample, says, options=Options(unit="cell"), **outlined(cells, "parquet"))
    fails(sample, "of a cell in an outline are none", options=Options(unit="cell"), **outlined(cells, "geojson"))


@pytest.mark.parametrize("role", ["cells", "nuclei"])
def test_a_truncated_zip(sample, role):
    files = outlined(Cells(sample), "zip")
    files[role] = files.pop("cells")
    whole = files[role].read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        whole[: len(whole) * 6 // 10] + bytes(20) + whole[len(whole) * 6 // 10 + 20 :],
    ):
        files[role].write_bytes(damaged)
        fails(sample, "seg.geojson.zip cannot be read .* download it again", options=Options(unit="cell"), **files)


@pytest.mark.parametrize("role", ["cells", "nuclei"])
def test_files_of_polygons_without_one(sample, role):
    files = {"transcripts": Cells(sample).write()["transcripts"], role: sample.folder / "x.parquet"}

    def wrong(says):
        fails(sample, says, options=Options(unit="cell"), **files)

    pd.DataFrame({"geometry": pd.Series([], dtype=object)}).to_parquet(files[role])
    wrong("it holds no polygon")
    flat = np.array([(1.0, 1), (2, 2), (1, 1)])
    pd.DataFrame({"geometry": [wkb(flat), struct.pack("<BII", 1, 3, 0), None]}).to_parquet(files[role])
    wrong("it holds 3 polygons, none with an area")
    files[role] = sample.folder / "x.geojson"
    files[role].write_text('{"type": "Polygon", "coordinates": []}')
    wrong("it is a GeoJSON Polygon, not a FeatureCollection")
    files[role].write_bytes(b"")
    with pytest.raises(DataError, match=r"x.geojson.* is empty \(0 bytes\); download it again"):
        sample.read(options=Options(unit="cell"), **files)


def test_ids_of_outlines_that_are_none(sample):
    cells = Cells(sample)
    files = outlined(cells, "geojson with ids")
    content = json.loads(files["cells"].read_text())

    def wrong(says, change):
        one = json.loads(json.dumps(content))
        change(one["features"])
        files["cells"].write_text(json.dumps(one))
        fails(sample, says, options=Options(unit="cell"), **files)

    def put(value):
        return lambda found: found[3]["properties"].update(cell_id=value)

    wrong("names 1 cells more than once, first 'cell00-1'", put("cell00-1"))
    wrong("1 of 12 polygons have no cell_id", put(None))
    wrong("a cell_id is 1.5, neither a whole number nor text", put(1.5))
    wrong("a cell_id is '', neither", put(""))
    wrong("a feature has 1 polygons and 2 cell_id", put(["a", "b"]))

    def scattered(found):
        found[3]["geometry"] = {"type": "MultiPolygon", "coordinates": [found[3]["geometry"]["coordinates"]] * 60}

    wrong("a feature has 60 polygons and one cell_id, 'cell03-1'", scattered)


def test_a_cell_in_parts_has_the_outline_of_its_largest(sample):
    cells = Cells(sample)
    reference, files = cells.read(), outlined(cells, "geojson with ids")
    content = json.loads(files["cells"].read_text())
    shape = content["features"][3]["geometry"]
    crumb = (cells.xy[3] + [[4, 4], [5, 4], [5, 5]]).tolist()
    content["features"][3]["geometry"] = {"type": "MultiPolygon", "coordinates": [[crumb], shape["coordinates"]]}
    files["cells"].write_text(json.dumps(content))
    slide = sample.read(options=Options(unit="cell"), **files)
    np.testing.assert_allclose(slide.obsm["boundary_um"], reference.obsm["boundary_um"])
    assert json.loads(slide.uns["stmorph"]["lost"])[PARTS] == 1


@pytest.mark.parametrize("name", ["cell_id", "__index_level_0__"])
def test_ids_in_a_column_of_the_parquet(sample, name):
    """As programs other than pandas write what was the index."""
    cells = Cells(sample)
    reference, files = cells.read(), cells.write()
    shapes = {"geometry": [wkb(ring) for ring in cells.rings], name: cells.name}
    pyarrow.parquet.write_table(pyarrow.table(shapes), files["cells"])
    slide = sample.read(options=Options(unit="cell"), **files)
    assert slide.obs_names.equals(reference.obs_names) and (slide.X != reference.X).nnz == 0


def test_the_order_of_outlines_without_ids_does_not_matter(sample):
    cells = Cells(sample)
    cells.name = [str(k + 1) for k in range(12)]  # as Onboard Analysis 1 numbers them: not the order of the file
    cells.rows["cell_id"] = cells.rows["cell_id"].map(
        {f"cell{k:02d}-1": str(k + 1) for k in range(12)} | {"UNASSIGNED": "UNASSIGNED"}
    )
    reference = cells.read()
    files = cells.write()
    files["cells"] = sample.folder / "seg.geojson"
    files["cells"].write_text(json.dumps(features(cells.rings[::-1])))
    slide = sample.read(options=Options(unit="cell"), **files)
    assert slide.obs_names.equals(reference.obs_names) and (slide.X != reference.X).nnz == 0
    np.testing.assert_allclose(slide.obsm["spatial_um"], reference.obsm["spatial_um"])


def test_outlines_of_no_cell_are_counted(sample):
    cells = Cells(sample)
    files = cells.write()
    files["cells"] = sample.folder / "seg.geojson"
    square = np.array([(100.0, 100), (110, 100), (110, 110), (100, 110), (100, 100)])
    files["cells"].write_text(json.dumps(features([*cells.rings, square])))
    slide = sample.read(options=Options(unit="cell"), **files)
    assert slide.n_obs == 12 and json.loads(slide.uns["stmorph"]["lost"])["outlines of no cell"] == 1


# --- the table of samples ---------------------------------------------------------------------------------------------

TITLE = "A study, with a comma"


def table(folder, rows, bom=True):
    columns = ["dataset_title", "id", "organ", "species", "patient", "st_technology"]
    text = pd.DataFrame([dict(zip(columns, row[:6])) | (row[6] if len(row) > 6 else {}) for row in rows]).to_csv(
        index=False
    )
    path = folder / "HEST_v1_1_0.csv"
    path.write_text(text, encoding="utf-8-sig" if bom else "utf-8")
    return path


ROWS = [
    (TITLE, "TENX10", "Brain", "Mus musculus", "Patient 1", "Visium"),
    (TITLE, "TENX9", "Brain", "Mus musculus", "Patient 2", "Visium"),
    ("Another study", "INT1", "Kidney", "Homo sapiens", "Patient 1", "Visium"),
    ("Another study", "INT2", "Kidney", "Homo sapiens", "", "Xenium"),
    ("A third study", "NCBI3", "Lung", "Homo sapiens", "", "Visium HD"),
]


@pytest.mark.parametrize("bom", [True, False])
def test_metadata_with_and_without_byte_order_mark(tmp_path, bom):
    read = read_metadata(table(tmp_path, ROWS, bom))
    assert read.index.tolist() == ["INT1", "INT2", "NCBI3", "TENX10", "TENX9"]
    assert read.loc["TENX9", "dataset_title"] == TITLE
    assert np.isnan(read.loc["INT1", "pixel_size_um_estimated"])


def test_metadata_that_a_spreadsheet_saved(tmp_path):
    header = "id;dataset_title;organ;species;patient;st_technology;pixel_size_um_estimated\r\n"
    rows = 'TENX1;"a; ""b""\r\nc";Skin;Homo sapiens;P1;Xenium;0.5\r\nTENX2;a;Skin;Homo sapiens;P1;Xenium;inf\r\n'
    (tmp_path / "m.csv").write_text(header + rows, encoding="utf-8-sig", newline="")
    table = read_metadata(tmp_path / "m.csv")
    assert sample_row(table, "TENX1", tmp_path / "m.csv")["pixel_size_um_estimated"] == 0.5
    assert table.loc["TENX1", "dataset_title"].splitlines() == ['a; "b"', "c"]
    with pytest.raises(DataError, match=r"m.csv: pixel_size_um_estimated is 'inf' for TENX2; expected a number"):
        sample_row(table, "TENX2", tmp_path / "m.csv")


def test_a_patient_is_a_patient_of_a_study(tmp_path):
    key = read_metadata(table(tmp_path, ROWS))["patient_key"]
    assert key["TENX10"] != key["INT1"]  # both "Patient 1"
    assert key["TENX10"] != key["TENX9"]
    assert key["TENX10"] == patient_key(TITLE, "Patient 1") and key["TENX10"].endswith("_Patient_1")
    assert all(one.replace("_", "").isalnum() for one in key)
    same = read_metadata(table(tmp_path, [*ROWS, (TITLE, "TENX11", "Brain", "Mus musculus", "Patient 1", "Visium")]))
    assert same["patient_key"]["TENX11"] == key["TENX10"]


def test_known_mistakes_of_the_table_do_not_leak(tmp_path):
    crc = "Characterization of immune cell populations"
    rows = [
        (crc, "TENX155", "Bowel", "Homo sapiens", "Patient 1", "Visium HD", {"subseries": "Visium HD, Sample P2 CRC"}),
        (crc, "TENX156", "Bowel", "Homo sapiens", "Patient 1", "Visium HD", {"subseries": "Visium HD, Sample P1 CRC"}),
        (
            crc,
            "TENX148",
            "Bowel",
            "Homo sapiens",
            "Patient 1",
            "Xenium",
            {"subseries": "Xenium In Situ, Sample P2 CRC"},
        ),
        ("Human colorectal cancer", "TENX128", "Bowel", "Homo sapiens", "", "Visium HD"),
    ]
    key = read_metadata(table(tmp_path, rows))["patient_key"]
    assert key["TENX155"] == key["TENX148"] == key["TENX128"] != key["TENX156"]


def test_select(tmp_path):
    read = read_metadata(table(tmp_path, ROWS))
    assert select_samples(read) == ["INT1", "INT2", "NCBI3", "TENX9", "TENX10"]  # by number, not by letter
    assert select_samples(read, "TENX*") == ["TENX9", "TENX10"]
    assert select_samples(read, ["INT?", "NCBI3"], exclude="INT2") == ["INT1", "NCBI3"]
    assert select_samples(read, organ="kidney", technology="visium") == ["INT1"]
    assert select_samples(read, species="human", technology=["Xenium", "Visium HD"]) == ["INT2", "NCBI3"]
    assert select_samples(read, species="Mus*", dataset_title="*comma*") == ["TENX9", "TENX10"]


def test_empty_selections_say_what_leaves_nothing(tmp_path):
    read = read_metadata(table(tmp_path, ROWS))
    with pytest.raises(ConfigError, match=r"pattern 'TENX99' matches none of HEST-1k's 5 samples .*TENX9"):
        select_samples(read, ["TENX99", "INT*"])
    with pytest.raises(
        ConfigError, match=r"organ 'Liver' leaves none of 5 samples; expected one of Brain, Kidney, Lung"
    ):
        select_samples(read, organ="Liver")
    with pytest.raises(ConfigError, match=r"species 'human' leaves none of 2 samples; expected one of Mus musculus"):
        select_samples(read, "TENX*", species="human")
    with pytest.raises(ConfigError, match="exclude leaves none"):
        select_samples(read, "INT*", exclude="*")


def test_bad_metadata(tmp_path):
    path = table(tmp_path, [*ROWS, ROWS[0]])
    with pytest.raises(DataError, match=r"names 1 samples more than once, first 'TENX10'"):
        read_metadata(path)
    path = table(tmp_path, [(*ROWS[0], {"pixel_size_um_estimated": "0,25"})])
    assert len(read_metadata(path)) == 1
    with pytest.raises(DataError, match="pixel_size_um_estimated is '0,25' for TENX10; expected a number"):
        sample_row(read_metadata(path), "TENX10", path)
    path.write_text("id,organ\nTENX1,Brain\n")
    with pytest.raises(DataError, match="no column dataset_title, species, patient, st_technology"):
        read_metadata(path)
    path.write_text("")
    with pytest.raises(DataError, match="cannot be read"):
        read_metadata(path)
    read = read_metadata(table(tmp_path, ROWS))
    with pytest.raises(DataError, match=r"has no sample 'TENX11' .TENX10 is the nearest of 5"):
        sample_row(read, "TENX11", path)


def metadata(sample, **values):
    row = ("A study", "TENX1", "Brain", "Homo sapiens", "", "Xenium", {"pixel_size_um_estimated": 5.0} | values)
    return table(sample.folder, [row])


def test_metadata_is_held_against_the_files(sample):
    human = replace(INFO, species="human")
    slide = sample.read(human, metadata=metadata(sample, fullres_px_width=150, fullres_px_height=180))
    assert slide.uns["stmorph"]["um_per_px"] == 5.0
    assert "neighbours lie 100.0 um apart, in an image of 150 x 180 px" in slide.uns["stmorph"]["um_per_px_evidence"]
    fails(
        sample,
        r"TENX1 is Homo sapiens; expected mouse",
        info=replace(human, species="mouse"),
        metadata=metadata(sample),
    )
    declared = replace(human, um_per_px=2.5)
    fails(sample, r"gives TENX1 5\.0000 um per px .* declares 2\.5000", info=declared, metadata=metadata(sample))
    fails(
        sample,
        r"pseudo-spots lie 58\.4 um apart; expected 100 um",
        info=replace(human, spot_pitch_um=100.0),
        metadata=metadata(sample, pixel_size_um_estimated=2.92),
    )
    fails(sample, "has no sample 'OTHER'", info=human, metadata=metadata(sample), options=Options(id="OTHER"))


# --- totals -----------------------------------------------------------------------------------------------------------


def test_totals_tell_what_pooling_lost(sample):
    rng = np.random.default_rng(5)
    bins, place = rng.poisson(0.5, (3000, 4)), rng.integers(0, 30, 3000)
    kept, lossy = np.zeros((30, 4)), np.zeros((30, 4))
    np.add.at(kept, place, bins)
    lossy[place] += bins  # of repeated indices one is kept
    sample.counts = lossy
    repooled = anndata.AnnData(scipy.sparse.csr_matrix(kept), var=sample.var)
    totals = compare_totals(sample.write()["counts"], repooled)
    assert (totals.hest, totals.repooled, totals.genes) == (int(lossy.sum()), int(bins.sum()), 4)
    assert totals.kept < 0.05 and totals.genes_with_less == 4
    assert f"{int(lossy.sum())} of {int(bins.sum())} molecules" in totals.sentence()
    sample.counts = kept[::-1]
    assert compare_totals(sample.write()["counts"], repooled).kept == 1.0
    repooled.var_names = ["a", "b", "c", "d"]
    with pytest.raises(DataError, match="no gene with counts in common"):
        compare_totals(sample.write()["counts"], repooled)


def test_the_reader_is_registered_with_closed_options():
    roles = READERS["hest"].roles
    assert {role for role, needed in roles.items() if needed} == {"counts", "image"} < set(roles)
    with pytest.raises(ValueError, match="extra"):
        READERS["hest"].Options(layer="counts")
