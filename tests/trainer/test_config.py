"""Settings: complete presets, strict names, and messages that say what to write instead."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.config import (
    TrainConfig,
    apply_sets,
    build_config,
    config_from,
    setting_names,
)
from trar.trainer.preset_files import default_preset, load_preset, parse_yaml, preset_names


def build(*sets: str, preset: str = "easy-vqa", **settings: object) -> TrainConfig:
    return build_config("somewhere", preset=preset, sets=sets, **settings)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_complete_and_valid(name: str) -> None:
    assert build(preset=name).preset == name


def test_the_published_recipe_is_the_published_one() -> None:
    config = build(preset="vqa-soft-avg")
    assert (config.optim.lr, config.optim.betas, config.optim.eps) == (1e-4, (0.9, 0.98), 1e-9)
    assert (config.schedule.epochs, config.schedule.warmup_epochs) == (13, 3)
    assert (config.schedule.decay_epochs, config.schedule.decay_rate) == ((10, 12), 0.2)
    assert (config.data.batch_size, config.data.max_tokens, config.loss) == (64, 14, "bce-sum")
    model = config.model
    assert (model.layers, model.width, model.heads, model.ff_width) == (6, 512, 8, 2048)
    assert (model.pool_mask, model.empty_window) == (False, "uniform")
    assert (model.attn_dropout, model.layer_norm) == ("per_order", "exact")


def test_the_preset_follows_the_dataset(shared_store: FeatureStore) -> None:
    assert default_preset("easy-vqa") == "easy-vqa"
    assert default_preset("vqa") == "vqa-soft-avg"
    assert build_config(shared_store.path).preset == "vqa-soft-avg"


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'vqa-soft-agv' \(did you mean vqa-soft-avg"):
        load_preset("vqa-soft-agv")


def test_sets_change_named_settings_alone() -> None:
    before = load_preset("easy-vqa")
    kept = json.dumps(before)
    after = apply_sets(before, ["optim.lr=1e-3", "schedule.decay_epochs=[2, 4]", "seed = 5"])
    assert after["optim"]["lr"] == 0.001
    assert after["schedule"]["decay_epochs"] == [2, 4]
    assert after["seed"] == 5
    assert json.dumps(before) == kept


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ("optim.lr", "--set optim.lr: expected name=value, for example optim.lr=1e-3"),
        ("optim.learning_rate=1", "optim.learning_rate is no setting"),
        ("optim.lrr=1", r"optim.lrr is no setting \(did you mean optim.lr\?\)"),
        ("lr=1", r"lr is no setting \(did you mean optim.lr\?\)"),
        ("batchsize=1", r"batchsize is no setting \(did you mean data.batch_size\?\)"),
        ("optim=1", "optim is a section, set one of optim.kind, optim.lr, optim.betas"),
        ("optim.lr=[1", "'\\[1' is not a YAML value"),
    ],
)
def test_a_wrong_set_is_explained(one: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(one)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ("optim.lr=fast", "optim.lr is 'fast', expected a valid number"),
        ("optim.lr=0", "optim.lr is 0, expected greater than 0"),
        ("optim.lr=.nan", "optim.lr is nan, expected a finite number"),
        ("optim.betas=[0.9, 1.5]", "optim.betas.1 is 1.5, expected less than 1"),
        ("data.batch_size=64.5", "data.batch_size is 64.5, expected a valid integer"),
        ("data.batch_size='64'", "data.batch_size is '64', expected a valid integer"),
        ("data.batch_size=true", "data.batch_size is True, expected a valid integer"),
        ("model.pool_mask=1", "model.pool_mask is 1, expected a valid boolean"),
        ("model.routing=firm", "model.routing is 'firm', expected 'soft' or 'hard'"),
        ("model.heads=3", "model: width 64 is not a multiple of heads 3"),
        ("data.accumulation=3", "data: batch_size 32 does not divide into accumulation 3 equal"),
        ("temperature.policy=3", "temperature.policy is 3, expected less than or equal to 2"),
        ("temperature.min=11", "temperature: min 11.0 is larger than max 10.0"),
        ("run=../elsewhere", "run is '../elsewhere', expected a folder's name of letters, digits"),
        ("split=train+train", r"split is 'train\+train', expected names once each"),
        ("split=train+", r"split is 'train\+', expected names once each"),
        ("seed=-1", "seed is -1, expected greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(one: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(one)


def test_every_problem_stands_in_one_message() -> None:
    values = load_preset("easy-vqa") | {"epoch": 3, "loss": "mse"}
    with pytest.raises(ConfigError) as caught:
        config_from(TrainConfig, values)
    message = str(caught.value)
    assert "epoch is no setting (did you mean schedule.epochs?)" in message
    assert "store is missing" in message
    assert "loss is 'mse', expected 'bce-sum', 'ce-sum' or 'bce-mean-answers'" in message
    assert "\n" not in message


def test_a_config_is_frozen_and_survives_yaml() -> None:
    config = build("seed=4", split="train+val", eval_split=None, threads=2)
    with pytest.raises(ValidationError):
        config.seed = 5  # type: ignore[misc]
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert config_from(TrainConfig, parse_yaml(text)) == config
    assert config.splits == ["train", "val"]


def test_every_setting_of_a_preset_can_be_set() -> None:
    config = build()
    for name in setting_names():
        value = config.model_dump(mode="json")
        for part in name.split("."):
            value = value[part]
        assert build(f"{name}={json.dumps(value)}") == config


def test_reading_a_config_does_not_import_torch() -> None:
    program = "import sys, trar.trainer.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_config_is_complete_with_a_store_alone(shared_store: FeatureStore) -> None:
    config = TrainConfig(store=str(shared_store.path), preset="easy-vqa", optim={"lr": 0.5})
    whole = build_config(shared_store.path, preset="easy-vqa", sets=["optim.lr=0.5"])
    assert config == whole
    assert config.optim.betas == (0.9, 0.98)
