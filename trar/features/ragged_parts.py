"""Cuts a batch of ragged images into the parts that lie in each chunk.

Image i of a batch has the flat rows ``begin[i]:begin[i] + lengths[i]``; a chunk is a fixed number
of flat rows, wherever images begin and end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Part = tuple[int, int, int, int]
"""Number of the image in the batch, first row there, first row in the chunk, number of rows."""


class RaggedParts(NamedTuple):
    """``chunks`` (k,) ascending, each once; those in chunk i are ``parts[ends[i]:ends[i + 1]]``.

    Every row of every image is in exactly one part."""

    chunks: NDArray[np.int64]
    ends: list[int]
    parts: list[Part]

    def of_chunk(self, number: int) -> list[Part]:
        """The parts in ``chunks[number]``."""
        return self.parts[self.ends[number] : self.ends[number + 1]]


def cut(begin: NDArray[np.int64], lengths: NDArray[np.int32], chunk_rows: int) -> RaggedParts:
    """The chunks that images (b,) lie in, and which of their rows go where."""
    end = begin + lengths
    first = begin // chunk_rows
    touched = np.where(lengths > 0, (end - 1) // chunk_rows - first + 1, 0)
    image = np.repeat(np.arange(len(begin)), touched)
    chunk = first[image] + np.arange(len(image)) - np.repeat(touched.cumsum() - touched, touched)
    order = np.argsort(chunk, kind="stable")
    image, chunk = image[order], chunk[order]
    start = np.maximum(begin[image], chunk * chunk_rows)
    count = np.minimum(end[image], (chunk + 1) * chunk_rows) - start
    columns = image, start - begin[image], start - chunk * chunk_rows, count
    chunks, starts = np.unique(chunk, return_index=True)
    parts = list(zip(*(column.tolist() for column in columns), strict=True))
    return RaggedParts(chunks, [*starts.tolist(), len(parts)], parts)
