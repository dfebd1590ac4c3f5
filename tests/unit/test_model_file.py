"""A model file holds all that sampling needs, and says so when it does not."""

import json

import numpy as np
import pytest
import torch
from training_toys import KINDS, Linear, toy_spec, toy_units

from stmorph.errors import ConfigError, DataError, WeightsError
from stmorph.model_file import ModelRecord, load_model, read_record, save_model
from stmorph.samples.draw import draw_samples
from stmorph.training.fit import fit_or_train, new_method
from stmorph.training.options import TrainingOptions

RECORD = {"config": {"dataset": "toy"}, "digests": {"panel": "p", "split": "s"}, "version": "0.1.0"}


def saved(folder, kind, name, **options):
    units = toy_units()
    method = new_method(kind, kind.Options(**options), toy_spec(units), 0)
    training = TrainingOptions(steps=5, batch_size=8, accelerator="cpu", picture_every=0)
    trained = fit_or_train(method, units, training, 0, folder / "work")
    paths = folder / "model.safetensors", folder / "model.json"
    save_model(trained.method, ModelRecord(method=name, seed=0, training=trained.record, **RECORD), *paths)
    return trained.method, paths


@pytest.mark.parametrize(("name", "options"), [("linear", {"noise": 0.2}), ("painter", {}), ("mean", {})])
def test_a_loaded_model_draws_what_the_saved_one_drew(tmp_path, name, options):
    method, paths = saved(tmp_path, KINDS[name], name, **options)
    loaded = load_model(*paths, kind=KINDS.get)
    assert loaded.options == method.options and loaded.spec == method.spec and not loaded.training
    test = toy_units(seed=1)
    assert np.array_equal(*(draw_samples(m, test, 2, 0, accelerator="cpu") for m in (method, loaded)))


def test_the_record_says_where_the_model_came_from(tmp_path):
    _, paths = saved(tmp_path, Linear, "linear", noise=0.2)
    record = read_record(paths[1])
    assert record["method"] == "linear" and record["family"] == "predictor" and record["seed"] == 0
    assert record["options"] == {"dropout": 0.0, "noise": 0.2, "batch_norm": True}
    assert record["digests"] == RECORD["digests"] and record["config"] == RECORD["config"]
    assert record["spec"]["genes"] == ["G0", "G1", "G2"]
    assert record["training"]["steps"] == 5 and np.isfinite(record["training"]["final_loss"])


def test_the_same_training_gives_the_same_bytes(tmp_path):
    _, one = saved(tmp_path / "one", Linear, "linear")
    _, two = saved(tmp_path / "two", Linear, "linear")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_shared_and_strided_tensors_are_stored(tmp_path):
    class Tied(Linear):
        def __init__(self, options, spec):
            super().__init__(options, spec)
            self.again = self.linear

        def prepare(self, units):
            super().prepare(units)
            self.linear.weight.data = self.linear.weight.data.T.contiguous().T

    method, paths = saved(tmp_path, Tied, "tied")
    loaded = load_model(*paths, kind=lambda name: Tied)
    assert torch.equal(loaded.linear.weight, method.linear.weight) and loaded.again is loaded.linear


def test_weights_of_another_model_are_refused(tmp_path):
    _, (weights, record) = saved(tmp_path, Linear, "linear")
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    with pytest.raises(DataError, match="are not those that"):
        load_model(weights, record, kind=KINDS.get)
    weights.unlink()
    with pytest.raises(DataError, match="do not exist; train"):
        load_model(weights, record, kind=KINDS.get)


def test_damaged_and_foreign_records_are_refused(tmp_path):
    _, (weights, record) = saved(tmp_path, Linear, "linear")
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "options": {"momentum": 3}}))
    with pytest.raises(ConfigError, match="options of method linear"):
        load_model(weights, record, kind=KINDS.get)
    record.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(DataError, match="format 99; expected 1"):
        load_model(weights, record, kind=KINDS.get)
    record.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        load_model(weights, record, kind=KINDS.get)
    record.unlink()
    with pytest.raises(DataError, match="does not exist; train"):
        load_model(weights, record, kind=KINDS.get)


def test_weights_that_do_not_fit_are_said(tmp_path):
    class Wider(Linear):
        def __init__(self, options, spec):
            super().__init__(options, spec)
            self.linear = torch.nn.Linear(spec.embedding_dim, 7)

    _, paths = saved(tmp_path, Linear, "linear")
    with pytest.raises(WeightsError, match="do not fit method linear"):
        load_model(*paths, kind=lambda name: Wider)
