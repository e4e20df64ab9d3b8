"""CLEVR's folder trees: which file is which split's, and what comes out of it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from clevr_raw import clevr_questions, write_clevr

from trar.errors import RawDataError
from trar.pipeline.sources.clevr import SPLITS, ClevrSource

ANSWERS = {"train": ["red", "yes", "red"], "val": ["0", "yes"], "test": None}


TREES = {
    "openvqa and TRAR": "clevr/raw/questions",
    "release": "CLEVR_v1.0/questions",
    "release below clevr": "clevr/CLEVR_v1.0/questions",
    "questions": "questions",
    "flat": ".",
}


@pytest.mark.parametrize("tree", TREES)
def test_every_tree(tmp_path: Path, tree: str) -> None:
    for split, answers in ANSWERS.items():
        write_clevr(tmp_path / TREES[tree], split, answers)
    source = ClevrSource(tmp_path)
    assert source.present() == ["train", "val", "test"]
    assert source.vocabulary_note() is None
    assert source.answer_splits() == ["train", "val"]
    assert source.majority("train") == ["red", "yes", "red"]
    assert source.texts("test") == ["Is test 0 red?", "Is test 1 red?"]
    found = source.questions("val")
    assert found.answers == [("0",), ("yes",)]
    assert found.image_ids == [0, 0]
    assert found.types == ["exist", "exist"]
    assert source.questions("test").answers is None
    name = "CLEVR_val_questions.json"
    assert source.files("val") == {name: tmp_path / TREES[tree] / name}


def test_numbers_that_start_again_in_each_split_are_kept_apart() -> None:
    source = ClevrSource(Path("nowhere"))
    assert [source.image_splits(split) for split in SPLITS] == [[split] for split in SPLITS]
    assert len({source.source_of(split) for split in SPLITS}) == len(SPLITS)
    assert source.image_names("train") is None
    assert (source.rule, source.min_count, source.grid) == ("exact", 1, 14)


def test_released_zips_are_read_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "clevr").mkdir()
    path = tmp_path / "clevr/CLEVR_v1.0_no_images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, answers in ANSWERS.items():
            name = f"CLEVR_v1.0/questions/CLEVR_{split}_questions.json"
            archive.writestr(name, clevr_questions(split, answers))
            archive.writestr(f"CLEVR_v1.0/scenes/CLEVR_{split}_scenes.json", "{}")
    source = ClevrSource(tmp_path)
    assert source.present() == ["train", "val", "test"]
    assert source.majority("val") == ["0", "yes"]
    assert source.files("test") == {path.name: path}
    given = ClevrSource(Path("nowhere"), questions=[path])
    assert given.present() == ["train", "val", "test"]
    assert given.questions("train") == source.questions("train")


def test_cogent(tmp_path: Path) -> None:
    folder = tmp_path / "CLEVR_CoGenT_v1.0/questions"
    for split in ("valB", "testA", "valA", "trainA"):
        write_clevr(folder, split, None if split.startswith("test") else ["yes"])
    source = ClevrSource(tmp_path)
    assert source.present() == ["trainA", "valA", "testA", "valB"]
    assert source.answer_splits() == ["trainA", "valA"]
    assert source.vocabulary_note() is None
    write_clevr(tmp_path / "CLEVR_v1.0/questions", "train", ["no"])
    source = ClevrSource(tmp_path)
    assert source.present()[:2] == ["train", "trainA"]
    assert source.answer_splits() == ["train"]
    assert "without the questions of val, test" in (source.vocabulary_note() or "")


def test_only_condition_b(tmp_path: Path) -> None:
    write_clevr(tmp_path, "valB", ["yes"])
    assert ClevrSource(tmp_path).answer_splits() == ["valB"]


def test_given_files_belong_to_the_split_that_they_name(tmp_path: Path) -> None:
    one, two = tmp_path / "a.json", tmp_path / "CLEVR_test_questions.json"
    one.write_text(clevr_questions("val", ["yes"]))
    two.write_text(clevr_questions("test", None, named=False))
    source = ClevrSource(tmp_path / "nowhere", questions=[one, two])
    assert source.present() == ["val", "test"]
    assert source.majority("val") == ["yes"]
    assert source.files("test") == {two.name: two}


def test_given_files_of_no_split_or_of_one_twice(tmp_path: Path) -> None:
    one, two = tmp_path / "a.json", tmp_path / "b.json"
    one.write_text(clevr_questions("new", ["yes"]))
    with pytest.raises(RawDataError, match=r"a.json: questions of split 'new', expected one of tr"):
        ClevrSource(tmp_path, questions=[one])
    one.write_text(clevr_questions("val", ["yes"], named=False))
    with pytest.raises(RawDataError, match=r"questions of split None, expected .*where it names"):
        ClevrSource(tmp_path, questions=[one])
    for path in (one, two):
        path.write_text(clevr_questions("val", ["yes"]))
    with pytest.raises(RawDataError, match=r"a.json and .*b.json both hold the questions of val"):
        ClevrSource(tmp_path, questions=[one, two])
    with pytest.raises(RawDataError, match=r"c.json: no such file"):
        ClevrSource(tmp_path, questions=[tmp_path / "c.json"])


def test_missing_split_says_where_it_may_stand(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", ["yes"])
    message = (
        r"no questions of CLEVR's split 'train' \(there are val\): expected one of .*clevr/raw"
    )
    for read in (ClevrSource.questions, ClevrSource.files, ClevrSource.texts):
        with pytest.raises(RawDataError, match=message):
            read(ClevrSource(tmp_path), "train")


def test_file_of_another_split_under_the_name(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", ["yes"]).rename(tmp_path / "CLEVR_train_questions.json")
    source = ClevrSource(tmp_path)
    with pytest.raises(RawDataError, match="its header says split 'val', expected 'train'"):
        source.questions("train")


def write_features(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        np.save(folder / name, np.ones((4, 3), np.float32))


@pytest.mark.parametrize("folder", ["clevr/feats/val", "feats/val", "features/val", "val"])
def test_features_are_found(tmp_path: Path, folder: str) -> None:
    write_features(tmp_path / folder, "0.npy", "12.npy", "CLEVR_val_000003.png.npy")
    assert ClevrSource(tmp_path).images("val").ids.tolist() == [0, 3, 12]
    with pytest.raises(RawDataError, match=r"no image features of train: expected one of .*feats"):
        ClevrSource(tmp_path).images("train")


def test_given_features_with_a_folder_for_each_split(tmp_path: Path) -> None:
    write_features(tmp_path / "mine/train", "0.npy", "1.npy")
    write_features(tmp_path / "mine/val", "0.npy")
    source = ClevrSource(tmp_path, features=tmp_path / "mine")
    assert source.images("train").ids.tolist() == [0, 1]
    assert source.images("val").ids.tolist() == [0]


def test_given_folder_of_several_splits(tmp_path: Path) -> None:
    write_features(tmp_path / "mine", "CLEVR_train_000000.npy", "CLEVR_val_000000.npy")
    source = ClevrSource(tmp_path, features=tmp_path / "mine")
    for split in ("train", "val"):
        images = source.images(split)
        assert Path(images.name(0)).name == f"CLEVR_{split}_000000.npy"


def test_numbered_files_of_one_folder_cannot_serve_two_splits(tmp_path: Path) -> None:
    write_features(tmp_path / "mine", "0.npy")
    source = ClevrSource(tmp_path, features=tmp_path / "mine")
    assert source.images("train").ids.tolist() == [0]
    assert source.images("train").ids.tolist() == [0]
    with pytest.raises(RawDataError, match=r"0.npy: an image of train or of val\? CLEVR's image n"):
        source.images("val")
