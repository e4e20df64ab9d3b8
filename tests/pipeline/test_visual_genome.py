"""Raw Visual Genome files: eight real questions joined to COCO, and what is left out or refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import RawDataError
from trar.pipeline.readers.visual_genome import read_visual_genome

REAL = Path(__file__).parents[1] / "data/allennlp-models/vgqa/question_answers.json"
OF_IMAGE_4 = [987278, 987282, 987283, 987284, 987285]


def image_file(path: Path, images: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(images))
    return path


def images(path: Path, first: Any = 1000, second: Any = 2000, key: str = "image_id") -> Path:
    """``image_data.json`` for the two images of the real questions."""
    return image_file(path, [{key: 4, "coco_id": first}, {key: 5, "coco_id": second}])


def test_every_question_about_an_image_of_coco(tmp_path: Path) -> None:
    raw = [row for entry in json.loads(REAL.read_text()) for row in entry["qas"]]
    questions = read_visual_genome(REAL, images(tmp_path / "image_data.json"), None)
    assert list(questions.ids) == [row["qa_id"] for row in raw]
    assert questions.texts == [row["question"] for row in raw]
    assert questions.majority == [row["answer"] for row in raw]
    assert questions.answers == [(row["answer"],) for row in raw]
    assert list(questions.image_ids) == [1000 if row["image_id"] == 4 else 2000 for row in raw]
    assert questions.types == [""] * 8
    assert questions.notes == ()


@pytest.mark.parametrize("key", ["id", "image_id"])
def test_both_releases_of_the_image_file(tmp_path: Path, key: str) -> None:
    questions = read_visual_genome(REAL, images(tmp_path / "i.json", key=key), None)
    assert set(questions.image_ids) == {1000, 2000}


@pytest.mark.parametrize("none", [None, "", "None", "12x", 0, -3, 2.5, "9" * 30, 10**30])
def test_images_without_a_coco_id_are_left_out_and_counted(tmp_path: Path, none: Any) -> None:
    questions = read_visual_genome(REAL, images(tmp_path / "i.json", second=none), None)
    assert list(questions.ids) == OF_IMAGE_4
    assert questions.notes == (
        "question_answers.json: 5 of 8 questions kept; left out: 3 about images that are not "
        "COCO's",
    )


@pytest.mark.parametrize("written", [77, 77.0, "77", "000000000077"])
def test_coco_ids_however_they_are_written(tmp_path: Path, written: Any) -> None:
    questions = read_visual_genome(REAL, images(tmp_path / "i.json", second=written), None)
    assert list(questions.image_ids[5:]) == [77, 77, 77]


def test_answers_outside_the_dictionary_are_left_out_and_counted(tmp_path: Path) -> None:
    asked = []

    def keep(answer: str) -> bool:
        asked.append(answer)
        return answer in ("Purple.", "A teddy bear.")

    path = images(tmp_path / "i.json", second=None)
    questions = read_visual_genome(REAL, path, keep)
    assert questions.majority == ["Purple.", "A teddy bear."]
    assert asked == ["Sailboats.", "In a room.", "Purple.", "Glass.", "A teddy bear."]
    assert questions.notes[0].endswith(
        "2 of 8 questions kept; left out: 3 about images that are not COCO's, 3 with an answer "
        "that is not in the dictionary"
    )


def test_official_zips(tmp_path: Path) -> None:
    image_path = images(tmp_path / "image_data.json")
    for path in (REAL, image_path):
        with zipfile.ZipFile(tmp_path / f"{path.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, path.name)
    zipped = read_visual_genome(
        tmp_path / "question_answers.json.zip", tmp_path / "image_data.json.zip", None
    )
    assert zipped == read_visual_genome(REAL, image_path, None)


def entry(**changes: Any) -> dict[str, Any]:
    row = {"qa_id": 1, "image_id": 4, "question": "What?", "answer": "It."}
    return {"id": 4, "qas": [{key: v for key, v in (row | changes).items() if v is not ...}]}


def question_file(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps(entries))
    return path


def test_image_of_the_entry_where_a_question_names_none(tmp_path: Path) -> None:
    for key in ("id", "image_id"):
        one = entry(image_id=...)
        one[key] = one.pop("id")
        path = question_file(tmp_path / "q.json", one)
        questions = read_visual_genome(path, images(tmp_path / "i.json"), None)
        assert list(questions.image_ids) == [1000]


def test_repeated_ids_are_left_out_and_counted(tmp_path: Path) -> None:
    path = question_file(tmp_path / "q.json", entry(), entry(question="Where?"), entry(qa_id=2))
    questions = read_visual_genome(path, images(tmp_path / "i.json"), None)
    assert list(questions.ids) == [1, 2]
    assert questions.texts == ["What?", "What?"]
    assert questions.notes == ("q.json: 2 of 3 questions kept; left out: 1 with a repeated id",)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    path = image_file(tmp_path / "i.json", [{"image_id": 1, "coco_id": 5}])
    with pytest.raises(
        RawDataError, match=r"no question is left of it: 8 about .* \(8 about images"
    ):
        read_visual_genome(REAL, path, None)
    path = question_file(tmp_path / "q.json")
    with pytest.raises(RawDataError, match="no question is left of it: it has none"):
        read_visual_genome(path, images(tmp_path / "i.json"), None)


BAD_ENTRIES = {
    "two images": (entry(image_id=5), "question 1 is about image 5 among those of image 4"),
    "no answer": (entry(answer=...), "record 0: .*missing required field `answer`"),
    "no qas": ({"id": 4}, "record 0: .*missing required field `qas`"),
    "no image": ({"qas": entry(image_id=...)["qas"]}, "question 1 names no image"),
    "id of something else": (entry(qa_id=1.5), "record 0: Expected `int`, got `float`"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_bad_question_is_named(tmp_path: Path, case: str) -> None:
    bad, message = BAD_ENTRIES[case]
    path = question_file(tmp_path / "q.json", bad)
    with pytest.raises(RawDataError, match=message):
        read_visual_genome(path, images(tmp_path / "i.json"), None)


BAD_IMAGES = {
    "no id": ([{"coco_id": 3}], "record 0 has neither image_id nor id"),
    "coco id of something else": ([{"id": 4, "coco_id": [1]}], "record 0: Expected"),
    "questions instead": (json.loads(REAL.read_text()), "8 about images that are not COCO's"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_image_file_is_named(tmp_path: Path, case: str) -> None:
    bad, message = BAD_IMAGES[case]
    with pytest.raises(RawDataError, match=message):
        read_visual_genome(REAL, image_file(tmp_path / "i.json", bad), None)


def test_question_file_of_vqa_under_this_name(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text('{"questions": []}')
    with pytest.raises(
        RawDataError, match=r"not a file of Visual Genome questions .*its keys are q"
    ):
        read_visual_genome(tmp_path / "q.json", images(tmp_path / "i.json"), None)


@given(position=st.integers(0, 2100), value=st.binary(max_size=3), cut=st.integers(0, 4000))
def test_mutated_files_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: bytes, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    data = REAL.read_bytes()
    path = folder / "q.json"
    path.write_bytes((data[:position] + value + data[position + 1 :])[: cut or None])
    message = ""
    try:
        read_visual_genome(path, images(folder / "i.json"), None)
    except RawDataError as error:
        message = str(error)
    assert not message or (message.isprintable() and message.startswith(str(path)))
