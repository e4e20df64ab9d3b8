"""What every metric returns: an accuracy for each question, and the rules that made it.

q = questions. Source of the rounding: GT-Vision-Lab/VQA vqaEval.py, ``setAccuracy`` and
``setEvalQA``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.features.columns import CodedTexts

RULES = {
    "official": "official VQA rules of 2021",
    "legacy": "legacy VQA rules of 2016, as in openvqa, MCAN, TRAR and RWSAN",
    "exact match": "exact match",
    "stated labels": "look-up of the scores that the raw files state",
}


@dataclass(frozen=True, eq=False)
class VqaScore:
    """Accuracies in percent, rounded to two decimals.

    ``rules`` is a key of ``RULES``; numbers by different rules do not compare. ``question_ids``
    (q,) int64 and ``accuracies`` (q,) float64, 0 to 1, unrounded, with the type names of each
    question ("" = none) are what all else is made from. A mean is taken over unrounded values in
    the order given and rounded once, as the official script does. ``notes`` are facts about the
    data without which the numbers mislead.
    """

    rules: str
    question_ids: NDArray[np.int64]
    accuracies: NDArray[np.float64]
    question_types: CodedTexts
    answer_types: CodedTexts
    notes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VqaScore):
            return NotImplemented
        return (
            (self.rules, self.notes) == (other.rules, other.notes)
            and np.array_equal(self.question_ids, other.question_ids)
            and np.array_equal(self.accuracies, other.accuracies)
            and self.question_types == other.question_types
            and self.answer_types == other.answer_types
        )

    @cached_property
    def overall(self) -> float:
        """The mean over all questions."""
        # cumsum adds one by one, as the script does; sum adds in pairs and may end a digit off
        return _percent(self.accuracies.cumsum()[-1], len(self.accuracies))

    @cached_property
    def per_answer_type(self) -> dict[str, float]:
        """The mean of each answer type, in order of first appearance."""
        return self.by_type(self.answer_types)

    @cached_property
    def per_question_type(self) -> dict[str, float]:
        """The mean of each question type, in order of first appearance."""
        return self.by_type(self.question_types)

    @cached_property
    def per_question(self) -> dict[int, float]:
        """The accuracy of each question by its id."""
        values, place = np.unique(self.accuracies, return_inverse=True)
        rounded = np.array([round(100 * value, 2) for value in values.tolist()])
        return dict(zip(self.question_ids.tolist(), rounded[place].tolist(), strict=True))

    def by_type(self, types: CodedTexts) -> dict[str, float]:
        """The mean of the questions of each type; those without a type ("") are left out."""
        types = types.renumbered()
        sums = np.bincount(types.codes, weights=self.accuracies)  # one by one, in order
        counts = np.bincount(types.codes)
        return {
            name: _percent(total, count)
            for name, total, count in zip(types.known, sums, counts, strict=True)
            if name
        }

    def summary(self) -> str:
        """One line: ``52.73 (yes/no 52.94, ...), 3,000 questions, official VQA rules of 2021``."""
        types = ", ".join(f"{name} {value:.2f}" for name, value in self.per_answer_type.items())
        questions = len(self.question_ids)
        return (
            f"{self.overall:.2f}{f' ({types})' if types else ''}, {questions:,} "
            f"{'question' if questions == 1 else 'questions'}, {RULES[self.rules]}"
        )


def collect(
    rules: str,
    question_ids: Sequence[int] | NDArray[np.int64],
    accuracies: NDArray[np.float64],
    question_types: Sequence[str],
    answer_types: Sequence[str],
    notes: tuple[str, ...] = (),
) -> VqaScore:
    """The score of columns of equal length, row i being one question.

    Raises:
        ScoreError: no questions, or a question id given twice.
    """
    assert rules in RULES, rules
    ids = np.asarray(question_ids, np.int64)
    if not len(ids):
        raise ScoreError(
            "there is no question to score: expected at least one; check the split and --limit"
        )
    if (different := 1 + np.count_nonzero(np.diff(np.sort(ids)))) != len(ids):
        raise ScoreError(
            f"{len(ids)} answers were given for {different} different questions: "
            "expected one answer for each question id; remove the duplicates"
        )
    types = CodedTexts.of(question_types), CodedTexts.of(answer_types)
    assert len(ids) == len(accuracies) == len(types[0]) == len(types[1]), "columns of one length"
    return VqaScore(rules, ids, accuracies, *types, notes)


def same_length(
    question_ids: Sequence[int] | NDArray[np.int64], predictions: Sequence[str]
) -> None:
    """One prediction a question: anything else is a bug of the caller."""
    if len(question_ids) != len(predictions):
        raise ValueError(
            f"{len(predictions)} predictions for {len(question_ids)} questions, expected as many"
        )


def _percent(total: float, count: int) -> float:
    return round(100 * float(total) / int(count), 2)
