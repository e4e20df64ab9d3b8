"""Random numbers depend on a seed and a place; a batch is divided among ranks without a rest."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trar.trainer.sampler import Stream, generator, rank_part, step_seed


def test_the_seed_of_a_step_is_the_same_in_every_version() -> None:
    """A checkpoint of an older version goes on with the same dropout."""
    assert step_seed(20211010, 0) == 8932125762994407725


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**7))
def test_step_seeds_are_valid_and_differ_between_steps(seed: int, step: int) -> None:
    assert 0 <= step_seed(seed, step) < 2**63
    assert step_seed(seed, step) != step_seed(seed, step + 1)


def test_a_batch_of_64_over_three_ranks_is_22_21_21() -> None:
    rows = np.arange(64)
    assert [len(rank_part(rows, rank, 3)) for rank in range(3)] == [22, 21, 21]


@given(st.integers(0, 100), st.integers(1, 8))
def test_rank_parts_are_contiguous_and_nearly_equal(size: int, ranks: int) -> None:
    rows = np.arange(size) * 3
    parts = [rank_part(rows, rank, ranks) for rank in range(ranks)]
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert {len(part) for part in parts} <= {size // ranks, -(-size // ranks)}


def test_a_short_last_batch_may_leave_ranks_without_questions() -> None:
    assert [rank_part(np.arange(2), rank, 4).tolist() for rank in range(4)] == [[0], [1], [], []]


def test_every_use_of_a_seed_has_numbers_of_its_own() -> None:
    drawn = {generator(stream, 7, 3).integers(2**63) for stream in Stream}
    assert len(drawn) == len(Stream)
