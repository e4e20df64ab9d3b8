"""--on-bad-image: one unreadable image ends the work, or is left out, counted and listed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from raw_data import image_ids, tree
from raw_forms import folder_of_npz, region_count

from trar.errors import RawDataError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.audit import audit_store
from trar.pipeline import PrepareConfig, PrepareResult, prepare

IDS = image_ids("val2014")
DAMAGED, EMPTY, ABSENT = IDS[3], IDS[40], IDS[70]


def damage(folder: Path) -> None:
    """One file cut short, one of NaN, one missing."""
    path = folder / f"COCO_val2014_{DAMAGED:012}.jpg.npz"
    path.write_bytes(path.read_bytes()[:300])
    np.savez(folder / f"COCO_val2014_{EMPTY:012}.jpg.npz", x=np.full((48, 6), np.nan, np.float32),
             bbox=np.zeros((6, 4), np.float32))  # fmt: skip
    (folder / f"COCO_val2014_{ABSENT:012}.jpg.npz").unlink()


@pytest.fixture
def raw(vqa_raw: Path, tmp_path: Path) -> Path:
    """Regions of the val images, three of them bad."""
    (tmp_path / "data/vqa").mkdir(parents=True)
    (tmp_path / "data/vqa/raw").symlink_to(vqa_raw / "vqa/raw")
    folder_of_npz(tmp_path / "data/vqa/feats/val2014", "val2014", IDS)
    damage(tmp_path / "data/vqa/feats/val2014")
    return tmp_path / "data"


def run(raw: Path, store: Path, **changes) -> PrepareResult:
    settings = {"split": "val", "on_bad_image": "skip", "workers": 0, "shard_images": 30, **changes}
    return prepare(PrepareConfig(raw=raw, store=store, **settings))


def test_without_skip_a_missing_or_bad_image_ends_it(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=rf"{DAMAGED:012}.*cut short at 300 bytes"):
        run(raw, tmp_path / "s", on_bad_image="error")
    folder_of_npz(raw / "vqa/feats/val2014", "val2014", [DAMAGED])
    with pytest.raises(RawDataError, match="features of 1 images are missing from val2014"):
        run(raw, tmp_path / "s", on_bad_image="error")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("layout", ["regions", "ragged"])
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_go_with_their_questions(
    raw: Path, tmp_path: Path, layout: str, workers: int
) -> None:
    result = run(raw, tmp_path / "s", layout=layout, workers=workers)
    store = FeatureStore(tmp_path / "s")
    left_out = store.skipped("val2014")
    assert sorted(left_out) == [DAMAGED, EMPTY, ABSENT]
    assert left_out[ABSENT] == "no features"
    assert "288 of 288 values are NaN" in left_out[EMPTY]
    assert str(tmp_path) not in (tmp_path / "s/vqa/store.json").read_text()
    table = store.questions("val")
    asked = store.image_ids("val2014")[table.image_row]
    assert not set(asked.tolist()) & set(left_out)
    text = (raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json").read_text()
    every = json.loads(text)["questions"]
    kept = [one["question_id"] for one in every if one["image_id"] not in left_out]
    assert table.ids.tolist() == kept
    warning = next(line for line in result.warnings if "3 images left out" in line)
    assert f"{DAMAGED}: " in warning
    row = store.image_ids("val2014").tolist().index(DAMAGED)
    with pytest.raises(StoreError, match=rf"image {DAMAGED} of val2014 was left out when"):
        store.read("val2014", [row])
    assert verify_store(tmp_path / "s") == []
    told = [one for one in audit_store(tmp_path / "s") if "were left out" in one.what]
    assert [(one.level, one.where) for one in told] == [("warning", "val2014")]
    assert f"{DAMAGED}: " in told[0].what


def test_first_image_may_be_the_bad_one(raw: Path, tmp_path: Path) -> None:
    first = raw / f"vqa/feats/val2014/COCO_val2014_{IDS[0]:012}.jpg.npz"
    first.write_bytes(b"")
    run(raw, tmp_path / "s")
    assert IDS[0] in FeatureStore(tmp_path / "s").skipped("val2014")


def test_nothing_readable_is_an_error_even_so(raw: Path, tmp_path: Path) -> None:
    for path in (raw / "vqa/feats/val2014").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RawDataError, match="an empty file"):
        run(raw, tmp_path / "s")


def test_skipping_with_nothing_bad_changes_no_feature(raw: Path, tmp_path: Path) -> None:
    folder_of_npz(raw / "vqa/feats/val2014", "val2014", IDS, region_count)
    run(raw, tmp_path / "skip")
    run(raw, tmp_path / "error", on_bad_image="error")
    assert tree(tmp_path / "skip") == tree(tmp_path / "error")


def test_questions_added_later_leave_the_same_images_out(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "s")
    entries = [
        {"question_id": 5, "image_id": DAMAGED, "question": "What is it?"},
        {"question_id": 6, "image_id": IDS[5], "question": "What is it?"},
    ]
    folder = raw / "own"
    folder.mkdir()
    (folder / "VG_questions.json").write_text(json.dumps({"questions": entries}))
    answers = [
        {"question_id": one["question_id"], "answers": [{"answer": "no"}]} for one in entries
    ]
    (folder / "VG_annotations.json").write_text(json.dumps({"annotations": answers}))
    given = (folder / "VG_questions.json", folder / "VG_annotations.json")
    folder_of_npz(raw / "vqa/feats/train2014", "train2014", [999999])
    prepare(
        PrepareConfig(
            raw=raw,
            store=tmp_path / "s",
            split="vg",
            questions=given,
            features=raw / "vqa/feats",
            on_bad_image="skip",
            workers=0,
        )
    )
    assert FeatureStore(tmp_path / "s").questions("vg").ids.tolist() == [6]
    assert verify_store(tmp_path / "s") == []
