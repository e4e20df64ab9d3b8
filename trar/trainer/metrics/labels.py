"""Score by look-up, for data whose raw files state the score of each answer (LXMERT's labels).

The answer given earns the score stated for it, and nothing if it is not among them. That is how
LXMERT scores minival; it is not the official metric, which needs all ten answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trar.trainer.metrics.result import VqaScore, collect


def score_columns(
    question_ids: Sequence[int],
    predictions: Sequence[str],
    answers: Iterable[Sequence[str]],
    question_types: Iterable[str],
    answer_types: Iterable[str],
    *,
    scores: Iterable[Sequence[float]],
) -> VqaScore:
    """Score columns of equal length, row i being one question; ``scores`` are those of ``answers``.

    The other arguments are those of ``metrics.vqa.score_columns``.

    Raises:
        ScoreError: a question given twice.
    """
    accuracies = []
    for prediction, known, stated in zip(predictions, answers, scores, strict=True):
        accuracies.append(dict(zip(known, stated, strict=True)).get(prediction, 0.0))
    return collect("stated labels", question_ids, accuracies, question_types, answer_types)
