"""LXMERT's question files: labels with scores, questions without a target, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import RawDataError
from trar.pipeline.readers.lxmert_json import read_lxmert

# the first three questions of VQA-v2 train2014 as LXMERT writes them
ROWS: list[dict[str, Any]] = [
    {
        "answer_type": "other",
        "img_id": "COCO_train2014_000000458752",
        "label": {"net": 1},
        "question_id": 458752000,
        "question_type": "what is this",
        "sent": "What is this photo taken looking through?",
    },
    {
        "answer_type": "other",
        "img_id": "COCO_train2014_000000458752",
        "label": {"catcher": 0.3, "pitcher": 1.0, "throwing": 1},
        "question_id": 458752001,
        "question_type": "what",
        "sent": "What position is this man playing?",
    },
    {
        "answer_type": "yes/no",
        "img_id": "COCO_val2014_000000262148",
        "label": {},
        "question_id": 262148000,
        "question_type": "is the",
        "sent": "Is the dog waiting?",
    },
]


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_labels_become_answers_with_scores(tmp_path: Path) -> None:
    rows = read_lxmert(write(tmp_path / "minival.json", ROWS))
    questions = rows.questions
    assert rows.image_splits == ["train2014", "val2014"]
    assert list(questions.ids) == [458752000, 458752001, 262148000]
    assert list(questions.image_ids) == [458752, 458752, 262148]
    assert questions.texts == [row["sent"] for row in ROWS]
    assert questions.types == ["what is this", "what", "is the"]
    assert questions.answer_types == ["other", "other", "yes/no"]
    assert questions.answers == [["net"], ["catcher", "pitcher", "throwing"], []]
    assert questions.scores == [[1.0], [0.3, 1.0, 1.0], []]
    assert questions.majority == ["net", "pitcher", ""]


def test_test_file_has_no_labels(tmp_path: Path) -> None:
    rows = [{"img_id": f"COCO_test2015_{n:012}", "question_id": n, "sent": "What?"} for n in (7, 3)]
    found = read_lxmert(write(tmp_path / "test.json", rows))
    assert found.image_splits == ["test2015"]
    assert found.questions.answers is None
    assert found.questions.scores is None
    assert found.questions.majority == ()
    assert found.questions.answer_types == ()
    assert found.questions.types == ["", ""]


BAD = {
    "image of another form": ({"img_id": "n161313"}, "record 1: img_id 'n161313', expected a name"),
    "image id is a number": (
        {"img_id": 5},
        r"record 1: Expected `str`, got `int` - at `\$.img_id`",
    ),
    "score above 1": ({"label": {"net": 1.5}}, "record 1: Expected `float` <= 1"),
    "score below 0": ({"label": {"net": -1}}, "record 1: Expected `float` >= 0"),
    "score is text": ({"label": {"net": "1"}}, "record 1: Expected `float`, got `str`"),
    "label is a list": ({"label": ["net"]}, r"record 1: Expected `object \| null`, got `array`"),
    "no label": ({"label": None}, "record 1 has no label, the others have"),
    "twice": ({"question_id": 458752000}, "question id 458752000 occurs twice"),
    "no question": ({"sent": None}, "record 1: Expected `str`, got `null`"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_record_is_named(tmp_path: Path, case: str) -> None:
    changes, message = BAD[case]
    rows = [ROWS[0], ROWS[1] | changes, ROWS[2]]
    with pytest.raises(RawDataError, match=message):
        read_lxmert(write(tmp_path / "train.json", rows))


def test_label_after_records_without_one(tmp_path: Path) -> None:
    first = {key: value for key, value in ROWS[0].items() if key != "label"}
    with pytest.raises(RawDataError, match="record 1 has a label, the ones before have none"):
        read_lxmert(write(tmp_path / "train.json", [first, ROWS[1]]))


def test_other_files_under_these_names(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"not a file of LXMERT questions .*its keys are data"):
        read_lxmert(write(tmp_path / "train.json", {"data": []}))
    with pytest.raises(RawDataError, match="its list of questions is empty"):
        read_lxmert(write(tmp_path / "train.json", []))
    with pytest.raises(RawDataError, match="record 0: Expected `object`, got `str`"):
        read_lxmert(write(tmp_path / "trainval_label2ans.json", ["", "woods"]))


@given(position=st.integers(0, 700), value=st.binary(max_size=3), cut=st.integers(0, 1500))
def test_mutated_files_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "train.json"
    data = json.dumps(ROWS).encode()
    path.write_bytes((data[:position] + value + data[position + 1 :])[: cut or None])
    message = ""
    try:
        rows = read_lxmert(path)
    except RawDataError as error:
        message = str(error)
    else:
        assert len(rows.questions) == 3
    assert not message or (message.isprintable() and message.startswith(str(path)))
