"""One HDF5 shard: the features of its images, the crc32c of each chunk, and cells or boxes beside.

``features`` (images, rows, width) has one image a chunk; where images are ragged it is (regions,
width) in chunks of 64 rows. ``features_crc32c`` holds one uint32 a chunk, because HDF5 has no such
filter. A shard is made in memory, so that writing one takes about twice its size of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features.hdf5_columns import (
    MemoryFile,
    damage,
    open_file,
    own_dataset,
    read_columns,
    write_column,
)
from trar.features.schema import FeatureSpec, FileEntry
from trar.fileio import disk_errors

FEATURES = "features"
CHECKSUMS = "features_crc32c"
_FLETCHER_BYTES = 4  # HDF5 appends them to each chunk


class ShardChunks(NamedTuple):
    """Where each of a shard's chunks begins, ``offset`` (n,) int64, its ``crc32c`` (n,) uint32."""

    offset: NDArray[np.int64]
    crc32c: NDArray[np.uint32]


class ShardBuilder:
    """A shard in the making: take chunks in, then the columns beside them, then its bytes."""

    def __init__(self, spec: FeatureSpec, shard_images: int) -> None:
        chunk = (spec.chunk_rows, spec.width) if spec.ragged else (1, spec.rows, spec.width)
        whole = (shard_images * chunk[0], *chunk[1:])
        self._made = MemoryFile()
        self._step = chunk[0]
        self._features = self._made.file.create_dataset(
            FEATURES,
            shape=whole,
            maxshape=whole,
            chunks=chunk,
            dtype=np.dtype(spec.dtype).newbyteorder("<"),
            fletcher32=True,
            fillvalue=0,
            track_times=False,
        )
        self._checksums: list[int] = []

    def add(self, chunks: Iterable[NDArray[np.generic]]) -> None:
        """Append chunks, each (chunk_rows, width)."""
        for values in chunks:
            plain = np.ascontiguousarray(values, self._features.dtype)
            begin = len(self._checksums) * self._step
            self._features[begin : begin + self._step] = plain
            self._checksums.append(crc32c(plain.reshape(-1).view(np.uint8).data))

    def finish(self, sides: Mapping[str, NDArray[Any]]) -> memoryview:
        """The shard's bytes, with ``sides`` (cells, boxes) beside the features."""
        self._features.resize(len(self._checksums) * self._step, axis=0)
        with self._made:
            write_column(self._made.file, CHECKSUMS, np.array(self._checksums, np.uint32))
            for name in sorted(sides):
                write_column(self._made.file, name, sides[name])
        return self._made.data

    def close(self) -> None:
        """Let the memory go."""
        self._made.file.close()


def write_bytes(target: Path, data: memoryview) -> FileEntry:
    """Write a whole file durably."""
    with disk_errors(target), target.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(data.nbytes, hashlib.sha256(data).hexdigest())


def read_chunks(path: Path) -> ShardChunks:
    """Where the chunks of a shard lie, from HDF5's own index, and their checksums.

    Raises:
        StoreError: missing, damaged, or not laid out as docs/format.md has it: plain file reads
            would misread another byte order, filter or shape.
    """
    with damage(path):
        size_bytes = path.stat().st_size
        with open_file(path) as file:
            dataset = own_dataset(file, FEATURES, size_bytes)
            offset = _offsets(dataset, size_bytes)
            if file.userblock_size:
                raise StoreError("it has a user block")
        checksums = read_columns(path, [CHECKSUMS])[CHECKSUMS]
        if checksums.dtype != np.uint32 or checksums.shape != offset.shape:
            raise StoreError(f"{len(checksums)} checksums of {len(offset)} chunks")
    return ShardChunks(offset, checksums)


def _offsets(dataset: h5py.Dataset, size_bytes: int) -> NDArray[np.int64]:
    filters = dataset.id.get_create_plist().get_nfilters()
    form = (dataset.dtype.str, dataset.chunks and dataset.chunks[1:], filters)
    if form[0] not in ("<f2", "<f4") or form[1] != dataset.shape[1:] or form[2] != 1:
        raise StoreError(
            f"{FEATURES} is not in the layout of docs/format.md (little-endian, whole images or "
            f"regions a chunk, fletcher32 alone): type {form[0]}, chunks {dataset.chunks} of "
            f"{dataset.shape}, {form[2]} filters"
        )
    step = dataset.chunks[0]
    values_bytes = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    offset = np.full(-(-dataset.shape[0] // step), -1, np.int64)

    def place(chunk: Any) -> None:
        last = chunk.byte_offset + chunk.size
        if chunk.size == values_bytes + _FLETCHER_BYTES and last <= size_bytes:
            offset[chunk.chunk_offset[0] // step] = chunk.byte_offset

    dataset.id.chunk_iter(place)
    if (offset < 0).any():
        raise StoreError(f"chunk {int(np.argmax(offset < 0))} is absent or of another size")
    return offset
