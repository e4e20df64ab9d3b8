"""The order of questions: pure functions of (seed, epoch), so a run can continue anywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def epoch_order(questions: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A uniform permutation of all questions, (questions,)."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(questions)


def steps_per_epoch(questions: int, batch_size: int) -> int:
    """Batches of an epoch; the last one may be short and is kept."""
    return -(-questions // batch_size)


def rows_of_step(order: NDArray[np.int64], step: int, batch_size: int) -> NDArray[np.int64]:
    """The questions of one step of an epoch, (<= batch_size,)."""
    return order[step * batch_size : (step + 1) * batch_size]


def step_seed(seed: int, step: int) -> int:
    """The seed of everything random inside one global step (dropout, Gumbel noise), 63 bits.

    A step thus never depends on how many random numbers were drawn before it.
    """
    # the spawn key keeps these streams apart from those of epoch_order
    state = np.random.SeedSequence((seed, step), spawn_key=(1,)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
