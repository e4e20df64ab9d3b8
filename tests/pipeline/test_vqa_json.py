"""VQA-v2 question and annotation files: real ones, and everything that may stand in their place."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import RawDataError
from trar.pipeline.readers.vqa_json import read_annotations, read_questions

DATA = Path(__file__).parents[1] / "data"
SAMPLE = DATA / "vqa-sample"
FIXTURE = DATA / "allennlp-models/vqav2"


def question_file(path: Path, **changes: Any) -> Path:
    """A file of two questions, the second changed."""
    questions = [
        {"question_id": 9000, "image_id": 9, "question": "What is it?"},
        {"question_id": 9001, "image_id": 9, "question": "Where is it?", **changes},
    ]
    path.write_text(json.dumps({"data_subtype": "val2014", "questions": questions}))
    return path


def annotation_file(path: Path, **changes: Any) -> Path:
    """A file of two annotations, the second changed."""
    annotations = [
        {"question_id": 9000, "image_id": 9, "answers": [{"answer": "a cat"}]},
        {"question_id": 9001, "answers": [{"answer": one} for one in "xyyx"], **changes},
    ]
    path.write_text(json.dumps({"annotations": annotations}))
    return path


def test_real_files_are_read_in_their_order() -> None:
    path = SAMPLE / "v2_OpenEnded_mscoco_val2014_questions.json"
    raw = json.loads(path.read_text())["questions"]
    rows = read_questions(path, "val2014")
    assert list(rows.ids) == [one["question_id"] for one in raw]
    assert list(rows.image_ids) == [one["image_id"] for one in raw]
    assert rows.texts == [one["question"] for one in raw]
    assert rows.subtype == "val2014"
    path = SAMPLE / "v2_mscoco_val2014_annotations.json"
    raw = json.loads(path.read_text())["annotations"]
    columns = read_annotations(path, "val2014")
    assert list(columns.ids) == [one["question_id"] for one in raw]
    assert list(columns.image_ids) == [one["image_id"] for one in raw]
    assert columns.answers == [[a["answer"] for a in one["answers"]] for one in raw]
    assert columns.majority == [one["multiple_choice_answer"] for one in raw]
    assert columns.question_types == [one["question_type"] for one in raw]
    assert columns.answer_types == [one["answer_type"] for one in raw]


def test_annotations_without_the_optional_keys() -> None:
    """AllenNLP's excerpt has question ids and answers alone."""
    columns = read_annotations(FIXTURE / "annotations.json", "train2014")
    assert list(columns.ids) == [458752000, 458752001, 458752002]
    assert columns.majority == ["net", "pitcher", "orange"]
    assert list(columns.named) == [False] * 3
    assert columns.question_types == columns.answer_types == [""] * 3
    assert list(read_questions(FIXTURE / "questions.json", "train2014").image_ids) == [458752] * 3


def test_majority_is_the_first_of_equals(tmp_path: Path) -> None:
    columns = read_annotations(annotation_file(tmp_path / "a.json"), None)
    assert columns.majority == ["a cat", "x"]


def test_ids_as_digits(tmp_path: Path) -> None:
    path = question_file(tmp_path / "q.json", question_id="9001", image_id="000000000009")
    rows = read_questions(path, "val2014")
    assert list(rows.ids) == [9000, 9001]
    assert list(rows.image_ids) == [9, 9]
    path = annotation_file(tmp_path / "a.json", question_id="9001", image_id="9")
    columns = read_annotations(path, None)
    assert list(columns.ids) == [9000, 9001]
    assert list(columns.image_ids) == [9, 9]


def test_official_zips_are_read_without_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "v2_Questions_Test_mscoco.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for subtype, first in (("test2015", 1), ("test-dev2015", 2)):
            value = {
                "data_subtype": subtype,
                "questions": [{"question_id": first, "image_id": 1, "question": "?"}],
            }
            name = f"v2_OpenEnded_mscoco_{subtype}_questions.json"
            archive.writestr(name, json.dumps(value))
    assert list(read_questions(path, "test2015").ids) == [1]
    assert list(read_questions(path, "test-dev2015").ids) == [2]
    with pytest.raises(RawDataError, match=r"0 of its 2 .json members fit 'val2014_questions'"):
        read_questions(path, "val2014")
    path = tmp_path / "v2_Annotations_Val_mscoco.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        name = "v2_mscoco_val2014_annotations.json"
        archive.write(SAMPLE / name, name)
    assert read_annotations(path, "val2014") == read_annotations(SAMPLE / name, "val2014")


def test_file_of_another_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match="its header says val2014, expected train2014"):
        read_questions(question_file(tmp_path / "q.json"), "train2014")
    with pytest.raises(RawDataError, match="its header says val2014, expected train2014"):
        read_annotations(SAMPLE / "v2_mscoco_val2014_annotations.json", "train2014")


BAD_QUESTIONS = {
    "twice": ({"question_id": 9000}, "question id 9000 occurs twice"),
    "no image": ({"image_id": None}, r"record 1: Expected `int`, got `null` - at `\$.image_id`"),
    "image id float": ({"image_id": 9.0}, r"record 1: Expected `int`, got `float`"),
    "id beyond int64": ({"question_id": 2**63}, r"record 1: Expected `int` <="),
    "text missing": ({"question": None}, r"record 1: Expected `str`, got `null`"),
}


@pytest.mark.parametrize("case", BAD_QUESTIONS)
def test_bad_question_is_named(tmp_path: Path, case: str) -> None:
    changes, message = BAD_QUESTIONS[case]
    with pytest.raises(RawDataError, match=message):
        read_questions(question_file(tmp_path / "q.json", **changes), "val2014")


BAD_ANNOTATIONS = {
    "twice": ({"question_id": "9000"}, "question id 9000 occurs twice"),
    "no answers": ({"answers": []}, "question 9001 has an empty list of answers"),
    "answers are text": ({"answers": ["cat"]}, r"record 1: Expected `object`, got `str`"),
    "answer is a number": ({"answers": [{"answer": 3}]}, r"record 1: Expected `str`, got `int`"),
}


@pytest.mark.parametrize("case", BAD_ANNOTATIONS)
def test_bad_annotation_is_named(tmp_path: Path, case: str) -> None:
    changes, message = BAD_ANNOTATIONS[case]
    with pytest.raises(RawDataError, match=message):
        read_annotations(annotation_file(tmp_path / "a.json", **changes), None)


def test_other_files_under_these_names(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"not a file of questions .*its keys are annotations"):
        read_questions(annotation_file(tmp_path / "q.json"), None)
    with pytest.raises(RawDataError, match=r"not a file of annotations .*data_subtype, questions"):
        read_annotations(question_file(tmp_path / "a.json"), None)
    (tmp_path / "r.json").write_text('[{"question_id": 1, "answer": "x"}]')
    with pytest.raises(RawDataError, match="it holds a list of 1"):
        read_questions(tmp_path / "r.json", None)
    (tmp_path / "e.json").write_text('{"questions": []}')
    with pytest.raises(RawDataError, match="its list of questions is empty"):
        read_questions(tmp_path / "e.json", None)


@given(position=st.integers(0, 1300), value=st.binary(max_size=3), cut=st.integers(0, 3000))
def test_mutated_files_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.json"
    for name, read in (("questions", read_questions), ("annotations", read_annotations)):
        data = (FIXTURE / f"{name}.json").read_bytes()
        path.write_bytes((data[:position] + value + data[position + 1 :])[: cut or None])
        message = ""
        try:
            rows = read(path, "train2014")
        except RawDataError as error:
            message = str(error)
        else:
            assert len(rows.ids) == 3
        assert not message or (message.isprintable() and message.startswith(str(path)))
