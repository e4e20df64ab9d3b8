"""Where each chunk of features lies on disk, resolved once so that reading is a plain file read.

A chunk is one image, or 64 regions where images are ragged: ``chunk_bytes`` of values followed by
four bytes, the little-endian crc32c of those values. The table of an image split is kept in
``chunk-table/<split>.safetensors`` as two columns, the shard's number and the byte offset in it.
Where the checksum does not follow the values (HDF5) it is a third column; where chunks are
compressed, their sizes are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from trar.errors import REMAKE, StoreError
from trar.fileio import atomic_write

FOLDER = "chunk-table"


@dataclass(frozen=True)
class ChunkTable:
    """``shard`` (n,) int32 and ``offset`` (n,) int64 of the n chunks of a split, in order, and
    ``crc32c`` (n,) uint32 of their values, None where it follows them in the file; ``size`` (n,)
    int64, bytes with the checksum, None where all are as long as the values need."""

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    crc32c: NDArray[np.uint32] | None = None
    size: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.shard)

    def where(self, chunks: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Shard and offset of each of ``chunks`` (k,)."""
        return zip(self.shard[chunks].tolist(), self.offset[chunks].tolist(), strict=True)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns that there are, by name."""
        some = {"crc32c": self.crc32c, "size": self.size}
        given = {name: column for name, column in some.items() if column is not None}
        return {"shard": self.shard, "offset": self.offset, **given}

    def equals(self, other: ChunkTable) -> bool:
        """Whether all columns are the same."""
        mine, its = self.columns(), other.columns()
        return mine.keys() == its.keys() and all(np.array_equal(mine[key], its[key]) for key in its)


def table_file(split: str) -> str:
    """The table's name in the dataset folder."""
    return f"{FOLDER}/{split}.safetensors"


def write_chunk_table(folder: Path, split: str, table: ChunkTable) -> str:
    """Write a split's table atomically; returns its name."""
    name = table_file(split)
    (folder / FOLDER).mkdir(exist_ok=True)
    with atomic_write(folder / name) as file:
        file.write(save(table.columns()))
    return name


def read_chunk_table(
    folder: Path, split: str, chunks: int, digest: str | None = None
) -> ChunkTable:
    """Read a split's table, check that it covers ``chunks`` chunks and, where given, its sha256:
    a wrong place may hold another image, sound in itself.

    Raises:
        StoreError: missing, damaged or of another length.
    """
    path = folder / table_file(split)
    try:
        data = path.read_bytes()
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise SafetensorError("not the sha256 that store.json states")
        columns = load(data)
        table = ChunkTable(**columns)
    except (OSError, SafetensorError, TypeError) as error:
        raise StoreError(f"{path}: the chunk table cannot be read ({error}); {REMAKE}") from error
    if any(len(column) != chunks for column in table.columns().values()):
        raise StoreError(
            f"{path}: the chunk table has {len(table)} chunks, store.json says {chunks}; {REMAKE}"
        )
    return table
