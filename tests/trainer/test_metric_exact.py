"""Exact match, and the result that all metrics share."""

from __future__ import annotations

import pytest

from trar.errors import ScoreError
from trar.trainer.metrics import exact


def test_text_is_compared_untouched() -> None:
    score = exact.score_columns(
        [7, 8, 9],
        ["yes", "2", "Red"],
        [["yes"], ["two"], ["red"]],
        ["exist", "count", "query_color"],
        ["", "", ""],
    )
    assert score.overall == 33.33
    assert score.per_answer_type == {}
    assert score.per_question_type == {"exist": 100.0, "count": 0.0, "query_color": 0.0}
    assert score.per_question == {7: 100.0, 8: 0.0, 9: 0.0}
    assert score.summary() == "33.33, 3 questions, exact match"


def test_summary_names_types_and_rules() -> None:
    score = exact.score_columns([1], ["yes"], [["yes"]], ["is"], ["yes/no"])
    assert score.summary() == "100.00 (yes/no 100.00), 1 question, exact match"


@pytest.mark.parametrize("truth", [[], ["yes"] * 10])
def test_another_number_of_answers_is_refused(truth: list[str]) -> None:
    with pytest.raises(ScoreError, match=rf"question 5: .* one annotated .* found {len(truth)};"):
        exact.score_columns([5], ["yes"], [truth], [""], [""])


def test_a_question_given_twice_is_refused() -> None:
    with pytest.raises(ScoreError, match="2 answers were given for 1 different questions"):
        exact.score_columns([5, 5], ["a", "b"], [["a"], ["b"]], ["", ""], ["", ""])


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ScoreError, match="no question to score"):
        exact.score_columns([], [], [], [], [])
