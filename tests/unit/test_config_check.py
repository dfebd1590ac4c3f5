"""Everything that is wrong with a configuration is told at once: path, value found, nearest allowed one."""

import copy
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from study import DATASET, ROOT, study, write_config

from stmorph.config.dataset_schema import DatasetConfig
from stmorph.config.load import load_study
from stmorph.config.schema import PanelConfig, SplitConfig, StudyConfig
from stmorph.config.workflow import open_study
from stmorph.errors import ConfigError


@pytest.fixture
def problems_of(tmp_path, monkeypatch):
    """Return the lines that a study is left with that needs all of its inputs; none where it is sound."""
    monkeypatch.chdir(tmp_path)

    def find(dataset=DATASET, **changes):
        config = tmp_path / "config"
        if not config.exists():
            write_config(tmp_path, dataset)
        try:
            opened = open_study(study(**changes), tmp_path)
            opened.at_hand(list(opened.missing))
        except SystemExit as left:
            head, *lines = str(left.code).splitlines()
            assert head == f"stmorph: the configuration has {len(lines)} problem{'s' * (len(lines) > 1)}:"
            return [line.removeprefix("  - ") for line in lines]
        return []

    return find


def test_the_toy_is_sound(problems_of):
    assert problems_of() == []


def changed(path, value):
    """Return the toy study's top-level key of `path` with the value at the path replaced."""
    top, *inner = path.split(".")
    whole = study()
    place = whole
    for key in (top, *inner)[:-1]:
        place = place.setdefault(key, {})
    place[(top, *inner)[-1]] = value
    return {top: whole[top]}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("seedz", [1], "config: seedz: unknown key (value [1]); did you mean 'seeds'?"),
        ("scores.bootstrp", 5, "config: scores.bootstrp: unknown key (value 5); did you mean 'bootstrap'?"),
        (
            "splits.new_patient.tests",
            ["P2"],
            "config: splits.new_patient.tests: unknown key (value ['P2']); did you mean 'test'?",
        ),
        ("panels.few.gens", 3, "config: panels.few.gens: unknown key (value 3); did you mean 'genes'?"),
        (
            "encoders.morphometric.opts",
            {},
            "config: encoders.morphometric.opts: unknown key (value {}); did you mean 'options'?",
        ),
        ("scale", "smok", "config: scale: found 'smok'; did you mean 'smoke'? allowed: full, small, smoke"),
        ("panels.few.kind", "hmvhg", "config: panels.few.kind: found 'hmvhg'; did you mean 'hmhvg'?"),
        ("splits.new_patient.kind", "patient", "found 'patient'; did you mean 'patients'?"),
        ("encoders.morphometric.views", 4, "found 4; allowed: 1, 8"),
        ("name", None, "config: name: input should be a valid string; found None"),
        ("seeds", [1, 1], "config: seeds: 1 stands there more than once; found [1, 1]"),
        ("seeds", [-1], "config: seeds.0: input should be greater than or equal to 0; found -1"),
        ("tiles", {}, "config: tiles: dictionary should have at least 1 item"),
        ("datasets", ["toi"], "config: datasets: dataset 'toi' is unknown; did you mean 'toy'? allowed: toy"),
        ("papers", ["papre"], "config: papers: paper 'papre' is unknown; did you mean 'paper'?"),
        ("methods", {"stme": {}}, "config: methods: method 'stme' is unknown; did you mean 'stem'?"),
        ("methods.stem.trainig", {}, "config: methods.stem: trainig: unknown key (value {}); did you mean 'training'?"),
        (
            "methods.stem.options.bloks",
            2,
            "methods.stem: options: bloks: unknown key (value 2); did you mean 'blocks'?",
        ),
        ("methods.stem.training.step", 2, "methods.stem: training: step: unknown key (value 2); did you mean 'steps'?"),
        (
            "methods.stem.training.steps",
            0,
            "methods.stem: training: steps: input should be greater than or equal to 1; found 0",
        ),
        (
            "methods.stem",
            {"training": {"devices": 4, "batch_size": 64}, "resources": {"gpu": 2}},
            "methods.stem: training: devices: found 4, but its resources ask for 2 GPUs; give both",
        ),
        (
            "methods.stem",
            {"training": {"accelerator": "cuda"}, "resources": {"gpu": 0}},
            "methods.stem: training: devices: found 1, but its resources ask for 0 GPUs; give both",
        ),
        (
            "splits.new_patient.dataset",
            "toi",
            "splits.new_patient: dataset: dataset 'toi' is unknown; did you mean 'toy'?",
        ),
        (
            "splits.new_patient.test",
            ["P22"],
            "splits.new_patient: test: patient 'P22' is unknown; did you mean 'P2'? allowed: P1, P2",
        ),
        ("splits.new_patient.train", ["P2"], "splits.new_patient: train: P2 would be trained on and tested"),
        ("splits.new_patient.test", ["P1", "P2"], "splits.new_patient: test: all patients are tested, none is left"),
        ("splits.cv.k", 4, "splits.cv: k: 4 folds of 3 slides"),
        (
            "tables.paper_table.run.split",
            "new_patent",
            "split: split 'new_patent' is unknown; did you mean 'new_patient'?",
        ),
        ("tables.paper_table.run.dataset", "toi", "dataset: dataset 'toi' is unknown; did you mean 'toy'?"),
        (
            "tables.paper_table.run.panl",
            "few",
            "config: tables.paper_table: run.panl: unknown key (value 'few'); did you mean 'panel'?",
        ),
        ("tables.paper_table.run.encoder", "uni", "encoder: encoder 'uni' is unknown; allowed: morphometric"),
        ("tables.paper_table.run.tiles", "spt", "tiles: tiling 'spt' is unknown; did you mean 'spot'?"),
        ("tables.paper_tabel", {}, "config: tables.paper_tabel: groups: this key is required and missing"),
        (
            "tables.paper_table.groups",
            [{"label": "few"}, {"label": "many"}],
            "panel: no panel is named; allowed: few, many",
        ),
        (
            "encoders.morphometric.model",
            "morphometrik",
            "encoders.morphometric: model: encoder 'morphometrik' is unknown; did you mean 'morphometric'?",
        ),
        (
            "encoders.morphometric.options",
            {"no_such": 1},
            "encoders.morphometric: options: no_such: unknown key (value 1)",
        ),
        ("scores.image_encoder", "morph", "scores: image_encoder: encoder 'morph' is unknown"),
        (
            "figures.losses.kind",
            "loss_curve",
            "figures.losses: kind: figure kind 'loss_curve' is unknown; did you mean 'loss_curves'?",
        ),
        (
            "figures.losses.table",
            "papr_table",
            "figures.losses: table: table 'papr_table' is unknown; did you mean 'paper_table'?",
        ),
        ("figures.losses.options", {"no_such": 1}, "figures.losses: options: no_such: unknown key (value 1)"),
        (
            "figures.paper_table",
            {"kind": "loss_curves", "table": "paper_table", "description": "x"},
            "paper_table: names two targets",
        ),
        ("tiles.spot.fov", 3, "tiles.spot: fov: unknown key (value 3); did you mean 'fov_um'?"),
        ("tiles.spot.stain", {"fit": "slid"}, "tiles.spot: stain.fit: found 'slid'; did you mean 'slide'?"),
    ],
)
def test_one_mistake(problems_of, path, value, expected):
    found = problems_of(**changed(path, value))
    assert any(expected in line for line in found), "\n".join(found)


@pytest.mark.parametrize(
    ("training", "gpu"),
    [({"devices": 2}, 2), ({"devices": 2}, 0), ({"devices": 2, "accelerator": "cpu"}, 1), ({"accelerator": "cuda"}, 4)],
)
def test_devices_that_a_job_has(problems_of, training, gpu):
    method = {"training": {**training, "batch_size": 64}, "resources": {"gpu": gpu}}
    assert problems_of(methods={"stem": method}) == []


def test_all_at_once(problems_of):
    """Unknown key, unknown names and a wrong literal together; each stands there once."""
    found = problems_of(
        scale="smok",
        seedz=1,
        datasets=["toy", "toi"],
        papers=["paper", "papre"],
        methods={"stem": {"trainig": {}}, "x": {}},
    )
    for expected in ("scale: found 'smok'", "seedz: unknown key", "'toi'", "'papre'", "trainig", "method 'x'"):
        assert sum(expected in line for line in found) == 1, "\n".join(found)
    assert len(found) == 6


def test_all_at_once_in_what_is_named(problems_of):
    changes = {
        **changed("tables.paper_table.run.split", "new"),
        **changed("methods.stem.options.bloks", 2),
        **changed("figures.losses.kind", "loss"),
        **changed("tiles.spot.fov", 3),
        **changed("panels.few.kind", "list"),
        **changed("splits.new_patient.test", ["P3"]),
    }
    del changes["panels"]
    found = problems_of(**changes)
    for expected in ("split 'new'", "figure kind 'loss'", "tiles.spot: fov", "patient 'P3'"):
        assert any(expected in line for line in found), "\n".join(found)
    assert len(found) == len(set(found))


def test_files_that_are_not_there_are_listed_with_the_homepage(problems_of, tmp_path):
    dataset = {**copy.deepcopy(DATASET), "simulate": None}
    for role in ("positions", "scalefactors"):
        (tmp_path / "data/toy/s1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/toy/s1" / Path(dataset["files"][role]).name).write_text("")
    found = problems_of(dataset, data_root="data")
    assert len(found) == 2 + 4 + 4 + 1  # two of s1's, all of s2's and s3's, the gene sets
    assert all(line.startswith("config/datasets/toy.yaml: ") for line in found)
    assert all("is not there" in line and "(published at https://example.org/toy)" in line for line in found)
    assert found[0].startswith(
        "config/datasets/toy.yaml: slides.s1.files.counts: data/toy/s1/counts.h5 is not there; data/toy/s1 holds "
        "positions.csv, scalefactors.json: put it there"
    )
    assert any("s2.files.image: data/toy/s2/image.tif is not there; data/toy holds s1/:" in line for line in found)
    assert any("gene_sets.programmes" in line for line in found)


def test_a_whole_folder_that_is_not_there_is_told_once(problems_of, tmp_path):
    dataset = {**copy.deepcopy(DATASET), "simulate": None}
    (line,) = problems_of(dataset)
    assert line.startswith("config/datasets/toy.yaml: no file has a url to fetch it from; set data_root to the folder")
    (line,) = problems_of(dataset, data_root="dta")
    assert line.startswith("data_root: dta is not there")
    (tmp_path / "data/toys").mkdir(parents=True)
    (line,) = problems_of(dataset, data_root="data")
    assert "toy.yaml: data/toy is not there; data holds toys/: put it there" in line and "`root`" in line


def test_of_a_dataset_that_is_fetched_in_part_each_other_file_is_told(problems_of):
    dataset = {**copy.deepcopy(DATASET), "simulate": None, "gene_sets": {}}
    dataset["files"]["image"] = {"path": "{slide}.tif", "url": "https://x/{slide}.tif"}
    found = problems_of(dataset)
    assert len(found) == 9 and all("has no url to fetch it from; set data_root" in line for line in found)


def test_a_key_that_stands_twice_is_told(problems_of, tmp_path):
    write_config(tmp_path)
    file = tmp_path / "config/datasets/toy.yaml"
    file.write_text(file.read_text().replace("  s2:\n", "  s1:\n"))
    (line,) = problems_of()
    assert "config/datasets/toy.yaml is not YAML: the key 's1' in line" in line and "stands in line" in line
    study_file = tmp_path / "study.yaml"
    study_file.write_text("seeds: [0]\nname: toy\nseeds: [1]\n")
    with pytest.raises(SystemExit, match=r"study.yaml is not YAML: the key 'seeds' in line 3 stands in line 1"):
        open_study(study(), tmp_path, [study_file])


def test_a_folder_that_may_not_be_entered_is_told(problems_of, monkeypatch):
    """Root may enter every folder."""
    there = Path.exists

    def exists(path):
        if path.name == "image.tif":
            raise PermissionError(13, "Permission denied", str(path))
        return there(path)

    monkeypatch.setattr(Path, "exists", exists)
    found = problems_of({**copy.deepcopy(DATASET), "simulate": None, "gene_sets": {}}, data_root="/")
    assert any(
        "s1.files.image: /toy/s1/image.tif may not be looked at (Permission denied); mend" in line for line in found
    )


def test_a_long_folder_is_told_in_a_line(problems_of, tmp_path):
    (tmp_path / "data/toy").mkdir(parents=True)
    for number in range(20):
        (tmp_path / "data/toy" / f"file{number:02d}").write_text("")
    found = problems_of({**copy.deepcopy(DATASET), "simulate": None}, data_root="data")
    assert all("data/toy holds file00, file01," in line and "file07 and 12 more" in line for line in found)


def test_a_folder_of_counts_is_there(problems_of, tmp_path):
    dataset = {**copy.deepcopy(DATASET), "simulate": None, "gene_sets": {}}
    dataset["files"] = {"counts": "{slide}/matrix", "image": "{slide}/store.zarr", "positions": "{slide}"}
    for slide in ("s1", "s2", "s3"):
        (tmp_path / "data/toy" / slide / "matrix").mkdir(parents=True)
        (tmp_path / "data/toy" / slide / "store.zarr").mkdir()
    assert problems_of(dataset, data_root="data") == []


def test_files_with_a_url_are_fetched(problems_of):
    dataset = {**copy.deepcopy(DATASET), "simulate": None, "gene_sets": {}}
    dataset["files"] = {role: {"path": path, "url": f"https://x/{path}"} for role, path in dataset["files"].items()}
    assert problems_of(dataset) == []


def test_a_star_must_stand_for_one_file(problems_of, tmp_path):
    dataset = {
        **copy.deepcopy(DATASET),
        "simulate": None,
        "gene_sets": {},
        "slides": {"s1": {"patient": "P1"}, "s3": {"patient": "P2"}},
    }
    dataset["files"]["image"] = "{slide}/*.tif"
    for slide in ("s1", "s3"):
        (tmp_path / "data/toy" / slide).mkdir(parents=True)
        for name in ("counts.h5", "positions.csv", "scalefactors.json", "image.tif"):
            (tmp_path / "data/toy" / slide / name).write_text("")
    only = {"data_root": "data", **changed("splits.cv.k", 2)}
    assert problems_of(dataset, **only) == []
    (tmp_path / "data/toy/s3/second.tif").write_text("")
    (line,) = problems_of(dataset, **only)
    assert "slides.s3.files.image" in line and "stands for 2 files, not for exactly one" in line
    assert "data/toy/s3 holds counts.h5, image.tif," in line


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"licens": "x"}, "config/datasets/toy.yaml: licens: unknown key (value 'x'); did you mean 'licence'?"),
        ({"reader": "visum"}, "config/datasets/toy.yaml: reader: reader 'visum' is unknown; did you mean 'visium'?"),
        (
            {"files": {**DATASET["files"], "imag": "x"}},
            "files: file role of reader 'visium' 'imag' is unknown; did you mean 'image'?",
        ),
        ({"files": {"counts": "x"}}, "slides.s1.files: role 'image' is required by reader 'visium' and missing"),
        (
            {"files": {**DATASET["files"], "image": "{slid}.tif"}},
            "'{slid}.tif' or its url holds an unknown placeholder ('slid'); allowed: {slide}, {patient}",
        ),
        ({"simulate": {"spotz": 4}}, "slides.s1.simulate: spotz: unknown key (value 4); did you mean 'spots'?"),
        (
            {"slides": {"s1": {"patient": "P1", "organs": "x"}}},
            "slides.s1.organs: unknown key (value 'x'); did you mean 'organ'?",
        ),
        (
            {"files": {**DATASET["files"], "image": {"path": "x", "sha": "y"}}},
            "sha: unknown key (value 'y'); did you mean 'sha256'?",
        ),
        ({"slides": {}}, "slides: dictionary should have at least 1 item"),
    ],
)
def test_faults_of_a_dataset(problems_of, change, expected):
    found = problems_of({**copy.deepcopy(DATASET), **change})
    assert any(expected in line for line in found), "\n".join(found)


def test_faults_of_method_and_paper_files(problems_of, tmp_path):
    config = write_config(tmp_path)
    stem = yaml.safe_load((config / "methods/stem.yaml").read_text())
    (config / "methods/stem.yaml").write_text(yaml.safe_dump({**stem, "scales": {**stem["scales"], "smal": {}}}))
    (config / "methods/ridge.yaml").write_text("title: [unclosed\n")
    (config / "papers/paper.yaml").write_text("- a list\n")
    found = problems_of()
    assert any("config/methods/stem.yaml: scales.smal" in line and "did you mean 'small'" in line for line in found)
    assert any(line.startswith("config/methods/ridge.yaml: ") and "is not YAML" in line for line in found)
    assert any(line.startswith("config/papers/paper.yaml: ") and "holds list" in line for line in found)
    assert len(found) == 3, "\n".join(found)


def test_two_papers_with_one_table(problems_of, tmp_path):
    config = write_config(tmp_path)
    (config / "papers/second.yaml").write_text((config / "papers/paper.yaml").read_text())
    (line,) = problems_of(papers=["paper", "second"])
    assert "config/papers/second.yaml: tables.paper_table: paper 'paper' has a table of this name" in line


def one_row(*rows):
    cells = {"groups": [{"label": "all"}], "columns": [{"label": "MSE", "metric": "mse"}]}
    shared = {"dataset": "toy", "split": "new_patient", "panel": "few"}
    return {
        "tables": {
            "one": {
                "description": "x",
                "run": shared,
                **cells,
                "rows": [{"label": str(i), "run": r} for i, r in enumerate(rows)],
            }
        },
        "figures": {},
    }


def test_two_runs_in_one_folder_need_a_variant(problems_of):
    found = problems_of(**one_row({"method": "ridge"}, {"method": "ridge", "options": {"penalty": 3}}), seeds=[0])
    assert found == [
        "tables.one: row '1', group 'all': differs in options from another run in folder "
        "toy/new_patient/few/ridge/seed0; give it a variant name"
    ]
    assert (
        problems_of(**one_row({"method": "ridge"}, {"method": "ridge", "options": {"penalty": 3}, "variant": "v"}))
        == []
    )


def test_options_are_checked_in_every_folder(problems_of):
    """Two runs of one method on different panels: the second one's mistake is told too."""
    (line,) = problems_of(
        **one_row({"method": "ridge"}, {"method": "ridge", "panel": "many", "options": {"penalti": 3}})
    )
    assert "methods.ridge: options: penalti: unknown key (value 3); did you mean 'penalty'?" in line


def test_a_stain_reference_may_not_be_tested(problems_of):
    tiling = {"fov_um": 64, "size_px": 32, "stain": {"fit": "reference", "reference": "s3"}}
    (line,) = problems_of(tiles={"spot": tiling})
    assert "tiles.spot: stain.reference: slide 's3' is tested in split 'new_patient'" in line
    tiling["stain"]["reference"] = "s1"
    assert problems_of(tiles={"spot": tiling}) == []


def test_programmes_must_be_gene_sets_of_the_dataset(problems_of):
    tables = one_row({"method": "geneflow"})
    assert problems_of(**tables, scores={"programmes": "programmes"}) == []
    (line,) = problems_of(**tables, scores={"programmes": "programs"})
    assert (
        "scores: programmes: gene set file of dataset 'toy' 'programs' is unknown; did you mean 'programmes'?" in line
    )


def test_importance_is_of_generators(problems_of):
    run = {"dataset": "toy", "split": "new_patient", "panel": "few", "method": "ridge"}
    found = problems_of(
        importance={"genes": {"description": "x", "run": run, "gene_sets": "program", "options": {"step": 1}}}
    )
    assert any("importance.genes: run.method: 'ridge' is a predictor" in line for line in found)
    assert any(
        "importance.genes: gene_sets: gene set file of dataset 'toy' 'program' is unknown" in line for line in found
    )
    assert any(
        "importance.genes: options: step: unknown key (value 1); did you mean 'steps'?" in line for line in found
    )


@pytest.mark.parametrize(
    ("model", "content", "said"),
    [
        (SplitConfig, {"kind": "slides"}, "also needs test"),
        (SplitConfig, {"kind": "blocks", "test_fraction": 0.2}, "also needs block_um, buffer_um"),
        (SplitConfig, {"kind": "folds", "of": "blocks", "k": 3}, "also needs block_um, buffer_um"),
        (SplitConfig, {"kind": "fraction", "test_fraction": 0.2}, "replication: true"),
        (SplitConfig, {"kind": "folds", "of": "units", "k": 3}, "replication: true"),
        (PanelConfig, {"kind": "list"}, "also needs file"),
        (PanelConfig, {"kind": "hvg"}, "also needs genes"),
    ],
)
def test_what_a_kind_needs(model, content, said):
    with pytest.raises(ValidationError, match=said):
        model(**({"dataset": "toy"} if model is SplitConfig else {}), **content)


@pytest.mark.parametrize("content", [None, "- 1\n", "a: [\n", b"\xff\xfe"])
def test_a_file_that_is_no_mapping(tmp_path, content):
    config = write_config(tmp_path)
    file = config / "datasets/toy.yaml"
    file.write_bytes(content) if isinstance(content, bytes) else file.write_text(content or "")
    with pytest.raises(ConfigError, match=r"datasets/toy\.yaml"):
        load_study(study(), config)


def test_every_key_of_the_repositorys_files_is_known():
    for file in sorted((ROOT / "config" / "datasets").glob("*.yaml")):
        DatasetConfig.model_validate(yaml.safe_load(file.read_text()))
    for name in ("demo", "her2st"):
        StudyConfig.model_validate(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()))
