"""CLEVR question files: nine real questions, the generator's schema, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import RawDataError
from trar.pipeline.readers.clevr_json import read_clevr

DATA = Path(__file__).parents[1] / "data"
REAL = DATA / "kexinyi-ns-vqa/orig-val.json"
GENERATED = DATA / "raeidsaqur-clevr-parser/CLEVR_train_questions.json"


def write(path: Path, rows: list[Any], **top: Any) -> Path:
    path.write_text(json.dumps({**top, "questions": rows}))
    return path


def row(index: int = 0, **changes: Any) -> dict[str, Any]:
    value = {"image_index": index, "question": "Is it red?", "split": "val", **changes}
    return {key: one for key, one in value.items() if one is not ...}


def test_real_questions() -> None:
    raw = json.loads(REAL.read_text())["questions"]
    rows = read_clevr(REAL, "val")
    questions = rows.questions
    assert rows.split == "val"
    assert questions.ids == [one["question_index"] for one in raw]
    assert questions.image_ids == [one["image_index"] for one in raw]
    assert questions.texts == [one["question"] for one in raw]
    assert questions.types == [one["program"][-1]["function"] for one in raw]
    assert questions.answers == [(one["answer"],) for one in raw]
    assert questions.majority == [one["answer"] for one in raw]
    assert questions.notes == ()


def test_test_split_has_neither_answers_nor_programs(tmp_path: Path) -> None:
    rows = [row(7, split="test", question_index=3), row(7, split="test", question_index=5)]
    found = read_clevr(write(tmp_path / "q.json", rows, info={"split": "test"}), "test").questions
    assert found.answers is None
    assert found.majority == []
    assert found.types == ["", ""]
    assert found.ids == [3, 5]
    assert found.image_ids == [7, 7]


def test_generator_schema_is_read_with_a_note() -> None:
    raw = json.loads(GENERATED.read_text())["questions"]
    questions = read_clevr(GENERATED, "train").questions
    assert questions.types == [one["program"][-1]["type"] for one in raw]
    assert questions.majority == [one["answer"] for one in raw]
    assert len(questions.notes) == 1
    assert "30 of 30 questions are in the schema of clevr-dataset-gen" in questions.notes[0]


def test_generated_answers_are_written_as_released(tmp_path: Path) -> None:
    rows = [row(n, answer=answer) for n, answer in enumerate([True, False, 0, 10, "red", "yes"])]
    questions = read_clevr(write(tmp_path / "q.json", rows), None).questions
    assert questions.majority == ["yes", "no", "0", "10", "red", "yes"]
    assert "4 of 6 questions" in questions.notes[0]


def test_ids_are_positions_where_the_file_has_none(tmp_path: Path) -> None:
    rows = [row(5, answer="no"), row(5, answer="no"), row(0, answer="yes")]
    questions = read_clevr(write(tmp_path / "q.json", rows), "val").questions
    assert questions.ids == [0, 1, 2]
    assert questions.image_ids == [5, 5, 0]


def test_split_is_taken_from_header_or_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "q.json", [row()])
    assert read_clevr(path, None).split == "val"
    path = write(tmp_path / "q.json", [row(split=...)], info={"split": "valA"})
    assert read_clevr(path, None).split == "valA"
    path = write(tmp_path / "q.json", [row(split=...)])
    assert read_clevr(path, None).split is None
    assert read_clevr(path, "testB").split == "testB"


def test_member_of_the_released_zip(tmp_path: Path) -> None:
    path = tmp_path / "CLEVR_v1.0_no_images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("CLEVR_v1.0/README.txt", "-")
        archive.writestr("CLEVR_v1.0/scenes/CLEVR_val_scenes.json", "{}")
        archive.write(REAL, "CLEVR_v1.0/questions/CLEVR_val_questions.json")
    found = read_clevr(path, "val", "CLEVR_v1.0/questions/CLEVR_val_questions.json")
    assert found == read_clevr(REAL, "val")


BAD = {
    "header of another split": (
        [row()],
        {"info": {"split": "train"}},
        "header says split 'train', expected 'val'",
    ),
    "row of another split": (
        [row(), row(split="test")],
        {},
        "record 1 says split 'test', expected 'val'",
    ),
    "negative image": ([row(-1)], {}, r"record 0: Expected `int` >= 0 - at `\$.image_index`"),
    "image index text": ([row("0")], {}, r"record 0: Expected `int`, got `str`"),
    "fraction": ([row(answer=1.5)], {}, "record 0: Expected .*, got `float`"),
    "answers run out": (
        [row(answer="yes"), row()],
        {},
        "record 1 has no answer, the others have",
    ),
    "answers begin late": ([row(), row(answer="yes")], {}, "record 1 has an answer, the ones"),
    "question twice": (
        [row(question_index=4), row(question_index=4)],
        {},
        "question id 4 occurs twice",
    ),
    "program of something else": ([row(program=[3])], {}, "last node of its program: Expected"),
    "node without function": (
        [row(program=[{"inputs": []}])],
        {},
        r"last node of its program has no function: \{\"inputs\"",
    ),
    "no question": ([row(question=...)], {}, "record 0: .*missing required field `question`"),
    "no questions": ([], {}, "its list of questions is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_named(tmp_path: Path, case: str) -> None:
    rows, top, message = BAD[case]
    with pytest.raises(RawDataError, match=message):
        read_clevr(write(tmp_path / "q.json", rows, **top), "val")


def test_several_splits_in_one_file_are_refused_without_an_expected_one(tmp_path: Path) -> None:
    path = write(tmp_path / "q.json", [row(split="train"), row(split="val")])
    with pytest.raises(RawDataError, match="record 1 says split 'val', expected 'train'"):
        read_clevr(path, None)


def test_scene_file_under_this_name(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text('{"info": {}, "scenes": []}')
    with pytest.raises(
        RawDataError, match=r"not a file of CLEVR questions .*keys are info, scenes"
    ):
        read_clevr(tmp_path / "q.json", "val")


@given(position=st.integers(0, 12800), value=st.binary(max_size=3), cut=st.integers(0, 30000))
def test_mutated_files_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "q.json"
    data = REAL.read_bytes()
    path.write_bytes((data[:position] + value + data[position + 1 :])[: cut or None])
    message = ""
    try:
        rows = read_clevr(path, "val")
    except RawDataError as error:
        message = str(error)
    else:
        assert len(rows.questions) == 9
    assert not message or (message.isprintable() and message.startswith(str(path)))
