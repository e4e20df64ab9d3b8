"""Questions and annotations of VQA-v2 are joined by id, in the order of the question file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from raw_data import SAMPLE, edit_json

from trar.errors import RawDataError
from trar.pipeline.sources.base import Questions
from trar.pipeline.sources.vqa import VqaSource

ANNOTATIONS = "v2_mscoco_train2014_annotations.json"
QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The question and annotation files of the sample's train split."""
    (tmp_path / "vqa/raw").mkdir(parents=True)
    for name in (ANNOTATIONS, QUESTIONS):
        (tmp_path / "vqa/raw" / name).write_bytes((SAMPLE / name).read_bytes())
    return tmp_path


def columns(questions: Questions) -> list[list[object]]:
    """All columns as plain lists."""
    assert questions.answers is not None
    return [
        list(questions.ids),
        list(questions.image_ids),
        list(questions.texts),
        list(questions.types),
        list(questions.answers),
        list(questions.majority),
        list(questions.answer_types),
    ]


def test_annotations_in_another_order_give_the_same_questions(raw: Path) -> None:
    expected = columns(VqaSource(raw).questions("train"))
    edit_json(raw / "vqa/raw" / ANNOTATIONS, lambda file: file["annotations"].reverse())
    assert columns(VqaSource(raw).questions("train")) == expected
    file = json.loads((SAMPLE / ANNOTATIONS).read_text())["annotations"]
    of_id = {one["question_id"]: one for one in file}
    assert expected[4] == [[a["answer"] for a in of_id[one]["answers"]] for one in expected[0]]


def test_rows_of_questions_are_taken_from_every_column(raw: Path) -> None:
    questions = VqaSource(raw).questions("train")
    rows = [5, 0, 9]
    taken = questions.take(rows)
    assert columns(taken) == [[one[row] for row in rows] for one in columns(questions)]
    assert columns(questions.take(np.array(rows).tolist())) == columns(taken)
    plain = Questions([1, 2], [3, 4], ["a", "b"], ["", ""]).take([1])
    assert plain == Questions([2], [4], ["b"], [""])


def test_questions_and_annotations_of_other_files(raw: Path) -> None:
    path = raw / "vqa/raw" / ANNOTATIONS
    first = json.loads(path.read_text())["annotations"][0]["question_id"]
    edit_json(path, lambda file: file["annotations"][0].update(question_id=1))
    message = (
        f"do not belong together: 1 questions without annotation, 1 annotations without question; "
        f"question {first} has no annotation; annotation 1 has no question"
    )
    with pytest.raises(RawDataError, match=message):
        VqaSource(raw).questions("train")
    edit_json(path, lambda file: file["annotations"].pop(0))
    edit_json(raw / "vqa/raw" / QUESTIONS, lambda file: file["questions"].pop(0))
    edit_json(raw / "vqa/raw" / QUESTIONS, lambda file: file["questions"].pop(3))
    with pytest.raises(RawDataError, match="0 questions without annotation, 1 annotations"):
        VqaSource(raw).questions("train")


def test_an_annotation_about_another_image_is_named(raw: Path) -> None:
    path = raw / "vqa/raw" / ANNOTATIONS
    row = json.loads(path.read_text())["annotations"][2]
    edit_json(path, lambda file: file["annotations"][2].update(image_id=-1))
    message = f"question {row['question_id']} is about image -1, .* says image {row['image_id']};"
    with pytest.raises(RawDataError, match=message):
        VqaSource(raw).questions("train")
    edit_json(path, lambda file: file["annotations"][2].pop("image_id"))
    assert row["question_id"] in list(VqaSource(raw).questions("train").ids)
