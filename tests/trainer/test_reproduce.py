"""What a run that reproduces a published row says of itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from stores import StorePlan, make_store
from training import SMALL

from trar.cli import main
from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.pipeline import PrepareConfig, prepare
from trar.trainer.config import build_config
from trar.trainer.reproduce import SplitCount, differences

COUNTS = {"train": SplitCount(443757, 82783), "val": SplitCount(214354, 40504)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store that calls itself vqa: 8x8 cells, soft targets, far too few questions."""
    plan = StorePlan(images={"train": 30, "val": 6, "test": 4}, grid=8, rule="vqa")
    return make_store(tmp_path_factory.mktemp("reproduce") / "features" / "vqa", plan)


def found(store: FeatureStore, *sets: str, preset: str = "vqa-soft-avg") -> dict[str, tuple]:
    config = build_config(store.path, preset=preset, sets=sets, device="cpu")
    return {one.what: (one.published, one.here) for one in differences(config, store, COUNTS)}


def test_the_data_is_compared_with_the_published_data(store: FeatureStore) -> None:
    points = found(store)
    assert points["questions of train"] == ("443,757", "90")
    assert points["images of val"] == ("40,504", "6")
    assert points["answers"] == ("3,129", "6")
    assert points["vocabulary"][0].startswith("20,573 tokens of the train, val, test and VG")
    assert points["vocabulary"][1].endswith("tokens of train (3)")
    assert points["features"] == ("8x8 cells x 2048, float32", "8x8 cells x 8, float16")
    assert points["bytes of the features"][1] == f"store {store.meta.fingerprint}"
    assert points["word embeddings start from"][0] == "en_vectors_web_lg"
    assert "at random" in points["word embeddings start from"][1]
    assert points["seed"] == ("not published, drawn at random", "20211010")
    assert "PyTorch 1.7.1" in points["versions"][0]
    assert not [name for name in points if name.startswith("setting ")]


def test_every_changed_setting_is_told(store: FeatureStore) -> None:
    points = found(store, "optim.lr=2e-4", "model.layers=1", "split=train+val", "loop.ema=0.9")
    assert points["setting optim.lr"] == ("0.0001", "0.0002")
    assert points["setting model.layers"] == ("6", "1")
    assert points["setting split"] == ("train", "train+val")
    assert points["setting loop.ema"] == ("None", "0.9")


def test_what_is_as_published_is_not_told(store: FeatureStore) -> None:
    exact = {"train": SplitCount(90, 30), "val": SplitCount(18, 6)}
    config = build_config(store.path, preset="vqa-soft-avg")
    points = {one.what for one in differences(config, store, exact)}
    assert not points & {"questions of train", "images of train", "questions of val"}


def test_a_row_of_two_stages_is_compared_on_both(store: FeatureStore) -> None:
    points = found(store, preset="vqa-two-stage")
    assert points["split vg"] == ("not published", "not in the store")
    assert points["score"][0] == "test-dev, by EvalAI"


def test_a_store_of_another_dataset_is_compared_with_the_one_of_the_row(
    store: FeatureStore, tmp_path: Path
) -> None:
    other = make_store(tmp_path / "features" / "easy-vqa", StorePlan(grid=8))
    args = ["--store", str(other.path), "--report-only", "--json"]
    report = json.loads(CliRunner().invoke(main, ["reproduce", "vqa-soft-avg", *args]).stdout)
    points = {one["what"]: (one["published"], one["here"]) for one in report["differences"]}
    assert next(iter(points.items())) == ("dataset", ("vqa", "easy-vqa"))
    assert points["questions of train"] == ("443,757", "120")
    assert points["images of train"] == ("82,783", "40")
    assert points["answers"] == ("3,129", "6")
    assert points["vocabulary"][0].startswith("20,573 tokens")
    assert points["features"] == ("8x8 cells x 2048, float32", "8x8 cells x 8, float16")
    args = ["--store", str(store.path), *args[2:]]
    report = json.loads(CliRunner().invoke(main, ["reproduce", "mcan-clevr", *args]).stdout)
    points = {one["what"]: (one["published"], one["here"]) for one in report["differences"]}
    assert points["dataset"] == ("clevr", "vqa")
    assert points["questions of train"] == ("699,989", "90")
    assert points["answers"] == ("28", "6")
    assert "rules of the score" not in points  # those of 2016 are VQA's
    assert "dataset" not in found(store)


def test_images_that_were_left_out_are_told(vqa_raw: Path, tmp_path: Path) -> None:
    raw = tmp_path / "data"
    shutil.copytree(vqa_raw, raw)
    next((raw / "vqa/feats/val2014").glob("*.np?")).unlink()
    settings = {"split": "val", "on_bad_image": "skip", "workers": 0}
    prepare(PrepareConfig(raw=raw, store=tmp_path / "features", **settings))
    points = found(FeatureStore(tmp_path / "features"))
    assert points["images of val left out"] == ("none", "1")
    assert points["split train"] == ("443,757", "not in the store")


def test_a_row_on_regions_names_its_features(store: FeatureStore) -> None:
    points = found(store, preset="mcan-small")
    assert points["features"] == (
        "at most 100 regions x 2048, float32",
        "8x8 cells x 8, float16",
    )
    assert "PyTorch 0.4.1" in points["versions"][0]


def test_a_row_of_lxmert_is_compared_with_word_pieces_and_its_own_answers(
    store: FeatureStore,
) -> None:
    points = found(store, preset="lxmert-span")
    assert points["vocabulary"] == (
        "30,522 word pieces of bert-base-uncased",
        "no wordpiece in the store",
    )
    assert points["answers"] == ("3,129 of lxmert", "none of them in the store")
    assert points["features"][0] == "36 regions x 2048, float32"
    assert points["split"] == (
        "train+nominival, scored on minival",
        "train+val, scored on nothing",
    )
    assert points["weights start from"][0] == "LXMERT's pre-training (model_LXRT.pth)"
    assert "word embeddings start from" not in points
    args = ["reproduce", "lxmert-span", "--store", str(store.path), "--report-only"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert "lxmert-span: 71.62 on test-dev" in result.output


def test_a_preset_without_a_published_result_is_no_row(store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match=r"no published row 'easy-vqa'.*there are clevr-hard-fc"):
        found(store, preset="easy-vqa")


def test_without_a_row_all_are_listed_with_number_and_source() -> None:
    result = CliRunner().invoke(main, ["reproduce"])
    assert result.exit_code == 0
    line = next(one for one in result.output.split("\n") if one.startswith("vqa-soft-avg "))
    assert "67.62" in line
    assert "MODEL.md, Train -> Val" in line


def test_the_report_can_be_had_alone(store: FeatureStore, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    args = ["reproduce", "vqa-soft-avg", "--store", str(store.path), "--runs", str(runs)]
    result = CliRunner().invoke(main, [*args, "--report-only"])
    assert result.exit_code == 0
    assert "vqa-soft-avg: 67.62 on val (yes/no 85.36, number 49.89, other 58.83)" in result.output
    assert "443,757" in result.output  # the manifest's
    assert not runs.exists()
    two = CliRunner().invoke(main, ["reproduce", "vqa-two-stage", *args[2:], "--report-only"])
    assert "two stages: 10 epochs on train+val+vg (run vqa-two-stage-first)" in two.output
    plain = json.loads(CliRunner().invoke(main, [*args, "--report-only", "--json"]).output)
    assert plain["published"]["overall"] == 67.62
    assert {"what": "questions of train", "published": "443,757", "here": "90"} in plain[
        "differences"
    ]


def test_the_report_lies_beside_the_run(store: FeatureStore, tmp_path: Path) -> None:
    sets = [part for one in (*SMALL, "schedule.epochs=1") for part in ("--set", one)]
    args = ["reproduce", "vqa-soft-avg", "--store", str(store.path), "--runs", str(tmp_path)]
    result = CliRunner().invoke(main, [*args, *sets, "--seed", "3", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "vqa-soft-avg/reproduce.json").read_text())
    assert (report["row"], report["seed"]) == ("vqa-soft-avg", 3)
    points = {one["what"]: one["here"] for one in report["differences"]}
    assert points["setting schedule.epochs"] == "1"
    assert (tmp_path / "vqa-soft-avg/checkpoint-001.safetensors").exists()
