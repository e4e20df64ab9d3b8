"""The order of questions is a permutation and a pure function."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trar.trainer.sampler import epoch_order, rows_of_step, step_seed, steps_per_epoch


@given(st.integers(1, 300), st.integers(1, 70), st.integers(0, 9), st.integers(0, 9))
def test_every_question_comes_once_an_epoch(
    questions: int, batch_size: int, seed: int, epoch: int
) -> None:
    order = epoch_order(questions, seed=seed, epoch=epoch)
    steps = steps_per_epoch(questions, batch_size)
    batches = [rows_of_step(order, step, batch_size) for step in range(steps)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(questions))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_order(50, seed=1, epoch=2)
    np.random.default_rng().random(7)
    np.testing.assert_array_equal(first, epoch_order(50, seed=1, epoch=2))
    assert (first != epoch_order(50, seed=1, epoch=3)).any()
    assert (first != epoch_order(50, seed=2, epoch=2)).any()


def test_the_order_is_the_same_in_every_version() -> None:
    """A checkpoint of an older version goes on in the order that it began with."""
    assert epoch_order(8, seed=20211010, epoch=0).tolist() == [2, 4, 1, 6, 3, 0, 5, 7]
    assert step_seed(20211010, 0) == 8932125762994407725


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**7))
def test_step_seeds_are_valid_and_differ_between_steps(seed: int, step: int) -> None:
    assert 0 <= step_seed(seed, step) < 2**63
    assert step_seed(seed, step) != step_seed(seed, step + 1)
