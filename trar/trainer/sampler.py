"""Randomness and shares of a run: pure functions of a seed and a place, so it can go on anywhere.

Every use of a seed has a stream of its own: what one draws never shifts what another one gets.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Question rows of a batch."""

StoredRows = NDArray[np.unsignedinteger[Any]]
"""Question rows of a whole epoch: uint32, or uint64 where there are 2**32 questions or more."""


class Stream(IntEnum):
    """What random numbers are for; a number once given keeps its meaning for good."""

    ORDER = 0
    STEP = 1
    FRACTION = 2
    MIXTURE = 3
    BLOCKS = 4
    BUCKETS = 5


def generator(stream: Stream, seed: int, *place: int) -> np.random.Generator:
    """The generator of ``stream`` at ``place``, for example an epoch."""
    return np.random.default_rng(_sequence(stream, seed, *place))


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of everything random inside one global step (dropout, Gumbel noise) on one rank,
    63 bits.

    A step thus never depends on how many random numbers were drawn before it.
    """
    place = (step, rank) if rank else (step,)
    state = _sequence(Stream.STEP, seed, *place).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def every_row(questions: int) -> StoredRows:
    """0, 1, … questions - 1 in the smallest type for rows."""
    return np.arange(questions, dtype=np.uint32 if questions <= 1 << 32 else np.uint64)


def steps_per_epoch(questions: int, batch_size: int) -> int:
    """Batches of an epoch; the last one may be short and is kept."""
    return -(-questions // batch_size)


def rows_of_step(epoch: StoredRows, step: int, batch_size: int) -> Rows:
    """The questions of one step of an epoch, (<= batch_size,)."""
    return epoch[step * batch_size : (step + 1) * batch_size].astype(np.int64)


def rank_part(rows: Rows, rank: int, ranks: int) -> Rows:
    """The part of a global batch that ``rank`` of ``ranks`` takes: contiguous, the first ones one
    longer where the batch does not divide (64 over 3: 22, 21, 21).

    Every rank has the same number of steps. A last batch of fewer questions than ranks leaves some
    ranks an empty part: they take part in the step with weight 0.
    """
    share, over = divmod(len(rows), ranks)
    start = rank * share + min(rank, over)
    return rows[start : start + share + (rank < over)]


def _sequence(stream: Stream, seed: int, *place: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, *place), spawn_key=(stream,) if stream else ())
