"""Methods are found by their files."""

import inspect
from pathlib import Path

import pytest
import yaml

import stmorph.methods
from stmorph.errors import ConfigError
from stmorph.methods import registry
from stmorph.methods.base import Method
from stmorph.methods.registry import load_method, method_names

MINE = ("nearest_neighbour", "ridge", "stem", "training_mean")
CONFIG = Path(__file__).parents[2] / "config" / "methods"


def test_methods_are_found_and_the_frame_is_not_one():
    assert set(MINE) <= set(method_names())
    assert not {"base", "registry", "__init__"} & set(method_names())
    assert list(method_names()) == sorted(method_names())


@pytest.mark.parametrize("name", MINE)
def test_a_method_is_complete(name):
    method = load_method(name)
    assert issubclass(method, Method) and method.family == "predictor" and method.trains in ("steps", "once", "never")


@pytest.mark.parametrize("name", MINE)
@pytest.mark.parametrize("scale", ["full", "small", "smoke"])
def test_options_of_the_yaml_are_accepted_at_every_scale(name, scale):
    content = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    preset = content.get("scales", {}).get(scale, {})
    load_method(name).Options(**{**content.get("options", {}), **preset.get("options", {})})
    assert content["family"] == load_method(name).family


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(
        ConfigError, match=r"method 'stemm' does not exist; did you mean 'stem'\? expected one of .*ridge"
    ):
        load_method("stemm")
    with pytest.raises(ConfigError, match="'base' does not exist"):
        load_method("base")


def test_a_new_file_is_a_new_method_and_a_helper_module_is_not(tmp_path, monkeypatch):
    text = Path(inspect.getfile(load_method("training_mean"))).read_text().replace("TrainingMean", "Newcomer")
    (tmp_path / "newcomer.py").write_text(text)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(
        "from ..newcomer import METHOD as Newcomer\n\nMETHOD = Newcomer\n"
    )
    (tmp_path / "helper.py").write_text("HELPER = 1\n")
    (tmp_path / "wrong.py").write_text("METHOD = 3\n")
    monkeypatch.setattr(registry, "_FOLDER", tmp_path)
    monkeypatch.setattr(stmorph.methods, "__path__", [*stmorph.methods.__path__, str(tmp_path)])
    assert method_names() == ("newcomer", "package", "wrong")
    assert load_method("newcomer").__name__ == "Newcomer" and load_method("package") is load_method("newcomer")
    with pytest.raises(ConfigError, match="METHOD of methods/wrong is 3; expected a subclass"):
        load_method("wrong")
