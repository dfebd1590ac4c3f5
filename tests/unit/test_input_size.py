"""What jobs ask for by the size of their input."""

import pytest

from stmorph.config.input_size import HELD_MB, files_mb, panel_mb, quality_mb, slide_mb, units_mb


@pytest.fixture
def file(tmp_path):
    def make(name: str, mb: float) -> str:
        with (tmp_path / name).open("wb") as opened:
            opened.truncate(round(mb * 1e6))
        return str(tmp_path / name)

    return make


def test_a_full_visium_hd_slide_has_enough_and_a_small_one_asks_for_little(file):
    """Measured on a slide of 3,350 x 3,350 bins: 6.2 GB for reading, 1.5 for panel and units, 3.4 for the page."""
    full = {"counts": file("c.h5", 409), "positions": file("p.parquet", 65), "image": file("i.btf", 12_000)}
    assert 7000 < slide_mb(full) < 12_000
    slide = file("full.h5ad", 1330)
    assert quality_mb(slide) > 3800 and panel_mb("hmhvg", [slide] * 3) == panel_mb("hvg", [slide]) == 3000
    small = {"counts": file("s.h5", 12), "positions": file("s.csv", 0.2), "image": file("s.tif", 300)}
    assert slide_mb(small) < 4200 and quality_mb(file("small.h5ad", 9)) < 3100


def test_a_panel_that_holds_its_counts_asks_for_them_up_to_its_own_limit(file):
    slides = [file(f"{i}.h5ad", 20) for i in range(2)]
    assert panel_mb("deg", slides) == 3000 + 35 * 40
    assert panel_mb("deg", [*slides, file("full.h5ad", 1330)]) == 3000 + HELD_MB


def test_units_take_what_their_files_hold(file):
    inputs = {"slides": [file("a", 10), file("b", 5)], "embeddings": [file("e", 100)], "tiles": [file("t", 999)]}
    assert units_mb(inputs) == 15 + 300
    assert units_mb(inputs | {"samples": [file("s", 50)]}) == 515


def test_files_that_are_not_made_yet_count_nothing(tmp_path):
    assert files_mb([str(tmp_path / "later.h5ad"), str(tmp_path)]) == 0
    assert units_mb({"slides": [str(tmp_path / "later.h5ad")]}) == 0


def test_a_folder_counts_what_lies_in_it_but_its_pictures(tmp_path, file):
    for folder in ("store/tables/table/X", "store/images/he"):
        (tmp_path / folder).mkdir(parents=True)
    file("store/zarr.json", 1)
    file("store/tables/table/X/0", 20)
    file("store/images/he/0", 500)
    assert files_mb([str(tmp_path / "store")]) == 21
