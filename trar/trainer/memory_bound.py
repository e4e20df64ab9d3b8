"""How much memory the loader takes at most, worked out before anything is read.

All figures in bytes. Counted as memory is what belongs to the process alone (anonymous pages,
``RssAnon``); tables that are mapped files are page cache, which the system takes back when it needs
it, and are stated apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from trar.features.library_source import split_of
from trar.features.row_reader import SCRATCH_CHUNKS
from trar.features.schema import StoreMeta

BATCH_SIZE, PREFETCH = 64, 4  # of the presets
_ORDER_BYTES = 40  # a question, measured: its place in the order, its image, its length
_BLOCK_ORDER_BYTES = 80  # the sorting by windows takes more, for a moment
_HANDLE_BYTES = 2048  # an open shard
_CHUNK_BYTES = 16  # where a chunk lies
_TARGET_BYTES = 200  # of a question in a batch: ten scored answers of 20 bytes
_TOKEN_BYTES = 8


@dataclass(frozen=True)
class MemoryBound:
    """``ring``: the buffers of batches; ``window``: two windows of images, in block order;
    ``tables``: the order of the questions; ``handles``: open shards and where chunks lie in them;
    ``mapped``: the store's tables as mapped files, not counted in ``total``."""

    ring: int
    window: int
    tables: int
    handles: int
    mapped: int

    @property
    def total(self) -> int:
        """Bytes of memory at most."""
        return self.ring + self.window + self.tables + self.handles

    def describe(self) -> str:
        """For people, on one line."""
        window = f"window {size_text(self.window)}, " if self.window else ""
        return (
            f"loader memory at most {size_text(self.total)}: ring {size_text(self.ring)}, {window}"
            f"tables {size_text(self.tables + self.handles)}, and {size_text(self.mapped)} mapped"
        )


def memory_bound(
    meta: StoreMeta,
    *,
    questions: int,
    batch_size: int,
    buffers: int,
    threads: int,
    window_bytes: int,
) -> MemoryBound:
    """The bound of a loader with ``buffers`` batches of ``batch_size`` questions in memory, read
    by ``threads``, and two windows of ``window_bytes`` (0: no windows), over ``questions``
    questions."""
    spec = meta.feature
    chunks_a_thread = SCRATCH_CHUNKS * spec.ragged + 2 * (spec.compression is not None)
    scratch = max(1, threads) * chunks_a_thread * spec.chunk_bytes
    sides = spec.rows * (17 if spec.boxes else 1)  # cells, boxes
    tokens = meta.longest_question * _TOKEN_BYTES
    chunks = sum(split.chunks(spec) for split in meta.image_splits.values())
    shards = sum(split.shards(spec) for split in meta.image_splits.values())
    return MemoryBound(
        ring=buffers * batch_size * (image_bytes(meta) + sides + tokens + _TARGET_BYTES) + scratch,
        window=2 * window_bytes,
        tables=questions * (_BLOCK_ORDER_BYTES if window_bytes else _ORDER_BYTES),
        handles=shards * _HANDLE_BYTES + chunks * _CHUNK_BYTES,
        mapped=_table_bytes(meta),
    )


def usual_bound(meta: StoreMeta) -> MemoryBound:
    """The bound of a loader over all questions of a store, with the settings of the presets."""
    return memory_bound(
        meta,
        questions=sum(split.questions for split in meta.question_splits.values()),
        batch_size=BATCH_SIZE,
        buffers=1 + PREFETCH,
        threads=1,
        window_bytes=0,
    )


def image_bytes(meta: StoreMeta) -> int:
    """Bytes of the features of one image, at most."""
    spec = meta.feature
    return spec.rows * spec.width * np.dtype(spec.dtype).itemsize


def size_text(size: int) -> str:
    """Bytes for people: ``84.0 MiB``."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} GiB"


def parse_size(value: object) -> object:
    """``"8G"``, ``"512M"`` and the like in bytes, powers of 1024; what is no text stays as it is.

    Raises:
        ValueError: a text that is no size.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", value, re.IGNORECASE)
    if found is None:
        raise ValueError("a size such as 8G or 512M")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def _table_bytes(meta: StoreMeta) -> int:
    """Everything but the features themselves."""
    return sum(entry.bytes for name, entry in meta.files.items() if split_of(meta, name) is None)
