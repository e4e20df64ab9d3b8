"""Systems by name: their settings, presets and messages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from systems import SYSTEMS

from trar.errors import ConfigError
from trar.trainer.config import (
    TrainConfig,
    build_config,
    config_from,
    setting_names,
)
from trar.trainer.model_settings import settings_class
from trar.trainer.models import MODELS, McanConfig, build_model
from trar.trainer.preset_files import load_preset, preset_names

SIZES = {"vocabulary_size": 9, "answer_count": 3, "width": 8, "heads": 2, "layers": 1}


def build(*sets: str, preset: str = "easy-vqa-mcan") -> TrainConfig:
    return build_config("somewhere", preset=preset, sets=sets)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_states_every_setting_of_its_model(name: str) -> None:
    model = load_preset(name)["model"]
    later = {"eval_alpha", "eval_tau", "kernel"}  # of TRAR, with defaults for old checkpoints
    assert settings_class(model["system"]).model_fields.keys() - later == model.keys() - later


@pytest.mark.parametrize("system", MODELS)
def test_settings_of_a_system_are_the_fields_of_its_config(system: str) -> None:
    names = {one.removeprefix("model.") for one in setting_names(system) if "model." in one}
    decided = {"vocabulary_size", "answer_count", "feature_dim", "grid_side"}
    fields = {field.name for field in dataclasses.fields(MODELS[system][0])} - decided
    assert names == fields | {"system"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_setting_of_a_system_can_be_set(system: str) -> None:
    preset = "easy-vqa" if system == "trar" else f"easy-vqa-{system}"
    config = build(preset=preset)
    plain = config.model_dump(mode="json")["model"]
    assert plain["system"] == system
    for name, value in plain.items():
        assert build(f"model.{name}={yaml.safe_dump(value).strip()}", preset=preset) == config
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert config_from(TrainConfig, yaml.safe_load(text)) == config


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ("model.orders=[0]", "model.orders is no setting of mcan"),
        ("model.layrs=3", r"model.layrs is no setting of mcan \(did you mean model.layers\?\)"),
        ("model.layers=0", "model: layers is 0; it must be a whole number, 1 or more"),
        ("model.layers=2.5", "model.layers is 2.5, expected a valid integer"),
        ("model.heads=3", "model: width 64 is not a multiple of heads 3"),
        ("model.layer_norm=quick", "model.layer_norm is 'quick', expected 'exact' or 'fast'"),
        ("model.system=mcann", r"system is 'mcann' \(did you mean mcan\?\); choose one of"),
        ("model=1", "model is a section, set one of model.system, "),
    ],
)
def test_a_wrong_setting_is_explained(one: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(one)
    assert "\n" not in str(caught.value)


def test_several_problems_of_a_model_stand_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: easy-vqa-lsat\nmodel: {window: x, lok_back: 1}\nloss: mse\n")
    with pytest.raises(ConfigError) as caught:
        build(preset=str(path))
    message = str(caught.value)
    assert "model.window is 'x', expected a valid integer" in message
    assert "model.lok_back is no setting of lsat (did you mean model.look_back?)" in message
    assert "loss is 'mse'" in message


def test_another_system_keeps_the_settings_that_both_have() -> None:
    config = build("model.width=32", "model.system=lsat", "model.window=8", preset="easy-vqa")
    model = config.model
    assert (model.system, model.width, model.window, model.look_back) == ("lsat", 32, 8, 1)
    assert (model.layers, model.layer_norm) == (2, "fast")
    same = TrainConfig(store="x", preset="easy-vqa", model={"system": "lsat", "width": 32})
    assert same.model == build("model.system=lsat", "model.width=32", preset="easy-vqa").model


def test_a_preset_of_another_system_takes_nothing_over_from_its_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: easy-vqa\nmodel: {system: mcan, layers: 3}\n")
    model = build(preset=str(path)).model
    assert (model.system, model.layers, model.width) == ("mcan", 3, 512)


def test_a_config_without_a_system_is_trar() -> None:
    plain = build(preset="easy-vqa").model_dump(mode="json")
    del plain["model"]["system"]
    assert config_from(TrainConfig, plain).model.system == "trar"


@pytest.mark.parametrize("system", MODELS)
def test_a_model_is_built_from_its_config_or_a_mapping_of_it(system: str) -> None:
    kind, model = MODELS[system]
    sizes = {name: value for name, value in SIZES.items() if name in kind.__dataclass_fields__}
    built = build_model(kind(**sizes))
    assert type(built) is model
    assert build_model({"system": system, **sizes}).config == built.config == kind(**sizes)
    with pytest.raises(ConfigError, match=f"heeds is no setting of {system}; did you mean heads"):
        build_model({"system": system, **sizes, "heeds": 2})
    with pytest.raises(ConfigError, match=f"{system} needs vocabulary_size and answer_count"):
        build_model({"system": system})


def test_an_unknown_system_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"system is 'lsta' \(did you mean lsat\?\)"):
        build_model({"system": "lsta"})
    with pytest.raises(ConfigError, match="Other is the config of no model in MODELS"):
        build_model(type("Other", (McanConfig,), {})(vocabulary_size=1, answer_count=1))
