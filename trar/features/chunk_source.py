"""Where the bytes of feature chunks come from: what a source promises to ``RowReader``.

A chunk is one image, or 64 regions where images are ragged: ``chunk_bytes`` of values, in the
store's dtype, little-endian. k counts the chunks of one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Landed = Callable[[int, int | None], None]
"""``landed(k, stored_crc32c)``: the values of chunk k have landed. None: nothing is left to check,
because the source has checked them itself or the container keeps no checksum."""


class ChunkFault(Exception):  # noqa: N818  (a StoreError is made of it)
    """Chunk ``number`` of a call cannot be had; ``why`` follows "image 7 of train", for example
    "is cut short: 12 of 262148 bytes". ``RowReader`` makes a StoreError of it that names the
    store, the shard, the image and the way out."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(number, why)
        self.number, self.why = number, why


class ChunkSource(Protocol):
    """Reads chunks of a store. Safe to share between threads, and across fork and pickling:
    handles belong to a process, are opened late and dropped on pickling."""

    def read(
        self, split: str, chunks: NDArray[np.int64], out: NDArray[Any], landed: Landed
    ) -> None:
        """Fill ``out`` (k, chunk_bytes) uint8: ``out[i]`` with the values of chunk ``chunks[i]``.

        Each row of ``out`` is contiguous, the rows need not lie next to each other. ``landed`` is
        called once a chunk, as soon as its values are there, so that they are checked while they
        are in the processor's cache; from any thread, but never after this has returned. What it
        raises ends the read.

        Raises:
            ChunkFault: a chunk that is missing, cut short or cannot be read.
        """


def unchecked(number: int, stored_crc32c: int | None) -> None:
    """A ``landed`` that checks nothing: a source need not look for checksums then."""
