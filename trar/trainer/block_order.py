"""Block-shuffled order: every image is read once an epoch, its questions are mixed in a window.

Images stand in the store one after the other. The images that an epoch needs are cut into blocks
of neighbours, which are read in long sequential runs; the blocks are permuted and laid end to end;
and that line is cut into windows of equal size. All questions about the images of a window are
mixed uniformly with each other and with no others. m = questions of an epoch, k = images of a
window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.trainer.question_index import QuestionIndex
from trar.trainer.sampler import StoredRows


@dataclass(frozen=True, eq=False)
class Window:
    """Images to hold, (k,) int64 keys (see ``question_index``), ascending, while questions at
    positions ``start`` to ``stop`` of the epoch are used."""

    images: NDArray[np.int64]
    start: int
    stop: int

    def steps(self, batch_size: int) -> range:
        """The steps of the epoch whose batches hold questions of this window."""
        return range(self.start // batch_size, -(-self.stop // batch_size))


def gather_in_windows(
    rows: StoredRows,
    index: QuestionIndex,
    *,
    window_images: int,
    block_images: int,
    random: np.random.Generator,
) -> tuple[StoredRows, tuple[Window, ...]]:
    """Regroup ``rows`` (m,), a uniformly mixed epoch, by windows of at most ``window_images``
    images. Inside a window questions keep the order that they had in ``rows``, which mixes them
    uniformly.

    Windows are of equal size, so none is too small to mix in. Every one but the last has questions
    for a batch, provided that ``window_images`` is at least twice a batch.
    """
    first = np.cumsum([0, *index.image_counts], dtype=np.int32)
    image = first[index.image_split[rows]]  # counted through the splits
    image += index.image_row[rows]
    used = np.zeros(first[-1], np.bool_)
    used[image] = True
    images = np.flatnonzero(used)
    windows = -(-len(images) // window_images)
    line = images[_line_of_blocks(len(images), block_images, random)]
    # radix sort keeps up with a million questions where the numbers have 16 bits
    window_of = np.zeros(first[-1], np.uint16 if windows <= 1 << 16 else np.uint32)
    window_of[line] = np.arange(len(images)) * windows // len(images)
    window = window_of[image]
    del image
    ends = np.cumsum(np.bincount(window, minlength=windows)).tolist()
    split = np.searchsorted(first, images, side="right") - 1
    keys = split << 32 | images - first[split]
    by_window = np.argsort(window_of[images], kind="stable")
    cuts = np.cumsum(np.bincount(window_of[images], minlength=windows))[:-1]
    return rows[np.argsort(window, kind="stable")], tuple(
        map(Window, np.split(keys[by_window], cuts), [0, *ends[:-1]], ends)
    )


def _line_of_blocks(
    images: int, block_images: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Image numbers with blocks of neighbours permuted, (images,)."""
    starts = np.arange(0, images, block_images)
    random.shuffle(starts)
    line = (starts[:, None] + np.arange(block_images)).ravel()
    return line[line < images]
