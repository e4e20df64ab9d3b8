"""Which epoch was the best, and when there is no patience left."""

from __future__ import annotations

from typing import Any

import pytest

from trar.trainer.score_history import best_epoch, patience_spent


def history(*scores: float | None) -> list[dict[str, Any]]:
    return [
        {"epoch": number, "scores": None if one is None else {"overall": one}}
        for number, one in enumerate(scores, start=1)
    ]


@pytest.mark.parametrize(
    ("scores", "having", "best"),
    [
        ((50.0, 52.0, 51.0), {1, 2, 3}, 2),
        ((50.0, 52.0, 52.0), {1, 2, 3}, 3),  # the last of equals
        ((50.0, 52.0, 51.0), {1, 3}, 3),  # the best has no checkpoint any more
        ((50.0, None, None), {1, 2, 3}, 1),
        ((None, None), {1, 2}, 2),
    ],
)
def test_the_best_epoch_is_the_last_of_the_highest_that_is_still_there(
    scores: tuple[float | None, ...], having: set[int], best: int
) -> None:
    assert best_epoch(history(*scores), having) == best


@pytest.mark.parametrize(
    ("scores", "patience", "spent"),
    [
        ((50.0, 49.0, 48.0), None, False),
        ((50.0, 49.0, 48.0), 2, True),
        ((50.0, 50.0, 50.0), 2, True),  # as good is not better
        ((50.0, 49.0, 51.0), 2, False),
        ((50.0, None, None, 49.0), 2, False),  # epochs without a score do not count
        ((50.0,), 1, False),
    ],
)
def test_patience_ends_after_so_many_scores_that_are_not_better(
    scores: tuple[float | None, ...], patience: int | None, spent: bool
) -> None:
    assert patience_spent(history(*scores), patience) is spent
