"""Configs of the original repositories as presets."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from training import SMALL

from trar.cli import main
from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.config import build_config
from trar.trainer.preset_files import read_preset

# configs/vqa/trar.yml of rentainhe/TRAR-VQA, its settings
VQA = """
MODEL_USE: TRAR
LAYER: 6
HIDDEN_SIZE: 512
FF_SIZE: 2048
MULTI_HEAD: 8
DROPOUT_R: 0.1
FLAT_MLP_SIZE: 512
FLAT_GLIMPSES: 1
FLAT_OUT_SIZE: 1024
USE_BBOX_FEAT: False
ORDERS: [0, 1, 2, 3]
IMG_SCALE: 8
ROUTING: 'hard'
POOLING: 'attention'
TAU_POLICY: 1
TAU_MAX: 10
TAU_MIN: 0.1
BINARIZE: False
BATCH_SIZE: 64
LR_BASE: 0.0001
LR_DECAY_R: 0.2
LR_DECAY_LIST: [10, 12]
WARMUP_EPOCH: 3
MAX_EPOCH: 13
GRAD_NORM_CLIP: -1
GRAD_ACCU_STEPS: 1
LOSS_FUNC: bce
LOSS_REDUCTION: sum
OPT: Adam
OPT_PARAMS: {betas: '(0.9, 0.98)', eps: '1e-9'}
"""
CLEVR = {
    "ORDERS": "[0, 1, 3]",
    "IMG_SCALE": "14",
    "POOLING": "fc",
    "TAU_POLICY": "0",
    "BINARIZE": "True",
    "LR_BASE": "0.00004",
    "LR_DECAY_LIST": "[13, 15]",
    "MAX_EPOCH": "16",
    "GRAD_ACCU_STEPS": "2",
    "LOSS_FUNC": "ce",
}

# configs/vqa/mcan_small.yml of MILVLG/openvqa, its settings
MCAN = """
MODEL_USE: mcan
LAYER: 6
HIDDEN_SIZE: 512
FF_SIZE: 2048
MULTI_HEAD: 8
DROPOUT_R: 0.1
FLAT_MLP_SIZE: 512
FLAT_GLIMPSES: 1
FLAT_OUT_SIZE: 1024
USE_BBOX_FEAT: False
BATCH_SIZE: 64
LR_BASE: 0.0001
LR_DECAY_R: 0.2
LR_DECAY_LIST: [10, 12]
WARMUP_EPOCH: 3
MAX_EPOCH: 13
GRAD_NORM_CLIP: -1
GRAD_ACCU_STEPS: 1
LOSS_FUNC: bce
LOSS_REDUCTION: sum
OPT: Adam
OPT_PARAMS: {betas: '(0.9, 0.98)', eps: '1e-9'}
"""
MCAN_LARGE = {  # mcan_large.yml beside it
    "HIDDEN_SIZE": "1024",
    "FF_SIZE": "4096",
    "FLAT_OUT_SIZE": "2048",
    "LR_BASE": "0.00007",
    "GRAD_ACCU_STEPS": "2",
}
_LONGER = ("LR_BASE", "LR_DECAY_LIST", "MAX_EPOCH", "GRAD_ACCU_STEPS", "LOSS_FUNC")
MCAN_CLEVR = {name: CLEVR[name] for name in _LONGER}  # configs/clevr/mcan_small.yml
# cfgs/large_model.yml of MILVLG/mcan-vqa, its settings
MCAN_VQA = """
LAYER: 6
HIDDEN_SIZE: 1024
MULTI_HEAD: 8
DROPOUT_R: 0.1
FLAT_MLP_SIZE: 512
FLAT_GLIMPSES: 1
FLAT_OUT_SIZE: 2048
LR_BASE: 0.00005
LR_DECAY_R: 0.2
GRAD_ACCU_STEPS: 2
CKPT_VERSION: 'large'
CKPT_EPOCH: 13
"""
# what cfgs/base_cfgs.py of BrightQin/RWSAN sets, as YAML
RWSAN = """
SRWSA_LAYER: 3
SGRWSA_LAYER: 3
HIDDEN_SIZE: 512
MULTI_HEAD: 4
DROPOUT_R: 0.1
FLAT_MLP_SIZE: 256
FLAT_OUT_SIZE: 1024
SRWSA_MIDSIZE: 4
SGRWSA_SA_MIDSIZE: 16
SGRWSA_GA_MIDSIZE: 64
MAX_TOKEN: 16
IMG_FEAT_PAD_SIZE: 100
IMG_FEAT_SIZE: 2048
OPT_BETAS: [0.9, 0.98]
OPT_EPS: 1e-9
"""


def original(path: Path, changes: dict[str, str | None] | None = None, text: str = VQA) -> str:
    lines = dict(line.split(": ", 1) for line in text.strip().split("\n"))
    for name, value in (changes or {}).items():
        if value is None:
            lines.pop(name, None)
        else:
            lines[name] = value
    path.write_text("\n".join(f"{name}: {value}" for name, value in lines.items()))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, "vqa-hard-attention"),
        ({"BINARIZE": "True"}, "vqa-hard-attention-binarize"),
        ({"POOLING": "avg"}, "vqa-hard-avg"),
        (CLEVR, "clevr-hard-fc"),
    ],
)
def test_an_original_config_is_the_preset_of_its_row(
    tmp_path: Path, changes: dict[str, str | None], row: str
) -> None:
    name = original(tmp_path / "trar.yml", changes)
    config = build_config("somewhere", preset=name)
    ours = build_config("somewhere", preset=row)
    free = {"preset": name, "data": config.data}
    assert ours.model_copy(update=free) == config
    sizes = {"eval_batch_size": ours.data.eval_batch_size}
    assert config.data.model_copy(update=sizes) == ours.data
    assert config.run_name == "trar"


@pytest.mark.parametrize(
    ("text", "changes", "row"),
    [
        (MCAN, {}, "mcan-small"),
        (MCAN, {"MODEL_USE": None, "LOSS_FUNC": None}, "mcan-small"),  # as it was at first
        (MCAN, MCAN_LARGE, "mcan-large"),
        (MCAN, MCAN_CLEVR, "mcan-clevr"),
        (RWSAN, {}, "rwsan-vqa"),
    ],
)
def test_configs_of_other_systems_are_their_presets(
    tmp_path: Path, text: str, changes: dict[str, str | None], row: str
) -> None:
    name = original(tmp_path / "theirs.yml", changes, text)
    ours = build_config("somewhere", preset=row)
    config = build_config("somewhere", preset=name)
    assert config == ours.model_copy(update={"preset": name})


def test_a_few_settings_of_rwsan_are_enough(tmp_path: Path) -> None:
    name = original(tmp_path / "rwsan.yml", {}, "SGRWSA_LAYER: 4\nTRAIN_SPLIT: train+val+vg")
    config, ours = (build_config("somewhere", preset=one) for one in (name, "rwsan-vqa"))
    model = ours.model.model_copy(update={"image_repeats": 4})
    changes = {"preset": name, "model": model, "split": "train+val+vg"}
    assert config == ours.model_copy(update=changes)


def test_the_width_of_a_head_follows_from_the_others(tmp_path: Path) -> None:
    for changes in ({}, {"HIDDEN_SIZE": None, "MULTI_HEAD": None}):
        with_it = original(tmp_path / "mcan.yml", {**changes, "HIDDEN_SIZE_HEAD": "64"}, MCAN)
        assert read_preset(with_it).notes == ()
        config, without = (
            build_config("somewhere", preset=one).model
            for one in (with_it, original(tmp_path / "without.yml", changes, MCAN))
        )
        assert config == without


def test_what_mcan_vqa_leaves_out_is_what_its_code_works_out(tmp_path: Path) -> None:
    name = original(tmp_path / "large_model.yml", {}, MCAN_VQA)
    config = build_config("somewhere", preset=name)
    model = config.model
    assert (model.system, model.width, model.ff_width, model.flat_width) == (
        *("mcan", 1024, 4096, 2048),
    )
    assert (config.optim.lr, config.optim.eps, config.data.accumulation) == (5e-5, 1e-9, 2)
    assert read_preset(name).notes == (
        f"{name}: CKPT_EPOCH, CKPT_VERSION: no setting of a recipe here, left out",
    )


def test_soft_routing_has_no_policy_and_nothing_to_binarize(tmp_path: Path) -> None:
    changes = {"ROUTING": "soft", "POOLING": "avg", "BINARIZE": "True"}
    name = original(tmp_path / "trar.yml", changes)
    config = build_config("somewhere", preset=name)
    assert config.model == build_config("somewhere", preset="vqa-soft-avg").model


def test_other_sizes_come_through(tmp_path: Path) -> None:
    changes = {  # configs/vqa/trar_large.yml
        "HIDDEN_SIZE": "1024",
        "FF_SIZE": "4096",
        "FLAT_OUT_SIZE": "2048",
        "LR_BASE": "0.00007",
        "GRAD_ACCU_STEPS": "2",
        "FEATURES": "'grid'",
        "POOLING": None,
        "ROUTING_MODE": "'attention'",
        "GRAD_NORM_CLIP": "5",
        "TAU_MAX": "5",
        "TRAIN_SPLIT": "train+val+vg",
        "EVAL_EVERY_EPOCH": "False",
        "USE_GLOVE": "False",
        "SEED": "12",
    }
    config = build_config("somewhere", preset=original(tmp_path / "large.yml", changes))
    model = config.model
    assert (model.width, model.ff_width, model.flat_width) == (1024, 4096, 2048)
    assert (model.pooling, config.optim.lr, config.data.accumulation) == ("attention", 7e-5, 2)
    assert (config.loop.clip_norm, config.temperature.max) == (5.0, 5.0)
    assert (config.split, config.eval_split) == ("train+val+vg", None)
    assert (config.data.vectors, config.seed) == ("none", 12)


def test_what_a_file_leaves_out_is_the_default_of_the_original_code(tmp_path: Path) -> None:
    changes = {"MAX_EPOCH": None, "LR_BASE": None, "OPT_PARAMS": None, "GRAD_ACCU_STEPS": None}
    name = original(tmp_path / "trar.yml", CLEVR | changes)
    config = build_config("somewhere", preset=name)
    assert (config.schedule.epochs, config.optim.lr, config.data.accumulation) == (13, 1e-4, 1)
    assert (config.optim.betas, config.optim.eps) == ((0.9, 0.999), 1e-8)  # torch's own


def test_how_to_run_is_no_part_of_a_recipe_and_said_once(tmp_path: Path) -> None:
    name = original(tmp_path / "trar.yml", {"GPU": "'0,1'", "NUM_WORKERS": "8", "VERSION": "mine"})
    assert read_preset(name).notes == (
        f"{name}: GPU, NUM_WORKERS, VERSION: no setting of a recipe here, left out",
    )
    assert read_preset(original(tmp_path / "trar.yml")).notes == ()


def test_an_original_config_trains(shared_store: FeatureStore, tmp_path: Path) -> None:
    name = original(tmp_path / "trar.yml", {"PIN_MEM": "True"})
    sets = (*SMALL, "schedule.epochs=1", "data.grid=null", "model.orders=[0, 1, 2, 3]")
    arguments = ["train", "--store", str(shared_store.path), "--preset", name, "--device", "cpu"]
    arguments += ["--runs", str(tmp_path / "runs"), *(f"--set={one}" for one in sets)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "PIN_MEM: no setting of a recipe here, left out" in result.output
    assert (tmp_path / "runs/trar/checkpoint-001.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HIDEN_SIZE": "512"}, r"HIDEN_SIZE \(did you mean HIDDEN_SIZE\?\): not a key of"),
        ({"layer": "6"}, "layer.*: not a key of the original configs"),
        ({"ROUTING": "attention"}, "model.routing is 'attention', expected 'soft' or 'hard'"),
        ({"MODEL_USE": "mfb"}, "MODEL_USE is 'mfb', a model that is not here; configs of trar, mc"),
        ({"MODEL_USE": "mcan"}, "model.orders is no setting of mcan"),
        ({"ORDERS": None}, "no ORDERS, so this is no config of trar; those of trar, mcan, rwsan"),
        (
            {"MODEL_USE": None, "ORDERS": None, "ROUTING": None, "LAYER": None, "GLIMPSE": "4"},
            "no LAYER, so this is no config of mcan; those of trar, mcan, rwsan can be given",
        ),
        ({"OPT": "SGD"}, "OPT is 'SGD'; only 'Adam'"),
        ({"LOSS_FUNC": "kld"}, "LOSS_FUNC is 'kld', expected bce or ce"),
        ({"LOSS_FUNC": "[bce]"}, r"LOSS_FUNC is \['bce'\], expected bce or ce"),
        ({"LOSS_REDUCTION": "elementwise_mean"}, "LOSS_REDUCTION is 'elementwise_mean'"),
        ({"OPT_PARAMS": "{beta: '(1, 2)'}"}, r"beta \(did you mean betas\?\)"),
        ({"OPT_PARAMS": "{eps: '__import__(\"os\").getpid()'}"}, "OPT_PARAMS eps is '__import__"),
        ({"OPT_PARAMS": "{weight_decay: '0.1'}"}, "weight_decay is 0.1; only 0"),
        ({"OPT_PARAMS": "{betas: '3'}"}, "optim.betas is 3, expected"),
        ({"OPT_PARAMS": "5"}, "OPT_PARAMS is 5, expected names with values"),
        ({"GRAD_NORM_CLIP": "'x'"}, "loop.clip_norm is 'x'"),
        ({"FLAT_GLIMPSES": "2"}, "FLAT_GLIMPSES is 2; only 1"),
        (
            {"HIDDEN_SIZE_HEAD": "32"},
            "HIDDEN_SIZE_HEAD is 32, but HIDDEN_SIZE / MULTI_HEAD is 512 / 8; correct one of",
        ),
        ({"HIDDEN_SIZE_HEAD": "64", "MULTI_HEAD": "0"}, "model.heads is 0, expected"),
        ({"LAYER": "six"}, "model.layers is 'six', expected a valid integer"),
    ],
)
def test_a_wrong_original_config_is_explained_in_one_line(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_config("somewhere", preset=original(tmp_path / "trar.yml", changes))
    assert "\n" not in str(caught.value)
