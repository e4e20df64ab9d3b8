"""How well an order mixes: how far the composition of its batches is from that of the epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.trainer.orders import Order
from trar.trainer.question_index import QuestionIndex


@dataclass(frozen=True)
class ShuffleQuality:
    """Means over the full batches of an epoch. ``distance``: total variation between the kinds of
    a batch and those of the epoch, 0 = the same mixture, 1 = nothing in common; a uniform order
    has the value that chance gives a batch of that size. ``images``: different images in a batch.
    """

    distance: float
    images: float


def shuffle_quality(
    order: Order, index: QuestionIndex, kinds: NDArray[np.int64], *, epoch: int = 0
) -> ShuffleQuality:
    """Measure one epoch; ``kinds`` (q,) says of which kind each question is, from 0, for example
    its answer, or the part of the store that its image stands in."""
    batches = [order.rows(epoch, step) for step in range(order.steps)]
    whole = np.bincount(kinds[np.concatenate(batches)])
    expected = whole / whole.sum()
    full = [rows for rows in batches if len(rows) == order.batch_size]
    distances = [
        np.abs(np.bincount(kinds[rows], minlength=len(whole)) / len(rows) - expected).sum() / 2
        for rows in full
    ]
    images = [len(np.unique(index.image_key(rows))) for rows in full]
    return ShuffleQuality(float(np.mean(distances)), float(np.mean(images)))
