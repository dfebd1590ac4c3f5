import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stmorph.errors import DataError
from stmorph.image.source import check_image
from stmorph.read import READERS, SlideInfo, read_slide, write_slide

pytestmark = pytest.mark.real

# slide: (image, spots, genes, rows without counts, um per px as published with the data)
HER2ST = {
    "C2": ("5714_HE_BT_C2", 187, 15706, 0, 0.6961),
    "C3": ("5714_HE_BT_D1", 180, 15821, 2, 0.6691),
    "C4": ("5714_HE_BT_D2", 184, 15842, 3, 0.6901),
    "C5": ("5714_HE_BT_E1", 181, 15721, 2, 0.6907),
}
MOB = {"MOB1": 379, "MOB2": 407, "MOB3": 438}


def her2st(folder, slide, **given):
    folder = folder / "her2st"
    files = {
        "counts": folder / f"ST-cnts/{slide}.tsv.gz",
        "positions": folder / f"ST-spotfiles/{slide}_selection.tsv",
        "image": folder / f"ST-imgs/C/{slide}/{HER2ST[slide][0]}.jpg",
    }
    info = SlideInfo(
        dataset="her2st",
        slide=slide,
        platform="legacy_st",
        organ="breast",
        species="human",
        patient="C",
        um_per_px=HER2ST[slide][-1],
        spot_diameter_um=100.0,
        spot_pitch_um=200.0,
    )
    return read_slide("legacy_st", files | given, info)


@pytest.mark.parametrize("slide", HER2ST)
def test_her2st(real_data, slide):
    _, n_spots, n_genes, without_counts, um_per_px = HER2ST[slide]
    adata = her2st(real_data, slide)
    assert adata.shape == (n_spots, n_genes)
    record = adata.uns["stmorph"]
    assert json.loads(record["lost"]) == ({"no counts": without_counts} if without_counts else {})
    table = pd.read_csv(real_data / f"her2st/ST-cnts/{slide}.tsv.gz", sep="\t", index_col=0)
    assert (adata.X.toarray() == table.loc[adata.obs_names].to_numpy()).all()
    # The grid was printed 200 um apart; the published scale agrees within 3 %.
    assert record["um_per_px"] == um_per_px
    assert record["um_per_px_measured"] == pytest.approx(0.6868, rel=0.005)
    assert abs(um_per_px / record["um_per_px_measured"] - 1) < 0.03

    size_um = np.array([record["image_width_px"], record["image_height_px"]]) * um_per_px
    assert ((adata.obsm["spatial_um"] >= 0) & (adata.obsm["spatial_um"] < size_um)).all()
    # Published: 97 to 100 % of the spots lie on tissue (darker than 220 of 255).
    overview = check_image(record["image"]).overview().astype(float).mean(axis=2)
    at = (adata.obsm["spatial_um"] / size_um * overview.shape[::-1]).astype(int)
    assert (overview[at[:, 1], at[:, 0]] < 220).mean() > 0.965
    assert record["on_tissue_fraction"] > 0.99


def test_her2st_image_of_another_scale_is_refused(real_data, tmp_path):
    with Image.open(real_data / "her2st/ST-imgs/C/C3/5714_HE_BT_D1.jpg") as image:
        image.draft("RGB", (image.width // 4, image.height // 4))
        image.save(tmp_path / "small.jpg")
    with pytest.raises(DataError, match="full-resolution image"):
        her2st(real_data, "C3", image=tmp_path / "small.jpg")


@pytest.mark.parametrize("slide", HER2ST)
def test_her2st_swapped_positions_are_refused(real_data, tmp_path, slide):
    # The image is almost square, so the swapped positions stay inside: the tissue and the array's sense tell.
    spots = pd.read_csv(real_data / f"her2st/ST-spotfiles/{slide}_selection.tsv", sep="\t")
    spots[["pixel_x", "pixel_y"]] = spots[["pixel_y", "pixel_x"]].to_numpy()
    spots.to_csv(tmp_path / "swapped.tsv", sep="\t", index=False)
    with pytest.raises(DataError, match="the axes look swapped"):
        her2st(real_data, slide, positions=tmp_path / "swapped.tsv")


def test_her2st_truncated_image_is_refused(real_data, tmp_path):
    data = (real_data / "her2st/ST-imgs/C/C2/5714_HE_BT_C2.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: int(0.95 * len(data))])
    with pytest.raises(DataError, match="decoded only in part"):
        her2st(real_data, "C2", image=tmp_path / "cut.jpg")


@pytest.mark.parametrize("slide", MOB)
def test_mouse_olfactory_bulb(real_data, slide, tmp_path):
    folder = real_data / "mob"
    files = {
        "counts": folder / f"{slide}.tsv.gz",
        "positions": folder / f"alignment_table_{slide}.tsv",
        "image": folder / f"{slide}.jpg",
        "gene_names": folder / "mouse_genes.tsv.gz",
    }
    info = SlideInfo(
        dataset="mob",
        slide=slide,
        platform="legacy_st",
        organ="brain",
        species="mouse",
        patient="animal 1" if slide != "MOB3" else "animal 2",
        spot_diameter_um=100.0,
        spot_pitch_um=150.0,
    )
    adata = read_slide("legacy_st", files, info)
    assert adata.shape == (MOB[slide], 1000)
    record = adata.uns["stmorph"]
    spots = pd.read_csv(files["positions"], sep="\t")
    lost = json.loads(record["lost"])
    assert lost["not in tissue"] == (spots["selected"] == 0).sum() and "no counts" not in lost
    table = pd.read_csv(files["counts"], sep="\t", index_col=0)
    assert adata.n_obs + sum(lost.values()) == len(
        set(table.index) | set(spots["x"].astype(str) + "x" + spots["y"].astype(str))
    )
    assert (adata.X.toarray() == table.loc[adata.obs_names].to_numpy()).all()
    assert {"Penk", "Doc2g", "Kctd12"} <= set(adata.var_names) and record["genes_without_symbol"] == 0
    # 43.24 px between spots of a row and 32.34 px between nearest neighbours: 200 and 150 um at one and the same scale.
    assert record["um_per_px"] == pytest.approx(4.638, rel=1e-3)
    by_row = 200 / (2 * np.polyfit(spots["x"], spots["pixel_x"], 1)[0])
    assert record["um_per_px"] == pytest.approx(by_row, rel=0.005)
    assert record["on_tissue_fraction"] > 0.99
    write_slide(adata, tmp_path / "slide.h5ad")


def test_visium_counts_and_positions_as_scanpy_reads_them(real_data):
    import scanpy

    folder = real_data / "visium_crop"
    files = {
        "counts": folder / "filtered_feature_bc_matrix.h5",
        "positions": folder / "spatial/tissue_positions_list.csv",
        "scalefactors": folder / "spatial/scalefactors_json.json",
    }
    info = SlideInfo(
        dataset="crop",
        slide="V1",
        platform="visium",
        organ="brain",
        species="human",
        patient="1",
        spot_diameter_um=55.0,
        spot_pitch_um=100.0,
    )
    adata = READERS["visium"].read(files, info, READERS["visium"].Options())
    reference = scanpy.read_10x_h5(files["counts"])
    assert sum(adata.uns["lost"].values()) + adata.n_obs == reference.n_obs == 100
    kept = reference[adata.obs_names]
    assert (adata.X.toarray() == kept.X.toarray()).all()
    assert adata.X.sum() == reference.X.sum()
    assert list(adata.var["gene_id"]) == list(reference.var["gene_ids"])
    positions = pd.read_csv(files["positions"], header=None, index_col=0).loc[adata.obs_names]
    assert (adata.obsm["spatial_px"] == positions[[5, 4]].to_numpy()).all()
    # The 100 spots are scattered, and yet the array gives Visium's pitch in this scan: 137 px per 100 um.
    assert adata.uns["grid"].pitch_px == pytest.approx(137.5, abs=1.0)


def test_visium_with_an_image(real_data, tmp_path):
    # The folder holds the overview alone; the positions are brought to its scale.
    folder = real_data / "visium_crop"
    factor = json.loads((folder / "spatial/scalefactors_json.json").read_text())["tissue_lowres_scalef"]
    positions = pd.read_csv(folder / "spatial/tissue_positions_list.csv", header=None)
    positions[[4, 5]] = positions[[4, 5]] * factor
    positions.to_csv(tmp_path / "tissue_positions_list.csv", header=False, index=False)
    files = {
        "counts": folder / "filtered_feature_bc_matrix.h5",
        "positions": tmp_path / "tissue_positions_list.csv",
        "image": folder / "spatial/tissue_lowres_image.png",
    }
    info = SlideInfo(
        dataset="crop", slide="V1", platform="visium", organ="brain", species="human", patient="1", spot_pitch_um=100.0
    )
    adata = read_slide("visium", files, info)
    assert adata.uns["stmorph"]["um_per_px"] == pytest.approx(100 / (137.5 * factor), rel=0.01)
    assert adata.uns["stmorph"]["on_tissue_fraction"] > 0.9
    with pytest.raises(DataError, match="full-resolution image"):
        read_slide("visium", files | {"positions": folder / "spatial/tissue_positions_list.csv"}, info)
