"""Raw files that are bad, and options that do not fit: named before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from raw_data import edit_json, grid_features, image_ids, nan_grid, prepare_config

from trar.errors import ConfigError, RawDataError, StoreError
from trar.pipeline import prepare


def change_feature(raw: Path, change) -> Path:
    folder = raw / "vqa/feats/train2014"
    path = sorted(folder.glob("*.npy"))[2]
    change(path)
    return path


def save(array):
    return lambda path: np.save(path, array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (save(np.zeros((256, 12), np.float32)), r"shape \(256, 12\), expected .*16x16 grid"),
        (save(np.zeros((64, 13), np.float32)), r"13 channels a cell, expected 12"),
        (save(nan_grid()), r"1 of 768 values are NaN or infinite"),
        (save(np.full((64, 12), 1e9, np.float32)), r"largest value 1e\+09, float16 holds at most"),
        (save(np.zeros((64, 12), np.int32)), r"dtype int32, expected float16"),
        (save(np.array([{}] * 64, object)), r"an object array; loading it would run code"),
        (lambda path: path.write_bytes(b""), r"an empty file, expected features as"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), r"the file holds"),
        (lambda path: path.write_bytes(b"junk" * 99), r"text that begins 'junkjunk"),
    ],
)
def test_bad_feature_file_is_named_and_leaves_no_store(
    raw: Path, tmp_path: Path, change, message: str
) -> None:
    path = change_feature(raw, change)
    with pytest.raises(RawDataError, match=message) as error:
        prepare(prepare_config(raw, tmp_path / "s"))
    assert str(path) in str(error.value)
    assert not (tmp_path / "s/vqa/store.json").exists()
    assert not list((tmp_path / "s").rglob("*.partial"))


def test_error_of_a_worker_process_arrives_whole(raw: Path, tmp_path: Path) -> None:
    path = change_feature(raw, save(nan_grid()))
    with pytest.raises(RawDataError, match="1 of 768 values are NaN or infinite") as error:
        prepare(prepare_config(raw, tmp_path / "s", workers=2))
    assert str(path) in str(error.value)
    assert not (tmp_path / "s/vqa/store.json").exists()


def test_failure_before_the_first_shard_leaves_nothing(raw: Path, tmp_path: Path) -> None:
    change_feature(raw, save(nan_grid()))
    for store in (tmp_path / "s", tmp_path / "mine"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        with pytest.raises(RawDataError, match="NaN"):
            prepare(prepare_config(raw, store, shard_images=None))
    assert not (tmp_path / "s").exists()
    assert list((tmp_path / "mine").iterdir()) == []


def questions_file(raw: Path, image_split: str = "train2014") -> Path:
    return raw / f"vqa/raw/v2_OpenEnded_mscoco_{image_split}_questions.json"


def annotations_file(raw: Path) -> Path:
    return raw / "vqa/raw/v2_mscoco_train2014_annotations.json"


BAD_RAW = {
    "missing questions": (
        lambda raw: questions_file(raw).unlink(),
        r"no questions file for split 'train': expected one of .*v2_Questions_Train_mscoco.zip",
    ),
    "missing annotations": (
        lambda raw: annotations_file(raw).unlink(),
        r"no annotations file for split 'train'",
    ),
    "empty": (lambda raw: questions_file(raw).write_text(""), r"an empty file"),
    "cut": (
        lambda raw: questions_file(raw).write_bytes(questions_file(raw).read_bytes()[:999]),
        r"not valid JSON .*cut short or damaged",
    ),
    "not utf-8": (
        lambda raw: questions_file(raw).write_bytes(b'{"questions": "\xff\xfe"}'),
        r"not valid JSON|not a file of questions",
    ),
    "another kind": (
        lambda raw: shutil.copy(annotations_file(raw), questions_file(raw)),
        r"not a file of questions \(.*\); its keys are annotations",
    ),
    "a list": (
        lambda raw: questions_file(raw).write_text("[]"),
        r"not a file of questions .*it holds a list",
    ),
    "another split": (
        lambda raw: shutil.copy(questions_file(raw, "val2014"), questions_file(raw)),
        r"its header says val2014, expected train2014",
    ),
    "repeated question": (
        lambda raw: edit_json(
            questions_file(raw), lambda value: value["questions"].append(value["questions"][0])
        ),
        r"question id \d+ occurs twice",
    ),
    "bad record": (
        lambda raw: edit_json(
            questions_file(raw), lambda value: value["questions"][4].update(image_id="x")
        ),
        r"record 4: Expected `int`, got `str` - at `\$.image_id`",
    ),
    "annotation lost": (
        lambda raw: edit_json(annotations_file(raw), lambda value: value["annotations"].pop(3)),
        r"do not belong together: 1 questions without annotation, 0 annotations",
    ),
    "annotation of another image": (
        lambda raw: edit_json(
            annotations_file(raw), lambda value: value["annotations"][3].update(image_id=1)
        ),
        r"is about image 1, .* says image",
    ),
    "no answers": (
        lambda raw: edit_json(
            annotations_file(raw), lambda value: value["annotations"][3].update(answers=[])
        ),
        r"has an empty list of answers",
    ),
    "feature missing": (
        lambda raw: sorted((raw / "vqa/feats/train2014").iterdir())[5].unlink(),
        r"questions of split 'train' have no image: features of 1 images are missing",
    ),
    "feature folder missing": (
        lambda raw: shutil.rmtree(raw / "vqa/feats/train2014"),
        r"no image features of train2014: expected one of",
    ),
    "feature folder of something else": (
        lambda raw: [
            path.rename(path.with_suffix(".txt"))
            for path in (raw / "vqa/feats/train2014").iterdir()
        ],
        r"no feature files; expected .npy, .npz or .pth .*found \d+ .txt",
    ),
    "two files of an image": (
        lambda raw: np.savez(
            raw / f"vqa/feats/train2014/{image_ids('train2014')[0]:09}.npz", x=grid_features(1)
        ),
        r"two files for image \d+",
    ),
    "file of another split": (
        lambda raw: np.save(
            raw / "vqa/feats/train2014/COCO_val2014_000000000001.npy", grid_features(1)
        ),
        r"a file of val2014 in the folder of train2014",
    ),
}


@pytest.mark.parametrize("case", BAD_RAW)
def test_bad_raw_file_is_named_before_anything_is_written(
    raw: Path, tmp_path: Path, case: str
) -> None:
    damage, message = BAD_RAW[case]
    damage(raw)
    with pytest.raises(RawDataError, match=message):
        prepare(prepare_config(raw, tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_options_that_do_not_fit(vqa_raw: Path, vqa_store: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"split": "train+dev"}, r"'dev' is no split of this dataset; it has train, val, test, vg"),
        ({"split": "train+train"}, r"a split is named twice"),
        ({"feature_dim": 2048}, r"--feature-dim 2048: .* has 12 channels"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(prepare_config(vqa_raw, tmp_path / "s", **changes))
    with pytest.raises(RawDataError, match=r"for a 16x16 grid"):
        prepare(prepare_config(vqa_raw, tmp_path / "s", grid=16))
    with pytest.raises(RawDataError, match=r"no such file; --answers takes"):
        prepare(prepare_config(vqa_raw, tmp_path / "s", answers=tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text('[{"yes": 0}, {"0": "no"}]')
    with pytest.raises(RawDataError, match=r"bad.json"):
        prepare(prepare_config(vqa_raw, tmp_path / "s", answers=tmp_path / "bad.json"))
    shutil.copytree(vqa_store, tmp_path / "old")
    message = r"holds 8x8 cells x 12, float16, this prepare would add .* float32"
    with pytest.raises(StoreError, match=message):
        prepare(prepare_config(vqa_raw, tmp_path / "old", split="val", dtype="float32"))
