import gzip
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stmorph.errors import DataError
from stmorph.read import SlideInfo, read_slide

INFO = SlideInfo(
    dataset="toy",
    slide="C2",
    platform="legacy_st",
    organ="breast",
    species="human",
    patient="C",
    spot_diameter_um=100.0,
    spot_pitch_um=200.0,
)


class Section:
    """5 x 6 spots of a square array, 30 px apart, at pixel (50 + 30 x, 20 + 30 y); one gene stands twice."""

    def __init__(self, folder):
        self.folder = folder
        x, y = (k.ravel() for k in np.meshgrid(np.arange(1, 6), np.arange(1, 7), indexing="ij"))
        self.spots = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.02, "new_y": y - 0.01})
        self.spots["pixel_x"], self.spots["pixel_y"] = 50.0 + 30 * x, 20.0 + 30 * y
        self.spots["selected"] = 1
        self.barcode = [f"{a}x{b}" for a, b in zip(x, y)]
        self.genes = ["ERBB2", "GNAS", "FASN", "GNAS"]
        self.counts = np.random.default_rng(0).poisson(3, (30, 4)).astype(object)
        self.corner = [""]

    def files(self, packed=True, gene_names=None):
        rows = ["\t".join([*self.corner, *self.genes])]
        rows += ["\t".join([barcode, *map(str, row)]) for barcode, row in zip(self.barcode, self.counts)]
        text = ("\n".join(rows) + "\n").encode()
        counts = self.folder / ("C2.tsv.gz" if packed else "C2.tsv")
        counts.write_bytes(gzip.compress(text) if packed else text)
        self.spots.to_csv(self.folder / "C2_selection.tsv", sep="\t", index=False)
        pixels = np.full((240, 400, 3), 240, np.uint8)
        pixels[30:220, 60:220] = np.random.default_rng(0).integers(90, 160, (190, 160, 3))
        Image.fromarray(pixels).save(self.folder / "C2.jpg", quality=95)
        files = {"counts": counts, "positions": self.folder / "C2_selection.tsv", "image": self.folder / "C2.jpg"}
        if gene_names:
            files["gene_names"] = self.folder / "genes.tsv"
            rows = ["gene_id\tgene_type\tgene_name"] + [f"{a}\tX\t{b}" for a, b in gene_names.items()]
            files["gene_names"].write_text("\n".join(rows) + "\n")
        return files

    def read(self, info=INFO, **options):
        return read_slide("legacy_st", self.files(**options), info)


@pytest.fixture
def section(tmp_path):
    return Section(tmp_path)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("corner", [[""], ["spot"], []])
def test_content(section, packed, corner):
    section.corner = corner
    slide = section.read(packed=packed)
    assert list(slide.obs_names) == sorted(section.barcode)
    counts = pd.DataFrame(section.counts.astype(int), index=section.barcode).loc[slide.obs_names].to_numpy()
    assert (slide.X.toarray() == counts).all() and slide.X.dtype == np.int32
    assert list(slide.var_names) == ["ERBB2", "GNAS", "FASN", "GNAS-1"]
    record = slide.uns["stmorph"]
    assert record["duplicate_symbols"] == 1 and record["um_per_px"] == pytest.approx(200 / 30)
    spot = slide["3x5"]
    np.testing.assert_allclose(spot.obsm["spatial_um"], [[140 * 200 / 30, 170 * 200 / 30]])
    assert (spot.obs["array_col"].item(), spot.obs["array_row"].item()) == (3.02, 4.99)
    assert json.loads(record["lost"]) == {}


def test_inner_join_is_counted(section):
    section.counts[section.barcode.index("2x2")] = 0
    section.barcode[section.barcode.index("4x4")] = "9x9"
    section.spots.loc[:5, "selected"] = 0
    slide = section.read()
    lost = json.loads(slide.uns["stmorph"]["lost"])
    assert lost == {"not in tissue": 6, "no counts": 2, "no position": 1}
    assert slide.n_obs + sum(lost.values()) == 31
    assert not {"2x2", "4x4", "9x9"} & set(slide.obs_names)


def test_spot_file_with_the_needed_columns_only(section):
    section.spots = section.spots[["x", "y", "pixel_x", "pixel_y"]]
    slide = section.read()
    assert slide.n_obs == 30 and slide["3x5"].obs["array_col"].item() == 3.0


def test_gene_names(section):
    section.genes = ["ENSG00000000001.4", "ENSG00000000002.1", "ENSG00000000003", "ENSG00000000004.2"]
    slide = section.read(gene_names={"ENSG00000000001.4": "A", "ENSG00000000002.9": "B", "ENSG00000000003.5": "A"})
    assert list(slide.var_names) == ["A", "B", "A-1", "ENSG00000000004.2"]
    assert list(slide.var["gene_id"]) == section.genes
    assert slide.uns["stmorph"]["genes_without_symbol"] == 1 and slide.uns["stmorph"]["duplicate_symbols"] == 1


def fails(section, match, **options):
    with pytest.raises(DataError, match=match) as caught:
        section.read(**options)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", ["", "NaN", -2, 1.5, "many"])
def test_values_that_are_no_counts(section, value):
    section.counts[7, 2] = value
    sentence = fails(section, "raw counts")
    assert "gene FASN of 2x2" in sentence and section.barcode[7] == "2x2" and "C2.tsv.gz" in sentence


def test_duplicate_spots(section):
    section.spots.loc[29, ["x", "y"]] = [1, 1]
    fails(section, "C2_selection.tsv names 1 barcodes more than once, first '1x1'")
    section.barcode[4] = "1x1"
    fails(section, "C2.tsv.gz names 1 barcodes more than once, first '1x1'")


def test_nothing_in_common(section):
    section.barcode = [f"{b}_1" for b in section.barcode]
    assert "'1x1'" in fails(section, "no barcode in common") and "'1x1_1'" in fails(section, "no barcode in common")


def test_damaged(section):
    files = section.files()
    whole = files["counts"].read_bytes()
    for damage in (whole[: len(whole) // 2], b"<html>\n"):
        files["counts"].write_bytes(damage)
        with pytest.raises(DataError, match=r"C2\.tsv\.gz (cannot be read|is a web page).* download it again"):
            read_slide("legacy_st", files, INFO)
    files = section.files(packed=False)
    files["counts"].write_text("\ta\tb\n1x1\t1\t2\t3\t4\n")
    with pytest.raises(DataError, match="3 names in the header, 4 values"):
        read_slide("legacy_st", files, INFO)
    files = section.files()
    files["positions"].write_text("x\ty\n1\t2\n")
    with pytest.raises(DataError, match="no column pixel_x, pixel_y"):
        read_slide("legacy_st", files, INFO)


def test_swapped_pixels(section):
    x, y = section.spots["pixel_x"].to_numpy() * 1.8, section.spots["pixel_y"].to_numpy()
    section.spots["pixel_x"], section.spots["pixel_y"] = x, y
    assert section.read().n_obs == 30
    section.spots["pixel_x"], section.spots["pixel_y"] = y, x
    fails(section, "the axes look swapped")


def test_empty(section):
    section.counts[:] = 0
    fails(section, "holds no counts")


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("gzip_named", [True, False])
def test_tables_of_other_programs(section, separator, gzip_named):
    reference, files = section.read(), section.files()
    # Packed without saying so, or saying so and not packed; each field in quotes; Windows' line ends.
    rows = gzip.decompress(files["counts"].read_bytes()).decode().splitlines()
    text = "\r\n".join(separator.join(f'"{field}"' for field in row.split("\t")) for row in rows).encode()
    counts = section.folder / ("c.csv.gz" if gzip_named else "c.csv")
    counts.write_bytes(text if gzip_named else gzip.compress(text))
    spots = section.folder / "s.csv"
    section.spots.astype({"selected": bool}).to_csv(spots, sep=separator, encoding="utf-8-sig", lineterminator="\r\n")
    slide = read_slide("legacy_st", files | {"counts": counts, "positions": spots}, INFO)
    assert (slide.X != reference.X).nnz == 0 and slide.obs.equals(reference.obs)
    assert (slide.obsm["spatial_um"] == reference.obsm["spatial_um"]).all()


def test_places_beyond_any_array(section):
    section.spots["x"] = section.spots["x"].astype(float).replace(1.0, 1e30)
    with pytest.raises(DataError, match=r"C2_selection.tsv: x of 1e\+30x1 is 1e\+30; expected a whole number"):
        section.read()
