"""Where each chunk of features lies on disk, resolved once so that reading is a plain file read.

A chunk is one image, or 64 regions where images are ragged: ``chunk_bytes`` of values followed by
four bytes, the little-endian crc32c of those values. The table of an image split is kept in
``chunk-table/<split>.safetensors`` as two columns, the shard's number and the byte offset in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from trar.errors import StoreError
from trar.fileio import atomic_write

FOLDER = "chunk-table"


@dataclass(frozen=True)
class ChunkTable:
    """``shard`` (n,) int32 and ``offset`` (n,) int64 of the n chunks of a split, in order."""

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shard)


def table_file(split: str) -> str:
    """The table's name in the dataset folder."""
    return f"{FOLDER}/{split}.safetensors"


def write_chunk_table(folder: Path, split: str, table: ChunkTable) -> str:
    """Write a split's table atomically; returns its name."""
    name = table_file(split)
    (folder / FOLDER).mkdir(exist_ok=True)
    with atomic_write(folder / name) as file:
        file.write(save({"shard": table.shard, "offset": table.offset}))
    return name


def read_chunk_table(folder: Path, split: str, chunks: int) -> ChunkTable:
    """Read a split's table and check that it covers ``chunks`` chunks.

    Raises:
        StoreError: missing, damaged or of another length.
    """
    path = folder / table_file(split)
    try:
        columns = load(path.read_bytes())
        table = ChunkTable(columns["shard"], columns["offset"])
    except (OSError, SafetensorError, KeyError) as error:
        raise StoreError(
            f"{path}: the chunk table cannot be read ({error}); prepare this dataset again"
        ) from error
    if len(table) != chunks or len(table.offset) != chunks:
        raise StoreError(
            f"{path}: the chunk table has {len(table)} chunks, store.json says {chunks}; "
            "prepare this dataset again"
        )
    return table
