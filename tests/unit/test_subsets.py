"""Subsets of data sets, and the study of GeneFlow's own slides that is made of them."""

import pytest
import yaml
from study import DATASET, ROOT, study, write_config

from stmorph.config.check import Problems
from stmorph.config.load import load_study
from stmorph.config.plan import Plan
from stmorph.config.sources import slide_sources
from stmorph.errors import ConfigError

ON_DISK = {key: value for key, value in DATASET.items() if key != "simulate"} | {
    "reader_options": {"a": 1, "b": {"c": 2}}
}


def test_a_subset_has_some_slides_other_options_and_the_same_files(tmp_path):
    subsets = {"one": {"of": "toy", "slides": ["s2"], "reader_options": {"b": {"d": 3}}}, "every": {"of": "toy"}}
    found = load_study(study(subsets=subsets, data_root="data"), write_config(tmp_path, ON_DISK))
    one, every, whole = (found.datasets[name] for name in ("one", "every", "toy"))
    assert list(one.slides) == ["s2"] and list(every.slides) == list(whole.slides)
    assert one.reader_options == {"a": 1, "b": {"c": 2, "d": 3}} and every.reader_options == whole.reader_options
    files = [slide_sources(name, found.datasets[name], "s2", found.config) for name in ("one", "toy")]
    assert files[0] == files[1] and files[0]["counts"].path == "data/toy/s2/counts.h5"
    assert found.config.dataset_file("one") == found.config.dataset_file("toy") == "config/datasets/toy.yaml"


@pytest.mark.parametrize(
    ("subset", "dataset", "says"),
    [
        ({"of": "toi"}, ON_DISK, "config: subsets.one: datasets: dataset 'toi' is unknown; did you mean 'toy'"),
        ({"of": "toy", "slides": ["s9"]}, ON_DISK, "config: subsets.one: slides: slide 's9' is unknown"),
        ({"of": "toy", "slides": ["s1", "s1"]}, ON_DISK, "s1 stands there more than once"),
        ({"of": "toy"}, DATASET, "config: subsets.one: data set 'toy' is drawn"),
    ],
)
def test_a_subset_that_cannot_be(tmp_path, subset, dataset, says):
    with pytest.raises(ConfigError) as caught:
        load_study(study(subsets={"one": subset}), write_config(tmp_path, dataset))
    assert says in str(caught.value)


def test_a_subset_may_not_take_a_data_sets_name(tmp_path):
    with pytest.raises(ConfigError, match=r"subsets.toy: a data set has this name"):
        load_study(study(subsets={"toy": {"of": "toy"}}), write_config(tmp_path, ON_DISK))


def test_every_row_of_geneflows_tables_on_its_own_slides_has_its_runs():
    raw = yaml.safe_load((ROOT / "config" / "geneflow.yaml").read_text("utf-8"))
    found = load_study(raw, ROOT / "config")
    problems = Problems()
    plan = Plan(found, problems)
    problems.stop_if_any()
    folds = {"geneflow_table2_xenium": 3, "geneflow_table4": 1}
    for name, number in folds.items():
        of_row = {}
        for cell in plan.cells[name]:
            of_row.setdefault(cell.row, []).append(cell)
        for row in found.tables[name].rows:
            for group in row.published:
                (cell,) = [one for one in of_row[row.label] if one.group == group]
                assert len(cell.runs) == number, (row.label, group)
                for run in cell.runs:
                    assert (run.options["encoder"] == "multi") == ("multi" in row.label) == ("windows" in run.dataset)
    for subset in raw["subsets"].values():
        if windows := subset.get("reader_options", {}).get("windows"):
            assert windows["fov_um"] - windows["step_um"] == pytest.approx(100 / 256 * windows["fov_um"], abs=0.02)
    assert all(row.run is None for row in found.tables["geneflow_table3"].rows)
