"""Exact match, for data sets with one answer per question (CLEVR, easy-VQA, one-answer tables).

Text against text, untouched. The ten-annotator rule must not be used there: with no other
annotator to agree with, it gives a right answer 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trar.errors import ScoreError
from trar.trainer.metrics.result import VqaScore, collect


def score_columns(
    question_ids: Sequence[int],
    predictions: Sequence[str],
    answers: Iterable[Sequence[str]],
    question_types: Iterable[str],
    answer_types: Iterable[str],
) -> VqaScore:
    """Score columns of equal length, row i being one question; ``answers`` has one text a row.

    Types may be "" (none). The arguments are those of ``metrics.vqa.score_columns``.

    Raises:
        ScoreError: a question with another number of answers than one, or given twice.
    """
    accuracies = []
    for question_id, prediction, truth in zip(question_ids, predictions, answers, strict=True):
        if len(truth) != 1:
            raise ScoreError(
                f"question {question_id}: exact match needs one annotated answer, found "
                f"{len(truth)}; score data with several annotators by the VQA rules"
            )
        accuracies.append(float(prediction == truth[0]))
    return collect("exact match", question_ids, accuracies, question_types, answer_types)
