"""Result files for EvalAI."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trar.errors import DiskError, ScoreError
from trar.trainer.metrics.vqa_files import read_results
from trar.trainer.scoring import Predictions
from trar.trainer.submission import need_order, submission_name, write_evalai, write_submission


def test_file_is_a_bare_list_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_evalai(path, np.array([458752002, 9000]), ["café", ""])
    assert json.loads(path.read_bytes()) == [
        {"question_id": 458752002, "answer": "café"},
        {"question_id": 9000, "answer": ""},
    ]
    assert read_results(path) == {458752002: "café", 9000: ""}


def test_a_question_answered_twice_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(ScoreError, match=r"question 2 is answered twice \('yes' and 'no'\)"):
        write_evalai(path, [2, 3, 2], ["yes", "yes", "no"])
    assert list(tmp_path.iterdir()) == []


def test_a_label_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="question 3: the answer is 17, expected text"):
        write_evalai(tmp_path / "results.json", [2, 3], ["yes", 17])  # type: ignore[list-item]


def test_a_missing_answer_is_a_bug_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_evalai(tmp_path / "results.json", [2, 3], ["yes"])


def test_clevr_is_one_answer_a_line_in_the_order_of_the_indices(tmp_path: Path) -> None:
    path = tmp_path / submission_name("clevr", "test")
    assert path.name == "result-test.txt"
    found = Predictions(np.array([2, 0, 1]), ["cube", "yes", "3"], np.zeros(3, np.float32))
    write_submission(path, "clevr", found)
    assert path.read_text() == "yes\n3\ncube\n"
    gap = Predictions(np.array([2, 0, 3]), ["cube", "yes", "3"], np.zeros(3, np.float32))
    with pytest.raises(ScoreError, match="the question indices end at 3, and there are 3"):
        write_submission(path, "clevr", gap)
    need_order(path, "vqa", gap.question_ids)
    assert path.read_text() == "yes\n3\ncube\n"


def test_other_data_sets_are_a_list(tmp_path: Path) -> None:
    path = tmp_path / submission_name("vqa", "test")
    write_submission(path, "vqa", Predictions(np.array([9]), ["2"], np.zeros(1, np.float32)))
    assert json.loads(path.read_text()) == [{"question_id": 9, "answer": "2"}]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="a part of that path is a file"):
        write_evalai(tmp_path / "file" / "results.json", [2], ["yes"])
