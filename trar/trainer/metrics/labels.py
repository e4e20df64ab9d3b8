"""Score by look-up, for data whose raw files state the score of each answer (LXMERT's labels).

The answer given earns the score stated for it, and nothing if it is not among them. That is how
LXMERT scores minival; it is not the official metric, which needs all ten answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trar.features.columns import Codes, coded_lists, number_lists
from trar.trainer.metrics.result import VqaScore, collect, same_length


def score_columns(
    question_ids: Sequence[int] | NDArray[np.int64],
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    question_types: Sequence[str],
    answer_types: Sequence[str],
    *,
    scores: Sequence[Sequence[float]],
) -> VqaScore:
    """Score columns of equal length, row i being one question; ``scores`` are those of ``answers``.

    The other arguments are those of ``metrics.vqa.score_columns``. Of an answer stated twice the
    last score counts.

    Raises:
        ScoreError: a question given twice.
    """
    same_length(question_ids, predictions)
    known, offsets = coded_lists(answers)
    stated, _ = number_lists(scores)
    question = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    number = Codes()
    meant = np.array([number[text] for text in known.known], np.int32)[known.codes]
    guess = np.array([number[text] for text in predictions], np.int32)
    given = np.flatnonzero(meant == guess[question])
    accuracies = np.zeros(len(predictions))
    accuracies[question[given]] = stated[given]
    return collect("stated labels", question_ids, accuracies, question_types, answer_types)
