"""Raw files that change after a store is finished: re-made in one step, the rest not read again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from raw_data import edit_json, grid_features, image_ids, prepare_config, tree, write_features

from trar.errors import RawDataError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.remake import is_ready, remake_folder
from trar.pipeline import prepare

IDS = image_ids("val2014")


@pytest.fixture
def store(raw: Path, tmp_path: Path) -> Path:
    prepare(prepare_config(raw, tmp_path / "s"))
    return tmp_path / "s"


def feature_file(raw: Path, image_split: str, image_id: int) -> Path:
    folder = raw / "vqa/feats" / image_split
    found = [*folder.glob(f"*{image_id:012}*"), *folder.glob(f"{image_id}.np?")]
    return found[0]


def replace_feature(raw: Path, image_split: str, image_id: int, add: float) -> None:
    feature_file(raw, image_split, image_id).unlink()
    path = raw / "vqa/feats" / image_split / f"{image_id}.npy"
    np.save(path, grid_features(image_id) + np.float32(add))


def test_one_changed_image_remakes_one_shard(raw: Path, store: Path, tmp_path: Path) -> None:
    replace_feature(raw, "val2014", IDS[25], 1)
    unreadable = [feature_file(raw, "val2014", one) for one in (IDS[0], IDS[50])]
    contents = [path.read_bytes() for path in unreadable]
    moments = [path.stat() for path in unreadable]
    for path, moment in zip(unreadable, moments, strict=True):  # the same size and time
        path.write_bytes(b"?" * moment.st_size)
        os.utime(path, ns=(moment.st_atime_ns, moment.st_mtime_ns))
    result = prepare(prepare_config(raw, store))
    assert result.remade == ["val2014"]
    for path, moment, content in zip(unreadable, moments, contents, strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(moment.st_atime_ns, moment.st_mtime_ns))
    prepare(prepare_config(raw, tmp_path / "fresh"))
    assert tree(store) == tree(tmp_path / "fresh")
    assert verify_store(store) == []
    assert not (store / "vqa/.prepare").exists()
    assert prepare(prepare_config(raw, store)).remade == []


def test_changed_questions_are_remade_with_the_frozen_vocabulary(raw: Path, store: Path) -> None:
    frozen = FeatureStore(store).vocabulary.digest
    path = raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json"
    edit_json(path, lambda value: value["questions"][2].update(question="Is a quokka here?"))
    result = prepare(prepare_config(raw, store))
    assert result.remade == ["val"]
    opened = FeatureStore(store)
    assert opened.questions("val").texts[2] == "Is a quokka here?"
    assert opened.vocabulary.digest == frozen
    assert opened.meta.question_splits["val"].unknown_tokens == 1
    assert verify_store(store) == []


def test_added_images_move_rows_and_join_again(raw: Path, store: Path, tmp_path: Path) -> None:
    write_features(raw / "vqa/feats/val2014", "val2014", 3, 2)  # the lowest id: every row moves
    prepare(prepare_config(raw, store))
    prepare(prepare_config(raw, tmp_path / "fresh"))
    assert tree(store) == tree(tmp_path / "fresh")
    assert verify_store(store) == []


def test_questions_that_are_not_asked_for_are_not_left_behind(raw: Path, tmp_path: Path) -> None:
    ids = [image_ids("train2014")[1], IDS[1]]
    entries = [{"question_id": n, "image_id": one, "question": "So?"} for n, one in enumerate(ids)]
    answers = [{"question_id": n, "answers": [{"answer": "no"}] * 10} for n in range(2)]
    (raw / "vqa/raw/VG_questions.json").write_text(json.dumps({"questions": entries}))
    (raw / "vqa/raw/VG_annotations.json").write_text(json.dumps({"annotations": answers}))
    prepare(prepare_config(raw, tmp_path / "s", split="train+val+vg"))
    write_features(raw / "vqa/feats/val2014", "val2014", 3, 2)
    before = tree(tmp_path / "s")
    with pytest.raises(StoreError, match=r"questions of vg refer to it; prepare them together: "):
        prepare(prepare_config(raw, tmp_path / "s", split="train+val"))
    assert tree(tmp_path / "s") == before
    prepare(prepare_config(raw, tmp_path / "s", split="train+val+vg"))
    prepare(prepare_config(raw, tmp_path / "fresh", split="train+val+vg"))
    assert tree(tmp_path / "s") == tree(tmp_path / "fresh")


def test_bad_new_image_leaves_the_store_as_it_was(raw: Path, store: Path) -> None:
    before = tree(store)
    replace_feature(raw, "val2014", IDS[25], np.nan)
    with pytest.raises(RawDataError, match="NaN"):
        prepare(prepare_config(raw, store))
    assert {name: one for name, one in tree(store).items() if ".prepare" not in name} == before
    assert FeatureStore(store).dataset == "vqa"
    replace_feature(raw, "val2014", IDS[25], 0)
    prepare(prepare_config(raw, store))
    assert verify_store(store) == []


def test_bad_new_image_may_be_left_out(raw: Path, store: Path, tmp_path: Path) -> None:
    replace_feature(raw, "val2014", IDS[25], np.nan)
    prepare(prepare_config(raw, store, on_bad_image="skip"))
    assert list(FeatureStore(store).skipped("val2014")) == [IDS[25]]
    prepare(prepare_config(raw, tmp_path / "fresh", on_bad_image="skip"))
    assert tree(store) == tree(tmp_path / "fresh")
    replace_feature(raw, "val2014", IDS[25], 2)
    prepare(prepare_config(raw, store))
    assert FeatureStore(store).skipped("val2014") == {}
    assert verify_store(store) == []


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_move_that_is_stopped_is_completed_by_the_next_prepare(
    raw: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    replace_feature(raw, "val2014", IDS[25], 1)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", _at_move(number))
        with pytest.raises(KeyboardInterrupt):
            prepare(prepare_config(raw, store))
    assert is_ready(store / "vqa")
    if number > 1:
        with pytest.raises(StoreError, match="unfinished store"):
            FeatureStore(store)
    prepare(prepare_config(raw, store))
    prepare(prepare_config(raw, tmp_path / "fresh"))
    assert tree(store) == tree(tmp_path / "fresh")


def _at_move(number: int) -> Callable[[Path, Path], Path]:
    """Counts only moves into the store, and stops at one."""
    count = 0
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal count
        moving = "remake" in self.parts and "remake" not in Path(target).parts
        if moving or (self.name == "store.json" and Path(target).name.endswith(".before")):
            count += 1
            if count == number:
                raise KeyboardInterrupt
        return real(self, target)

    return replace


def test_leftovers_of_a_try_that_is_no_longer_wanted_are_dropped(raw: Path, store: Path) -> None:
    path = feature_file(raw, "val2014", IDS[25])
    moment, content = path.stat(), path.read_bytes()
    before = tree(store)
    path.write_bytes(b"damaged")
    with pytest.raises(RawDataError):
        prepare(prepare_config(raw, store))
    assert remake_folder(store / "vqa").exists()
    path.write_bytes(content)
    os.utime(path, ns=(moment.st_atime_ns, moment.st_mtime_ns))
    assert prepare(prepare_config(raw, store)).made == []
    assert not remake_folder(store / "vqa").exists()
    assert {name: one for name, one in tree(store).items() if ".prepare" not in name} == before
