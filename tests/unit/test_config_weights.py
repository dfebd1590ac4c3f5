"""Where the weights of networks come from: fetched, below data_root, or named; told where they are missing."""

import pytest
from study import study, write_config

from stmorph.config.workflow import open_study
from stmorph.fetch.source import Gate, HubFile

GATED = Gate("https://huggingface.co/MahmoodLab/UNI", "HF_TOKEN")
BELOW = "weights/MahmoodLab/UNI/pytorch_model.bin"


@pytest.fixture
def workflow_of(tmp_path, monkeypatch):
    """Return the toy study with an encoder `net` that its runs use, and one `other` that none does."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)

    def make(model="uni", options=None, **changes):
        encoders = {"net": {"model": model, "options": options or {}}, "other": {"model": "virchow2"}}
        return open_study(study(encoders=encoders, **changes), tmp_path)

    return make


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def problem_of(workflow):
    with pytest.raises(SystemExit) as left:
        workflow.at_hand(workflow.weights("net"))
    return [line for line in str(left.value.code).splitlines() if "encoders.net" in line]


def test_weights_in_use_are_fetched_at_their_revision(workflow_of):
    workflow = workflow_of("uni+morphometric+resnet50", {"uni": {"revision": "0a1b2c3"}})
    assert workflow.encoders_in_use == ["net"]
    uni, resnet = workflow.fetched.values()
    assert uni.path == "downloads/weights/MahmoodLab/UNI/0a1b2c3/pytorch_model.bin"
    assert uni.hub == HubFile("MahmoodLab/UNI", "0a1b2c3", "model", "pytorch_model.bin") and uni.gate == GATED
    assert resnet.hub.revision == "main" and resnet.gate is None
    assert workflow.weights("net") == [uni.path, resnet.path] and workflow.missing == {}
    assert workflow.at_hand(workflow.weights("net")) == [uni.path, resnet.path]


def test_another_revision_is_another_file(workflow_of):
    paths = {workflow_of("uni", {"revision": one}).weights("net")[0] for one in ("main", "v1", "refs/pr/1")}
    assert len(paths) == 3 and "downloads/weights/MahmoodLab/UNI/refs--pr--1/pytorch_model.bin" in paths


def test_a_file_of_another_name_can_be_asked_for(workflow_of):
    (source,) = workflow_of("phikon", {"file": "pytorch_model.bin"}).fetched.values()
    assert source.hub.file == "pytorch_model.bin" and source.path.endswith("owkin/phikon/main/pytorch_model.bin")


def test_an_encoder_of_statistics_has_no_weights(workflow_of):
    workflow = workflow_of("morphometric")
    assert workflow.weights("net") == [] and workflow.fetched == {} and workflow.missing == {}


def test_scores_of_pictures_ask_for_the_weights_of_their_encoder(workflow_of, tmp_path):
    tables = {"own": {"run": {"dataset": "toy", "split": "new_patient", "panel": "few", "method": "geneflow"}}}
    tables["own"] |= {"description": "x", "groups": [{"label": "a"}], "rows": [{"label": "b"}]}
    tables["own"] |= {"columns": [{"label": "c", "metric": "ssim"}]}
    workflow = workflow_of(tables=tables, figures={}, papers=[], scores={"image_encoder": "other"})
    run = next(run for run in workflow.plan.runs if run.family == "generator")
    assert workflow.score_inputs(run)["weights"] == ["downloads/weights/paige-ai/Virchow2/main/model.safetensors"]
    assert workflow.encoders_in_use == ["other"], "geneflow reads no embedding"


@pytest.mark.parametrize("place", [BELOW, "weights/models--MahmoodLab--UNI/snapshots/abc/pytorch_model.bin"])
def test_below_data_root_they_are_found(workflow_of, tmp_path, place):
    found = put(tmp_path / "data" / place)
    workflow = workflow_of(data_root="data")
    assert [tmp_path / path for path in workflow.weights("net")] == [found]
    assert workflow.fetched == {} and workflow.at_hand(workflow.weights("net"))


def test_missing_below_data_root_they_are_told_with_the_page(workflow_of):
    (line,) = problem_of(workflow_of(data_root="data"))
    for said in ("weights of encoder uni", f"data/{BELOW}", GATED.page, "accepting the terms", "option `weights`"):
        assert said in line
    (line,) = problem_of(workflow_of("resnet50", data_root="data"))
    assert "timm/resnet50.tv_in1k" in line and "terms" not in line


def test_a_path_of_ones_own_is_taken_and_a_wrong_one_told(workflow_of, tmp_path):
    own = put(tmp_path / "my/uni.bin")
    workflow = workflow_of("uni", {"weights": str(own)})
    assert workflow.weights("net") == [str(own)] and workflow.fetched == {}
    (line,) = problem_of(workflow_of("uni", {"weights": "my/uno.bin"}))
    assert "my/uno.bin does not exist" in line


def test_missing_weights_stop_no_job_that_needs_none(workflow_of):
    workflow = workflow_of(data_root="data")
    run = next(run for run in workflow.plan.runs if run.family == "predictor")
    made = [path for path in workflow.score_inputs(run)["samples"]]
    assert workflow.at_hand(made) == made


def test_the_list_names_licence_gate_and_revision(workflow_of, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "x")
    told = workflow_of("uni+phikon").download_list(ask=False)
    assert "weights of encoder uni\n  licence: CC-BY-NC-ND-4.0 (MahmoodLab/UNI)\n  gate: accept the terms at" in told
    assert "weights of encoder phikon\n  licence: Owkin non-commercial licence (owkin/phikon)\n  size unknown" in told
    assert "<- hub:model:MahmoodLab/UNI@main/pytorch_model.bin" in told and "Virchow2" not in told
    assert told.endswith("To fetch: 2 files, 0 B and 2 of unknown size. Already there: 0.")


@pytest.mark.parametrize("revision", ["", "../main", "a b"])
def test_a_revision_that_is_none_is_told(workflow_of, revision):
    with pytest.raises(SystemExit, match=r"encoders\.net: options: revision"):
        workflow_of("uni", {"revision": revision})
