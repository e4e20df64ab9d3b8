"""Presets: the published rows as they were published, and files of the user's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from stores import StorePlan, make_store

from trar.cli import main
from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.config import build_config
from trar.trainer.fit import check_fit
from trar.trainer.preset_files import (
    load_preset,
    preset_names,
    published_row,
    published_rows,
    read_preset,
)

FOLDER = Path(__file__).parents[2] / "trar/trainer/presets"
# MODEL.md of rentainhe/TRAR-VQA: routing, pooling, policy, binarize, split, overall
ROWS = {
    "vqa-hard-attention": ("hard", "attention", 1, False, "train", 67.61),
    "vqa-hard-attention-binarize": ("hard", "attention", 1, True, "train", 67.62),
    "vqa-hard-avg": ("hard", "avg", 1, False, "train", 67.59),
    "vqa-hard-avg-binarize": ("hard", "avg", 1, True, "train", 67.58),
    "vqa-soft-attention": ("soft", "attention", None, False, "train", 67.45),
    "vqa-soft-avg": ("soft", "avg", None, False, "train", 67.62),
    "vqa-soft-avg-trainval": ("soft", "avg", None, False, "train+val", 71.21),
    "vqa-soft-avg-trainval-vg": ("soft", "avg", None, False, "train+val+vg", 72.01),
    "clevr-hard-fc": ("hard", "fc", 0, True, "train", 99.08),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_published_tables_is_a_preset(name: str) -> None:
    routing, pooling, policy, binarize, split, overall = ROWS[name]
    config = build_config("somewhere", preset=name)
    assert (config.model.routing, config.model.pooling) == (routing, pooling)
    assert (config.model.binarize, config.split) == (binarize, split)
    assert policy in (None, config.temperature.policy)
    assert published_row(name).overall == overall
    model, data, schedule = config.model, config.data, config.schedule
    assert (model.layers, model.width, model.heads, model.ff_width) == (6, 512, 8, 2048)
    assert (config.optim.betas, config.optim.eps, data.batch_size) == ((0.9, 0.98), 1e-9, 64)
    if name == "clevr-hard-fc":
        assert (config.loss, config.optim.lr, model.orders) == ("ce-sum", 4e-5, (0, 1, 3))
        assert (schedule.epochs, schedule.decay_epochs) == (16, (13, 15))
        assert (data.grid, data.max_tokens, data.accumulation) == (14, None, 2)
    else:
        assert (config.loss, config.optim.lr, model.orders) == ("bce-sum", 1e-4, (0, 1, 2, 3))
        assert (schedule.epochs, schedule.decay_epochs) == (13, (10, 12))
        assert (data.grid, data.max_tokens, data.accumulation) == (8, 14, 1)


@pytest.mark.parametrize("name", ROWS)
def test_published_rows_have_every_switch_where_the_originals_have_it(name: str) -> None:
    model = build_config("somewhere", preset=name).model
    assert (model.pool_mask, model.empty_window) == (False, "uniform")
    assert (model.attn_dropout, model.layer_norm) == ("per_order", "exact")
    scored = ("gumbel", 10.0) if model.routing == "hard" else ("softmax", None)
    assert (model.eval_alpha, model.eval_tau) == scored


@pytest.mark.parametrize("name", published_rows())
def test_the_head_of_the_file_names_the_published_number(name: str) -> None:
    head, _, _ = (FOLDER / f"{name}.yaml").read_text().partition("\n\n")
    published = published_row(name)
    assert f"{published.overall:g}" in head
    for number in published.parts.values():
        assert f"{number:.2f}" in head


def test_our_best_has_our_switches() -> None:
    ours = build_config("somewhere", preset="vqa-best")
    assert (ours.model.pool_mask, ours.model.empty_window) == (True, "zero")
    assert (ours.model.attn_dropout, ours.model.layer_norm) == ("shared", "fast")
    assert ours.optim == build_config("somewhere", preset="vqa-soft-avg").optim


def test_the_command_line_wins_over_the_split_of_a_preset() -> None:
    config = build_config("somewhere", preset="vqa-soft-avg-trainval", split="train")
    assert config.split == "train"
    assert config.eval_split is None
    assert build_config("somewhere", preset="vqa-soft-avg-trainval").split == "train+val"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_file_may_change_a_preset(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.yaml", "base: easy-vqa\nmodel: {layers: 3}\nseed: 7\n")
    config = build_config("somewhere", preset=mine)
    assert (config.model.layers, config.seed, config.run_name) == (3, 7, "mine")
    before = load_preset("easy-vqa")
    assert load_preset(mine) == {**before, "model": {**before["model"], "layers": 3}, "seed": 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: easy-vqa\nmodle: {layers: 3}\n", r"modle is no setting \(did you mean model\?\)"),
        (
            "base: easy-vqa\nmodel: {layrs: 3}\n",
            r"layrs is no setting \(did you mean model\.layers",
        ),
        ("base: easy-vaq\n", r"no preset 'easy-vaq' \(did you mean easy-vqa\?\)"),
        ("base: {self}\n", "its base leads back to itself"),
        ("- 1\n", "holds a list, expected settings by section"),
        ("", "holds nothing, expected settings by section"),
        ("a: [\n", "not YAML"),
        ("base: easy-vqa\npublished: {overal: 3}\n", "overal"),
        ("base: easy-vqa\ncontinue_from: {split: train}\n", "epochs"),
        (
            "model: {layers: 3}\n",
            r"^model\.orders, model\.width, model\.heads and 17 more are missing; let \S+mine\.yaml"
            " say `base: NAME`, the preset whose settings it changes, or state all$",
        ),
    ],
)
def test_a_wrong_file_is_explained_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match=message) as caught:
        build_config("somewhere", preset=write(path, text.replace("{self}", str(path))))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yml: no such preset file"):
        read_preset(str(tmp_path / "nothing.yml"))


def test_a_preset_for_another_grid_is_refused(shared_store: FeatureStore) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fit(build_config(shared_store.path, preset="clevr-hard-fc"), shared_store)
    message = str(caught.value)
    assert "preset clevr-hard-fc is for 14x14 cells" in message
    assert "has 4x4 cells x 8, float16" in message
    assert "--set data.grid=null" in message
    free = build_config(shared_store.path, preset="clevr-hard-fc", sets=["data.grid=null"])
    check_fit(free, shared_store)


def test_a_preset_for_the_grid_there_is_is_named(tmp_path: Path) -> None:
    store = make_store(
        tmp_path / "features" / "big",
        StorePlan(images={"train": 2}, grid=16, question_splits={"train": "train"}),
    )
    with pytest.raises(ConfigError, match="choose --preset vqa-16x16, or"):
        check_fit(build_config(store.path, preset="vqa-soft-avg"), store)


def test_a_preset_that_nobody_named_takes_the_grid_there_is(shared_store: FeatureStore) -> None:
    config = build_config(shared_store.path)
    assert (config.preset, config.data.grid) == ("vqa-soft-avg", None)
    check_fit(config, shared_store)


@pytest.fixture(scope="module")
def soft_store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of soft targets."""
    plan = StorePlan(images={"train": 4}, question_splits={"train": "train"}, rule="vqa")
    return make_store(tmp_path_factory.mktemp("soft") / "features" / "soft", plan)


def test_cross_entropy_on_soft_targets_is_refused(soft_store: FeatureStore) -> None:
    config = build_config(soft_store.path, preset="easy-vqa", sets=["loss=ce-sum"])
    with pytest.raises(ConfigError, match=r"loss is ce-sum.*soft targets \(rule vqa\).*bce-sum"):
        check_fit(config, soft_store)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "clevr-hard-fc"], "is for 14x14 cells"),
        (["--preset", "easy-vqa", "--set", "loss=ce-sum"], "soft targets"),
        (["--preset", "easy-vqa", "--set", "data.vectors=glove"], "has no word vectors"),
        (["--preset", "easy-vqa", "--set", "model.binarize=true"], "needs routing 'hard'"),
        (["--preset", "easy-vqa", "--set", "data.accumulation=3"], "2 would do"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_run(
    soft_store: FeatureStore, tmp_path: Path, arguments: list[str], message: str
) -> None:
    runs = tmp_path / "runs"
    begin = ["train", "--store", str(soft_store.path), "--runs", str(runs), "--device", "cpu"]
    result = CliRunner().invoke(main, [*begin, *arguments])
    assert result.exit_code == 1
    assert re.search(message, result.output)
    assert result.output.count("\n") == 1
    assert not runs.exists()


def test_presets_are_listed_in_order() -> None:
    assert preset_names() == sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_the_preset_named_for_another_grid_is_of_the_same_system(tmp_path: Path) -> None:
    plan = StorePlan(images={"train": 2}, grid=8, question_splits={"train": "train"}, rule="vqa")
    store = make_store(tmp_path / "features" / "vqa", plan)
    with pytest.raises(ConfigError, match=r"for 16x16 cells.*choose --preset vqa-soft-avg, or"):
        check_fit(build_config(store.path, preset="vqa-16x16"), store)
    with pytest.raises(ConfigError, match=r"for 14x14 cells, \S+ has 8x8 cells \S+ \S+ \S+; take"):
        check_fit(build_config(store.path, preset="lsat-clevr"), store)


def test_a_dataset_whose_own_preset_is_for_any_grid_is_told_to_take_that(tmp_path: Path) -> None:
    store = make_store(tmp_path / "features" / "easy-vqa", StorePlan(images={"train": 2}, grid=8,
                       question_splits={"train": "train"}))  # fmt: skip
    with pytest.raises(ConfigError, match=r"for 16x16 cells.*choose --preset easy-vqa, or"):
        check_fit(build_config(store.path, preset="vqa-16x16"), store)
    check_fit(build_config(store.path, preset="easy-vqa"), store)
