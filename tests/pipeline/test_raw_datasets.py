"""Raw files of the datasets beside VQA v2.0 against the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from raw_folder import told

from trar.errors import RawDataError
from trar.pipeline.manifest import load_manifest
from trar.pipeline.raw_verify import verify_raw


def write_labels(raw: Path, name: str, ids: list[int], label: bool = True) -> None:
    rows = [
        {
            "question_id": one,
            "img_id": f"COCO_val2014_{one // 1000:012}",
            "sent": "What?",
            **({"label": {"yes": 1.0}} if label else {}),
        }
        for one in ids
    ]
    (raw / "vqa/lxmert").mkdir(exist_ok=True, parents=True)
    (raw / "vqa/lxmert" / name).write_text(json.dumps(rows))


def test_the_halves_of_val_belong_together(tmp_path: Path) -> None:
    write_labels(tmp_path, "minival.json", [9001, 9002])
    write_labels(tmp_path, "nominival.json", [9002, 25001])
    texts = [what for _, what in told(verify_raw(tmp_path, "vqa"), "warning")]
    assert "1 questions are in both (first: 9002): a leak" in texts
    assert "4 questions together, val2014 has 214,354: a part of it" in texts


def test_labels_are_looked_at(tmp_path: Path) -> None:
    write_labels(tmp_path, "minival.json", [9001, 5], label=False)
    said = [what for _, what in told(verify_raw(tmp_path, "vqa"))]
    assert "its questions have no labels: the test file?" in said


def write_clevr(
    raw: Path, split: str, images: list[int], *, answer: bool = True, header: str | None = None
) -> None:
    rows = [
        {
            "image_index": image,
            "image_filename": f"CLEVR_{split}_{image:06}.png",
            "split": split,
            "question_index": number,
            "question": "Are there any things?",
            **({"answer": "yes"} if answer else {}),
        }
        for number, image in enumerate(images)
    ]
    folder = raw / "clevr/raw/questions"
    folder.mkdir(parents=True, exist_ok=True)
    value = {"info": {"split": header or split, "version": "1.0"}, "questions": rows}
    (folder / f"CLEVR_{split}_questions.json").write_text(json.dumps(value))


def test_clevr_indices_run_from_zero(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", [0, 0, 1, 2, 4])
    texts = [what for _, what in told(verify_raw(tmp_path, "clevr", ["val"]), "warning")]
    assert texts == [
        "5 questions, the published file has 149,991: a part of it",
        "4 images, published are 15,000",
        "their indices do not run from 0 without a gap: 3 is the first one missing",
    ]


def test_clevr_of_another_split(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", [0], header="train")
    ((_, what),) = told(verify_raw(tmp_path, "clevr", ["val"]), "error")
    assert "its header says split 'train', expected 'val'" in what


def test_clevr_answers_where_they_belong(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", [0], answer=False)
    write_clevr(tmp_path, "test", [0], answer=True)
    findings = verify_raw(tmp_path, "clevr", ["val", "test"])
    assert told(findings, "error") == [
        (
            "CLEVR_val_questions.json",
            "its questions have no answers: a test file under this name?",
        )
    ]
    assert ("CLEVR_test_questions.json", "has answers, which the published test file has not") in (
        told(findings, "info")
    )
    write_clevr(tmp_path, "test", [0], answer=False)
    assert not told(verify_raw(tmp_path, "clevr", ["test"]), "info", "error")


def test_clevr_images_that_are_missing_from_their_folder(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", [0])
    folder = tmp_path / "clevr/raw/images/val"
    folder.mkdir(parents=True)
    for name in ("CLEVR_val_000000", "CLEVR_val_000002", "CLEVR_train_000001"):
        (folder / f"{name}.png").touch()
    (folder / "notes.txt").touch()
    texts = [what for name, what in told(verify_raw(tmp_path, "clevr", ["val"])) if name == "val"]
    assert texts == [
        "2 images, published are 15,000",
        "their indices do not run from 0 without a gap: 1 is the first one missing",
        "1 files are images of another split",
    ]


def test_clevr_features_are_of_their_split(tmp_path: Path) -> None:
    write_clevr(tmp_path, "train", [0, 1])
    write_clevr(tmp_path, "val", [0])

    def ids(image_split: str) -> NDArray[np.int64]:
        return np.array([0], np.int64)

    ((file, what),) = told(verify_raw(tmp_path, "clevr", image_ids=ids), "error")
    assert file == "train questions and features of train"
    assert "1 questions are about 1 images that have no features (first: 1)" in what


def test_clevr_scenes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "CLEVR_val_scenes.json").write_text(json.dumps({"scenes": [{}] * 15_000}))
    findings = verify_raw(tmp_path, "clevr", ["val"])
    assert ("CLEVR_val_scenes.json", "scenes of val, as many as published") in told(findings, "ok")


def test_easy_vqa_questions_are_counted(tmp_path: Path) -> None:
    (tmp_path / "easy-vqa/train").mkdir(parents=True)
    rows = [["is it red?", "no", 0]] * 38_575
    (tmp_path / "easy-vqa/train/questions.json").write_text(json.dumps(rows))
    findings = verify_raw(tmp_path, "easy-vqa")
    assert told(findings, "ok") == [("questions.json", "questions of train, as many as published")]


def test_refcoco_and_glove_are_found(tmp_path: Path) -> None:
    (tmp_path / "refcoco/refcoco").mkdir(parents=True)
    (tmp_path / "refcoco/refcoco/refs(unc).p").write_bytes(b"pickle")
    ((name, what),) = told(verify_raw(tmp_path, "refcoco"), "ok")
    assert (name, what) == ("refs(unc).p", "6 bytes; its contents are not judged here")
    (tmp_path / "glove.840B.300d.txt").write_text("the 0.1")
    assert [name for name, _ in told(verify_raw(tmp_path, "glove"), "ok")] == [
        "glove.840B.300d.txt"
    ]


@pytest.mark.parametrize("dataset", list(load_manifest().datasets))
def test_an_empty_folder_is_absent_not_wrong(tmp_path: Path, dataset: str) -> None:
    findings = verify_raw(tmp_path, dataset)
    assert {one.status for one in findings} <= {"absent"}
    with pytest.raises(RawDataError, match="nowhere: no such folder; point --raw at"):
        verify_raw(tmp_path / "nowhere", dataset)
