"""Scores that the raw files state."""

from __future__ import annotations

from trar.trainer.metrics import labels


def test_an_answer_earns_what_is_stated_for_it() -> None:
    score = labels.score_columns(
        [1, 2, 3, 4],
        ["cat", "dog", "", "red"],
        [["dog", "cat"], ["cat"], [], ["red", "red"]],
        ["what", "what", "is", "is"],
        ["other", "other", "yes/no", "other"],
        scores=[[1.0, 0.3], [1.0], [], [0.9, 0.6]],
    )
    assert score.per_question == {1: 30.0, 2: 0.0, 3: 0.0, 4: 60.0}  # stated twice: the last
    assert score.overall == 22.5
    assert score.per_answer_type == {"other": 30.0, "yes/no": 0.0}
    assert "look-up of the scores that the raw files state" in score.summary()
