"""What every metric returns: percentages, and the rules that made them.

Source of the rounding: GT-Vision-Lab/VQA vqaEval.py, ``setAccuracy`` and ``setEvalQA``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trar.errors import ScoreError

RULES = {
    "official": "official VQA rules of 2021",
    "legacy": "legacy VQA rules of 2016, as in openvqa, MCAN, TRAR and RWSAN",
    "exact match": "exact match",
}


@dataclass(frozen=True)
class VqaScore:
    """Accuracies in percent, rounded to two decimals.

    ``rules`` is a key of ``RULES``; numbers by different rules do not compare. ``per_question`` is
    keyed by question id. Types stand in order of first appearance. ``notes`` are facts about the
    data without which the numbers mislead.
    """

    rules: str
    overall: float
    per_answer_type: dict[str, float]
    per_question_type: dict[str, float]
    per_question: dict[int, float]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line: ``52.73 (yes/no 52.94, ...), 3,000 questions, official VQA rules of 2021``."""
        types = ", ".join(f"{name} {value:.2f}" for name, value in self.per_answer_type.items())
        questions = len(self.per_question)
        return (
            f"{self.overall:.2f}{f' ({types})' if types else ''}, {questions:,} "
            f"{'question' if questions == 1 else 'questions'}, {RULES[self.rules]}"
        )


def collect(
    rules: str,
    question_ids: Iterable[int],
    accuracies: Sequence[float],
    question_types: Iterable[str],
    answer_types: Iterable[str],
    notes: tuple[str, ...] = (),
) -> VqaScore:
    """Aggregate the accuracies (0 to 1, unrounded) of questions, in the order given.

    A mean is taken over unrounded values and rounded once, as the official script does. The empty
    type name says that a question has no type: it counts in ``overall`` alone.

    Raises:
        ScoreError: no questions, or a question id given twice.
    """
    assert rules in RULES, rules
    if not len(accuracies):
        raise ScoreError(
            "there is no question to score: expected at least one; check the split and --limit"
        )
    per_question = {
        int(question_id): round(100 * accuracy, 2)
        for question_id, accuracy in zip(question_ids, accuracies, strict=True)
    }
    if len(per_question) != len(accuracies):
        raise ScoreError(
            f"{len(accuracies)} answers were given for {len(per_question)} different questions: "
            "expected one answer for each question id; remove the duplicates"
        )
    return VqaScore(
        rules=rules,
        overall=_percent(accuracies),
        per_answer_type=_by_type(answer_types, accuracies),
        per_question_type=_by_type(question_types, accuracies),
        per_question=per_question,
        notes=notes,
    )


def _by_type(types: Iterable[str], accuracies: Sequence[float]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for name, accuracy in zip(types, accuracies, strict=True):
        groups.setdefault(name, []).append(accuracy)
    groups.pop("", None)
    return {name: _percent(group) for name, group in groups.items()}


def _percent(accuracies: Sequence[float]) -> float:
    return round(100 * float(sum(accuracies)) / len(accuracies), 2)
