"""Batches of questions of similar length: the same questions an epoch, composed otherwise.

A batch is padded to its longest question. Sorting a pool of batches by length before it is cut
saves the recurrent network the padding; the batches of a pool are then put in random order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.trainer.sampler import StoredRows


def sort_pools(
    rows: StoredRows,
    token_length: NDArray[np.integer[Any]],
    *,
    batch_size: int,
    pool_batches: int,
    bounds: Sequence[int] = (),
    random: np.random.Generator,
) -> None:
    """Rearrange ``rows``, a mixed epoch, in place. ``token_length`` is by row.

    No question moves over one of the positions ``bounds`` (ascending): those are the windows of a
    block order. Batches with questions of both sides of a bound, and a short last batch, stay.
    """
    for first, last in itertools.pairwise([0, *bounds, len(rows)]):
        begin, end = -(-first // batch_size) * batch_size, last // batch_size * batch_size
        for start in range(begin, end, pool_batches * batch_size):
            pool = rows[start : min(start + pool_batches * batch_size, end)]
            # equal lengths keep their random order
            by_length = np.argsort(token_length[pool], kind="stable")
            batches = pool[by_length].reshape(-1, batch_size)
            pool[:] = random.permutation(batches).ravel()
