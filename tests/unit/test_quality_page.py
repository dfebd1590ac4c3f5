"""A slide's page and the table of all slides, from the files that the pipeline makes."""

import json
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from study import study, write_config

from stmorph.config.workflow import open_study
from stmorph.errors import DataError
from stmorph.image.source import open_image
from stmorph.image.store import build_store, open_store
from stmorph.image.tiles import TilingOptions, tile_table
from stmorph.quality.measure import measure
from stmorph.quality.page import draw_page
from stmorph.quality.summary import gather_quality, quality_html, quality_markdown
from stmorph.quality.units import units_of
from stmorph.read import SlideInfo, read_slide, write_slide
from stmorph.simulate import SimulationOptions, simulate_slide
from stmorph.slide_file import open_slide


class Made:
    """A simulated slide through the reader and two tilings."""

    def __init__(self, folder):
        options = SimulationOptions(spots=80, um_per_px=2.0, noise_genes=40)
        files = simulate_slide(options, folder, "A", "P1", 0)
        files = {role: files[role] for role in ("counts", "positions", "scalefactors", "image")}
        info = SlideInfo(
            dataset="toy",
            slide="A",
            platform="Visium",
            organ="o",
            species="simulated",
            patient="P1",
            spot_pitch_um=100.0,
        )
        self.data = read_slide("visium", files, info)
        self.slide, self.image = folder / "slide.h5ad", files["image"]
        write_slide(self.data, self.slide)
        self.tilings = {}
        for name, fit, fov_um in (("wide", "slide", 128), ("plain", "none", 64)):
            options = TilingOptions(fov_um=fov_um, size_px=32, min_tissue=0.3, stain={"fit": fit})
            npy, tiles = folder / name / "image.npy", folder / name / "tiles.parquet"
            build_store(open_image(self.image), 2.0, options.um_per_px, options.stain, npy, npy.with_suffix(".json"))
            inside = self.data.obs["in_tissue"].to_numpy(dtype=bool)
            where = self.data.obsm["spatial_um"]
            tile_table("A", self.data.obs_names, where, inside, open_store(npy), options).to_parquet(tiles)
            self.tilings[name] = (tiles, npy.with_suffix(".json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("slide"))


@pytest.fixture(scope="module")
def measured(made):
    return measure(made.slide, made.image, made.tilings)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_files(made, measured):
    record, counts = measured.record, made.data.X.toarray()
    assert json.loads(json.dumps(record)) == record
    assert (record["units"], record["genes"]) == counts.shape and record["unit"] == "spot"
    assert record["counts_total"] == counts.sum() and record["counts_per_unit"]["median"] == np.median(counts.sum(1))
    assert record["genes_per_unit"]["highest"] == (counts > 0).sum(1).max()
    assert record["lost"] == json.loads(made.data.uns["stmorph"]["lost"])
    assert record["um_per_px"] == pytest.approx(2.0, rel=1e-3) == record["um_per_px_measured"]
    assert "by the spots' pitch (100 um" in record["um_per_px_evidence"]
    assert record["registration"]["units"] == record["units"]


def test_every_unit_is_kept_or_lost_for_a_reason(made, measured):
    for name, (tiles, image_json) in made.tilings.items():
        tiling, table = measured.record["tilings"][name], pd.read_parquet(tiles)
        assert tiling["kept"] + sum(tiling["lost"].values()) == measured.record["units"]
        assert tiling["kept"] == table["kept"].sum()
        assert tiling["stain"]["source"] == json.loads(image_json.read_text())["stain"]["source"]
    assert measured.record["tilings"]["wide"]["lost"]["border"] > 0
    assert (measured.lost == "border").sum() == measured.record["tilings"]["wide"]["lost"]["border"]
    assert measured.record["tilings"]["plain"]["stain"]["source"] is None


def test_a_shuffled_tile_list_is_joined_by_barcode(made, measured, tmp_path):
    tiles, image_json = made.tilings["wide"]
    pd.read_parquet(tiles).sample(frac=1, random_state=0).to_parquet(tmp_path / "tiles.parquet")
    again = measure(made.slide, made.image, {"wide": (tmp_path / "tiles.parquet", image_json)})
    assert (again.lost == measured.lost).all()


@pytest.mark.parametrize("small_um", [0, 1000])
def test_numbers_are_the_same_whatever_the_blocks(made, monkeypatch, small_um):
    """Of units as they are, and of units that are pooled for the registration."""
    monkeypatch.setattr("stmorph.quality.units.SMALL_UM", small_um)
    expected = units_of(anndata.read_h5ad(made.slide))
    whole = measure(made.slide, made.image, made.tilings)
    assert expected.pooled == (small_um > 0) == whole.record["registration"]["pooled"]
    monkeypatch.setattr("stmorph.slide_file.BLOCK_ENTRIES", 500)
    found, parts = units_of(open_slide(made.slide)), measure(made.slide, made.image, made.tilings)
    np.testing.assert_array_equal(found.expression, expected.expression)
    np.testing.assert_array_equal(found.spatial_um, expected.spatial_um)
    assert parts.record == whole.record and (parts.genes == whole.genes).all() and (parts.counts == whole.counts).all()


def test_control_probes_are_not_counted(made, measured, tmp_path):
    data = anndata.read_h5ad(made.slide)
    data.var["control"] = np.arange(data.n_vars) < 10
    write_slide(data, tmp_path / "slide.h5ad")
    record = measure(tmp_path / "slide.h5ad", made.image, made.tilings).record
    assert record["controls"] == 10 and record["genes"] == measured.record["genes"] - 10
    assert record["counts_total"] == data.X[:, 10:].sum()


def test_the_tiles_of_another_slide_are_refused(made, tmp_path):
    tiles, image_json = made.tilings["wide"]
    pd.read_parquet(tiles).iloc[1:].to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet lists \d+ units, but .*slide\.h5ad has \d+.*make the tiles"):
        measure(made.slide, made.image, {"wide": (tmp_path / "other.parquet", image_json)})


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(measured, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "a.png"
    draw_page(measured, path)
    return path


def test_a_page_is_a_picture_and_the_same_one_each_time(measured, drawn, tmp_path):
    draw_page(measured, tmp_path / "b.png")
    assert drawn.read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(drawn) as picture:
        assert picture.width > 1500 and len(picture.convert("RGB").getcolors(10**6)) > 1000


def test_lost_units_are_seen(measured, drawn, tmp_path):
    """A page differs where units are lost for another reason."""
    draw_page(replace(measured, lost=np.where(measured.lost == "border", "", measured.lost)), tmp_path / "b.png")
    assert drawn.read_bytes() != (tmp_path / "b.png").read_bytes()


def test_pages_of_flagged_and_of_unsaid_slides_are_drawn(measured, tmp_path):
    found = measured.record["registration"]
    nothing = found | {"verdict": "undecided", "scores": {}, "score": None}
    flagged = found | {"verdict": "mirrored", "best": "mirrored top to bottom about the units' middle"}
    for registration in (nothing, flagged):
        record = measured.record | {"registration": registration}
        draw_page(replace(measured, record=record), tmp_path / "page.png")
        assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_fitted_stains_and_with_equal_counts_is_drawn(measured, tmp_path):
    record = measured.record | {"tilings": {"plain": measured.record["tilings"]["plain"]}}
    flat = replace(measured, record=record, counts=np.full_like(measured.counts, 7), genes=np.ones_like(measured.genes))
    draw_page(flat, tmp_path / "page.png")
    assert (tmp_path / "page.png").exists()


# --- the table --------------------------------------------------------------------------------------------------------


def records(folder, measured, **changes):
    """Write two slides' records: the measured one, and another with some values changed."""
    first, second = measured.record, measured.record | {"slide": "B|<b>", **changes}
    for name, record in (("a", first), ("b", second)):
        (folder / f"{name}.json").write_text(json.dumps(record))
    return [folder / "a.json", folder / "b.json"]


def test_one_row_a_slide(measured, tmp_path):
    unsaid = measured.record["registration"] | {"verdict": "undecided", "score": None, "rival_score": None}
    table = gather_quality(records(tmp_path, measured, registration=unsaid | {"confidence": None}, lost={}))
    assert list(table["slide"]) == ["A", "B|<b>"] and list(table["units"]) == [measured.record["units"]] * 2
    first = table.iloc[0]
    assert first["counts_median"] == np.median(measured.counts) and first["registration"] in ("pass", "undecided")
    assert first["tiles_kept"].startswith(f"wide {measured.record['tilings']['wide']['kept']}; plain ")
    assert f"border: {measured.record['tilings']['wide']['lost']['border']}" in first["tiles_lost"]
    assert np.isnan(table["score"].iloc[1]) and table["lost"].iloc[1] == ""
    text, page = quality_markdown(table), quality_html(table)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "B\\|<b>" in text and "B|&lt;b&gt;" in page and "<b>" not in page
    assert "<tr class=undecided>" in page and "src=" not in page and "href=" not in page


def test_a_broken_record_is_named(measured, tmp_path):
    paths = records(tmp_path, measured)
    paths[1].write_text('{"slide": "B"}')
    with pytest.raises(DataError, match=r"b\.json is no slide's quality record .*make it again"):
        gather_quality(paths)


# --- in the workflow --------------------------------------------------------------------------------------------------


def test_quality_is_a_target_of_every_study(tmp_path):
    write_config(tmp_path)
    workflow = open_study(study(), tmp_path)
    text, files = workflow.targets["quality"]
    pages = [f"results/quality/toy/{slide}.png" for slide in ("s1", "s2", "s3")]
    assert files == [*pages, *(f"results/quality/quality.{kind}" for kind in ("csv", "md", "html"))]
    assert text in workflow.target_list() and "\n" not in text
    assert workflow.tilings_of("toy") == ["spot"]
    assert workflow.quality_tilings("image.json", "toy", "s1") == ["results/slides/toy/s1/spot/image.json"]


def test_a_study_without_runs_has_quality_too(tmp_path):
    write_config(tmp_path)
    tiles = {"first": {"fov_um": 64, "size_px": 32}, "second": {"fov_um": 96, "size_px": 32}}
    workflow = open_study(study(tables={}, figures={}, papers=[], tiles=tiles), tmp_path)
    assert list(workflow.targets) == ["quality"] and workflow.tilings_of("toy") == ["first"]
