"""easy-VQA through the pipeline: a real published data set, small enough for every run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trar.errors import ConfigError, RawDataError
from trar.features import FeatureStore, verify_store
from trar.pipeline import PrepareConfig, prepare
from trar.pipeline.sources.easy_vqa import EasyVqaSource


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root = tmp_path_factory.mktemp("easy") / "features"
    prepare(PrepareConfig(dataset="easy-vqa", store=root, split="train+val+test", limit=40))
    assert verify_store(root) == []
    return FeatureStore(root)


def test_published_counts_and_a_held_out_tenth() -> None:
    source = EasyVqaSource(Path("nowhere"))
    sizes = {split: len(source.questions(split)) for split in source.splits}
    assert sizes["train"] + sizes["val"] == 38_575
    assert sizes["test"] == 9_673
    held_out = set(source.questions("val").image_ids)
    assert {image % 10 for image in held_out} == {9}
    assert not held_out & set(source.questions("train").image_ids)
    assert len(held_out) == 400
    for split in source.splits:
        assert len(set(source.questions(split).ids)) == sizes[split]


def test_one_answer_a_question_is_the_whole_target(store: FeatureStore) -> None:
    assert len(store.answers) == 13
    assert store.meta.answer_schemes["openvqa"].rule == "exact"
    targets = store.targets("val")
    assert (targets.score == 1.0).all()
    labels = [store.answers.answers[label] for label in targets.label]
    assert labels == list(store.answers_of("val").majority)


def test_no_cell_is_padding_and_channels_are_standardised(store: FeatureStore) -> None:
    features = store.read("train", range(40)).features.astype(np.float32)
    assert store.cells("train").all()
    assert features.shape == (40, 64, 21)
    assert np.abs(features.mean(axis=(0, 1))).max() < 0.5


def test_same_image_id_in_train_and_test_is_another_image(store: FeatureStore) -> None:
    assert store.image_ids("train")[0] == store.image_ids("test")[0] == 0
    first = store.read("train", [0]).features
    assert (first != store.read("test", [0]).features).any()


def test_a_copy_of_the_data_may_stand_below_raw(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    questions = tmp_path / "train/questions.json"
    questions.write_text(json.dumps([["is it red?", "yes", 0]]))
    source = EasyVqaSource(tmp_path)
    assert source.questions("train").texts == ["is it red?"]
    with pytest.raises(RawDataError, match="no images"):
        source.images("train")
    questions.write_text(json.dumps({"a": 1}))
    with pytest.raises(RawDataError, match="not the questions of easy-VQA"):
        source.questions("train")


def test_damaged_image_is_named(tmp_path: Path) -> None:
    images = tmp_path / "train/images"
    images.mkdir(parents=True)
    (tmp_path / "train/questions.json").write_text("[]")
    (images / "0.png").write_bytes(b"not a picture")
    with pytest.raises(RawDataError, match=r"0\.png: not readable as an image"):
        EasyVqaSource(tmp_path).images("train")


def test_another_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="easy-vqa is described as 8x8 cells"):
        prepare(PrepareConfig(dataset="easy-vqa", store=tmp_path, grid=16))
