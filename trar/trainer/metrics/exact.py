"""Exact match, for data sets with one answer per question (CLEVR, easy-VQA, one-answer tables).

Text against text, untouched. The ten-annotator rule must not be used there: with no other
annotator to agree with, it gives a right answer 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.features.columns import Codes, coded_lists
from trar.trainer.metrics.result import VqaScore, collect, same_length


def score_columns(
    question_ids: Sequence[int] | NDArray[np.int64],
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    question_types: Sequence[str],
    answer_types: Sequence[str],
) -> VqaScore:
    """Score columns of equal length, row i being one question; ``answers`` has one text a row.

    Types may be "" (none). The arguments are those of ``metrics.vqa.score_columns``.

    Raises:
        ScoreError: a question with another number of answers than one, or given twice.
    """
    same_length(question_ids, predictions)
    truth, offsets = coded_lists(answers)
    counts = np.diff(offsets)
    if len(wrong := np.flatnonzero(counts != 1)):
        raise ScoreError(
            f"question {question_ids[wrong[0]]}: exact match needs one annotated answer, found "
            f"{counts[wrong[0]]}; score data with several annotators by the VQA rules"
        )
    number = Codes()
    known = np.array([number[text] for text in truth.known], np.int32)
    guess = np.array([number[text] for text in predictions], np.int32)
    right = (guess == known[truth.codes]).astype(np.float64)
    return collect("exact match", question_ids, right, question_types, answer_types)
