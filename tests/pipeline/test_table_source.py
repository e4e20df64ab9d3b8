"""A user's own table as a dataset: splits, rule, and which feature file is which image's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import RawDataError
from trar.pipeline.sources.table import ImageNames, TableSource


def table(path: Path, *rows: str, header: str = "image,question,answers,split") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_splits_keep_their_rows(tmp_path: Path) -> None:
    path = table(
        tmp_path / "mine.csv",
        "9,What?,cat,train",
        "10,Who?,dog,val",
        "9,Where?,here,train",
        "11,When?,,test",
        "12,Why?,,test",
    )
    source = TableSource(tmp_path)
    assert source.splits == ("train", "val", "test")
    assert source.present() == ["train", "val", "test"]
    assert source.answer_splits() == ["train", "val"]
    assert source.rule == "exact"
    assert source.min_count == 1
    train = source.questions("train")
    assert (train.ids, train.image_ids, train.texts) == ([0, 2], [9, 9], ["What?", "Where?"])
    assert train.answers == [("cat",), ("here",)]
    assert source.majority("train") == ["cat", "here"]
    assert source.texts("test") == ["When?", "Why?"]
    assert source.questions("test").answers is None
    assert source.questions("test").answer_types == ()
    assert source.files("val") == {"mine.csv": path}
    assert source.image_splits("train") == source.image_splits("test") == ["images"]
    assert source.source_of("train") != source.source_of("test")
    assert source.vocabulary_note() is None
    with pytest.raises(RawDataError, match=r"no split 'dev'; its splits are train, val, test"):
        source.questions("dev")


def test_more_than_one_answer_makes_the_rule_vqa(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", "9,What?,cat|dog|dog|cat,train", "9,Who?,me,train")
    source = TableSource(tmp_path)
    assert source.rule == "vqa"
    assert source.majority("train") == ["cat", "me"]  # the first of equals


def test_answers_of_test_alone(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", "9,What?,cat,test")
    assert TableSource(tmp_path).answer_splits() == ["test"]


@pytest.mark.parametrize(
    ("name", "split"), [("val.csv", "val"), ("questions.csv", "train"), ("test.v2.csv", "train")]
)
def test_split_of_a_table_without_that_column(tmp_path: Path, name: str, split: str) -> None:
    path = table(tmp_path / name, "9,What?,cat", header="image,question,answer")
    assert TableSource(tmp_path).splits == (split,)
    assert TableSource(path).splits == (split,)  # --raw may be the table itself


def test_types_are_kept(tmp_path: Path) -> None:
    header = "image,question,answer,question_type,answer_type"
    table(tmp_path / "t.csv", "9,Is it?,yes,is it,yes/no", header=header)
    questions = TableSource(tmp_path).questions("train")
    assert (questions.types, questions.answer_types) == (["is it"], ["yes/no"])


def test_the_only_table_is_found(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"no table, expected one \.csv, \.tsv, .*--questions"):
        TableSource(tmp_path)
    (tmp_path / "features.tsv").write_text("not looked at")
    with pytest.raises(RawDataError, match="no table"):
        TableSource(tmp_path)
    one = table(tmp_path / "one.csv", "9,What?,cat,train")
    assert TableSource(tmp_path).path == one
    two = table(tmp_path / "two.jsonl", "9,What?,cat,train")
    with pytest.raises(RawDataError, match=r"2 tables \(one.csv, two.jsonl\), expected one"):
        TableSource(tmp_path)
    assert TableSource(tmp_path, two).path == two
    with pytest.raises(RawDataError, match=r"three.csv: no such file"):
        TableSource(tmp_path, tmp_path / "three.csv")


def test_names_get_their_sorted_position_over_all_splits(tmp_path: Path) -> None:
    table(
        tmp_path / "t.csv",
        "photos/7a.png,What?,cat,train",
        "cat.jpg,Who?,dog,val",
        "9,Where?,here,train",
    )
    source = TableSource(tmp_path)
    names = source.image_names("images")
    assert names == ["9", "cat.jpg", "photos/7a.png"]
    assert source.questions("train").image_ids == [2, 0]
    assert source.questions("val").image_ids == [1]


def test_numbers_and_coco_names_are_ids() -> None:
    images = ImageNames.of(
        ["7", "COCO_val2014_000000000009.jpg", "007", "COCO_val2014_000000000010"]
    )
    assert images.ids == [7, 9, 7, 10]
    assert images.names is None
    assert images.identify("COCO_train2014_000000000009.jpg.npz") == (None, 9)
    assert images.identify("10.npy") == (None, 10)
    assert images.identify("folder/10.npy") == (None, 10)
    assert images.identify("cat.npy") is None
    assert images.identify("10") is None


@pytest.mark.parametrize(
    "names",
    [
        ["7", "cat.jpg"],
        ["7.jpg", "8.jpg"],
        ["COCO_train2014_000000000009", "COCO_val2014_000000000009"],  # one id for two images
        ["9", "COCO_val2014_000000000009"],
        ["-7"],
    ],
)
def test_other_names_are_names(names: list[str]) -> None:
    images = ImageNames.of(names)
    assert images.names == sorted(names)
    assert images.ids == [sorted(names).index(name) for name in names]


def test_feature_files_are_known_by_the_names_of_their_images() -> None:
    images = ImageNames.of(["photos/7a.png", "cat.jpg", "dog.v2.jpeg", "cow", "c:\\own\\pig.gif"])
    assert images.names is not None
    for file, image in {
        "7a.npy": "photos/7a.png",
        "7a.png.npz": "photos/7a.png",
        "photos/7a.npy": "photos/7a.png",
        "features/7a.pth": "photos/7a.png",
        "cat.npz": "cat.jpg",
        "dog.v2.npy": "dog.v2.jpeg",
        "cow.npy": "cow",
        "pig.npy": "c:\\own\\pig.gif",
    }.items():
        assert images.identify(file) == (None, images.names.index(image)), file
    for foreign in ("horse.npy", "cat.jpg", "cat", "photos/7a.png", "readme.txt"):
        assert images.identify(foreign) is None


def test_a_table_may_name_the_feature_files_themselves() -> None:
    images = ImageNames.of(["photos/7a.npy", "cat.npz"])
    assert images.names == ["cat.npz", "photos/7a.npy"]
    assert images.identify("7a.npy") == (None, 1)
    assert images.identify("cat.npz") == (None, 0)


def write_features(folder: Path, *names: str) -> None:
    folder.mkdir()
    for number, name in enumerate(names):
        np.save(folder / name, np.full((4, 3), number, np.float32))


@pytest.mark.parametrize("folder", ["features", "feats", "images"])
def test_features_are_found(tmp_path: Path, folder: str) -> None:
    table(tmp_path / "t.csv", "dog.jpg,What?,dog,train", "cat.jpg,What?,cat,train")
    write_features(tmp_path / folder, "dog.npy", "cat.jpg.npy")
    (tmp_path / folder / "cat.jpg").write_text("a picture")
    images = TableSource(tmp_path).images("images")
    assert images.ids.tolist() == [0, 1]
    assert [Path(images.name(row)).name for row in (0, 1)] == ["cat.jpg.npy", "dog.npy"]


def test_given_features(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "COCO_val2014_000000000009.jpg,What?,dog,train")
    write_features(tmp_path / "mine", "COCO_val2014_000000000009.jpg.npy")
    assert TableSource(tmp_path, path, tmp_path / "mine").images("images").ids.tolist() == [9]
    with pytest.raises(RawDataError, match=r"expected one of .*nothing.*say where they are with"):
        TableSource(tmp_path, path, tmp_path / "nothing").images("images")
    with pytest.raises(RawDataError, match=r"expected one of .*features, .*feats, .*images; put"):
        TableSource(tmp_path).images("images")


def test_two_images_of_one_stem() -> None:
    images = ImageNames.of(["a/7.png", "b/7.png", "cat.jpg", "cat.png"])
    assert images.identify("a/7.npy") == (None, 0)
    assert images.identify("b/7.png.npy") == (None, 1)
    assert images.identify("cat.jpg.npy") == (None, 2)
    with pytest.raises(RawDataError, match=r"7.npy: features of a/7.png or of b/7.png\?"):
        images.identify("7.npy")
    with pytest.raises(RawDataError, match=r"cat.npz: features of cat.jpg or of cat.png\?"):
        images.identify("cat.npz")


@given(st.lists(st.text("abc7/.", min_size=1, max_size=6), min_size=1, max_size=6))
def test_every_image_finds_the_file_named_after_it(names: list[str]) -> None:
    images = ImageNames.of(names)
    for name, image_id in zip(names, images.ids, strict=True):
        assert images.identify(f"{name}.npy") == (None, image_id)
    assert pickle.loads(pickle.dumps(images)) == images
