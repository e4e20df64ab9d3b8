"""What an evaluation server would refuse is found before it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import StorePlan, make_store

from trar.errors import ScoreError, StoreError
from trar.trainer.expected_questions import Expected, expected_of_files, expected_of_store
from trar.trainer.metrics.json_source import JsonSource
from trar.trainer.submission_check import check_submission

SPLITS = {"test2015": range(1000, 1010), "test-dev2015": range(1000, 1004), "val2014": range(5, 9)}


@pytest.fixture
def expected(tmp_path: Path) -> Expected:
    """Official question files of three splits; image i has the questions 1000 i, 1000 i + 1, …"""
    for name, images in SPLITS.items():
        questions = [
            {"image_id": image, "question_id": 1000 * image + number, "question": "why?"}
            for image in images
            for number in range(2)
        ]
        path = tmp_path / f"v2_OpenEnded_mscoco_{name}_questions.json"
        path.write_text(json.dumps({"data_subtype": name, "questions": questions}))
    (tmp_path / "broken_questions.json").write_text("{")
    return expected_of_files(tmp_path / "v2_OpenEnded_mscoco_test2015_questions.json")


def answers(images: Any = SPLITS["test2015"], start: int = 1000) -> list[dict[str, Any]]:
    return [
        {"question_id": start * image + number, "answer": "yes"}
        for image in images
        for number in range(2)
    ]


def checked(tmp_path: Path, expected: Expected, content: JsonSource) -> list[str]:
    path = tmp_path / "result.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    found = check_submission(path, expected)
    assert all("\n" not in problem and str(path) in problem for problem in found.problems)
    return list(found.problems)


def test_a_sound_file_has_no_problem(tmp_path: Path, expected: Expected) -> None:
    assert checked(tmp_path, expected, answers()) == []
    assert checked(tmp_path, expected, answers()[::-1]) == []


def test_empty_answers_are_allowed_and_noted(tmp_path: Path, expected: Expected) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps([one | {"answer": ""} for one in answers()]))
    found = check_submission(path, expected)
    assert (found.problems, found.notes) == ((), ("20 answers are empty",))


def lines(entries: list[Any]) -> str:
    return "\n".join(map(json.dumps, entries))


Change = Callable[[list[dict[str, Any]]], Any]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lines, ["JSON lines (one object a line)"]),
        (lambda r: {"answers": r}, ["a bare list", "an object with the keys 'answers'"]),
        (lambda r: "", ["the file is empty"]),
        (lambda r: json.dumps(r)[:-9], ["not JSON", "cut short"]),
        (
            lambda r: r[:8],
            ["12 of the 20 questions of test2015 have no answer", "test-dev2015 only"],
        ),
        (lambda r: r[:-1], ["1 of the 20 questions of test2015 have no answer, first 1009001"]),
        (lambda r: [*r, r[3]], ["1 questions are answered more than once, first 1001001"]),
        (
            lambda r: [*r, *answers(SPLITS["val2014"])],
            ["8 of 28 answers are to questions that are not in test2015", "8 are of val2014"],
        ),
        (
            lambda r: answers(start=10),
            ["20 of 20 answers are to questions that are not", "20 look like ids of VQA v1"],
        ),
        (lambda r: [*r, {"question_id": 7, "answer": "x"}], ["not in test2015, first 7"]),
        (
            lambda r: [one | {"answer": 2} for one in r],
            ['20 of 20 entries have no text as "answer", first entry 0', "'answer': 2}"],
        ),
        (lambda r: [*r[:5], {"question_id": 1002001}, *r[6:]], ["1 of 20 entries have no text"]),
        (
            lambda r: [one | {"question_id": str(one["question_id"])} for one in r],
            ['20 of 20 entries have no whole number as "question_id"', "without quotes"],
        ),
        (lambda r: [one | {"score": 1} for one in r], ["other keys than question_id and answer"]),
        (lambda r: [*r, "yes"], ["1 of 21 entries are no objects, first entry 20: 'yes'"]),
        (lambda r: [], ["20 of the 20 questions of test2015 have no answer"]),
    ],
)
def test_what_a_server_refuses_is_found(
    change: Change, parts: list[str], tmp_path: Path, expected: Expected
) -> None:
    problems = "\n".join(checked(tmp_path, expected, change(answers())))
    for part in parts:
        assert part in problems


def test_every_problem_has_its_own_line(tmp_path: Path, expected: Expected) -> None:
    wrong = [*answers()[1:], answers()[4], {"question_id": 7, "answer": 3, "x": 1}]
    assert len(checked(tmp_path, expected, wrong)) == 5


def test_ids_in_quotes_are_not_called_missing_too(tmp_path: Path, expected: Expected) -> None:
    quoted = [one | {"question_id": str(one["question_id"])} for one in answers()]
    assert len(checked(tmp_path, expected, quoted)) == 1


def test_a_missing_file_is_a_problem(tmp_path: Path, expected: Expected) -> None:
    found = check_submission(tmp_path / "nowhere.json", expected)
    assert "no such file" in found.problems[0]


def test_a_store_knows_its_questions_and_other_splits(tmp_path: Path) -> None:
    store = make_store(tmp_path / "vqa", StorePlan())
    expected = expected_of_store(store, "test")
    assert (expected.dataset, expected.name, expected.notes) == ("vqa", "test", ())
    ids = store.questions("test").ids.tolist()
    good = [{"question_id": one, "answer": "red"} for one in ids]
    assert checked(tmp_path, expected, good) == []
    other = [{"question_id": one, "answer": "red"} for one in store.questions("train").ids.tolist()]
    with pytest.raises(StoreError, match="no question split 'dev'"):
        expected_of_store(store, "dev")
    problems = "\n".join(checked(tmp_path, expected, other))
    assert "120 of 120 answers are to questions that are not in test, first 1000, 1001" in problems
    assert "18 of the 18 questions of test have no answer" in problems


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"questions": [{"question": "why?"}]}', "1 of 1 questions have no question_id"),
        ('{"questions": []}', "0 of 0 questions"),
        ('[{"question_id": 1}]', "not a question file"),
        ('{"annotations": []}', "not a question file"),
        ("", "the file is empty"),
    ],
)
def test_what_is_no_question_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    path.write_text(content)
    with pytest.raises(ScoreError, match=message):
        expected_of_files(path)


@pytest.fixture
def clevr(tmp_path: Path) -> Expected:
    questions = [{"question_index": n, "image_index": n // 2, "question": "?"} for n in range(4)]
    path = tmp_path / "CLEVR_test_questions.json"
    path.write_text(json.dumps({"info": {"split": "test"}, "questions": questions}))
    return expected_of_files(path)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("yes\n3\ncube\n10\n", []),
        ("yes\n3\ncube\n10", []),
        ("yes\n3\ncube\n", ["3 lines, expected 4, one for each question of test"]),
        ("yes\n3\nCube\n10\n", ["1 lines are none of CLEVR's 28 answers, first line 3: 'Cube'"]),
        ("yes\n\n3\ncube\n10\n", ["5 lines, expected 4", "first line 2: ''"]),
        ('[{"question_id": 0, "answer": "yes"}]', ["JSON, expected one answer a line"]),
    ],
)
def test_clevr_is_one_answer_a_line(
    content: str, parts: list[str], tmp_path: Path, clevr: Expected
) -> None:
    problems = checked(tmp_path, clevr, content)
    assert bool(problems) == bool(parts)
    for part in parts:
        assert any(part in problem for problem in problems)


def test_a_text_file_of_other_bytes_is_refused(tmp_path: Path, clevr: Expected) -> None:
    (tmp_path / "result.txt").write_bytes(b"yes\n\xff\xfe\n")
    assert "not text" in check_submission(tmp_path / "result.txt", clevr).problems[0]
