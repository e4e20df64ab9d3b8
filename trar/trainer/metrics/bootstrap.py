"""Confidence intervals of a score: the percentile bootstrap over questions.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. q questions are drawn
with replacement, again and again; an interval holds the middle 95 % of the accuracies found. A draw
matters only by how often each pair (type, accuracy) comes up in it, which is multinomial: the cost
does not grow with q. Questions count as independent; those about one image are a little alike, so
the true intervals are slightly wider. They say nothing about another seed of the same training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.features.columns import CodedTexts
from trar.trainer.metrics.result import VqaScore

Interval = tuple[float, float]

_CELLS_AT_ONCE = 1 << 22  # draws x pairs held at a time: 32 MiB


@dataclass(frozen=True)
class Intervals:
    """Lowest and highest percent, two decimals, of the score and of each type."""

    overall: Interval
    per_answer_type: dict[str, Interval]
    per_question_type: dict[str, Interval]


def intervals(
    score: VqaScore, *, confidence: float = 0.95, draws: int = 2_000, seed: int = 0
) -> Intervals:
    """The intervals of ``score``; the same seed gives the same intervals.

    A type that a draw happens not to hold is left out of that draw. An interval of few questions,
    or of questions all right or all wrong, is too narrow.
    """
    assert 0 < confidence < 1, confidence
    rng = np.random.default_rng(seed)
    overall, per_answer_type = _drawn(score, score.answer_types, confidence, draws, rng)
    _, per_question_type = _drawn(score, score.question_types, confidence, draws, rng)
    return Intervals(overall, per_answer_type, per_question_type)


def _drawn(
    score: VqaScore,
    types: CodedTexts,
    confidence: float,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Interval, dict[str, Interval]]:
    types = types.renumbered()
    values, value = np.unique(score.accuracies, return_inverse=True)
    pair = types.codes.astype(np.int64) * len(values) + value
    pairs, counts = np.unique(pair, return_counts=True)
    type_of, value_of = pairs // len(values), values[pairs % len(values)]
    first = np.searchsorted(type_of, np.arange(len(types.known)))  # pairs stand by type
    questions = len(score.accuracies)
    means = np.empty((draws, len(types.known) + 1))  # the last column is of all questions
    step = max(1, _CELLS_AT_ONCE // len(pairs))
    for start in range(0, draws, step):
        block = means[start : start + step]
        times = rng.multinomial(questions, counts / questions, size=len(block))
        earned = times * value_of
        block[:, -1] = earned.sum(axis=1) / questions
        asked = np.add.reduceat(times, first, axis=1)
        with np.errstate(invalid="ignore"):
            block[:, :-1] = np.add.reduceat(earned, first, axis=1) / asked
    found = _middle(means, confidence)
    named = dict(zip(types.known, found[:-1], strict=True))
    named.pop("", None)
    return found[-1], named


def _middle(means: NDArray[np.float64], confidence: float) -> list[Interval]:
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail], axis=0)
    return [
        (round(100 * one, 2), round(100 * other, 2))
        for one, other in zip(low.tolist(), high.tolist(), strict=True)
    ]
