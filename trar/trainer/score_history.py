"""What the scores of a run's epochs say: which was the best, and whether it still gets better.

A history has a dict for each finished epoch: ``epoch`` from 1, ``split``, the mean ``loss`` of a
question, and ``scores``, those of ``kept_scores`` or None.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from trar.trainer.metrics import VqaScore

History = list[dict[str, Any]]


def kept_scores(scores: VqaScore, split: str | None) -> dict[str, Any]:
    """Scores as they are kept beside the weights: all but the line per question."""
    return {
        "split": split,
        "rules": scores.rules,
        "overall": scores.overall,
        "per_answer_type": scores.per_answer_type,
        "per_question_type": scores.per_question_type,
    }


def best_epoch(history: History, having: Container[int]) -> int:
    """The epoch with the highest score among those with a checkpoint, the last of equals; the
    last epoch where nothing was scored."""
    scored = [
        (one["scores"]["overall"], one["epoch"])
        for one in history
        if one["scores"] and one["epoch"] in having
    ]
    return int(max(scored)[1] if scored else history[-1]["epoch"])


def patience_spent(history: History, patience: int | None) -> bool:
    """Whether none of the last ``patience`` scored epochs was better than the best before them."""
    scores = [one["scores"]["overall"] for one in history if one["scores"]]
    if patience is None or len(scores) <= patience:
        return False
    return bool(max(scores[-patience:]) <= max(scores[:-patience]))
