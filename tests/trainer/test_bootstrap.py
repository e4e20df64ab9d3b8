"""Confidence intervals, against a plain bootstrap and what is known of simple cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trar.trainer.metrics import VqaScore
from trar.trainer.metrics.bootstrap import intervals
from trar.trainer.metrics.result import collect


def made_score(questions: int, seed: int = 0) -> VqaScore:
    rng = np.random.default_rng(seed)
    accuracies = rng.choice([0, 0.3, 0.6, 0.9, 1], questions, p=[0.3, 0.05, 0.05, 0.1, 0.5])
    kinds = rng.choice(["yes/no", "number", "other", ""], questions, p=[0.5, 0.2, 0.2, 0.1])
    types = [f"type {one}" for one in rng.integers(5, size=questions)]
    return collect("official", range(questions), accuracies, types, kinds.tolist())


def plain(score: VqaScore, kind: str | None, draws: int = 3000) -> tuple[float, float]:
    """Questions drawn one by one."""
    rng = np.random.default_rng(5)
    kinds = np.array(list(score.answer_types))
    means = []
    for _ in range(draws):
        rows = rng.integers(len(kinds), size=len(kinds))
        if kind is not None:
            rows = rows[kinds[rows] == kind]
        means.append(100 * score.accuracies[rows].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_intervals_are_those_of_questions_drawn_one_by_one() -> None:
    score = made_score(400)
    found = intervals(score)
    assert found.overall == pytest.approx(plain(score, None), abs=0.4)
    assert list(found.per_answer_type) == list(score.per_answer_type)
    assert list(found.per_question_type) == list(score.per_question_type)
    for kind, interval in found.per_answer_type.items():
        assert interval == pytest.approx(plain(score, kind), abs=0.9)


def test_the_width_is_that_of_the_normal_approximation() -> None:
    right = np.arange(100_000) % 4 > 0
    score = collect(
        "exact match", range(100_000), right.astype(float), [""] * 100_000, [""] * 100_000
    )
    low, high = intervals(score).overall
    half = 1.96 * 100 * math.sqrt(0.75 * 0.25 / 100_000)
    assert low == pytest.approx(75 - half, abs=0.02)
    assert high == pytest.approx(75 + half, abs=0.02)
    assert intervals(score).per_answer_type == {}


def test_a_seed_fixes_the_intervals_and_draws_come_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score = made_score(50)
    assert intervals(score, seed=3) == intervals(score, seed=3)
    assert intervals(score, seed=3) != intervals(score, seed=4)
    whole = intervals(score)
    monkeypatch.setattr("trar.trainer.metrics.bootstrap._CELLS_AT_ONCE", 100)
    assert intervals(score).overall == pytest.approx(whole.overall, abs=0.5)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_an_interval_holds_its_score_and_lies_among_the_accuracies(data: st.DataObject) -> None:
    accuracies = data.draw(st.lists(st.sampled_from([0, 0.3, 0.6, 0.9, 1]), min_size=1))
    kinds = [data.draw(st.sampled_from(["yes/no", "other", ""])) for _ in accuracies]
    score = collect(
        "official", range(len(kinds)), np.array(accuracies, float), ["what"] * len(kinds), kinds
    )
    found = intervals(score, draws=200, seed=data.draw(st.integers(0, 99)))
    for interval, value, own in [
        (found.overall, score.overall, accuracies),
        *(
            (
                interval,
                score.per_answer_type[kind],
                [one for one, other in zip(accuracies, kinds, strict=True) if other == kind],
            )
            for kind, interval in found.per_answer_type.items()
        ),
    ]:
        low, high = interval
        assert round(100 * min(own), 2) <= low <= high <= round(100 * max(own), 2)
        assert low - 0.01 <= value <= high + 0.01


def test_more_questions_have_narrower_intervals() -> None:
    widths = []
    for questions in (100, 1_000, 10_000):
        low, high = intervals(made_score(questions)).overall
        widths.append(high - low)
    # by the square root of ten
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(10), rel=0.15)
    assert widths[1] / widths[2] == pytest.approx(math.sqrt(10), rel=0.15)


def test_wider_confidence_is_wider_and_all_right_has_no_width() -> None:
    score = made_score(200)
    half, most = intervals(score, confidence=0.5), intervals(score, confidence=0.99)
    assert most.overall[0] < half.overall[0] < score.overall < half.overall[1] < most.overall[1]
    sure = collect("exact match", [1, 2], np.ones(2), ["", ""], ["other", "yes/no"])
    assert intervals(sure).per_answer_type == {"other": (100.0, 100.0), "yes/no": (100.0, 100.0)}
