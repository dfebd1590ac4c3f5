import gzip
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from feature_matrix import write_feature_matrix
from PIL import Image

from stmorph.errors import ConfigError, DataError
from stmorph.read import READERS, SlideInfo, read_slide, write_slide

PITCH_PX = 20.0
WIDTH, HEIGHT = 460, 300
INFO = SlideInfo(
    dataset="toy",
    slide="A",
    platform="visium",
    organ="brain",
    species="human",
    patient="P1",
    spot_diameter_um=55.0,
    spot_pitch_um=100.0,
    licence="CC0",
    attribution="nobody",
)


class Outs:
    """A minimal Space Ranger run: 12 x 10 spots, those of the first two rows off tissue, 8 features."""

    def __init__(self, folder):
        self.folder = folder
        row, column = np.divmod(np.arange(120), 10)
        self.positions = pd.DataFrame(
            {
                "barcode": [f"{''.join('ACGT'[(i // 4**k) % 4] for k in range(4))}-1" for i in range(120)],
                "in_tissue": (row > 1).astype(int),
                "array_row": row,
                "array_col": 2 * column + row % 2,
                "pxl_row_in_fullres": 30 + row * PITCH_PX * np.sqrt(3) / 2,
                "pxl_col_in_fullres": 200 + (2 * column + row % 2) * PITCH_PX / 2,
            }
        )
        rng = np.random.default_rng(3)
        self.barcode = (
            self.positions["barcode"][self.positions["in_tissue"] == 1].sample(frac=1, random_state=0).to_numpy()
        )
        self.counts = rng.poisson(1.5, (100, 8)).astype(float)
        self.symbol = ["TP53", "ACTB", "DUP", "NegControlProbe_1", "DUP", "", "HT-CD3", "KRT5"]
        self.gene_id = [f"ENSG{i:011d}" for i in range(8)]
        self.feature_type = ["Gene Expression"] * 6 + ["Antibody Capture", "Gene Expression"]
        self.genome = ["GRCh38"] * 8
        self.scale = {"tissue_hires_scalef": 0.2, "spot_diameter_fullres": 13.0}

    def write_image(self, name="image.png"):
        pixels = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
        pixels[20:240, 180:430] = np.random.default_rng(0).integers(90, 160, (220, 250, 3))
        Image.fromarray(pixels).save(self.folder / name)
        return self.folder / name

    def write_positions(self, kind="csv"):
        if kind == "parquet":
            path = self.folder / "tissue_positions.parquet"
            self.positions.to_parquet(path)
        elif kind == "csv":
            path = self.folder / "tissue_positions.csv"
            self.positions.to_csv(path, index=False)
        else:
            path = self.folder / "tissue_positions_list.csv"
            self.positions.to_csv(path, index=False, header=False)
        return path

    def write_h5(self, bare=False):
        columns = {"id": self.gene_id, "name": self.symbol, "feature_type": self.feature_type}
        about = {}
        if not bare:
            columns |= {"genome": self.genome, "_all_tag_keys": ["genome"]}
            about = {"software_version": "spaceranger-3.0.0"}
        path = self.folder / "filtered_feature_bc_matrix.h5"
        return write_feature_matrix(path, self.counts, self.barcode, columns, **about)

    def write_mtx(self, packed=True, folder="filtered_feature_bc_matrix", prefix=""):
        folder = self.folder / folder
        folder.mkdir()
        texts = {
            "barcodes.tsv": "\n".join(self.barcode) + "\n",
            "features.tsv": "".join(
                f"{a}\t{b}\t{c}\n" for a, b, c in zip(self.gene_id, self.symbol, self.feature_type)
            ),
        }
        scipy.io.mmwrite(folder / f"{prefix}matrix.mtx", scipy.sparse.coo_matrix(self.counts.T))
        texts["matrix.mtx"] = (folder / f"{prefix}matrix.mtx").read_text()
        (folder / f"{prefix}matrix.mtx").unlink()
        for name, text in texts.items():
            if packed:
                (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(text.encode()))
            else:
                (folder / f"{prefix}{name}").write_text(text)
        return folder / f"{prefix}matrix.mtx{'.gz' if packed else ''}"

    def files(self, **given):
        (self.folder / "scalefactors_json.json").write_text(json.dumps(self.scale))
        made = {
            "counts": given.get("counts") or self.write_h5(),
            "positions": given.get("positions") or self.write_positions(),
            "image": given.get("image") or self.write_image(),
            "scalefactors": self.folder / "scalefactors_json.json",
        }
        return made

    def read(self, info=INFO, **given):
        return read_slide("visium", self.files(**given), info)


@pytest.fixture
def outs(tmp_path):
    return Outs(tmp_path)


def same(a, b):
    assert (a.X != b.X).nnz == 0 and a.X.dtype == b.X.dtype
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    assert (a.obsm["spatial_um"] == b.obsm["spatial_um"]).all()
    assert a.uns == b.uns


def test_content(outs):
    slide = outs.read()
    assert slide.X.dtype == np.int32 and slide.X.format == "csr"
    assert list(slide.obs_names) == sorted(outs.barcode)
    counts = pd.DataFrame(outs.counts, index=outs.barcode).loc[slide.obs_names].to_numpy()
    assert (slide.X.toarray() == counts).all()
    at = outs.positions.set_index("barcode").loc[slide.obs_names]
    assert (slide.obs["array_row"] == at["array_row"]).all() and (slide.obs["array_col"] == at["array_col"]).all()
    assert slide.obs["in_tissue"].dtype == bool and slide.obs["in_tissue"].all()
    # 100 um is 20 px, so a pixel is 5 um; x is the column.
    expected = at[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy() * 5.0
    np.testing.assert_allclose(slide.obsm["spatial_um"], expected, rtol=1e-9)
    assert list(slide.var_names) == [
        "TP53",
        "ACTB",
        "DUP",
        "NegControlProbe_1",
        "DUP-1",
        "ENSG00000000005",
        "HT-CD3",
        "KRT5",
    ]
    assert list(slide.var["gene_id"]) == outs.gene_id
    assert list(slide.var_names[slide.var["control"]]) == ["NegControlProbe_1", "HT-CD3"]
    record = slide.uns["stmorph"]
    assert record["um_per_px"] == pytest.approx(5.0) and "100 um = 20.00 px" in record["um_per_px_evidence"]
    assert (record["image_width_px"], record["image_height_px"]) == (WIDTH, HEIGHT)
    assert (record["dataset"], record["slide"], record["patient"], record["species"]) == ("toy", "A", "P1", "human")
    assert (record["spot_diameter_um"], record["spot_pitch_um"], record["licence"]) == (55.0, 100.0, "CC0")
    assert (record["duplicate_symbols"], record["genes_without_symbol"]) == (1, 1)
    assert json.loads(record["lost"]) == {"not in tissue": 20}
    assert record["on_tissue_fraction"] == 1.0


@pytest.mark.parametrize("positions", ["list", "csv", "parquet"])
@pytest.mark.parametrize("counts", ["h5", "bare h5", "mtx.gz", "mtx", "folder", "prefixed"])
def test_every_layout_gives_the_same_slide(outs, positions, counts):
    reference = outs.read()
    path = {
        "h5": lambda: outs.write_h5(),
        "bare h5": lambda: outs.write_h5(bare=True),
        "mtx.gz": lambda: outs.write_mtx(),
        "mtx": lambda: outs.write_mtx(packed=False),
        "folder": lambda: outs.write_mtx().parent,
        "prefixed": lambda: outs.write_mtx(prefix="GSM1_A_"),
    }[counts]()
    same(outs.read(counts=path, positions=outs.write_positions(positions)), reference)


def test_old_genes_table_without_feature_types(outs):
    outs.feature_type = ["Gene Expression"] * 8
    reference = outs.read()
    path = outs.write_mtx(packed=False)
    (path.parent / "features.tsv").unlink()
    (path.parent / "genes.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(outs.gene_id, outs.symbol)))
    same(outs.read(counts=path), reference)


def test_every_barcode_is_kept_or_counted(outs):
    outs.counts[:3] = 0
    outs.counts[:3, 3] = 5  # a control probe's counts are no gene's
    outs.barcode[5] = "GGGGGG-1"
    slide = outs.read()
    lost = json.loads(slide.uns["stmorph"]["lost"])
    assert lost == {"not in tissue": 20, "no counts": 4, "no position": 1}
    assert slide.n_obs + sum(lost.values()) == len(set(outs.barcode) | set(outs.positions["barcode"]))


def test_margin_outside_the_image_is_lost_not_fatal(outs):
    # Turned a little, so that of the last column only the spot in the last row leaves the image.
    outs.positions["pxl_col_in_fullres"] += 70.05 + 0.1 * (outs.positions["array_row"] - 11)
    slide = outs.read()
    assert json.loads(slide.uns["stmorph"]["lost"]) == {"not in tissue": 20, "outside image": 1}
    assert slide.n_obs == 99 and (slide.obsm["spatial_um"][:, 0] < WIDTH * 5.01).all()


def test_suffix_of_a_duplicate_does_not_take_another_genes_name(outs):
    outs.symbol = ["DUP", "DUP-1", "DUP", "DUP", "A", "B", "C", "D"]
    assert list(outs.read().var_names[:4]) == ["DUP", "DUP-1", "DUP-2", "DUP-3"]


def test_declared_scale_wins_and_both_are_recorded(outs):
    slide = outs.read(replace(INFO, um_per_px=5.3))
    record = slide.uns["stmorph"]
    assert record["um_per_px"] == 5.3 and record["um_per_px_measured"] == pytest.approx(5.0)
    assert slide.obsm["spatial_um"][0, 0] == pytest.approx(
        5.3 * outs.positions.set_index("barcode").loc[slide.obs_names[0], "pxl_col_in_fullres"]
    )
    with pytest.raises(DataError, match=r"declared as 6\.0000, but is 5\.0000 .* correct um_per_px"):
        outs.read(replace(INFO, um_per_px=6.0))
    with pytest.raises(DataError, match="declare um_per_px"):
        outs.read(replace(INFO, spot_pitch_um=None))


def test_write_is_whole_and_deterministic(outs, tmp_path):
    import anndata

    slide = outs.read()
    write_slide(slide, tmp_path / "a" / "slide.h5ad")
    write_slide(outs.read(), tmp_path / "b.h5ad")
    assert (tmp_path / "a" / "slide.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "slide.h5ad"]
    back = anndata.read_h5ad(tmp_path / "b.h5ad")
    assert (back.X != slide.X).nnz == 0 and back.X.dtype == np.int32
    assert back.uns["stmorph"]["um_per_px"] == slide.uns["stmorph"]["um_per_px"]
    assert json.loads(back.uns["stmorph"]["lost"]) == {"not in tissue": 20}
    assert back.var["control"].dtype == bool
    (tmp_path / "file").write_text("")
    with pytest.raises((DataError, OSError)):
        write_slide(slide, tmp_path / "file" / "slide.h5ad")


def fails(outs, match, **given):
    with pytest.raises(DataError, match=match) as caught:
        outs.read(**given)
    sentence = str(caught.value)
    assert "\n" not in sentence and "expected" in sentence
    return sentence


@pytest.mark.parametrize("value", [np.nan, -1, 0.5, np.inf])
@pytest.mark.parametrize("layout", ["write_h5", "write_mtx"])
def test_values_that_are_no_counts(outs, value, layout):
    outs.counts[7, 4] = value
    sentence = fails(outs, "raw counts", counts=getattr(outs, layout)())
    assert outs.barcode[7] in sentence and "DUP" in sentence and str(float(value)) in sentence


def test_duplicates(outs):
    outs.barcode[3] = outs.barcode[8]
    assert outs.barcode[8] in fails(outs, "more than once")
    outs.barcode[3] = "GGGGGG-1"
    outs.positions.loc[50, "barcode"] = outs.positions.loc[60, "barcode"]
    assert outs.positions.loc[60, "barcode"] in fails(outs, "tissue_positions.csv names 1 barcodes more than once")
    outs.gene_id[1] = outs.gene_id[0]
    fails(outs, "gene ids more than once")


def test_different_barcodes(outs):
    outs.barcode = np.array([b.removesuffix("-1") for b in outs.barcode])
    sentence = fails(outs, "no barcode in common .* without what follows a hyphen 100 would agree: rename one side")
    assert outs.barcode[0] in sentence and outs.positions["barcode"][0] in sentence


def test_nothing_left(outs):
    outs.positions["in_tissue"] = 0
    fails(outs, "leave no unit")


def test_empty_matrix(outs):
    outs.counts[:] = 0
    fails(outs, "holds no counts")
    outs.counts, outs.barcode = np.zeros((0, 8)), np.array([], dtype="S4")
    fails(outs, "holds no counts")


def test_two_species(outs):
    outs.genome = ["GRCh38"] * 4 + ["mm10"] * 4
    fails(outs, "GRCh38 and mm10")
    outs.genome = ["custom"] * 8
    outs.gene_id[7] = "ENSMUSG00000000001"
    fails(outs, "several species")
    outs.gene_id = [f"ENSMUSG{i:011d}" for i in range(8)]
    fails(outs, "mouse genes .* expected human")


def test_coordinates_outside_and_swapped(outs):
    given = outs.positions.copy()
    axes = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    outs.positions[axes] = given[axes[::-1]].to_numpy()
    sentence = fails(outs, "the axes look swapped")
    assert f"width of {WIDTH} px" in sentence and f"height of {HEIGHT} px" in sentence
    outs.positions[axes] = given[axes].to_numpy() * 3
    fails(outs, "full-resolution image")
    outs.positions[axes] = given[axes].to_numpy() - 225
    fails(outs, "lie outside")


def test_swapped_axes_inside_a_square_image_miss_the_tissue(outs):
    pixels = np.asarray(Image.open(outs.write_image()))
    Image.fromarray(np.vstack([pixels, np.full((WIDTH - HEIGHT, WIDTH, 3), 240, np.uint8)])).save(
        outs.folder / "square.png"
    )
    assert outs.read(image=outs.folder / "square.png").uns["stmorph"]["on_tissue_fraction"] == 1.0
    axes = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    outs.positions[axes] = outs.positions[axes[::-1]].to_numpy()
    fails(outs, "the axes look swapped", image=outs.folder / "square.png")


def test_mirrored_image_is_not_taken_for_swapped_axes(outs):
    reference = outs.read()
    Image.open(outs.write_image()).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(outs.folder / "mirrored.png")
    outs.positions["pxl_col_in_fullres"] = WIDTH - outs.positions["pxl_col_in_fullres"]
    slide = outs.read(image=outs.folder / "mirrored.png")
    np.testing.assert_allclose(slide.obsm["spatial_um"][:, 0], WIDTH * 5.0 - reference.obsm["spatial_um"][:, 0])


@pytest.mark.parametrize("value", [0, float("nan"), -1, "0.2", None])
def test_scale_factors(outs, value):
    outs.scale["tissue_hires_scalef"] = value
    fails(outs, "tissue_hires_scalef is .* expected a number above 0")


@pytest.mark.parametrize("column", ["array_row", "pxl_col_in_fullres"])
def test_positions_without_a_number(outs, column):
    outs.positions[column] = outs.positions[column].astype(object)
    outs.positions.loc[4, column] = "here"
    assert outs.positions["barcode"][4] in fails(outs, f"{column} of .* is 'here'")


def test_positions_of_another_kind(outs):
    outs.positions.loc[4, "in_tissue"] = 2
    fails(outs, "in_tissue holds 2")
    outs.positions = outs.positions.drop(columns="array_row")
    fails(outs, "no column array_row")


@pytest.mark.parametrize("role", ["h5", "mtx", "barcodes", "parquet", "scalefactors", "image"])
@pytest.mark.parametrize("damage", ["truncated", "other kind", "empty"])
def test_damaged_files(outs, role, damage):
    mtx = outs.write_mtx()
    given = {"counts": mtx if role in ("mtx", "barcodes") else outs.write_h5(), "image": outs.write_image()}
    if role == "parquet":
        given["positions"] = outs.write_positions("parquet")
    files = outs.files(**given)
    path = {
        "mtx": mtx,
        "barcodes": mtx.with_name("barcodes.tsv.gz"),
        "h5": files["counts"],
        "parquet": files["positions"],
    }.get(role) or files[role]
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "other kind": b"<html>404</html>\n", "empty": b""}[damage])
    with pytest.raises(DataError, match="download it again") as caught:
        read_slide("visium", files, INFO)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_files_beside_the_matrix(outs):
    mtx = outs.write_mtx()
    mtx.with_name("features.tsv.gz").rename(outs.folder / "elsewhere.tsv.gz")
    fails(outs, "holds none of features.tsv.gz", counts=mtx)
    files = outs.files(counts=mtx) | {"features": outs.folder / "elsewhere.tsv.gz"}
    assert read_slide("visium", files, INFO).n_obs == 100
    outs.barcode = outs.barcode[:-1]
    mtx.with_name("barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(outs.barcode).encode()))
    with pytest.raises(DataError, match="100 x 8 values for 99 barcodes"):
        read_slide("visium", files, INFO)


def test_roles_and_missing_files(outs):
    files = outs.files()
    with pytest.raises(ConfigError, match="lacks positions"):
        read_slide("visium", {k: v for k, v in files.items() if k != "positions"}, INFO)
    with pytest.raises(ConfigError, match=r"unknown roles \(fiducials\)"):
        read_slide("visium", files | {"fiducials": files["counts"]}, INFO)
    with pytest.raises(ConfigError, match=r"reader is .xenon.; expected one of .*visium"):
        read_slide("xenon", files, INFO)
    for role in files:
        with pytest.raises(DataError, match="does not exist"):
            read_slide("visium", files | {role: outs.folder / "nowhere"}, INFO)
    assert all(reader.roles["image"] for reader in READERS.values())


def test_info_is_checked():
    with pytest.raises(ConfigError, match="species is 'rat'"):
        replace(INFO, species="rat")
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="um_per_px is"):
            replace(INFO, um_per_px=value)
